//! `synoptic`: see `synoptic --help`.

use std::process::ExitCode;

// Batches are made on one thread and freed on another, in large pieces: glibc's allocator gives such
// memory back to the kernel and faults it in again for every batch.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    synoptic::cli::main()
}
