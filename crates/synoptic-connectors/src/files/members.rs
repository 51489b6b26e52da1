//! A list of many values as one expression. What prepares a filter for a file goes through all of
//! its expressions, several times per file: through 30,000 literals that takes longer than to read
//! the file. No statistics can be compared with so many values anyway.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::InListExpr;

/// Lists of more values are made one expression. DataFusion compares statistics with 20 at most.
const MOST_VALUES: usize = 20;

/// `expr IN (…)`, of which only `expr` is seen.
#[derive(Debug, Clone)]
pub struct Members {
    expr: Arc<dyn PhysicalExpr>,
    /// Over the same expression.
    list: Arc<dyn PhysicalExpr>,
}

impl Members {
    /// `list` as one expression when it is long, over `expr` instead of its own.
    pub fn of(
        list: &Arc<dyn PhysicalExpr>,
        replace: impl FnOnce(&Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Option<Self>> {
        let Some(long) = list.downcast_ref::<InListExpr>().filter(|l| l.len() > MOST_VALUES) else {
            return Ok(None);
        };
        let expr = replace(long.expr())?;
        Ok(Some(Self { list: over(list, &expr)?, expr }))
    }
}

fn over(
    list: &Arc<dyn PhysicalExpr>,
    expr: &Arc<dyn PhysicalExpr>,
) -> DfResult<Arc<dyn PhysicalExpr>> {
    let values = list.children().into_iter().skip(1).cloned();
    let children = std::iter::once(Arc::clone(expr)).chain(values).collect();
    Arc::clone(list).with_new_children(children)
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list)
    }
}

impl Eq for Members {}

impl Hash for Members {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.list).cast::<()>().hash(state);
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.list.children().len().saturating_sub(1);
        write!(f, "{} IN ({values} values)", self.expr)
    }
}

impl PhysicalExpr for Members {
    fn return_field(&self, input_schema: &Schema) -> DfResult<FieldRef> {
        self.list.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        self.list.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.expr]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        let [expr] = children.as_slice() else {
            return Err(DataFusionError::Internal("a list of values has one child".to_owned()));
        };
        let list = over(&self.list, expr)?;
        Ok(Arc::new(Self { expr: Arc::clone(expr), list }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
