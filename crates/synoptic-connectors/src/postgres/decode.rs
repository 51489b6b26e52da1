//! Binary values → Arrow arrays, one builder per column. Nothing is allocated per value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, Decimal256Array,
    IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, builder::NullBufferBuilder,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, Date32Type, Field, FieldRef, Float32Type,
    Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, i256,
};

use super::numeric::{NumericError, decimal128, decimal256};
use super::types::Encoding;

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const MICROS_IN_DAY: i64 = 86_400_000_000;
const MAX_DIMENSIONS: usize = 6;

/// Why a value cannot be delivered.
#[derive(Debug)]
pub(super) enum Fault {
    /// The bytes are not what the server sends: a bug, or a broken connection.
    Malformed(&'static str),
    /// The value does not fit the Arrow type: what it is and what to do.
    Value(String),
}

type Outcome<T = ()> = Result<T, Box<Fault>>;

#[cold]
fn malformed<T>(what: &'static str) -> Outcome<T> {
    Err(Box::new(Fault::Malformed(what)))
}

#[cold]
fn misfit<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Fault::Value(message.into())))
}

/// Collects the values of one column for one batch.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    values: Values,
    nulls: NullBufferBuilder,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Decimal128 { values: Vec<i128>, precision: u8, scale: u8, constrained: bool },
    Decimal256 { values: Vec<i256>, precision: u8, scale: u8, constrained: bool },
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp { values: Vec<i64>, utc: bool },
    Interval(Vec<IntervalMonthDayNano>),
    Text(Slices),
    Jsonb(Slices),
    Uuid(Slices),
    Binary(Slices),
    List(Box<Lists>),
}

/// Values of any length, one after the other.
#[derive(Debug)]
struct Slices {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
}

/// Arrays of as many dimensions as there are levels; outermost first.
#[derive(Debug)]
struct Lists {
    levels: Vec<Level>,
    elements: ColumnBuilder,
}

#[derive(Debug)]
struct Level {
    field: FieldRef,
    offsets: Vec<i32>,
}

impl ColumnBuilder {
    /// A builder with room for `rows` values.
    pub fn new(encoding: &Encoding, rows: usize) -> Self {
        let values = match encoding {
            Encoding::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            Encoding::Int2 => Values::Int2(Vec::with_capacity(rows)),
            Encoding::Int4 => Values::Int4(Vec::with_capacity(rows)),
            Encoding::Int8 => Values::Int8(Vec::with_capacity(rows)),
            Encoding::Float4 => Values::Float4(Vec::with_capacity(rows)),
            Encoding::Float8 => Values::Float8(Vec::with_capacity(rows)),
            &Encoding::Numeric { precision, scale, constrained } => {
                if precision <= DECIMAL128_MAX_PRECISION {
                    let values = Vec::with_capacity(rows);
                    Values::Decimal128 { values, precision, scale, constrained }
                } else {
                    let values = Vec::with_capacity(rows);
                    Values::Decimal256 { values, precision, scale, constrained }
                }
            }
            Encoding::Date => Values::Date(Vec::with_capacity(rows)),
            Encoding::Time => Values::Time(Vec::with_capacity(rows)),
            Encoding::Timestamp => {
                Values::Timestamp { values: Vec::with_capacity(rows), utc: false }
            }
            Encoding::TimestampTz => {
                Values::Timestamp { values: Vec::with_capacity(rows), utc: true }
            }
            Encoding::Interval => Values::Interval(Vec::with_capacity(rows)),
            Encoding::Text => Values::Text(Slices::new(rows)),
            Encoding::Jsonb => Values::Jsonb(Slices::new(rows)),
            Encoding::Uuid => Values::Uuid(Slices::new(rows)),
            Encoding::Bytea => Values::Binary(Slices::new(rows)),
            Encoding::Array { element, dimensions } => {
                Values::List(Box::new(Lists::new(element, *dimensions, rows)))
            }
        };
        Self { values, nulls: NullBufferBuilder::new(rows) }
    }

