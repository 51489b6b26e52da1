//! `FOR SYSTEM_TIME AS OF` and `consistency = 'as_of'`: tables as they were, from real sources, by
//! the columns that the sources keep themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use serde_json::json;
use synoptic_catalog::{CopySet, Host, SystemTime, WatchSettings};
use synoptic_engine::{Engine, EngineConfig, Error, Receipt, Request, Session};
use synoptic_source::Source;
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{ErrorCode, SourceName, SystemClock, TableName};
use tempfile::TempDir;

/// AAA was 10 shares from January to March, 20 since; BBB was sold in February, and never ends at
/// a finite time in PostgreSQL.
const POSTGRES: &str = "
    CREATE TABLE positions (symbol text, shares int, sys_from timestamptz, sys_to timestamptz);
    INSERT INTO positions VALUES
        ('AAA', 10, '2026-01-01T00:00:00Z', '2026-03-01T12:00:00Z'),
        ('AAA', 20, '2026-03-01T12:00:00Z', 'infinity'),
        ('BBB', 5, '2026-01-01T00:00:00Z', '2026-02-01T00:00:00.000001Z'),
        ('CCC', 7, '2026-03-01T11:59:59.999999Z', NULL);
    CREATE TABLE plain (symbol text);
    CREATE TABLE undeclared (symbol text);
    CREATE TABLE odd (symbol text, sys_from text, sys_to timestamptz);";

const SQLITE: &str = "
    CREATE TABLE names (symbol TEXT, name TEXT, since DATE, until DATE);
    INSERT INTO names VALUES ('AAA', 'Anvils', '2025-01-01', '2026-02-15'),
        ('AAA', 'Anvils & Sons', '2026-02-15', NULL), ('BBB', 'Bells', '2025-01-01', NULL);";

struct World {
    _folder: TempDir,
    _server: Arc<PostgresServer>,
    session: Session,
}

impl World {
    async fn new() -> Self {
        let server = PostgresServer::shared();
        let database = server.create_database().await;
        server.client(&database).await.batch_execute(POSTGRES).await.expect("valid SQL");
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("lite.db");
        let lite = rusqlite::Connection::open(&path).expect("a new file");
        lite.execute_batch(SQLITE).expect("valid SQL");
        let times = |schema: &str, tables: &[(&str, &str, &str)]| -> BTreeMap<_, _> {
            let named = tables.iter().map(|(table, from, to)| {
                let (from, to) = ((*from).to_owned(), (*to).to_owned());
                (TableName::new(schema, *table), SystemTime { from, to })
            });
            named.collect()
        };
        let pg = open("pg", "postgres", json!({"url": server.url(&database), "writable": true}));
        let pg_times = [
            ("positions", "sys_from", "sys_to"),
            ("plain", "sys_from", "sys_to"),
            ("odd", "sys_from", "sys_to"),
        ];
        let lite = open("lite", "sqlite", json!({"path": path}));
        let sets = vec![
            CopySet { system_time: times("public", &pg_times), ..CopySet::from(pg) },
            CopySet {
                system_time: times("main", &[("names", "since", "until")]),
                ..CopySet::from(lite)
            },
        ];
        let host = Host::of_copies(sets, WatchSettings::default());
        let engine = Engine::new(EngineConfig::default(), host, Arc::new(SystemClock));
        Self {
            _folder: folder,
            _server: server,
            session: engine.expect("an engine").session("test"),
        }
    }

    async fn ask(&self, sql: &str) -> Result<(String, Receipt), Error> {
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let mut stream = self.session.plan(request).await?.run()?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            batches.push(batch);
        }
        let table = pretty_format_batches(&batches).expect("printable").to_string();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let cells = |row: &str| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            cells.join(",")
        };
        Ok((rows.map(cells).collect::<Vec<_>>().join(" "), stream.receipt()))
    }

    async fn rows(&self, sql: &str) -> String {
        self.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).0
    }

    async fn refused(&self, sql: &str, code: ErrorCode, part: &str) {
        let error = self.ask(sql).await.expect_err(sql);
        assert!(error.code() == code && error.to_string().contains(part), "{sql}: {error}");
    }
}

fn open(name: &str, connector: &str, options: serde_json::Value) -> Arc<dyn Source> {
    let options = options.as_object().cloned().expect("an object");
    synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("."))
        .expect("options are right")
}

#[tokio::test]
async fn a_table_is_read_as_it_was_and_the_source_does_the_work() {
    let world = World::new().await;
    for (moment, expected) in [
        ("2025-12-31T23:59:59.999999Z", ""),
        ("2026-01-01", "AAA,10 BBB,5"),
        ("2026-02-01T00:00:00Z", "AAA,10 BBB,5"),
        // Between two microseconds.
        ("2026-02-01T00:00:00.000000999Z", "AAA,10 BBB,5"),
        ("2026-02-01T00:00:00.000001Z", "AAA,10"),
        ("2026-03-01T12:59:59.999999+01:00", "AAA,10 CCC,7"),
        ("2026-03-01 12:00:00", "AAA,20 CCC,7"),
        ("2026-06-01T00:00:00Z", "AAA,20 CCC,7"),
    ] {
        for pushdown in ["auto", "none"] {
            world.rows(&format!("SET synoptic.pushdown = '{pushdown}'")).await;
            let sql = format!(
                "SELECT symbol, shares FROM pg.positions FOR SYSTEM_TIME AS OF TIMESTAMP \
                 '{moment}' ORDER BY 1"
            );
            // Twice: the second time with the plan that was kept.
            for _ in 0..2 {
                // What stays here has to decode every row, and PostgreSQL's 'infinity' has no
                // value of ours.
                if pushdown == "none" {
                    world.refused(&sql, ErrorCode::Data, "infinity").await;
                    continue;
                }
                let (rows, receipt) = world.ask(&sql).await.expect(&sql);
                assert_eq!(rows, expected, "{moment}");
                let [scan] = receipt.scans.as_slice() else { panic!("one scan") };
                assert!(scan.remote_text.contains("sys_from"), "{}", scan.remote_text);
                assert_eq!(scan.rows as usize, expected.split_whitespace().count());
            }
        }
    }
}

