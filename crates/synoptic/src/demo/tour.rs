//! Asking the questions and showing what came back, and what was sent where.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use synoptic_engine::{Engine, Receipt, Request, ScanReceipt, Session};
use synoptic_types::format_bytes;

use super::freshness;
use super::questions::{QUESTIONS, Question};
use super::text::{self, Page, Style, WIDTH};
use crate::cli_error::{CliError, Result};
use crate::demo_options::DemoOptions;

/// Lines of remote text shown per scan; `EXPLAIN` shows the whole.
const REMOTE_TEXT_LINES: usize = 8;

/// The answer to a question and where it came from.
#[derive(Debug)]
pub struct Answer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// What every scan was sent and returned.
    pub receipt: Receipt,
    /// From the statement's arrival to its last row.
    pub elapsed: Duration,
}

/// Asks one question the way a client does.
///
/// # Errors
/// When the statement cannot be planned or a source fails.
pub async fn ask(session: &Session, question: &Question) -> Result<Answer> {
    let started = Instant::now();
    let request = Request { sql: question.sql.to_owned(), ..Request::default() };
    let mut stream = session.plan(request).await?.run()?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        batches.push(batch);
    }
    Ok(Answer {
        schema: stream.schema(),
        batches,
        receipt: stream.receipt(),
        elapsed: started.elapsed(),
    })
}

/// Asks every question and writes the tour to `out`.
///
/// # Errors
/// When a question fails or `out` cannot be written to.
pub async fn tour(
    engine: &Arc<Engine>,
    options: &DemoOptions,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let mut page = Page::new(out);
    introduce(&mut page, options)?;
    let session = engine.session("demo");
    for (index, question) in QUESTIONS.iter().enumerate() {
        let number = format!("{} of {}", index + 1, QUESTIONS.len());
        page.rule(&number)?;
        pose(&mut page, question)?;
        let answer = ask(&session, question).await?;
        show(&mut page, question, &answer)?;
    }
    freshness::chapter(&mut page, &session, &options.dir).await?;
    go_on(&mut page, options)?;
    page.flush()?;
    Ok(())
}

/// Writes the question and its statement.
pub(super) fn pose(page: &mut Page<'_>, question: &Question) -> Result<()> {
    page.paragraph(Style::Strong, 0, question.title)?;
    page.paragraph(Style::Plain, 0, question.note)?;
    page.gap()?;
    page.block(Style::Code, 2, question.sql)?;
    page.gap()?;
    page.flush()?;
    Ok(())
}

fn introduce(page: &mut Page<'_>, options: &DemoOptions) -> Result<()> {
    page.gap()?;
    page.paragraph(Style::Strong, 0, "A small bank, three sources, one SQL")?;
    page.gap()?;
    page.paragraph(Style::Plain, 0, &format!("Made in {}:", options.dir.display()))?;
    for (source, what) in [
        ("portfolio", "sqlite    portfolio.db             accounts, trades, positions (invented)"),
        ("market", "parquet   market/prices/symbol=*/  five US shares, daily, 2000-2013 (real)"),
        ("fx", "csv       fx/rates.csv             euro reference rates of the ECB (real)"),
    ] {
        page.line(Style::Plain, &format!("  {source:<11}{what}"))?;
    }
    page.gap()?;
    let text = "Every statement below reads the sources as they are at that moment. Under each \
                answer stands what was sent to each source and how much came back; everything \
                else was done here.";
    page.paragraph(Style::Plain, 0, text)?;
    page.gap()?;
    Ok(())
}

/// Writes the answer, and what was sent where.
pub(super) fn show(page: &mut Page<'_>, question: &Question, answer: &Answer) -> Result<()> {
    let table = text::table(&answer.schema, &answer.batches)
        .map_err(|error| CliError::failed(format!("cannot show the answer: {error}")))?;
    page.block(Style::Plain, 2, &table)?;
    page.paragraph(Style::Plain, 2, question.finding)?;
    page.gap()?;
    for scan in &answer.receipt.scans {
        show_scan(page, scan)?;
    }
    page.line(Style::Faint, &format!("  {}", summary(answer)))?;
    page.gap()?;
    Ok(())
}

fn show_scan(page: &mut Page<'_>, scan: &ScanReceipt) -> Result<()> {
    let place = format!("  sent to {}, {}", scan.source, scan.table);
    let amount = format!("{} {:>12}", count(scan.rows, "row"), format_bytes(scan.bytes));
    let gap = WIDTH.saturating_sub(amount.chars().count()).max(place.chars().count() + 1);
    page.line(Style::Plain, &format!("{place:<gap$}{amount}"))?;
    let lines = scan.remote_text.lines().flat_map(|line| text::wrap(line, WIDTH - 6));
    let lines: Vec<_> = lines.collect();
    for line in lines.iter().take(REMOTE_TEXT_LINES) {
        page.line(Style::Faint, &format!("      {line}"))?;
    }
    if lines.len() > REMOTE_TEXT_LINES {
        page.line(Style::Faint, "      … (EXPLAIN shows the whole)")?;
    }
    Ok(())
}

fn summary(answer: &Answer) -> String {
    let scans = &answer.receipt.scans;
    let sources: BTreeSet<&str> = scans.iter().map(|scan| scan.source.as_str()).collect();
    format!(
        "{}, {}: {} and {} read in {} ms",
        count(sources.len() as u64, "source"),
        count(scans.len() as u64, "scan"),
        count(scans.iter().map(|scan| scan.rows).sum(), "row"),
        format_bytes(scans.iter().map(|scan| scan.bytes).sum()),
        answer.elapsed.as_millis(),
    )
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", text::group_thousands(&number.to_string()))
}

fn go_on(page: &mut Page<'_>, options: &DemoOptions) -> Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "synoptic".to_owned());
    let config = options.dir.join("synoptic.toml");
    let config = config.display();
    page.rule("Go on")?;
    let serve = if options.serve {
        ("It is served from now on, until Ctrl-C, for Python, BI tools and JDBC", String::new())
    } else {
        ("Serve it for Python, BI tools and JDBC", format!("{program} serve -c {config}"))
    };
    let explain = format!(
        "{program} sql -c {config} \\\n    -e \"EXPLAIN SELECT * FROM market.prices WHERE symbol = 'IBM'\""
    );
    let python = format!(
        "import pyarrow.flight as fl\n\
         client = fl.connect(\"grpc://{}\")\n\
         sql = \"SELECT symbol, max(close) AS highest FROM market.prices GROUP BY symbol\"\n\
         info = client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()))\n\
         print(client.do_get(info.endpoints[0].ticket).read_all())",
        options.listen
    );
    for (what, command) in [
        ("Ask your own questions", format!("{program} sql -c {config}")),
        ("See what a statement would send, and why the rest stays here", explain),
        serve,
        ("Then, in Python, with nothing but pyarrow", python),
    ] {
        page.line(Style::Plain, what)?;
        page.block(Style::Code, 2, &command)?;
        page.gap()?;
    }
    Ok(())
}
