//! What the short path costs, beside what it stands in for, in one run.
//!
//! ```text
//! cargo build --locked --release && cargo build --locked --release --example short_path
//! target/release/examples/short_path postgresql://USER@HOST:PORT/DATABASE [ROUNDS]
//! ```
//!
//! It starts `synoptic serve` (`SYNOPTIC_BIN`, or the release build) over that database, an SQLite
//! file, a CSV file and an Arrow file, and, as a process of its own, a Flight server that does
//! nothing but send the Arrow file's batches from memory. Every round asks each of them once, one
//! after the other; medians and their differences are printed. In the database it makes the schema
//! `synoptic_short_path`, and drops it at the end.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints and may fail")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandPreparedStatementQuery, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

const SCHEMA: &str = "synoptic_short_path";
const POINTS: i64 = 100_000;
const BULK_ROWS: i64 = 4 << 20;
const BULK_BATCH: i64 = 8192;
const BULK_RUNS: usize = 7;
const WINDOW: u32 = 8 << 20;

const LOOK_UP: &str = "SELECT id, name, price, at FROM pg.synoptic_short_path.points WHERE id = $1";
const JOIN: &str = "
    SELECT p.symbol, p.qty * l.lot * r.rate AS value
    FROM pg.synoptic_short_path.positions p
    JOIN lots.lots l ON l.symbol = p.symbol
    JOIN fx.rates r ON r.currency = p.currency";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--bare", file] => bare(Path::new(file)).await,
        [url] => measure(url, 500).await,
        [url, rounds] => measure(url, rounds.parse().expect("a number of rounds")).await,
        _ => println!("usage: short_path postgresql://USER@HOST:PORT/DATABASE [ROUNDS]"),
    }
}

async fn measure(url: &str, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (postgres, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL");
    tokio::spawn(connection);
    postgres.batch_execute(&tables()).await.unwrap();
    let config = make_sources(folder.path(), url);
    let bin = std::env::var("SYNOPTIC_BIN").unwrap_or("target/release/synoptic".to_owned());
    let mut serve = Command::new(bin);
    let synoptic = Serving::start(serve.arg("serve").arg("-c").arg(config));
    let bulk = folder.path().join("bulk/numbers.arrow");
    let mut serve = Command::new(std::env::current_exe().unwrap());
    let bare = Serving::start(serve.arg("--bare").arg(bulk));

    let us = connect(&synoptic.url).await;
    let floor = connect(&bare.url).await;
    latencies(&postgres, &us, &floor, folder.path(), rounds).await;
    throughput(&us, &floor).await;
    postgres.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await.unwrap();
}

async fn latencies(
    postgres: &tokio_postgres::Client,
    us: &FlightServiceClient<Channel>,
    floor: &FlightServiceClient<Channel>,
    folder: &Path,
    rounds: usize,
) {
    let direct = LOOK_UP.replace("pg.", "");
    let direct = postgres.prepare(&direct).await.unwrap();
    let positions = format!("SELECT symbol, currency, qty FROM {SCHEMA}.positions");
    let positions = postgres.prepare(&positions).await.unwrap();
    let sqlite = rusqlite::Connection::open(folder.join("lots.db")).unwrap();
    let prepared = prepare(us, LOOK_UP).await;
    let mut times = Times::default();
    // The first rounds fill caches and do not count.
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        if round == warm_up {
            times = Times::default();
        }
        let id = (round as i64 * 7919) % POINTS;
        let began = Instant::now();
        assert_eq!(postgres.query(&direct, &[&id]).await.unwrap().len(), 1);
        times.add("look-up: PostgreSQL, prepared", began);

        let began = Instant::now();
        assert!(look_up(&prepared, us, id).await > 0);
        times.add("look-up: prepared (DoPut, GetFlightInfo, DoGet)", began);

        let began = Instant::now();
        assert!(look_up_at_once(&prepared, us, id).await > 0);
        times.add("look-up: prepared (DoPut, DoGet)", began);

        let text = LOOK_UP.replace("$1", &id.to_string());
        let began = Instant::now();
        assert!(read(us, text).await > 0);
        times.add("look-up: text (GetFlightInfo, DoGet)", began);

        let began = Instant::now();
        postgres.simple_query("SELECT 1").await.unwrap();
        times.add("SELECT 1: PostgreSQL", began);

        let began = Instant::now();
        assert!(read(us, "SELECT 1").await > 0);
        times.add("SELECT 1: text (GetFlightInfo, DoGet)", began);

        let began = Instant::now();
        assert!(read(floor, "tiny").await > 0);
        times.add("bare Flight: (GetFlightInfo, DoGet)", began);

        let began = Instant::now();
        assert_eq!(postgres.query(&positions, &[]).await.unwrap().len(), 4);
        times.add("tiny join: its PostgreSQL table alone, prepared", began);

        let began = Instant::now();
        let mut lots = sqlite.prepare_cached("SELECT symbol, lot FROM lots").unwrap();
        let rows = lots.query_map([], |row| row.get::<_, String>(0)).unwrap().count();
        assert_eq!(rows, 3);
        times.add("tiny join: its SQLite table alone", began);

        let began = Instant::now();
        assert!(std::fs::read_to_string(folder.join("fx/rates.csv")).unwrap().len() > 10);
        times.add("tiny join: its CSV file alone", began);

        let began = Instant::now();
        assert!(read(us, JOIN).await > 0);
        times.add("tiny join: text (GetFlightInfo, DoGet)", began);
    }
    times.print();
    let more =
        |a: &str, b: &str| (times.median(a).as_secs_f64() - times.median(b).as_secs_f64()) * 1e3;
    let base = "look-up: PostgreSQL, prepared";
    for way in ["(DoPut, GetFlightInfo, DoGet)", "(DoPut, DoGet)"] {
        let name = format!("look-up: prepared {way}");
        println!("{name}: +{:.3} ms, goal +0.500 ms", more(&name, base));
    }
    let sources = ["PostgreSQL table alone, prepared", "SQLite table alone", "CSV file alone"];
    let slowest = sources.map(|source| format!("tiny join: its {source}"));
    let slowest = slowest.iter().max_by_key(|source| times.median(source)).unwrap();
    let join = more("tiny join: text (GetFlightInfo, DoGet)", slowest);
    println!("tiny join over its slowest source: +{join:.3} ms, goal +3.000 ms");
}

