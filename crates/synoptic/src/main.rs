//! `synoptic`: see `synoptic --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    synoptic::cli::main()
}
