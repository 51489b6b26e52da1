//! Compression around whole text files.
//!
//! A compressed file is any number of streams one after the other: `cat a.bz2 b.bz2`, the blocks of
//! pbzip2, pigz, pixz and pzstd. DataFusion's readers stop after the first one for all but gzip, so
//! they are given bytes that were decompressed here.

use std::io;

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use bytes::Bytes;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::Error;
use tokio_util::io::{ReaderStream, StreamReader};

/// Pieces in which decompressed bytes are handed on, in bytes.
const PIECE: usize = 64 << 10;

/// The bytes of a file that may have been compressed.
pub enum Unpacked {
    /// It was not.
    AsItWas(BoxStream<'static, Result<Bytes, Error>>),
    /// All of its streams. A truncated stream and bytes that belong to none are errors.
    Decompressed(BoxStream<'static, io::Result<Bytes>>),
}

/// Takes `compression` off `bytes`, as they are polled.
pub fn unpack(
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    compression: FileCompressionType,
) -> Unpacked {
    /// All decoders have the same methods and no trait in common.
    macro_rules! all_streams {
        ($decoder:ident) => {{
            let mut decoder = $decoder::new(StreamReader::new(bytes));
            decoder.multiple_members(true);
            Unpacked::Decompressed(ReaderStream::with_capacity(decoder, PIECE).boxed())
        }};
    }
    match compression.get_variant() {
        CompressionTypeVariant::GZIP => all_streams!(GzipDecoder),
        CompressionTypeVariant::BZIP2 => all_streams!(BzDecoder),
        CompressionTypeVariant::XZ => all_streams!(XzDecoder),
        CompressionTypeVariant::ZSTD => all_streams!(ZstdDecoder),
        CompressionTypeVariant::UNCOMPRESSED => Unpacked::AsItWas(bytes),
    }
}
