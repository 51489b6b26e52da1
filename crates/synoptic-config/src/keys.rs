//! The one table of keys: what they take, what they mean, how they are set and read back.
//!
//! Checking, the defaults in the reference and the comparison on reload all come from here, so a
//! key that is missing in one place is missing in all.

use std::path::PathBuf;
use std::time::Duration;

use synoptic_types::{ByteSize, OptionError, format_duration, parse_bytes, parse_duration};

use crate::nearest::hint;
use crate::settings::{ClockSource, Settings, check_address};

/// One key of `[server]`, `[query]`, `[freshness]` or `[clock]`.
pub(crate) struct Key {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    /// What the value is, after "takes".
    pub(crate) takes: &'static str,
    pub(crate) meaning: &'static str,
    /// The value as it would be written; empty when not set.
    pub(crate) get: fn(&Settings) -> String,
    /// Sets it from its text. The error may quote the text.
    pub(crate) set: fn(&mut Settings, &str) -> Result<(), String>,
}

const ADDRESS: &str = "`HOST:PORT`";
const DURATION: &str = "a duration such as `250ms`, `5s`, `2m`, `1h`";
const SIZE: &str = "a size such as `512MiB`, `4GiB`";
const FOLDER: &str = "a folder";
const FLAG: &str = "`true` or `false`";
const ROWS: &str = "a whole number of rows above 0, or `''`";

macro_rules! query_key {
    ($name:literal, $takes:expr, $meaning:literal) => {
        Key {
            section: "query",
            name: $name,
            takes: $takes,
            meaning: $meaning,
            get: |s| s.query.get($name).unwrap_or_default(),
            set: |s, text| s.query.set($name, text).map_err(|error| option_message(&error)),
        }
    };
}

macro_rules! freshness_key {
    ($name:ident, $takes:expr, $meaning:literal, $show:expr, $read:expr) => {
        Key {
            section: "freshness",
            name: stringify!($name),
            takes: $takes,
            meaning: $meaning,
            get: |s| $show(&s.freshness.$name),
            set: |s, text| {
                s.freshness.$name = $read(text)?;
                Ok(())
            },
        }
    };
}

macro_rules! server_key {
    ($name:ident, $takes:expr, $meaning:literal, $show:expr, $read:expr) => {
        Key {
            section: "server",
            name: stringify!($name),
            takes: $takes,
            meaning: $meaning,
            get: |s| $show(&s.server.$name),
            set: |s, text| {
                s.server.$name = $read(text)?;
                Ok(())
            },
        }
    };
}

