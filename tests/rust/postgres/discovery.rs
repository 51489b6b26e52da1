//! Listing, describing, stamps, permissions, connecting.

use std::time::Duration;

use serde_json::{Value, json};
use synoptic_source::{ErrorKind, Fragment, TableKind};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::TableName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Db, Run, assert_error, open, read, rows, table, texts};

#[tokio::test]
async fn everything_that_can_be_read_is_listed() {
    let db = Db::new(
        "CREATE SCHEMA sales; CREATE EXTENSION file_fdw; \
         CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; \
         CREATE TABLE b (i int); COMMENT ON TABLE b IS 'the second'; \
         CREATE VIEW a AS SELECT 1 AS one; \
         CREATE MATERIALIZED VIEW sales.m AS SELECT 2 AS two; \
         CREATE TABLE sales.p (i int) PARTITION BY LIST (i); \
         CREATE TABLE sales.p_1 PARTITION OF sales.p FOR VALUES IN (1); \
         INSERT INTO sales.p VALUES (1); \
         CREATE FOREIGN TABLE sales.f (line text) SERVER files \
             OPTIONS (program 'echo from a file'); \
         CREATE TEMP TABLE hidden (i int); CREATE INDEX ON b (i); CREATE SEQUENCE s",
    )
    .await;
    let tables = db.source.tables().await.unwrap();
    let shown: Vec<_> = tables
        .iter()
        .map(|t| (t.name.to_string(), t.kind, t.comment.as_deref().unwrap_or("")))
        .collect();
    let shown: Vec<_> = shown.iter().map(|(n, k, c)| (n.as_str(), *k, *c)).collect();
    assert_eq!(
        shown,
        [
            ("public.a", TableKind::View, ""),
            ("public.b", TableKind::Table, "the second"),
            ("sales.f", TableKind::ForeignTable, ""),
            ("sales.m", TableKind::MaterializedView, ""),
            ("sales.p", TableKind::PartitionedTable, ""),
            ("sales.p_1", TableKind::Table, ""),
        ]
    );
    for (name, column, value) in [
        ("public.a", "one", "1"),
        ("sales.m", "two", "2"),
        ("sales.p", "i", "1"),
        ("sales.p_1", "i", "1"),
        ("sales.f", "line", "from a file"),
    ] {
        assert_eq!(texts(&db.read(name).await.unwrap(), column), [value], "{name}");
    }
}

#[tokio::test]
async fn a_table_is_described_as_it_is() {
    let db = Db::new(
        "CREATE TABLE t (gone int, b text NOT NULL, a int, c int, PRIMARY KEY (c, a)); \
         ALTER TABLE t DROP COLUMN gone; \
         CREATE VIEW v AS SELECT * FROM t",
    )
    .await;
    let t = db.table("t").await;
    let fields: Vec<_> =
        t.schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
    assert_eq!(fields, [("b", false), ("a", false), ("c", false)]);
    assert_eq!(t.primary_key, ["c", "a"]);
    let v = db.table("v").await;
    assert!(v.schema.fields().iter().all(|field| field.is_nullable()));
    assert!(v.primary_key.is_empty());
    let missing = TableName::new("public", "missing");
    assert!(db.source.table(&missing).await.unwrap().is_none());
    assert!(db.source.stamp(&missing).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stamp_changes_with_the_description() {
    let db = Db::new("CREATE TABLE t (a int, b text)").await;
    let name = TableName::new("public", "t");
    let mut last = db.table("t").await.stamp.clone();
    assert_eq!(db.source.stamp(&name).await.unwrap(), Some(last.clone()));
    db.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i; ANALYZE t").await;
    assert_eq!(db.source.stamp(&name).await.unwrap(), Some(last.clone()), "rows change nothing");
    for change in [
        "ALTER TABLE t ADD c int",
        "ALTER TABLE t ALTER a TYPE bigint",
        "ALTER TABLE t ALTER a SET NOT NULL",
        "ALTER TABLE t ALTER b TYPE text COLLATE \"C\"",
        "ALTER TABLE t RENAME b TO d",
        "ALTER TABLE t DROP c",
        "COMMENT ON TABLE t IS 'new'",
        "ALTER TABLE t ADD PRIMARY KEY (a)",
        "DROP TABLE t; CREATE TABLE t (a bigint PRIMARY KEY, d text COLLATE \"C\")",
    ] {
        db.execute(change).await;
        let now = db.source.stamp(&name).await.unwrap().unwrap();
        assert_ne!(now, last, "{change}");
        assert_eq!(db.table("t").await.stamp, now, "{change}");
        last = now;
    }
}

#[tokio::test]
async fn only_what_the_role_may_read_is_there() {
    let db = Db::new(
        "CREATE TABLE open (a int); CREATE TABLE closed (a int); \
         CREATE TABLE half (seen int, secret int); INSERT INTO half VALUES (1, 2); \
         CREATE SCHEMA private; CREATE TABLE private.t (a int)",
    )
    .await;
    let role = format!("reader_{}", db.name);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON open, private.t TO {role}; \
         GRANT SELECT (seen) ON half TO {role}"
    ))
    .await;
    let url = db.server.url(&db.name).replace("postgres@", &format!("{role}@"));
    let source = open(&url, json!({}));
    let names: Vec<_> = source.tables().await.unwrap().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["public.half", "public.open"]);
    let half = table(&source, "half").await;
    assert_eq!(half.schema.fields().len(), 1);
    let fragment = Fragment::table(half);
    assert_eq!(texts(&read(&source, fragment).await.unwrap(), "seen"), ["1"]);

    let open_table = table(&source, "open").await;
    let run = Run::new(&source);
    let stream = run.start(Fragment::table(open_table)).await;
    db.execute(&format!("REVOKE SELECT ON open FROM {role}")).await;
    let error = super::first_error(stream).await;
    assert_error(&error, ErrorKind::PermissionDenied, &["table public.open", "42501"]);
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_server_that_answers_says_who_it_is() {
    let db = Db::new("").await;
    let check = db.source.check().await.unwrap();
    assert!(check.version.starts_with("PostgreSQL 1"), "{}", check.version);
    assert_eq!(check.location, format!("127.0.0.1:{}/{}", db.server.port(), db.name));
    assert!(check.freshness.contains("strong"));
    assert_eq!(db.source.default_schema(), "public");
}

