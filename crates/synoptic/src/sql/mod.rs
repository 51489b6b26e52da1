//! `synoptic sql`: statements in, answers out, once or at a prompt.

mod backend;
mod execute;
pub mod format;
mod progress;
mod prompt;
mod split;

use std::io::{self, BufWriter, IsTerminal, Read, StdoutLock, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::{Format, SqlArgs};
use crate::cli_error::{CliError, Result};

use backend::Backend;
use execute::{Finished, Sink, execute};
use format::{AnswerWriter, receipt_table};
use progress::Progress;

pub use split::{Script, split};

/// A larger script is refused before it is read to its end.
const MAX_SCRIPT_BYTES: u64 = 256 << 20;

/// Runs the command.
///
/// # Errors
/// When the configuration or the server cannot be used, a script cannot be read, or a statement
/// of a script fails; those that follow it are then not run.
pub async fn run(args: SqlArgs) -> Result<()> {
    let scripts = scripts(&args)?;
    if scripts.is_some() && args.format == Format::Arrow && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "--format arrow writes bytes no terminal shows; send them to a file or a pipe"
                .to_owned(),
        ));
    }
    if scripts.is_none() && args.format != Format::Table {
        return Err(CliError::Usage(
            "--format is for statements given with -e, -f or on stdin; the prompt shows tables"
                .to_owned(),
        ));
    }
    let backend = Backend::open(&args).await?;
    match scripts {
        Some(scripts) => {
            let outcome = run_scripts(&backend, &scripts, &args).await;
            backend.settle().await;
            outcome
        }
        None => prompt::run(backend, args.receipt).await,
    }
}

/// What is to be run; `None` when nothing is given, which opens the prompt.
fn scripts(args: &SqlArgs) -> Result<Option<Vec<String>>> {
    let mut scripts = args.execute.clone();
    match args.file.as_deref() {
        Some(file) if file == Path::new("-") => scripts.push(read_all("stdin", io::stdin())?),
        Some(file) => {
            let what = file.display().to_string();
            let open = std::fs::File::open(file)
                .map_err(|error| CliError::io(format!("read {what}"), &error))?;
            scripts.push(read_all(&what, open)?);
        }
        None if scripts.is_empty() && !io::stdin().is_terminal() => {
            scripts.push(read_all("stdin", io::stdin())?);
        }
        None if scripts.is_empty() => return Ok(None),
        None => {}
    }
    Ok(Some(scripts))
}

fn read_all(what: &str, from: impl Read) -> Result<String> {
    let mut text = String::new();
    from.take(MAX_SCRIPT_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| CliError::io(format!("read {what}"), &error))?;
    if text.len() as u64 > MAX_SCRIPT_BYTES {
        return Err(CliError::failed(format!("{what} has more than {MAX_SCRIPT_BYTES} bytes")));
    }
    Ok(text)
}

async fn run_scripts(backend: &Backend, scripts: &[String], args: &SqlArgs) -> Result<()> {
    for script in scripts {
        run_script(backend, script, args).await?;
    }
    Ok(())
}

async fn run_script(backend: &Backend, script: &str, args: &SqlArgs) -> Result<()> {
    let script = split(script);
    let cancel = CancellationToken::new();
    let _ctrl_c = AbortOnDropHandle::new(tokio::spawn(cancel_on_ctrl_c(cancel.clone())));
    for statement in script.statements.into_iter().chain(script.rest) {
        let mut sink = ToStdout { format: args.format, writer: None };
        let mut progress = Progress::new(args.format == Format::Table);
        let finished = execute(backend, statement, &cancel, &mut progress, &mut sink).await?;
        if let Some(writer) = sink.writer {
            writer.finish()?;
        }
        if args.receipt {
            show_receipt(&finished, args.format);
        }
    }
    Ok(())
}

/// The first Ctrl-C cancels the statement at its sources; a second one does not wait for them.
async fn cancel_on_ctrl_c(cancel: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        cancel.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(1);
        }
    }
}

fn show_receipt(finished: &Finished, format: Format) {
    match (&finished.receipt, format) {
        (Some(receipt), Format::Table) => eprintln!("{}", receipt_table(receipt)),
        (Some(receipt), _) => eprintln!("{receipt}"),
        (None, _) => eprintln!("the server sent no receipt"),
    }
}

/// Writes an answer to stdout as it comes.
struct ToStdout {
    format: Format,
    writer: Option<AnswerWriter<BufWriter<Stdout>>>,
}

/// Locks stdout for each write, so that it can be kept across an `await`.
struct Stdout;

impl Stdout {
    fn lock() -> StdoutLock<'static> {
        io::stdout().lock()
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::lock().flush()
    }
}

impl Sink for ToStdout {
    fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        let out = BufWriter::with_capacity(64 * 1024, Stdout);
        self.writer = Some(AnswerWriter::new(self.format, out, schema)?);
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<bool> {
        if let Some(writer) = &mut self.writer {
            writer.write(batch)?;
        }
        Ok(true)
    }
}
