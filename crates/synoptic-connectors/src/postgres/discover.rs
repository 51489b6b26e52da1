//! Tables and columns, from the catalog.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema};
use serde::Deserialize;
use synoptic_source::{Result, SourceError, TableDef, TableInfo, TableKind};
use synoptic_types::TableName;
use tokio_postgres::Row;

use crate::sql::{ColumnFacts, Columns};

use super::types::{Cast, Encoding, Resolved, TypeRow, resolve};

/// What may be read: relations of every readable kind in schemas that are not the system's.
/// A table of which only some columns may be read is listed too, and has those columns.
const READABLE: &str = "\
    c.relkind IN ('r', 'v', 'm', 'p', 'f') \
    AND c.relpersistence <> 't' \
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

/// A text that changes with the description: the identity of the relation and of its last change,
/// and a digest of everything the description says. Every scan asks for it, so it says itself what
/// `obj_description()` says: that is an SQL function, and running one costs the server as much as
/// all the rest.
const STAMP: &str = "\
    c.oid || '/' || c.xmin || '/' || \
    pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(\
        pg_catalog.concat_ws('|', c.relkind, \
            pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
            (SELECT d.description FROM pg_catalog.pg_description d WHERE d.objoid = c.oid \
                AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                AND d.objsubid = 0), \
            (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attnum, a.attname, \
                    a.atttypid, a.atttypmod, a.attndims, a.attnotnull, a.attcollation, \
                    a.attisdropped, pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), \
                    ';' ORDER BY a.attnum) \
                FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), \
            (SELECT i.indexrelid || ' ' || i.indkey::pg_catalog.text || ' ' || i.indisvalid \
                FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
            (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits h \
                WHERE h.inhparent = c.oid)), \
        pg_catalog.getdatabaseencoding())), 'hex'), 32)";

/// Whether ranges of `ctid` are ranges of pages that the server reads without looking at the rest:
/// one heap, on a server that has the TID range scan. A row security policy would be evaluated
/// before the range, so that every partition would read everything; and rights to some columns are
/// not rights to `ctid`.
const SPLITTABLE: &str = "\
    c.relkind IN ('r', 'm') AND NOT c.relhassubclass AND NOT c.relrowsecurity \
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT') \
    AND (SELECT m.amname FROM pg_catalog.pg_am m WHERE m.oid = c.relam) = 'heap' \
    AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 140000";

/// Every table, one row each: schema, name, kind, comment.
pub(super) fn tables_sql() -> String {
    format!(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, \
             pg_catalog.obj_description(c.oid, 'pg_class') \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE {READABLE}"
    )
}

/// The stamp of one table, as rows of schema, name, stamp; none when there is no such table.
fn stamp_select(schema: &str, name: &str) -> String {
    format!(
        "SELECT n.nspname::text AS table_schema, c.relname::text AS table_name, {STAMP} AS stamp \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {schema}::pg_catalog.text AND c.relname = {name}::pg_catalog.text \
         AND {READABLE}"
    )
}

/// The name under which connections keep the question for a stamp prepared: planning it costs the
/// server several times what answering it does. The name is that of the text. Behind a pooler, where
/// a connection may be another's next, it thus always means the same question or none.
static STAMP_NAME: LazyLock<String> =
    LazyLock::new(|| prepared_name("synoptic_stamp", &stamp_select("$1", "$2")));

/// The name of a statement that connections keep prepared: that of its text.
pub(super) fn prepared_name(what: &str, text: &str) -> String {
    // FNV-1a: the same in every process.
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let digest = text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, fold);
    format!("{what}_{digest:016x}")
}

/// Prepares what [`stamps_sql`] executes on a connection.
pub(super) fn prepare_stamps_sql() -> String {
    format!("PREPARE {} (text, text) AS {}", *STAMP_NAME, stamp_select("$1", "$2"))
}

