//! Making the demo's folder: three sources and a configuration.
//!
//! ```text
//! DIR/portfolio.db             SQLite: owners, accounts, instruments, trades, splits, positions, cash
//! DIR/market/prices/symbol=*/  daily prices: Parquet, one file per share
//! DIR/fx/rates.csv             the ECB's reference rates
//! DIR/export/                  empty: the tour exports the trades to it
//! DIR/synoptic.toml            the configuration that names them
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::freshness::{self, EXPORT, POSITION_FILE};
use super::{fx, market, portfolio, raw};
use crate::cli_error::{CliError, Result};

/// The first line of our configuration: by it we know a folder that we may write to again.
const MARK: &str = "# Made by `synoptic demo`. Running the demo again writes this file anew.";

/// Makes the sources and the configuration in `dir`, and says where the configuration is.
///
/// Everything is written beside its place and then renamed, file by file: a reader sees the old
/// file or the new one, and a run that is stopped half-way leaves what was there. Other files in
/// `dir` stay as they are.
///
/// # Errors
/// When `dir` holds files of these names that the demo did not make, or cannot be written to.
pub fn build(dir: &Path, listen: &str) -> Result<PathBuf> {
    let config = dir.join("synoptic.toml");
    refuse_foreign(dir, &config)?;
    create_dir(dir)?;

    let export = dir.join(EXPORT);
    create_dir(&export)?;
    freshness::remove(&export.join(POSITION_FILE))?;

    let prices = raw::prices()?;
    let staging = Staging::new(dir)?;
    let mut files = Vec::new();
    portfolio::write(&staging.file("portfolio.db", &mut files)?, &prices)?;
    for bars in prices.chunk_by(|a, b| a.symbol == b.symbol) {
        let name = format!("market/prices/symbol={}/daily.parquet", bars[0].symbol);
        market::write(&staging.file(&name, &mut files)?, bars)?;
    }
    fx::write(&staging.file("fx/rates.csv", &mut files)?, &raw::fixings()?)?;
    let path = staging.file("synoptic.toml", &mut files)?;
    fs::write(&path, configuration(listen))
        .map_err(|error| CliError::io(format!("write {}", path.display()), &error))?;

    for name in files {
        let (from, to) = (staging.0.join(&name), dir.join(&name));
        create_dir(to.parent().unwrap_or(dir))?;
        fs::rename(&from, &to)
            .map_err(|error| CliError::io(format!("write {}", to.display()), &error))?;
    }
    Ok(config)
}

fn configuration(listen: &str) -> String {
    // A TOML string is a JSON string.
    let listen = serde_json::Value::from(listen);
    format!(
        r#"{MARK}
[server]
listen = {listen}

# Accounts, trades and positions: a database that a portfolio system would own.
[sources.portfolio]
connector = "sqlite"
path = "./portfolio.db"
writable = true

# An export of its trades: a copy that answers when it proves to be fresh enough.
[[sources.portfolio.replicas]]
name = "export"
connector = "files"
location = "./{EXPORT}/"
format = "parquet"
position_file = "{POSITION_FILE}"

# A copy has the types of the source.
[sources.portfolio.replicas.tables.trades]
path = "trades.parquet"
schema = {{ symbol = "text" }}

# Daily prices of five shares: Parquet, a folder per share, as a market data lake has them.
[sources.market]
connector = "files"
location = "./market/"
format = "parquet"

# The European Central Bank's reference rates: a CSV file, as it is published.
[sources.fx]
connector = "files"
location = "./fx/"
format = "csv"

# A CSV file does not say what its columns are; money and rates are decimals, never floats.
[sources.fx.tables.rates]
path = "rates.csv"
schema = {{ fixing_day = "date", currency = "text", rate = "decimal(12, 6)" }}
"#
    )
}

fn refuse_foreign(dir: &Path, config: &Path) -> Result<()> {
    let ours = fs::read_to_string(config).is_ok_and(|text| text.starts_with(MARK));
    let taken =
        ["synoptic.toml", "portfolio.db", "market", "fx", EXPORT].map(|name| dir.join(name));
    match taken.iter().find(|path| path.exists()) {
        Some(path) if !ours => Err(CliError::failed(format!(
            "{} exists and was not made by the demo: choose another folder with --dir",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .map_err(|error| CliError::io(format!("make the folder {}", dir.display()), &error))
}

/// A folder inside the target, on its file system, that is gone when the work is done or failed.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join(format!(".building-{}", Uuid::new_v4().simple()));
        create_dir(&path)?;
        Ok(Self(path))
    }

    /// The path to write `name` to, with its folder made; `name` is added to `files`.
    fn file(&self, name: &str, files: &mut Vec<String>) -> Result<PathBuf> {
        files.push(name.to_owned());
        let path = self.0.join(name);
        create_dir(path.parent().unwrap_or(&self.0))?;
        Ok(path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a temporary folder");
        }
    }
}
