//! What may stand at the cursor.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::super::backend::TableRef;
use super::super::split::tokens;

/// What the completion knows; the prompt asks its names, tests a list.
pub(super) trait Lookup {
    /// Every table.
    fn tables(&self) -> Arc<[TableRef]>;
    /// The columns of a table.
    fn columns(&self, table: &TableRef) -> Arc<[String]>;
}

/// Where the word begins that is completed, and what it may become.
pub(super) fn complete(text: &str, cursor: usize, lookup: &dyn Lookup) -> (usize, Vec<String>) {
    let Some(word) = Word::before(text, cursor) else { return (cursor, Vec::new()) };
    let tables = lookup.tables();
    let mentioned = mentioned(text, &tables);
    let mut found = BTreeSet::new();
    let typed = word.typed.to_lowercase();
    let mut offer = |name: &str| {
        if name.to_lowercase().starts_with(&typed) {
            found.insert(quoted(name));
        }
    };
    match word.path.as_slice() {
        [] => {
            for mention in &mentioned {
                lookup.columns(&mention.table).iter().for_each(|column| offer(column));
                offer(&mention.name);
            }
            tables.iter().for_each(|table| offer(&table.catalog));
            let keywords = KEYWORDS.iter().filter(|k| {
                !typed.is_empty() && !word.is_quoted && { k.to_lowercase().starts_with(&typed) }
            });
            let lower = word.typed.starts_with(|c: char| c.is_lowercase());
            found.extend(keywords.map(|k| if lower { k.to_lowercase() } else { (*k).to_owned() }));
        }
        [first] => {
            for table in tables.iter().filter(|table| same(&table.catalog, first)) {
                offer(&table.schema);
                // The two-part shorthand means the default schema; a name that is there once is
                // most likely in it.
                offer(&table.name);
            }
            for mention in mentioned.iter().filter(|mention| same(&mention.name, first)) {
                lookup.columns(&mention.table).iter().for_each(|column| offer(column));
            }
        }
        [catalog, second] => {
            for table in tables.iter().filter(|table| same(&table.catalog, catalog)) {
                if same(&table.schema, second) {
                    offer(&table.name);
                }
                if same(&table.name, second) {
                    lookup.columns(table).iter().for_each(|column| offer(column));
                }
            }
        }
        path => {
            if let Some(table) = resolve(path, &tables) {
                lookup.columns(table).iter().for_each(|column| offer(column));
            }
        }
    }
    (word.start, found.into_iter().collect())
}

/// The dotted name that ends at the cursor.
struct Word {
    /// The parts before the last dot.
    path: Vec<String>,
    /// What is typed of the last part.
    typed: String,
    is_quoted: bool,
    /// Where the last part begins.
    start: usize,
}

impl Word {
    /// `None` inside a text or a comment, where there is nothing to complete.
    fn before(text: &str, cursor: usize) -> Option<Self> {
        let before = text.get(..cursor)?;
        let mut tokens = tokens(before);
        let mut word =
            Self { path: Vec::new(), typed: String::new(), is_quoted: false, start: cursor };
        if !tokens.complete {
            // The only thing open at the cursor may be a quoted name.
            let end = tokens.known.last().map_or(0, |(_, range)| range.end);
            let open = before.get(end..)?.strip_prefix('"')?;
            word = Self { typed: open.to_owned(), is_quoted: true, start: end, ..word };
        } else if let Some((Token::Word(last), range)) = tokens.known.last()
            && range.end == cursor
        {
            word.typed.clone_from(&last.value);
            word.is_quoted = last.quote_style.is_some();
            word.start = range.start;
            tokens.known.pop();
        } else if let Some((Token::SingleQuotedString(_) | Token::Number(..), range)) =
            tokens.known.last()
            && range.end == cursor
        {
            return None;
        } else if in_comment(before, &tokens.known) {
            return None;
        }
        let mut start = word.start;
        while let [.., (Token::Word(part), part_at), (Token::Period, dot)] = tokens.known.as_slice()
        {
            if dot.end != start || part_at.end != dot.start {
                break;
            }
            word.path.insert(0, part.value.clone());
            start = part_at.start;
            tokens.known.truncate(tokens.known.len() - 2);
        }
        Some(word)
    }
}