async fn throughput(us: &FlightServiceClient<Channel>, floor: &FlightServiceClient<Channel>) {
    let mut ratios = Vec::new();
    for run in 0..=BULK_RUNS {
        let began = Instant::now();
        let bytes = read(floor, "bulk").await;
        let bare = bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
        let began = Instant::now();
        let bytes = read(us, "SELECT * FROM bulk.numbers").await;
        let ours = bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
        assert!(bytes >= BULK_ROWS as u64 * 4 * 8, "{bytes}");
        if run > 0 {
            println!(
                "DoGet: bare {bare:.0} MB/s, synoptic {ours:.0} MB/s, ratio {:.2}",
                ours / bare
            );
            ratios.push(ours / bare);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("DoGet, median ratio: {:.2}, goal 0.85", ratios[ratios.len() / 2]);
}

/// Times by what was timed.
#[derive(Default)]
struct Times(BTreeMap<String, Vec<Duration>>);

impl Times {
    fn add(&mut self, name: &str, began: Instant) {
        self.0.entry(name.to_owned()).or_default().push(began.elapsed());
    }

    fn median(&self, name: &str) -> Duration {
        let mut times = self.0[name].clone();
        times.sort();
        times[times.len() / 2]
    }

    fn print(&self) {
        for (name, times) in &self.0 {
            let mut times = times.clone();
            times.sort();
            let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
            println!(
                "{name:52} median {:7.3} ms   p10 {:7.3}   p90 {:7.3}",
                at(50),
                at(10),
                at(90)
            );
        }
    }
}

/// Prepares a statement; the command that runs it.
async fn prepare(us: &FlightServiceClient<Channel>, sql: &str) -> CommandPreparedStatementQuery {
    let request =
        ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut results = us.clone().do_action(action).await.expect("prepared").into_inner();
    let result = results.message().await.expect("prepared").expect("a result");
    let result: ActionCreatePreparedStatementResult =
        Any::decode(result.body).unwrap().unpack().unwrap().unwrap();
    let prepared_statement_handle = result.prepared_statement_handle;
    CommandPreparedStatementQuery { prepared_statement_handle }
}

/// As drivers do: binds, asks for FlightInfo, reads.
async fn look_up(
    prepared: &CommandPreparedStatementQuery,
    us: &FlightServiceClient<Channel>,
    id: i64,
) -> u64 {
    bind(prepared, us, id).await;
    read(us, prepared.as_any().encode_to_vec()).await
}

/// Binds and reads: the prepared statement itself is the ticket.
async fn look_up_at_once(
    prepared: &CommandPreparedStatementQuery,
    us: &FlightServiceClient<Channel>,
    id: i64,
) -> u64 {
    bind(prepared, us, id).await;
    drain(us, Ticket::new(prepared.as_any().encode_to_vec())).await
}

async fn bind(
    prepared: &CommandPreparedStatementQuery,
    us: &FlightServiceClient<Channel>,
    id: i64,
) {
    let descriptor = FlightDescriptor::new_cmd(prepared.as_any().encode_to_vec());
    let batch = parameters(id);
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .with_schema(batch.schema())
        .build(futures::stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap();
    let mut answer =
        us.clone().do_put(futures::stream::iter(messages)).await.expect("bound").into_inner();
    answer.message().await.expect("bound");
}

fn parameters(id: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    RecordBatch::try_from_iter([("$1", ids)]).unwrap()
}

/// Bytes of the answer to a command.
async fn read(client: &FlightServiceClient<Channel>, sql: impl Into<bytes::Bytes>) -> u64 {
    let descriptor = FlightDescriptor::new_cmd(sql);
    let info = client.clone().get_flight_info(descriptor).await.expect("planned").into_inner();
    drain(client, info.endpoint[0].ticket.clone().unwrap()).await
}

async fn drain(client: &FlightServiceClient<Channel>, ticket: Ticket) -> u64 {
    let mut messages = client.clone().do_get(ticket).await.expect("started").into_inner();
    let mut bytes = 0;
    while let Some(message) = messages.message().await.expect("answered") {
        bytes += message.data_body.len() as u64;
    }
    bytes
}

async fn connect(url: &str) -> FlightServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(url.replace("grpc://", "http://")).unwrap();
    let channel = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .expect("connected");
    FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A server process, ended when dropped.
struct Serving {
    process: Child,
    url: String,
}

impl Serving {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().expect("an address").to_owned();
        Self { process, url }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tables() -> String {
    format!(
        "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};
         CREATE TABLE {SCHEMA}.points (id bigint PRIMARY KEY, name text NOT NULL,
             price numeric(12, 2) NOT NULL, at timestamptz NOT NULL);
         INSERT INTO {SCHEMA}.points SELECT i, 'point ' || i, i / 100.0,
             '2026-01-01Z'::timestamptz + i * interval '1 minute'
             FROM generate_series(0, {POINTS} - 1) AS i;
         CREATE TABLE {SCHEMA}.positions (symbol text PRIMARY KEY, currency text NOT NULL,
             qty bigint NOT NULL);
         INSERT INTO {SCHEMA}.positions VALUES
             ('AAPL', 'USD', 10), ('IBM', 'USD', 20), ('MSFT', 'EUR', 30), ('GOOG', 'USD', 5);
         ANALYZE {SCHEMA}.points; ANALYZE {SCHEMA}.positions"
    )
}

/// The embedded sources and the configuration, whose path is returned.
fn make_sources(folder: &Path, url: &str) -> std::path::PathBuf {
    let sqlite = rusqlite::Connection::open(folder.join("lots.db")).unwrap();
    sqlite
        .execute_batch(
            "CREATE TABLE lots (symbol TEXT NOT NULL PRIMARY KEY, lot BIGINT NOT NULL);
             INSERT INTO lots VALUES ('AAPL', 1), ('IBM', 10), ('MSFT', 5)",
        )
        .unwrap();
    for name in ["fx", "bulk"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("fx/rates.csv"), "currency,rate\nUSD,1.0\nEUR,1.1\n").unwrap();
    let field = |name: &str| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(["a", "b", "c", "d"].map(field).to_vec()));
    let file = File::create(folder.join("bulk/numbers.arrow")).unwrap();
    let mut writer = FileWriter::try_new(file, &schema).unwrap();
    for start in (0..BULK_ROWS).step_by(BULK_BATCH as usize) {
        let column = |k: i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values((start..start + BULK_BATCH).map(|i| i * k)))
        };
        let columns = [1, 3, 5, 7].map(column).to_vec();
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let config = folder.join("synoptic.toml");
    let text = format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [sources.pg]\nconnector = 'postgres'\nurl = '{url}'\n\
         [sources.lots]\nconnector = 'sqlite'\npath = './lots.db'\n\
         [sources.fx]\nconnector = 'files'\nlocation = './fx/'\nformat = 'csv'\n\
         [sources.bulk]\nconnector = 'files'\nlocation = './bulk/'\nformat = 'arrow'\n"
    );
    std::fs::write(&config, text).unwrap();
    config
}

/// Serves the batches of an Arrow file from memory, with arrow-flight's own encoder.
async fn bare(file: &Path) {
    let reader = FileReader::try_new(File::open(file).unwrap(), None).unwrap();
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on grpc://{}", listener.local_addr().unwrap());
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(io, _)| {
            io.set_nodelay(true).unwrap();
            io
        });
        Some((accepted, listener))
    });
    let service = FlightServiceServer::new(Bare { schema, batches: Arc::new(batches) });
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

