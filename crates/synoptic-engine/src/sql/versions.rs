//! `FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-23T16:00:00Z'` and `FROM t FOR VERSION AS OF 3`:
//! a table as it was.
//!
//! The planner knows tables by their names, so the moment or number becomes a part of the name; what
//! it means is found where the name is looked up.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use synoptic_types::{ErrorCode, TableVersion};

use crate::error::{Error, Result};

use super::hints::{end_of_alias, end_of_hint};
use super::placeholders::LineOffsets;

/// Between a table's name and the moment.
const MOMENT: &str = " FOR SYSTEM_TIME AS OF ";
/// Between a table's name and the number.
const NUMBER: &str = " FOR VERSION AS OF ";

/// The table and the earlier state that a name means; `None` for a table as it is.
pub(crate) fn version(name: &str) -> Option<(&str, TableVersion)> {
    let moment = |text: &str| Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc());
    let at = name.rsplit_once(MOMENT).and_then(|(table, text)| Some((table, moment(text)?)));
    if let Some((table, moment)) = at {
        return Some((table, TableVersion::At(moment)));
    }
    let (table, number) = name.rsplit_once(NUMBER)?;
    Some((table, TableVersion::Number(number.parse().ok()?)))
}

/// Puts every moment and number into the name before it, which stays the alias when there is no other.
///
/// # Errors
/// When what follows `FOR SYSTEM_TIME` is not `AS OF` and a time, or `FOR VERSION` not `AS OF` and a
/// number, or what precedes it is no name.
pub(super) fn in_names(sql: &str) -> Result<String> {
    if !["system_time", "version"].iter().any(|word| super::hints::contains_word(sql, word)) {
        return Ok(sql.to_owned());
    }
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize_with_location()
        .map_err(|e| Error::new(ErrorCode::Syntax, e.to_string()))?;
    let offsets = LineOffsets::of(sql);
    let solid: Vec<&TokenWithSpan> =
        tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let start = |n: usize| solid.get(n).map_or(sql.len(), |t| offsets.byte_of(sql, t.span.start));
    let (mut named, mut copied) = (String::with_capacity(sql.len() + 32), 0);
    for n in 0..solid.len() {
        let (state, after) = if begins(&solid, n, "SYSTEM_TIME") {
            let (moment, after) = moment(&solid, n + 2)?;
            (format!("{MOMENT}{}", moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)), after)
        } else if begins(&solid, n, "VERSION") {
            let (number, after) = number(&solid, n + 2)?;
            (format!("{NUMBER}{number}"), after)
        } else {
            continue;
        };
        let table = n.checked_sub(1).and_then(|at| Some((at, table(solid.get(at)?)?)));
        let Some((at, table)) = table else {
            return Err(refused("FOR SYSTEM_TIME or VERSION stands behind the name of a table"));
        };
        named.push_str(&sql[copied..start(at)]);
        named.push_str(&quoted(&format!("{table}{state}")));
        let after_hint = end_of_hint(&solid, after).unwrap_or(after);
        if end_of_alias(&solid, after_hint) == after_hint {
            named.push_str(" AS ");
            named.push_str(&quoted(&table));
        }
        named.push(' ');
        copied = start(after);
    }
    named.push_str(&sql[copied..]);
    Ok(named)
}

fn begins(tokens: &[&TokenWithSpan], at: usize, what: &str) -> bool {
    let is = |n: usize, text: &str| {
        matches!(tokens.get(n).map(|t| &t.token),
            Some(Token::Word(word))
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
    };
    is(at, "FOR") && is(at + 1, what)
}

/// The name that a token is, as the planner reads it.
fn table(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// `AS OF [TIMESTAMP | DATE] 'time'`, and where it ends.
fn moment(tokens: &[&TokenWithSpan], at: usize) -> Result<(DateTime<Utc>, usize)> {
    let keyword = |n: usize| match tokens.get(n).map(|t| &t.token) {
        Some(Token::Word(word)) => Some(word.keyword),
        _ => None,
    };
    let usage = "write FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-23T16:00:00Z'";
    if (keyword(at), keyword(at + 1)) != (Some(Keyword::AS), Some(Keyword::OF)) {
        return Err(refused(&format!("FOR SYSTEM_TIME without AS OF is not supported; {usage}")));
    }
    let typed =
        matches!(keyword(at + 2), Some(Keyword::TIMESTAMP | Keyword::TIMESTAMPTZ | Keyword::DATE));
    let literal = at + 2 + usize::from(typed);
    let Some(Token::SingleQuotedString(text)) = tokens.get(literal).map(|t| &t.token) else {
        return Err(refused(&format!(
            "FOR SYSTEM_TIME AS OF takes a time in quotes and nothing that is computed; {usage}"
        )));
    };
    let moment = time(text)
        .ok_or_else(|| refused(&format!("FOR SYSTEM_TIME AS OF: '{text}' is no time; {usage}")))?;
    Ok((moment, literal + 1))
}

/// `AS OF number`, and where it ends.
fn number(tokens: &[&TokenWithSpan], at: usize) -> Result<(u64, usize)> {
    let keyword = |n: usize| match tokens.get(n).map(|t| &t.token) {
        Some(Token::Word(word)) => Some(word.keyword),
        _ => None,
    };
    let wrong = || {
        refused(
            "FOR VERSION takes a number and nothing that is computed: write FOR VERSION AS OF 3",
        )
    };
    if (keyword(at), keyword(at + 1)) != (Some(Keyword::AS), Some(Keyword::OF)) {
        return Err(wrong());
    }
    let Some(Token::Number(text, _)) = tokens.get(at + 2).map(|t| &t.token) else {
        return Err(wrong());
    };
    Ok((text.parse().map_err(|_| wrong())?, at + 3))
}

/// A time in UTC when it does not say its offset.
fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"].into_iter();
    let naive = naive.filter_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).next();
    let day = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN));
    naive.or_else(day).map(|time| time.and_utc())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn refused(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, what)
}
