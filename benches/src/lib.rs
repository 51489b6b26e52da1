//! What the benchmarks run on: small embedded sources, an engine over them, a server in front.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::FileWriter;
use datafusion::parquet::arrow::ArrowWriter;
use futures::TryStreamExt;
use synoptic_config::Config;
use synoptic_engine::{Engine, Request, Session};
use synoptic_flight::FlightOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Rows and bytes of the table `bulk.public.numbers`.
pub const BULK_ROWS: usize = 8 << 20;
/// Four columns of eight bytes.
pub const BULK_BYTES: u64 = BULK_ROWS as u64 * 4 * 8;

const BULK_BATCH: usize = 8192;
const SYMBOLS: [&str; 5] = ["AAPL", "FB", "GOOG", "IBM", "MSFT"];

const CONFIG: &str = r#"
[sources.book]
connector = "sqlite"
path = "./book.db"

[sources.market]
connector = "files"
location = "./market/"
format = "parquet"

[sources.fx]
connector = "files"
location = "./fx/"
format = "csv"

[sources.bulk]
connector = "files"
location = "./bulk/"
format = "arrow"
"#;

/// Tiny tables in SQLite, Parquet and CSV, and one large one in an Arrow file.
#[derive(Debug)]
pub struct Setting {
    _folder: TempDir,
    /// The engine over all of them.
    pub engine: Arc<Engine>,
}

impl Setting {
    /// Makes the sources in a temporary folder.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn make() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path();
        for name in ["market", "fx", "bulk"] {
            std::fs::create_dir(path.join(name)).expect("a new folder");
        }
        make_book(&path.join("book.db"));
        make_market(&path.join("market/prices.parquet"));
        std::fs::write(path.join("fx/rates.csv"), "currency,rate\nUSD,1.0\nEUR,1.1\n")
            .expect("written");
        make_bulk(&path.join("bulk/numbers.arrow"));
        let config = Config::parse(CONFIG, path, &synoptic_connectors::names());
        let engine = synoptic::compose(&config.expect("a valid configuration"));
        Self { _folder: folder, engine: engine.expect("an engine") }
    }

    /// Serves the engine on a free loopback port until the returned task is aborted.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn serve(&self) -> (String, JoinHandle<std::io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let engine = Arc::clone(&self.engine);
        let options = FlightOptions::default();
        let served = synoptic_flight::serve(engine, listener, options, std::future::pending());
        (format!("http://{address}"), tokio::spawn(served))
    }
}

/// Plans and runs one statement to its end; returns its rows.
///
/// # Panics
/// When it fails.
pub async fn run(session: &Session, sql: &str) -> usize {
    let request = Request { sql: sql.to_owned(), ..Request::default() };
    let query = session.plan(request).await.expect("planned");
    let batches: Vec<RecordBatch> =
        query.run().expect("started").try_collect().await.expect("answered");
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn make_book(path: &Path) {
    let database = rusqlite::Connection::open(path).expect("a new file");
    let sql = "
        CREATE TABLE positions (symbol TEXT NOT NULL, currency TEXT NOT NULL, qty BIGINT NOT NULL);
        INSERT INTO positions VALUES
            ('AAPL', 'USD', 10), ('IBM', 'USD', 20), ('MSFT', 'EUR', 30), ('GOOG', 'USD', 5);";
    database.execute_batch(sql).expect("valid SQL");
}

fn make_market(path: &Path) {
    let days = 20;
    let rows = SYMBOLS.len() * days;
    let symbols = StringArray::from_iter_values((0..rows).map(|i| SYMBOLS[i / days]));
    let dates = Date32Array::from_iter_values((0..rows).map(|i| 19_700 + (i % days) as i32));
    let closes = Float64Array::from_iter_values((0..rows).map(|i| 100.0 + i as f64));
    let schema = Schema::new(vec![
        Field::new("symbol", DataType::Utf8, false),
        Field::new("day", DataType::Date32, false),
        Field::new("close", DataType::Float64, false),
    ]);
    let columns: Vec<Arc<dyn arrow::array::Array>> =
        vec![Arc::new(symbols), Arc::new(dates), Arc::new(closes)];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("one length");
    let file = File::create(path).expect("a new file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn make_bulk(path: &Path) {
    let field = |name: &str| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(["a", "b", "c", "d"].map(field).to_vec()));
    let file = File::create(path).expect("a new file");
    let mut writer = FileWriter::try_new(file, &schema).expect("a schema");
    for start in (0..BULK_ROWS as i64).step_by(BULK_BATCH) {
        let column = |k: i64| -> Arc<dyn arrow::array::Array> {
            let values = start..start + BULK_BATCH as i64;
            Arc::new(Int64Array::from_iter_values(values.map(|i| i * k)))
        };
        let columns = [1, 3, 5, 7].map(column).to_vec();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("one length");
        writer.write(&batch).expect("written");
    }
    writer.finish().expect("finished");
}
