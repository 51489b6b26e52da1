//! The last chapter of the tour: a second copy of a table, and when it may answer.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::parquet::arrow::ArrowWriter;
use synoptic_engine::Session;

use super::questions::Question;
use super::text::{Page, Style};
use super::tour::{Answer, ask, pose, show};
use crate::cli_error::{CliError, Result};

/// The folder of the copy, and the file in it that says what it is a copy of.
pub(super) const EXPORT: &str = "export";
pub(super) const POSITION_FILE: &str = "_position.json";

/// The copies of a source are asked where they are from time to time; how long to wait for that.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// Longer than the bound of [`TIGHT`].
const LATER: Duration = Duration::from_millis(1200);

const TRADES: Question = plain("SELECT * FROM portfolio.trades");
const CHECK: Question = plain("SELECT count(*) FROM portfolio.trades");
const WRITES: [Question; 2] = [
    plain("INSERT INTO portfolio.owners VALUES (99, 'Nobody', 'CH')"),
    plain("DELETE FROM portfolio.owners WHERE owner_id = 99"),
];

const LOOSE: Question = Question {
    title: "How many shares were ever bought? Ten seconds old will do.",
    note: "The statement says how stale its answer may be. Nobody has written to the database since \
           the export, which was proved less than ten seconds ago: so the export may answer.",
    sql: "SELECT symbol, count(*) AS trades, sum(quantity) AS shares\n\
          FROM portfolio.trades WITH (max_staleness = '10s')\n\
          GROUP BY symbol ORDER BY symbol",
    finding: "The export answered. The database was asked for its position in the background, and \
              for no row.",
};

const TIGHT: Question = Question {
    title: "The same, one second old at most, after somebody has written to the database.",
    note: "The writes changed nothing that is asked for, but the export cannot know that: it is of \
           another state now, and proves nothing about the last second.",
    sql: "SELECT symbol, count(*) AS trades, sum(quantity) AS shares\n\
          FROM portfolio.trades WITH (max_staleness = '1s')\n\
          GROUP BY symbol ORDER BY symbol",
    finding: "The database answered. Unknown is never fresh.",
};

const fn plain(sql: &'static str) -> Question {
    Question { title: "", note: "", sql, finding: "" }
}

/// Exports a table and asks for it twice.
///
/// # Errors
/// When a statement fails, or `dir` cannot be written to.
pub(super) async fn chapter(page: &mut Page<'_>, session: &Session, dir: &Path) -> Result<()> {
    page.rule("How fresh")?;
    let text = "The trades are exported to Parquet now, as a nightly job would, with a note of the \
                state of the database that the export holds. In the configuration the export is a \
                replica of the source 'portfolio'.";
    page.paragraph(Style::Plain, 0, text)?;
    page.gap()?;
    export(session, &dir.join(EXPORT)).await?;

    pose(page, &LOOSE)?;
    let answer = from_copy(session, &LOOSE, "export").await?;
    show(page, &LOOSE, &answer)?;
    proof(page, &answer)?;

    for write in &WRITES {
        page.block(Style::Code, 2, write.sql)?;
        ask(session, write).await?;
    }
    page.gap()?;
    tokio::time::sleep(LATER).await;
    pose(page, &TIGHT)?;
    let answer = from_copy(session, &TIGHT, "primary").await?;
    show(page, &TIGHT, &answer)?;
    proof(page, &answer)
}

/// The answer that `copy` gives, or the last one when its time is over.
async fn from_copy(session: &Session, question: &Question, copy: &str) -> Result<Answer> {
    let asked = Instant::now();
    loop {
        let answer = ask(session, question).await?;
        let there = answer.receipt.scans.iter().all(|scan| scan.copy.copy == copy);
        if there || asked.elapsed() > PATIENCE {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the receipt says of the copies.
fn proof(page: &mut Page<'_>, answer: &Answer) -> Result<()> {
    for scan in &answer.receipt.scans {
        let copy = &scan.copy;
        let stale = copy.staleness_ms.unwrap_or(f64::INFINITY);
        let text = format!(
            "  the receipt: copy '{}' ({}), by {}, at most {stale:.0} ms stale, bound {:.0} ms",
            copy.copy, copy.kind, copy.method, copy.bound_ms
        );
        page.line(Style::Strong, &text)?;
    }
    page.gap()?;
    Ok(())
}

/// Writes the trades to `dir` in the order that keeps a reader from taking a half for a whole:
/// the note is removed first and written last, and only when the source has stayed as it was.
async fn export(session: &Session, dir: &Path) -> Result<()> {
    let note = dir.join(POSITION_FILE);
    remove(&note)?;
    let trades = ask(session, &TRADES).await?;
    let (batches, target) = (trades.batches.clone(), dir.join("trades.parquet"));
    let fields = trades.schema.fields().clone();
    let writing = tokio::task::spawn_blocking(move || {
        write(&target, &Schema::new(fields), batches).map_err(|error| {
            CliError::failed(format!("cannot write {}: {error}", target.display()))
        })
    });
    writing.await.map_err(|error| CliError::failed(format!("the export: {error}")))??;
    let after = ask(session, &CHECK).await?;
    match (position(&trades), position(&after)) {
        (Some(before), Some(after)) if before == after => {
            let text = serde_json::json!({ "position": before }).to_string();
            let part = beside(&note);
            fs::write(&part, text)
                .and_then(|()| fs::rename(&part, &note))
                .map_err(|error| CliError::io(format!("write {}", note.display()), &error))
        }
        _ => Err(CliError::failed(
            "the portfolio database was written to while it was exported; run the demo again",
        )),
    }
}

fn position(answer: &Answer) -> Option<&str> {
    answer.receipt.scans.first()?.copy.position.as_deref()
}

fn write(
    path: &Path,
    schema: &Schema,
    batches: Vec<RecordBatch>,
) -> std::result::Result<(), datafusion::parquet::errors::ParquetError> {
    let part = beside(path);
    let schema = Arc::new(schema.clone());
    let mut writer = ArrowWriter::try_new(File::create(&part)?, Arc::clone(&schema), None)?;
    for batch in batches {
        writer.write(&batch.with_schema(Arc::clone(&schema))?)?;
    }
    writer.close()?;
    Ok(fs::rename(part, path)?)
}

/// Where a file is written before it is renamed: no reader looks at names like it.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("_{name}.part"))
}

/// Removes the note of an earlier export, when there is one.
pub(super) fn remove(note: &Path) -> Result<()> {
    match fs::remove_file(note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::io(format!("remove {}", note.display()), &error))
        }
        _ => Ok(()),
    }
}
