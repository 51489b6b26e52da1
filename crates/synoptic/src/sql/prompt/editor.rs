//! The line editor: history, completion, Enter.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::cli_error::{CliError, Result};

use super::super::backend::TableRef;
use super::command::Command;
use super::complete::{Lookup, complete};
use super::names::Names;

const PROMPT: &str = "synoptic> ";

/// Inputs the history keeps.
const MAX_HISTORY: usize = 5000;

/// The editor with its history file.
pub(super) struct LineEditor {
    editor: Editor<SqlHelper, DefaultHistory>,
    history: Option<PathBuf>,
}

pub(super) fn open_editor(names: Arc<Names>) -> Result<LineEditor> {
    let refused =
        |error: ReadlineError| CliError::failed(format!("cannot use the terminal: {error}"));
    let config = Config::builder()
        .max_history_size(MAX_HISTORY)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(refused)?
        // A way to keep a password out of the history.
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config).map_err(refused)?;
    editor.set_helper(Some(SqlHelper { names, history: HistoryHinter::new() }));
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    Ok(LineEditor { editor, history })
}

impl LineEditor {
    /// One input, of one or more lines. Blocks.
    pub(super) fn read(&mut self) -> Result<String, ReadlineError> {
        let text = self.editor.readline(PROMPT)?;
        let is_new = self.editor.add_history_entry(text.as_str()).unwrap_or(false);
        if let Some(file) = self.history.as_ref().filter(|_| is_new) {
            // Written by each input, so that a crash loses none. rustyline gives the file 0600.
            if let Err(error) = self.editor.append_history(file) {
                tracing::warn!(%error, "the history cannot be written; it lasts this session");
                self.history = None;
            }
        }
        Ok(text)
    }

    /// Lines of the terminal.
    pub(super) fn height(&mut self) -> usize {
        let dimensions = self.editor.dimensions();
        dimensions.map_or(usize::MAX, |(_, rows)| usize::from(rows)).max(1)
    }
}

/// `synoptic/history` in the user's data folder, which is made when it is not there.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))?;
    let folder = data.join("synoptic");
    match make_private(&folder) {
        Ok(()) => Some(folder.join("history")),
        Err(error) => {
            tracing::warn!(%error, "the history cannot be kept in {}", folder.display());
            None
        }
    }
}

fn make_private(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

struct SqlHelper {
    names: Arc<Names>,
    history: HistoryHinter,
}

impl Lookup for Names {
    fn tables(&self) -> Arc<[TableRef]> {
        Self::tables(self)
    }

    fn columns(&self, table: &TableRef) -> Arc<[String]> {
        Self::columns(self, table)
    }
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, names) = complete(line, cursor, self.names.as_ref());
        let pair = |name: String| Pair { display: name.clone(), replacement: name };
        Ok((start, names.into_iter().map(pair).collect()))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if Command::is_complete(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Hinter for SqlHelper {
    type Hint = String;

    fn hint(&self, line: &str, cursor: usize, context: &Context<'_>) -> Option<String> {
        self.history.hint(line, cursor, context)
    }
}

impl Highlighter for SqlHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> std::borrow::Cow<'h, str> {
        // Grey: it is not there until the right arrow takes it.
        std::borrow::Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl Helper for SqlHelper {}
