//! The sources a statement names, and what is asked of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use datafusion::common::TableReference;
use synoptic_catalog::{Snapshot, SourceCopies};
use synoptic_freshness::SourceDemand;
use synoptic_types::{CopyName, ErrorCode, QueryOptions, SourceName, TableName, TableVersion};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::sql::{TableHint, version};

/// What a statement wants of its sources.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) sources: BTreeMap<SourceName, WantedSource>,
}

/// One source of a statement.
#[derive(Debug, Clone)]
pub(crate) struct WantedSource {
    pub(crate) copies: Arc<SourceCopies>,
    /// The tables that are named, by the names they have at the authoritative copy.
    pub(crate) tables: Vec<TableName>,
    /// The strictest of what is asked of its tables.
    pub(crate) demands: Vec<SourceDemand>,
}

/// A table of a source as a statement means it.
struct Meant<'a> {
    copies: &'a Arc<SourceCopies>,
    table: TableName,
}

impl Wanted {
    /// What `tables` and the hints on them want. Unqualified names are looked up in `catalog` and
    /// `schema`.
    ///
    /// # Errors
    /// When a hint or a moment is on something that is no source's table, a hint names a copy that
    /// is not there, or a moment has not come yet.
    pub(crate) async fn of(
        engine: &Engine,
        tables: &[TableReference],
        hints: &[TableHint],
        options: &QueryOptions,
        sources: &Snapshot,
        (catalog, schema): (&str, &str),
    ) -> Result<Self> {
        let mut wanted = Self { sources: BTreeMap::new() };
        for table in tables {
            let (plain, version) = plain(table);
            let Some(meant) = meant(&plain, sources, catalog, schema).await else {
                if version.is_some() {
                    return Err(not_of_a_source("FOR SYSTEM_TIME or VERSION AS OF", &plain));
                }
                continue;
            };
            // Every mention of the table that has a hint counts with its hint, and every other
            // one with the statement's options.
            let hinted: Vec<_> = hints.iter().filter(|hint| hint.table == *table).collect();
            let name = meant.copies.name().clone();
            let mut demands = match hinted.as_slice() {
                [] => vec![SourceDemand::new(name.clone(), options)],
                hints => hints
                    .iter()
                    .map(|hint| demand(hint, options, meant.copies))
                    .collect::<Result<_>>()?,
            };
            let version = version.or(options.read_at()?.map(TableVersion::At));
            if let Some(moment) = version.and_then(TableVersion::moment) {
                let complete = complete_since(engine, moment)?;
                for demand in &mut demands {
                    demand.max_staleness = demand.max_staleness.min(complete);
                }
            }
            // States that a table keeps itself are the authoritative copy's own.
            let entry = meant.copies.authoritative();
            if version.is_some() && entry.system_time(&meant.table).is_none() {
                for demand in &mut demands {
                    demand.pinned.get_or_insert_with(CopyName::primary);
                }
            }
            let source = wanted.sources.entry(name).or_insert_with(|| WantedSource {
                copies: Arc::clone(meant.copies),
                tables: Vec::new(),
                demands: Vec::new(),
            });
            source.tables.push(meant.table);
            source.demands.extend(demands);
        }
        for hint in hints.iter().filter(|hint| !hint.options.is_empty()) {
            let used = match tables.iter().find(|table| **table == hint.table) {
                Some(table) => meant(&plain(table).0, sources, catalog, schema).await.is_some(),
                None => false,
            };
            if !used {
                return Err(not_of_a_source("a table hint", &plain(&hint.table).0));
            }
        }
        Ok(wanted)
    }
}

fn not_of_a_source(what: &str, table: &TableReference) -> Error {
    Error::new(
        ErrorCode::Unsupported,
        format!(
            "{what} on '{table}', which is not a table of a source; options of the whole statement \
             are set with SET synoptic.NAME"
        ),
    )
}

/// A name without the version that it may carry, and the version.
fn plain(table: &TableReference) -> (TableReference, Option<TableVersion>) {
    let Some((name, asked)) = version(table.table()) else { return (table.clone(), None) };
    let plain = match table {
        TableReference::Bare { .. } => TableReference::bare(name),
        TableReference::Partial { schema, .. } => TableReference::partial(Arc::clone(schema), name),
        TableReference::Full { catalog, schema, .. } => {
            TableReference::full(Arc::clone(catalog), Arc::clone(schema), name)
        }
    };
    (plain, Some(asked))
}

/// How stale a copy may be that holds all that was there at `moment`, by our own clock; nothing is
/// stale enough to be sure when that has no bound.
///
/// # Errors
/// When the moment has not come yet: what will have been in force then nobody knows.
fn complete_since(engine: &Engine, moment: DateTime<Utc>) -> Result<Duration> {
    let now = engine.clock().now();
    let nanos = |time: DateTime<Utc>| {
        i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos())
    };
    let (earliest, latest) = match engine.wall_time() {
        Ok(reading) => (Some(i128::from(reading.wall.earliest)), i128::from(reading.wall.latest)),
        Err(_) => (None, nanos(now)),
    };
    if nanos(moment) > latest {
        return Err(Error::new(
            ErrorCode::InvalidOption,
            format!("a table cannot be read as of {moment}: that is to come, now is {now}"),
        ));
    }
    let since = earliest.map_or(0, |earliest| (earliest - nanos(moment)).max(0));
    Ok(Duration::from_nanos(u64::try_from(since).unwrap_or(u64::MAX)))
}

fn demand(
    hint: &TableHint,
    options: &QueryOptions,
    copies: &Arc<SourceCopies>,
) -> Result<SourceDemand> {
    let mut options = options.clone();
    let mut pinned = None;
    for (name, value) in &hint.options {
        if name == "copy" {
            let copy = CopyName::new(value.as_str());
            if copies.entry(&copy).is_none() {
                let known: Vec<_> = copies.entries().map(|e| e.copy().to_string()).collect();
                return Err(Error::new(
                    ErrorCode::InvalidOption,
                    format!(
                        "source '{}' has no copy '{value}'; its copies are {}",
                        copies.name(),
                        known.join(", ")
                    ),
                ));
            }
            pinned = Some(copy);
        } else {
            options.set(name, value)?;
        }
    }
    Ok(SourceDemand { pinned, ..SourceDemand::new(copies.name().clone(), &options) })
}

/// The source's table that a name means, by the rules of `StatementCatalogs`: a schema of the
/// current catalog before the shorthand `source.table`.
async fn meant<'a>(
    table: &TableReference,
    sources: &'a Snapshot,
    catalog: &str,
    schema: &str,
) -> Option<Meant<'a>> {
    let in_source = |name: &str, schema: Option<&str>, table: &str| {
        let copies = sources.copies(name)?;
        let schema = schema.unwrap_or_else(|| copies.authoritative().source().default_schema());
        Some(Meant { copies, table: TableName::new(schema, table) })
    };
    match table {
        TableReference::Full { catalog, schema, table } => in_source(catalog, Some(schema), table),
        TableReference::Bare { table } => in_source(catalog, Some(schema), table),
        TableReference::Partial { schema, table } => {
            let short = in_source(schema, None, table);
            let long = in_source(catalog, Some(schema), table);
            match (long, short) {
                (Some(long), Some(short)) => {
                    let entry = long.copies.authoritative();
                    let there = entry.table(&long.table).await.is_ok_and(|table| table.is_some());
                    Some(if there { long } else { short })
                }
                (long, short) => long.or(short),
            }
        }
    }
}
