//! A scan made smaller by the keys of the joins above it, when it is first polled.
//!
//! A hash join reads its build side first and asks the other side only then, so its filter is
//! complete when a scan is polled; only operators that read ahead poll earlier, and then the scan
//! waits, for a while. Nothing waits for the filters of sorts and aggregates, which are complete
//! only when the scan has ended.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{HashSet, Result, ScalarValue, Statistics};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, lit};

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::prelude::SessionConfig;
use synoptic_source::{KeyLimits, OperatorCosts, PreparedScan, Relation, Statement};
use tokio::sync::OnceCell;

use super::join_keys::{Domain, Keys};
use super::lineage::found;
use super::remote_scan::RemoteScanExec;

/// A join's build side that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Conditions that keep more than this part of the rows cost more than they save.
const USEFUL: f64 = 0.8;
/// A range tells less of what it keeps than a list does.
const USEFUL_RANGE: f64 = 0.5;
/// The bytes of a row of unknown width.
const ASSUMED_WIDTH: f64 = 32.0;

/// What became of a scan.
#[derive(Debug, Clone)]
pub(super) enum Decision {
    /// It is read as it was planned.
    AsPlanned,
    /// It is read with more conditions.
    Narrowed(Arc<dyn PreparedScan>),
    /// No row of it can match; the source is not asked.
    Nothing,
}

/// What EXPLAIN ANALYZE and the receipt say of it.
#[derive(Debug, Clone)]
pub(crate) struct LateRecord {
    /// The text that was sent instead of the planned one.
    pub(crate) text: Option<String>,
    /// What was collected and used, and why the rest was not.
    pub(crate) note: String,
    pub(crate) keys: usize,
    pub(crate) waited: Duration,
}

impl LateRecord {
    /// Of a scan that did not wait.
    pub(super) fn read_ahead() -> Self {
        let note = "a small table: read without waiting for keys".to_owned();
        Self { text: None, note, keys: 0, waited: Duration::ZERO }
    }
}

/// A scan as it was planned, and what it costs.
pub(super) struct Read<'a> {
    pub prepared: &'a Arc<dyn PreparedScan>,
    pub costs: OperatorCosts,
    /// What the source does beside reading tables and sending rows.
    pub work: f64,
    /// What is expected to come without keys.
    pub statistics: &'a Statistics,
}

/// One decision for all partitions of a scan.
#[derive(Debug, Default)]
pub(super) struct JoinKeys {
    /// Unknown in plans that are not ours.
    known: OnceLock<Known>,
    decided: OnceCell<(Decision, LateRecord)>,
}

/// What a scan was told of the filters it was handed.
#[derive(Debug, Default)]
struct Known {
    /// The filters that hash joins of the plan make, by id.
    joins: HashSet<u64>,
    /// Those of all operators, over the scan's own columns.
    filters: Vec<Arc<dyn PhysicalExpr>>,
}

