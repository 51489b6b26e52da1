//! The cut: which parts of an optimised plan run at their sources.
//!
//! From the leaves up, each operator whose inputs are all of one source is offered to it as a
//! [`Relation`]. Where the source yields exactly the same rows for it, both ways are costed
//! (`cost.rs`): all of it there and its rows moved, or its inputs' rows moved and the operator here.
//! The cheaper way is kept; the relation goes on growing either way, because what is dear alone may
//! be cheap below an aggregate. What stays has its reason in EXPLAIN.
//!
//! ```text
//! LogicalPlan ─ estimates ─► walk ─► LogicalPlan with RemoteRelation leaves ─► RemoteScanExec
//! ```
//!
//! An aggregate over several sources is tried in two steps, of which the lower one may run at a source
//! (`partial.rs`). What the estimates cannot know, the sources' planners are asked (`ask.rs`).
//!
//! The order of a TopN's rows is not promised by a remote scan, so the sort stays here, over the few
//! rows that come; so does a limit.

mod ask;
mod build;
pub(crate) mod cost;
mod node;
mod partial;
mod question;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Aggregate, Extension, LogicalPlan, TableScan};
use synoptic_catalog::SourceEntry;
use synoptic_source::{Fragment, JoinKind, Operator, Relation};
use synoptic_types::{Pushdown, Reason};

use crate::catalog::SourceTable;
use crate::join_order::domains;
use crate::scope::Scope;

use ask::{MANY_ROWS, MOST_ASKED, Unknown, ask};
use build::{Built, build, is_ordered, is_worthwhile, place, rows_of, skips};
use cost::Estimate;
use node::{CutNode, Kept};
use partial::splits;
use question::question;

pub(crate) use node::{Planner, is_grouped_relation};
pub(crate) use question::of_scan;

/// More keys are not expected to be sent from one side of a join to the other.
const MOST_KEYS: f64 = 10_000.0;
/// Keys that keep a larger part of the groups are not counted on.
const USEFUL_KEYS: f64 = 0.5;
/// Which part of an aggregate's cost is saved when it makes no groups: its rows are read still,
/// unless there is an index.
const SAVED_BY_KEYS: f64 = 0.7;

/// An aggregate is done in two steps when that saves so many microseconds. What the second step
/// costs here is not counted, and neither is what joining fewer rows here saves, which is more.
const LEAST_SAVED: f64 = 1_000.0;

/// When an operator that a source supports is left to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CutPolicy {
    /// When that is estimated to cost less.
    #[default]
    ByCost,
    /// Always: for tests of what sources answer.
    Always,
}

