//! `?` becomes `$1`, `$2`, …: DataFusion gives every `?` the same name.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

/// Numbers the `?` markers of `sql` in the order of the text. Strings, comments and quoted names
/// are left alone, because the tokenizer knows them.
pub(crate) fn number_placeholders(sql: &str) -> Result<String> {
    if !sql.contains('?') {
        return Ok(sql.to_owned());
    }
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize_with_location()
        .map_err(|e| Error::new(ErrorCode::Syntax, e.to_string()))?;
    let offsets = LineOffsets::of(sql);
    let mut numbered = String::with_capacity(sql.len() + 16);
    let mut copied = 0;
    let mut count = 0;
    let mut has_named = false;
    for token in &tokens {
        match &token.token {
            Token::Placeholder(text) if text == "?" => {
                let at = offsets.byte_of(sql, token.span.start);
                count += 1;
                numbered.push_str(&sql[copied..at]);
                numbered.push_str(&format!("${count}"));
                copied = at + 1;
            }
            Token::Placeholder(_) => has_named = true,
            _ => {}
        }
    }
    if count > 0 && has_named {
        return Err(Error::new(
            ErrorCode::Syntax,
            "the statement has both '?' and '$n' placeholders; use one kind",
        ));
    }
    numbered.push_str(&sql[copied..]);
    Ok(numbered)
}

/// Where each line starts, to turn the tokenizer's line and column (in characters) into bytes.
pub(super) struct LineOffsets(Vec<usize>);

impl LineOffsets {
    pub(super) fn of(sql: &str) -> Self {
        let starts = sql.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(starts).collect())
    }

    pub(super) fn byte_of(&self, sql: &str, location: Location) -> usize {
        let line = usize::try_from(location.line.saturating_sub(1)).unwrap_or(0);
        let start = self.0.get(line).copied().unwrap_or(0);
        let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(0);
        let within = sql[start..].char_indices().nth(column).map_or(0, |(at, _)| at);
        start + within
    }
}
