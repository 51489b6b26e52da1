//! Options: declared → checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use object_store::path::Path;
use serde::Deserialize;
use serde_json::Value;

use super::format::Format;
use super::location::Location;
use crate::options::{Declared, OptionsError};

/// How many objects of a table are opened to learn its columns and statistics.
const SCHEMA_FILES: usize = 1000;
/// How many rows of a CSV or JSON file are read to guess its types.
const INFER_ROWS: usize = 1000;

/// What the configuration says of the files: a format, or that the table keeps a log.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DeclaredFormat {
    Parquet,
    Csv,
    Json,
    Arrow,
    Delta,
}

impl DeclaredFormat {
    fn of_files(self) -> Format {
        match self {
            Self::Parquet | Self::Delta => Format::Parquet,
            Self::Csv => Format::Csv,
            Self::Json => Format::Json,
            Self::Arrow => Format::Arrow,
        }
    }

    fn is_delta(self) -> bool {
        matches!(self, Self::Delta)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredFiles {
    location: String,
    format: Option<DeclaredFormat>,
    #[serde(default)]
    tables: BTreeMap<String, DeclaredTable>,
    #[serde(default)]
    storage: BTreeMap<String, Value>,
    position_file: Option<String>,
    schema_files: Option<usize>,
    infer_rows: Option<usize>,
    header: Option<bool>,
    delimiter: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    comment: Option<String>,
    null_value: Option<String>,
    newlines_in_values: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTable {
    path: Option<String>,
    format: Option<DeclaredFormat>,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    partition_types: BTreeMap<String, String>,
    #[serde(default)]
    schema: BTreeMap<String, String>,
    header: Option<bool>,
    delimiter: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    comment: Option<String>,
    null_value: Option<String>,
    newlines_in_values: Option<bool>,
}

/// How CSV is spelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// The first line has the names. Default true.
    pub header: bool,
    /// Default `,`, and a tab in `.tsv` files.
    pub delimiter: Option<u8>,
    /// Default `"`.
    pub quote: u8,
    /// None by default: a quote in a quoted field is doubled.
    pub escape: Option<u8>,
    /// Lines that begin with it are skipped. None by default.
    pub comment: Option<u8>,
    /// A text that is NULL, besides the empty field, which always is.
    pub null_value: Option<String>,
    /// Quoted fields may hold line ends. Default true; `false` lets one big file be read in
    /// several partitions.
    pub newlines_in_values: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            header: true,
            delimiter: None,
            quote: b'"',
            escape: None,
            comment: None,
            null_value: None,
            newlines_in_values: true,
        }
    }
}

/// One table of `tables`, or the defaults for tables that are found.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// When not given, extensions tell.
    pub format: Option<Format>,
    /// They are Delta tables; when nothing is said of the format either, their logs tell.
    pub delta: bool,
    /// Partition columns, outermost folder first; empty when `key=value` folders tell.
    pub partitions: Vec<String>,
    /// Types of partition columns that are not to be guessed.
    pub partition_types: BTreeMap<String, DataType>,
    /// Types of columns that are not to be guessed.
    pub schema: BTreeMap<String, DataType>,
    /// How CSV is spelled.
    pub csv: CsvOptions,
}

/// A table the configuration names.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// Its name.
    pub name: String,
    /// A file, folder or glob, relative to the location.
    pub path: String,
    /// How it is read.
    pub read: ReadOptions,
}

/// Everything a source needs, checked.
#[derive(Debug)]
pub struct Options {
    /// Where the files are.
    pub location: Arc<Location>,
    /// The tables that are named; when empty, folders and files are tables.
    pub tables: Vec<TableOptions>,
    /// How tables that are not named are read.
    pub read: ReadOptions,
    /// Where an exporter writes at which position of another source the files are.
    pub position_file: Option<Path>,
    /// How many objects of a table are opened to learn its columns and statistics.
    pub schema_files: usize,
    /// How many rows of a CSV or JSON file are read to guess its types.
    pub infer_rows: usize,
}

/// Checks what the configuration declares. Reads environment variables, does no I/O.
pub fn check(declared: &Declared) -> Result<Options, OptionsError> {
    let files: DeclaredFiles = declared.parse()?;
    let location = Location::new(&files.location, &declared.base_dir, &files.storage)?;
    let csv = csv(
        &[],
        &CsvOptions::default(),
        files.header,
        [&files.delimiter, &files.quote, &files.escape, &files.comment],
        &files.null_value,
        files.newlines_in_values,
    )?;
    let positive = |key: &str, value: Option<usize>, default: usize| match value {
        Some(0) => Err(OptionsError::at(&[key], "must be at least 1")),
        other => Ok(other.unwrap_or(default)),
    };
    let read = ReadOptions {
        format: files.format.map(DeclaredFormat::of_files),
        delta: files.format.is_some_and(DeclaredFormat::is_delta),
        csv,
        ..ReadOptions::default()
    };
    let mut tables = Vec::with_capacity(files.tables.len());
    for (name, table) in files.tables {
        tables.push(check_table(name, table, &read)?);
    }
    let position_file = match &files.position_file {
        None => None,
        Some(path) => Some(check_position_file(path, &location)?),
    };
    Ok(Options {
        location: Arc::new(location),
        position_file,
        tables,
        read,
        schema_files: positive("schema_files", files.schema_files, SCHEMA_FILES)?,
        infer_rows: positive("infer_rows", files.infer_rows, INFER_ROWS)?,
    })
}

