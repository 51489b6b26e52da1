//! From a client's text to one statement that the engine honours as a whole.
//!
//! The parser accepts the syntax of many databases and DataFusion's planner drops parts of it in
//! silence. Nothing may be dropped: [`refuse`] walks the tree and names what we do not honour.

mod change;
mod command;
mod hints;
mod placeholders;
mod refuse;
mod rewrite;
mod size;
mod unique;
mod versions;
mod write;

use datafusion::sql::parser::{DFParserBuilder, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

pub(crate) use change::Change;
pub(crate) use command::{Command, Shown};
pub(crate) use hints::TableHint;
pub(crate) use placeholders::number_placeholders;
pub(crate) use unique::{named_apart, shown_name};
pub(crate) use versions::version;
pub(crate) use write::Write;

/// Deepest nesting the parser follows.
const RECURSION_LIMIT: usize = 128;

/// One parsed statement.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Something to plan and run: a query or an EXPLAIN of one.
    Query(Query),
    /// An UPDATE or DELETE, or an EXPLAIN of one.
    Change(Box<Change>),
    /// Something the session does itself.
    Command(Command),
}

/// A query, and what it says of single tables.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) statement: DFStatement,
    pub(crate) hints: Vec<TableHint>,
    /// Where the rows go, when the statement is an INSERT: then it is the query of its rows.
    pub(crate) write: Option<Box<Write>>,
}

/// Parses exactly one statement and refuses what is not honoured.
pub(crate) fn parse(sql: &str) -> Result<Parsed> {
    size::check(sql)?;
    let text = versions::in_names(&number_placeholders(sql)?)?;
    let text = hints::behind_aliases(&text)?;
    let mut statements = DFParserBuilder::new(text.as_str())
        .with_dialect(&GenericDialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()?
        .parse_statements()?;
    let statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(Error::new(ErrorCode::Syntax, "the statement is empty")),
        (Some(_), more) => {
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!("{} statements in one text; send one at a time", more + 1),
            ));
        }
    };
    classify(statement)
}

fn classify(statement: DFStatement) -> Result<Parsed> {
    if let Some(command) = Command::of(&statement)? {
        return Ok(Parsed::Command(command));
    }
    match statement {
        DFStatement::Statement(mut sql) => {
            if let Some(change) = change::take(&sql, false)? {
                return Ok(Parsed::Change(Box::new(change)));
            }
            let write = write::take(&mut sql)?;
            match &*sql {
                SqlStatement::Query(_) | SqlStatement::ExplainTable { .. } => {}
                SqlStatement::Explain { statement, .. } => refuse::not_a_query(statement)?,
                other => return Err(refuse::statement(other)),
            }
            let hints = honoured(&mut sql)?;
            Ok(Parsed::Query(Query { statement: DFStatement::Statement(sql), hints, write }))
        }
        DFStatement::Explain(mut explain) => {
            let DFStatement::Statement(inner) = &mut *explain.statement else {
                return Err(refuse::named("EXPLAIN of this statement"));
            };
            if let Some(change) = change::take(inner, true)? {
                if explain.options.analyze {
                    return Err(refuse::named("EXPLAIN ANALYZE of a write, which would do it,"));
                }
                return Ok(Parsed::Change(Box::new(change)));
            }
            refuse::not_a_query(inner)?;
            let hints = honoured(inner)?;
            Ok(Parsed::Query(Query {
                statement: DFStatement::Explain(explain),
                hints,
                write: None,
            }))
        }
        DFStatement::CreateExternalTable(_) => Err(refuse::named("CREATE EXTERNAL TABLE")),
        DFStatement::CopyTo(_) => Err(refuse::named("COPY")),
        DFStatement::Reset(_) => Err(refuse::named("RESET of this name")),
    }
}

/// Brings a query into the shape that is planned, and refuses what is not honoured.
fn honoured(statement: &mut SqlStatement) -> Result<Vec<TableHint>> {
    rewrite::spellings(statement)?;
    let hints = hints::take(statement)?;
    refuse::unhonoured(statement)?;
    Ok(hints)
}

#[cfg(test)]
mod tests;