/// Every key, in the order of the reference.
pub(crate) const KEYS: &[Key] = &[
    server_key!(
        listen,
        ADDRESS,
        "Where Flight SQL is served. Port 0 picks a free one, which the ready line shows.",
        String::clone,
        check_address
    ),
    server_key!(
        http,
        ADDRESS,
        "Where `/metrics`, `/healthz` and `/readyz` are served; leave it out to disable them.",
        |v: &Option<String>| v.clone().unwrap_or_default(),
        |text: &str| if text.is_empty() { Ok(None) } else { check_address(text).map(Some) }
    ),
    server_key!(
        insecure,
        FLAG,
        "Allows `listen` and `http` to be addresses other machines reach. There is no \
         authentication in this version: whoever reaches the port reads every source.",
        bool::to_string,
        flag
    ),
    server_key!(
        memory_limit,
        SIZE,
        "Memory for sorts, joins and aggregates over all queries. Beyond it they spill to disk, or \
         fail with `[OUT_OF_MEMORY]`.",
        size,
        |text: &str| at_least(text, 16 << 20)
    ),
    server_key!(
        spill_limit,
        SIZE,
        "Disk for spilled data over all queries.",
        size,
        |text: &str| at_least(text, 0)
    ),
    server_key!(
        spill_dir,
        FOLDER,
        "Where spilled data goes; the system's temporary folder when not set.",
        |v: &Option<PathBuf>| v.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        |text: &str| Ok::<_, String>((!text.is_empty()).then(|| PathBuf::from(text)))
    ),
    server_key!(
        max_concurrent_queries,
        "a whole number from 1 to 10000",
        "Queries that run at once; further ones are refused with `[QUEUE_FULL]`.",
        usize::to_string,
        |text: &str| count(text, 1, 10_000)
    ),
    server_key!(
        drain_timeout,
        DURATION,
        "How long running queries may go on after SIGTERM before they are cancelled.",
        duration,
        |text: &str| duration_from(text, Duration::ZERO)
    ),
    server_key!(
        target_partitions,
        "a whole number from 1 to 1024",
        "Partitions a plan runs in.",
        usize::to_string,
        |text: &str| count(text, 1, 1024)
    ),
    server_key!(
        batch_size,
        "a whole number from 1 to 1048576",
        "Rows of a batch.",
        usize::to_string,
        |text: &str| count(text, 1, 1_048_576)
    ),
    server_key!(
        read_ahead_rows,
        "a whole number from 0 to 1000000",
        "Tables of so many rows or fewer are read while other sources of the statement are, without \
         waiting for keys of joins; 0 asks each when its turn comes.",
        usize::to_string,
        |text: &str| count(text, 0, 1_000_000)
    ),
    server_key!(
        query_history,
        "a whole number from 0 to 1000000",
        "Ended queries that `system.queries` still shows.",
        usize::to_string,
        |text: &str| count(text, 0, 1_000_000)
    ),
    server_key!(
        write_outcomes,
        "a whole number from 1 to 1000000",
        "Writes whose outcomes are remembered, so that a ticket that is sent again gets the answer \
         of the first time. A write whose outcome is forgotten is refused, never done again.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    server_key!(
        plan_cache,
        "a whole number from 0 to 1000000",
        "Statements whose logical plans are kept for when the same text is asked again. Tables are \
         looked up at their sources each time all the same; 0 keeps none.",
        usize::to_string,
        |text: &str| count(text, 0, 1_000_000)
    ),
    server_key!(
        ticket_ttl,
        DURATION,
        "How long a Flight ticket is valid after its query was planned.",
        duration,
        |text: &str| duration_from(text, Duration::from_secs(1))
    ),
    server_key!(
        plan_ttl,
        DURATION,
        "How long a planned query waits for its DoGet. After that the ticket plans it again.",
        duration,
        |text: &str| duration_from(text, Duration::from_secs(1))
    ),
    server_key!(
        max_waiting_plans,
        "a whole number from 1 to 1000000",
        "Planned queries that wait for their DoGet at once; the oldest gives way.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    server_key!(
        max_sessions,
        "a whole number from 1 to 1000000",
        "Flight sessions at once; the one unused for longest gives way.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    server_key!(
        session_idle_timeout,
        DURATION,
        "How long a Flight session or a prepared statement lives without a call.",
        duration,
        |text: &str| duration_from(text, Duration::from_secs(1))
    ),
    server_key!(
        max_prepared_statements,
        "a whole number from 1 to 1000000",
        "Prepared statements at once, over all sessions; the one unused for longest gives way.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    server_key!(
        metadata_timeout,
        DURATION,
        "How long a client's listing with columns may describe tables; the rest is left out.",
        duration,
        |text: &str| duration_from(text, Duration::from_millis(100))
    ),
    server_key!(
        max_request_size,
        SIZE,
        "The largest message a client may send: SQL text and parameters.",
        size,
        |text: &str| sized(text, 64 << 10, 2047 << 20)
    ),
    server_key!(
        message_size,
        SIZE,
        "The size messages to clients aim for; larger batches are split between rows. Many gRPC \
         clients take at most 4 MiB unless told otherwise.",
        size,
        |text: &str| sized(text, 64 << 10, 2047 << 20)
    ),
    server_key!(
        max_row_size,
        SIZE,
        "The largest row that is sent to a client; a query with a larger one fails with \
         `[BUDGET_EXCEEDED]`.",
        size,
        |text: &str| sized(text, 64 << 10, 2047 << 20)
    ),
    server_key!(
        max_streams_per_connection,
        "a whole number from 1 to 1000000",
        "Calls one connection may have open at once.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    query_key!(
        "max_staleness",
        DURATION,
        "The largest staleness a statement accepts; `0s` is a strong read."
    ),
    query_key!(
        "on_unmet",
        "`error`, `wait` or `stale`",
        "What happens when no copy can prove the bound."
    ),
    query_key!("wait_timeout", DURATION, "How long `on_unmet = 'wait'` waits."),
    query_key!(
        "consistency",
        "`source`, `bounded` or `as_of`",
        "What the scans of a statement have in common. `source`: one snapshot per source. \
         `bounded`: all snapshots are opened before the first is read, and `max_skew` limits what \
         lies between sources. `as_of`: every table is read as it was at `read_timestamp`."
    ),
    query_key!("max_skew", DURATION, "The largest skew over all sources, with `consistency`."),
    query_key!(
        "read_timestamp",
        "a time with offset, as `2026-11-23T16:00:00Z`",
        "The moment to read at, with `consistency = 'as_of'`. Every table must be named in its \
         source's `system_time`."
    ),
    query_key!(
        "token",
        "`''`",
        "The token of an earlier answer or write: \
        what is read has seen all that it had."
    ),
    query_key!(
        "pushdown",
        "`auto` or `none`",
        "How much work the sources are given. The answers are the same, always."
    ),
    query_key!(
        "dynamic_filters",
        "`on` or `off`",
        "Whether joins hand their keys to the scans while they run."
    ),
    query_key!(
        "max_rows_read",
        ROWS,
        "Rows a statement may read from any one source before it is refused or stopped."
    ),
    query_key!(
        "statement_timeout",
        DURATION,
        "How long a statement may run; passed on to the sources. `0s` or unset is no limit."
    ),
    freshness_key!(
        probe_interval,
        DURATION,
        "How often each copy of a source is asked where it is, with one small query for all \
         statements.",
        duration,
        |text: &str| duration_from(text, Duration::from_millis(10))
    ),
    freshness_key!(
        max_waiting,
        "a whole number from 1 to 1000000",
        "Statements that may wait at once for one source to say where it is; further ones are \
         refused with `[QUEUE_FULL]`.",
        usize::to_string,
        |text: &str| count(text, 1, 1_000_000)
    ),
    freshness_key!(
        replay_wait,
        DURATION,
        "How long after its arrival a statement waits for a replica that is about to have what it \
         needs, before it goes to a dearer copy.",
        duration,
        |text: &str| duration_from(text, Duration::ZERO)
    ),
    freshness_key!(
        retry_pause,
        DURATION,
        "The pause between two attempts of a statement with `on_unmet = 'wait'`.",
        duration,
        |text: &str| duration_from(text, Duration::from_millis(1))
    ),
    freshness_key!(
        max_drift_ppm,
        "a whole number from 0 to 100000",
        "The largest rate error of this machine's monotonic clock, in parts per million.",
        u32::to_string,
        |text: &str| count(text, 0, 100_000).map(|ppm| u32::try_from(ppm).unwrap_or(u32::MAX))
    ),
    freshness_key!(
        token_key,
        "a secret of 32 bytes or more, such as `${file:token.key}`",
        "What tokens are signed with. Servers with the same key take each other's tokens. Without \
         it every process makes its own key: tokens then end with the process and are good for no \
         other.",
        |v: &Option<String>| v.clone().unwrap_or_default(),
        token_key
    ),
    Key {
        section: "clock",
        name: "source",
        takes: "`auto`, `clockbound`, `kernel` or `declared`",
        meaning: "Where the error bound of this machine's clock comes from. `clockbound` is AWS \
                  ClockBound, `kernel` is what chronyd or another NTP daemon has told the kernel \
                  (`maxerror` of `adjtimex`). `auto` is ClockBound when its segment is there, else \
                  the kernel when it is synchronised, else none: then commits have no timestamp and \
                  do not wait, nor do they when the wait would be longer than `max_commit_wait`. \
                  With another source a write is refused as long as it gives no bound.",
        get: |s| {
            let known = CLOCK_SOURCES.iter().find(|(_, source)| *source == s.clock.source);
            known.map_or_else(String::new, |(name, _)| (*name).to_owned())
        },
        set: |s, text| {
            let names: Vec<_> = CLOCK_SOURCES.iter().map(|(name, _)| *name).collect();
            let known = CLOCK_SOURCES.iter().find(|(name, _)| *name == text);
            let (_, source) = known.ok_or_else(|| {
                format!("'{text}' is not a clock source{}", hint(text, "clock sources", &names))
            })?;
            s.clock.source = *source;
            Ok(())
        },
    },
    Key {
        section: "clock",
        name: "max_offset",
        takes: DURATION,
        meaning: "With `source = 'declared'`: the most this machine's clock is ever wrong.",
        get: |s| s.clock.max_offset.map(format_duration).unwrap_or_default(),
        set: |s, text| {
            s.clock.max_offset = Some(duration_from(text, Duration::ZERO)?);
            Ok(())
        },
    },
    Key {
        section: "clock",
        name: "segment",
        takes: "a path",
        meaning: "Where ClockBound publishes its bound.",
        get: |s| s.clock.segment.display().to_string(),
        set: |s, text| {
            s.clock.segment = PathBuf::from(text);
            Ok(())
        },
    },
    Key {
        section: "clock",
        name: "max_commit_wait",
        takes: DURATION,
        meaning: "A commit is acknowledged when its timestamp is past on every clock: after twice the \
                  clock's error. When that is longer than this, writes are refused; with `source = \
                  'auto'` they have no timestamp.",
        get: |s| format_duration(s.clock.max_commit_wait),
        set: |s, text| {
            s.clock.max_commit_wait = duration_from(text, Duration::ZERO)?;
            Ok(())
        },
    },
];