/// Replaces parts of `plan` by what their sources run. `repeated` are parts that it has more than once
/// and that may be computed once for all who mention them.
///
/// # Errors
/// When the plan cannot be walked, which is a bug.
pub(crate) async fn cut(
    plan: LogicalPlan,
    scope: &Scope,
    policy: CutPolicy,
    repeated: Vec<LogicalPlan>,
) -> Result<LogicalPlan> {
    if scope.pushdown == Pushdown::None {
        return Ok(plan);
    }
    let mut scans = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans.extend(leaf(scan)?.map(|leaf| (key(scan), leaf)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if scans.is_empty() {
        return Ok(plan);
    }
    let mut estimates = HashMap::new();
    for (key, leaf) in scans {
        let source = leaf.entry.source();
        if source.capabilities().operators.is_empty() || estimates.contains_key(&key) {
            continue;
        }
        match source.estimate(&leaf.fragment).await {
            Ok(estimate) => drop(estimates.insert(key, estimate)),
            Err(error) => tracing::debug!(source = %source.name(), %error, "no estimates"),
        }
    }
    let rows = estimates.values().map(|known| known.num_rows.get_value());
    let rows: f64 = rows.map(|rows| rows.map_or(f64::INFINITY, |rows| *rows as f64)).sum();
    if policy == CutPolicy::ByCost && rows > MANY_ROWS && has_choice(&plan)? {
        let trial = Walk { trial: Some(RefCell::default()), ..Walk::new(estimates, policy) };
        let cost = trial.node(plan.clone())?.cost;
        let unknown = trial.trial.map(RefCell::into_inner).unwrap_or_default();
        ask(unknown, cost).await;
        estimates = trial.estimates;
    }
    Walk::new(estimates, policy).best(plan, repeated)
}

/// Whether there is more in a plan than what single scans do.
fn has_choice(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |=
            matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Join(_) | LogicalPlan::Sort(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether its rows are of more than one source, or of none beside one.
fn spans_sources(plan: &LogicalPlan) -> Result<bool> {
    let mut first = None;
    let mut several = false;
    plan.apply_with_subqueries(|node| {
        if node.inputs().is_empty() {
            let own = entry_of(node).map(|entry| Arc::as_ptr(&entry));
            several |= *first.get_or_insert(own) != own;
        }
        Ok(if several { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(several)
}

/// The source of a scan's table.
fn entry_of(node: &LogicalPlan) -> Option<Arc<SourceEntry>> {
    let LogicalPlan::TableScan(scan) = node else { return None };
    let provider = source_as_provider(&scan.source).ok()?;
    Some(provider.downcast_ref::<SourceTable>()?.of_statement()?.0)
}

/// A scan of a source's table, as its source would get it.
struct Leaf {
    provider: Arc<dyn TableProvider>,
    entry: Arc<SourceEntry>,
    scope: Arc<Scope>,
    fragment: Fragment,
}

/// `None` for tables of no source, and for scans with filters that stay here.
fn leaf(scan: &TableScan) -> Result<Option<Leaf>> {
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let Some(table) = provider.downcast_ref::<SourceTable>() else { return Ok(None) };
    let Some((entry, scope)) = table.of_statement() else { return Ok(None) };
    let fragment = table.exact_fragment(scan.projection.as_ref(), &scan.filters, scan.fetch);
    Ok(fragment.map(|fragment| Leaf { provider: Arc::clone(&provider), entry, scope, fragment }))
}

/// Tells scans apart.
fn key(scan: &TableScan) -> String {
    format!("{:p} {scan:?}", Arc::as_ptr(&scan.source).cast::<()>())
}

/// The best that was found for a part of the plan.
struct Planned {
    plan: LogicalPlan,
    cost: f64,
    /// All of it at one source.
    remote: Option<Remote>,
    /// It is computed once for several who ask, so that none of these can take it with it.
    once: bool,
    /// The remote scans in `plan`, for the reasons why what is over them stays here.
    scans: Vec<Scan>,
}

#[derive(Clone)]
enum Scan {
    Table(Arc<dyn TableProvider>),
    Cut(Kept),
}

/// A part of the plan as a relation.
#[derive(Clone)]
struct Remote {
    entry: Arc<SourceEntry>,
    scope: Arc<Scope>,
    relation: Arc<Relation>,
    estimate: Estimate,
    /// What its operators cost there.
    work: f64,
    /// Tells it from other questions.
    question: u64,
}

struct Walk {
    estimates: HashMap<String, Statistics>,
    policy: CutPolicy,
    /// What sources' planners could say something of, when the plan is only walked to find that out.
    trial: Option<RefCell<Vec<Unknown>>>,
    /// How many tables were seen.
    tables: Cell<usize>,
    /// Only costs are wanted, of plans to choose one from.
    comparing: Cell<bool>,
    /// Parts that are computed once, and whether they were met. The first mention has the costs; once
    /// it is decided, all have been met, and plans are compared without them.
    repeated: Vec<(LogicalPlan, Cell<bool>)>,
}

impl Walk {
    fn new(estimates: HashMap<String, Statistics>, policy: CutPolicy) -> Self {
        let (tables, comparing) = (Cell::new(0), Cell::new(false));
        Self { estimates, policy, trial: None, tables, comparing, repeated: Vec::new() }
    }

    /// The plan in which the parts of `repeated` are computed once each, if that costs less than to
    /// leave every mention to what is around it.
    fn best(mut self, plan: LogicalPlan, repeated: Vec<LogicalPlan>) -> Result<LogicalPlan> {
        if !repeated.is_empty() && self.policy == CutPolicy::ByCost {
            self.comparing.set(true);
            let apart = self.node(plan.clone())?.cost;
            self.repeated = repeated.into_iter().map(|part| (part, Cell::new(false))).collect();
            let once = self.node(plan.clone())?.cost;
            self.comparing.set(false);
            if apart <= once {
                self.repeated.clear();
            }
        }
        Ok(self.node(plan)?.plan)
    }

    fn node(&self, plan: LogicalPlan) -> Result<Planned> {
        let Some((_, met)) = self.repeated.iter().find(|(part, _)| *part == plan) else {
            return self.part(plan);
        };
        let cost = |cost| if met.replace(true) { 0.0 } else { cost };
        let planned = self.part(plan)?;
        Ok(Planned { cost: cost(planned.cost), remote: None, once: true, ..planned })
    }

    fn part(&self, plan: LogicalPlan) -> Result<Planned> {
        let plan =
            plan.map_subqueries(|subquery| Ok(Transformed::yes(self.node(subquery)?.plan)))?.data;
        let plan = match plan {
            LogicalPlan::TableScan(scan) => {
                let leaf = leaf(&scan)?;
                return Ok(self.scan(LogicalPlan::TableScan(scan), leaf));
            }
            LogicalPlan::Aggregate(aggregate) if !self.comparing.get() => self.split(aggregate)?,
            plan => plan,
        };
        let mut inputs = Vec::new();
        let plan = plan.map_children(|child| {
            let mut planned = self.node(child)?;
            let empty = LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation {
                produce_one_row: false,
                schema: Arc::clone(planned.plan.schema()),
            });
            let child = std::mem::replace(&mut planned.plan, empty);
            inputs.push(planned);
            Ok(Transformed::yes(child))
        })?;
        Ok(self.operator(plan.data, inputs))
    }

    /// An aggregate, or another plan for the same, when a part of it runs at a source and the whole
    /// cannot.
    fn split(&self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let mut ways = Vec::new();
        if spans_sources(&aggregate.input)? {
            ways = splits(&aggregate).unwrap_or_else(|error| {
                tracing::debug!(%error, "an aggregate has no two steps");
                Vec::new()
            });
        }
        let whole = LogicalPlan::Aggregate(aggregate);
        if ways.is_empty() {
            return Ok(whole);
        }
        self.comparing.set(true);
        let best = self.cheapest(whole, ways);
        self.comparing.set(false);
        best
    }

    fn cheapest(&self, whole: LogicalPlan, ways: Vec<LogicalPlan>) -> Result<LogicalPlan> {
        let Planned { cost, remote, .. } = self.part(whole.clone())?;
        if remote.is_some() || (cost < LEAST_SAVED && self.policy == CutPolicy::ByCost) {
            return Ok(whole);
        }
        let mut best = (cost, whole);
        for way in ways {
            let split = self.node(way.clone())?.cost;
            let saves = split < cost - LEAST_SAVED;
            if (saves && split < best.0) || self.policy == CutPolicy::Always {
                best = (split, way);
            }
        }
        Ok(best.1)
    }

    fn scan(&self, plan: LogicalPlan, leaf: Option<Leaf>) -> Planned {
        let (Some(leaf), LogicalPlan::TableScan(scan)) = (leaf, &plan) else {
            return Planned { plan, cost: 0.0, remote: None, once: false, scans: Vec::new() };
        };
        let schema = leaf.fragment.schema();
        let widths: Vec<_> =
            schema.fields().iter().map(|field| field.data_type().primitive_width()).collect();
        let unknown = Statistics::new_unknown(&schema);
        let statistics = self.estimates.get(&key(scan)).unwrap_or(&unknown);
        let mut estimate = Estimate::of_statistics(statistics, &widths);
        if let Some(domains) = domains(scan) {
            let table = self.tables.get();
            self.tables.set(table + 1);
            estimate = estimate.of_table(table, &domains);
        }
        if let Some(limit) = leaf.fragment.limit {
            estimate = estimate.at_most(limit as f64);
        }
        let rows_of = of_scan(&leaf.fragment);
        let filtered = !leaf.fragment.filters.is_empty();
        let costs = leaf.entry.source().capabilities().costs;
        let columns = leaf.fragment.projection.len() + leaf.fragment.filters.len();
        let relation = Arc::new(Relation { operator: Operator::Scan(leaf.fragment), schema });
        if let Some(rows) = self.rows(&leaf.entry, &relation, rows_of, filtered) {
            estimate = estimate.seen(rows);
        }
        let cost = estimate.transfer(&costs.of_scan());
        let remote = Remote {
            entry: leaf.entry,
            scope: leaf.scope,
            question: question(&relation, &[]),
            relation,
            work: cost::check(&estimate, columns, &costs),
            estimate,
        };
        let scans = vec![Scan::Table(leaf.provider)];
        Planned { plan, cost, remote: Some(remote), once: false, scans }
    }

    /// How many rows came when the same was asked before, or how many the source's planner expects
    /// if it is worth asking.
    fn rows(
        &self,
        entry: &Arc<SourceEntry>,
        relation: &Arc<Relation>,
        question: u64,
        worth_asking: bool,
    ) -> Option<f64> {
        if let Some(rows) = entry.returned(question) {
            return Some(rows as f64);
        }
        if !worth_asking {
            return None;
        }
        if let (None, Some(unknown)) = (entry.expected(question), &self.trial) {
            let mut unknown = unknown.borrow_mut();
            let asked = unknown.iter().any(|part| part.question == question);
            if !asked && unknown.len() < MOST_ASKED {
                let (entry, relation) = (Arc::clone(entry), Arc::clone(relation));
                unknown.push(Unknown { entry, relation, question });
            }
        }
        entry.expected(question).flatten()
    }

    /// Notes why an operator stays here, at the scans below it.
    fn keep(&self, plan: &LogicalPlan, inputs: &[Planned], reason: Reason) {
        if self.trial.is_none() && !self.comparing.get() {
            keep(plan, inputs, &reason);
        }
    }

    /// An operator over what was found for its inputs, which `plan` has already.
    fn operator(&self, plan: LogicalPlan, inputs: Vec<Planned>) -> Planned {
        let cost = inputs.iter().map(|input| input.cost).sum();
        let here = |plan, cost, inputs: Vec<Planned>, remote| {
            let scans = inputs.into_iter().flat_map(|input| input.scans).collect();
            Planned { plan, cost, remote, once: false, scans }
        };
        let Some(first) = one_source(&inputs) else {
            if !inputs.iter().any(|input| input.once) {
                return here(plan, cost, inputs, None);
            }
            if matches!(plan, LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_)) {
                return Planned { once: true, ..here(plan, cost, inputs, None) };
            }
            self.keep(&plan, &inputs, Reason::ComputedOnce);
            return here(plan, cost, inputs, None);
        };
        // Only names change.
        if matches!(plan, LogicalPlan::SubqueryAlias(_)) {
            return here(plan, cost, inputs, Some(first));
        }
        if let LogicalPlan::Limit(limit) = &plan
            && (is_ordered(&first.relation) || limit_of(&first.relation).is_some())
        {
            // The scan's limit is this one; of an order, the first rows are found here.
            let own = limit_of(&first.relation);
            let same = own.is_some() && rows_of(limit).ok() == own;
            let remote = (same && !skips(limit)).then_some(first);
            return here(plan, cost, inputs, remote);
        }
        let relations: Vec<_> = inputs
            .iter()
            .filter_map(|input| input.remote.as_ref())
            .map(|remote| (&remote.relation, &remote.estimate))
            .collect();
        let Some(built) = build(&plan, &relations) else { return here(plan, cost, inputs, None) };
        let source = first.entry.source();
        let supported = built.and_then(|built| {
            source.supports(&built.relation)?;
            Ok(built)
        });
        let Built { relation, mut estimate, work } = match supported {
            Ok(built) => built,
            Err(reason) => {
                // A filter of one table was offered to its scan, which has said why it stays.
                let of_scan = matches!(first.relation.operator, Operator::Scan(_));
                if !(of_scan && matches!(plan, LogicalPlan::Filter(_))) {
                    self.keep(&plan, &inputs, reason);
                }
                return here(plan, cost, inputs, None);
            }
        };
        let costs = source.capabilities().costs;
        let work = work.at(&relation.operator, &costs);
        let before: f64 =
            inputs.iter().filter_map(|input| input.remote.as_ref()).map(|r| r.work).sum();
        let known = inputs.iter().filter_map(|input| input.remote.as_ref());
        let known: Vec<_> = known.map(|remote| (&remote.relation, remote.question)).collect();
        let question = question(&relation, &known);
        let relation = Arc::new(relation);
        // Of groups, a sample of rows says less than what is known of keys.
        let worth_asking = matches!(relation.operator, Operator::Join { .. });
        if let Some(rows) = self.rows(&first.entry, &relation, question, worth_asking) {
            estimate = estimate.seen(rows);
            if let (Operator::Aggregate { groups, .. }, [key, ..]) =
                (&relation.operator, estimate.columns.as_mut_slice())
                && groups.len() == 1
            {
                key.distinct = Some(rows);
            }
        }
        let (here_work, work) = (work.here, before + work.there);
        let remote = Remote { relation, estimate, work, question, ..first };
        let cost_here = cost + here_work - keys_save(&remote.relation, &inputs);
        let cost_there = remote.work + remote.estimate.transfer(&costs);
        let reduces = matches!(plan, LogicalPlan::Sort(_) | LogicalPlan::Limit(_));
        let cheaper = match self.policy {
            CutPolicy::Always => true,
            CutPolicy::ByCost => cost_there < cost_here && is_sure(&plan, &remote.estimate),
        };
        let whole = match &plan {
            LogicalPlan::Limit(limit) if skips(limit) => None,
            _ => Some(remote.clone()),
        };
        if !is_worthwhile(&remote.relation) || (is_ordered(&remote.relation) && !reduces) {
            return here(plan, cost_here, inputs, whole);
        }
        if !cheaper {
            // Where expressions are computed over few rows does not matter to anybody.
            if !matches!(plan, LogicalPlan::Projection(_)) {
                self.keep(&plan, &inputs, Reason::NotCheaper);
            }
            return here(plan, cost_here, inputs, whole);
        }
        let kept = Kept::default();
        let leaf = |schema| {
            LogicalPlan::Extension(Extension {
                node: Arc::new(CutNode {
                    entry: Arc::clone(&remote.entry),
                    scope: Arc::clone(&remote.scope),
                    relation: Arc::clone(&remote.relation),
                    estimate: remote.estimate.clone(),
                    work: remote.work,
                    question: remote.question,
                    schema,
                    kept: Arc::clone(&kept),
                }),
            })
        };
        let plan = match reduces {
            false => leaf(Arc::clone(plan.schema())),
            true => {
                let cut = leaf(Arc::clone(plan.schema()));
                match plan {
                    LogicalPlan::Sort(mut sort) => {
                        sort.input = Arc::new(cut);
                        LogicalPlan::Sort(sort)
                    }
                    LogicalPlan::Limit(mut limit) => {
                        limit.input = Arc::new(cut);
                        LogicalPlan::Limit(limit)
                    }
                    other => other,
                }
            }
        };
        let scans = vec![Scan::Cut(kept)];
        Planned { plan, cost: cost_there, remote: whole, once: false, scans }
    }
}

/// What is saved when a join stays here, because the keys of its smaller side go to the source of
/// an aggregate: it then makes only the groups that somebody asks for.
fn keys_save(join: &Relation, inputs: &[Planned]) -> f64 {
    let Operator::Join { left, right, kind, on, .. } = &join.operator else { return 0.0 };
    let side = |relation: &Arc<Relation>| {
        let of = |input: &&Planned| {
            input.remote.as_ref().is_some_and(|remote| Arc::ptr_eq(&remote.relation, relation))
        };
        let input = inputs.iter().find(of)?;
        Some((input.cost, &input.remote.as_ref()?.estimate))
    };
    let (Some(left_side), Some(right_side)) = (side(left), side(right)) else { return 0.0 };
    let width = left.schema.fields().len();
    let pairs = on.iter().filter_map(|(a, b)| Some((place(a)?, place(b)?.checked_sub(width)?)));
    let pairs: Vec<(usize, usize)> = pairs.collect();
    let saved = |(cost, all): (f64, &Estimate), keys: &Estimate, made: &Relation, of_left: bool| {
        if !(all.known && keys.known && keys.rows < all.rows) {
            return 0.0;
        }
        let kept = pairs.iter().filter_map(|&(l, r)| {
            let (own, other) = if of_left { (l, r) } else { (r, l) };
            if !is_group(made, own) {
                return None;
            }
            let sent = keys.columns.get(other)?.distinct.unwrap_or(keys.rows).min(keys.rows);
            let distinct = all.columns.get(own)?.distinct.unwrap_or(all.rows);
            (sent <= MOST_KEYS).then(|| (sent / distinct.max(1.0)).min(1.0))
        });
        let kept = kept.fold(1.0_f64, f64::min);
        if kept > USEFUL_KEYS { 0.0 } else { cost * (1.0 - kept) * SAVED_BY_KEYS }
    };
    let of_right = saved(right_side, left_side.1, right, false);
    match kind {
        JoinKind::Inner | JoinKind::Semi => {
            of_right.max(saved(left_side, right_side.1, left, true))
        }
        JoinKind::Left => of_right,
        JoinKind::Anti => 0.0,
    }
}

/// Whether column `index` of a relation is a key of the groups it makes.
fn is_group(relation: &Relation, index: usize) -> bool {
    match &relation.operator {
        Operator::Aggregate { groups, .. } => index < groups.len(),
        Operator::Filter { input, .. } => is_group(input, index),
        Operator::Project { input, exprs } => {
            exprs.get(index).and_then(place).is_some_and(|index| is_group(input, index))
        }
        _ => false,
    }
}

/// The first input's relation, when all inputs are relations at one source.
fn one_source(inputs: &[Planned]) -> Option<Remote> {
    let first = inputs.first()?.remote.as_ref()?;
    let same = inputs.iter().all(|input| {
        input.remote.as_ref().is_some_and(|remote| Arc::ptr_eq(&remote.entry, &first.entry))
    });
    same.then(|| first.clone())
}

/// The limit that a scan has already.
fn limit_of(relation: &Relation) -> Option<usize> {
    match &relation.operator {
        Operator::Scan(fragment) => fragment.limit,
        _ => None,
    }
}

/// A join whose size is a guess might be far larger than its inputs.
fn is_sure(plan: &LogicalPlan, estimate: &Estimate) -> bool {
    estimate.known || !matches!(plan, LogicalPlan::Join(_))
}

fn keep(plan: &LogicalPlan, inputs: &[Planned], reason: &Reason) {
    let what = plan.display().to_string();
    let inputs = inputs.iter().filter(|input| input.remote.is_some() || input.once);
    for scan in inputs.flat_map(|input| &input.scans) {
        let kept = (what.clone(), reason.clone());
        match scan {
            Scan::Cut(all) => {
                let mut all = all.lock();
                if !all.contains(&kept) {
                    all.push(kept);
                }
            }
            Scan::Table(provider) => {
                if let Some(table) = provider.downcast_ref::<SourceTable>() {
                    table.keep(kept.0, kept.1);
                }
            }
        }
    }
}