fn in_comment(before: &str, known: &[(Token, Range<usize>)]) -> bool {
    matches!(known.last(), Some((Token::Whitespace(_), range))
        if before[range.clone()].starts_with("--") && !before.ends_with('\n'))
}

/// A table of the statement and what it is called there.
#[derive(Debug)]
struct Mention {
    name: String,
    table: TableRef,
}

/// The tables after FROM and JOIN, by alias or last name. Not a parser: a text that is being
/// written does not parse.
fn mentioned(text: &str, tables: &[TableRef]) -> Vec<Mention> {
    let mut found = Vec::new();
    let significant = |(token, _): &(Token, _)| !matches!(token, Token::Whitespace(_));
    let tokens: Vec<_> = tokens(text).known.into_iter().filter(significant).collect();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let opens = matches!(&first.0, Token::Word(word) if word.quote_style.is_none()
            && ["FROM", "JOIN"].contains(&word.value.to_uppercase().as_str()));
        let mut more = opens;
        while more {
            let path;
            (path, rest) = take_path(rest);
            let alias;
            (alias, rest) = take_alias(rest);
            if let Some(table) = resolve(&path, tables) {
                let name = alias.unwrap_or_else(|| table.name.clone());
                found.push(Mention { name, table: table.clone() });
            }
            more = matches!(rest.first(), Some((Token::Comma, _)));
            if more {
                rest = &rest[1..];
            }
        }
    }
    found
}

type Tokens<'a> = &'a [(Token, Range<usize>)];

fn take_path(mut rest: Tokens<'_>) -> (Vec<String>, Tokens<'_>) {
    let mut path = Vec::new();
    while let Some((Token::Word(word), _)) = rest.first() {
        path.push(word.value.clone());
        rest = &rest[1..];
        match rest.first() {
            Some((Token::Period, _)) => rest = &rest[1..],
            _ => break,
        }
    }
    (path, rest)
}

fn take_alias(rest: Tokens<'_>) -> (Option<String>, Tokens<'_>) {
    let is = |token: &Token, text: &str| matches!(token, Token::Word(w) if w.value.eq_ignore_ascii_case(text));
    let after_as = match rest.first() {
        Some((token, _)) if is(token, "AS") => &rest[1..],
        _ => rest,
    };
    match after_as.first() {
        Some((Token::Word(word), _))
            if word.quote_style.is_some()
                || !KEYWORDS.contains(&word.value.to_uppercase().as_str()) =>
        {
            (Some(word.value.clone()), &after_as[1..])
        }
        _ => (None, rest),
    }
}

/// The table a one-, two- or three-part name means, as far as the names tell.
fn resolve<'a>(path: &[String], tables: &'a [TableRef]) -> Option<&'a TableRef> {
    tables.iter().find(|table| match path {
        [name] => same(&table.name, name),
        [catalog, name] => same(&table.catalog, catalog) && same(&table.name, name),
        [catalog, schema, name] => {
            same(&table.catalog, catalog) && same(&table.schema, schema) && same(&table.name, name)
        }
        _ => false,
    })
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The name as it must be written: in quotes unless it is plain, lower case and no keyword.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name.to_uppercase().as_str());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Names that are these need quotes.
const RESERVED: [&str; 24] = [
    "ALL", "AND", "AS", "BETWEEN", "CASE", "CROSS", "DISTINCT", "ELSE", "END", "FROM", "FULL",
    "GROUP", "HAVING", "IN", "INNER", "JOIN", "LIMIT", "NOT", "NULL", "ON", "OR", "ORDER",
    "SELECT", "WHERE",
];

