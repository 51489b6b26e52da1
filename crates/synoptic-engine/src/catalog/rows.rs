//! Tables whose rows are made when they are scanned.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;

/// Conditions `column = 'text'` that every row must meet, by column. Only to make fewer rows: the
/// engine checks them again.
pub(super) type Wanted = BTreeMap<String, String>;

/// Makes the rows of a table.
#[async_trait]
pub(super) trait Rows: Debug + Send + Sync + 'static {
    fn schema(&self) -> SchemaRef;
    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch>;
}

/// A table over [`Rows`].
#[derive(Debug)]
pub(super) struct RowsTable(pub(super) Arc<dyn Rows>);

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = filters.iter().filter_map(equality).collect();
        let batch = self.0.rows(&wanted).await?;
        let schema = self.0.schema();
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, projection.cloned())?)
    }
}

fn equality(filter: &Expr) -> Option<(String, String)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
        return None;
    };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _))
        | (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
        _ => return None,
    };
    let Column { name, .. } = column;
    let text = match value {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::Utf8View(Some(text))
        | ScalarValue::LargeUtf8(Some(text)) => text,
        _ => return None,
    };
    Some((name.clone(), text.clone()))
}

/// A schema of such tables.
#[derive(Debug)]
pub(super) struct RowsSchema(pub(super) Vec<(&'static str, Arc<dyn Rows>)>);

#[async_trait]
impl SchemaProvider for RowsSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let rows = self.0.iter().find(|(known, _)| *known == name).map(|(_, rows)| rows);
        Ok(rows.map(|rows| Arc::new(RowsTable(Arc::clone(rows))) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}
