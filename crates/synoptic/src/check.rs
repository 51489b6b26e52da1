//! `synoptic check`: is the configuration right, do the sources answer, what do they hold?

use std::sync::Arc;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use futures::{StreamExt, stream};
use synoptic_catalog::CopySet;
use synoptic_config::Config;
use synoptic_engine::Engine;
use synoptic_source::{CopyPosition, Source, SourceCheck, SourceError};
use synoptic_types::{CopyKind, CopyName, Position, format_duration};

use crate::cli_error::{CliError, Result};
use crate::compose::Composition;

/// How long one copy may take for all questions together.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);

/// Copies asked at once.
const COPIES_AT_ONCE: usize = 16;

/// One place to ask.
struct Copy {
    name: CopyName,
    kind: CopyKind,
    source: Arc<dyn Source>,
    /// Its place among the replicas of the configuration.
    replica: Option<usize>,
}

/// What a copy said.
struct Answer {
    check: SourceCheck,
    tables: usize,
    position: CopyPosition,
}

/// Asks every copy of every source of `config` and prints what is there.
///
/// # Errors
/// One line for each copy that is wrong or does not answer, with file and line.
pub async fn run(config: &Config) -> Result<()> {
    let composition = Composition::new(config)?;
    let copies: Vec<_> = composition.copies().into_iter().flat_map(copies_of).collect();
    let answers: Vec<_> = stream::iter(&copies).map(ask).buffered(COPIES_AT_ONCE).collect().await;
    let errors = answers.iter().zip(&copies).filter_map(|(answer, copy)| {
        answer.as_ref().err().map(|message| place(config, copy, message))
    });
    let errors: Vec<_> = errors.collect();
    print(&copies, &answers);
    print_clock(composition.engine());
    if errors.is_empty() { Ok(()) } else { Err(CliError::failed(errors.join("\n"))) }
}

/// The authoritative copy first.
fn copies_of(set: CopySet) -> Vec<Copy> {
    let mut copies = vec![Copy {
        name: CopyName::primary(),
        kind: CopyKind::Authoritative,
        source: set.authoritative,
        replica: None,
    }];
    copies.extend(set.replicas.into_iter().enumerate().map(|(index, replica)| Copy {
        name: replica.name,
        kind: CopyKind::Replica,
        source: replica.source,
        replica: Some(index),
    }));
    copies
}

async fn ask(copy: &Copy) -> Result<Answer, String> {
    let source = &copy.source;
    let questions = async {
        let check = source.check().await?;
        let tables = source.tables().await?.len();
        let position = source.position().await?;
        Ok::<_, SourceError>(Answer { check, tables, position })
    };
    let of = match copy.replica {
        Some(_) => format!("copy '{}' of ", copy.name),
        None => String::new(),
    };
    match tokio::time::timeout(COPY_TIMEOUT, questions).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let code = error.kind().code();
            Err(format!("{code} {of}{}", error.in_source(source.name())))
        }
        Err(_) => Err(format!(
            "[SOURCE_UNAVAILABLE] {of}source '{}': no answer from {} within {} s",
            source.name(),
            source.location(),
            COPY_TIMEOUT.as_secs()
        )),
    }
}

/// `FILE:LINE: message`, where the line is that of the copy's table.
fn place(config: &Config, copy: &Copy, message: &str) -> String {
    let source = copy.source.name().as_str();
    let line = match copy.replica {
        Some(index) => config.line_of(&["sources", source, "replicas", &index.to_string()]),
        None => config.line_of(&["sources", source]),
    };
    match line {
        Some(line) => format!("{}:{line}: {message}", config.file()),
        None => message.to_owned(),
    }
}

/// How a read of a copy proves its freshness, or why it cannot.
fn proof(copy: &Copy, answer: &Answer, head: Option<&CopyPosition>) -> String {
    let freshness = &answer.check.freshness;
    match copy.kind {
        CopyKind::Authoritative if answer.position.follows => {
            "none: it follows another node, so it is not authoritative".to_owned()
        }
        CopyKind::Authoritative => freshness.clone(),
        _ => match (&answer.position.position, head.map(|head| &head.position)) {
            (Position::Unknown, _) => format!("none: it does not say where it is ({freshness})"),
            (_, None | Some(Position::Unknown)) => {
                "none: the primary does not say where it is".to_owned()
            }
            (Position::Log { epoch: copy, .. }, Some(Position::Log { epoch: head, .. }))
                if copy.system == head.system =>
            {
                "its position against the primary's".to_owned()
            }
            (Position::Version(_), Some(Position::Version(_))) => {
                "its version against the primary's".to_owned()
            }
            _ => "none: its position is of another log than the primary's".to_owned(),
        },
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn print(copies: &[Copy], answers: &[Result<Answer, String>]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "source",
        "copy",
        "kind",
        "connector",
        "where",
        "version",
        "tables",
        "position",
        "follows",
        "freshness",
        "round trip",
    ]);
    let mut head = None;
    for (copy, answer) in copies.iter().zip(answers) {
        if copy.kind == CopyKind::Authoritative {
            head = answer.as_ref().ok().map(|answer| &answer.position);
        }
        let mut row = vec![
            copy.source.name().to_string(),
            copy.name.to_string(),
            copy.kind.to_string(),
            copy.source.connector().to_owned(),
        ];
        match answer {
            Ok(answer) => row.extend([
                answer.check.location.clone(),
                answer.check.version.clone(),
                answer.tables.to_string(),
                answer.position.position.to_string(),
                if answer.position.follows { "yes" } else { "no" }.to_owned(),
                proof(copy, answer, head),
                format!("{:.1} ms", answer.check.round_trip.as_secs_f64() * 1e3),
            ]),
            Err(_) => {
                row.extend([copy.source.location(), "no answer".to_owned()]);
                row.resize(11, String::new());
            }
        }
        table.add_row(row);
    }
    for number in [6, 10] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if copies.is_empty() {
        println!("no sources: the file has no [sources.NAME]");
    } else {
        println!("{table}");
    }
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn print_clock(engine: &Engine) {
    let source = engine.config().time.bounds.name();
    match engine.wall_time() {
        Ok(reading) => println!(
            "clock: {source}, at most {} wrong; a commit waits {}",
            format_duration(reading.error()),
            format_duration(reading.wall.width())
        ),
        Err(error) => println!(
            "clock: {source}, unsynchronised ({}); only commit timestamps need it",
            error.message()
        ),
    }
}
