//! `synoptic check`: is the configuration right, do the sources answer, what do they hold?

use std::sync::Arc;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use futures::{StreamExt, stream};
use synoptic_config::Config;
use synoptic_source::{Source, SourceCheck, SourceError};

use crate::cli_error::{CliError, Result};
use crate::compose::compose;

/// How long one source may take for all questions together.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sources asked at once.
const SOURCES_AT_ONCE: usize = 16;

/// What a source said.
struct Answer {
    check: SourceCheck,
    tables: usize,
}

/// Asks every source of `config` and prints what is there.
///
/// # Errors
/// One line for each source that is wrong or does not answer, with file and line.
pub async fn run(config: &Config) -> Result<()> {
    let engine = compose(config)?;
    let snapshot = engine.host().snapshot();
    let sources: Vec<_> = snapshot.sources().map(|entry| Arc::clone(entry.source())).collect();
    let answers: Vec<_> = stream::iter(&sources).map(ask).buffered(SOURCES_AT_ONCE).collect().await;
    let errors = answers.iter().zip(&sources).filter_map(|(answer, source)| {
        answer.as_ref().err().map(|message| place(config, source.as_ref(), message))
    });
    let errors: Vec<_> = errors.collect();
    print(&sources, &answers);
    if errors.is_empty() { Ok(()) } else { Err(CliError::failed(errors.join("\n"))) }
}

async fn ask(source: &Arc<dyn Source>) -> Result<Answer, String> {
    let questions = async {
        let check = source.check().await?;
        let tables = source.tables().await?.len();
        Ok::<_, SourceError>(Answer { check, tables })
    };
    match tokio::time::timeout(SOURCE_TIMEOUT, questions).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let code = error.kind().code();
            Err(format!("{code} {}", error.in_source(source.name())))
        }
        Err(_) => Err(format!(
            "[SOURCE_UNAVAILABLE] source '{}': no answer from {} within {} s",
            source.name(),
            source.location(),
            SOURCE_TIMEOUT.as_secs()
        )),
    }
}

/// `FILE:LINE: message`, where the line is that of the source's table.
fn place(config: &Config, source: &dyn Source, message: &str) -> String {
    match config.line_of(&["sources", source.name().as_str()]) {
        Some(line) => format!("{}:{line}: {message}", config.file()),
        None => message.to_owned(),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn print(sources: &[Arc<dyn Source>], answers: &[Result<Answer, String>]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "source",
        "connector",
        "copy",
        "where",
        "version",
        "tables",
        "freshness",
        "round trip",
    ]);
    for (source, answer) in sources.iter().zip(answers) {
        let (place, version, tables, freshness, round_trip) = match answer {
            Ok(Answer { check, tables }) => (
                check.location.clone(),
                check.version.clone(),
                tables.to_string(),
                check.freshness.clone(),
                format!("{:.1} ms", check.round_trip.as_secs_f64() * 1e3),
            ),
            Err(_) => {
                let unknown = String::new;
                (source.location(), "no answer".to_owned(), unknown(), unknown(), unknown())
            }
        };
        let name = source.name().to_string();
        let connector = source.connector().to_owned();
        let copy = "primary".to_owned();
        table.add_row([name, connector, copy, place, version, tables, freshness, round_trip]);
    }
    for number in [5, 7] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if sources.is_empty() {
        println!("no sources: the file has no [sources.NAME]");
    } else {
        println!("{table}");
    }
    println!("clock: the system's (auto); every read is a strong read, which needs no clock bound");
}
