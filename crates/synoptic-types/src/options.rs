//! The session options of the contract, section 4.1: names, defaults, texts.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use thiserror::Error;

use crate::quantity::{format_duration, parse_duration};

/// What to do when no copy can prove the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnmet {
    /// Refuse the statement.
    #[default]
    Error,
    /// Wait up to `wait_timeout`, then refuse.
    Wait,
    /// Serve the freshest copy and say so.
    Stale,
}

/// What the scans of one statement have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// All scans of one source read one snapshot.
    #[default]
    Source,
    /// Also, the skew over all sources is bounded.
    Bounded,
    /// Every source at one timestamp.
    AsOf,
}

/// How much work the sources are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushdown {
    /// Whatever is right and cheaper.
    #[default]
    Auto,
    /// Base tables with their columns only.
    None,
}

/// The options one statement runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryOptions {
    /// Largest staleness the statement accepts; zero is a strong read.
    pub max_staleness: Duration,
    /// What to do when no copy can prove the bound.
    pub on_unmet: OnUnmet,
    /// How long `on_unmet = 'wait'` waits.
    pub wait_timeout: Duration,
    /// What the scans have in common.
    pub consistency: Consistency,
    /// Largest skew over all sources.
    pub max_skew: Duration,
    /// The moment to read at, with [`Consistency::AsOf`].
    pub read_timestamp: Option<DateTime<Utc>>,
    /// What the answer must include, as the client brought it; decoded by whoever has the key.
    pub token: Option<String>,
    /// How much work the sources are given.
    pub pushdown: Pushdown,
    /// Whether joins may hand their keys to the scans while they run.
    pub dynamic_filters: bool,
    /// Rows a statement may read from any one source.
    pub max_rows_read: Option<u64>,
    /// How long a statement may run, from its arrival to its last batch.
    pub statement_timeout: Option<Duration>,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            max_staleness: Duration::ZERO,
            on_unmet: OnUnmet::default(),
            wait_timeout: Duration::from_secs(1),
            consistency: Consistency::default(),
            max_skew: Duration::from_secs(1),
            read_timestamp: None,
            token: None,
            pushdown: Pushdown::default(),
            dynamic_filters: true,
            max_rows_read: None,
            statement_timeout: None,
        }
    }
}

