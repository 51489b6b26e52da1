"""Queries whose answers have every kind of schema: made by crossing shapes with columns."""

COLUMNS = {
    "bank.public.kinds": ["id", "b", "i2", "i4", "i8", "f4", "f8", "n", "wide", "t", "v", "c", "d", "tm", "ts", "tz",
                          "iv", "by", "u", "j", "jb", "m", "p", "ia", "ta", "net"],
    "bank.public.accounts": ["id", "owner", "country", "opened", "balance", "active", "note"],
    "reference.main.symbols": ["symbol", "name", "currency", "lot", "listed"],
    "lake.public.prices": ["symbol", "day", "close", "volume"],
    "fx.public.rates": ["day", "currency", "rate"],
    "events.public.events": ["event", "account_id", "kind", "amount"],
    "ticks.public.ticks": ["symbol", "at", "bid"],
}

SHAPES = [
    "SELECT {c} FROM {t}",
    "SELECT {c} AS a, {c} AS b FROM {t} WHERE {c} IS NOT NULL LIMIT 3",
    "SELECT DISTINCT {c} FROM (SELECT {c} FROM {t} LIMIT 50) s",
    "SELECT count({c}), min({c}), max({c}) FROM {t}",
    "SELECT {c}, count(*) FROM {t} GROUP BY {c}",
    "SELECT {c} FROM {t} WHERE 1 = 0",
]

# Types that have no order or hash: only some shapes make sense.
NO_AGGREGATE = {("bank.public.kinds", c) for c in ("iv", "ia", "ta", "by")}

