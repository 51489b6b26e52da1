//! Options of one table: `FROM market.quotes WITH (max_staleness = '500ms') AS q`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Statement, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use synoptic_types::{ErrorCode, QueryOptions};

use crate::error::{Error, Result};

use super::placeholders::LineOffsets;

/// The options a table can have, and the name of a copy.
const NAMES: [&str; 4] = ["max_staleness", "on_unmet", "wait_timeout", "copy"];

/// What was said of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableHint {
    pub(crate) table: TableReference,
    /// Options by name, `copy` among them; none where another mention of the table has some.
    pub(crate) options: Vec<(String, String)>,
}

/// Puts `WITH (…)` behind the alias that follows it, which is where the parser looks for it.
pub(super) fn behind_aliases(sql: &str) -> Result<String> {
    if !NAMES.iter().any(|name| contains_word(sql, name)) {
        return Ok(sql.to_owned());
    }
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize_with_location()
        .map_err(|e| Error::new(ErrorCode::Syntax, e.to_string()))?;
    let offsets = LineOffsets::of(sql);
    let solid: Vec<&TokenWithSpan> =
        tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let start = |n: usize| solid.get(n).map_or(sql.len(), |t| offsets.byte_of(sql, t.span.start));
    let (mut moved, mut copied, mut n) = (String::with_capacity(sql.len()), 0, 0);
    while n < solid.len() {
        let Some(after_hint) = end_of_hint(&solid, n) else {
            n += 1;
            continue;
        };
        let after_alias = end_of_alias(&solid, after_hint);
        let (hint, alias, rest) = (start(n), start(after_hint), start(after_alias));
        moved.push_str(&sql[copied..hint]);
        moved.push_str(&sql[alias..rest]);
        moved.push(' ');
        moved.push_str(&sql[hint..alias]);
        moved.push(' ');
        copied = rest;
        n = after_alias;
    }
    moved.push_str(&sql[copied..]);
    Ok(moved)
}

pub(super) fn contains_word(sql: &str, word: &str) -> bool {
    sql.as_bytes().windows(word.len()).any(|bytes| bytes.eq_ignore_ascii_case(word.as_bytes()))
}

/// `WITH ( name =` with a name of ours begins a hint; where its parenthesis has been closed.
pub(super) fn end_of_hint(tokens: &[&TokenWithSpan], at: usize) -> Option<usize> {
    let token = |n: usize| tokens.get(n).map(|t| &t.token);
    let with = matches!(token(at)?, Token::Word(word) if word.keyword == Keyword::WITH);
    let Token::Word(name) = token(at + 2)? else { return None };
    let ours = NAMES.iter().any(|known| known.eq_ignore_ascii_case(&name.value));
    let begins = with && token(at + 1)? == &Token::LParen && ours && token(at + 3)? == &Token::Eq;
    begins.then(|| closed(tokens, at + 1))
}

/// Behind the parenthesis that closes the one at `open`.
fn closed(tokens: &[&TokenWithSpan], open: usize) -> usize {
    let mut depth = 0usize;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth <= 1 => return n + 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Behind `[AS] alias [(column, …)]`, or `at` when there is no alias.
pub(super) fn end_of_alias(tokens: &[&TokenWithSpan], at: usize) -> usize {
    let word = |n: usize| match tokens.get(n).map(|t| &t.token) {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    };
    let named = match word(at) {
        Some(word) if word.keyword == Keyword::AS => at + 1,
        Some(word) if word.keyword == Keyword::NoKeyword => at,
        _ => return at,
    };
    if word(named).is_none() {
        return at;
    }
    match tokens.get(named + 1).map(|t| &t.token) {
        Some(Token::LParen) => closed(tokens, named + 1),
        _ => named + 1,
    }
}

/// Takes the hints off the tables of a statement. A table that has one where it is named once is in
/// the list with every mention: one without a hint asks for what the statement asks for.
///
/// # Errors
/// When a hint is none of ours or does not take its value.
pub(super) fn take(statement: &mut Statement) -> Result<Vec<TableHint>> {
    let mut taking = Taking(Vec::new());
    if let ControlFlow::Break(error) = statement.visit(&mut taking) {
        return Err(error);
    }
    let hinted = taking.0.iter().filter(|hint| !hint.options.is_empty());
    let hinted: HashSet<_> = hinted.map(|hint| hint.table.clone()).collect();
    taking.0.retain(|hint| hinted.contains(&hint.table));
    Ok(taking.0)
}

struct Taking(Vec<TableHint>);

impl VisitorMut for Taking {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table { name, with_hints, args: None, .. } = factor {
            let options = with_hints.iter().map(option).collect::<Result<Vec<_>>>();
            let table = object_name_to_table_reference(name.clone(), true).map_err(Error::from);
            match (table, options) {
                (Ok(table), Ok(options)) => self.0.push(TableHint { table, options }),
                // The planner says what is wrong with a name.
                (Err(_), _) if with_hints.is_empty() => {}
                (Err(error), _) | (_, Err(error)) => return ControlFlow::Break(error),
            }
            with_hints.clear();
        }
        ControlFlow::Continue(())
    }
}

fn option(hint: &Expr) -> Result<(String, String)> {
    let usage = || {
        Error::new(
            ErrorCode::Syntax,
            format!(
                "the table hint '{hint}' is not understood; write WITH (max_staleness = '500ms'), \
                 with one or more of {}",
                NAMES.join(", ")
            ),
        )
    };
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = hint else { return Err(usage()) };
    let (Expr::Identifier(name), Expr::Value(value)) = (&**left, &**right) else {
        return Err(usage());
    };
    let name = name.value.to_ascii_lowercase();
    let Value::SingleQuotedString(value) = &value.value else { return Err(usage()) };
    if !NAMES.contains(&name.as_str()) {
        return Err(usage());
    }
    if name == "copy" {
        if value.is_empty() {
            return Err(usage());
        }
    } else {
        QueryOptions::default().set(&name, value)?;
    }
    Ok((name, value.clone()))
}
