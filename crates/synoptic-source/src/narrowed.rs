//! A prepared scan made smaller while the statement runs.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DataFusionError};
use datafusion_expr::Expr;
use synoptic_types::Reason;

use crate::fragment::Fragment;
use crate::relation::{JoinKind, Operator, Relation};
use crate::source::PreparedScan;

/// What a scan does with conditions that became known when the plan was running already.
#[derive(Debug)]
pub struct Narrowed {
    /// The same scan with the same schema and partitions, and with the conditions in its text. It
    /// takes the place of the scan it was made from, which is not opened then.
    pub scan: Arc<dyn PreparedScan>,
    /// Conditions the source cannot apply as they are meant, and why.
    pub left: Vec<(Expr, Reason)>,
}

/// How many keys a source takes in one condition, and what they cost it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyLimits {
    /// More keys are not sent one by one.
    pub keys: usize,
    /// Nor longer lists of them.
    pub bytes: usize,
    /// Microseconds that the source spends on one more key before it reads a row.
    pub each: f64,
}

impl KeyLimits {
    /// A list in an SQL text.
    pub const LIST: Self = Self { keys: 10_000, bytes: 512 << 10, each: 2.0 };
}

impl Relation {
    /// The relation with only those of its rows for which `condition` is true, which is over its
    /// columns as [`Relation::column`] spells them. It stands as far down as it means the same
    /// there: on the rows of a table, at best.
    pub fn narrowed(self: &Arc<Self>, condition: &Expr) -> Arc<Self> {
        self.narrowed_below(condition).unwrap_or_else(|| {
            Arc::new(Self {
                operator: Operator::Filter {
                    input: Arc::clone(self),
                    predicate: condition.clone(),
                },
                schema: Arc::clone(&self.schema),
            })
        })
    }

    /// With the condition below the root; `None` when it would mean something else there.
    fn narrowed_below(&self, condition: &Expr) -> Option<Arc<Self>> {
        let operator = match &self.operator {
            // A limit counts the rows before the condition.
            Operator::Scan(fragment) if fragment.limit.is_some() => return None,
            Operator::Scan(fragment) => {
                let mut fragment = fragment.clone();
                fragment.filters.push(fragment.named(condition)?);
                Operator::Scan(fragment)
            }
            Operator::Filter { input, predicate } => {
                Operator::Filter { input: input.narrowed(condition), predicate: predicate.clone() }
            }
            Operator::Project { input, exprs } => {
                let below = moved(condition, |column| passing(exprs.get(column)?))?;
                Operator::Project { input: input.narrowed(&below), exprs: exprs.clone() }
            }
            // Of a group all rows have the key or none has.
            Operator::Aggregate { input, groups, aggregates } => {
                let below = moved(condition, |column| passing(groups.get(column)?))?;
                Operator::Aggregate {
                    input: input.narrowed(&below),
                    groups: groups.clone(),
                    aggregates: aggregates.clone(),
                }
            }
            Operator::Join { left, right, kind, on, filter } => {
                let width = left.schema.fields().len();
                let of_left = |column: usize| (column < width).then_some(column);
                let (left, right) = match moved(condition, of_left) {
                    Some(condition) => (left.narrowed(&condition), Arc::clone(right)),
                    // Every other join keeps rows of the left side for what the right one has not.
                    None if *kind == JoinKind::Inner => {
                        let condition = moved(condition, |column| column.checked_sub(width))?;
                        (Arc::clone(left), right.narrowed(&condition))
                    }
                    None => return None,
                };
                let (on, filter) = (on.clone(), filter.clone());
                Operator::Join { left, right, kind: *kind, on, filter }
            }
            Operator::Union { inputs } => Operator::Union {
                inputs: inputs.iter().map(|input| input.narrowed(condition)).collect(),
            },
            // They count rows, too.
            Operator::TopN { .. } | Operator::Limit { .. } => return None,
        };
        Some(Arc::new(Self { operator, schema: Arc::clone(&self.schema) }))
    }
}

impl Fragment {
    /// `condition`, over the columns the fragment yields as [`Relation::column`] spells them, over
    /// the table's columns by name; `None` when it has others.
    pub fn named(&self, condition: &Expr) -> Option<Expr> {
        replaced(condition, |column| {
            let column = *self.projection.get(column)?;
            let name = self.table.schema.fields().get(column)?.name();
            Some(Expr::Column(Column::new_unqualified(name.clone())))
        })
    }
}

/// Which input's column an expression is, when it is no more than that.
fn passing(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => Relation::index_of(&column.name),
        _ => None,
    }
}

/// `condition` over other columns; `None` when one of its columns has no place there.
fn moved(condition: &Expr, to: impl Fn(usize) -> Option<usize>) -> Option<Expr> {
    replaced(condition, |column| to(column).map(Relation::column))
}

fn replaced(condition: &Expr, by: impl Fn(usize) -> Option<Expr>) -> Option<Expr> {
    let mut all = true;
    let replaced = condition.clone().transform_down(|expr| match &expr {
        Expr::Column(column) => Ok(match Relation::index_of(&column.name).and_then(&by) {
            Some(column) => Transformed::new(column, true, TreeNodeRecursion::Jump),
            None => {
                all = false;
                Transformed::new(expr, false, TreeNodeRecursion::Stop)
            }
        }),
        _ => Ok::<_, DataFusionError>(Transformed::no(expr)),
    });
    replaced.ok().filter(|_| all).map(|replaced| replaced.data)
}
