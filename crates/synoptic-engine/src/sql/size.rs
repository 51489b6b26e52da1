//! Statements too large to plan, refused before anything recurses over them.
//!
//! The parser bounds how deep parentheses nest, but a chain of operators is as deep a tree as it is
//! long, and everything from here on walks that tree by recursion.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

/// Longest statement that is parsed, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Most operators in one chain: AND, OR, arithmetic, text concatenation.
const MAX_CHAIN: usize = 2000;

/// Most queries in one chain of UNION, INTERSECT and EXCEPT, and most joins in a statement.
const MAX_RELATIONS: usize = 300;

/// Refuses what is too large.
pub(super) fn check(sql: &str) -> Result<()> {
    if sql.len() > MAX_BYTES {
        let message =
            format!("the statement has {} bytes; at most {MAX_BYTES} are parsed", sql.len());
        return Err(Error::new(ErrorCode::Syntax, message));
    }
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize()
        .map_err(|e| Error::new(ErrorCode::Syntax, e.to_string()))?;
    let mut relations = 0;
    // The length of the chain at each level of parentheses.
    let mut chains = vec![0_usize];
    for token in &tokens {
        let operator = match token {
            Token::LParen | Token::LBracket => {
                chains.push(0);
                false
            }
            Token::RParen | Token::RBracket => {
                chains.pop();
                false
            }
            Token::Comma => {
                chains.pop();
                chains.push(0);
                false
            }
            Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat => true,
            Token::Word(word) => match word.keyword {
                Keyword::AND | Keyword::OR => true,
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => {
                    relations += 1;
                    false
                }
                _ => false,
            },
            _ => false,
        };
        if chains.is_empty() {
            chains.push(0);
        }
        if let Some(chain) = chains.last_mut().filter(|_| operator) {
            *chain += 1;
            if *chain > MAX_CHAIN {
                return Err(too_large(&format!(
                    "more than {MAX_CHAIN} operators in one chain; use IN (…) or a joined table"
                )));
            }
        }
        if relations > MAX_RELATIONS {
            return Err(too_large(&format!(
                "more than {MAX_RELATIONS} joins and set operations; split it"
            )));
        }
    }
    Ok(())
}

fn too_large(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, format!("the statement has {what}"))
}
