use synoptic_types::{ErrorCode, TableVersion};

use super::*;

fn code(sql: &str) -> ErrorCode {
    match parse(sql) {
        Ok(parsed) => panic!("{sql} was accepted as {parsed:?}"),
        Err(error) => error.code(),
    }
}

#[test]
fn question_marks_are_numbered_outside_of_strings_and_comments() {
    for (sql, expected) in [
        ("SELECT ? + ?", "SELECT $1 + $2"),
        ("SELECT '?', \"?\", ? -- ?\n, ?", "SELECT '?', \"?\", $1 -- ?\n, $2"),
        ("SELECT 'é?' , ? /* ? */", "SELECT 'é?' , $1 /* ? */"),
        ("SELECT $2, $1", "SELECT $2, $1"),
        ("SELECT a\nFROM t\nWHERE é = ?", "SELECT a\nFROM t\nWHERE é = $1"),
    ] {
        assert_eq!(number_placeholders(sql).as_deref().ok(), Some(expected));
    }
    assert_eq!(code("SELECT ?, $1"), ErrorCode::Syntax);
}

#[test]
fn what_is_not_honoured_is_refused() {
    for sql in [
        "SELECT * FROM t FOR SYSTEM_TIME AS OF now() - INTERVAL '1 hour'",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP 'yesterday'",
        "SELECT * FROM t FOR SYSTEM_TIME BETWEEN '2026-01-01' AND '2026-01-02'",
        "SELECT * FROM (SELECT 1) FOR SYSTEM_TIME AS OF '2026-01-01'",
        "UPDATE t FOR SYSTEM_TIME AS OF '2026-01-01' SET a = 1",
        "SELECT * FROM t WITH (NOLOCK)",
        "SELECT * FROM t WITH (max_staleness = 5)",
        "SELECT * FROM t WITH (pushdown = 'none')",
        "SELECT * FROM t WITH (copy = '')",
        "SELECT * FROM f(1) WITH (copy = 'a') AS x JOIN t WITH (FORCESEEK) ON true",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
        "SELECT * FROM t SETTINGS a = 1",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * INTO x FROM t",
        "SELECT a FROM t GROUP BY a WITH TOTALS",
        "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.s = b.s",
        "INSERT INTO t DEFAULT VALUES",
        "UPDATE t SET a = 1 FROM u",
        "UPDATE t SET a = 1 RETURNING a",
        "UPDATE t SET a = DEFAULT",
        "UPDATE t SET (a, b) = (1, 2)",
        "UPDATE t SET t.a = 1",
        "UPDATE t JOIN u ON true SET a = 1",
        "UPDATE t WITH (copy = 'a') SET a = 1",
        "DELETE FROM t USING u",
        "DELETE FROM t, u",
        "DELETE FROM t RETURNING a",
        "DELETE FROM t ORDER BY a LIMIT 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "CREATE TABLE t (a INT)",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "COPY t TO 'x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "SELECT (SELECT a FROM t FOR UPDATE)",
        "SELECT * FROM (SELECT * FROM t TABLESAMPLE SYSTEM (10)) x",
        "SELECT 1; SELECT 2",
        "SELECT * FROM t FETCH FIRST 3 ROWS WITH TIES",
    ] {
        let code = code(sql);
        assert!(matches!(code, ErrorCode::Unsupported | ErrorCode::Syntax), "{sql}: {code}");
    }
}