struct Bare {
    schema: SchemaRef,
    batches: Arc<Vec<RecordBatch>>,
}

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server sends one file"))
}

#[tonic::async_trait]
impl FlightService for Bare {
    type HandshakeStream = Streamed<HandshakeResponse>;
    type ListFlightsStream = Streamed<FlightInfo>;
    type DoGetStream = Streamed<FlightData>;
    type DoPutStream = Streamed<PutResult>;
    type DoActionStream = Streamed<ActionResult>;
    type ListActionsStream = Streamed<ActionType>;
    type DoExchangeStream = Streamed<FlightData>;

    /// The descriptor's command is the ticket.
    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = Ticket::new(request.into_inner().cmd);
        let info = FlightInfo::new()
            .try_with_schema(&self.schema)
            .map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))))
    }

    /// All batches, or one row for the ticket `tiny`.
    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let batches = Arc::clone(&self.batches);
        let tiny = *request.into_inner().ticket == *b"tiny";
        let batches = (0..if tiny { 1 } else { batches.len() }).map(move |i| {
            let batch = &batches[i];
            Ok(if tiny { batch.slice(0, 1) } else { batch.clone() })
        });
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(Arc::clone(&self.schema))
            .build(futures::stream::iter(batches));
        Ok(Response::new(messages.map_err(Status::from).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        no()
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        no()
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        no()
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        no()
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        no()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        no()
    }

    async fn do_action(
        &self,
        _: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        no()
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        no()
    }
}
