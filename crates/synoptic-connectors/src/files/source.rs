//! The [`Source`]: listings, descriptions, statistics.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Expr;
use futures::TryStreamExt;
use object_store::path::Path;
use parking_lot::Mutex;
use synoptic_source::{
    Capabilities, CopyPosition, ErrorKind, FilterSupport, Fragment, OperatorCosts, Pinned,
    PrepareOptions, PreparedScan, Pushdown, Result, ScanCounters, Snapshot, SnapshotKind, Source,
    SourceCheck, SourceError, Statement, TableDef, TableInfo, TableKind,
};
use synoptic_types::{Deadline, SourceName, TableName, TableVersion};
use tokio::sync::OnceCell;

use super::delta::{DeltaTables, State};
use super::facts::Footers;
use super::format::Format;
use super::headers::Headers;
use super::layout::{self, Listing, TableSpec};
use super::location::Location;
use super::options::Options;
use super::pinned::{PinnedStore, Pins};
use super::position::{Mark, Positions};
use super::schema::{self, Looking};
use super::{error, filters, partitions, scan, widening};

/// The one schema of a source of files.
const SCHEMA: &str = "public";

const CAPABILITIES: Capabilities = Capabilities {
    dialect: "files",
    projection: true,
    filters: FilterSupport::Pruning,
    functions: &[],
    operators: &[],
    aggregates: &[],
    joins: &[],
    costs: OperatorCosts::SERVER,
    limit: true,
    dynamic_filters: true,
    parallel_scan: true,
    snapshot: SnapshotKind::PinnedObjects,
};

/// Files at one location.
#[derive(Debug)]
pub struct FilesSource {
    name: SourceName,
    options: Arc<Options>,
    location: Arc<Location>,
    footers: Arc<Footers>,
    headers: Arc<Headers>,
    deltas: Arc<DeltaTables>,
}

/// What the connector knows of a table besides its columns.
#[derive(Debug)]
pub struct FilesTable {
    /// Name, place and options.
    pub spec: TableSpec,
    /// The format of every file.
    pub format: Format,
    /// The columns inside the files.
    pub file_schema: SchemaRef,
    /// The columns in the names of folders; they come after the others.
    pub partitions: Vec<FieldRef>,
    /// All columns.
    pub schema: SchemaRef,
    /// What its log says, when it is a Delta table.
    pub delta: Option<DeltaTable>,
}

/// A Delta table as it was described.
#[derive(Debug)]
pub struct DeltaTable {
    /// Its state then.
    pub state: Arc<State>,
    /// The state that is meant; the present one when `None`.
    pub asked: Option<TableVersion>,
}

impl FilesTable {
    /// Whether a column stands in the names of folders.
    pub fn is_partition(&self, column: &str) -> bool {
        self.partitions.iter().any(|field| field.name() == column)
    }

    /// The columns as DataFusion's readers want them.
    pub fn table_schema(&self) -> TableSchema {
        TableSchema::builder(Arc::clone(&self.file_schema))
            .with_table_partition_cols(self.partitions.clone())
            .build()
    }
}

/// The states of Delta tables, by name and by what was asked for; each is found once.
type States = HashMap<(String, Option<TableVersion>), Arc<OnceCell<Arc<State>>>>;

/// The objects of each table, as they were when the statement first asked.
#[derive(Debug)]
pub struct FilesSnapshot {
    source: SourceName,
    position: Positions,
    deadline: Option<Deadline>,
    /// What the position file said before the first listing.
    mark: OnceCell<Option<Mark>>,
    listings: Mutex<HashMap<String, Listed>>,
    states: Mutex<States>,
}

/// A table and its objects.
#[derive(Debug, Clone)]
struct Listed {
    spec: TableSpec,
    listing: Arc<OnceCell<Arc<Listing>>>,
}

#[async_trait]
impl Snapshot for FilesSnapshot {
    async fn pin(&self) -> Result<Pinned> {
        let pinned = async {
            let listed: Vec<Listed> = self.listings.lock().values().cloned().collect();
            let listed: Vec<_> = listed
                .iter()
                .filter_map(|listed| Some((&listed.spec, listed.listing.get()?)))
                .collect();
            let states: Vec<_> = {
                let states = self.states.lock();
                let read = states.iter().filter_map(|((table, asked), state)| {
                    Some((table.clone(), asked.is_none(), Arc::clone(state.get()?)))
                });
                read.collect()
            };
            let mark = self.mark.get().and_then(Option::as_ref);
            self.position.pinned(mark, &listed, &states).await
        };
        let pinned = match self.deadline {
            None => pinned.await,
            Some(deadline) => {
                let pinned = tokio::time::timeout_at(deadline.instant().into(), pinned);
                pinned.await.unwrap_or_else(|_elapsed| {
                    let message = "the statement's time ran out while files were listed";
                    Err(SourceError::new(ErrorKind::Timeout, message))
                })
            }
        };
        pinned.map_err(|error| error.in_source(&self.source))
    }

