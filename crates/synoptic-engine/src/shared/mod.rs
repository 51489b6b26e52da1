//! What a statement asks for twice is computed once.
//!
//! DataFusion plans every mention of a common table expression anew, so that its sources are read,
//! and its groups computed, once per mention. Here the parts of the finished plan that are equal are
//! found, planned once, and what they yield is kept for all who ask.
//!
//! Only parts that end in groups are shared: those are small as a rule. What finds no room in memory
//! is kept on disk.
//!
//! ```text
//! LogicalPlan ─ find equal parts ─► plan each ─► SharedNode leaves ─► SharedExec (exec.rs)
//! ```

mod exec;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result};
use datafusion::datasource::source_as_provider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    Expr, Extension, InvariantLevel, LogicalPlan, UserDefinedLogicalNode,
};
use datafusion::physical_plan::ExecutionPlan;

use crate::catalog::SourceTable;
use crate::cut::is_grouped_relation;

pub(crate) use exec::showing_shared;
use exec::{Part, SharedExec};

/// Replaces the parts of `plan` that it has more than once. `finish` is what is done with every
/// physical plan.
///
/// # Errors
/// When a part cannot be planned, for which the whole could not be either.
pub(crate) async fn sharing(
    plan: LogicalPlan,
    state: &SessionState,
    finish: impl Fn(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<LogicalPlan> {
    let repeated = repeated(&plan)?;
    if repeated.is_empty() {
        return Ok(plan);
    }
    let explains = matches!(plan, LogicalPlan::Explain(_));
    let mut parts = Vec::new();
    for logical in repeated {
        let physical = state.query_planner().create_physical_plan(&logical, state).await?;
        let part = Part::new(parts.len() + 1, finish(physical)?, explains);
        parts.push((logical, Arc::new(part)));
    }
    let replaced = plan.transform_down_with_subqueries(|node| {
        let Some((_, part)) = parts.iter().find(|(logical, _)| *logical == node) else {
            return Ok(Transformed::no(node));
        };
        let leaf = SharedNode { part: Arc::clone(part), schema: Arc::clone(node.schema()) };
        let leaf = LogicalPlan::Extension(Extension { node: Arc::new(leaf) });
        Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// The largest parts that are there more than once and may be shared.
///
/// # Errors
/// When the plan cannot be walked, which is a bug.
pub(crate) fn repeated(plan: &LogicalPlan) -> Result<Vec<LogicalPlan>> {
    let mut all: Vec<LogicalPlan> = Vec::new();
    plan.apply_with_subqueries(|node| {
        if ends_in_groups(node) {
            all.push(node.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let is_repeated = |part: &LogicalPlan| all.iter().filter(|one| *one == part).count() > 1;
    // Once more from the top: what is inside a larger part comes with it.
    let mut found: Vec<(LogicalPlan, usize)> = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let Some((_, mentions)) = found.iter_mut().find(|(part, _)| part == node) {
            *mentions += 1;
            return Ok(TreeNodeRecursion::Jump);
        }
        if ends_in_groups(node) && is_repeated(node) && is_the_same_every_time(node)? {
            found.push((node.clone(), 1));
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let found = found.into_iter().filter(|(_, mentions)| *mentions > 1);
    Ok(found.map(|(part, _)| part).collect())
}

fn ends_in_groups(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        LogicalPlan::Distinct(_) => true,
        LogicalPlan::Extension(extension) => is_grouped_relation(extension.node.as_ref()),
        _ => false,
    }
}

/// Whether it reads tables of sources only, which a statement sees in one state, and computes
/// nothing that changes from call to call or belongs to a query around it.
fn is_the_same_every_time(part: &LogicalPlan) -> Result<bool> {
    let mut same = true;
    part.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                same &= provider.downcast_ref::<SourceTable>().is_some();
            }
            LogicalPlan::RecursiveQuery(_) => same = false,
            _ => {}
        }
        node.apply_expressions(|expr| {
            same &= !expr.is_volatile()
                && !expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if same { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(same)
}

/// One mention of a shared part.
#[derive(Debug)]
pub(crate) struct SharedNode {
    part: Arc<Part>,
    schema: DFSchemaRef,
}

impl SharedNode {
    /// The physical plan of `node`, when it is a shared part.
    pub(crate) fn planned(node: &dyn UserDefinedLogicalNode) -> Option<Arc<dyn ExecutionPlan>> {
        let node = node.as_any().downcast_ref::<Self>()?;
        Some(Arc::new(SharedExec::new(Arc::clone(&node.part))))
    }
}

impl UserDefinedLogicalNode for SharedNode {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn name(&self) -> &str {
        "Shared"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn check_invariants(&self, _check: InvariantLevel) -> Result<()> {
        Ok(())
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared: part={}", self.part.number())
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        _inputs: Vec<LogicalPlan>,
    ) -> Result<Arc<dyn UserDefinedLogicalNode>> {
        Ok(Arc::new(Self { part: Arc::clone(&self.part), schema: Arc::clone(&self.schema) }))
    }

    fn dyn_hash(&self, mut state: &mut dyn Hasher) {
        self.part.number().hash(&mut state);
    }

    fn dyn_eq(&self, other: &dyn UserDefinedLogicalNode) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| Arc::ptr_eq(&self.part, &other.part))
    }

    fn dyn_ord(&self, other: &dyn UserDefinedLogicalNode) -> Option<Ordering> {
        let other = other.as_any().downcast_ref::<Self>()?;
        self.part.number().partial_cmp(&other.part.number())
    }
}
