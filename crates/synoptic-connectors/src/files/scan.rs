//! A prepared fragment: the files that are left, how they are shared out, what they hold.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use futures::{StreamExt, TryStreamExt};
use synoptic_source::{
    BatchStream, Counted, Fragment, KeyLimits, Narrowed, PrepareOptions, PreparedScan, Relation,
    Result, ScanContext, ScanVersion, Snapshot, SourceError,
};
use synoptic_types::{Reason, SourceName, format_bytes};

use super::facts::Footers;
use super::format::Format;
use super::headers::Headers;
use super::layout::Listing;
use super::location::Location;
use super::pinned::{PinnedStore, Pins};
use super::read::{self, Reading};
use super::schema::{Looking, sample};
use super::source::{FilesSnapshot, FilesTable, pins};
use super::tried::{AFTER_DECODING, BEFORE_DECODING, Tried};
use super::{filters, partitions};

/// Footers that are read at the same time.
const CONCURRENT_FOOTERS: usize = 16;
/// Tables smaller than this are not worth cutting files for, in bytes.
const SMALLEST_SPLIT: usize = 1 << 20;
/// Keys of joins are looked up for every row. More of them do not stay in a processor's own cache, and
/// then it is the join that may as well look.
const KEYS: KeyLimits = KeyLimits { keys: 20_000, bytes: 1 << 20, each: 0.1 };
/// Paths that the remote text names.
const SHOWN_PATHS: usize = 3;

/// What a scan shares with its source.
#[derive(Debug, Clone)]
pub struct Shared {
    pub source: SourceName,
    pub location: Arc<Location>,
    pub footers: Arc<Footers>,
    pub headers: Arc<Headers>,
    pub table: Arc<FilesTable>,
}

/// The files that the filters on partition columns leave.
#[derive(Debug)]
pub struct Kept {
    /// The files.
    pub listing: Listing,
    values: Vec<Vec<ScalarValue>>,
    listed: usize,
    listed_bytes: u64,
}

impl Kept {
    /// Applies those of `filters` that only name partition columns.
    pub fn new(table: &FilesTable, listing: &Listing, filters: &[Expr]) -> Result<Self> {
        let columns = &table.partitions;
        let values = listing
            .objects
            .iter()
            .map(|object| partitions::values(object, columns))
            .collect::<Result<Vec<_>>>()?;
        let exact = filters.iter().filter(|filter| filters::is_exact(table, filter));
        let exact: Vec<Expr> = exact.cloned().collect();
        let kept = if exact.is_empty() {
            vec![true; values.len()]
        } else {
            partitions::keep(&exact, columns, &values)
                .map_err(|e| SourceError::data(e.strip_backtrace()).caused_by(e))?
        };
        let all = listing.objects.iter().cloned().zip(values).zip(kept);
        let (objects, values): (Vec<_>, _) =
            all.filter(|(_, kept)| *kept).map(|(file, _)| file).unzip();
        let bytes = objects.iter().map(|object| object.meta.size).sum();
        Ok(Self {
            listing: Listing {
                objects,
                format: listing.format,
                bytes,
                version: listing.version.clone(),
            },
            values,
            listed: listing.objects.len(),
            listed_bytes: listing.bytes,
        })
    }
}

/// See [`PreparedScan`].
#[derive(Debug, Clone)]
pub struct FilesScan {
    shared: Shared,
    fragment: Fragment,
    schema: SchemaRef,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Whether the predicate is tried on rows before the rest of them is decoded.
    early: bool,
    /// What joins have found out, over the projection.
    keys: Option<Arc<dyn PhysicalExpr>>,
    /// Rows that all partitions together may still yield.
    left: Option<Arc<AtomicUsize>>,
    groups: Vec<Vec<PartitionedFile>>,
    pins: Pins,
    batch_size: usize,
    statistics: Statistics,
    remote_text: String,
    version: Option<ScanVersion>,
}