/// Keywords and the functions people use most, sorted.
const KEYWORDS: [&str; 96] = [
    "ABS",
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CEIL",
    "COALESCE",
    "COUNT",
    "CROSS",
    "CURRENT_DATE",
    "DATE",
    "DATE_BIN",
    "DATE_PART",
    "DATE_TRUNC",
    "DENSE_RANK",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FIRST_VALUE",
    "FLOOR",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAG",
    "LAST_VALUE",
    "LATERAL",
    "LEAD",
    "LEFT",
    "LENGTH",
    "LIKE",
    "LIMIT",
    "LOWER",
    "MAX",
    "MEDIAN",
    "MIN",
    "NOT",
    "NOW",
    "NULL",
    "NULLIF",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "RANGE",
    "RANK",
    "RESET",
    "RIGHT",
    "ROUND",
    "ROWS",
    "ROW_NUMBER",
    "SELECT",
    "SET",
    "SHOW",
    "STDDEV",
    "SUBSTR",
    "SUM",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRIM",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UPPER",
    "USE",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn tables(&self) -> Arc<[TableRef]> {
            [
                ("portfolio", "public", "positions"),
                ("portfolio", "audit", "Log Book"),
                ("history", "public", "prices"),
                ("My Lake", "public", "order"),
            ]
            .map(|(catalog, schema, name)| TableRef {
                catalog: catalog.to_owned(),
                schema: schema.to_owned(),
                name: name.to_owned(),
            })
            .into()
        }

        fn columns(&self, table: &TableRef) -> Arc<[String]> {
            let columns: &[&str] = match table.name.as_str() {
                "positions" => &["account_id", "symbol", "quantity"],
                "prices" => &["symbol", "close", "Volume"],
                _ => &["id"],
            };
            columns.iter().map(|&column| column.to_owned()).collect()
        }
    }

    /// `text` has its cursor at `|`.
    #[track_caller]
    fn check(text: &str, start: &str, candidates: &[&str]) {
        let cursor = text.find('|').expect("a cursor");
        let text = text.replacen('|', "", 1);
        let (at, found) = complete(&text, cursor, &Fixed);
        assert_eq!(found, candidates, "{text}");
        if !found.is_empty() {
            assert_eq!(&text[at..cursor], start, "{text}");
        }
    }

    #[test]
    fn every_part_of_a_name() {
        check("SELECT * FROM por|", "por", &["portfolio"]);
        check("SELECT * FROM portfolio.|", "", &["\"Log Book\"", "audit", "positions", "public"]);
        check("SELECT * FROM portfolio.pu|", "pu", &["public"]);
        check("SELECT * FROM portfolio.public.p|", "p", &["positions"]);
        check("SELECT * FROM portfolio.audit.|", "", &["\"Log Book\""]);
        check("SELECT * FROM \"My Lake\".public.o|", "o", &["\"order\""]);
        check("SELECT * FROM my|", "my", &["\"My Lake\""]);
        check("SELECT * FROM \"My |", "\"My ", &["\"My Lake\""]);
        check("SELECT portfolio.public.positions.q|", "q", &["quantity"]);
    }

    #[test]
    fn columns_of_the_tables_that_are_mentioned() {
        check("SELECT sym| FROM portfolio.positions", "sym", &["symbol"]);
        check("SELECT p.q| FROM portfolio.public.positions AS p", "q", &["quantity"]);
        check(
            "SELECT h.| FROM portfolio.positions p JOIN history.prices h",
            "",
            &["\"Volume\"", "close", "symbol"],
        );
        check(
            "SELECT x FROM history.prices, portfolio.positions WHERE acc|",
            "acc",
            &["account_id"],
        );
        check("SELECT x FROM history.prices WHERE prices.c|", "c", &["close"]);
        check("SELECT q| FROM nowhere.t", "q", &[]);
    }

    #[test]
    fn keywords_in_the_case_that_is_typed() {
        check("SEL|", "SEL", &["SELECT"]);
        check("sel|", "sel", &["select"]);
        check("SELECT 1 WHE|", "WHE", &["WHEN", "WHERE"]);
    }

    #[test]
    fn nothing_in_texts_and_comments() {
        check("SELECT 'por|", "", &[]);
        check("SELECT 'por'|", "", &[]);
        check("SELECT 1 -- por|", "", &[]);
        check("SELECT /* por|", "", &[]);
        check("SELECT 12|", "", &[]);
    }

    #[test]
    fn the_keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
        assert!(RESERVED.is_sorted());
    }

    proptest! {
        #[test]
        fn any_text_and_cursor_is_fine(text in any::<String>(), cursor in 0_usize..64) {
            let cursor = text.char_indices().map(|(i, _)| i).nth(cursor).unwrap_or(text.len());
            let (start, _) = complete(&text, cursor, &Fixed);
            prop_assert!(start <= cursor && text.is_char_boundary(start));
        }
    }
}
