//! LIKE patterns of the metadata commands.

/// Whether `text` matches `pattern`: `%` is any text, `_` any one character, `\` takes the next
/// character as it is. Upper and lower case differ, as they do in the names of tables.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = parse(pattern);
    let text: Vec<char> = text.chars().collect();
    // The classic two-pointer match: on a mismatch the last `%` takes one character more. Its
    // time is bounded by the product of both lengths, whatever the pattern.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Many) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(Token::One) => {
                p += 1;
                t += 1;
            }
            Some(Token::Is(c)) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((many, taken)) = retry else { return false };
                retry = Some((many, taken + 1));
                p = many + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|token| *token == Token::Many)
}

/// Whether `text` passes a filter; no filter and an empty one let everything pass. DuckDB sends
/// empty ones.
pub(crate) fn passes(filter: Option<&str>, text: &str) -> bool {
    filter.is_none_or(|pattern| pattern.is_empty() || matches(pattern, text))
}

#[derive(PartialEq)]
enum Token {
    Many,
    One,
    Is(char),
}

fn parse(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '%' => Token::Many,
            '_' => Token::One,
            '\\' => Token::Is(chars.next().unwrap_or('\\')),
            c => Token::Is(c),
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_sql() {
        for (pattern, text, expected) in [
            ("orders", "orders", true),
            ("orders", "Orders", false),
            ("o%", "orders", true),
            ("%s", "orders", true),
            ("%rd%", "orders", true),
            ("%%", "", true),
            ("", "", true),
            ("_", "", false),
            ("order_", "orders", true),
            ("order_", "order", false),
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("100\\%", "100%", true),
            ("%a%b%c%", "xxaxxbxxcxx", true),
            ("%a%b%c%", "xxaxxcxxbxx", false),
            ("é_", "éü", true),
            ("back\\\\slash", "back\\slash", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let text = "a".repeat(2_000);
        assert!(!matches(&"%a".repeat(500).replace("%a%a", "%a%b"), &text));
    }

    #[test]
    fn an_empty_filter_is_none() {
        assert!(passes(None, "t") && passes(Some(""), "t") && !passes(Some("x"), "t"));
    }
}
