//! A script as single statements, with the tokenizer the engine itself parses with.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// A script taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// The statements, without their semicolons; none is empty or only comments.
    pub statements: Vec<&'a str>,
    /// What follows the last semicolon, when it is more than space and comments.
    pub rest: Option<&'a str>,
}

/// Takes `text` apart at the semicolons that are not in quotes, dollar quotes or comments.
///
/// Where the tokenizer gives up (a quote that is never closed), everything from there on belongs
/// to the last statement; the engine then says what is wrong with it.
pub fn split(text: &str) -> Script<'_> {
    let tokens = tokens(text);
    let mut statements = Vec::new();
    let (mut start, mut meaningful) = (0, false);
    for (token, range) in &tokens.known {
        match token {
            Token::SemiColon => {
                if meaningful {
                    statements.push(text[start..range.start].trim());
                }
                (start, meaningful) = (range.end, false);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => meaningful = true,
        }
    }
    let rest = text[start..].trim();
    let has_rest = (meaningful || !tokens.complete) && !rest.is_empty();
    Script { statements, rest: has_rest.then_some(rest) }
}

/// Whether `text` ends a statement, so that Enter runs it instead of opening a new line.
pub fn is_complete(text: &str) -> bool {
    let script = split(text);
    script.rest.is_none()
}

/// The tokens of a text with their byte ranges, as far as there are any.
pub(crate) struct Tokens {
    pub(crate) known: Vec<(Token, Range<usize>)>,
    /// Whether the whole text was tokenized.
    pub(crate) complete: bool,
}

pub(crate) fn tokens(text: &str) -> Tokens {
    let mut found: Vec<TokenWithSpan> = Vec::new();
    let dialect = GenericDialect {};
    let complete =
        Tokenizer::new(&dialect, text).tokenize_with_location_into_buf(&mut found).is_ok();
    let mut offsets = Offsets::of(text);
    let known = found.into_iter().map(|TokenWithSpan { token, span }| {
        let start = offsets.to(span.start);
        (token, start..offsets.to(span.end))
    });
    Tokens { known: known.collect(), complete }
}

/// Turns the tokenizer's lines and columns, which count characters, into bytes. Goes forward only.
struct Offsets<'a> {
    chars: std::str::Chars<'a>,
    length: usize,
    at: Location,
}

impl<'a> Offsets<'a> {
    fn of(text: &'a str) -> Self {
        Self { chars: text.chars(), length: text.len(), at: Location { line: 1, column: 1 } }
    }

    fn to(&mut self, target: Location) -> usize {
        while (self.at.line, self.at.column) < (target.line, target.column) {
            match self.chars.next() {
                Some('\n') => self.at = Location { line: self.at.line + 1, column: 1 },
                Some(_) => self.at.column += 1,
                None => break,
            }
        }
        self.length - self.chars.as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, statements: &[&str], rest: Option<&str>) {
        assert_eq!(split(text), Script { statements: statements.to_vec(), rest }, "{text:?}");
    }

    #[test]
    fn statements_end_at_semicolons() {
        check("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"], None);
        check("SELECT 1;\n\nSELECT 2\n", &["SELECT 1"], Some("SELECT 2"));
        check(";;  ;\n", &[], None);
        check("", &[], None);
        check("SELECT 'ä€𝄞';SELECT 'ü\n';x", &["SELECT 'ä€𝄞'", "SELECT 'ü\n'"], Some("x"));
    }

    #[test]
    fn not_at_those_in_quotes_and_comments() {
        check("SELECT 'a;b', \"c;d\", 'it''s;';", &["SELECT 'a;b', \"c;d\", 'it''s;'"], None);
        check("SELECT $$a;b$$, $x$;$$;$x$;", &["SELECT $$a;b$$, $x$;$$;$x$"], None);
        check("SELECT 1 -- a; b\n, 2;", &["SELECT 1 -- a; b\n, 2"], None);
        check("/* a; /* b; */ c; */ SELECT 1;", &["/* a; /* b; */ c; */ SELECT 1"], None);
        check("SELECT 1; -- the end;", &["SELECT 1"], None);
        check("/* only; */ ; -- comments", &[], None);
    }

    #[test]
    fn what_is_never_closed_is_the_rest() {
        check("SELECT 1; SELECT 'a; b", &["SELECT 1"], Some("SELECT 'a; b"));
        check("'", &[], Some("'"));
        assert!(!is_complete("SELECT 'a;"));
        assert!(!is_complete("SELECT 1"));
        assert!(!is_complete("SELECT 1 /* ; "));
        assert!(is_complete("SELECT 1;"));
        assert!(is_complete("SELECT 1; -- done"));
        assert!(is_complete("  "));
    }

    proptest! {
        #[test]
        fn any_text_splits_into_parts_of_itself(text in any::<String>()) {
            let script = split(&text);
            for part in script.statements.iter().chain(&script.rest) {
                prop_assert!(text.contains(part));
                prop_assert!(!part.trim().is_empty());
            }
        }

        #[test]
        fn literals_stay_whole(values in prop::collection::vec("[a-z;'\"$ -]{0,12}", 1..5)) {
            let statements: Vec<_> =
                values.iter().map(|v| format!("SELECT '{}'", v.replace('\'', "''"))).collect();
            let text = statements.iter().map(|s| format!("{s};\n")).collect::<String>();
            prop_assert_eq!(split(&text).statements, statements);
        }
    }
}