/// The stamps of several tables, one statement each: rows of schema, name, stamp. `prepared`: with
/// what [`prepare_stamps_sql`] prepared.
pub(super) fn stamps_sql<'a>(
    tables: impl Iterator<Item = &'a TableName>,
    prepared: bool,
) -> String {
    let of = |table: &TableName| {
        let (schema, name) = (any_literal(&table.schema), any_literal(&table.name));
        match prepared {
            true => format!("EXECUTE {}({schema}, {name})", *STAMP_NAME),
            false => stamp_select(&schema, &name),
        }
    };
    tables.map(of).collect::<Vec<_>>().join("; ")
}

/// What a parent enforces, its partitions do too, but tables that only inherit from it need not:
/// and reading it reads them as well.
const ENFORCED: &str = "(c.relkind = 'p' OR NOT EXISTS \
    (SELECT 1 FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid))";

/// Everything about table `$2` in schema `$1`, as one JSON text from one snapshot.
pub(super) fn describe_sql() -> String {
    format!(
        "SELECT pg_catalog.json_build_object(\
             'kind', c.relkind::text, \
             'comment', pg_catalog.obj_description(c.oid, 'pg_class'), \
             'lockable', c.relkind IN ('r', 'p') \
                 AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
             'splittable', {SPLITTABLE}, \
             'stamp', {STAMP}, \
             'encoding', pg_catalog.getdatabaseencoding(), \
             'database', (SELECT pg_catalog.to_jsonb(d) FROM pg_catalog.pg_database d \
                 WHERE d.datname = pg_catalog.current_database()), \
             'primary_key', (SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) \
                 FROM pg_catalog.pg_index i \
                 CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) \
                     WITH ORDINALITY AS k(attnum, place) \
                 JOIN pg_catalog.pg_attribute a \
                     ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
                 WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND {ENFORCED} \
                 AND k.place <= i.indnkeyatts), \
             'columns', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(\
                     'name', a.attname, 'type', a.atttypid::pg_catalog.int8, \
                     'typmod', a.atttypmod, 'dimensions', a.attndims, \
                     'not_null', a.attnotnull AND c.relkind IN ('r', 'p') AND {ENFORCED} \
                         AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k \
                             WHERE k.conrelid = a.attrelid AND k.contype = 'n' \
                             AND NOT k.convalidated AND a.attnum = ANY (k.conkey)), \
                     'collation', (SELECT pg_catalog.to_jsonb(l) FROM pg_catalog.pg_collation l \
                         WHERE l.oid = a.attcollation)) ORDER BY a.attnum) \
                 FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                 AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), \
             'types', (WITH RECURSIVE needed(oid) AS (\
                     SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                     UNION \
                     SELECT inner_type.oid FROM needed \
                     JOIN pg_catalog.pg_type t ON t.oid = needed.oid \
                     CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS inner_type(oid) \
                     WHERE inner_type.oid <> 0) \
                 SELECT pg_catalog.json_agg(pg_catalog.json_build_object(\
                     'oid', t.oid::pg_catalog.int8, 'name', t.typname, 'kind', t.typtype::text, \
                     'base', t.typbasetype::pg_catalog.int8, 'base_typmod', t.typtypmod, \
                     'base_dimensions', t.typndims, 'element', t.typelem::pg_catalog.int8, \
                     'array', t.typarray::pg_catalog.int8)) \
                 FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid))::text \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2 AND {READABLE}"
    )
}

/// A text as a SQL literal, whatever `standard_conforming_strings` is.
fn any_literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!("E{}", literal(&text.replace('\\', "\\\\"))),
        false => literal(text),
    }
}

/// A text as a SQL literal, under `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as a SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How values of a text column compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collation {
    /// The type has none.
    None,
    /// By bytes, as the engine does.
    Binary,
    /// Equal means equal bytes; order is that of a language.
    Deterministic,
    /// Different bytes may be equal, or the server keeps other bytes than UTF-8.
    Foreign,
}

/// One column as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PgColumn {
    pub name: String,
    pub resolved: Resolved,
    pub nullable: bool,
    pub collation: Collation,
    /// `char(n)`: comparisons ignore trailing spaces.
    pub padded: bool,
}