impl FilesScan {
    /// Shares the kept files out and renders what EXPLAIN shows. `statistics` are of the kept
    /// files, in all columns.
    pub fn new(
        shared: Shared,
        fragment: Fragment,
        kept: Kept,
        statistics: Statistics,
        options: &PrepareOptions,
    ) -> Result<Self> {
        let table = &shared.table;
        let inside: Vec<&Expr> =
            fragment.filters.iter().filter(|f| !filters::is_exact(table, f)).collect();
        let predicate = filters::physical(&inside, &table.schema)
            .map_err(|e| SourceError::internal(e.strip_backtrace()))?;
        let batch_size = options.batch_size.max(1);
        let small = fragment.limit.is_some_and(|limit| limit <= batch_size);
        let partitions = if small { 1 } else { options.target_partitions.max(1) };
        let groups = share_out(table, &kept, partitions);
        let mut estimate = statistics.project(Some(&fragment.projection));
        if !inside.is_empty() {
            estimate = estimate.to_inexact();
        }
        if let Some(limit) = fragment.limit {
            estimate = estimate.to_inexact();
            estimate.num_rows = match estimate.num_rows {
                Precision::Absent => Precision::Inexact(limit),
                rows => rows.map(|rows| rows.min(limit)),
            };
        }
        let remote_text = describe(&shared, &fragment, &kept, &inside, predicate.as_ref());
        Ok(Self {
            schema: fragment.schema(),
            predicate,
            early: false,
            keys: None,
            left: fragment.limit.map(|limit| Arc::new(AtomicUsize::new(limit))),
            groups,
            pins: pins(&kept.listing),
            batch_size,
            statistics: estimate,
            remote_text,
            version: kept.listing.version.as_ref().map(|version| ScanVersion {
                position: version.to_string(),
                asked: table.delta.as_ref().is_some_and(|delta| delta.asked.is_some()),
            }),
            fragment,
            shared,
        })
    }

    /// The part of the rows that a condition of joins keeps, when the footers tell.
    fn kept_by(&self, condition: &Expr) -> Option<f64> {
        let Expr::InList(list) = condition else { return None };
        let Expr::Column(column) = list.expr.as_ref() else { return None };
        let known = self.statistics.column_statistics.get(Relation::index_of(&column.name)?)?;
        let span = known.min_value.get_value()?.distance_u64(known.max_value.get_value()?)?;
        let rows = self.statistics.num_rows.get_value().map_or(u64::MAX, |rows| *rows as u64);
        Some(list.list.len() as f64 / span.saturating_add(1).min(rows).max(1) as f64)
    }

    /// The predicate as conditions that are tried on rows once `first` is.
    fn tried_early(&self, first: Vec<Arc<dyn PhysicalExpr>>) -> Vec<Arc<dyn PhysicalExpr>> {
        let after = self.predicate.iter().flat_map(split_conjunction).map(|condition| {
            // Files hold more than one NaN, and rows are compared once there is only one.
            match filters::is_of_floats(condition, &self.shared.table.schema) {
                true => Tried::never(Arc::clone(condition)),
                false => Tried::new(Arc::clone(condition), BEFORE_DECODING),
            }
        });
        let first = first.into_iter().map(|key| Tried::new(key, BEFORE_DECODING));
        let all = first.chain(after);
        all.map(|condition| Arc::new(condition) as _).collect()
    }
}