OTHERS = """
SELECT 1
SELECT 1, 1
SELECT 1 AS a, NULL AS b, 'x' AS c, 1.5 AS d, true AS e
SELECT NULL
SELECT count(*)
SELECT CAST(1 AS bigint), CAST(1 AS smallint), CAST(1 AS real), CAST('x' AS varchar)
SELECT DATE '2024-01-01', TIMESTAMP '2024-01-01 00:00:00', INTERVAL '1 day'
SELECT ARRAY[1, 2, NULL], ARRAY['a', 'b']
SELECT 1.50 + 2.25, 1 / 3, 7 % 3, 2 * 3.0
SELECT CASE WHEN 1 = 1 THEN 'x' END
SELECT CASE WHEN 1 = 1 THEN 'x' ELSE 'y' END
SELECT now() IS NULL
SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v (n, s)
SELECT 1 UNION ALL SELECT 2
SELECT 1 UNION SELECT NULL
SELECT 1 AS a UNION ALL SELECT 2.5
SELECT symbol FROM reference.symbols UNION ALL SELECT symbol FROM lake.prices
SELECT symbol, lot FROM reference.symbols UNION SELECT symbol, volume FROM lake.prices
SELECT symbol FROM reference.symbols INTERSECT SELECT symbol FROM ticks.ticks
SELECT symbol FROM reference.symbols EXCEPT SELECT symbol FROM ticks.ticks
SELECT a.id, t.id FROM bank.accounts a LEFT JOIN bank.trades t ON t.account_id = a.id LIMIT 10
SELECT a.id, t.id FROM bank.accounts a RIGHT JOIN bank.trades t ON t.account_id = a.id LIMIT 10
SELECT a.id, t.id FROM bank.accounts a FULL JOIN bank.trades t ON t.account_id = a.id LIMIT 10
SELECT s.symbol, p.close FROM reference.symbols s JOIN lake.prices p USING (symbol) LIMIT 5
SELECT * FROM reference.symbols s JOIN lake.prices p ON p.symbol = s.symbol LIMIT 5
SELECT * FROM reference.symbols s LEFT JOIN ticks.ticks k ON k.symbol = s.symbol LIMIT 5
SELECT * FROM reference.symbols NATURAL JOIN ticks.ticks LIMIT 5
SELECT s.* FROM reference.symbols s WHERE EXISTS (SELECT 1 FROM bank.trades t WHERE t.symbol = s.symbol)
SELECT s.symbol FROM reference.symbols s WHERE s.symbol NOT IN (SELECT symbol FROM bank.trades)
SELECT (SELECT max(close) FROM lake.prices) AS top
SELECT symbol, (SELECT max(close) FROM lake.prices p WHERE p.symbol = s.symbol) FROM reference.symbols s
SELECT symbol, sum(qty * price) FROM bank.trades GROUP BY symbol
SELECT symbol, avg(price), stddev(fee), count(DISTINCT account_id) FROM bank.trades GROUP BY symbol
SELECT symbol, sum(qty) FILTER (WHERE qty > 0) FROM bank.trades GROUP BY symbol
SELECT symbol, country, count(*) FROM bank.trades t JOIN bank.accounts a ON a.id = t.account_id GROUP BY ROLLUP (symbol, country)
SELECT symbol, currency, count(*) FROM reference.symbols GROUP BY GROUPING SETS ((symbol), (currency), ())
SELECT symbol, row_number() OVER (PARTITION BY symbol ORDER BY day) FROM lake.prices LIMIT 5
SELECT symbol, lag(close) OVER (PARTITION BY symbol ORDER BY day), sum(volume) OVER (PARTITION BY symbol) FROM lake.prices LIMIT 5
SELECT first_value(rate) OVER (ORDER BY day, currency) FROM fx.rates LIMIT 5
SELECT date_trunc('month', day) AS m, max(close) FROM lake.prices GROUP BY 1
SELECT extract(year FROM day), count(*) FROM lake.prices GROUP BY 1
SELECT coalesce(note, 'none'), nullif(owner, 'x') FROM bank.accounts LIMIT 5
SELECT upper(owner), length(owner), substr(owner, 1, 2), owner || '!' FROM bank.accounts LIMIT 5
SELECT balance * 2, balance + 1, -balance, abs(balance), round(balance) FROM bank.accounts LIMIT 5
SELECT opened + INTERVAL '1 day', opened - opened FROM bank.accounts LIMIT 5
SELECT CAST(balance AS double), CAST(id AS varchar), CAST(opened AS timestamp) FROM bank.accounts LIMIT 5
SELECT id IS NULL, active IS TRUE, NOT active FROM bank.accounts LIMIT 5
SELECT array_agg(symbol) FROM reference.symbols
SELECT string_agg(symbol, ',') FROM reference.symbols
SELECT median(rate), approx_distinct(currency) FROM fx.rates
SELECT struct(symbol, lot) FROM reference.symbols LIMIT 2
SELECT make_array(symbol, name) FROM reference.symbols LIMIT 2
SELECT unnest(ARRAY[1, 2, 3])
SELECT * FROM generate_series(1, 5)
WITH t AS (SELECT symbol, max(close) AS top FROM lake.prices GROUP BY symbol) SELECT * FROM t JOIN reference.symbols USING (symbol)
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n
SELECT * FROM bank.active_accounts LIMIT 2
SELECT * FROM bank.volumes
SELECT * FROM bank.visits LIMIT 2
SELECT * FROM bank.empty_one
SELECT count(*), sum(id) FROM bank.empty_one
SELECT * FROM bank."Mixed Case"."Select"
SELECT "Order", "with space", "quote""d", "ünï" FROM bank."Mixed Case"."Select"
SELECT * FROM reference."Odd Name"
SELECT * FROM reference.big_countries
SELECT * FROM standby.trades LIMIT 2
SELECT * FROM synoptic.system.sources
SELECT * FROM synoptic.system.tables
SELECT * FROM synoptic.system.queries
SELECT * FROM synoptic.system.settings
SELECT table_catalog, table_schema, table_name FROM information_schema.tables LIMIT 5
EXPLAIN SELECT * FROM lake.prices
EXPLAIN ANALYZE SELECT count(*) FROM lake.prices
SHOW TABLES
SHOW synoptic.pushdown
""".strip().splitlines()


def queries():
    made = []
    for table, columns in COLUMNS.items():
        for column in columns:
            for at, shape in enumerate(SHAPES):
                if (table, column) in NO_AGGREGATE and at in (2, 3, 4):
                    continue
                made.append(shape.format(c=f'"{column}"', t=table))
    return made + OTHERS
