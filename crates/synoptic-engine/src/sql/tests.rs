use synoptic_types::ErrorCode;

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
        "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01'",
        "SELECT * FROM t WITH (NOLOCK)",
        "SELECT * FROM t WITH (max_staleness = '5s')",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
        "SELECT * FROM t SETTINGS a = 1",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * INTO x FROM t",
        "SELECT a FROM t GROUP BY a WITH TOTALS",
        "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.s = b.s",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
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
fn standard_limits_become_limit() {
    for sql in ["SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "SELECT TOP 3 a FROM t"] {
        let Ok(Parsed::Query(statement)) = parse(sql) else { panic!("{sql}") };
        assert_eq!(statement.to_string(), "SELECT a FROM t LIMIT 3");
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