impl PreparedScan for FilesScan {
    fn remote_text(&self) -> &str {
        &self.remote_text
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn version(&self) -> Option<ScanVersion> {
        self.version.clone()
    }

    fn partitions(&self) -> usize {
        self.groups.len()
    }

    fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Keys skip row groups, pages and rows; rows before their other columns are decoded, where next
    /// to none of them are left, or nobody knows.
    fn narrowed(&self, conditions: &[Expr]) -> Option<Narrowed> {
        let table = &self.shared.table;
        // Below a limit a filter would change which rows there are.
        if table.format != Format::Parquet || self.left.is_some() {
            return None;
        }
        let (mut joins, mut keys, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let (mut early, mut shown) = (false, String::new());
        for condition in conditions {
            let named = self.fragment.named(condition)?;
            let made = filters::of_joins(&named, &table.schema);
            let both = made.and_then(|made| Ok((made, filters::of_joins(&named, &self.schema)?)));
            match both {
                Ok((made, over)) if !filters::is_of_floats(&made, &table.schema) => {
                    let _ = write!(shown, "{} {made}", if shown.is_empty() { "" } else { " AND" });
                    let alone = named.column_refs().iter().all(|c| !table.is_partition(&c.name));
                    let kept = self.kept_by(condition);
                    early |= alone && kept.is_none_or(|kept| kept <= BEFORE_DECODING);
                    joins.push(made);
                    keys.push(Arc::new(Tried::new(over, AFTER_DECODING)) as _);
                }
                Ok(_) => left.push((
                    condition.clone(),
                    Reason::DifferentMeaning("Parquet statistics leave NaN out".to_owned()),
                )),
                Err(e) => left.push((condition.clone(), Reason::NotCapable(e.strip_backtrace()))),
            }
        }
        let mut scan = self.clone();
        if !joins.is_empty() {
            // There is nothing to save where the keys are all that is read.
            scan.early = early && self.fragment.projection.len() > 1;
            let all = match scan.early {
                true => self.tried_early(joins),
                false => self.predicate.iter().cloned().chain(joins).collect(),
            };
            scan.predicate = Some(conjunction(all));
            scan.keys = Some(conjunction(keys));
            let when = if scan.early { ", before the rest is decoded" } else { "" };
            let _ = write!(scan.remote_text, "\nkeys of joins{when}:{shown}");
        }
        Some(Narrowed { scan: Arc::new(scan), left })
    }

    fn key_limits(&self) -> KeyLimits {
        KEYS
    }

    fn open(
        &self,
        partition: usize,
        snapshot: Arc<dyn Snapshot>,
        context: ScanContext,
    ) -> Result<BatchStream> {
        FilesSnapshot::of(&snapshot, &self.shared.source)?;
        let group = self.groups.get(partition).ok_or_else(|| {
            SourceError::internal(format!("there is no partition {partition}"))
                .in_source(&self.shared.source)
        })?;
        let location = Arc::clone(&self.shared.location);
        let counters = Arc::clone(&context.counters);
        let store = PinnedStore::new(location, Arc::clone(&self.pins), Arc::clone(&counters));
        let reading = Reading {
            location: Arc::clone(&self.shared.location),
            footers: Arc::clone(&self.shared.footers),
            headers: Arc::clone(&self.shared.headers),
            table: Arc::clone(&self.shared.table),
            store: Arc::new(store),
            pins: Arc::clone(&self.pins),
            projection: self.fragment.projection.clone(),
            schema: Arc::clone(&self.schema),
            predicate: self.predicate.clone(),
            early: self.early,
            keys: self.keys.clone(),
            // Below a limit a filter would change which rows there are.
            dynamic: if self.left.is_none() { context.dynamic_filters } else { Vec::new() },
            batch_size: self.batch_size,
        };
        let state = PartitionState {
            reading: Arc::new(reading),
            files: group.clone().into_iter(),
            current: None,
            left: self.left.clone(),
            done: false,
        };
        let (source, table) = (self.shared.source.clone(), self.fragment.table.name().clone());
        let batches = futures::stream::unfold(state, |mut state| async move {
            let next = state.next().await?;
            Some((next, state))
        });
        let batches = batches.map_err(move |e| e.in_table(&table).in_source(&source));
        Ok(Counted::new(batches.boxed(), counters).boxed())
    }
}

/// One partition while it is read: one file after the other, so that an error has its file.
struct PartitionState {
    reading: Arc<Reading>,
    files: std::vec::IntoIter<PartitionedFile>,
    current: Option<BatchStream>,
    left: Option<Arc<AtomicUsize>>,
    done: bool,
}

impl PartitionState {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if self.done || self.left.as_ref().is_some_and(|l| l.load(Ordering::Relaxed) == 0) {
                self.current = None;
                return None;
            }
            if self.current.is_none() {
                let file = self.files.next()?;
                self.current = Some(read::file(Arc::clone(&self.reading), file));
            }
            match self.current.as_mut()?.next().await {
                None => self.current = None,
                Some(Err(error)) => {
                    self.done = true;
                    self.current = None;
                    return Some(Err(error));
                }
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => {
                    let granted = self.grant(batch.num_rows());
                    if granted > 0 {
                        return Some(Ok(batch.slice(0, granted)));
                    }
                }
            }
        }
    }

