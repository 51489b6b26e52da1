//! Compiles `proto/` with a compiler in Rust, so that nobody needs `protoc`.

use std::env;
use std::error::Error;
use std::path::Path;

const FILES: [&str; 3] = [
    "synoptic/v1/ticket.proto",
    "synoptic/v1/receipt.proto",
    "arrow/flight/protocol/session.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // At run time: a build script that a shared target folder kept may come from another checkout.
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(FILES, [&root])?;
    // In order, so that one ticket has one encoding.
    prost_build::Config::new().btree_map(["."]).compile_fds(files)?;
    Ok(())
}