#[tokio::test]
async fn two_moments_in_one_statement_and_every_spelling_of_a_name() {
    let world = World::new().await;
    let sql = "SELECT before.symbol, before.shares, later.shares
        FROM pg.public.positions FOR SYSTEM_TIME AS OF '2026-02-10' AS before
        JOIN pg.positions FOR SYSTEM_TIME AS OF '2026-04-10' WITH (max_staleness = '1h') later
        USING (symbol)";
    assert_eq!(world.rows(sql).await, "AAA,10,20");
    let sql = "SELECT positions.symbol FROM pg.positions FOR SYSTEM_TIME AS OF '2026-02-10', lite.main.names \
        FOR SYSTEM_TIME AS OF '2026-02-10T23:59:59Z' n WHERE n.symbol = positions.symbol AND n.name = 'Anvils'";
    assert_eq!(world.rows(sql).await, "AAA");
    // The same table as it is: all that it keeps.
    assert_eq!(world.rows("SELECT count(*) FROM pg.positions").await, "4");
}

#[tokio::test]
async fn a_whole_statement_at_one_moment() {
    let world = World::new().await;
    let sql = "WITH positions AS (SELECT * FROM pg.positions)
        SELECT p.symbol, shares, name FROM positions p JOIN lite.names n ON n.symbol = p.symbol
        ORDER BY 1, 3";
    world.rows("SET synoptic.consistency = 'as_of'").await;
    world.refused(sql, ErrorCode::InvalidOption, "needs a moment").await;
    for (moment, expected) in [
        ("2026-01-15T00:00:00Z", "AAA,10,Anvils BBB,5,Bells"),
        ("2026-02-15T00:00:00Z", "AAA,10,Anvils & Sons"),
        ("2026-04-01T00:00:00+02:00", "AAA,20,Anvils & Sons"),
    ] {
        world.rows(&format!("SET synoptic.read_timestamp = '{moment}'")).await;
        for _ in 0..2 {
            assert_eq!(world.rows(sql).await, expected, "{moment}");
        }
    }
    // One that says another moment for itself, and one that cannot.
    let one = "SELECT shares FROM pg.positions FOR SYSTEM_TIME AS OF '2026-01-02' \
        WHERE symbol = 'AAA'";
    assert_eq!(world.rows(one).await, "10");
    world.refused("SELECT * FROM pg.plain", ErrorCode::UnknownColumn, "'sys_from'").await;
    assert_eq!(world.rows("SELECT count(*) > 0 FROM synoptic.system.sources").await, "true");
    let update = "UPDATE pg.positions SET shares = 0";
    world.refused(update, ErrorCode::Unsupported, "what was cannot be changed").await;
    world.rows("RESET synoptic.consistency").await;
    world.refused(sql, ErrorCode::InvalidOption, "consistency = 'as_of' only").await;
    world.rows("RESET synoptic.read_timestamp").await;
    assert_eq!(world.rows("SELECT count(*) FROM pg.positions").await, "4");
}

#[tokio::test]
async fn what_cannot_be_read_as_it_was_says_why() {
    let world = World::new().await;
    let of = |table: &str, moment: &str| {
        format!("SELECT * FROM {table} FOR SYSTEM_TIME AS OF TIMESTAMP '{moment}'")
    };
    for (table, moment, code, part) in [
        ("pg.plain", "2026-01-01", ErrorCode::UnknownColumn, "table public.plain: system_time"),
        ("pg.odd", "2026-01-01", ErrorCode::Data, "'sys_from'"),
        ("pg.undeclared", "2026-01-01", ErrorCode::Unsupported, "shows the present only"),
        ("pg.nowhere", "2026-01-01", ErrorCode::UnknownTable, "nowhere"),
        ("pg.positions", "2999-01-01", ErrorCode::InvalidOption, "that is to come"),
        ("synoptic.system.sources", "2026-01-01", ErrorCode::Unsupported, "not a table of a"),
    ] {
        world.refused(&of(table, moment), code, part).await;
    }
    for sql in [
        "UPDATE pg.positions FOR SYSTEM_TIME AS OF '2026-01-01' SET shares = 0",
        "DELETE FROM pg.positions FOR SYSTEM_TIME AS OF '2026-01-01'",
        "INSERT INTO pg.\"positions FOR SYSTEM_TIME AS OF 2026-01-01T00:00:00Z\" VALUES ('X')",
    ] {
        world.refused(sql, ErrorCode::Unsupported, "SYSTEM_TIME").await;
    }
    assert_eq!(world.rows("SELECT sum(shares) FROM pg.positions").await, "42");
    // What was can be written on.
    let copy = "INSERT INTO pg.plain SELECT symbol FROM pg.positions FOR SYSTEM_TIME AS OF \
        '2026-01-01'";
    assert_eq!(world.rows(copy).await, "2");
}
