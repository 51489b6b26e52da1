"""Answers that were once wrong, each with the smallest data that shows it."""

import sqlite3

import pytest

from support import wire
from support.server import Server

POSTGRES = """
CREATE TYPE pair AS (a int, b text);
CREATE TABLE pairs (id int, r pair);
INSERT INTO pairs VALUES (1, ROW(1, NULL)), (2, ROW(NULL, NULL)), (3, NULL), (4, ROW(1, 'x'));
CREATE TABLE parent (id int PRIMARY KEY, a int NOT NULL);
CREATE TABLE child () INHERITS (parent);
ALTER TABLE child ALTER a DROP NOT NULL;
INSERT INTO parent VALUES (1, 1);
INSERT INTO child VALUES (1, NULL), (1, 1);
CREATE TABLE cut (id int NOT NULL) PARTITION BY LIST (id);
CREATE TABLE cut_1 PARTITION OF cut FOR VALUES IN (1);
ALTER TABLE ONLY cut ADD PRIMARY KEY (id);
INSERT INTO cut VALUES (1), (1);
CREATE TABLE moments (id int, ts timestamp, b bool);
INSERT INTO moments VALUES (1, '2024-01-01 00:00:00.7', true), (2, '1000-01-01', false), (3, '3000-01-01', true);
CREATE TABLE doubles (f float8, g float8);
INSERT INTO doubles VALUES (0.30000000000000004, 1e-20), ('NaN', 'NaN');
"""

SQLITE = """
CREATE TABLE keys (a TEXT PRIMARY KEY, b INT);
INSERT INTO keys VALUES (NULL, 1), (NULL, 2), ('x', 3);
CREATE TABLE times (ts TIMESTAMP PRIMARY KEY, b INT);
INSERT INTO times VALUES ('2024-01-01', 1), ('2024-01-01 00:00:00', 1);
CREATE TABLE untyped (k PRIMARY KEY, b INT);
INSERT INTO untyped VALUES (1, 1), ('1', 1);
CREATE TABLE ids (id INTEGER);
INSERT INTO ids VALUES (1), (2), (3);
"""


@pytest.fixture(scope="module")
def client(folder, postgres):
    postgres.run("CREATE DATABASE right_answers")
    postgres.run(POSTGRES, "right_answers")
    path = folder / "right.db"
    database = sqlite3.connect(path)
    database.executescript(SQLITE)
    database.close()
    config = folder / "right.toml"
    config.write_text(f"""
[server]
listen = "127.0.0.1:0"
[sources.pg]
connector = "postgres"
url = "{postgres.url('right_answers')}"
[sources.lite]
connector = "sqlite"
path = "{path}"
""")
    server = Server(config, folder / "right.log")
    with wire.Client(server.port) as client:
        yield client
    assert server.alive() and server.stop() == 0


CASES = [
    # A key that may hold NULL, or whose values are told apart only at the source, is not unique here.
    ("SELECT DISTINCT a FROM lite.keys ORDER BY a", [("x",), (None,)]),
    ("SELECT a, count(*) AS n FROM lite.keys GROUP BY a, b ORDER BY 1, 2", [("x", 1), (None, 1), (None, 1)]),
    ("SELECT count(*) FROM (SELECT ts, b FROM lite.times GROUP BY ts, b) x", [(1,)]),
    ("SELECT count(*) AS n FROM lite.times GROUP BY ts, b", [(2,)]),
    ("SELECT count(*) AS n FROM lite.untyped GROUP BY k, b", [(2,)]),
    # A parent's key and NOT NULL do not bind its children; an invalid key binds nobody.
    ("SELECT id, count(*) AS n FROM pg.parent GROUP BY id, a ORDER BY n", [(1, 1), (1, 2)]),
    ("SELECT id FROM pg.parent WHERE a IS NULL", [(1,)]),
    ("SELECT DISTINCT id FROM pg.cut", [(1,)]),
    # A row value with NULLs in it is not NULL.
    ("SELECT id FROM pg.pairs WHERE r IS NULL", [(3,)]),
    ("SELECT id FROM pg.pairs WHERE r IS NOT NULL ORDER BY id", [(1,), (2,), (4,)]),
    # Casts to a coarser unit cut; TRY_CAST of what does not fit is NULL.
    ("SELECT id FROM pg.moments WHERE arrow_cast(ts, 'Timestamp(Second, None)') = timestamp '2024-01-01 00:00:00'",
     [(1,)]),
    ("SELECT id FROM pg.moments WHERE try_cast(ts AS timestamp(9)) IS NOT NULL", [(1,)]),
    # Literals are 64 bits wide here.
    ("SELECT count(*) FROM pg.moments WHERE (CASE WHEN b THEN 2 ELSE 1 END) * 2000000000 > 100", [(3,)]),
    # An alias keeps its name when other columns share one.
    ("SELECT -id AS id, 1, 1 FROM lite.ids ORDER BY id LIMIT 1", [(-3, 1, 1)]),
    ("SELECT abs(id - 2) AS id, 1, 1 FROM lite.ids ORDER BY id", [(0, 1, 1), (1, 1, 1), (1, 1, 1)]),
    # A double beside a decimal stays a double.
    ("SELECT count(*) FROM pg.doubles WHERE f IS NOT DISTINCT FROM 0.3", [(0,)]),
    ("SELECT count(*) FROM pg.doubles WHERE nullif(f, 0.3) IS NULL", [(0,)]),
    ("SELECT count(*) FROM pg.doubles WHERE f IN (SELECT 0.3)", [(0,)]),
    ("SELECT count(*) FROM pg.doubles WHERE CASE f WHEN 0.3 THEN true ELSE false END", [(0,)]),
    ("SELECT max(coalesce(g, 0.5)) FROM pg.doubles WHERE g < 1", [(1e-20,)]),
    ("SELECT max(g) FROM (SELECT g FROM pg.doubles WHERE g < 1 UNION ALL SELECT -0.5) x", [(1e-20,)]),
    ("SELECT sum(DISTINCT i), count(DISTINCT j) FROM (VALUES (9, 1), (8, 2), (8, 3), (NULL, 4)) t(i, j)", [(17, 4)]),
]


@pytest.mark.parametrize("pushdown", ["auto", "none"])
@pytest.mark.parametrize("sql,expected", CASES, ids=[sql for sql, _ in CASES])
def test_right(client, sql, expected, pushdown):
    table = client.query(sql, headers=[("x-synoptic-pushdown", pushdown)]).table
    columns = [column.to_pylist() for column in table.columns]
    assert list(zip(*columns)) == expected
