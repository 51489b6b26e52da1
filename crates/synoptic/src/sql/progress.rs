//! The line on stderr that says a long query is alive.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::format::grouped;

/// Shorter queries show nothing: a line that flashes up says less than none.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sources beyond these are summed up.
const SHOWN: usize = 4;

/// Rows read so far at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowsRead {
    /// For example `portfolio.positions`.
    pub(super) place: String,
    pub(super) rows: u64,
}

/// A progress line, drawn only on a terminal.
pub(super) struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
    enabled: bool,
}

impl Progress {
    /// A line that appears when the query takes long. Not `enabled`: none at all.
    pub(super) fn new(enabled: bool) -> Self {
        Self { started: Instant::now(), bar: None, enabled }
    }

    /// Shows what has been read, when enough time has passed.
    pub(super) fn show(&mut self, read: &[RowsRead]) {
        if !self.enabled || self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            // A hidden target does nothing; indicatif hides it where there is no terminal.
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(line(self.started.elapsed(), read));
        bar.tick();
    }

    /// Takes the line away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn line(elapsed: Duration, read: &[RowsRead]) -> String {
    let mut text = format!("{:.1} s", elapsed.as_secs_f64());
    if read.is_empty() {
        text.push_str("  planning");
    }
    for RowsRead { place, rows } in read.iter().take(SHOWN) {
        let _ = write!(text, "  {place} {}", grouped(*rows));
    }
    if read.len() > SHOWN {
        let rest: u64 = read[SHOWN..].iter().map(|read| read.rows).sum();
        let _ = write!(text, "  {} more {}", read.len() - SHOWN, grouped(rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_sources_and_sums_up_the_rest() {
        let read = |place: &str, rows| RowsRead { place: place.to_owned(), rows };
        assert_eq!(line(Duration::from_millis(730), &[]), "0.7 s  planning");
        let reads: Vec<_> = (1..=6).map(|i| read(&format!("s.t{i}"), i * 1000)).collect();
        assert_eq!(
            line(Duration::from_secs(2), &reads),
            "2.0 s  s.t1 1,000  s.t2 2,000  s.t3 3,000  s.t4 4,000  2 more 11,000"
        );
    }
}