    /// How many of `rows` are still within the limit.
    fn grant(&self, rows: usize) -> usize {
        let Some(left) = &self.left else { return rows };
        let take = |left: usize| Some(left.saturating_sub(rows));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.unwrap_or(0).min(rows)
    }
}

/// At most `partitions` groups of files, at least one group, big files cut where the format can.
fn share_out(table: &FilesTable, kept: &Kept, partitions: usize) -> Vec<Vec<PartitionedFile>> {
    let files = kept.listing.objects.iter().zip(&kept.values).map(|(object, values)| {
        PartitionedFile::new_from_meta(object.meta.clone()).with_partition_values(values.clone())
    });
    let files: Vec<PartitionedFile> = files.collect();
    let plain = |file: &PartitionedFile| {
        let name = file.object_meta.location.filename().unwrap_or_default();
        !table.format.compression(name).is_compressed()
    };
    let can_cut = match table.format {
        Format::Parquet | Format::Arrow => true,
        Format::Json => files.iter().all(plain),
        Format::Csv => !table.spec.read.csv.newlines_in_values && files.iter().all(plain),
    };
    if partitions > 1 && can_cut {
        let partitioner = FileGroupPartitioner::new()
            .with_target_partitions(partitions)
            .with_repartition_file_min_size(SMALLEST_SPLIT);
        if let Some(groups) = partitioner.repartition_file_groups(&[FileGroup::new(files.clone())])
        {
            return groups.into_iter().map(FileGroup::into_inner).collect();
        }
    }
    // The largest file first, each to the group that has least.
    let mut by_size = files;
    by_size.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    let count = partitions.min(by_size.len()).max(1);
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
    for file in by_size {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.object_meta.size.max(1);
            group.push(file);
        }
    }
    let in_order = groups.into_iter().map(|(_, mut group)| {
        group.sort_by(|a, b| a.object_meta.location.cmp(&b.object_meta.location));
        group
    });
    in_order.collect()
}

/// Estimates for all columns of `table` from the files of `listing`. The number of rows is exact
/// when every footer was read; nothing else is.
pub async fn estimate(
    looking: &Looking<'_>,
    table: &FilesTable,
    listing: &Listing,
) -> Result<Statistics> {
    let mut statistics = match table.format {
        Format::Parquet => from_footers(looking, table, listing).await?,
        _ => from_sizes(table, listing),
    };
    for column in &mut statistics.column_statistics {
        *column = std::mem::take(column).to_inexact();
        column.sum_value = Precision::Absent;
    }
    statistics.total_byte_size = statistics.total_byte_size.to_inexact();
    statistics
        .column_statistics
        .extend(table.partitions.iter().map(|_| ColumnStatistics::new_unknown()));
    Ok(statistics)
}

