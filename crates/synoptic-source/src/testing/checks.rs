//! The checks, in the order of the report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::logical_expr::{Expr, ident, lit};
use futures::StreamExt;
use synoptic_types::{Position, Reason, TableName};

use super::data::{self, DOOMED, EDGES, LONG, LONG_ROWS, NAMES};
use super::harness::{Scan, as_planned, difference, filtered, read, read_all, rows, statement};
use super::relations::{AGGREGATES, About, Candidate, Candidates, JOINS, shown};
use super::{Created, Fixture, Outcome, TestTable, filters};
use crate::{
    Capabilities, ErrorKind, Fragment, Operator, OperatorKind, Pushdown, Relation, Source, TableDef,
};

/// How soon work at the source must have ended after its stream was dropped.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

/// One backend with the suite's tables.
pub struct Suite<'a> {
    pub fixture: &'a dyn Fixture,
    pub created: Created,
    pub tables: Vec<TestTable>,
}

/// The cases of one check.
#[derive(Default)]
struct Cases {
    count: usize,
    skipped: Option<String>,
    failures: Vec<String>,
}

impl Cases {
    /// Counts a case; `what` says what was wrong with it.
    fn case(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.count += 1;
        if !holds {
            self.failures.push(what());
        }
    }

    /// Counts a case that fails with an error.
    fn value<T, E: std::fmt::Display>(&mut self, result: Result<T, E>, what: &str) -> Option<T> {
        self.count += 1;
        result.map_err(|e| self.failures.push(format!("{what}: {e}"))).ok()
    }
}

