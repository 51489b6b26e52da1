//! Compiles `proto/` with a compiler in Rust, so that nobody needs `protoc`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(["synoptic/v1/ticket.proto", "synoptic/v1/receipt.proto"], [&root])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
