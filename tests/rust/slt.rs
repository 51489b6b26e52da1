//! `tests/slt/*.slt`, each through every connector with pushdown and without, and through plain
//! DataFusion over the same rows: one file of expectations for all, so all answers are equal.
//!
//! `$src.` in a file stands for the source. `skipif` and `onlyif` know the labels `plain`,
//! `postgres`, `sqlite`, `files`, `auto` and `none`; they are only for types a source does not have.
//!
//! `SYNOPTIC_SLT_COMPLETE=1 ./tests/run slt plain` writes what plain DataFusion answers into the
//! files; read the difference before it is committed.

mod format;
pub(crate) mod load;
pub(crate) mod tables;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator};
use synoptic_catalog::Host;
use synoptic_engine::{CutPolicy, Engine, EngineConfig, Request, Session};
use synoptic_source::Source;
use synoptic_types::SystemClock;

#[tokio::test(flavor = "multi_thread")]
async fn plain() {
    let context = load::plain(&tables::all());
    if std::env::var_os("SYNOPTIC_SLT_COMPLETE").is_some() {
        return complete(&context).await;
    }
    check(&[("plain", "")], |_| Database::Plain(context.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let (_server, source) = load::postgres(&tables::all()).await;
    check_source("postgres", source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let (_folder, source) = load::sqlite("src", &tables::all());
    check_source("sqlite", source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let (_folder, source) = load::parquet("src", &tables::all());
    check_source("files", source).await;
}

async fn check_source(name: &str, source: Arc<dyn Source>) {
    // The tables are tiny: by cost hardly an operator would be left to their source.
    for (cut, pushdowns) in [
        (CutPolicy::Always, vec![(name, "auto")]),
        (CutPolicy::ByCost, vec![(name, "auto"), (name, "none")]),
    ] {
        // Else no small table would be sent keys of joins.
        let read_ahead_rows = if cut == CutPolicy::Always { 0 } else { 100 };
        let config =
            EngineConfig { target_partitions: 2, cut, read_ahead_rows, ..EngineConfig::default() };
        let host = Host::new(vec![Arc::clone(&source)]);
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        check(&pushdowns, |pushdown| {
            let session = engine.session("slt");
            session.set_option("pushdown", pushdown).expect("a valid option");
            Database::Engine(session)
        })
        .await;
    }
}

/// Runs every file once per (source, pushdown) and fails with everything that differs.
async fn check(runs: &[(&str, &str)], database: impl Fn(&str) -> Database) {
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (source, pushdown) in runs {
        for file in script_files() {
            let mut runner = Runner::new(|| {
                let database = database(pushdown);
                async { Ok(database) }
            });
            for label in [source, pushdown] {
                runner.add_label(label);
            }
            let records =
                sqllogictest::parse_file::<DefaultColumnType>(&file).expect("well-formed");
            for record in records {
                asked += 1;
                if let Err(error) = runner.run_async(record).await {
                    wrong.push(format!("{source} {pushdown}: {}", error.display(false)));
                }
            }
        }
    }
    assert!(asked > 400, "only {asked} records were found");
    assert!(wrong.is_empty(), "{} differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

async fn complete(context: &SessionContext) {
    for file in script_files() {
        let mut runner = Runner::new(|| async { Ok(Database::Plain(context.clone())) });
        runner.add_label("plain");
        let written = runner.update_test_file(
            &file,
            " ",
            sqllogictest::default_validator,
            sqllogictest::default_normalizer,
            default_column_validator,
        );
        written.await.expect("the file can be written");
    }
}

/// The `.slt` files, sorted by name.
fn script_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let entries = std::fs::read_dir(&folder).expect("tests/slt exists");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "slt")).collect();
    files.sort();
    assert!(files.len() >= 15, "only {} files in {}", files.len(), folder.display());
    files
}

/// What answers the statements of a file.
enum Database {
    /// DataFusion over tables in memory, in the schema `src`.
    Plain(SessionContext),
    /// The engine over one source named `src`.
    Engine(Session),
}

#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let sql = sql.replace("$src.", "src.");
        let batches = match self {
            Self::Plain(context) => {
                let frame = context.sql(&sql).await.map_err(failed)?;
                frame.collect().await.map_err(failed)?
            }
            Self::Engine(session) => {
                let query = session.plan(Request { sql, ..Request::default() }).await;
                let stream = query.and_then(|query| query.run()).map_err(failed)?;
                stream.try_collect().await.map_err(failed)?
            }
        };
        let columns = batches.first().map_or(1, |batch| batch.num_columns());
        let rows = format::rows(&batches).map_err(failed)?;
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows })
    }

    async fn shutdown(&mut self) {}
}

/// The first line is enough, and is all that a file can hold.
fn failed(error: impl fmt::Display) -> Failed {
    Failed(error.to_string().lines().next().unwrap_or_default().to_owned())
}
