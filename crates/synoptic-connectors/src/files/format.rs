//! The four formats, and how a name tells them.

use std::fmt;

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

/// How the bytes of an object become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Text with delimiters.
    Csv,
    /// Lines of JSON objects, or one array of them.
    Json,
    /// Arrow IPC, file or stream.
    Arrow,
}

impl Format {
    /// The format and compression a file name tells, if any.
    pub fn of_name(name: &str) -> Option<(Self, FileCompressionType)> {
        let name = name.to_ascii_lowercase();
        let (stem, compression) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, FileCompressionType::GZIP),
            Some((stem, "bz2")) => (stem, FileCompressionType::BZIP2),
            Some((stem, "xz")) => (stem, FileCompressionType::XZ),
            Some((stem, "zst")) => (stem, FileCompressionType::ZSTD),
            _ => (name.as_str(), FileCompressionType::UNCOMPRESSED),
        };
        let (base, extension) = stem.rsplit_once('.')?;
        if base.is_empty() {
            return None;
        }
        let format = match extension {
            "parquet" | "parq" | "pq" => Self::Parquet,
            "csv" | "tsv" => Self::Csv,
            "json" | "ndjson" | "jsonl" => Self::Json,
            "arrow" | "arrows" | "ipc" | "feather" => Self::Arrow,
            _ => return None,
        };
        // Parquet and Arrow compress inside; a compressed one is not a file they can be read from.
        let whole = matches!(format, Self::Parquet | Self::Arrow) && compression.is_compressed();
        (!whole).then_some((format, compression))
    }

    /// The compression of a file that is known to have this format.
    pub fn compression(self, name: &str) -> FileCompressionType {
        match (self, Self::of_name(name)) {
            (Self::Csv | Self::Json, Some((_, compression))) => compression,
            _ => FileCompressionType::UNCOMPRESSED,
        }
    }

    /// A table's name for a file: the name without its known extensions.
    pub fn stem(name: &str) -> &str {
        let Some((_, compression)) = Self::of_name(name) else { return name };
        let name = if compression.is_compressed() {
            name.rsplit_once('.').map_or(name, |(stem, _)| stem)
        } else {
            name
        };
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
