//! Who answers: an engine in this process, or a server.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use synoptic_engine::{Engine, QueryStream, Request, Session};
use synoptic_flight::client::{self, Client};

use crate::cli::{SqlArgs, sql_config};
use crate::cli_error::Result;
use crate::compose::compose;

use super::progress::RowsRead;

/// Runs statements one after another, in one session.
pub(super) enum Backend {
    /// The engine is here.
    Embedded(Session),
    /// The engine is at `url`.
    Remote { client: Client, url: String },
}

/// A table by its full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TableRef {
    pub(super) catalog: String,
    pub(super) schema: String,
    pub(super) name: String,
}

/// The answer to a statement, batch by batch. Dropping it cancels the statement.
pub(super) enum Answer {
    Embedded(QueryStream),
    Remote { answer: client::Answer, rows: u64 },
}

impl Backend {
    /// Waits until what was cancelled has ended at the sources, so that the process may end.
    pub(super) async fn settle(&self) {
        if let Self::Embedded(session) = self {
            session.engine().settle().await;
        }
    }

    /// Makes the engine, or connects to the server.
    pub(super) async fn open(args: &SqlArgs) -> Result<Self> {
        if let Some(url) = &args.url {
            let client = Client::connect(url).await?;
            return Ok(Self::Remote { client, url: url.clone() });
        }
        let config = sql_config(args.config.as_deref())?;
        Ok(Self::Embedded(compose(&config)?.session("synoptic sql")))
    }

    /// Runs one statement.
    pub(super) async fn run(&self, sql: &str) -> Result<Answer> {
        Ok(match self {
            Self::Embedded(session) => {
                let request = Request { sql: sql.to_owned(), ..Request::default() };
                Answer::Embedded(session.plan(request).await?.run()?)
            }
            Self::Remote { client, .. } => {
                Answer::Remote { answer: client.query(sql, &[]).await?, rows: 0 }
            }
        })
    }

    /// Every table there is.
    pub(super) async fn tables(&self) -> Result<Vec<TableRef>> {
        Ok(match self {
            Self::Embedded(session) => {
                let tables = session.engine().tables().await.into_iter();
                tables
                    .map(|t| TableRef { catalog: t.catalog, schema: t.schema, name: t.name })
                    .collect()
            }
            Self::Remote { client, .. } => {
                let tables = client.tables().await?.into_iter();
                tables
                    .map(|t| TableRef { catalog: t.catalog, schema: t.schema, name: t.name })
                    .collect()
            }
        })
    }

    /// The columns of a table, none when there is no such table.
    pub(super) async fn columns(&self, table: &TableRef) -> Result<Vec<String>> {
        match self {
            Self::Embedded(session) => embedded_columns(session.engine(), table).await,
            Self::Remote { client, .. } => remote_columns(client, table).await,
        }
    }

    /// What the prompt says first.
    pub(super) fn greeting(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        match self {
            Self::Remote { url, .. } => format!("synoptic {version}, connected to {url}"),
            Self::Embedded(session) => {
                let catalogs = session.engine().catalogs();
                let sources: Vec<_> =
                    catalogs.iter().map(String::as_str).filter(|c| *c != "synoptic").collect();
                if sources.is_empty() {
                    format!("synoptic {version}, no sources: there is no synoptic.toml here")
                } else {
                    format!("synoptic {version}, sources {}", sources.join(", "))
                }
            }
        }
    }
}

async fn embedded_columns(engine: &Arc<Engine>, table: &TableRef) -> Result<Vec<String>> {
    let entries = engine.tables().await;
    let entry = entries.iter().find(|entry| {
        entry.catalog == table.catalog && entry.schema == table.schema && entry.name == table.name
    });
    match entry {
        Some(entry) => {
            let schema = entry.columns().await?;
            Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
        }
        None => Ok(Vec::new()),
    }
}

async fn remote_columns(client: &Client, table: &TableRef) -> Result<Vec<String>> {
    let text = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let sql = format!(
        "SELECT column_name FROM information_schema.columns WHERE table_catalog = {} \
         AND table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        text(&table.catalog),
        text(&table.schema),
        text(&table.name)
    );
    let batches: Vec<RecordBatch> = client.query(&sql, &[]).await?.try_collect().await?;
    let columns = batches.iter().filter_map(|batch| batch.column(0).as_string_opt::<i32>());
    Ok(columns.flat_map(|column| column.iter().flatten().map(str::to_owned)).collect())
}

impl Answer {
    /// The columns.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Embedded(stream) => stream.schema(),
            Self::Remote { answer, .. } => answer.schema(),
        }
    }

    /// The next batch. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::Embedded(stream) => Some(stream.next().await?.map_err(Into::into)),
            Self::Remote { answer, rows } => {
                let batch = answer.next().await?;
                if let Ok(batch) = &batch {
                    *rows += batch.num_rows() as u64;
                }
                Some(batch.map_err(Into::into))
            }
        }
    }

    /// Rows read so far: at each source, or from the server, which says no more meanwhile.
    pub(super) fn progress(&self) -> Vec<RowsRead> {
        match self {
            Self::Embedded(stream) => {
                // A table that is read twice is one place.
                let mut read: Vec<RowsRead> = Vec::new();
                for scan in stream.receipt().scans {
                    let place = format!("{}.{}", scan.source, scan.table);
                    match read.iter_mut().find(|read| read.place == place) {
                        Some(read) => read.rows += scan.rows,
                        None => read.push(RowsRead { place, rows: scan.rows }),
                    }
                }
                read
            }
            Self::Remote { rows, .. } => {
                vec![RowsRead { place: "received".to_owned(), rows: *rows }]
            }
        }
    }

    /// The JSON of the contract; final once the answer has ended.
    pub(super) fn receipt(&self) -> Option<Value> {
        match self {
            Self::Embedded(stream) => serde_json::to_value(stream.receipt()).ok(),
            Self::Remote { answer, .. } => answer.receipt().cloned(),
        }
    }
}
