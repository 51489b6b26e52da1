//! The interactive prompt.
//!
//! ```text
//! editor    a line with history and completion, until `;` ends a statement   (editor.rs)
//! names     tables and columns, fetched in the background                     (names.rs)
//! complete  what may stand at the cursor, a pure function of text and names   (complete.rs)
//! command   \d \timing \receipt \? \q                                         (command.rs)
//! screen    the answer, its first 1000 rows, through $PAGER when long         (screen.rs)
//! ```

mod command;
mod complete;
mod editor;
mod names;
mod screen;

use std::sync::Arc;
use std::time::Duration;

use rustyline::error::ReadlineError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli_error::{CliError, Result};

use super::backend::Backend;
use super::execute::{Finished, execute};
use super::format::{count_rows, receipt_table};
use super::progress::Progress;
use super::split::split;

use command::{Command, HELP};
use editor::open_editor;
use names::Names;
use screen::{MAX_ROWS, Screen};

/// How answers are shown: what `\timing` and `\receipt` turn on and off, and the terminal.
struct Toggles {
    timing: bool,
    receipt: bool,
    /// Lines of the terminal.
    height: usize,
}

/// Reads and runs statements until Ctrl-D or `\q`.
///
/// # Errors
/// When the terminal cannot be used. Errors of statements are shown and do not end the prompt.
pub(super) async fn run(backend: Backend, receipt: bool) -> Result<()> {
    let backend = Arc::new(backend);
    let (names, load) = Names::new(Arc::clone(&backend));
    let _loader = AbortOnDropHandle::new(tokio::spawn(load));
    let mut editor = open_editor(Arc::clone(&names))?;
    let mut toggles = Toggles { timing: true, receipt, height: usize::MAX };
    say(&format!("{}. \\? for help, Ctrl-D to leave.", backend.greeting()));
    loop {
        let line = tokio::task::block_in_place(|| editor.read());
        match line {
            Ok(text) => {
                toggles.height = editor.height();
                if run_input(&backend, &text, &mut toggles).await? {
                    return Ok(());
                }
                names.refresh();
            }
            // Ctrl-C: an empty line, as in a shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => {
                return Err(CliError::failed(format!("cannot read from the terminal: {error}")));
            }
        }
    }
}

/// Runs one input. `true` when it asks to leave.
async fn run_input(backend: &Backend, text: &str, toggles: &mut Toggles) -> Result<bool> {
    let sql = match Command::parse(text) {
        Command::Nothing => return Ok(false),
        Command::Leave => return Ok(true),
        Command::Help => {
            say(HELP);
            return Ok(false);
        }
        Command::Timing => {
            toggles.timing = !toggles.timing;
            say(if toggles.timing { "timing is on" } else { "timing is off" });
            return Ok(false);
        }
        Command::Receipt => {
            toggles.receipt = !toggles.receipt;
            say(if toggles.receipt { "receipts are on" } else { "receipts are off" });
            return Ok(false);
        }
        Command::Unknown(name) => {
            eprintln!("there is no command \\{name}; \\? lists them");
            return Ok(false);
        }
        Command::Sql(sql) => sql,
    };
    let script = split(&sql);
    for statement in script.statements.into_iter().chain(script.rest) {
        match run_statement(backend, statement, toggles).await {
            Ok(()) => {}
            // The terminal is gone: there is nobody to prompt.
            Err(CliError::OutputClosed) => return Err(CliError::OutputClosed),
            Err(error) => {
                eprintln!("{error}");
                return Ok(false);
            }
        }
    }
    Ok(false)
}

async fn run_statement(backend: &Backend, statement: &str, toggles: &Toggles) -> Result<()> {
    let cancel = CancellationToken::new();
    let on_ctrl_c = cancel.clone();
    // Dropped with the statement; at the prompt itself the editor sees Ctrl-C.
    let _ctrl_c = AbortOnDropHandle::new(tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_ctrl_c.cancel();
        }
    }));
    let mut screen = Screen::default();
    let mut progress = Progress::new(true);
    let finished = execute(backend, statement, &cancel, &mut progress, &mut screen).await?;
    screen.show(toggles.height)?;
    say(&summary(&finished, screen.has_columns(), toggles.timing));
    if toggles.receipt
        && let Some(receipt) = &finished.receipt
    {
        say(&receipt_table(receipt));
    }
    Ok(())
}

fn summary(finished: &Finished, has_columns: bool, timing: bool) -> String {
    let what = match (has_columns, finished.cut) {
        (false, _) => "done".to_owned(),
        (true, false) => count_rows(finished.rows),
        (true, true) => format!(
            "the first {} rows; there are more, which were not read. Use LIMIT, or synoptic sql -e",
            MAX_ROWS
        ),
    };
    if timing { format!("({what}, {})", people(finished.elapsed)) } else { format!("({what})") }
}

/// A duration as people say it: `0.8 ms`, `12 ms`, `3.42 s`.
fn people(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[expect(clippy::print_stdout, reason = "the prompt talks on stdout, where its answers are")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_honest_about_what_was_cut() {
        let finished =
            |cut| Finished { rows: 1000, cut, elapsed: Duration::from_millis(12), receipt: None };
        assert_eq!(summary(&finished(false), true, true), "(1,000 rows, 12 ms)");
        assert_eq!(summary(&finished(false), false, false), "(done)");
        assert!(summary(&finished(true), true, true).starts_with("(the first 1000 rows; there"));
    }

    #[test]
    fn durations_for_people() {
        for (micros, text) in [(840, "0.8 ms"), (12_400, "12 ms"), (3_420_000, "3.42 s")] {
            assert_eq!(people(Duration::from_micros(micros)), text);
        }
    }
}