async fn from_footers(
    looking: &Looking<'_>,
    table: &FilesTable,
    listing: &Listing,
) -> Result<Statistics> {
    let objects = sample(&listing.objects, looking.schema_files);
    let looked_at: u64 = objects.iter().map(|object| object.meta.size).sum();
    let all = objects.len() == listing.objects.len();
    let each: Vec<Arc<Statistics>> = futures::stream::iter(objects)
        .map(|object| async move {
            let footer = looking.footers.get(&looking.store, &object).await?;
            footer.statistics(&table.file_schema, &object)
        })
        .buffered(CONCURRENT_FOOTERS)
        .try_collect()
        .await?;
    if each.is_empty() {
        let nothing = Statistics::new_unknown(&table.file_schema);
        return Ok(nothing.with_num_rows(Precision::Exact(0)));
    }
    let merged = Statistics::try_merge_iter(each.iter().map(AsRef::as_ref), &table.file_schema);
    let mut merged = merged.map_err(|e| SourceError::internal(e.strip_backtrace()))?;
    if !all {
        let factor = listing.bytes as f64 / (looked_at.max(1)) as f64;
        merged = merged.to_inexact();
        merged.num_rows = merged.num_rows.map(|rows| (rows as f64 * factor) as usize);
        merged.total_byte_size =
            merged.total_byte_size.map(|bytes| (bytes as f64 * factor) as usize);
    }
    Ok(merged)
}

/// A guess from how many bytes a value usually takes in each format.
fn from_sizes(table: &FilesTable, listing: &Listing) -> Statistics {
    let columns = table.file_schema.fields().len().max(1) as u64;
    let value = match table.format {
        Format::Csv => 8,
        Format::Json => 20,
        Format::Arrow | Format::Parquet => 10,
    };
    let bytes: u64 = listing
        .objects
        .iter()
        .map(|object| {
            let name = object.meta.location.filename().unwrap_or_default();
            object.meta.size * if table.format.compression(name).is_compressed() { 5 } else { 1 }
        })
        .sum();
    let rows = bytes / (columns * value);
    Statistics::new_unknown(&table.file_schema)
        .with_num_rows(Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX)))
        .with_total_byte_size(Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

fn describe(
    shared: &Shared,
    fragment: &Fragment,
    kept: &Kept,
    inside: &[&Expr],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> String {
    let table = &shared.table;
    let objects = &kept.listing.objects;
    let (bytes, listed) = (format_bytes(kept.listing.bytes), format_bytes(kept.listed_bytes));
    let mut text = match &kept.listing.version {
        Some(version) => format!("version {} of Delta table {}, ", version.number, version.id),
        None => String::new(),
    };
    let _ = write!(text, "{}: {} of {} files", table.format, objects.len(), kept.listed);
    let _ = write!(text, ", {bytes} of {listed}, at {}", shared.location);
    let mut paths: Vec<&str> = objects.iter().map(|o| o.shown.as_str()).take(SHOWN_PATHS).collect();
    if objects.len() > SHOWN_PATHS {
        paths.push("…");
    }
    if !paths.is_empty() {
        let _ = write!(text, ": {}", paths.join(", "));
    }
    let names = fragment.projection.iter().map(|&i| table.schema.field(i).name().as_str());
    let _ = write!(text, "\ncolumns: {}", names.collect::<Vec<_>>().join(", "));
    let and = |filters: &[&Expr]| {
        filters.iter().map(|filter| filter.to_string()).collect::<Vec<_>>().join(" AND ")
    };
    let exact: Vec<&Expr> =
        fragment.filters.iter().filter(|f| filters::is_exact(table, f)).collect();
    if !exact.is_empty() {
        let _ = write!(text, "\nfiles kept where: {}", and(&exact));
    }
    if !inside.is_empty() {
        let _ = write!(text, "\nrow groups and pages skipped unless: {}", and(inside));
    }
    if let Some(predicate) = predicate
        && let Some(pruning) = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(&table.schema))
            .build(Arc::clone(predicate))
    {
        let _ = write!(text, "\npruning predicate: {}", pruning.predicate_expr());
    }
    if let Some(limit) = fragment.limit {
        let _ = write!(text, "\nlimit: {limit}");
    }
    text
}
