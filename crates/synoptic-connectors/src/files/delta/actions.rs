//! What stands in a log: one action a line in a commit, one a row in a checkpoint.

use std::collections::HashMap;
use std::io::{BufRead as _, Cursor};

use arrow::array::RecordBatch;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use bytes::Bytes;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One action. Kinds that change nothing of what is read are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    pub add: Option<Add>,
    pub remove: Option<Remove>,
    pub meta_data: Option<Metadata>,
    pub protocol: Option<Protocol>,
    pub commit_info: Option<Value>,
    /// In a checkpoint: more actions stand in another file.
    pub sidecar: Option<IgnoredAny>,
}

/// A data file that belongs to the table from now on.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    pub path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub partition_values: HashMap<String, Option<String>>,
    pub size: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub modification_time: i64,
    pub deletion_vector: Option<DeletionVector>,
}

/// A data file that does not belong to it any more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    pub deletion_vector: Option<DeletionVector>,
}

/// Rows of a file that are deleted. We refuse it, but it is a part of the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionVector {
    storage_type: String,
    path_or_inline_dv: String,
    offset: Option<i64>,
}

/// The table's identity and columns.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    pub format: Option<Provider>,
    pub schema_string: String,
    #[serde(default, deserialize_with = "or_default")]
    pub partition_columns: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub configuration: HashMap<String, Option<String>>,
}

/// What its data files are.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Provider {
    pub provider: String,
}

/// What a reader must know.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i64,
    pub reader_features: Option<Vec<String>>,
}

/// Rows of a checkpoint say NULL where a line of a commit says nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The actions of a commit.
///
/// # Errors
/// With the line that is none.
pub fn of_commit(bytes: &[u8]) -> Result<Vec<Action>, String> {
    let mut actions = Vec::new();
    for (number, line) in Cursor::new(bytes).split(b'\n').enumerate() {
        let line = line.map_err(|error| error.to_string())?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let action = serde_json::from_slice(&line)
            .map_err(|error| format!("line {} is no action: {error}", number + 1))?;
        actions.push(action);
    }
    Ok(actions)
}

/// The actions of a checkpoint, or of one part of it, that say what the table is. Removed files
/// are not in it.
///
/// # Errors
/// When it is no Parquet file of actions.
pub fn of_checkpoint(bytes: Bytes) -> Result<Vec<Action>, String> {
    const COLUMNS: [&str; 8] = [
        "add.path",
        "add.partitionValues",
        "add.size",
        "add.modificationTime",
        "add.deletionVector",
        "metaData",
        "protocol",
        "sidecar",
    ];
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| text(&e))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    let reader = builder.with_projection(mask).build().map_err(|e| text(&e))?;
    let mut actions = Vec::new();
    for batch in reader {
        of_rows(&batch.map_err(|e| text(&e))?, &mut actions)?;
    }
    Ok(actions)
}

/// A row has the very shape of a commit's line.
fn of_rows(batch: &RecordBatch, actions: &mut Vec<Action>) -> Result<(), String> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
    actions.extend(of_commit(&writer.into_inner())?);
    Ok(())
}
