//! What a wrong name may have meant.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::SYNOPTIC;
use crate::engine::Engine;
use crate::error::Error;
use crate::metadata::TableEntry;

/// A hint is not worth more waiting than this.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names that are less alike than this are not worth naming.
const ALIKE: f64 = 0.8;

/// Adds the nearest table to an error about one that does not exist.
pub(crate) async fn nearest_table(engine: &Arc<Engine>, error: Error) -> Error {
    let Some(asked) = missing(error.message()) else { return error };
    let parts: Vec<_> = asked.split('.').collect();
    let snapshot = engine.host().snapshot();
    // `synoptic.source.table` is how the planner spells what was written as `source.table`.
    let (source, written) = match parts.as_slice() {
        [SYNOPTIC, source, table] if snapshot.source(source).is_some() => {
            (Some(*source), format!("{source}.{table}"))
        }
        [source, ..] if snapshot.source(source).is_some() => (Some(*source), asked.to_owned()),
        _ => (None, asked.to_owned()),
    };
    let message = format!("there is no table '{written}'");
    let hint = match tokio::time::timeout(PATIENCE, engine.tables()).await {
        Ok(tables) => nearest(&tables, source, parts.last().copied().unwrap_or(asked)),
        Err(_) => None,
    };
    let hint = match hint {
        Some(name) => format!("; did you mean {name}?"),
        None => "; SHOW TABLES lists all there are".to_owned(),
    };
    Error::new(error.code(), format!("{message}{hint}"))
}

fn nearest(tables: &[TableEntry], source: Option<&str>, asked: &str) -> Option<String> {
    let candidates = tables.iter().filter(|t| source.is_none_or(|source| t.catalog == source));
    let scored = candidates.map(|t| (strsim::jaro_winkler(asked, &t.name), t));
    let (alike, table) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (alike >= ALIKE).then(|| format!("{}.{}.{}", table.catalog, table.schema, table.name))
}

/// The name in `table 'NAME' not found`. What a source says of a table it knew has no better name.
fn missing(message: &str) -> Option<&str> {
    let (name, _) = message.strip_prefix("table '")?.split_once('\'')?;
    Some(name)
}