/// Tells every scan what its filters are about, and which are made by hash joins.
pub(crate) fn knowing_joins(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let mut joins = HashSet::new();
    plan.apply(|node| {
        if node.as_ref().is::<HashJoinExec>() {
            let produced = node.dynamic_expressions_produced();
            joins.extend(produced.iter().filter_map(|filter| filter.expression_id()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut found = found(plan)?;
    plan.apply(|node| {
        if let Some(scan) = node.as_ref().downcast_ref::<RemoteScanExec>()
            && let Some(filters) = found.remove(&scan.identity())
        {
            // A plan is made once.
            let _ = scan.join_keys().known.set(Known { joins: joins.clone(), filters });
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The context of `plan` in which joins list as many keys as one of its scans takes: a longer list
/// takes time to make and is not used.
pub(crate) fn listing_keys(
    plan: &Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> Result<Arc<TaskContext>> {
    let mut most = None;
    plan.apply(|node| {
        if let Some(scan) = node.as_ref().downcast_ref::<RemoteScanExec>()
            && scan.is_offered_any()
        {
            most = most.max(Some(scan.keys_taken()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let listed = |config: &SessionConfig| {
        config.options().optimizer.hash_join_inlist_pushdown_max_distinct_values
    };
    let Some(most) = most.filter(|most| *most < listed(context.session_config())) else {
        return Ok(context);
    };
    let mut config = context.session_config().clone();
    config.options_mut().optimizer.hash_join_inlist_pushdown_max_distinct_values = most;
    // A plan has its functions in it.
    Ok(Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        context.runtime_env(),
    )))
}

/// Whether a scan of `plan` may be narrowed by keys once it runs.
pub(crate) fn expects_keys(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let expects = plan.exists(|node| {
        let scan = node.as_ref().downcast_ref::<RemoteScanExec>();
        Ok(scan.is_some_and(|scan| scan.join_keys().are_expected()))
    });
    // The closure never fails.
    expects.unwrap_or(true)
}

impl JoinKeys {
    /// Whether there is anything to wait for.
    pub(super) fn are_expected(&self) -> bool {
        self.known.get().is_some_and(|known| !known.joins.is_empty())
    }

    /// The filters that are known to be about columns of the scan.
    pub(super) fn filters(&self) -> &[Arc<dyn PhysicalExpr>] {
        self.known.get().map_or(&[], |known| &known.filters)
    }

    /// Decides at the first call.
    pub(super) async fn decide(
        &self,
        filters: &[Arc<dyn PhysicalExpr>],
        read: Read<'_>,
        statement: &Statement,
    ) -> &(Decision, LateRecord) {
        self.decided
            .get_or_init(|| async {
                let started = Instant::now();
                let complete = self.wait(filters, statement).await;
                let waited = started.elapsed();
                let (decision, mut record) = decide(filters, &read);
                if !complete {
                    record.note.push_str("; a join was not ready in time");
                }
                (decision, LateRecord { waited, ..record })
            })
            .await
    }

    /// Whether it was decided, and all rows are read all the same.
    pub(super) fn left_as_planned(&self) -> bool {
        matches!(self.decided.get(), Some((Decision::AsPlanned, _)))
    }

    /// Waits for the joins' filters; whether they are complete.
    async fn wait(&self, filters: &[Arc<dyn PhysicalExpr>], statement: &Statement) -> bool {
        let patience = statement.deadline.map_or(PATIENCE, |at| at.remaining().min(PATIENCE));
        let all = async {
            for filter in filters {
                for made in self.made_by_joins(filter) {
                    if let Some(made) = made.downcast_ref::<DynamicFilterPhysicalExpr>() {
                        made.wait_complete().await;
                    }
                }
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    fn made_by_joins(&self, filter: &Arc<dyn PhysicalExpr>) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut found = Vec::new();
        let walked = filter.apply(|node| {
            let id = node.expression_id();
            if node.downcast_ref::<DynamicFilterPhysicalExpr>().is_some()
                && id.is_some_and(|id| {
                    self.known.get().is_some_and(|known| known.joins.contains(&id))
                })
            {
                found.push(Arc::clone(node));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(walked.is_ok(), "the closure never fails");
        found
    }
}

fn decide(filters: &[Arc<dyn PhysicalExpr>], read: &Read<'_>) -> (Decision, LateRecord) {
    let prepared = read.prepared;
    let schema = prepared.schema();
    let keys = filters.iter().fold(Keys::Any, |all, filter| all.and(Keys::of(filter, &schema)));
    let record = |note: String, keys| LateRecord { text: None, note, keys, waited: Duration::ZERO };
    let domains = match keys {
        Keys::Any => return (Decision::AsPlanned, record("no keys".to_owned(), 0)),
        Keys::None => return (Decision::Nothing, record("no key: not asked".to_owned(), 0)),
        Keys::In(domains) => domains,
    };
    let statistics = read.statistics;
    let (mut conditions, mut notes, mut collected) = (Vec::new(), Vec::new(), 0);
    let name = |index: usize| schema.fields().get(index).map_or("?", |field| field.name().as_str());
    for (index, domain) in domains {
        collected += domain.values.as_ref().map_or(0, HashSet::len);
        match condition(index, &domain, statistics, read) {
            Ok((condition, note)) => {
                conditions.push(condition);
                notes.push(format!("{}: {note}", name(index)));
            }
            Err(why) => notes.push(format!("{} not used: {why}", name(index))),
        }
    }
    if conditions.is_empty() {
        return (Decision::AsPlanned, record(notes.join("; "), collected));
    }
    let narrowed = prepared.narrowed(&conditions);
    let (scan, left) = match narrowed {
        Some(narrowed) => (Some(narrowed.scan), narrowed.left),
        None => (None, Vec::new()),
    };
    for (condition, reason) in &left {
        let columns = condition.column_refs().into_iter();
        let columns = columns.filter_map(|column| Relation::index_of(&column.name)).map(name);
        notes.push(format!("{} stays here: {reason}", columns.collect::<Vec<_>>().join(", ")));
    }
    let mut record = record(notes.join("; "), collected);
    match scan {
        Some(scan) if left.len() < conditions.len() => {
            record.text = Some(scan.remote_text().to_owned());
            (Decision::Narrowed(scan), record)
        }
        _ => (Decision::AsPlanned, record),
    }
}

/// The condition that a column is in `domain`, when it is worth being sent, and what it is.
fn condition(
    index: usize,
    domain: &Domain,
    statistics: &Statistics,
    read: &Read<'_>,
) -> std::result::Result<(Expr, String), String> {
    let known = statistics.column_statistics.get(index);
    let rows = statistics.num_rows.get_value().map(|rows| *rows as f64);
    let distinct = known
        .and_then(|column| column.distinct_count.get_value())
        .map(|distinct| *distinct as f64)
        .filter(|distinct| *distinct > 0.0);
    let column = || Relation::column(index);
    let or_null = |condition: Expr| match domain.nulls {
        true => condition.or(column().is_null()),
        false => condition,
    };
    // Whether more is saved than `spent`, if `kept` is the part of the rows that still comes.
    let worth = |kept: f64, least: f64, spent: f64| match rows {
        _ if kept > least => Err(format!("it would keep about {:.0} %", kept.min(1.0) * 100.0)),
        Some(rows) => {
            let width =
                statistics.total_byte_size.get_value().map(|all| *all as f64 / rows.max(1.0));
            let width = width.unwrap_or(ASSUMED_WIDTH).max(1.0);
            let row = read.costs.row + read.costs.byte * width;
            let saved = (1.0 - kept) * (rows * row + read.work);
            if saved > spent { Ok(()) } else { Err("it would save less than it costs".to_owned()) }
        }
        None => Ok(()),
    };
    let mut why = "no list of keys".to_owned();
    if let Some(values) = &domain.values {
        let KeyLimits { keys: most, bytes: longest, each } = read.prepared.key_limits();
        let bytes: usize = match values.len() > most {
            true => 0,
            false => values.iter().map(|value| value.to_string().len() + 10).sum(),
        };
        if values.len() > most || bytes > longest {
            why = format!("{} keys are too many", values.len());
        } else if values.is_empty() {
            return Ok((column().is_null(), "only NULL".to_owned()));
        } else {
            let count = values.len() as f64;
            let kept = distinct.or(rows).map_or(0.0, |all| count / all.max(1.0));
            // Each partition is sent the list.
            let times = read.prepared.partitions().max(1) as f64;
            worth(kept, USEFUL, times * (count * each + bytes as f64 * read.costs.byte))?;
            let mut sorted: Vec<ScalarValue> = values.iter().cloned().collect();
            sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            let list = sorted.into_iter().map(lit).collect();
            let list = Expr::InList(InList::new(Box::new(column()), list, false));
            return Ok((or_null(list), format!("{} keys", values.len())));
        }
    }
    // Of a range is known how many values it can have, when they are whole numbers or days.
    let span = domain.low.as_ref().and_then(whole).zip(domain.high.as_ref().and_then(whole));
    let (Some((low, high)), Some(distinct)) = (span, distinct) else { return Err(why) };
    let kept = (high.saturating_sub(low).saturating_add(1)).max(0) as f64 / distinct;
    worth(kept, USEFUL_RANGE, 0.0)?;
    let (Some(low), Some(high)) = (domain.low.clone(), domain.high.clone()) else {
        return Err(why);
    };
    let range = column().gt_eq(lit(low)).and(column().lt_eq(lit(high)));
    Ok((or_null(range), "a range".to_owned()))
}

fn whole(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Int8(v) => i128::from((*v)?),
        ScalarValue::Int16(v) => i128::from((*v)?),
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => i128::from((*v)?),
        ScalarValue::Int64(v) => i128::from((*v)?),
        _ => return None,
    })
}
