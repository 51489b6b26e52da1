//! The receipt of a statement, from how its copies were chosen and how its snapshots were opened.

use synoptic_freshness::{CopyColumns, StatementColumns, Token};
use synoptic_source::ScanVersion;
use synoptic_types::SourceName;

use crate::engine::Engine;

use super::{Choices, Reading};

/// The columns of a scan that reads one of the states that its table keeps. One that was asked for
/// is that state for ever: it claims nothing of the present.
pub(crate) fn of_version(columns: CopyColumns, version: &ScanVersion) -> CopyColumns {
    let position = columns.position.is_some().then(|| version.position.clone());
    if !version.asked {
        return CopyColumns { position, ..columns };
    }
    CopyColumns {
        position,
        as_of_lo: None,
        as_of_hi: None,
        staleness_ms: None,
        method: "version",
        ..columns
    }
}

impl Choices {
    /// What is known of a source's copy, before and after the snapshots stand.
    pub(crate) fn columns(&self, source: &SourceName, reading: Option<&Reading>) -> CopyColumns {
        let Some(choice) = self.by_source.get(source) else { return CopyColumns::default() };
        let planned = CopyColumns::planned(choice, self.waited, self.attempts);
        let opened = reading.and_then(|reading| {
            let opened = reading.opened.iter().find(|opened| opened.source == *source)?;
            Some((reading, opened))
        });
        match opened {
            None => planned,
            Some((reading, opened)) => planned.read(opened, &reading.shown),
        }
    }
}

/// What holds for a statement as a whole: of what it read, and of what it wrote.
pub(crate) fn statement_columns(
    reading: Option<&Reading>,
    written: &Token,
    engine: &Engine,
) -> StatementColumns {
    let mut token = reading.map(|reading| reading.settled.token.clone()).unwrap_or_default();
    if let Err(error) = token.merge(written) {
        tracing::warn!(%error, "what was written is not in the token");
    }
    let encoded = (!token.is_empty()).then(|| token.encode(engine.token_key()).ok()).flatten();
    let read = reading.filter(|reading| !reading.opened.is_empty());
    StatementColumns::of(read.map(Reading::settled), encoded)
}