impl Suite<'_> {
    pub async fn run(&self) -> Vec<Outcome> {
        macro_rules! run {
            ($($check:ident),* $(,)?) => {{
                let mut outcomes = Vec::new();
                $(
                    let Cases { count, skipped, failures } = self.$check().await;
                    outcomes.push(Outcome { check: stringify!($check), cases: count, skipped, failures });
                )*
                outcomes
            }};
        }
        run![
            listing_and_description,
            values_round_trip,
            names_that_need_quotes,
            filters_keep_the_right_rows,
            projections,
            limits,
            partitions_make_a_whole,
            statistics_are_sane,
            capabilities_are_true,
            relations_are_right,
            open_is_lazy,
            a_dropped_stream_stops,
            foreign_and_wrong_calls,
            failed_scans_leak_nothing,
            one_snapshot_per_statement,
            positions_follow_writes,
            a_dropped_table,
        ]
    }

    fn source(&self) -> &dyn Source {
        self.created.source.as_ref()
    }

    fn name(&self, table: &str) -> TableName {
        let named = self.created.names.get(table).cloned();
        named.unwrap_or_else(|| TableName::new(self.source().default_schema(), table))
    }

    async fn table(&self, table: &str, cases: &mut Cases) -> Option<Arc<TableDef>> {
        let described = self.source().table(&self.name(table)).await;
        let described = cases.value(described, &format!("describe {table}"))?;
        cases.value(described.ok_or("there is no such table"), &format!("describe {table}"))
    }

    async fn whole(&self, table: &str, cases: &mut Cases) -> Option<(Arc<TableDef>, RecordBatch)> {
        let def = self.table(table, cases).await?;
        let read = read_all(self.source(), &def).await;
        Some((def, cases.value(read, &format!("read {table}"))?))
    }

    async fn listing_and_description(&self) -> Cases {
        let mut cases = Cases::default();
        let source = self.source();
        cases.value(source.check().await, "check");
        let Some(listed) = cases.value(source.tables().await, "tables") else { return cases };
        let names: Vec<_> = listed.iter().map(|info| info.name.clone()).collect();
        let sorted: Vec<_> = names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        cases.case(names == sorted, || format!("the listing is not sorted and unique: {names:?}"));
        for table in &self.tables {
            let name = self.name(&table.name);
            cases.case(names.contains(&name), || format!("{name} is not listed"));
            let Some(def) = self.table(&table.name, &mut cases).await else { continue };
            cases.case(def.name() == &name, || format!("{name} calls itself {}", def.name()));
            for field in table.batch.schema().fields() {
                let there = def.schema.field_with_name(field.name()).is_ok();
                cases.case(there, || format!("{name} has no column {}", field.name()));
            }
            for _ in 0..2 {
                let stamp = cases.value(source.stamp(&name).await, "stamp").flatten();
                let same = stamp.as_ref() == Some(&def.stamp);
                cases.case(same, || format!("{name}: stamp {stamp:?}, not {:?}", def.stamp));
            }
        }
        let absent = TableName::new(source.default_schema(), "no such table");
        let described = cases.value(source.table(&absent).await, "describe an absent table");
        cases.case(described.is_some_and(|d| d.is_none()), || "an absent table exists".to_owned());
        let stamp = cases.value(source.stamp(&absent).await, "stamp of an absent table");
        cases.case(stamp.is_some_and(|s| s.is_none()), || "an absent table has a stamp".to_owned());
        cases
    }

    async fn values_round_trip(&self) -> Cases {
        let mut cases = Cases::default();
        for table in &self.tables {
            let Some((_, got)) = self.whole(&table.name, &mut cases).await else { continue };
            for (field, want) in table.batch.schema().fields().iter().zip(table.batch.columns()) {
                let pair = |batch: &RecordBatch, column: &Arc<dyn Array>| {
                    let id = Arc::clone(batch.column_by_name("id")?);
                    let id = cast(&id, &DataType::Int64).ok()?;
                    let column = cast(column, want.data_type()).ok()?;
                    RecordBatch::try_from_iter_with_nullable([
                        ("id", id, true),
                        ("value", column, true),
                    ])
                    .ok()
                };
                let got = got.column_by_name(field.name()).and_then(|column| pair(&got, column));
                let want = pair(&table.batch, want);
                let differ = match (&got, &want) {
                    (Some(got), Some(want)) => difference(got, want).map(|text| {
                        let show = |batch: &RecordBatch| format!("{:?}", batch.column(1));
                        let short = got.num_rows() <= 20;
                        if short {
                            format!("{text}: {} for {}", show(got), show(want))
                        } else {
                            text
                        }
                    }),
                    _ => Some("the column is missing or of an unrelated type".to_owned()),
                };
                cases.case(differ.is_none(), || {
                    format!("{}.{}: {}", table.name, field.name(), differ.unwrap_or_default())
                });
            }
        }
        cases
    }

    async fn names_that_need_quotes(&self) -> Cases {
        let mut cases = Cases::default();
        for name in NAMES {
            let Some((def, whole)) = self.whole(name, &mut cases).await else { continue };
            let wanted = [
                ident(name).eq(lit(10_i32)),
                ident("Order").eq(lit("B")),
                ident(name).is_null().or(ident("Order").is_null()),
            ];
            for filter in wanted {
                self.ask(&def, &whole, filter, &mut cases).await;
            }
        }
        cases
    }

    async fn filters_keep_the_right_rows(&self) -> Cases {
        let mut cases = Cases::default();
        let Some((def, whole)) = self.whole(EDGES, &mut cases).await else { return cases };
        let Some(table) = self.tables.iter().find(|table| table.name == EDGES) else {
            return cases;
        };
        for filter in filters::candidates(&table.batch) {
            self.ask(&def, &whole, filter, &mut cases).await;
        }
        cases
    }

    /// Asks the source for the rows of one filter, as far as it says it can.
    async fn ask(&self, def: &Arc<TableDef>, whole: &RecordBatch, filter: Expr, cases: &mut Cases) {
        for filter in as_planned(whole, filter).await {
            let (exact, reason) = match self.source().pushdown(def, &filter) {
                Pushdown::Exact => (true, None),
                Pushdown::Inexact(reason) => (false, Some(reason)),
                Pushdown::No(reason) => {
                    let said = !reason.to_string().trim().is_empty();
                    cases.case(said, || format!("{filter}: refused without a reason"));
                    continue;
                }
            };
            // What fails here fails without pushdown too.
            let Ok(want) = filtered(whole, std::slice::from_ref(&filter)) else { continue };
            let mut fragment = Fragment::table(Arc::clone(def));
            fragment.filters = vec![filter.clone()];
            let got = read(self.source(), fragment).await;
            let Some(got) = cases.value(got, &format!("{filter}")) else { continue };
            let again = filtered(&got, std::slice::from_ref(&filter));
            let Some(again) = cases.value(again, &format!("{filter}, refiltered")) else {
                continue;
            };
            let differ = difference(if exact { &got } else { &again }, &want);
            let how = if exact { "exact" } else { "inexact" };
            cases.case(differ.is_none(), || {
                format!("{how}: {filter}: {} {reason:?}", differ.unwrap_or_default())
            });
        }
    }

    async fn projections(&self) -> Cases {
        let mut cases = Cases::default();
        let Some((def, whole)) = self.whole(EDGES, &mut cases).await else { return cases };
        let columns = def.schema.fields().len();
        let mut wanted: Vec<Vec<usize>> = (0..columns).map(|i| vec![i]).collect();
        wanted.push(Vec::new());
        wanted.push((0..columns).rev().collect());
        wanted.push(vec![columns - 1, 0]);
        for projection in wanted {
            let mut fragment = Fragment::table(Arc::clone(&def));
            fragment.projection.clone_from(&projection);
            let schema = fragment.schema();
            let got = read(self.source(), fragment).await;
            let Some(got) = cases.value(got, &format!("columns {projection:?}")) else { continue };
            cases.case(got.schema() == schema, || {
                format!("columns {projection:?}: schema {:?}, not {schema:?}", got.schema())
            });
            let Ok(want) = whole.project(&projection) else { continue };
            let differ = if projection.is_empty() {
                (got.num_rows() != whole.num_rows()).then(|| format!("{} rows", got.num_rows()))
            } else {
                difference(&got, &want)
            };
            cases.case(differ.is_none(), || {
                format!("columns {projection:?}: {}", differ.unwrap_or_default())
            });
        }
        cases
    }

    async fn limits(&self) -> Cases {
        let mut cases = Cases::default();
        if !self.source().capabilities().limit {
            cases.skipped = Some("limits are not declared".to_owned());
            return cases;
        }
        let Some((def, whole)) = self.whole(LONG, &mut cases).await else { return cases };
        let all: BTreeSet<_> = rows(&whole).into_iter().collect();
        for limit in [0, 1, 10, 1024, 5000, LONG_ROWS - 1, LONG_ROWS, LONG_ROWS + 7] {
            for partitions in [1, 4] {
                let mut fragment = Fragment::table(Arc::clone(&def));
                fragment.limit = Some(limit);
                let scan = Scan::new(self.source(), fragment, partitions).await;
                let Some(scan) = cases.value(scan, "prepare a limit") else { continue };
                let Some(got) = cases.value(scan.read().await, "read a limit") else { continue };
                let want = limit.min(whole.num_rows());
                cases.case(got.num_rows() == want, || {
                    format!("limit {limit} in {partitions} partitions: {} rows", got.num_rows())
                });
                let mine = rows(&got);
                let distinct = mine.windows(2).all(|pair| pair[0] != pair[1]);
                let known = mine.iter().all(|row| all.contains(row));
                cases.case(distinct && known, || format!("limit {limit}: rows that are not there"));
            }
        }
        cases
    }

    async fn partitions_make_a_whole(&self) -> Cases {
        let mut cases = Cases::default();
        let Some((def, whole)) = self.whole(LONG, &mut cases).await else { return cases };
        for partitions in [1, 2, 3, 8] {
            let fragment = Fragment::table(Arc::clone(&def));
            let scan = Scan::new(self.source(), fragment, partitions).await;
            let Some(scan) = cases.value(scan, "prepare") else { continue };
            cases.case(scan.prepared.partitions() >= 1, || "no partition at all".to_owned());
            let Some(got) = cases.value(scan.read().await, "read in partitions") else { continue };
            let differ = difference(&got, &whole);
            cases.case(differ.is_none(), || {
                format!("{partitions} partitions: {}", differ.unwrap_or_default())
            });
            let counted = scan.counters.rows();
            cases.case(counted >= got.num_rows() as u64, || format!("{counted} rows counted"));
            cases.case(scan.counters.bytes() > 0, || "no bytes counted".to_owned());
        }
        cases
    }

    async fn statistics_are_sane(&self) -> Cases {
        let mut cases = Cases::default();
        for table in [EDGES, LONG] {
            let Some((def, whole)) = self.whole(table, &mut cases).await else { continue };
            let kept = self.source().statistics(&def).await;
            if let Some(statistics) = cases.value(kept, "statistics") {
                sane(&statistics, def.schema.fields().len(), whole.num_rows(), table, &mut cases);
            }
            let mut fragments = vec![Fragment::table(Arc::clone(&def))];
            let mut narrow = Fragment::table(Arc::clone(&def));
            narrow.projection = vec![0];
            if self.source().capabilities().limit {
                narrow.limit = Some(3);
            }
            fragments.push(narrow);
            for filter in as_planned(&whole, ident("id").gt(lit(5_i64))).await {
                if !matches!(self.source().pushdown(&def, &filter), Pushdown::No(_)) {
                    let mut fragment = Fragment::table(Arc::clone(&def));
                    fragment.filters = vec![filter];
                    fragments.push(fragment);
                }
            }
            for fragment in fragments {
                let width = fragment.projection.len();
                let scan = Scan::new(self.source(), fragment, 2).await;
                let Some(scan) = cases.value(scan, "prepare") else { continue };
                let statistics = scan.prepared.statistics();
                let Some(got) = cases.value(scan.read().await, "read") else { continue };
                sane(&statistics, width, got.num_rows(), scan.prepared.remote_text(), &mut cases);
            }
        }
        cases
    }

    async fn capabilities_are_true(&self) -> Cases {
        let mut cases = Cases::default();
        let capabilities = self.source().capabilities().clone();
        let Some(def) = self.table(LONG, &mut cases).await else { return cases };
        let mut cost = Vec::new();
        for (projection, limit) in [(None, None), (Some(vec![0]), None), (None, Some(5))] {
            let mut fragment = Fragment::table(Arc::clone(&def));
            fragment.projection = projection.unwrap_or(fragment.projection);
            fragment.limit = limit.filter(|_| capabilities.limit);
            let Some(scan) = cases.value(Scan::new(self.source(), fragment, 1).await, "prepare")
            else {
                return cases;
            };
            let text = scan.prepared.remote_text().to_owned();
            cases.case(!text.trim().is_empty(), || "the remote text is empty".to_owned());
            cases.value(scan.read().await.map(|_| ()), "read");
            cost.push((text, scan.counters.rows(), scan.counters.bytes()));
        }
        let [whole, narrow, short] = &cost[..] else { return cases };
        if capabilities.projection {
            cases.case(narrow.0 != whole.0, || "a projection is not in the text".to_owned());
            cases.case(narrow.2 < whole.2 || !self.fixture.projection_saves_bytes(), || {
                format!("one column cost {} bytes, all {}", narrow.2, whole.2)
            });
        }
        if capabilities.limit {
            cases.case(short.0 != whole.0 && short.1 < whole.1, || {
                format!("a limit of 5 moved {} rows: {}", short.1, short.0)
            });
        }
        cases
    }

    /// Every operator over hostile rows: what is declared is right, and what is not is refused.
    async fn relations_are_right(&self) -> Cases {
        let mut cases = Cases::default();
        let capabilities = self.source().capabilities().clone();
        let Some((def, whole)) = self.whole(EDGES, &mut cases).await else { return cases };
        let nothing = as_planned(&whole, ident("id").lt(lit(0_i64))).await.into_iter().next();
        let nothing =
            nothing.filter(|filter| self.source().pushdown(&def, filter) == Pushdown::Exact);
        let candidates = Candidates { def: &def, whole: &whole }.all(nothing);
        let Some(candidates) = cases.value(candidates, "plan the relations") else { return cases };
        let mut accepted = Vec::new();
        for candidate in candidates {
            let relation = &candidate.relation;
            match self.supports(relation) {
                Err(reason) => {
                    let said = !reason.to_string().trim().is_empty();
                    cases.case(said, || format!("{}: no reason", shown(relation)));
                    // Handed over all the same, it is an error and not some other answer.
                    let refused = Scan::relation(self.source(), relation).await.is_err();
                    cases.case(refused, || {
                        format!("{}: prepared, but refused as: {reason}", shown(relation))
                    });
                }
                Ok(()) => {
                    cases.case(declares(&capabilities, candidate.about), || {
                        format!("{}: supported, but not declared", shown(relation))
                    });
                    self.ask_relation(&candidate, &whole, &mut cases).await;
                    let about = match candidate.about {
                        About::Limit(_) => About::Limit(0),
                        about => about,
                    };
                    if !accepted.contains(&about) {
                        accepted.push(about);
                    }
                }
            }
        }
        let all = [About::Filter, About::Project, About::Union, About::TopN, About::Limit(0)];
        let all =
            all.into_iter().chain(AGGREGATES.map(About::Aggregate)).chain(JOINS.map(About::Join));
        for about in all.filter(|about| declares(&capabilities, *about)) {
            cases.case(accepted.contains(&about), || {
                format!("{about:?} is declared and none was supported")
            });
        }
        cases
    }

    /// Whether the source runs all of `relation`, asked from its leaves up.
    fn supports(&self, relation: &Relation) -> Result<(), Reason> {
        for input in relation.inputs() {
            if !matches!(input.operator, Operator::Scan(_)) {
                self.supports(input)?;
            }
        }
        self.source().supports(relation)
    }

    async fn ask_relation(&self, candidate: &Candidate, whole: &RecordBatch, cases: &mut Cases) {
        let relation = &candidate.relation;
        let scan = Scan::relation(self.source(), relation).await;
        let Some(scan) = cases.value(scan, &shown(relation)) else { return };
        let (got, want) = (scan.read().await, candidate.expected().await);
        let got = match (got, &want) {
            // What fails here fails there too.
            (got, Err(_)) => return cases.case(got.is_err(), || shown(relation)),
            // A sum of 64 bits that leaves their range is an error and never another number.
            (Err(e), _) if e.kind() == ErrorKind::Data && adds_up_far(relation, whole) => return,
            (got, Ok(_)) => cases.value(got, &shown(relation)),
        };
        let (Some(got), Ok(want)) = (got, want) else { return };
        let schema = got.schema() == relation.schema;
        cases.case(schema, || format!("{}: schema {:?}", shown(relation), got.schema()));
        let About::Limit(fetch) = candidate.about else {
            let differ = difference(&got, &want);
            cases.case(differ.is_none(), || {
                let differ = differ.unwrap_or_default();
                let text = scan.prepared.remote_text();
                format!("{}: {differ}: {text}\n{got:?}\n{want:?}", shown(relation))
            });
            return self.ask_narrowed(relation, &got, cases).await;
        };
        let all: BTreeSet<_> = rows(&want).into_iter().collect();
        let kept = rows(&got);
        let right = kept.len() == fetch.min(all.len()) && kept.iter().all(|row| all.contains(row));
        cases.case(right, || format!("{}: {} rows", shown(relation), kept.len()));
    }

    /// With keys that come up later, the rows that have one come, and no others.
    async fn ask_narrowed(&self, relation: &Relation, all: &RecordBatch, cases: &mut Cases) {
        for index in BTreeSet::from([0, all.num_columns().saturating_sub(1)]) {
            let Some(column) = all.columns().get(index) else { continue };
            let mut values = (0..all.num_rows()).filter_map(|row| {
                ScalarValue::try_from_array(column, row).ok().filter(|value| !value.is_null())
            });
            let Some(key) = values.next_back() else { continue };
            let Ok(scan) = Scan::relation(self.source(), relation).await else { continue };
            let condition = Relation::column(index).in_list(vec![lit(key.clone())], false);
            let narrowed = scan.prepared.narrowed(std::slice::from_ref(&condition));
            let Some(narrowed) = narrowed.filter(|narrowed| narrowed.left.is_empty()) else {
                continue;
            };
            let what = || format!("{condition} of {}", shown(relation));
            let scan = Scan { prepared: narrowed.scan, ..scan };
            let Some(got) = cases.value(scan.read().await, &what()) else { continue };
            let want = key.to_scalar().and_then(|key| {
                let keep = arrow::compute::kernels::cmp::eq(column, &key)?;
                Ok(arrow::compute::filter_record_batch(all, &keep)?)
            });
            let Some(want) = cases.value(want, &what()) else { continue };
            let differ = difference(&got, &want);
            cases.case(differ.is_none(), || {
                let text = scan.prepared.remote_text();
                format!("{}: {}: {text}", what(), differ.unwrap_or_default())
            });
        }
    }

    async fn open_is_lazy(&self) -> Cases {
        let mut cases = Cases::default();
        let Some(def) = self.table(LONG, &mut cases).await else { return cases };
        let scan = Scan::new(self.source(), Fragment::table(def), 2).await;
        let Some(scan) = cases.value(scan, "prepare") else { return cases };
        let opened: Vec<_> = (0..scan.prepared.partitions()).map(|i| scan.open(i)).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (rows, bytes) = (scan.counters.rows(), scan.counters.bytes());
        cases.case(rows == 0 && bytes == 0, || format!("{rows} rows, {bytes} bytes before a poll"));
        if let Some(active) = self.fixture.active_remote_queries(&self.created).await {
            cases.case(active == 0, || format!("{active} statements run before a poll"));
        }
        for stream in opened {
            cases.value(stream.map(|_| ()), "open");
        }
        cases
    }

    async fn a_dropped_stream_stops(&self) -> Cases {
        let mut cases = Cases::default();
        let Some(def) = self.table(LONG, &mut cases).await else { return cases };
        for _ in 0..20 {
            let scan = Scan::new(self.source(), Fragment::table(Arc::clone(&def)), 1).await;
            let Some(scan) = cases.value(scan, "prepare") else { continue };
            let Some(mut stream) = cases.value(scan.open(0), "open") else { continue };
            let first = stream.next().await;
            cases.case(matches!(first, Some(Ok(_))), || "no first batch".to_owned());
        }
        tokio::time::sleep(CANCEL_WITHIN).await;
        if let Some(active) = self.fixture.active_remote_queries(&self.created).await {
            cases.case(active == 0, || format!("{active} statements still run after a second"));
        }
        let again = read_all(self.source(), &def).await;
        if let Some(again) = cases.value(again, "read after many drops") {
            cases.case(again.num_rows() == LONG_ROWS, || format!("{} rows", again.num_rows()));
        }
        cases
    }

    async fn foreign_and_wrong_calls(&self) -> Cases {
        #[derive(Debug)]
        struct Foreign;
        impl crate::Snapshot for Foreign {}
        let mut cases = Cases::default();
        let Some(def) = self.table(EDGES, &mut cases).await else { return cases };
        let fragment = Fragment::table(Arc::clone(&def));
        let scan = Scan::new(self.source(), fragment.clone(), 1).await;
        let Some(scan) = cases.value(scan, "prepare") else { return cases };
        cases.case(scan.open(scan.prepared.partitions()).is_err(), || {
            "opened no partition".to_owned()
        });
        let foreign: Arc<dyn crate::Snapshot> = Arc::new(Foreign);
        let context = crate::ScanContext {
            statement: statement(),
            dynamic_filters: Vec::new(),
            counters: Arc::default(),
        };
        let opened = scan.prepared.open(0, foreign, context);
        // Some sources can only tell when the stream is polled.
        let refused = match opened {
            Err(_) => true,
            Ok(mut stream) => matches!(stream.next().await, Some(Err(_))),
        };
        cases.case(refused, || "took another source's snapshot".to_owned());
        cases
    }

    async fn failed_scans_leak_nothing(&self) -> Cases {
        let mut cases = Cases::default();
        let Some(def) = self.table(EDGES, &mut cases).await else { return cases };
        let mut gone = TableDef::clone(&def);
        gone.info.name = TableName::new(def.name().schema.clone(), "was never there");
        let gone = Arc::new(gone);
        for i in 0..300 {
            // Prepared and never opened, opened and never polled, or failed.
            let fragment = Fragment::table(Arc::clone(if i % 3 == 0 { &gone } else { &def }));
            let Ok(scan) = Scan::new(self.source(), fragment, 2).await else { continue };
            let Ok(mut stream) = scan.open(0) else { continue };
            if i % 3 == 0 {
                let _ = stream.next().await;
            }
        }
        let read =
            tokio::time::timeout(Duration::from_secs(30), read_all(self.source(), &def)).await;
        let read = cases.value(read, "read after 300 scans that were given up");
        if let Some(read) = read {
            cases.value(read.map(|_| ()), "read after 300 scans that were given up");
        }
        if let Some(active) = self.fixture.active_remote_queries(&self.created).await {
            cases.case(active == 0, || format!("{active} statements still run"));
        }
        cases
    }

    async fn one_snapshot_per_statement(&self) -> Cases {
        let mut cases = Cases::default();
        let Some((def, before)) = self.whole(LONG, &mut cases).await else { return cases };
        let source = self.source();
        let snapshot = source.begin(&statement());
        let scan = |partitions| {
            let fragment = Fragment::table(Arc::clone(&def));
            Scan::under(source, fragment, Arc::clone(&snapshot), partitions)
        };
        // All scans of a statement are prepared before one of them is opened.
        let Some(first) = cases.value(scan(1).await, "prepare") else { return cases };
        let Some(second) = cases.value(scan(3).await, "prepare again") else { return cases };
        let Some(first) = cases.value(first.read().await, "read") else { return cases };
        let differ = difference(&first, &before);
        cases.case(differ.is_none(), || format!("the first scan: {}", differ.unwrap_or_default()));
        let added = data::long(LONG_ROWS as i64..LONG_ROWS as i64 + 100);
        let kept: Vec<usize> = (0..added.num_columns())
            .filter(|&i| self.fixture.supports(added.schema().field(i).data_type()))
            .collect();
        let Ok(added) = added.project(&kept) else { return cases };
        if !self.fixture.append(&self.created, LONG, &added).await {
            cases.skipped = Some("the fixture cannot write meanwhile".to_owned());
            return cases;
        }
        // The same state as before, or a clear error; never a mixture.
        let second = second.read().await;
        match second {
            Ok(second) => {
                let differ = difference(&second, &before);
                cases.case(differ.is_none(), || {
                    format!("the second scan of the statement: {}", differ.unwrap_or_default())
                });
            }
            Err(e) => {
                cases.case(e.kind() == ErrorKind::Changed, || format!("the second scan: {e}"))
            }
        }
        drop(snapshot);
        let Some((_, after)) = self.whole(LONG, &mut cases).await else { return cases };
        let want = before.num_rows() + added.num_rows();
        cases.case(after.num_rows() == want, || {
            format!("the next statement sees {} rows, not {want}", after.num_rows())
        });
        cases
    }

    /// A position covers what was committed before it was asked, and a snapshot lies between the
    /// two that were asked around it.
    async fn positions_follow_writes(&self) -> Cases {
        let mut cases = Cases::default();
        let Some(def) = self.table(EDGES, &mut cases).await else { return cases };
        let Some(mut last) = self.known_position(&mut cases).await else {
            cases.skipped = Some("the source says no position".to_owned());
            return cases;
        };
        let Some(edges) = self.tables.iter().find(|table| table.name == EDGES) else {
            return cases;
        };
        let mut rows = match read_all(self.source(), &def).await {
            Ok(all) => all.num_rows(),
            Err(e) => return cases.value(Err::<Cases, _>(e), "read").unwrap_or(cases),
        };
        let row = edges.batch.slice(0, 1);
        for round in 0..3_i64 {
            let Some(row) = with_id(&row, 9_000_000 + round) else { return cases };
            if !self.fixture.append(&self.created, EDGES, &row).await {
                cases.skipped = Some("the fixture cannot write meanwhile".to_owned());
                return cases;
            }
            rows += 1;
            let Some(now) = self.known_position(&mut cases).await else { return cases };
            cases.case(is_later(&last, &now), || format!("a write moved {last} to {now}"));
            // A table of files is described anew when its files are others.
            let Some(def) = self.table(EDGES, &mut cases).await else { return cases };
            let scan = Scan::new(self.source(), Fragment::table(def), 2).await;
            let Some(scan) = cases.value(scan, "prepare") else { return cases };
            let Some(pinned) = cases.value(scan.snapshot.pin().await, "pin") else { return cases };
            let (before, after) = (pinned.before.position, pinned.after.position);
            cases.case(covers(&before, &now), || {
                format!("pinned at {before}, after the source had said {now}")
            });
            cases.case(covers(&after, &before), || format!("pinned from {before} to {after}"));
            if !scan.snapshot.is_fixed_by_planning() {
                let Some(later) = with_id(&row, 9_500_000 + round) else { return cases };
                self.fixture.append(&self.created, EDGES, &later).await;
                let next = self.known_position(&mut cases).await.unwrap_or(Position::Unknown);
                cases.case(is_later(&after, &next), || {
                    format!("a write after the snapshot at {after} is at {next}")
                });
                last = next;
            } else {
                last = now;
            }
            let read = scan.read().await.map(|batch| batch.num_rows());
            let Some(read) = cases.value(read, "read") else { return cases };
            cases.case(read == rows, || format!("{read} rows in a snapshot of {rows}"));
            rows += usize::from(!scan.snapshot.is_fixed_by_planning());
        }
        cases
    }

    /// Where the source is, once it says so: right after a change it may not be sure.
    async fn known_position(&self, cases: &mut Cases) -> Option<Position> {
        for _ in 0..200 {
            match cases.value(self.source().position().await, "position")?.position {
                Position::Unknown => tokio::time::sleep(Duration::from_millis(25)).await,
                known => return Some(known),
            }
        }
        None
    }

    async fn a_dropped_table(&self) -> Cases {
        let mut cases = Cases::default();
        let Some(def) = self.table(DOOMED, &mut cases).await else { return cases };
        let fragment = Fragment::table(Arc::clone(&def));
        let ready = Scan::new(self.source(), fragment.clone(), 1).await;
        let Some(ready) = cases.value(ready, "prepare") else { return cases };
        if !self.fixture.drop_table(&self.created, DOOMED).await {
            cases.skipped = Some("the fixture cannot drop a table".to_owned());
            return cases;
        }
        for (when, read) in [
            ("between prepare and open", ready.read().await.map(|b| b.num_rows())),
            ("before prepare", read(self.source(), fragment).await.map(|b| b.num_rows())),
        ] {
            match read {
                // A snapshot that already holds the table may still show it.
                Ok(rows) => cases.case(rows == 10 && when.contains("open"), || {
                    format!("dropped {when}: {rows} rows")
                }),
                Err(e) => cases.case(e.kind() == ErrorKind::Changed, || {
                    format!("dropped {when}: {:?}: {e}", e.kind())
                }),
            }
        }
        let stamp = self.source().stamp(&self.name(DOOMED)).await;
        let stamp = cases.value(stamp, "stamp of a dropped table");
        cases.case(stamp.is_some_and(|s| s.is_none()), || "a dropped table has a stamp".to_owned());
        let described = self.source().table(&self.name(DOOMED)).await;
        let described = cases.value(described, "describe a dropped table");
        cases.case(described.is_some_and(|d| d.is_none()), || "a dropped table exists".to_owned());
        cases
    }
}

