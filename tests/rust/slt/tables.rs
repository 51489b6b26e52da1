//! The tables behind the `.slt` files: `tests/slt/data/NAME.tsv`.
//!
//! The first line has each column's name and PostgreSQL type; `\N` is NULL. PostgreSQL reads the
//! texts itself; for the other sources they become Arrow arrays here.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int64Builder, ListBuilder, RecordBatch,
    StringArray, StringBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

/// One table: its columns and its rows as texts.
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// A column as PostgreSQL declares it.
pub struct Column {
    pub name: String,
    pub kind: String,
    pub not_null: bool,
}

/// Every table, sorted by name.
pub fn all() -> Vec<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt/data");
    let entries = std::fs::read_dir(&folder).expect("tests/slt/data exists");
    let mut tables: Vec<_> =
        entries.map(|entry| Table::read(&entry.expect("readable").path())).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

impl Table {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("UTF-8");
        let mut lines = text.lines().map(|line| line.split('\t'));
        let columns: Vec<_> = lines.next().expect("a header").map(Column::parse).collect();
        let value = |cell: &str| (cell != "\\N").then(|| cell.to_owned());
        let rows: Vec<Vec<_>> = lines.map(|cells| cells.map(value).collect()).collect();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(rows.iter().all(|row| row.len() == columns.len()), "{name}: a ragged row");
        Self { name, columns, rows }
    }

    /// Whether SQLite has a place for every type and value.
    pub fn fits_sqlite(&self) -> bool {
        self.name != "floats" && !self.columns.iter().any(|column| column.kind.ends_with("[]"))
    }

    /// The rows as Arrow.
    pub fn batch(&self) -> RecordBatch {
        let field = |c: &Column| Field::new(&c.name, c.data_type(), !c.not_null);
        let schema = Schema::new(self.columns.iter().map(field).collect::<Vec<_>>());
        let array = |(at, column): (usize, &Column)| {
            column.array(&self.rows.iter().map(|row| row[at].as_deref()).collect::<Vec<_>>())
        };
        let arrays = self.columns.iter().enumerate().map(array).collect();
        RecordBatch::try_new(Arc::new(schema), arrays).expect("the data fits its types")
    }
}

impl Column {
    /// `name type`, and `not null` at the end; a name may have spaces, which no type here has first.
    fn parse(text: &str) -> Self {
        let (text, not_null) = match text.strip_suffix(" not null") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (name, kind) = match text.strip_suffix(" double precision") {
            Some(name) => (name, "double precision"),
            None => text.rsplit_once(' ').expect("a name and a type"),
        };
        Self { name: name.to_owned(), kind: kind.to_owned(), not_null }
    }

    /// Precision and scale of a `numeric(p,s)`.
    pub fn decimal(&self) -> Option<(u8, i8)> {
        let inner = self.kind.strip_prefix("numeric(")?.strip_suffix(')')?;
        let (precision, scale) = inner.split_once(',')?;
        Some((precision.parse().ok()?, scale.parse().ok()?))
    }

    fn data_type(&self) -> DataType {
        if let Some((precision, scale)) = self.decimal() {
            return DataType::Decimal128(precision, scale);
        }
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        match self.kind.as_str() {
            "boolean" => DataType::Boolean,
            "smallint" => DataType::Int16,
            "integer" => DataType::Int32,
            "bigint" => DataType::Int64,
            "real" => DataType::Float32,
            "double precision" => DataType::Float64,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "bytea" => DataType::Binary,
            "bigint[]" => list(DataType::Int64),
            "text[]" => list(DataType::Utf8),
            text if text == "text" || text.contains("char(") => DataType::Utf8,
            other => panic!("no such type in the tests: {other}"),
        }
    }

    fn array(&self, cells: &[Option<&str>]) -> ArrayRef {
        match self.kind.as_str() {
            // Rust's parser knows Infinity and NaN.
            "real" => Arc::new(cells.iter().map(|c| c.map(number)).collect::<Float32Array>()),
            "double precision" => {
                Arc::new(cells.iter().map(|c| c.map(number)).collect::<Float64Array>())
            }
            "bytea" => Arc::new(cells.iter().map(|c| c.map(bytes)).collect::<BinaryArray>()),
            "bigint[]" => {
                let mut list = ListBuilder::new(Int64Builder::new());
                for cell in cells {
                    list.append_option(cell.map(|c| elements(c).map(|e| e.map(number))));
                }
                Arc::new(list.finish())
            }
            "text[]" => {
                let mut list = ListBuilder::new(StringBuilder::new());
                for cell in cells {
                    list.append_option(cell.map(elements));
                }
                Arc::new(list.finish())
            }
            _ => {
                let texts = StringArray::from(cells.to_vec());
                let strict = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(&texts, &self.data_type(), &strict).expect("a valid text")
            }
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a number")
}

/// The bytes of a text of hexadecimal digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

/// The elements of `{a,NULL,b}`.
fn elements(text: &str) -> impl Iterator<Item = Option<&str>> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).expect("an array");
    let parts = inner.split(',').filter(move |_| !inner.is_empty());
    parts.map(|part| (part != "NULL").then_some(part))
}