#[test]
fn hints_are_taken_off_their_tables_wherever_the_alias_stands() {
    let cases = [
        ("SELECT * FROM a.b WITH (max_staleness = '5s') AS q", "SELECT * FROM a.b AS q"),
        (
            "SELECT * FROM a.b with (Max_Staleness='5s', on_unmet = 'stale') q, c",
            "SELECT * FROM a.b q, c",
        ),
        (
            "SELECT * FROM a.b AS q WITH (copy = 's') WHERE x = 1",
            "SELECT * FROM a.b AS q WHERE x = 1",
        ),
        ("SELECT * FROM a.b WITH (copy = 's') WHERE x = 1", "SELECT * FROM a.b WHERE x = 1"),
        (
            "SELECT 'WITH (copy = ''s'')' FROM \"é\" WITH (copy = 's') AS q (x, y) JOIN t ON true",
            "SELECT 'WITH (copy = ''s'')' FROM \"é\" AS q (x, y) JOIN t ON true",
        ),
        (
            "WITH copy AS (SELECT 1) SELECT * FROM copy",
            "WITH copy AS (SELECT 1) SELECT * FROM copy",
        ),
    ];
    for (sql, plain) in cases {
        let Ok(Parsed::Query(query)) = parse(sql) else { panic!("{sql}: {:?}", parse(sql)) };
        assert_eq!(query.statement.to_string(), plain);
        assert_eq!(query.hints.len(), usize::from(sql.contains("ITH (") || sql.contains("ith (")));
    }
    let Ok(Parsed::Query(query)) = parse(cases[1].0) else { panic!("it parses") };
    let options = [("max_staleness", "5s"), ("on_unmet", "stale")];
    assert_eq!(query.hints[0].table.to_string(), "a.b");
    assert_eq!(query.hints[0].options, options.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(code("SELECT * FROM t WITH (max_staleness = 'soon')"), ErrorCode::InvalidOption);
}

#[test]
fn standard_limits_become_limit() {
    for sql in ["SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "SELECT TOP 3 a FROM t"] {
        let Ok(Parsed::Query(query)) = parse(sql) else { panic!("{sql}") };
        assert_eq!(query.statement.to_string(), "SELECT a FROM t LIMIT 3");
    }
}

#[test]
fn commands_are_recognised() {
    let command = |sql: &str| match parse(sql) {
        Ok(Parsed::Command(command)) => command,
        other => panic!("{sql}: {other:?}"),
    };
    let set = |name: &str, value: &str| Command::Set { name: name.into(), value: value.into() };
    assert_eq!(command("SET synoptic.pushdown = 'none'"), set("synoptic.pushdown", "none"));
    assert_eq!(command("SET synoptic.max_rows_read TO 10"), set("synoptic.max_rows_read", "10"));
    assert_eq!(command("SET TIME ZONE 'UTC'"), set("timezone", "UTC"));
    assert_eq!(
        command("RESET synoptic.pushdown"),
        Command::Reset { name: "synoptic.pushdown".into() }
    );
    assert_eq!(
        command("SHOW synoptic.pushdown"),
        Command::Show(Shown::Option("synoptic.pushdown".into()))
    );
    assert_eq!(command("SHOW ALL"), Command::Show(Shown::Options));
    assert_eq!(command("SHOW TABLES"), Command::Show(Shown::Tables { schema: vec![], like: None }));
    assert_eq!(
        command("SHOW COLUMNS FROM portfolio.\"Mixed\""),
        Command::Show(Shown::Columns { table: vec!["portfolio".into(), "Mixed".into()] })
    );
    assert_eq!(command("USE portfolio"), Command::Use(vec!["portfolio".into()]));
    for sql in ["BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK"] {
        assert_eq!(command(sql), Command::Nothing);
    }
    assert_eq!(command("CALL system.cancel('abc')"), Command::Cancel { query_id: "abc".into() });
}

#[test]
fn a_moment_goes_into_the_name_of_its_table() {
    for (sql, expected) in [
        (
            "SELECT * FROM s.T FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-02T03:04:05+01:00'",
            "SELECT * FROM s.\"t FOR SYSTEM_TIME AS OF 2026-01-02T02:04:05Z\" AS \"t\" ",
        ),
        (
            "SELECT q.a FROM \"A\"\"b\" for system_time as of '2026-01-02' AS q, u",
            "SELECT q.a FROM \"A\"\"b FOR SYSTEM_TIME AS OF 2026-01-02T00:00:00Z\" AS q, u",
        ),
        (
            "SELECT 1 FROM t FOR SYSTEM_TIME AS OF '2026-01-02 03:04:05.25' WITH (copy = 'a') x",
            "SELECT 1 FROM \"t FOR SYSTEM_TIME AS OF 2026-01-02T03:04:05.250Z\" \
             WITH (copy = 'a') x",
        ),
        (
            "SELECT 'FOR SYSTEM_TIME', system_time FROM t",
            "SELECT 'FOR SYSTEM_TIME', system_time FROM t",
        ),
        (
            "SELECT version() FROM s.t FOR VERSION AS OF 3 JOIN t for version as of 0 AS o",
            "SELECT version() FROM s.\"t FOR VERSION AS OF 3\" AS \"t\" JOIN \
             \"t FOR VERSION AS OF 0\" AS o",
        ),
    ] {
        assert_eq!(versions::in_names(sql).as_deref().ok(), Some(expected));
    }
    let (table, state) = version("t FOR SYSTEM_TIME AS OF 2026-01-02T02:04:05Z").expect("one");
    let moment = state.moment().map(|moment| moment.timestamp());
    assert_eq!((table, moment), ("t", Some(1_767_319_445)));
    let third = version("t FOR VERSION AS OF 3").expect("one");
    assert_eq!(third, ("t", TableVersion::Number(3)));
    assert_eq!(version("t"), None);
}

#[test]
fn a_mention_without_a_hint_counts_beside_those_with_one() {
    let hints = |sql: &str| match parse(sql) {
        Ok(Parsed::Query(query)) => {
            query.hints.iter().map(|hint| (hint.table.to_string(), hint.options.len())).collect()
        }
        other => panic!("{other:?}"),
    };
    let one: Vec<(String, usize)> =
        hints("SELECT * FROM t WITH (max_staleness = '1h') a JOIN t b ON true JOIN u ON true");
    assert_eq!(one, [("t".to_owned(), 1), ("t".to_owned(), 0)]);
    assert_eq!(hints("SELECT * FROM t a JOIN t b ON true"), []);
}