/// Whether a source says that it does such a thing.
fn declares(capabilities: &Capabilities, about: About) -> bool {
    let operator = |kind| capabilities.operators.contains(&kind);
    match about {
        About::Filter => operator(OperatorKind::Filter),
        About::Project => operator(OperatorKind::Project),
        About::Union => operator(OperatorKind::Union),
        About::TopN => operator(OperatorKind::TopN),
        About::Limit(_) => operator(OperatorKind::Limit),
        About::Aggregate(function) => {
            operator(OperatorKind::Aggregate) && capabilities.aggregates.contains(&function)
        }
        About::Join(kind) => operator(OperatorKind::Join) && capabilities.joins.contains(&kind),
    }
}

/// Whether a relation adds up integers next to the ends of 64 bits.
fn adds_up_far(relation: &Relation, whole: &RecordBatch) -> bool {
    let Operator::Aggregate { aggregates, .. } = &relation.operator else { return false };
    let far = |index: usize| match whole.columns().get(index) {
        // Decimals without a digit to spare.
        Some(values) if matches!(values.data_type(), DataType::Decimal128(38, _)) => true,
        Some(values) => cast(values, &DataType::Int64).is_ok_and(|values| {
            values.as_primitive::<Int64Type>().iter().flatten().any(|v| v.unsigned_abs() > 1 << 60)
        }),
        None => false,
    };
    aggregates.iter().filter(|call| call.function == "sum").any(|call| {
        let columns = call.args.iter().flat_map(Expr::column_refs);
        columns.filter_map(|column| Relation::index_of(&column.name)).any(far)
    })
}