impl PgColumn {
    pub fn encoding(&self) -> &Encoding {
        &self.resolved.encoding
    }

    /// The column as it is selected.
    pub fn select(&self) -> String {
        let name = identifier(&self.name);
        match self.resolved.cast {
            Cast::None => name,
            Cast::Text => format!("{name}::pg_catalog.text"),
            Cast::TextArray => format!("{name}::pg_catalog.text[]"),
        }
    }
}

/// What the connector keeps of a table beside its Arrow schema.
#[derive(Debug)]
pub(super) struct PgTable {
    /// In the order of the schema's fields.
    pub columns: Vec<PgColumn>,
    /// Whether `LOCK TABLE … IN ACCESS SHARE MODE` is possible and allowed.
    pub lockable: bool,
    /// Whether it can be read in ranges of `ctid`.
    pub splittable: bool,
}

impl Columns for PgTable {
    /// A row of NULLs `IS NULL`, and one with a NULL in it is not `NOT NULL` either: its text is.
    fn null_operand(&self, column: &str) -> Option<String> {
        let column = self.columns.iter().find(|c| c.name == column)?;
        (column.resolved.cast == Cast::Text).then(|| column.select())
    }

    fn facts(&self, column: &str) -> Option<ColumnFacts> {
        let column = self.columns.iter().find(|c| c.name == column)?;
        // What is converted on the way is compared here, and so is what the server compares
        // by other than its bytes.
        if column.resolved.cast != Cast::None || column.collation == Collation::Foreign {
            return None;
        }
        Some(ColumnFacts {
            native_type: column.resolved.native.clone(),
            collation_is_binary: column.collation == Collation::Binary,
            padded_char: column.padded,
        })
    }
}

#[derive(Deserialize)]
struct DescribedTable {
    kind: String,
    comment: Option<String>,
    lockable: bool,
    splittable: Option<bool>,
    stamp: String,
    encoding: String,
    database: DescribedDatabase,
    primary_key: Option<Vec<String>>,
    columns: Option<Vec<DescribedColumn>>,
    types: Option<Vec<TypeRow>>,
}

/// A row of `pg_database`, of which servers before 15 know less.
#[derive(Deserialize)]
struct DescribedDatabase {
    datlocprovider: Option<String>,
    datcollate: Option<String>,
    datlocale: Option<String>,
}

#[derive(Deserialize)]
struct DescribedColumn {
    name: String,
    #[serde(rename = "type")]
    oid: u32,
    typmod: i32,
    dimensions: i32,
    not_null: bool,
    collation: Option<DescribedCollation>,
}

/// A row of `pg_collation`.
#[derive(Deserialize)]
struct DescribedCollation {
    collname: String,
    collprovider: String,
    collcollate: Option<String>,
    colllocale: Option<String>,
    collisdeterministic: Option<bool>,
}

/// A line of the listing from a row of [`tables_sql`].
///
/// # Errors
/// `Internal` when the row has another shape.
pub(super) fn table_info(row: &Row) -> Result<TableInfo> {
    let text = |i| row.try_get::<_, String>(i).map_err(|_| unexpected("listing"));
    let kind = text(2)?;
    Ok(TableInfo {
        name: TableName::new(text(0)?, text(1)?),
        kind: kind_of(&kind).ok_or_else(|| unexpected("listing"))?,
        comment: row.try_get(3).map_err(|_| unexpected("listing"))?,
    })
}

fn unexpected(what: &str) -> SourceError {
    SourceError::internal(format!("PostgreSQL's catalog gave a {what} that cannot be read"))
}

fn kind_of(relkind: &str) -> Option<TableKind> {
    Some(match relkind {
        "r" => TableKind::Table,
        "v" => TableKind::View,
        "m" => TableKind::MaterializedView,
        "p" => TableKind::PartitionedTable,
        "f" => TableKind::ForeignTable,
        _ => return None,
    })
}