    #[inline]
    pub fn append(&mut self, value: &[u8]) -> Outcome {
        match &mut self.values {
            Values::Int4(values) => values.push(i32::from_be_bytes(fixed(value)?)),
            Values::Decimal128 { values, precision, scale, constrained } => {
                match decimal128(value, *precision, *scale) {
                    Ok(value) => values.push(value),
                    Err(error) => return numeric_fault(error, *precision, *scale, *constrained),
                }
            }
            Values::Text(slices) | Values::Binary(slices) => slices.push(value)?,
            Values::Date(values) => values.push(date(i32::from_be_bytes(fixed(value)?))?),
            Values::Int8(values) => values.push(i64::from_be_bytes(fixed(value)?)),
            Values::Float8(values) => {
                let value = f64::from_be_bytes(fixed(value)?);
                // One NaN for all: Arrow orders floats by their bits, where there are many.
                values.push(if value.is_nan() { f64::NAN } else { value });
            }
            Values::Timestamp { values, .. } => {
                values.push(timestamp(i64::from_be_bytes(fixed(value)?))?);
            }
            Values::Int2(values) => values.push(i16::from_be_bytes(fixed(value)?)),
            Values::Float4(values) => {
                let value = f32::from_be_bytes(fixed(value)?);
                values.push(if value.is_nan() { f32::NAN } else { value });
            }
            Values::Bool(values) => {
                let [byte] = fixed(value)?;
                values.append(byte != 0);
            }
            Values::Time(values) => values.push(time(i64::from_be_bytes(fixed(value)?))?),
            Values::Interval(values) => values.push(interval(fixed(value)?)?),
            Values::Decimal256 { values, precision, scale, constrained } => {
                match decimal256(value, *precision, *scale) {
                    Ok(value) => values.push(value),
                    Err(error) => return numeric_fault(error, *precision, *scale, *constrained),
                }
            }
            Values::Jsonb(slices) => match value.split_first() {
                Some((1, text)) => slices.push(text)?,
                _ => return malformed("a jsonb of another version"),
            },
            Values::Uuid(slices) => slices.push(&uuid(fixed(value)?))?,
            Values::List(lists) => lists.append(value)?,
        }
        self.nulls.append_non_null();
        Ok(())
    }

    #[inline]
    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int2(values) => values.push(0),
            Values::Int4(values) | Values::Date(values) => values.push(0),
            Values::Int8(values) | Values::Time(values) | Values::Timestamp { values, .. } => {
                values.push(0);
            }
            Values::Float4(values) => values.push(0.0),
            Values::Float8(values) => values.push(0.0),
            Values::Decimal128 { values, .. } => values.push(0),
            Values::Decimal256 { values, .. } => values.push(i256::ZERO),
            Values::Interval(values) => values.push(IntervalMonthDayNano::ZERO),
            Values::Text(slices)
            | Values::Jsonb(slices)
            | Values::Uuid(slices)
            | Values::Binary(slices) => slices.push_empty(),
            Values::List(lists) => lists.push_empty(),
        }
        self.nulls.append_null();
    }

    /// The values so far as an array; the builder is empty again, with room for `rows`.
    pub fn finish(&mut self, rows: usize) -> Outcome<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Bool(values) => {
                let values: BooleanBuffer = values.finish();
                Arc::new(BooleanArray::new(values, nulls))
            }
            Values::Int2(values) => primitive::<Int16Type>(values, nulls, rows),
            Values::Int4(values) => primitive::<Int32Type>(values, nulls, rows),
            Values::Int8(values) => primitive::<Int64Type>(values, nulls, rows),
            Values::Float4(values) => primitive::<Float32Type>(values, nulls, rows),
            Values::Float8(values) => primitive::<Float64Type>(values, nulls, rows),
            Values::Date(values) => primitive::<Date32Type>(values, nulls, rows),
            Values::Decimal128 { values, precision, scale, .. } => {
                let array = Decimal128Array::new(take(values, rows), nulls);
                typed(array.with_precision_and_scale(*precision, scale.cast_signed()))?
            }
            Values::Decimal256 { values, precision, scale, .. } => {
                let array = Decimal256Array::new(take(values, rows), nulls);
                typed(array.with_precision_and_scale(*precision, scale.cast_signed()))?
            }
            Values::Time(values) => {
                Arc::new(Time64MicrosecondArray::new(take(values, rows), nulls))
            }
            Values::Timestamp { values, utc } => {
                let array = TimestampMicrosecondArray::new(take(values, rows), nulls);
                Arc::new(if *utc { array.with_timezone("UTC") } else { array })
            }
            Values::Interval(values) => {
                Arc::new(IntervalMonthDayNanoArray::new(take(values, rows), nulls))
            }
            Values::Text(slices) | Values::Jsonb(slices) | Values::Uuid(slices) => {
                let (offsets, bytes) = slices.take(rows);
                // One validation of the whole batch is far cheaper than one per value.
                match StringArray::try_new(offsets, bytes, nulls) {
                    Ok(array) => Arc::new(array),
                    Err(_) => {
                        return misfit(
                            "a value is not valid UTF-8; is the database's encoding SQL_ASCII? \
                             read it as bytea through a view",
                        );
                    }
                }
            }
            Values::Binary(slices) => {
                let (offsets, bytes) = slices.take(rows);
                typed(BinaryArray::try_new(offsets, bytes, nulls))?
            }
            Values::List(lists) => lists.finish(nulls, rows)?,
        })
    }
}

