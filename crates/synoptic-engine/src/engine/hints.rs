//! What a wrong name may have meant.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Error;

/// A hint is not worth more waiting than this.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names that are less alike than this are not worth naming.
const ALIKE: f64 = 0.75;

/// Adds the nearest table to an error about one that does not exist.
pub(crate) async fn nearest_table(engine: &Arc<Engine>, error: Error) -> Error {
    let Some(asked) = quoted(error.message()) else { return error };
    let Ok(tables) = tokio::time::timeout(PATIENCE, engine.tables()).await else { return error };
    let last = asked.rsplit('.').next().unwrap_or(asked);
    let score = |table: &crate::metadata::TableEntry| {
        let full = format!("{}.{}.{}", table.catalog, table.schema, table.name);
        let by_full = strsim::jaro_winkler(asked, &full);
        // The right name in the wrong place beats a similar path.
        let by_name = strsim::jaro_winkler(last, &table.name);
        (by_full.max(by_name), full)
    };
    let best = tables.iter().map(score).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((alike, name)) if alike >= ALIKE => Error::new(
            error.code(),
            format!("{}; did you mean {name}? SHOW TABLES lists all", error.message()),
        ),
        _ => Error::new(error.code(), format!("{}; SHOW TABLES lists all", error.message())),
    }
}

fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('\'')?;
    rest.split_once('\'').map(|(name, _)| name)
}