#[tokio::test]
async fn what_cannot_be_reached_says_why_and_no_secret() {
    let server = PostgresServer::shared();
    let admin = server.client("postgres").await;
    let setup = "DO $$ BEGIN CREATE ROLE guarded LOGIN PASSWORD 's3cret'; \
                 EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    admin.batch_execute(setup).await.unwrap();
    let at = |user: &str, port: u16, database: &str| {
        format!("postgresql://{user}@127.0.0.1:{port}/{database}")
    };
    let port = server.port();
    let guarded = open(&at("guarded:s3cret", port, "postgres"), json!({}));
    assert!(guarded.check().await.is_ok());
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().expect("the port is known").port()
    };
    let silent = unused.local_addr().unwrap().port();
    let cases: [(String, Value, ErrorKind, &str); 6] = [
        (at("guarded:wr0ng", port, "postgres"), json!({}), ErrorKind::PermissionDenied, "28P01"),
        (at("guarded", port, "postgres"), json!({}), ErrorKind::PermissionDenied, "password"),
        (at("postgres", port, "nowhere"), json!({}), ErrorKind::Unavailable, "nowhere"),
        (at("postgres:wr0ng", closed, "x"), json!({}), ErrorKind::Unavailable, "refused"),
        (
            at("postgres:wr0ng", silent, "x"),
            json!({ "connect_timeout": "200ms" }),
            ErrorKind::Unavailable,
            "connect_timeout (200ms)",
        ),
        (
            at("postgres", port, "postgres?sslmode=require"),
            json!({}),
            ErrorKind::Unavailable,
            "TLS",
        ),
    ];
    for (url, options, kind, part) in cases {
        let source = open(&url, options);
        let error = source.check().await.expect_err(&url);
        assert_error(&error, kind, &["source 'bank'", "127.0.0.1", part]);
        let shown = format!("{error} {error:?} {source:?}");
        assert!(!shown.contains("wr0ng") && !shown.contains("s3cret"), "{shown}");
        assert!(source.tables().await.is_err());
    }
}

#[tokio::test]
async fn a_standby_is_a_source_like_any_other() {
    let primary = PostgresServer::start();
    let client = primary.client("postgres").await;
    client
        .batch_execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
        .await
        .unwrap();
    let standby = primary.standby();
    let source = open(&standby.url("postgres"), json!({}));
    assert!(source.check().await.unwrap().freshness.contains("standby"));
    let t = table(&source, "t").await;
    let run = Run::new(&source);
    // Two scans: the snapshot is exported and imported on the standby.
    let first = run.prepare(Fragment::table(t.clone())).await;
    let second = run.prepare(Fragment::table(t)).await;
    let (first, second) = (run.open(&first), run.open(&second));
    let (first, second) = futures::future::join(
        futures::TryStreamExt::try_collect::<Vec<_>>(first),
        futures::TryStreamExt::try_collect::<Vec<_>>(second),
    )
    .await;
    assert_eq!((rows(&first.unwrap()), rows(&second.unwrap())), (1000, 1000));
}

