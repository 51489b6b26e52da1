//! A relation in a logical plan, and how it becomes a remote scan.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchemaRef, DataFusionError, Result, Statistics};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, InvariantLevel, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use parking_lot::Mutex;
use synoptic_catalog::SourceEntry;
use synoptic_source::{Operator, PrepareOptions, Relation, SourceError};
use synoptic_types::Reason;

use crate::error::Error;
use crate::exec::{
    RemoteScanExec, explains_unsorted, is_refused_as_unsorted, planned_unordered, sorts_in_place,
};
use crate::scope::Scope;
use crate::shared::SharedNode;

use super::cost::Estimate;

/// Operators that stay here, and why.
pub(super) type Kept = Arc<Mutex<Vec<(String, Reason)>>>;

/// A part of a plan that its source runs.
pub(super) struct CutNode {
    pub entry: Arc<SourceEntry>,
    pub scope: Arc<Scope>,
    pub relation: Arc<Relation>,
    pub estimate: Estimate,
    /// What it costs the source, beside reading the tables.
    pub work: f64,
    /// Tells it from other questions.
    pub question: u64,
    pub schema: DFSchemaRef,
    pub kept: Kept,
}

impl CutNode {
    /// What tells it from other nodes of a statement: the same of the same copy is the same rows.
    fn identity(&self) -> (usize, String) {
        (Arc::as_ptr(&self.entry).addr(), format!("{:?}", self.relation))
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.relation.schema);
        if !self.estimate.known {
            return statistics;
        }
        let count = |value: f64| Precision::Inexact(value.max(0.0).round() as usize);
        let mut total = 0.0;
        for (known, column) in statistics.column_statistics.iter_mut().zip(&self.estimate.columns) {
            if let Some(distinct) = column.distinct {
                known.distinct_count = count(distinct);
            }
            total += column.width * self.estimate.rows;
        }
        statistics.num_rows = count(self.estimate.rows);
        statistics.total_byte_size = count(total);
        statistics
    }

    async fn prepare(&self, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let source = self.entry.source();
        let config = session.config_options();
        let options = PrepareOptions {
            target_partitions: config.execution.target_partitions.max(1),
            batch_size: config.execution.batch_size.into(),
        };
        let snapshot = self.scope.snapshot(&self.entry);
        let prepared = source
            .prepare_relation(&self.relation, self.statistics(), &snapshot, &options)
            .await
            .map_err(|error: SourceError| Error::from(error.in_source(source.name())))?;
        let mut tables: Vec<_> =
            self.relation.tables().into_iter().map(|table| table.name().clone()).collect();
        tables.dedup();
        let record = self.scope.record(source.name().clone(), tables, prepared.as_ref());
        let (entry, scope) = (Arc::clone(&self.entry), Arc::clone(&self.scope));
        let kept = self.kept.lock().clone();
        let scan = RemoteScanExec::new(entry, prepared, scope, record, kept, self.question);
        Ok(Arc::new(scan.with_work(self.work)))
    }
}

impl fmt::Debug for CutNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_for_explain(f)
    }
}

impl UserDefinedLogicalNode for CutNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "RemoteRelation"
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
        let tables: Vec<_> =
            self.relation.tables().into_iter().map(|table| table.name().to_string()).collect();
        write!(
            f,
            "RemoteRelation: source={}, tables=[{}]",
            self.entry.source().name(),
            tables.join(", ")
        )
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        _inputs: Vec<LogicalPlan>,
    ) -> Result<Arc<dyn UserDefinedLogicalNode>> {
        Ok(Arc::new(Self {
            entry: Arc::clone(&self.entry),
            scope: Arc::clone(&self.scope),
            relation: Arc::clone(&self.relation),
            estimate: self.estimate.clone(),
            work: self.work,
            question: self.question,
            schema: Arc::clone(&self.schema),
            kept: Arc::clone(&self.kept),
        }))
    }

    fn dyn_hash(&self, mut state: &mut dyn Hasher) {
        self.identity().hash(&mut state);
    }

    fn dyn_eq(&self, other: &dyn UserDefinedLogicalNode) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|o| o.identity() == self.identity())
    }

    fn dyn_ord(&self, other: &dyn UserDefinedLogicalNode) -> Option<Ordering> {
        let other = other.as_any().downcast_ref::<Self>()?;
        self.identity().partial_cmp(&other.identity())
    }
}

/// Whether a node of a plan is a relation that ends in groups, or in expressions over them.
pub(crate) fn is_grouped_relation(node: &dyn UserDefinedLogicalNode) -> bool {
    let mut relation = node.as_any().downcast_ref::<CutNode>().map(|node| &node.relation);
    while let Some(found) = relation {
        relation = match &found.operator {
            Operator::Aggregate { groups, .. } => return !groups.is_empty(),
            Operator::Project { input, .. } | Operator::Filter { input, .. } => Some(input),
            _ => None,
        };
    }
    false
}

/// DataFusion's planner, and relations.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner =
            DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RelationPlanner)]);
        let planned = planner.create_physical_plan(logical_plan, session).await;
        if let Err(error) = &planned
            && loses_columns(error)
            && let Some(state) = session.as_any().downcast_ref::<SessionState>()
        {
            let state = projecting_in_place(state);
            return planner.create_physical_plan(logical_plan, &state).await;
        }
        let refused = match &planned {
            Ok(plan) => explains_unsorted(plan.as_ref()),
            Err(error) => is_refused_as_unsorted(error),
        };
        match refused.then(|| sorts_in_place(logical_plan.clone())).transpose()?.flatten() {
            Some(plan) => planner.create_physical_plan(&plan, session).await,
            None => planned,
        }
    }
}

/// A rule of DataFusion's physical optimizer.
const PROJECTIONS_DOWN: &str = "ProjectionPushdown";

/// Whether projections that were moved down, through a join that keeps some of its columns only, no longer
/// found the columns they are of: a bug that DataFusion's own assertion finds.
fn loses_columns(error: &DataFusionError) -> bool {
    matches!(error, DataFusionError::Context(rule, _) if rule == PROJECTIONS_DOWN)
        && error.find_root().to_string().contains("does not match with the projection expression")
}

/// `state` with a planner that leaves projections where they are.
fn projecting_in_place(state: &SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter();
    let rules = rules.filter(|rule| rule.name() != PROJECTIONS_DOWN).cloned().collect();
    SessionStateBuilder::new_from_existing(state.clone())
        .with_physical_optimizer_rules(rules)
        .build()
}

struct RelationPlanner;

#[async_trait]
impl ExtensionPlanner for RelationPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        match node.as_any().downcast_ref::<CutNode>() {
            Some(node) => Ok(Some(node.prepare(session).await?)),
            None => Ok(SharedNode::planned(node).or_else(|| planned_unordered(node, inputs))),
        }
    }
}
