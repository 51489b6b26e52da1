//! Tables and their columns, from `sqlite_schema` and the pragmas about it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use rusqlite::{Connection, OptionalExtension as _, params};
use synoptic_source::{TableDef, TableInfo, TableKind};
use synoptic_types::TableName;

use super::types::Kind;
use crate::sql::{ColumnFacts, Columns};

/// The one schema: attached databases are other sources.
pub(super) const SCHEMA: &str = "main";

/// What a relation is to SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Table,
    View,
    /// Values come from a module, which need not keep to the declared types.
    Virtual,
}

/// One column, as far as SQLite knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnDetail {
    pub name: String,
    /// As declared; empty when it is not.
    pub declared: String,
    pub kind: Kind,
    /// An ordinary table's column under BINARY, whose affinity is that of its type.
    pub binary: bool,
}

/// What a [`TableDef`] of this connector keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detail {
    pub relation: Relation,
    pub columns: Vec<ColumnDetail>,
    /// A name for the rowid that no column has taken; `None` when there is no rowid.
    pub rowid: Option<&'static str>,
    /// The column that is another name for the rowid.
    pub rowid_alias: Option<usize>,
    /// SQLite enforces the declared types: `STRICT`.
    pub strict: bool,
    /// Texts are kept as UTF-8, so that they sort by code point.
    pub utf8: bool,
}

impl Columns for Detail {
    fn facts(&self, column: &str) -> Option<ColumnFacts> {
        let column = self.columns.iter().find(|known| known.name == column)?;
        let text = matches!(column.kind, Kind::Text | Kind::Date | Kind::Timestamp | Kind::Moment);
        if self.relation == Relation::Virtual || (text && !self.utf8) {
            return None;
        }
        // Without one type there is nothing to compare.
        let native = if column.kind == Kind::Any { "" } else { column.declared.as_str() };
        Some(ColumnFacts {
            native_type: native.to_owned(),
            collation_is_binary: column.binary,
            padded_char: false,
        })
    }
}

/// Every table and view, without SQLite's own and those that virtual tables keep theirs in.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<TableInfo>> {
    let mut statement = connection.prepare(
        "SELECT name, type FROM pragma_table_list \
         WHERE schema = 'main' AND type IN ('table', 'view', 'virtual') \
           AND lower(substr(name, 1, 7)) <> 'sqlite_' ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
        let kind = if kind == "view" { TableKind::View } else { TableKind::Table };
        Ok(TableInfo { name: TableName::new(SCHEMA, name), kind, comment: None })
    })?;
    rows.collect()
}

/// Changes whenever the description of the table would. `None` when there is none of that exact
/// name.
pub(super) fn stamp(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let found: Option<(String, String)> = connection
        .query_row(
            "SELECT type, coalesce(sql, '') FROM main.sqlite_schema \
             WHERE name = ?1 AND type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((kind, sql)) = found else { return Ok(None) };
    let mut hasher = DefaultHasher::new();
    if kind == "view" {
        // A view's columns come from whatever it reads, through any number of views.
        let mut all = connection.prepare("SELECT coalesce(sql, '') FROM main.sqlite_schema")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            row.get_ref(0)?.as_str().unwrap_or_default().hash(&mut hasher);
        }
    }
    sql.hash(&mut hasher);
    Ok(Some(format!("{kind}:{:016x}", hasher.finish())))
}