/// An option that does not exist, or a value it does not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("there is no option '{name}'; the options are {}", QueryOptions::NAMES.join(", "))]
    Unknown {
        /// The name as given, without the prefix `synoptic.`.
        name: String,
    },
    /// The option exists, the value does not fit.
    #[error("option '{name}' does not take '{value}': {expected}")]
    Value {
        /// The option.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// Two options that go together, of which one is missing.
    #[error("{0}")]
    Alone(&'static str),
}

impl QueryOptions {
    /// Every option, in the order of the contract.
    pub const NAMES: [&'static str; 11] = [
        "max_staleness",
        "on_unmet",
        "wait_timeout",
        "consistency",
        "max_skew",
        "read_timestamp",
        "token",
        "pushdown",
        "dynamic_filters",
        "max_rows_read",
        "statement_timeout",
    ];

    /// Sets `name` (without the prefix `synoptic.`; dashes count as underscores) from its text.
    ///
    /// # Errors
    /// When the option does not exist, does not take the value, or cannot be honoured; the options
    /// are then unchanged.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        let value = value.trim();
        let name = Self::resolve(name)?;
        let duration = || {
            parse_duration(value).map_err(|e| OptionError::Value {
                name,
                value: value.to_owned(),
                expected: e.to_string(),
            })
        };
        match name {
            "max_staleness" => self.max_staleness = duration()?,
            "on_unmet" => {
                self.on_unmet = choice(
                    name,
                    value,
                    &[
                        ("error", OnUnmet::Error),
                        ("wait", OnUnmet::Wait),
                        ("stale", OnUnmet::Stale),
                    ],
                )?;
            }
            "wait_timeout" => self.wait_timeout = duration()?,
            "consistency" => {
                self.consistency = choice(
                    name,
                    value,
                    &[
                        ("source", Consistency::Source),
                        ("bounded", Consistency::Bounded),
                        ("as_of", Consistency::AsOf),
                    ],
                )?;
            }
            "max_skew" => self.max_skew = duration()?,
            "read_timestamp" if value.is_empty() => self.read_timestamp = None,
            "read_timestamp" => {
                let time = DateTime::parse_from_rfc3339(value).map_err(|_| OptionError::Value {
                    name,
                    value: value.to_owned(),
                    expected: "a time with its offset, as '2026-11-23T16:00:00Z'".to_owned(),
                })?;
                self.read_timestamp = Some(time.to_utc());
            }
            "token" => self.token = (!value.is_empty()).then(|| value.to_owned()),
            "pushdown" => {
                self.pushdown =
                    choice(name, value, &[("auto", Pushdown::Auto), ("none", Pushdown::None)])?;
            }
            "dynamic_filters" => {
                let words = [("on", true), ("off", false), ("true", true), ("false", false)];
                self.dynamic_filters = choice(name, value, &words)?;
            }
            "max_rows_read" if value.is_empty() => self.max_rows_read = None,
            "max_rows_read" => match value.replace('_', "").parse::<u64>() {
                Ok(rows) if rows > 0 => self.max_rows_read = Some(rows),
                _ => {
                    return Err(OptionError::Value {
                        name,
                        value: value.to_owned(),
                        expected: "a whole number of rows above 0".to_owned(),
                    });
                }
            },
            "statement_timeout" => {
                let timeout = if value.is_empty() { Duration::ZERO } else { duration()? };
                self.statement_timeout = (!timeout.is_zero()).then_some(timeout);
            }
            _ => return Err(OptionError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }

    /// The moment that every table is to be read at; `None` for the present.
    ///
    /// # Errors
    /// When only one of `consistency = 'as_of'` and `read_timestamp` is set.
    pub fn read_at(&self) -> Result<Option<DateTime<Utc>>, OptionError> {
        match (self.consistency, self.read_timestamp) {
            (Consistency::AsOf, Some(time)) => Ok(Some(time)),
            (Consistency::AsOf, None) => Err(OptionError::Alone(
                "consistency = 'as_of' needs a moment: SET synoptic.read_timestamp = \
                 '2026-11-23T16:00:00Z'",
            )),
            (_, Some(_)) => Err(OptionError::Alone(
                "read_timestamp counts with consistency = 'as_of' only: SET \
                 synoptic.consistency = 'as_of', or RESET synoptic.read_timestamp",
            )),
            (_, None) => Ok(None),
        }
    }

    /// Puts `name` back to what it is in `defaults`.
    ///
    /// # Errors
    /// When the option does not exist.
    pub fn reset(&mut self, name: &str, defaults: &Self) -> Result<(), OptionError> {
        let value = defaults.get(name)?;
        self.set(name, &value)
    }

    /// The text of `name`; an option that is not set is the empty text.
    ///
    /// # Errors
    /// When the option does not exist.
    pub fn get(&self, name: &str) -> Result<String, OptionError> {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        Ok(match Self::resolve(name)? {
            "max_staleness" => format_duration(self.max_staleness),
            "on_unmet" => match self.on_unmet {
                OnUnmet::Error => "error".to_owned(),
                OnUnmet::Wait => "wait".to_owned(),
                OnUnmet::Stale => "stale".to_owned(),
            },
            "wait_timeout" => format_duration(self.wait_timeout),
            "consistency" => match self.consistency {
                Consistency::Source => "source".to_owned(),
                Consistency::Bounded => "bounded".to_owned(),
                Consistency::AsOf => "as_of".to_owned(),
            },
            "max_skew" => format_duration(self.max_skew),
            "read_timestamp" => {
                let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                self.read_timestamp.map(text).unwrap_or_default()
            }
            "token" => self.token.clone().unwrap_or_default(),
            "pushdown" => match self.pushdown {
                Pushdown::Auto => "auto".to_owned(),
                Pushdown::None => "none".to_owned(),
            },
            "dynamic_filters" => on_off(self.dynamic_filters),
            "max_rows_read" => self.max_rows_read.map(|n| n.to_string()).unwrap_or_default(),
            "statement_timeout" => self.statement_timeout.map(format_duration).unwrap_or_default(),
            _ => String::new(),
        })
    }

    fn resolve(name: &str) -> Result<&'static str, OptionError> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let plain = plain.strip_prefix("synoptic.").unwrap_or(&plain);
        Self::NAMES
            .into_iter()
            .find(|known| *known == plain)
            .ok_or_else(|| OptionError::Unknown { name: plain.to_owned() })
    }
}

fn choice<T: Copy>(name: &'static str, value: &str, words: &[(&str, T)]) -> Result<T, OptionError> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value));
    found.map(|(_, choice)| *choice).ok_or_else(|| OptionError::Value {
        name,
        value: value.to_owned(),
        expected: format!(
            "one of {}",
            words.iter().map(|(w, _)| format!("'{w}'")).collect::<Vec<_>>().join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_reads_back_what_was_set() {
        let mut options = QueryOptions::default();
        for (name, value) in [
            ("max_staleness", "250ms"),
            ("on_unmet", "stale"),
            ("wait_timeout", "2m"),
            ("consistency", "as_of"),
            ("max_skew", "5s"),
            ("read_timestamp", "2026-11-23T16:00:00.500Z"),
            ("token", "abc"),
            ("pushdown", "none"),
            ("dynamic_filters", "off"),
            ("max_rows_read", "1000"),
            ("statement_timeout", "1h"),
        ] {
            options.set(name, value).expect(name);
            assert_eq!(options.get(&format!("synoptic.{name}")).as_deref(), Ok(value));
        }
        for name in QueryOptions::NAMES {
            options.reset(name, &QueryOptions::default()).expect(name);
        }
        assert_eq!(options, QueryOptions::default());
    }

    #[test]
    fn a_moment_to_read_at_needs_both_options() {
        let mut options = QueryOptions::default();
        assert_eq!(options.read_at(), Ok(None));
        options.set("read_timestamp", "2026-11-23T17:00:00+01:00").expect("a time");
        assert!(options.read_at().is_err());
        options.set("consistency", "as_of").expect("a word");
        assert_eq!(options.get("read_timestamp").as_deref(), Ok("2026-11-23T16:00:00Z"));
        assert_eq!(options.read_at(), Ok(options.read_timestamp));
        options.set("read_timestamp", "").expect("nothing");
        assert!(options.read_at().is_err());
    }

    #[test]
    fn a_refused_value_changes_nothing_and_says_what_is_taken() {
        let mut options = QueryOptions::default();
        for (name, value, hint) in [
            ("max-staleness", "soon", "'250ms'"),
            ("on_unmet", "panic", "'stale'"),
            ("consistency", "sometimes", "'as_of'"),
            ("read_timestamp", "2026-11-23 16:00:00", "with its offset"),
            ("max_rows_read", "-1", "above 0"),
            ("max_stalenes", "1s", "max_staleness"),
        ] {
            let error = options.set(name, value).expect_err(name);
            assert!(error.to_string().contains(hint), "{error}");
        }
        assert_eq!(options, QueryOptions::default());
    }
}
