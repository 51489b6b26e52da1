//! Objects as one array, or one per line. Decimals and 64-bit integers are written exactly; NaN
//! and the infinities, which JSON has no numbers for, are the texts PostgreSQL writes.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited, NullableEncoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, Writer, WriterBuilder};

use super::arrow_error;
use crate::cli_error::Result;

pub(super) enum JsonWriter<W: Write> {
    Array(Writer<W, JsonArray>),
    Lines(Writer<W, LineDelimited>),
}

impl<W: Write> JsonWriter<W> {
    pub(super) fn array(out: W) -> Result<Self> {
        Ok(Self::Array(builder().build(out)))
    }

    pub(super) fn lines(out: W) -> Self {
        Self::Lines(builder().build(out))
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Array(writer) => writer.write(batch),
            Self::Lines(writer) => writer.write(batch),
        }
        .map_err(arrow_error)
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Array(writer) => writer.get_mut().flush(),
            Self::Lines(writer) => writer.get_mut().flush(),
        }
    }

    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Array(mut writer) => {
                writer.finish().map_err(arrow_error)?;
                let mut out = writer.into_inner();
                writeln!(out)?;
                out.flush()?;
            }
            Self::Lines(mut writer) => {
                writer.finish().map_err(arrow_error)?;
                writer.into_inner().flush()?;
            }
        }
        Ok(())
    }
}

fn builder() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Floats))
}

/// Writes floats; arrow's own encoder would make NaN and the infinities null.
#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float32 => Box::new(FloatEncoder(array.as_primitive::<Float32Type>())),
            DataType::Float64 => Box::new(FloatEncoder(array.as_primitive::<Float64Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct FloatEncoder<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T> Encoder for FloatEncoder<'_, T>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64> + serde::Serialize,
{
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let value = self.0.value(index);
        let wide: f64 = value.into();
        let special: &[u8] = match wide {
            _ if wide.is_nan() => b"\"NaN\"",
            f64::INFINITY => b"\"Infinity\"",
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => {
                // In its own width: 0.1_f32 is 0.1 and not 0.10000000149011612.
                if serde_json::to_writer(&mut *out, &value).is_err() {
                    out.extend_from_slice(b"null");
                }
                return;
            }
        };
        out.extend_from_slice(special);
    }
}