fn take<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>, rows: usize) -> ScalarBuffer<T> {
    snug(std::mem::replace(values, Vec::with_capacity(rows))).into()
}

/// Gives back what a small or uneven batch did not need: whoever keeps it accounts for all of it.
fn snug<T>(mut values: Vec<T>) -> Vec<T> {
    if values.len() < values.capacity() / 4 * 3 {
        values.shrink_to_fit();
    }
    values
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(take(values, rows), nulls))
}

/// Parts that the builders keep consistent; a failure is a bug of theirs.
fn typed<A: arrow::array::Array + 'static>(
    array: Result<A, arrow::error::ArrowError>,
) -> Outcome<ArrayRef> {
    match array {
        Ok(array) => Ok(Arc::new(array)),
        Err(_) => malformed("values that make no array"),
    }
}

#[inline]
fn fixed<const N: usize>(value: &[u8]) -> Outcome<[u8; N]> {
    match value.try_into() {
        Ok(bytes) => Ok(bytes),
        Err(_) => malformed("a value of another length than its type has"),
    }
}

#[inline]
fn date(days: i32) -> Outcome<i32> {
    match days.checked_add(EPOCH_DAYS) {
        Some(days) if days != i32::MIN + EPOCH_DAYS => Ok(days),
        _ => misfit("the date is infinity, which Arrow has not; filter it out, or cast it to text"),
    }
}

#[inline]
fn timestamp(micros: i64) -> Outcome<i64> {
    if matches!(micros, i64::MIN | i64::MAX) {
        return misfit(
            "the timestamp is infinity, which Arrow has not; filter it out, or cast it to text",
        );
    }
    match micros.checked_add(EPOCH_MICROS) {
        Some(micros) => Ok(micros),
        None => misfit(
            "the timestamp is after the year 294246, where 64-bit microseconds end; cast it to text",
        ),
    }
}

#[inline]
fn time(micros: i64) -> Outcome<i64> {
    match micros {
        MICROS_IN_DAY => misfit("the time is 24:00:00, which Arrow has not; cast it to text"),
        0..MICROS_IN_DAY => Ok(micros),
        _ => malformed("a time outside the day"),
    }
}

fn interval(value: [u8; 16]) -> Outcome<IntervalMonthDayNano> {
    let [m0, m1, m2, m3, m4, m5, m6, m7, d0, d1, d2, d3, n0, n1, n2, n3] = value;
    let micros = i64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
    let days = i32::from_be_bytes([d0, d1, d2, d3]);
    let months = i32::from_be_bytes([n0, n1, n2, n3]);
    if matches!((micros, days, months), (i64::MAX, i32::MAX, i32::MAX))
        || matches!((micros, days, months), (i64::MIN, i32::MIN, i32::MIN))
    {
        return misfit("the interval is infinity, which Arrow has not; cast it to text");
    }
    match micros.checked_mul(1000) {
        Some(nanoseconds) => Ok(IntervalMonthDayNano { months, days, nanoseconds }),
        None => misfit(
            "the interval has over 292 years in hours and below, where 64-bit nanoseconds end; \
             cast it to text",
        ),
    }
}

fn uuid(value: [u8; 16]) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in value.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cold]
fn numeric_fault(error: NumericError, precision: u8, scale: u8, constrained: bool) -> Outcome {
    let declare = if constrained {
        "cast it to text, or to a smaller numeric, in a view"
    } else {
        "declare the column as numeric(precision, scale), or cast it in a view"
    };
    match error {
        NumericError::Malformed => malformed("a numeric that is none"),
        NumericError::NaN => {
            misfit(format!("the numeric is NaN, which a decimal cannot be; {declare}"))
        }
        NumericError::Infinity => {
            misfit(format!("the numeric is infinity, which a decimal cannot be; {declare}"))
        }
        NumericError::TooLarge => misfit(format!(
            "the numeric has more than {} digits before the point, which decimal({precision}, \
             {scale}) cannot hold; {declare}",
            precision - scale
        )),
        NumericError::TooFine => misfit(format!(
            "the numeric has more than {scale} digits after the point, which decimal({precision}, \
             {scale}) cannot hold without rounding; {declare}"
        )),
    }
}

impl Slices {
    fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { bytes: Vec::with_capacity(rows * 8), offsets }
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Outcome {
        self.bytes.extend_from_slice(value);
        match i32::try_from(self.bytes.len()) {
            Ok(end) => self.offsets.push(end),
            Err(_) => return misfit("the values of one batch have more than 2 GiB"),
        }
        Ok(())
    }