fn check_position_file(path: &str, location: &Location) -> Result<Path, OptionsError> {
    let at = |message: String| OptionsError::at(&["position_file"], message);
    if path.starts_with('/') || path.contains("://") || path.split('/').any(|s| s == "..") {
        return Err(at(format!(
            "'{path}' must lie below the source's location: write it relative to that"
        )));
    }
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let whole = parts.fold(location.root.clone(), |whole, part| whole.join(part));
    if !path.rsplit('/').next().is_some_and(super::layout::is_hidden) {
        return Err(at(format!(
            "'{path}' could be taken for data: let the file's name begin with '_', as in \
             '_position.json'"
        )));
    }
    Ok(whole)
}

fn check_table(
    name: String,
    table: DeclaredTable,
    defaults: &ReadOptions,
) -> Result<TableOptions, OptionsError> {
    let types = |key: &str, declared: &BTreeMap<String, String>| {
        declared
            .iter()
            .map(|(column, text)| {
                let data_type = parse_type(text).map_err(|message| {
                    OptionsError::at(&["tables", &name, key, column], message)
                })?;
                Ok((column.clone(), data_type))
            })
            .collect::<Result<BTreeMap<_, _>, OptionsError>>()
    };
    let path = table.path.unwrap_or_else(|| name.clone());
    if path.starts_with('/') || path.contains("://") || path.split('/').any(|s| s == "..") {
        return Err(OptionsError::at(
            &["tables", &name, "path"],
            format!("'{path}' must lie below the source's location: write it relative to that"),
        ));
    }
    if super::layout::is_glob(&path)
        && let Err(error) = glob::Pattern::new(&path)
    {
        return Err(OptionsError::at(
            &["tables", &name, "path"],
            format!("'{path}' is not a glob: {}", error.msg),
        ));
    }
    let delta = table.format.map_or(defaults.delta, DeclaredFormat::is_delta);
    let told = [
        ("partitions", !table.partitions.is_empty()),
        ("partition_types", !table.partition_types.is_empty()),
    ];
    if let Some((key, _)) = told.into_iter().find(|(_, given)| delta && *given) {
        return Err(OptionsError::at(
            &["tables", &name, key],
            "means nothing for a Delta table, whose log has its partitions: remove it",
        ));
    }
    if delta && super::layout::is_glob(&path) {
        return Err(OptionsError::at(
            &["tables", &name, "path"],
            format!("'{path}': a Delta table is one folder, not a pattern"),
        ));
    }
    let read = ReadOptions {
        format: table.format.map(DeclaredFormat::of_files).or(defaults.format),
        delta,
        partition_types: types("partition_types", &table.partition_types)?,
        schema: types("schema", &table.schema)?,
        partitions: table.partitions,
        csv: csv(
            &["tables", &name],
            &defaults.csv,
            table.header,
            [&table.delimiter, &table.quote, &table.escape, &table.comment],
            &table.null_value,
            table.newlines_in_values,
        )?,
    };
    Ok(TableOptions { name, path, read })
}

fn csv(
    at: &[&str],
    defaults: &CsvOptions,
    header: Option<bool>,
    [delimiter, quote, escape, comment]: [&Option<String>; 4],
    null_value: &Option<String>,
    newlines_in_values: Option<bool>,
) -> Result<CsvOptions, OptionsError> {
    let byte = |key: &str, text: &Option<String>| match text.as_deref().map(str::as_bytes) {
        None => Ok(None),
        Some([byte]) => Ok(Some(*byte)),
        Some(_) => {
            let path: Vec<&str> = at.iter().copied().chain([key]).collect();
            Err(OptionsError::at(&path, "must be one ASCII character, for example \";\""))
        }
    };
    Ok(CsvOptions {
        header: header.unwrap_or(defaults.header),
        delimiter: byte("delimiter", delimiter)?.or(defaults.delimiter),
        quote: byte("quote", quote)?.unwrap_or(defaults.quote),
        escape: byte("escape", escape)?.or(defaults.escape),
        comment: byte("comment", comment)?.or(defaults.comment),
        null_value: null_value.clone().or_else(|| defaults.null_value.clone()),
        newlines_in_values: newlines_in_values.unwrap_or(defaults.newlines_in_values),
    })
}

/// A column type as people write it in SQL.
pub fn parse_type(text: &str) -> Result<DataType, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (name, arguments) = match lower.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.trim_end().strip_suffix(')')),
        None => (lower.as_str(), None),
    };
    let micros =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    if matches!(name, "decimal" | "numeric") {
        let numbers = arguments.and_then(|text| {
            let (precision, scale) = text.split_once(',').unwrap_or((text, "0"));
            Some((precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?))
        });
        return match numbers {
            Some((p @ 1..=38, s)) if s >= 0 && s as u8 <= p => Ok(DataType::Decimal128(p, s)),
            Some((p @ 39..=76, s)) if s >= 0 && s as u8 <= p => Ok(DataType::Decimal256(p, s)),
            _ => Err(format!("'{text}' needs a precision of 1 to 76 and a scale: decimal(18, 4)")),
        };
    }
    if lower.contains('(') {
        return Err(format!("'{text}' is not a type: only decimal takes arguments"));
    }
    Ok(match name {
        "bool" | "boolean" => DataType::Boolean,
        "tinyint" | "int8" => DataType::Int8,
        "smallint" | "int16" => DataType::Int16,
        "int" | "integer" | "int32" => DataType::Int32,
        "bigint" | "int64" => DataType::Int64,
        "real" | "float32" => DataType::Float32,
        "double" | "double precision" | "float" | "float64" => DataType::Float64,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => micros(None),
        "timestamptz" | "timestamp with time zone" => micros(Some("UTC")),
        "text" | "varchar" | "string" => DataType::Utf8,
        _ => {
            return Err(format!(
                "'{text}' is not a type: write boolean, tinyint, smallint, int, bigint, real, \
                 double, decimal(p, s), date, time, timestamp, timestamptz or text"
            ));
        }
    })
}
