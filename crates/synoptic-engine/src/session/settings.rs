//! What `SHOW ALL` and `system.settings` say.

use synoptic_types::{QueryOptions, format_bytes};

use crate::engine::EngineConfig;

/// One setting with its value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) description: &'static str,
}

const OPTIONS: [(&str, &str); 11] = [
    ("max_staleness", "largest staleness a statement accepts; 0s is a strong read"),
    ("on_unmet", "what to do when no copy can prove the bound: error, wait or stale"),
    ("wait_timeout", "how long on_unmet = 'wait' waits"),
    ("consistency", "what scans have in common: source is one snapshot per source"),
    ("max_skew", "largest skew over all sources with consistency = 'bounded'"),
    ("read_timestamp", "the moment to read at with consistency = 'as_of'"),
    ("token", "the answer must include at least this"),
    ("pushdown", "auto, or none: read base tables and do the rest here"),
    ("dynamic_filters", "whether joins hand their keys to scans while they run"),
    ("max_rows_read", "rows a statement may read from any one source"),
    ("statement_timeout", "how long a statement may run; passed on to the sources"),
];

/// The options of a session.
pub(crate) fn of_options(options: &QueryOptions) -> Vec<Setting> {
    let setting = |(name, description): (&str, &'static str)| Setting {
        name: format!("synoptic.{name}"),
        value: options.get(name).unwrap_or_default(),
        description,
    };
    OPTIONS.into_iter().map(setting).collect()
}

/// The defaults and the limits of the server.
pub(crate) fn of_engine(config: &EngineConfig) -> Vec<Setting> {
    let setting = |name: &str, value: String, description| Setting {
        name: name.to_owned(),
        value,
        description,
    };
    let mut settings = of_options(&config.defaults);
    settings.extend([
        setting(
            "server.memory_limit",
            format_bytes(config.memory_limit.0),
            "memory for sorts, joins and aggregates over all queries",
        ),
        setting(
            "server.spill_limit",
            format_bytes(config.spill_limit.0),
            "disk for spilled data over all queries",
        ),
        setting(
            "server.target_partitions",
            config.target_partitions.to_string(),
            "partitions a plan runs in",
        ),
        setting("server.batch_size", config.batch_size.to_string(), "rows a batch has"),
        setting(
            "server.max_concurrent_queries",
            config.max_concurrent_queries.to_string(),
            "queries that may run at once",
        ),
        setting(
            "server.query_history",
            config.query_history.to_string(),
            "ended queries that system.queries still shows",
        ),
        setting(
            "server.write_outcomes",
            config.write_outcomes.to_string(),
            "writes whose outcomes are remembered, for tickets that are sent again",
        ),
        setting(
            "server.plan_cache",
            config.plan_cache.to_string(),
            "statements whose plans are kept for when they are asked again",
        ),
    ]);
    settings
}

/// Settings that PostgreSQL clients send on connecting and that have no meaning here: they concern
/// text output or the client itself, never the answer.
pub(crate) const IGNORED: [&str; 9] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "standard_conforming_strings",
    "transaction_isolation",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_described() {
        assert_eq!(OPTIONS.map(|(name, _)| name), QueryOptions::NAMES);
    }
}
