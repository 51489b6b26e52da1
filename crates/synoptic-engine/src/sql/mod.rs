//! From a client's text to one statement that the engine honours as a whole.
//!
//! The parser accepts the syntax of many databases and DataFusion's planner drops parts of it in
//! silence. Nothing may be dropped: [`refuse`] walks the tree and names what we do not honour.

mod command;
mod placeholders;
mod refuse;
mod rewrite;
mod size;
mod unique;

use datafusion::sql::parser::{DFParserBuilder, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

pub(crate) use command::{Command, Shown};
pub(crate) use placeholders::number_placeholders;
pub(crate) use unique::{named_apart, shown_name};

/// Deepest nesting the parser follows.
const RECURSION_LIMIT: usize = 128;

/// One parsed statement.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Something to plan and run: a query or an EXPLAIN of one.
    Query(DFStatement),
    /// Something the session does itself.
    Command(Command),
}

/// Parses exactly one statement and refuses what is not honoured.
pub(crate) fn parse(sql: &str) -> Result<Parsed> {
    size::check(sql)?;
    let numbered = number_placeholders(sql)?;
    let mut statements = DFParserBuilder::new(numbered.as_str())
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
            if matches!(*sql, SqlStatement::Query(_) | SqlStatement::ExplainTable { .. }) {
                rewrite::spellings(&mut sql)?;
                refuse::unhonoured(&sql)?;
                return Ok(Parsed::Query(DFStatement::Statement(sql)));
            }
            if let SqlStatement::Explain { statement, .. } = &*sql {
                refuse::not_a_query(statement)?;
                rewrite::spellings(&mut sql)?;
                refuse::unhonoured(&sql)?;
                return Ok(Parsed::Query(DFStatement::Statement(sql)));
            }
            Err(refuse::statement(&sql))
        }
        DFStatement::Explain(mut explain) => {
            let DFStatement::Statement(inner) = &mut *explain.statement else {
                return Err(refuse::named("EXPLAIN of this statement"));
            };
            refuse::not_a_query(inner)?;
            rewrite::spellings(inner)?;
            refuse::unhonoured(inner)?;
            Ok(Parsed::Query(DFStatement::Explain(explain)))
        }
        DFStatement::CreateExternalTable(_) => Err(refuse::named("CREATE EXTERNAL TABLE")),
        DFStatement::CopyTo(_) => Err(refuse::named("COPY")),
        DFStatement::Reset(_) => Err(refuse::named("RESET of this name")),
    }
}

#[cfg(test)]
mod tests;