    fn is_fixed_by_planning(&self) -> bool {
        true
    }
}

impl FilesSnapshot {
    /// `snapshot` as one of `source`'s own.
    pub fn of<'a>(snapshot: &'a Arc<dyn Snapshot>, source: &SourceName) -> Result<&'a Self> {
        let any: &dyn Any = snapshot.as_ref();
        let own = any.downcast_ref::<Self>().filter(|own| own.source == *source);
        own.ok_or_else(|| {
            SourceError::internal("the snapshot is another source's").in_source(source)
        })
    }

    /// What the statement reads of a table: the same, whenever it is asked.
    async fn listing(&self, location: &Arc<Location>, table: &FilesTable) -> Result<Arc<Listing>> {
        self.mark.get_or_init(|| self.position.mark()).await;
        let spec = &table.spec;
        if let (Some(folder), Some(delta)) = (&spec.delta, &table.delta) {
            let state = self.state(&spec.name, folder, delta).await?;
            return Ok(Arc::clone(&state.listing));
        }
        let cell = {
            let mut listings = self.listings.lock();
            let listed = listings
                .entry(spec.name.clone())
                .or_insert_with(|| Listed { spec: spec.clone(), listing: Arc::default() });
            Arc::clone(&listed.listing)
        };
        let listing = cell.get_or_try_init(|| async {
            let listing = objects(location, spec).await?;
            listing
                .map(Arc::new)
                .ok_or_else(|| SourceError::new(ErrorKind::Changed, "has no files any more"))
        });
        listing.await.cloned()
    }
}

impl FilesSnapshot {
    /// The state of a Delta table that the statement reads.
    async fn state(&self, name: &str, folder: &Path, table: &DeltaTable) -> Result<Arc<State>> {
        let cell = {
            let key = (name.to_owned(), table.asked);
            Arc::clone(self.states.lock().entry(key).or_default())
        };
        let state = cell.get_or_try_init(|| async {
            if table.asked.is_some() {
                return Ok(Arc::clone(&table.state));
            }
            let latest = self.position.deltas.latest(folder).await?;
            latest.ok_or_else(|| SourceError::new(ErrorKind::Changed, "has no Delta log any more"))
        });
        let state = state.await?;
        // It was described before: a commit came between, or another mention came first.
        if !state.is_like(&table.state) {
            let message = "its columns were changed while the statement was planned; run it again";
            return Err(SourceError::new(ErrorKind::Changed, message));
        }
        Ok(Arc::clone(state))
    }
}

impl FilesSource {
    /// A source. No I/O.
    pub fn new(name: SourceName, options: Options) -> Self {
        let location = Arc::clone(&options.location);
        let footers = Arc::new(Footers::new(Arc::clone(&location)));
        let deltas = Arc::new(DeltaTables::new(Arc::clone(&location)));
        let headers = Arc::default();
        Self { name, options: Arc::new(options), location, footers, headers, deltas }
    }

    fn positions(&self) -> Positions {
        Positions { options: Arc::clone(&self.options), deltas: Arc::clone(&self.deltas) }
    }

    fn place(&self, error: SourceError, table: &TableName) -> SourceError {
        error.in_table(table).in_source(&self.name)
    }

    /// The table of this name and, unless it is a Delta table, its objects.
    async fn look(&self, table: &TableName) -> Result<Option<(TableSpec, Option<Listing>)>> {
        if &*table.schema != SCHEMA {
            return Ok(None);
        }
        let (options, name) = (Arc::clone(&self.options), Arc::clone(&table.name));
        let work = async move {
            let Some(spec) = layout::table(&options, &name).await? else { return Ok(None) };
            let listing = match spec.delta {
                Some(_) => None,
                None => layout::objects(&options.location, &spec).await?,
            };
            Ok(Some((spec, listing)))
        };
        self.location.ask(work).await
    }

    /// The present state of a Delta table.
    async fn latest(&self, spec: &TableSpec, folder: &Path) -> Result<Option<Arc<State>>> {
        match self.deltas.latest(folder).await? {
            None if spec.configured => Err(SourceError::new(
                ErrorKind::Changed,
                format!(
                    "there is no Delta log at {}/{}: correct its `path`",
                    self.location,
                    self.location.relative(folder)
                ),
            )),
            state => Ok(state),
        }
    }

