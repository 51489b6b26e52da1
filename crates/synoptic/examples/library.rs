//! Synoptic as a library: our sources inside a DataFusion session of your own.
//!
//! ```text
//! cargo run --example library
//! ```
//!
//! Each source is a catalog and each of its tables an ordinary `TableProvider`, so everything
//! DataFusion can do with a table works: SQL, the DataFrame API, joins with tables of your own.
//! All scans of one statement read one snapshot of a source, here as in the server.

use std::error::Error;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use synoptic_catalog::Host;
use synoptic_types::SourceName;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("synoptic-library-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = run(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn run(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    // A source of some kind: here a SQLite file.
    let path = folder.join("portfolio.db");
    rusqlite::Connection::open(&path)?.execute_batch(
        "CREATE TABLE positions (symbol TEXT NOT NULL, shares INTEGER NOT NULL);
         INSERT INTO positions VALUES ('AAPL', 100), ('IBM', 40), ('MSFT', 250);",
    )?;

    // Open it as the configuration would, and make it a host of sources.
    let mut options = serde_json::Map::new();
    options.insert("path".to_owned(), "portfolio.db".into());
    let source =
        synoptic_connectors::open("sqlite", SourceName::new("portfolio"), options, folder)?;
    let host = Host::new(vec![source]);

    // Register every source as a catalog of an ordinary session.
    let session = SessionContext::new();
    for (name, catalog) in synoptic_engine::catalogs(&host).await? {
        session.register_catalog(name, catalog);
    }

    // Join it with a table of your own.
    let symbols: ArrayRef = Arc::new(StringArray::from(vec!["AAPL", "MSFT"]));
    let targets: ArrayRef = Arc::new(Int64Array::from(vec![150, 200]));
    let own = RecordBatch::try_from_iter([("symbol", symbols), ("target", targets)])?;
    session.register_batch("targets", own)?;

    session
        .sql(
            "SELECT p.symbol, p.shares, t.target - p.shares AS to_buy
             FROM portfolio.main.positions p JOIN targets t ON t.symbol = p.symbol
             WHERE p.shares > 50 ORDER BY p.symbol",
        )
        .await?
        .show()
        .await?;
    Ok(())
}
