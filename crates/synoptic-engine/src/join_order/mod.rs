//! The order of inner joins, decided by what they cost and not by how the query was written.
//!
//! After DataFusion's logical optimisation and before the cut, each maximal tree of inner joins
//! (cross joins and the filters between them included) is taken apart (`region.rs`), its relations
//! and conditions are estimated from the statistics the sources give (`estimate.rs`,
//! `selectivity.rs`), the cheapest order is looked for (`enumerate.rs` over `graph.rs`), and the
//! joins are put together again below the same columns.
//!
//! ```text
//! LogicalPlan ─► Region { leaves, conditions } ─► Graph ─► Tree ─► LogicalPlan
//! ```
//!
//! The cost counts the rows of all joins between, and what leaves the sources when a part of them
//! runs at one source, as the cut decides it. A tree keeps its written order when nothing is known
//! of one of its relations, and when it has but two: which side of a join is built is DataFusion's
//! to decide. Joins whose conditions can fail or differ from call to call keep their place
//! (`safe.rs`), as outer, semi and anti joins do; what is joined below them is ordered by itself.
//! Every way the query is written leads to the same order.

mod enumerate;
mod estimate;
mod graph;
mod region;
mod safe;
mod selectivity;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan};
use synoptic_source::{OperatorCosts, OperatorKind};
use synoptic_types::Pushdown;

use crate::catalog::SourceTable;
use crate::scope::Scope;

pub(crate) use estimate::domains;
pub(crate) use safe::is_safe;

use enumerate::order;
use estimate::{Expected, expected, matching};
use graph::{Edge, Graph, Set, Vertex};
use region::{Kind, Region, is_region};
use selectivity::{column, selectivity};

/// `plan` with its inner joins in the cheapest order that was found.
///
/// # Errors
/// When the plan cannot be walked, which is a bug.
pub(crate) fn joins_ordered(plan: LogicalPlan, scope: &Scope) -> Result<LogicalPlan> {
    Walk { pushdown: scope.pushdown }.node(plan)
}

struct Walk {
    pushdown: Pushdown,
}

impl Walk {
    fn node(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if is_region(&plan)
            && let Some(ordered) = self.region(&plan)?
        {
            return Ok(ordered);
        }
        self.inside(plan)
    }

    /// The plan as it is, with what is below its own joins ordered.
    fn inside(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let is_part = is_region(&plan);
        let plan = plan.map_subqueries(|subquery| Ok(Transformed::yes(self.node(subquery)?)))?.data;
        let inputs = plan.map_children(|child| {
            // The rest of a tree that keeps its order is not a tree of its own.
            let child = match is_part && is_region(&child) {
                true => self.inside(child)?,
                false => self.node(child)?,
            };
            Ok(Transformed::yes(child))
        })?;
        Ok(inputs.data)
    }

