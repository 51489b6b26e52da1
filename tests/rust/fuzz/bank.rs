//! The tables of a world in every place, and the sessions that ask for them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use synoptic_catalog::Host;
use synoptic_engine::{CutPolicy, Engine, EngineConfig, Request, Session};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{ErrorCode, SystemClock};
use tempfile::TempDir;

use super::world::World;
use crate::slt::load;

/// A query that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a query is answered with: rows as texts, or an error's code and text. Plain DataFusion has
/// no codes.
pub type Answer = Result<Vec<String>, (Option<ErrorCode>, String)>;

/// Where the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Postgres,
    Sqlite,
    Files,
}

impl Place {
    fn schema(self) -> &'static str {
        match self {
            Self::Postgres => "pg",
            Self::Sqlite => "lite",
            Self::Files => "file",
        }
    }
}

/// The tables of a world in PostgreSQL, SQLite, Parquet and memory.
pub struct Bank {
    server: Arc<PostgresServer>,
    database: String,
    _files: Vec<TempDir>,
    sessions: Vec<(&'static str, Session)>,
    plain: SessionContext,
}

impl Bank {
    pub async fn open(world: &World) -> Self {
        let server = PostgresServer::shared();
        let database = server.create_database().await;
        let client = server.client(&database).await;
        client.batch_execute(&world.setup()).await.expect("valid SQL");
        let url = [("url", server.url(&database))];
        let (parquet, files) = load::parquet("file", &world.tables);
        let mut sources = vec![load::open("postgres", "pg", &url), files];
        let mut folders = vec![parquet];
        if world.sqlite {
            let (folder, lite) = load::sqlite("lite", &world.tables);
            sources.push(lite);
            folders.push(folder);
        }
        let host = Host::new(sources);
        let session = |name: &'static str, cut, target_partitions, options: &[(&str, &str)]| {
            // Else no small table would be sent keys of joins.
            let read_ahead_rows = if cut == CutPolicy::Always { 0 } else { 100 };
            let config =
                EngineConfig { target_partitions, cut, read_ahead_rows, ..EngineConfig::default() };
            let engine = Engine::new(config, Arc::clone(&host), Arc::new(SystemClock));
            let session = engine.expect("an engine").session("fuzz");
            for (option, value) in options {
                session.set_option(option, value).expect("a valid option");
            }
            (name, session)
        };
        let sessions = vec![
            session("off", CutPolicy::ByCost, 4, &[("pushdown", "none")]),
            session("always", CutPolicy::Always, 2, &[]),
            session("by cost, one partition", CutPolicy::ByCost, 1, &[("dynamic_filters", "off")]),
        ];
        let plain = load::plain(&world.tables);
        Self { server, database, _files: folders, sessions, plain }
    }

    /// What every way to ask answers: `off` first, `plain` last.
    pub async fn answers(&self, sql: &str, places: [Place; 3]) -> Vec<(&'static str, Answer)> {
        let at = |schema: &dyn Fn(usize) -> &'static str| {
            (0..3).fold(sql.to_owned(), |sql, t| {
                sql.replace(&format!("{{t{t}}}"), &format!("{}.t{t}", schema(t)))
            })
        };
        let placed = at(&|t| places[t].schema());
        let mut answers = Vec::new();
        for (name, session) in &self.sessions {
            answers.push((*name, patient(ask(session, placed.clone())).await));
        }
        answers.push(("plain", patient(ask_plain(&self.plain, at(&|_| "src"))).await));
        answers
    }

    /// What is sent to the sources when all goes there that can.
    pub async fn explain(&self, sql: &str, places: [Place; 3]) -> String {
        let placed = (0..3).fold(sql.to_owned(), |sql, t| {
            sql.replace(&format!("{{t{t}}}"), &format!("{}.t{t}", places[t].schema()))
        });
        let (_, always) = &self.sessions[1];
        match ask(always, format!("EXPLAIN {placed}")).await {
            Ok(rows) => rows.join("\n"),
            Err((_, text)) => text,
        }
    }

    /// Gives the database back.
    pub async fn close(self) {
        let Self { server, database, sessions, .. } = self;
        drop(sessions);
        let client = server.client("postgres").await;
        let sql = format!("DROP DATABASE {database} WITH (FORCE)");
        client.batch_execute(&sql).await.expect("it is dropped");
    }
}

async fn patient(answer: impl Future<Output = Answer>) -> Answer {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err((None, format!("no answer within {PATIENCE:?}"))),
    }
}

async fn ask(session: &Session, sql: String) -> Answer {
    let failed = |error: synoptic_engine::Error| (Some(error.code()), error.to_string());
    let request = Request { sql, ..Request::default() };
    let stream = session.plan(request).await.and_then(|query| query.run()).map_err(failed)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
    Ok(rows(&batches))
}

async fn ask_plain(context: &SessionContext, sql: String) -> Answer {
    let failed = |error: datafusion::error::DataFusionError| (None, error.to_string());
    let frame = context.sql(&sql).await.map_err(failed)?;
    Ok(rows(&frame.collect().await.map_err(failed)?))
}

/// Rows as texts that differ when the values do.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(texts).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = columns.iter().map(|column| column[row].as_str()).collect();
            rows.push(cells.join(" | "));
        }
    }
    rows
}

fn texts(array: &ArrayRef) -> Vec<String> {
    let array = match array.data_type() {
        DataType::Dictionary(_, values) => &cast(array, values).expect("its own values"),
        _ => array,
    };
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options).expect("printable");
    let text = |row| match array.data_type() {
        _ if array.is_null(row) => "NULL".to_owned(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            format!("{:?}", formatter.value(row).to_string())
        }
        _ => formatter.value(row).to_string(),
    };
    (0..array.len()).map(text).collect()
}
