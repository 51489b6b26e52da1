//! Looking for values that do not fit, before operators run at SQLite.
//!
//! SQLite adds up, compares and counts whatever it finds. So before it runs anything but scans,
//! every row that a scan below would deliver is looked at in every column it would deliver or
//! compare, in the same read transaction. SQLite itself passes by the values that fit for certain;
//! what is left is read as a scan reads it, and fails as a scan fails.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use rusqlite::Connection;
use synoptic_source::Result;
use synoptic_types::TableName;

use super::connection::{Connections, IS_UTF8};
use super::decode::{Decoder, Wanted};
use super::types::Kind;
use super::worker::{self, Place};
use crate::sql::{Dialect as _, SQLITE};

/// A connection forgets what it has verified beyond so many columns.
const MOST_VERIFIED: usize = 10_000;

/// Doubles tell apart all decimals of so many digits.
const EXACT_DIGITS: u8 = 15;

/// One scan's values to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub table: TableName,
    /// The rows that may hold a value that does not fit, in `columns`.
    pub sql: String,
    pub columns: Arc<[Wanted]>,
    /// A name for the rowid, to say where such a value is.
    pub rowid: Option<&'static str>,
    /// No filter leaves rows out.
    pub whole: bool,
}

/// The columns of which every value fits, in one state of the database.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// `PRAGMA data_version`: another one after any other connection has committed.
    version: i64,
    columns: HashSet<(Arc<str>, String)>,
}

impl Verified {
    /// What is known of the state that `connection` reads in.
    fn in_state(&mut self, version: i64) {
        if self.version != version || self.columns.len() > MOST_VERIFIED {
            self.columns.clear();
            self.version = version;
        }
    }

    fn has(&self, check: &Check) -> bool {
        let known =
            |name: &String| self.columns.contains(&(Arc::clone(&check.table.name), name.clone()));
        check.columns.iter().all(|column| known(&column.name))
    }

    fn add(&mut self, check: &Check) {
        let columns = check.columns.iter();
        self.columns
            .extend(columns.map(|column| (Arc::clone(&check.table.name), column.name.clone())));
    }
}

/// Runs `checks` in the connection's open read transaction.
///
/// # Errors
/// Of the first value that does not fit, or of SQLite.
pub(super) fn run(
    connection: &Connection,
    connections: &Connections,
    verified: &mut Verified,
    checks: &[Check],
) -> Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    let convert = |error| connections.error(error);
    let version = connection.query_row("PRAGMA data_version", [], |row| row.get(0));
    verified.in_state(version.map_err(convert)?);
    for check in checks {
        if verified.has(check) {
            continue;
        }
        one(connection, connections, check).map_err(|error| error.in_table(&check.table))?;
        if check.whole {
            verified.add(check);
        }
    }
    Ok(())
}

fn one(connection: &Connection, connections: &Connections, check: &Check) -> Result<()> {
    let convert = |error| connections.error(error);
    let mut statement = connection.prepare(&check.sql).map_err(convert)?;
    let schema = Arc::new(Schema::empty());
    let mut decoder = Decoder::new(schema, Arc::clone(&check.columns), 0);
    let mut rows = statement.query([]).map_err(convert)?;
    while let Some(row) = rows.next().map_err(convert)? {
        let taken = decoder.append(|column| row.get_ref(column)).map_err(convert)?;
        if let Err(misfit) = taken {
            let value = row.get_ref(misfit.column).map(worker::owned).map_err(convert)?;
            let place =
                Place { table: &check.table.name, columns: &check.columns, rowid: check.rowid };
            return Err(worker::describe(misfit, value, connection, &place));
        }
    }
    Ok(())
}

/// A condition, never NULL, that is true only of values that fit `column`.
pub(super) fn fits(column: &Wanted) -> String {
    let x = SQLITE.quote_identifier(&column.name);
    let typed = |name: &str| format!("typeof({x}) = '{name}'");
    let fits = match column.kind {
        Kind::Int => typed("integer"),
        Kind::Bool => format!("{} AND {x} IN (0, 1)", typed("integer")),
        Kind::Float => typed("real"),
        Kind::Blob => typed("blob"),
        Kind::Text => format!("{} AND {IS_UTF8}({x})", typed("text")),
        Kind::Any => {
            format!("typeof({x}) <> 'blob' AND (typeof({x}) <> 'text' OR {IS_UTF8}({x}))")
        }
        // A day that does not exist is another one to SQLite, and so is a text in another form.
        Kind::Date => format!("{} AND length({x}) = 10 AND date({x}) IS {x}", typed("text")),
        Kind::Timestamp => format!(
            "{} AND length({x}) = 19 AND strftime('%Y-%m-%d %H:%M:%S', {x}) IS {x}",
            typed("text")
        ),
        Kind::Decimal { precision, scale } if precision <= EXACT_DIGITS => {
            let whole = i32::from(precision) - i32::from(scale);
            format!(
                "typeof({x}) IN ('integer', 'real') AND {x} > -1e{whole} AND {x} < 1e{whole} \
                 AND round({x}, {scale}) = {x}"
            )
        }
        // Every one is read.
        Kind::Decimal { .. } | Kind::Moment => "0".to_owned(),
    };
    if column.nullable { format!("({x} IS NULL OR {fits})") } else { format!("({fits})") }
}

/// Whether a column's values fit because SQLite sees to it.
pub(super) fn is_enforced(kind: Kind, strict: bool, rowid: bool) -> bool {
    match kind {
        Kind::Int => strict || rowid,
        Kind::Blob => strict,
        _ => false,
    }
}

/// The text of a check: rows under `filters` with a value that may not fit.
pub(super) fn sql(from: &str, columns: &[Wanted], filters: &[String]) -> String {
    let list = columns.iter().map(|column| SQLITE.quote_identifier(&column.name));
    let list = list.collect::<Vec<_>>().join(", ");
    let all = columns.iter().map(fits).collect::<Vec<_>>().join(" AND ");
    let filters: String = filters.iter().map(|filter| format!("{filter} AND ")).collect();
    format!("SELECT {list} FROM {from} WHERE {filters}NOT ({all})")
}
