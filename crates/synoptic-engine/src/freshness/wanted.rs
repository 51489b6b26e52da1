//! The sources a statement names, and what is asked of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use synoptic_catalog::{Snapshot, SourceCopies};
use synoptic_freshness::SourceDemand;
use synoptic_types::{CopyName, ErrorCode, QueryOptions, SourceName, TableName};

use crate::error::{Error, Result};
use crate::sql::TableHint;

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
    /// When a hint is on something that is no source's table, or names a copy that is not there.
    pub(crate) async fn of(
        tables: &[TableReference],
        hints: &[TableHint],
        options: &QueryOptions,
        sources: &Snapshot,
        (catalog, schema): (&str, &str),
    ) -> Result<Self> {
        let mut wanted = Self { sources: BTreeMap::new() };
        for table in tables {
            let Some(meant) = meant(table, sources, catalog, schema).await else { continue };
            // Every mention of the table that has a hint counts with its hint, and every other
            // one with the statement's options; an unhinted mention cannot be told from a hinted
            // one here, so a table that has a hint anywhere has it everywhere.
            let hinted: Vec<_> = hints.iter().filter(|hint| hint.table == *table).collect();
            let name = meant.copies.name().clone();
            let demands = match hinted.as_slice() {
                [] => vec![SourceDemand::new(name.clone(), options)],
                hints => hints
                    .iter()
                    .map(|hint| demand(hint, options, meant.copies))
                    .collect::<Result<_>>()?,
            };
            let source = wanted.sources.entry(name).or_insert_with(|| WantedSource {
                copies: Arc::clone(meant.copies),
                tables: Vec::new(),
                demands: Vec::new(),
            });
            source.tables.push(meant.table);
            source.demands.extend(demands);
        }
        for hint in hints {
            let used = match tables.iter().find(|table| **table == hint.table) {
                Some(table) => meant(table, sources, catalog, schema).await.is_some(),
                None => false,
            };
            if !used {
                return Err(Error::new(
                    ErrorCode::Unsupported,
                    format!(
                        "a table hint on '{}', which is not a table of a source; options of the \
                         whole statement are set with SET synoptic.NAME",
                        hint.table
                    ),
                ));
            }
        }
        Ok(wanted)
    }
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