    #[inline]
    fn push_empty(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
    }

    fn take(&mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer) {
        // The next batch is likely about as large as this one.
        let next = Self {
            bytes: Vec::with_capacity(self.bytes.len() + self.bytes.len() / 16),
            offsets: Vec::with_capacity(rows + 1),
        };
        let done = std::mem::replace(self, next);
        self.offsets.push(0);
        // Ascending from 0: `push` only ever adds.
        (OffsetBuffer::new(snug(done.offsets).into()), Buffer::from_vec(snug(done.bytes)))
    }
}

impl Lists {
    fn new(element: &Encoding, dimensions: usize, rows: usize) -> Self {
        let mut levels = Vec::with_capacity(dimensions);
        let mut item = element.arrow();
        for _ in 0..dimensions {
            let field = Arc::new(Field::new_list_field(item, true));
            item = arrow::datatypes::DataType::List(Arc::clone(&field));
            let mut offsets = Vec::with_capacity(rows + 1);
            offsets.push(0);
            levels.push(Level { field, offsets });
        }
        levels.reverse();
        Self { levels, elements: ColumnBuilder::new(element, rows) }
    }

    fn push_empty(&mut self) {
        if let Some(outermost) = self.levels.first_mut() {
            let end = outermost.offsets.last().copied().unwrap_or(0);
            outermost.offsets.push(end);
        }
    }

    /// `ndim, flags, element oid`, then `length, lower bound` per dimension, then the elements.
    fn append(&mut self, value: &[u8]) -> Outcome {
        let Some((header, mut rest)) = value.split_first_chunk::<12>() else {
            return malformed("an array without a header");
        };
        let dimensions = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if dimensions == 0 {
            self.push_empty();
            return Ok(());
        }
        if dimensions > MAX_DIMENSIONS {
            return malformed("an array of more dimensions than there can be");
        }
        if dimensions != self.levels.len() {
            return misfit(format!(
                "an array has {dimensions} dimensions where the column declares {}; cast it to \
                 text, or declare its dimensions",
                self.levels.len()
            ));
        }
        let mut lists = 1_usize;
        for level in &mut self.levels {
            let Some((bounds, after)) = rest.split_first_chunk::<8>() else {
                return malformed("an array without its bounds");
            };
            rest = after;
            let length = i32::from_be_bytes([bounds[0], bounds[1], bounds[2], bounds[3]]);
            let lower = i32::from_be_bytes([bounds[4], bounds[5], bounds[6], bounds[7]]);
            if lower != 1 {
                return misfit(format!(
                    "an array begins at index {lower} instead of 1, which Arrow cannot say; cast \
                     it to text"
                ));
            }
            // Every element has 4 bytes at least: a length beyond that is none, and no loop.
            let elements = usize::try_from(length).ok().and_then(|n| n.checked_mul(lists));
            let Some(elements) = elements.filter(|n| *n > 0 && *n <= after.len() / 4) else {
                return malformed("an array of another length than it has");
            };
            let mut end = level.offsets.last().copied().unwrap_or(0);
            for _ in 0..lists {
                end = match end.checked_add(length) {
                    Some(end) => end,
                    None => return misfit("the arrays of one batch have over 2^31 elements"),
                };
                level.offsets.push(end);
            }
            lists = elements;
        }
        for _ in 0..lists {
            rest = append_field(&mut self.elements, rest)?;
        }
        if rest.is_empty() { Ok(()) } else { malformed("an array with bytes left over") }
    }

    fn finish(&mut self, nulls: Option<NullBuffer>, rows: usize) -> Outcome<ArrayRef> {
        let mut array = self.elements.finish(rows)?;
        let outermost = self.levels.len() - 1;
        for (i, level) in self.levels.iter_mut().rev().enumerate() {
            let offsets = std::mem::replace(&mut level.offsets, vec![0]);
            let nulls = if i == outermost { nulls.clone() } else { None };
            let field = Arc::clone(&level.field);
            array =
                typed(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), array, nulls))?;
        }
        Ok(array)
    }
}

/// Appends one `length, bytes` field and gives back what follows it.
#[inline]
pub(super) fn append_field<'a>(column: &mut ColumnBuilder, buffer: &'a [u8]) -> Outcome<&'a [u8]> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return malformed("a row that ends early");
    };
    match i32::from_be_bytes(*length) {
        -1 => {
            column.append_null();
            Ok(rest)
        }
        length => {
            let value = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n));
            let Some((value, rest)) = value else {
                return malformed("a value that is longer than its row");
            };
            column.append(value)?;
            Ok(rest)
        }
    }
}
