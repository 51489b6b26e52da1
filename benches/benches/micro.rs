//! What one statement costs: alone, over three sources, over Flight; and Flight's throughput.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightDescriptor, Ticket};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use synoptic_benches::{BULK_BYTES, Setting, run};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

const JOIN: &str = "
    SELECT p.currency, sum(p.qty * m.close * r.rate) AS value
    FROM book.positions p
    JOIN market.prices m ON m.symbol = p.symbol
    JOIN fx.rates r ON r.currency = p.currency
    WHERE m.day = DATE '2023-12-20'
    GROUP BY p.currency";

const BULK: &str = "SELECT * FROM bulk.numbers";

fn statements(criterion: &mut Criterion, runtime: &Runtime, setting: &Setting) {
    let session = setting.engine.session("bench");
    let mut group = criterion.benchmark_group("engine");
    for (name, sql) in [("select_1", "SELECT 1"), ("three_source_join", JOIN)] {
        group.bench_function(name, |bencher| {
            bencher.to_async(runtime).iter(|| run(&session, sql));
        });
    }
    group.finish();
}

fn flight(criterion: &mut Criterion, runtime: &Runtime, setting: &Setting) {
    let (url, server) = runtime.block_on(setting.serve());
    let endpoint = Endpoint::from_shared(url).expect("an address");
    let channel = runtime.block_on(endpoint.connect()).expect("connected");
    let client = FlightServiceClient::new(channel);
    let mut group = criterion.benchmark_group("flight");
    for (name, sql) in [("select_1", "SELECT 1"), ("three_source_join", JOIN)] {
        group.bench_function(name, |bencher| {
            bencher.to_async(runtime).iter(|| read(client.clone(), sql));
        });
    }
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Bytes(BULK_BYTES));
    group.bench_function("loopback", |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let bytes = read(client.clone(), BULK).await;
            assert!(bytes >= BULK_BYTES, "{bytes}");
        });
    });
    group.finish();
    server.abort();
}

/// `GetFlightInfo`, then `DoGet`; returns the bytes of all batches, which are not decoded.
async fn read(client: FlightServiceClient<Channel>, sql: &str) -> u64 {
    let mut client = client.max_decoding_message_size(usize::MAX);
    let info = client.get_flight_info(FlightDescriptor::new_cmd(sql.to_owned())).await;
    let endpoint = info.expect("planned").into_inner().endpoint.pop().expect("an endpoint");
    let ticket: Ticket = endpoint.ticket.expect("a ticket");
    let mut stream = client.do_get(ticket).await.expect("started").into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.expect("answered") {
        bytes += message.data_body.len() as u64;
    }
    bytes
}

fn all(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let setting = Setting::make();
    statements(criterion, &runtime, &setting);
    flight(criterion, &runtime, &setting);
}

criterion_group!(benches, all);
criterion_main!(benches);