    /// A table that was asked for by name in the configuration has files.
    fn listed(&self, spec: &TableSpec, listing: Option<Listing>) -> Result<Option<Listing>> {
        match listing {
            None if spec.configured => Err(SourceError::new(
                ErrorKind::Changed,
                format!("no file at {} belongs to it: correct its `path`", self.location),
            )),
            listing => Ok(listing),
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Option<Arc<TableDef>>> {
        let Some((spec, listing)) = self.look(table).await? else { return Ok(None) };
        if let Some(folder) = &spec.delta {
            let Some(state) = self.latest(&spec, folder).await? else { return Ok(None) };
            return delta_table(table, spec, state, None).map(Some);
        }
        let Some(listing) = self.listed(&spec, listing)? else { return Ok(None) };
        let partitions = partitions::columns(&listing.objects, &spec.read)?;
        let looking = self.looking(&listing);
        let file_schema = schema::infer(&looking, &spec, &listing, &partitions).await?;
        let all = file_schema.fields().iter().chain(&partitions).cloned();
        let schema = Arc::new(Schema::new(all.collect::<Vec<_>>()));
        let info = TableInfo { name: table.clone(), kind: TableKind::Table, comment: None };
        let format = listing.format;
        let stamp = listing.digest();
        let detail = FilesTable {
            spec,
            format,
            file_schema,
            partitions,
            schema: Arc::clone(&schema),
            delta: None,
        };
        let detail = Arc::new(detail);
        let primary_key = Vec::new();
        Ok(Some(Arc::new(TableDef { info, schema, primary_key, stamp, detail })))
    }

    fn looking(&self, listing: &Listing) -> Looking<'_> {
        let counters = Arc::new(ScanCounters::default());
        let store = PinnedStore::new(Arc::clone(&self.location), pins(listing), counters);
        Looking {
            location: &self.location,
            footers: &self.footers,
            store: Arc::new(store),
            schema_files: self.options.schema_files,
            infer_rows: self.options.infer_rows,
        }
    }

    /// Estimates for all columns of a table from the footers of the objects of `listing`.
    async fn estimate(&self, table: &FilesTable, listing: &Listing) -> Result<Statistics> {
        scan::estimate(&self.looking(listing), table, listing).await
    }

    async fn prepare_scan(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let Ok(table) = Arc::clone(&fragment.table.detail).downcast::<FilesTable>() else {
            return Err(SourceError::internal("the table was described by another connector"));
        };
        let snapshot = FilesSnapshot::of(snapshot, &self.name)?;
        let listing = snapshot.listing(&self.location, &table).await?;
        let kept = scan::Kept::new(&table, &listing, &fragment.filters)?;
        let statistics = self.estimate(&table, &kept.listing).await?;
        let shared = scan::Shared {
            source: self.name.clone(),
            location: Arc::clone(&self.location),
            footers: Arc::clone(&self.footers),
            headers: Arc::clone(&self.headers),
            table,
        };
        Ok(Arc::new(scan::FilesScan::new(shared, fragment, kept, statistics, options)?))
    }
}

/// Describes a Delta table in one of its states.
fn delta_table(
    table: &TableName,
    spec: TableSpec,
    state: Arc<State>,
    asked: Option<TableVersion>,
) -> Result<Arc<TableDef>> {
    let columns = &state.columns;
    let fields = columns.inside.fields().iter().map(|field| {
        let Some(wanted) = spec.read.schema.get(field.name()) else { return Ok(Arc::clone(field)) };
        if !widening::holds(wanted, field.data_type()) {
            return Err(widening::cannot_hold(field, wanted, "its log"));
        }
        Ok(Arc::new(field.as_ref().clone().with_data_type(wanted.clone())))
    });
    let file_schema = Arc::new(Schema::new(fields.collect::<Result<Vec<FieldRef>>>()?));
    if let Some(name) =
        spec.read.schema.keys().find(|name| file_schema.index_of(name.as_str()).is_err())
    {
        let message =
            format!("`schema` gives a type for '{name}', which is no column of its files");
        return Err(SourceError::new(ErrorKind::Unsupported, message));
    }
    let all = file_schema.fields().iter().chain(&columns.partitions).cloned();
    let schema = Arc::new(Schema::new(all.collect::<Vec<_>>()));
    let stamp = state.version.to_string();
    let detail = FilesTable {
        spec,
        format: Format::Parquet,
        file_schema,
        partitions: columns.partitions.clone(),
        schema: Arc::clone(&schema),
        delta: Some(DeltaTable { state, asked }),
    };
    let info = TableInfo { name: table.clone(), kind: TableKind::Table, comment: None };
    let (primary_key, detail) = (Vec::new(), Arc::new(detail));
    Ok(Arc::new(TableDef { info, schema, primary_key, stamp, detail }))
}

/// The objects of a table now; `None` when it has none.
pub async fn objects(location: &Arc<Location>, spec: &TableSpec) -> Result<Option<Listing>> {
    let (there, spec) = (Arc::clone(location), spec.clone());
    location.ask(async move { layout::objects(&there, &spec).await }).await
}

/// The objects of `listing`, by path.
pub fn pins(listing: &Listing) -> Pins {
    let objects = listing.objects.iter();
    Arc::new(objects.map(|object| (object.meta.location.clone(), object.clone())).collect())
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "files"
    }

    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn default_schema(&self) -> &str {
        SCHEMA
    }