const CLOCK_SOURCES: [(&str, ClockSource); 4] = [
    ("auto", ClockSource::Auto),
    ("clockbound", ClockSource::ClockBound),
    ("kernel", ClockSource::Kernel),
    ("declared", ClockSource::Declared),
];

/// What a signature is worth is what its key is worth.
const LEAST_KEY_BYTES: usize = 32;

/// The sections that have keys, in order.
pub(crate) const SECTIONS: [&str; 4] = ["server", "query", "freshness", "clock"];

/// The keys of a section.
pub(crate) fn of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("'{text}' is neither true nor false"))
}

fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is not a whole number from {least} to {most}")),
    }
}

/// Never quotes the text.
fn token_key(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() < LEAST_KEY_BYTES {
        return Err(format!(
            "the secret is shorter than {LEAST_KEY_BYTES} bytes; make one with \
             'openssl rand -hex 32'"
        ));
    }
    Ok(Some(text.to_owned()))
}

fn at_least(text: &str, least: u64) -> Result<ByteSize, String> {
    sized(text, least, u64::MAX)
}

fn sized(text: &str, least: u64, most: u64) -> Result<ByteSize, String> {
    let bytes = parse_bytes(text).map_err(|e| e.to_string())?;
    if bytes.0 < least {
        return Err(format!("'{text}' is too little: at least {}", size(&ByteSize(least))));
    }
    if bytes.0 > most {
        return Err(format!("'{text}' is too much: at most {}", size(&ByteSize(most))));
    }
    Ok(bytes)
}

fn duration_from(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|e| e.to_string())?;
    if duration < least {
        return Err(format!("'{text}' is too short: at least {}", format_duration(least)));
    }
    Ok(duration)
}

fn duration(duration: &Duration) -> String {
    format_duration(*duration)
}

/// A size as it would be written, exactly.
fn size(bytes: &ByteSize) -> String {
    for (unit, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes.0 > 0 && bytes.0.is_multiple_of(factor) {
            return format!("{}{unit}", bytes.0 / factor);
        }
    }
    bytes.0.to_string()
}

/// The message without the option's name, which the caller says better.
fn option_message(error: &OptionError) -> String {
    match error {
        OptionError::Unknown { .. } => error.to_string(),
        OptionError::Value { value, expected, .. } if expected.contains(value.as_str()) => {
            expected.clone()
        }
        OptionError::Value { value, expected, .. } => {
            format!("'{value}' does not fit: {expected}")
        }
        OptionError::Alone(message) => (*message).to_owned(),
    }
}