/// Describes a table; `None` when there is none of that exact name. Run it in a transaction.
pub(super) fn describe(
    connection: &Connection,
    table: &TableName,
) -> rusqlite::Result<Option<TableDef>> {
    let name = &*table.name;
    let Some(stamp) = stamp(connection, name)? else { return Ok(None) };
    let (kind, without_rowid, strict): (String, bool, bool) = connection.query_row(
        "SELECT type, wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'",
        [name],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let relation = match kind.as_str() {
        "view" => Relation::View,
        "virtual" => Relation::Virtual,
        _ => Relation::Table,
    };
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    let columns = columns(connection, name)?;
    if columns.is_empty() {
        // A view over what is gone, or a module that is not there: SQLite says which.
        let quoted = name.replace('"', "\"\"");
        connection.prepare(&format!("SELECT * FROM main.\"{quoted}\""))?;
    }

    let mut key: Vec<&Declared> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    let rowid_alias = match key.as_slice() {
        [only] if relation == Relation::Table && !without_rowid => {
            let is_alias =
                only.declared.eq_ignore_ascii_case("INTEGER") && !has_key_index(connection, name)?;
            is_alias.then(|| columns.iter().position(|column| column.key > 0)).flatten()
        }
        _ => None,
    };
    let taken = |alias: &str| columns.iter().any(|c| c.name.eq_ignore_ascii_case(alias));
    let rowid = (relation == Relation::Table && !without_rowid)
        .then(|| ["rowid", "_rowid_", "oid"].into_iter().find(|alias| !taken(alias)))
        .flatten();

    let mut fields = Vec::with_capacity(columns.len());
    let mut details = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let kind = Kind::of(&column.declared);
        let enforced = relation == Relation::Table
            && (column.not_null || (without_rowid && column.key > 0) || rowid_alias == Some(index));
        fields.push(Field::new(&column.name, kind.arrow(), !enforced));
        let binary =
            relation == Relation::Table && collation(connection, name, &column.name)? == "BINARY";
        let (name, declared) = (column.name.clone(), column.declared.clone());
        details.push(ColumnDetail { name, declared, kind, binary });
    }
    // Different values at SQLite may be one here: '2024-01-01' and '2024-01-01 00:00:00', 1 and '1'.
    let told_apart = |column: &&Declared| {
        matches!(
            Kind::of(&column.declared),
            Kind::Bool | Kind::Int | Kind::Float | Kind::Text | Kind::Blob | Kind::Date
        )
    };
    let primary_key = match key.iter().all(told_apart) {
        true => key.iter().map(|column| column.name.clone()).collect(),
        false => Vec::new(),
    };
    let table_kind = if kind == "view" { TableKind::View } else { TableKind::Table };
    Ok(Some(TableDef {
        info: TableInfo { name: table.clone(), kind: table_kind, comment: None },
        schema: Arc::new(Schema::new(fields)),
        primary_key,
        stamp,
        detail: Arc::new(Detail {
            relation,
            columns: details,
            rowid,
            rowid_alias,
            strict,
            utf8: encoding == "UTF-8",
        }),
    }))
}

/// A column as `table_xinfo` lists it.
struct Declared {
    name: String,
    declared: String,
    not_null: bool,
    /// Its place in the primary key, from 1; 0 when it is not part of it.
    key: i64,
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Declared>> {
    // Hidden 1 is a virtual table's hidden column; 2 and 3 are generated ones, which are read.
    let mut statement = connection.prepare(
        "SELECT name, coalesce(type, ''), \"notnull\", pk \
         FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(Declared {
            name: row.get(0)?,
            declared: declared_type(row.get(1)?),
            not_null: row.get(2)?,
            key: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// The type as written, without what SQLite keeps with it for generated columns.
fn declared_type(text: String) -> String {
    let trimmed = text.trim_end();
    let end = trimmed.len().saturating_sub("GENERATED ALWAYS".len());
    match trimmed.get(end..) {
        Some(tail) if tail.eq_ignore_ascii_case("GENERATED ALWAYS") => {
            trimmed[..end].trim_end().to_owned()
        }
        _ => text,
    }
}

/// Whether the primary key has an index of its own, so is no alias of the rowid
/// (`INTEGER PRIMARY KEY DESC`).
fn has_key_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT count(*) > 0 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'",
        params![table],
        |row| row.get(0),
    )
}

fn collation(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<String> {
    let (_, collation, ..) = connection.column_metadata(Some(SCHEMA), table, column)?;
    Ok(collation.map(|name| name.to_string_lossy().to_ascii_uppercase()).unwrap_or_default())
}
