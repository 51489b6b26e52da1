//! A part of a plan that one source runs as a whole.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::Column;
use datafusion_expr::Expr;

use crate::fragment::Fragment;
use crate::table::TableDef;

/// A relational tree over the tables of one source. Never SQL text: each connector renders it.
///
/// Columns have no names inside the tree. An expression over a node's inputs refers to their
/// columns by position, as [`Relation::column`] spells it: `c0`, `c1`, …; those of a join's right
/// side follow those of its left side.
#[derive(Debug, Clone)]
pub struct Relation {
    /// What is done.
    pub operator: Operator,
    /// The exact types of the columns it yields. The names matter only at the root, where they
    /// are those of the batches; they need not be unique.
    pub schema: SchemaRef,
}

/// One operator with its inputs.
#[derive(Debug, Clone)]
pub enum Operator {
    /// Rows of one table.
    Scan(Fragment),
    /// The rows for which `predicate` is true.
    Filter {
        /// Where the rows come from.
        input: Arc<Relation>,
        /// A condition over the input's columns.
        predicate: Expr,
    },
    /// One value per expression and row.
    Project {
        /// Where the rows come from.
        input: Arc<Relation>,
        /// Over the input's columns.
        exprs: Vec<Expr>,
    },
    /// One row per group: first the group's values, then the aggregates. Without `groups` there
    /// is one row, even of nothing.
    Aggregate {
        /// Where the rows come from.
        input: Arc<Relation>,
        /// Values that are equal (NULL is equal to NULL) make a group.
        groups: Vec<Expr>,
        /// What is computed of each group.
        aggregates: Vec<Aggregate>,
    },
    /// Pairs of rows, or the rows of the left side that have, or have not, a partner.
    Join {
        /// The left side.
        left: Arc<Relation>,
        /// The right side.
        right: Arc<Relation>,
        /// Which rows it yields.
        kind: JoinKind,
        /// Equalities: each an expression over the left side's columns and one over the right
        /// side's, both numbered as the columns of the join. NULL equals nothing.
        on: Vec<(Expr, Expr)>,
        /// A further condition on what a partner is, over the columns of both sides.
        filter: Option<Expr>,
    },
    /// The rows of all inputs, of which there is at least one and whose columns have the same types:
    /// UNION ALL.
    Union {
        /// Where the rows come from.
        inputs: Vec<Arc<Relation>>,
    },
    /// The first `fetch` rows in an order. In which order they come is not promised.
    TopN {
        /// Where the rows come from.
        input: Arc<Relation>,
        /// The order.
        keys: Vec<SortKey>,
        /// How many rows.
        fetch: usize,
    },
    /// Any `fetch` rows.
    Limit {
        /// Where the rows come from.
        input: Arc<Relation>,
        /// How many rows.
        fetch: usize,
    },
}

/// What sources are asked to do, without the details; a [`crate::Capabilities`] lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorKind {
    /// [`Operator::Scan`], which every source has.
    Scan,
    /// [`Operator::Filter`].
    Filter,
    /// [`Operator::Project`].
    Project,
    /// [`Operator::Aggregate`].
    Aggregate,
    /// [`Operator::Join`].
    Join,
    /// [`Operator::Union`].
    Union,
    /// [`Operator::TopN`].
    TopN,
    /// [`Operator::Limit`].
    Limit,
}

/// One aggregate of a group.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// DataFusion's name of the function, for example `sum`.
    pub function: String,
    /// Over the input's columns.
    pub args: Vec<Expr>,
    /// Only values that differ are counted.
    pub distinct: bool,
    /// Only rows for which it is true are counted.
    pub filter: Option<Expr>,
}

/// Which rows a join yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Every pair.
    Inner,
    /// Every pair, and rows of the left side without one, with NULLs for the right side.
    Left,
    /// Rows of the left side with a partner.
    Semi,
    /// Rows of the left side without a partner.
    Anti,
}

/// One key of an order.
#[derive(Debug, Clone)]
pub struct SortKey {
    /// Over the input's columns.
    pub expr: Expr,
    /// From the least to the greatest.
    pub ascending: bool,
    /// NULLs come first, whatever the direction.
    pub nulls_first: bool,
}

impl Relation {
    /// Column `index` of a node's inputs, in an expression.
    pub fn column(index: usize) -> Expr {
        Expr::Column(Column::new_unqualified(format!("c{index}")))
    }

    /// Which column of a node's inputs a name in an expression is.
    pub fn index_of(name: &str) -> Option<usize> {
        name.strip_prefix('c')?.parse().ok()
    }

    /// What its root does.
    pub fn kind(&self) -> OperatorKind {
        match &self.operator {
            Operator::Scan(_) => OperatorKind::Scan,
            Operator::Filter { .. } => OperatorKind::Filter,
            Operator::Project { .. } => OperatorKind::Project,
            Operator::Aggregate { .. } => OperatorKind::Aggregate,
            Operator::Join { .. } => OperatorKind::Join,
            Operator::Union { .. } => OperatorKind::Union,
            Operator::TopN { .. } => OperatorKind::TopN,
            Operator::Limit { .. } => OperatorKind::Limit,
        }
    }

    /// The root's inputs, in order.
    pub fn inputs(&self) -> Vec<&Arc<Relation>> {
        match &self.operator {
            Operator::Scan(_) => vec![],
            Operator::Filter { input, .. }
            | Operator::Project { input, .. }
            | Operator::Aggregate { input, .. }
            | Operator::TopN { input, .. }
            | Operator::Limit { input, .. } => vec![input],
            Operator::Join { left, right, .. } => vec![left, right],
            Operator::Union { inputs } => inputs.iter().collect(),
        }
    }

    /// The tables it reads, left to right; one that is read twice comes twice.
    pub fn tables(&self) -> Vec<&Arc<TableDef>> {
        match &self.operator {
            Operator::Scan(fragment) => vec![&fragment.table],
            _ => self.inputs().into_iter().flat_map(|input| input.tables()).collect(),
        }
    }

    /// The type of column `index`.
    pub fn data_type(&self, index: usize) -> Option<&DataType> {
        self.schema.fields().get(index).map(|field| field.data_type())
    }
}

impl fmt::Display for OperatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scan => "a scan",
            Self::Filter => "a filter over other operators",
            Self::Project => "expressions",
            Self::Aggregate => "aggregates",
            Self::Join => "joins",
            Self::Union => "UNION ALL",
            Self::TopN => "a sort with a limit",
            Self::Limit => "a limit over other operators",
        })
    }
}