/// A table from the JSON of [`describe_sql`].
///
/// # Errors
/// `Internal` when the text has another shape.
pub(super) fn table_def(name: &TableName, json: &str) -> Result<TableDef> {
    let described: DescribedTable = serde_json::from_str(json)
        .map_err(|error| unexpected("description").caused_by(error).in_table(name))?;
    let types: HashMap<u32, TypeRow> =
        described.types.unwrap_or_default().into_iter().map(|row| (row.oid, row)).collect();
    let columns: Vec<PgColumn> = described
        .columns
        .unwrap_or_default()
        .into_iter()
        .map(|column| {
            let resolved = resolve(&types, column.oid, column.typmod, column.dimensions);
            PgColumn {
                padded: resolved.native == "bpchar",
                collation: match collation(column.collation.as_ref(), &described.database) {
                    Collation::None => Collation::None,
                    _ if described.encoding != "UTF8" => Collation::Foreign,
                    collation => collation,
                },
                nullable: !column.not_null,
                name: column.name,
                resolved,
            }
        })
        .collect();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(&column.name, column.encoding().arrow(), column.nullable))
        .collect();
    // A key of which a column may not be read is no key of what can be read.
    let primary_key = described
        .primary_key
        .filter(|key| key.iter().all(|name| columns.iter().any(|c| c.name == *name)))
        .unwrap_or_default();
    Ok(TableDef {
        info: TableInfo {
            name: name.clone(),
            kind: kind_of(&described.kind).ok_or_else(|| unexpected("description"))?,
            comment: described.comment,
        },
        schema: Arc::new(Schema::new(fields)),
        primary_key,
        stamp: described.stamp,
        detail: Arc::new(PgTable {
            columns,
            lockable: described.lockable,
            splittable: described.splittable.unwrap_or(false),
        }),
    })
}

fn collation(column: Option<&DescribedCollation>, database: &DescribedDatabase) -> Collation {
    let Some(column) = column else { return Collation::None };
    if column.collisdeterministic == Some(false) {
        return Collation::Foreign;
    }
    let (provider, locale) = if column.collname == "default" && column.collprovider == "d" {
        let provider = database.datlocprovider.as_deref().unwrap_or("c");
        let locale = if provider == "c" { &database.datcollate } else { &database.datlocale };
        (provider, locale.as_deref())
    } else {
        let provider = column.collprovider.as_str();
        let locale = if provider == "c" { &column.collcollate } else { &column.colllocale };
        (provider, locale.as_deref())
    };
    // libc's C.UTF-8 sorts by code point only in newer systems; the builtin provider's always does.
    let binary = matches!(
        (provider, locale),
        ("c", Some("C" | "POSIX"))
            | ("b", Some("C" | "C.UTF-8" | "C.UTF8" | "PG_C_UTF8" | "PG_UNICODE_FAST"))
    );
    if binary { Collation::Binary } else { Collation::Deterministic }
}

/// What changed from `planned` to `now` in the columns at `used`, in words; `None` when nothing
/// that matters did.
pub(super) fn difference(planned: &TableDef, now: &TableDef, used: &[usize]) -> Option<String> {
    let (Some(before), Some(after)) = (planned.detail::<PgTable>(), now.detail::<PgTable>()) else {
        return Some("its description is of another connector".to_owned());
    };
    for &i in used {
        let column = before.columns.get(i)?;
        let name = &column.name;
        let Some(found) = after.columns.iter().find(|c| c.name == *name) else {
            return Some(format!("column {name} is gone"));
        };
        if found.resolved != column.resolved {
            let (was, is) = (column.encoding().arrow(), found.encoding().arrow());
            return Some(if was == is {
                format!(
                    "column {name} was {} and is {}",
                    column.resolved.native, found.resolved.native
                )
            } else {
                format!("column {name} was {was} and is {is}")
            });
        }
        if found.nullable && !column.nullable {
            return Some(format!("column {name} was NOT NULL and may be NULL"));
        }
        if found.collation != column.collation {
            return Some(format!("column {name} has another collation"));
        }
    }
    None
}
