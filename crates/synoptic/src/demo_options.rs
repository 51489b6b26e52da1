//! What `synoptic demo` takes.

use std::path::PathBuf;

/// The options of `synoptic demo`, checked.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where the demo's sources and configuration are made.
    pub dir: PathBuf,
    /// Whether to keep serving after the tour.
    pub serve: bool,
    /// Where to serve, `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
}
