//! The price history of the demo: one Parquet file per share, sorted by day. The share itself is in
//! the folder's name (`symbol=IBM`), as data lakes have it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Field, Schema};
use arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

use super::raw::{ADJUSTED_SCALE, Bar, PRICE_SCALE};
use crate::cli_error::{CliError, Result};

/// Rows per row group, about four years, and per page, about a quarter: small, so that a question
/// about a few days reads little.
const ROW_GROUP_ROWS: usize = 1024;
const PAGE_ROWS: usize = 64;

/// Writes the bars of one share to the new file `path`. `bars` are sorted by day.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, bars: &[Bar]) -> Result<()> {
    try_write(path, bars)
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))
}

fn try_write(path: &Path, bars: &[Bar]) -> Result<(), ParquetError> {
    let batch = batch(bars)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        // Pages end where written pieces end.
        .set_write_batch_size(PAGE_ROWS)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close().map(|_| ())
}

fn batch(bars: &[Bar]) -> Result<RecordBatch, ArrowError> {
    let price = DataType::Decimal128(18, PRICE_SCALE as i8);
    let adjusted = DataType::Decimal128(24, ADJUSTED_SCALE as i8);
    let schema = Schema::new(vec![
        Field::new("trading_day", DataType::Date32, false),
        Field::new("open", price.clone(), false),
        Field::new("high", price.clone(), false),
        Field::new("low", price.clone(), false),
        Field::new("close", price.clone(), false),
        Field::new("volume", DataType::Int64, false),
        Field::new("adjusted_close", adjusted.clone(), false),
    ]);
    let decimals = |data_type: &DataType, value: fn(&Bar) -> i128| -> ArrayRef {
        let values = Decimal128Array::from_iter_values(bars.iter().map(value));
        Arc::new(values.with_data_type(data_type.clone()))
    };
    let days = bars.iter().map(|bar| Date32Type::from_naive_date(bar.day));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from_iter_values(days)),
        decimals(&price, |bar| bar.open),
        decimals(&price, |bar| bar.high),
        decimals(&price, |bar| bar.low),
        decimals(&price, |bar| bar.close),
        Arc::new(Int64Array::from_iter_values(bars.iter().map(|bar| bar.volume))),
        decimals(&adjusted, |bar| bar.adjusted_close),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}