    /// `None`: the order stays as it is written.
    fn region(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let mut region = match Region::of(plan) {
            Ok(region) if region.leaves.len() > 2 => region,
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, "joins keep their order");
                return Ok(None);
            }
        };
        let Some(best) = self.graph(&region).as_ref().and_then(order) else { return Ok(None) };
        tracing::debug!(order = %best.tree, rows = best.rows, cost = best.cost, "joins ordered");
        if let Err(error) = region.build(&best.tree, plan) {
            tracing::warn!(%error, "joins that cannot be put together keep their order");
            return Ok(None);
        }
        // Only now, so that no part of the plan is walked twice: each level would double it.
        let leaves = std::mem::take(&mut region.leaves).into_iter();
        region.leaves = leaves.map(|leaf| self.node(leaf)).collect::<Result<_>>()?;
        region.build(&best.tree, plan).map(Some)
    }

    /// `None` when nothing is known of a relation.
    fn graph(&self, region: &Region) -> Option<Graph> {
        let leaves: Vec<Expected> = region.leaves.iter().map(expected).collect::<Option<_>>()?;
        let mut sources = Vec::new();
        let vertices = region.leaves.iter().zip(&leaves).map(|(plan, expected)| Vertex {
            rows: expected.rows,
            width: expected.width(),
            source: self.joining_source(plan).map(|(source, _)| {
                let known = sources.iter().position(|other| *other == source);
                known.unwrap_or_else(|| {
                    sources.push(source);
                    sources.len() - 1
                })
            }),
            costs: self.joining_source(plan).map_or(OperatorCosts::SERVER, |(_, costs)| costs),
        });
        let mut graph = Graph { vertices: vertices.collect(), edges: Vec::new() };
        // Equalities of the same two relations are one key.
        let mut keys: BTreeMap<(usize, usize), Vec<DistinctKeys>> = BTreeMap::new();
        let distinct = |expr: &Expr, index: usize| {
            let schema = region.leaves.get(index)?.schema();
            leaves.get(index)?.values(schema, column(expr)?)?.distinct
        };
        let values = |column: &Column| {
            let mut leaves = region.leaves.iter().zip(&leaves);
            leaves.find_map(|(plan, expected)| expected.values(plan.schema(), column))
        };
        for condition in &region.conditions {
            match &condition.kind {
                Kind::Equal((a, x), (b, y)) if x.len() == 1 && y.len() == 1 && x != y => {
                    let (Some(i), Some(j)) = (x.indices().next(), y.indices().next()) else {
                        continue;
                    };
                    keys.entry((i, j)).or_default().push((distinct(a, i), distinct(b, j)));
                }
                Kind::Equal(..) => graph.edges.push(Edge {
                    relations: condition.relations,
                    selectivity: UNKNOWN_EQUALITY,
                    equality: false,
                    known: false,
                }),
                Kind::Other(expr) if condition.relations.len() == 1 => {
                    let vertices = condition.relations.indices().next();
                    if let Some(vertex) = vertices.and_then(|i| graph.vertices.get_mut(i)) {
                        vertex.rows = (vertex.rows * selectivity(expr, &values)).max(1.0);
                    }
                }
                Kind::Other(expr) => graph.edges.push(Edge {
                    relations: condition.relations,
                    selectivity: selectivity(expr, &values),
                    equality: false,
                    // The cut counts the equalities only.
                    known: true,
                }),
            }
        }
        for ((i, j), keys) in keys {
            let (one, other) = (leaves.get(i)?, leaves.get(j)?);
            let (selectivity, known) = matching(&keys, one.unfiltered, other.unfiltered);
            let relations = Set::of(i).union(Set::of(j));
            graph.edges.push(Edge { relations, selectivity, equality: true, known });
        }
        Some(graph)
    }

    /// The source that reads all of `plan` and can join it with more: its address, which is the
    /// same for all tables of one source in one statement, and what operators cost there.
    fn joining_source(&self, plan: &LogicalPlan) -> Option<(usize, OperatorCosts)> {
        if self.pushdown == Pushdown::None {
            return None;
        }
        let mut source = None;
        let mut all = true;
        let walked = plan.apply(|node| {
            let known = match node {
                LogicalPlan::TableScan(scan) => {
                    let provider = source_as_provider(&scan.source)?;
                    let table = provider.downcast_ref::<SourceTable>();
                    let read = table.and_then(|table| {
                        let (projection, filters) = (scan.projection.as_ref(), &scan.filters);
                        table.exact_fragment(projection, filters, scan.fetch)?;
                        let (entry, _) = table.of_statement()?;
                        let capabilities = entry.source().capabilities();
                        let joins = capabilities.operators.contains(&OperatorKind::Join);
                        joins.then(|| (Arc::as_ptr(&entry).addr(), capabilities.costs))
                    });
                    read.is_some_and(|read| source.get_or_insert(read).0 == read.0)
                }
                LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) => true,
                _ => false,
            };
            all &= known;
            Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        source.filter(|_| all && walked.is_ok())
    }
}

/// The different values of each side of an equality, where they are known.
type DistinctKeys = (Option<f64>, Option<f64>);

/// What an equality over several relations keeps.
const UNKNOWN_EQUALITY: f64 = 0.005;