#[tokio::test]
async fn tls_is_used_and_verified_as_asked() {
    let files = tempfile::tempdir().unwrap();
    let certificate = files.path().join("server.crt");
    let server = PostgresServer::start_with(
        &["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"],
        |data| {
            let made = std::process::Command::new("openssl")
                .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout"])
                .arg(data.join("server.key"))
                .arg("-out")
                .arg(data.join("server.crt"))
                .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .output()
                .expect("openssl is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            std::fs::copy(data.join("server.crt"), &certificate).unwrap();
            for (program, mode) in [("chown", "--reference=."), ("chmod", "0600")] {
                let files = ["server.key", "server.crt"];
                let run = std::process::Command::new(program)
                    .arg(mode)
                    .args(files)
                    .current_dir(data)
                    .status();
                assert!(run.unwrap().success());
            }
        },
    );
    let root = certificate.to_str().unwrap();
    let encrypted = async |host: &str, mode: &str, options: Value| {
        let url = format!("postgresql://postgres@{host}:{}/postgres?sslmode={mode}", server.port());
        let source = open(&url, options);
        source.check().await?;
        let client = server.client("postgres").await;
        let sql = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                   WHERE s.ssl AND a.application_name = 'synoptic'";
        let encrypted: i64 = client.query_one(sql, &[]).await.expect("ssl is shown").get(0);
        drop(source);
        // The next one must not count this one's session.
        for _ in 0..200 {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'synoptic'";
            let left: i64 = client.query_one(sql, &[]).await.expect("activity is shown").get(0);
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, synoptic_source::SourceError>(encrypted > 0)
    };
    let rooted = || json!({ "tls_root_cert": root });
    assert!(!encrypted("127.0.0.1", "disable", json!({})).await.unwrap());
    assert!(encrypted("127.0.0.1", "prefer", json!({})).await.unwrap());
    assert!(encrypted("127.0.0.1", "require", json!({})).await.unwrap());
    assert!(encrypted("127.0.0.1", "verify-ca", rooted()).await.unwrap());
    assert!(encrypted("localhost", "verify-full", rooted()).await.unwrap());
    let error = encrypted("127.0.0.1", "verify-full", rooted()).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, &["certificate"]);
    let error = encrypted("localhost", "verify-full", json!({ "tls_root_cert": "/none" })).await;
    assert_error(&error.unwrap_err(), ErrorKind::Unavailable, &["tls_root_cert /none"]);
}

/// Passes everything on, but spoils the name of what connections prepare: to those who execute it,
/// as if a pooler had given them another connection of the server.
async fn forgetful_pooler(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = listener.local_addr().expect("the port is known").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server =
                TcpStream::connect(("127.0.0.1", port)).await.expect("the server is there");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let sent = &mut buffer[..length];
                    let prepares = b"PREPARE ";
                    if let Some(at) = sent.windows(prepares.len()).position(|w| w == prepares) {
                        sent[at + prepares.len()] = b'x';
                    }
                    if to_server.write_all(sent).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    own
}

#[tokio::test]
async fn a_pooler_that_loses_what_was_prepared_is_noticed() {
    let db = Db::new("CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    let port = forgetful_pooler(db.server.port()).await;
    let url = db.server.url(&db.name).replace(&db.server.port().to_string(), &port.to_string());
    for begins_with_stamp in [true, false] {
        let source = open(&url, json!({}));
        let name = TableName::new("public", "t");
        if begins_with_stamp {
            assert_eq!(source.stamp(&name).await.unwrap(), db.source.stamp(&name).await.unwrap());
        }
        for _ in 0..3 {
            let table = table(&source, "t").await;
            let batches = read(&source, Fragment::table(table)).await.unwrap();
            assert_eq!(texts(&batches, "a"), ["7"]);
            assert_eq!(source.stamp(&name).await.unwrap(), db.source.stamp(&name).await.unwrap());
        }
    }
}

#[tokio::test]
async fn any_name_has_a_stamp_or_none() {
    let long = "n".repeat(63);
    let db = Db::new(&format!(
        "SET standard_conforming_strings = on; \
         CREATE TABLE \"a\\'b\" (i int); CREATE TABLE {long} (i int)"
    ))
    .await;
    for (name, is_there) in [
        ("a\\'b", true),
        ("a\\''b", false),
        (long.as_str(), true),
        // The server would cut it to a name that is there.
        (format!("{long}n").as_str(), false),
        ("n\0", false),
        ("' OR true --", false),
    ] {
        let stamp = db.source.stamp(&TableName::new("public", name)).await.unwrap();
        assert_eq!(stamp.is_some(), is_there, "{name:?}");
    }
}
