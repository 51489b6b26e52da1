//! Whatever pieces the bytes come in: rows go to whoever asked, the rest to the client, in order.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// A message of the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + LENGTH).expect("a short body");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// What a tapped connection makes of `stream`, which comes in pieces of `sizes` bytes in turn: what
/// the client reads, and the bodies of the rows.
async fn read(stream: &[u8], sizes: &[usize], tapped: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let tap = Arc::new(Tap::default());
    let (mut server, client) = duplex(1 << 20);
    let mut connection = Tapped::new(client, Arc::clone(&tap));
    let rows = tapped.then(|| tap.rows());
    let sending = async {
        let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("endless")));
            server.write_all(piece).await.expect("sent");
            tokio::task::yield_now().await;
            rest = after;
        }
        drop(server);
    };
    let reading = async {
        let mut theirs = Vec::new();
        connection.read_to_end(&mut theirs).await.expect("read");
        theirs
    };
    let taking = async {
        let mut taken = Vec::new();
        let Some(mut rows) = rows else { return taken };
        while std::future::poll_fn(|cx| rows.poll_more(cx)).await {
            // One at a time: a decoder stops when its batch is full.
            let one = |row: &[u8]| {
                taken.push(row.to_vec());
                Ok::<_, ()>(false)
            };
            rows.each(one).expect("no error");
        }
        taken
    };
    let ((), theirs, taken) = futures::join!(sending, reading, taking);
    (theirs, taken)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

proptest! {
    #[test]
    fn rows_go_to_the_reader_and_the_rest_to_the_client(
        before in prop::collection::vec((prop::sample::select(b"12HZCTSN".to_vec()), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..40),
        notice in any::<bool>(),
        sizes in prop::collection::vec(1usize..5000, 1..6),
    ) {
        let mut theirs: Vec<u8> = before.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let mut stream = theirs.clone();
        for (i, row) in rows.iter().enumerate() {
            stream.extend(message(COPY_DATA, row));
            if notice && i == rows.len() / 2 {
                let notice = message(b'N', b"something");
                stream.extend(&notice);
                theirs.extend(&notice);
            }
        }
        let end = [message(COPY_DONE, b""), message(b'C', b"COPY 1"), message(b'Z', b"I")].concat();
        stream.extend(&end);
        theirs.extend(&end);
        prop_assert_eq!(run(read(&stream, &sizes, true)), (theirs, rows));
        // Nobody asked.
        prop_assert_eq!(run(read(&stream, &sizes, false)), (stream, vec![]));
    }

    #[test]
    fn what_makes_no_sense_passes_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..2000), sizes in prop::collection::vec(1usize..50, 1..4)) {
        let (theirs, rows) = run(read(&bytes, &sizes, true));
        let taken: usize = rows.iter().map(|row| row.len() + HEADER).sum();
        prop_assert_eq!(theirs.len() + taken, bytes.len());
        prop_assert_eq!(run(read(&bytes, &sizes, false)), (bytes, vec![]));
    }
}

#[test]
fn an_error_ends_the_rows_and_the_next_copy_is_not_taken_for_the_one_asked_for() {
    let row = message(COPY_DATA, b"row");
    let error = message(ERROR, b"gone");
    let stream = [row.clone(), error.clone(), row.clone()].concat();
    let (theirs, rows) = run(read(&stream, &[7], true));
    assert_eq!((theirs, rows), ([error, row].concat(), vec![b"row".to_vec()]));
}

#[test]
fn a_connection_that_breaks_inside_a_row_gives_up_what_it_has() {
    let row = message(COPY_DATA, b"a row that ends too early");
    let (theirs, rows) = run(read(&row[..9], &[4], true));
    assert_eq!((theirs, rows), (row[..9].to_vec(), vec![]));
}

#[test]
fn a_slow_decoder_holds_back_the_server() {
    run(async {
        let tap = Arc::new(Tap::default());
        let (mut server, client) = duplex(64);
        let mut connection = Tapped::new(client, Arc::clone(&tap));
        let mut rows = tap.rows();
        let mut sent = 0_usize;
        let row = message(COPY_DATA, &[7; 59]);
        let sending = async {
            for _ in 0..1000 {
                server.write_all(&row).await.expect("sent");
                sent += 1;
            }
        };
        let mut theirs = Vec::new();
        let both = async { futures::join!(sending, connection.read_to_end(&mut theirs)) };
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), both).await;
        assert!(waited.is_err(), "nobody takes the rows");
        // One piece each in the channel, and what is on its way.
        assert!(sent <= PIECES_AHEAD + 4, "{sent} rows were taken in");
        assert!(std::future::poll_fn(|cx| rows.poll_more(cx)).await);
    });
}

#[test]
fn rows_that_nobody_wants_any_more_are_dropped() {
    let tap = Arc::new(Tap::default());
    let stream = [message(COPY_DATA, b"row"), message(COPY_DONE, b"")].concat();
    let mut connection = Tapped::new(stream.as_slice(), Arc::clone(&tap));
    drop(tap.rows());
    let mut theirs = Vec::new();
    run(connection.read_to_end(&mut theirs)).expect("read");
    assert_eq!(theirs, message(COPY_DONE, b""));
}