    fn location(&self) -> String {
        self.location.to_string()
    }

    async fn position(&self) -> Result<CopyPosition> {
        self.positions().now().await.map_err(|error| error.in_source(&self.name))
    }

    async fn check(&self) -> Result<SourceCheck> {
        let started = Instant::now();
        let name = |e: SourceError| e.in_source(&self.name);
        let location = Arc::clone(&self.location);
        let look = async move {
            layout::must_exist(&location)?;
            let first = location.store.list(Some(&location.root)).try_next().await;
            first.map_err(|e| error::store(&e, "the list of files", &location))
        };
        self.location.ask(look).await.map_err(name)?;
        let kind = if self.location.local.is_some() { "local disk" } else { "object store" };
        Ok(SourceCheck {
            version: format!("files on {kind}"),
            location: self.location.to_string(),
            freshness: match self.options.position_file {
                None => {
                    "strong read: listed by the statement, every object pinned by its ETag or by \
                     the version of its Delta table"
                }
                Some(_) => "an export: its position file says where it is",
            }
            .to_owned(),
            round_trip: started.elapsed(),
        })
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        let options = Arc::clone(&self.options);
        let specs = self.location.ask(async move { layout::tables(&options).await }).await;
        let specs = specs.map_err(|e| e.in_source(&self.name))?;
        let infos = specs.into_iter().map(|spec| TableInfo {
            name: TableName::new(SCHEMA, spec.name),
            kind: TableKind::Table,
            comment: None,
        });
        Ok(infos.collect())
    }

    async fn stamp(&self, table: &TableName) -> Result<Option<String>> {
        let stamp = async {
            let Some((spec, listing)) = self.look(table).await? else { return Ok(None) };
            if let Some(folder) = &spec.delta {
                let state = self.latest(&spec, folder).await?;
                return Ok(state.map(|state| state.version.to_string()));
            }
            Ok(self.listed(&spec, listing)?.map(|listing| listing.digest()))
        };
        stamp.await.map_err(|e| self.place(e, table))
    }

    async fn table(&self, table: &TableName) -> Result<Option<Arc<TableDef>>> {
        self.describe(table).await.map_err(|e| self.place(e, table))
    }

    async fn table_as_of(
        &self,
        table: &TableDef,
        version: TableVersion,
    ) -> Result<Option<Arc<TableDef>>> {
        let described = async {
            let Some(FilesTable { spec, .. }) = table.detail::<FilesTable>() else {
                return Ok(None);
            };
            let Some(folder) = &spec.delta else { return Ok(None) };
            let state = self.deltas.as_of(folder, version).await?;
            delta_table(table.name(), spec.clone(), state, Some(version)).map(Some)
        };
        described.await.map_err(|e| self.place(e, table.name()))
    }

    async fn statistics(&self, table: &TableDef) -> Result<Statistics> {
        let Some(detail) = table.detail::<FilesTable>() else {
            return Ok(Statistics::new_unknown(&table.schema));
        };
        let estimated = async {
            if let Some(delta) = &detail.delta {
                return self.estimate(detail, &delta.state.listing).await;
            }
            match objects(&self.location, &detail.spec).await? {
                Some(listing) => self.estimate(detail, &listing).await,
                None => Ok(Statistics::new_unknown(&table.schema)),
            }
        };
        estimated.await.map_err(|e| self.place(e, table.name()))
    }

    fn pushdown(&self, table: &TableDef, filter: &Expr) -> Pushdown {
        match table.detail::<FilesTable>() {
            Some(detail) => filters::classify(detail, filter),
            None => Pushdown::No(synoptic_types::Reason::NotCapable("foreign tables".to_owned())),
        }
    }

    fn begin(&self, statement: &Arc<Statement>) -> Arc<dyn Snapshot> {
        Arc::new(FilesSnapshot {
            source: self.name.clone(),
            position: self.positions(),
            deadline: statement.deadline,
            mark: OnceCell::new(),
            listings: Mutex::default(),
            states: Mutex::default(),
        })
    }

    async fn prepare(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let table = fragment.table.name().clone();
        let prepared = self.prepare_scan(fragment, snapshot, options).await;
        prepared.map_err(|e| self.place(e, &table))
    }
}