/// Nothing is called exact that is not, and no sum is, because a join would pass it on.
fn sane(statistics: &Statistics, columns: usize, rows: usize, what: &str, cases: &mut Cases) {
    let width = statistics.column_statistics.len();
    cases
        .case(width == columns, || format!("{what}: statistics of {width} columns, not {columns}"));
    if let Precision::Exact(exact) = statistics.num_rows {
        cases.case(exact == rows, || format!("{what}: exactly {exact} rows, but {rows} were read"));
    }
    for (i, column) in statistics.column_statistics.iter().enumerate() {
        let exact = matches!(column.sum_value, Precision::Exact(_));
        cases.case(!exact, || format!("{what}: the sum of column {i} is called exact"));
    }
}

/// `row`, which is one, with another `id`.
fn with_id(row: &RecordBatch, id: i64) -> Option<RecordBatch> {
    let place = row.schema().index_of("id").ok()?;
    let mut columns = row.columns().to_vec();
    columns[place] =
        cast(&Int64Array::from(vec![id]), row.schema().field(place).data_type()).ok()?;
    RecordBatch::try_new(row.schema(), columns).ok()
}

/// Whether `copy` holds everything up to `wanted`, both of one source that was not promoted.
fn covers(copy: &Position, wanted: &Position) -> bool {
    match (copy, wanted) {
        (
            Position::Log { epoch: copy_epoch, lsn: copy },
            Position::Log { epoch: wanted_epoch, lsn: wanted },
        ) => copy_epoch == wanted_epoch && copy >= wanted,
        (Position::Version(copy), Position::Version(wanted)) => copy == wanted,
        _ => false,
    }
}

/// Whether `next` is another place than `last`, and not an earlier one.
fn is_later(last: &Position, next: &Position) -> bool {
    match (last, next) {
        (Position::Log { .. }, Position::Log { .. }) => covers(next, last) && next != last,
        (Position::Version(last), Position::Version(next)) => last != next,
        _ => false,
    }
}
