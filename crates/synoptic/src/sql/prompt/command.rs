//! What stands behind a backslash, and the few words that need none.

/// The answer to `\?`.
pub(super) const HELP: &str = "\
  SELECT …;          runs a statement; it may take several lines and ends at the semicolon
  \\d                 lists the tables of all sources
  \\d TABLE           lists the columns of a table
  \\timing            turns the time after each answer on or off
  \\receipt           turns what was read where, after each answer, on or off
  \\?                 this list
  \\q, Ctrl-D         leaves
  Tab                completes keywords, sources, tables and columns
  Ctrl-C             cancels the running query at its sources, or clears the line
  Ctrl-R             searches the history; a line that begins with a space is not kept

  SET synoptic.statement_timeout = '5s';    SHOW ALL;    EXPLAIN SELECT …;";

/// One input, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Nothing,
    Sql(String),
    Help,
    Timing,
    Receipt,
    Leave,
    /// A backslash and a word we do not know.
    Unknown(String),
}

impl Command {
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let Some(command) = text.strip_prefix('\\') else {
            let word = text.trim_end_matches(';').trim_end();
            return match word.to_ascii_lowercase().as_str() {
                "" => Self::Nothing,
                "exit" | "quit" => Self::Leave,
                "help" => Self::Help,
                _ => Self::Sql(text.to_owned()),
            };
        };
        let (name, argument) = match command.split_once(char::is_whitespace) {
            Some((name, argument)) => (name, argument.trim().trim_end_matches(';').trim_end()),
            None => (command.trim_end_matches(';'), ""),
        };
        match (name, argument) {
            ("d" | "dt", "") => Self::Sql("SHOW TABLES".to_owned()),
            ("d", table) => Self::Sql(format!("SHOW COLUMNS FROM {table}")),
            ("timing", "") => Self::Timing,
            ("receipt", "") => Self::Receipt,
            ("?" | "h" | "help", "") => Self::Help,
            ("q", "") => Self::Leave,
            _ => Self::Unknown(name.to_owned()),
        }
    }

    /// Whether Enter runs it, or opens a new line.
    pub(super) fn is_complete(text: &str) -> bool {
        match Self::parse(text) {
            Self::Sql(_) if !text.trim_start().starts_with('\\') => {
                super::super::split::is_complete(text)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_words_and_statements() {
        let sql = |text: &str| Command::Sql(text.to_owned());
        for (text, command) in [
            ("", Command::Nothing),
            (" ;", Command::Nothing),
            ("\\d", sql("SHOW TABLES")),
            ("\\d portfolio.positions ;", sql("SHOW COLUMNS FROM portfolio.positions")),
            ("\\d \"My Source\".t", sql("SHOW COLUMNS FROM \"My Source\".t")),
            ("\\timing", Command::Timing),
            ("\\receipt;", Command::Receipt),
            ("\\?", Command::Help),
            ("\\q", Command::Leave),
            ("Exit;", Command::Leave),
            ("\\zzz 1", Command::Unknown("zzz".to_owned())),
            ("select 1;", sql("select 1;")),
        ] {
            assert_eq!(Command::parse(text), command, "{text}");
        }
    }

    #[test]
    fn only_statements_wait_for_their_semicolon() {
        for text in ["\\d", "\\d t", "", "exit", "SELECT 1;", "SELECT ';';"] {
            assert!(Command::is_complete(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2"] {
            assert!(!Command::is_complete(text), "{text}");
        }
    }
}
