"""Federations as a careful person writes them for one question and one placement, moving the least they can.

Filters, joins, aggregates and TopN run where their tables are; keys go from one source to the next; the
rest is joined here. Nothing is assumed that a query engine could not know: a key that has no partner on
the other side may exist. Each function answers the question from what it fetched.
"""

from support import tpch

from . import questions
from .fetch import Fetched

REVENUE = "l_extendedprice * (1 - l_discount)"


def whole(query: str):
    """All tables are in one PostgreSQL: the question itself."""

    def run(f: Fetched):
        f.from_postgres("answer", "lineitem", questions.text(query))
        return f.ask("FROM answer")

    return run


def q03_p1(f: Fetched):
    f.from_postgres("o", "orders", """
        SELECT o_orderkey, o_orderdate, o_shippriority FROM customer JOIN orders ON c_custkey = o_custkey
        WHERE c_mktsegment = 'BUILDING' AND o_orderdate < date '1995-03-15'""")
    f.from_parquet("l", "lineitem", ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"],
                   "l_shipdate > date '1995-03-15' AND l_orderkey IN (SELECT o_orderkey FROM o)")
    return f.ask(f"""
        SELECT l_orderkey, sum({REVENUE}) AS revenue, o_orderdate, o_shippriority FROM o JOIN l ON l_orderkey = o_orderkey
        GROUP BY ALL ORDER BY revenue DESC, o_orderdate LIMIT 10""")


def q05_p1(f: Fetched):
    f.from_sqlite("n", "SELECT n_nationkey, n_name FROM nation JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'")
    f.from_sqlite("s", """
        SELECT s_suppkey, s_nationkey FROM supplier JOIN nation ON s_nationkey = n_nationkey
        JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'""")
    f.from_postgres("o", "orders", """
        SELECT o_orderkey, c_nationkey FROM customer JOIN orders ON c_custkey = o_custkey
        WHERE c_nationkey = ANY ({keys}) AND o_orderdate >= date '1994-01-01' AND o_orderdate < date '1995-01-01'""",
                    f.column("SELECT n_nationkey FROM n"))
    f.from_parquet("l", "lineitem", ["l_orderkey", "l_suppkey", "l_extendedprice", "l_discount"],
                   "l_orderkey IN (SELECT o_orderkey FROM o) AND l_suppkey IN (SELECT s_suppkey FROM s)")
    return f.ask(f"""
        SELECT n_name, sum({REVENUE}) FROM o JOIN l ON l_orderkey = o_orderkey
        JOIN s ON l_suppkey = s_suppkey AND c_nationkey = s_nationkey JOIN n ON s_nationkey = n_nationkey GROUP BY n_name""")


def q10_p1(f: Fetched):
    f.from_sqlite("n", "SELECT n_nationkey, n_name FROM nation")
    # A customer without a nation is in no answer: the keys of nations go along.
    f.from_postgres("o", "orders", """
        SELECT o_orderkey, o_custkey FROM customer JOIN orders ON c_custkey = o_custkey
        WHERE o_orderdate >= date '1993-10-01' AND o_orderdate < date '1994-01-01' AND c_nationkey = ANY ({keys})""",
                    f.column("SELECT n_nationkey FROM n"))
    f.from_parquet("l", "lineitem", ["l_orderkey", "l_returnflag", "l_extendedprice", "l_discount"],
                   "l_returnflag = 'R' AND l_orderkey IN (SELECT o_orderkey FROM o)")
    f.ask(f"""
        CREATE TABLE top AS SELECT o_custkey, sum({REVENUE}) AS revenue FROM o JOIN l ON l_orderkey = o_orderkey
        GROUP BY o_custkey ORDER BY revenue DESC LIMIT 20""")
    return _with_customers(f)


def _with_customers(f: Fetched):
    f.from_postgres("c", "customer", """
        SELECT c_custkey, c_name, c_acctbal, c_address, c_phone, c_comment, c_nationkey FROM customer
        WHERE c_custkey = ANY ({keys})""", f.column("SELECT o_custkey FROM top"))
    return f.ask("""
        SELECT c_custkey, c_name, revenue, c_acctbal, n_name, c_address, c_phone, c_comment
        FROM top JOIN c ON o_custkey = c_custkey JOIN n ON c_nationkey = n_nationkey""")


def q03_split(f: Fetched):
    """B and C: customers on one server, orders and lineitem on the other."""
    f.from_postgres("c", "customer", "SELECT c_custkey FROM customer WHERE c_mktsegment = 'BUILDING'")
    f.from_postgres("answer", "orders", f"""
        SELECT l_orderkey, sum({REVENUE}) AS revenue, o_orderdate, o_shippriority
        FROM orders JOIN lineitem ON l_orderkey = o_orderkey
        WHERE o_custkey = ANY ({{keys}}) AND o_orderdate < date '1995-03-15' AND l_shipdate > date '1995-03-15'
        GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate LIMIT 10""",
                    f.column("SELECT c_custkey FROM c"))
    return f.ask("FROM answer")


def q05_split(f: Fetched):
    """C: customers, suppliers and nations on one server, orders and lineitem on the other."""
    asian = "JOIN nation ON {0} = n_nationkey JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'"
    f.from_postgres("n", "nation", "SELECT n_nationkey, n_name FROM nation JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'")
    f.from_postgres("s", "supplier", f"SELECT s_suppkey, s_nationkey FROM supplier {asian.format('s_nationkey')}")
    f.from_postgres("c", "customer", f"SELECT c_custkey, c_nationkey FROM customer {asian.format('c_nationkey')}")
    suppliers = ",".join(map(str, f.column("SELECT s_suppkey FROM s")))
    f.keys_sent += suppliers.count(",") + 1
    f.from_postgres("l", "lineitem", f"""
        SELECT o_custkey, l_suppkey, sum({REVENUE}) AS revenue FROM orders JOIN lineitem ON l_orderkey = o_orderkey
        WHERE o_orderdate >= date '1994-01-01' AND o_orderdate < date '1995-01-01'
        AND o_custkey = ANY ({{keys}}) AND l_suppkey = ANY ('{{{{{suppliers}}}}}'::bigint[])
        GROUP BY o_custkey, l_suppkey""", f.column("SELECT c_custkey FROM c"))
    return f.ask("""
        SELECT n_name, sum(revenue) FROM l JOIN c ON o_custkey = c_custkey
        JOIN s ON l_suppkey = s_suppkey AND c_nationkey = s_nationkey JOIN n ON s_nationkey = n_nationkey GROUP BY n_name""")


def q10_split(f: Fetched):
    """B and C: customers and nations on one server, orders and lineitem on the other."""
    f.from_postgres("sums", "orders", f"""
        SELECT o_custkey, sum({REVENUE}) AS revenue FROM orders JOIN lineitem ON l_orderkey = o_orderkey
        WHERE o_orderdate >= date '1993-10-01' AND o_orderdate < date '1994-01-01' AND l_returnflag = 'R' GROUP BY o_custkey""")
    # Whether the first of them have customers is seen when these come: the next ones would be asked for then.
    f.ask("CREATE TABLE top AS FROM sums ORDER BY revenue DESC LIMIT 20")
    f.from_postgres("n", "nation", "SELECT n_nationkey, n_name FROM nation")
    answer = _with_customers(f)
    assert len(answer) == 20, "some of the first customers are missing: more would have to be fetched"
    return answer


def q08_a(f: Fetched):
    """part is on the second server; p_partkey is a key, so the join is a filter by its keys."""
    f.from_postgres("p", "part", "SELECT p_partkey FROM part WHERE p_type = 'ECONOMY ANODIZED STEEL'")
    f.from_postgres("answer", "lineitem", f"""
        SELECT o_year, sum(CASE WHEN nation = 'BRAZIL' THEN volume ELSE 0 END) / sum(volume) AS mkt_share FROM (
            SELECT extract(year FROM o_orderdate) AS o_year, {REVENUE} AS volume, n2.n_name AS nation
            FROM supplier, lineitem, orders, customer, nation n1, nation n2, region
            WHERE l_partkey = ANY ({{keys}}) AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey
            AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey AND r_name = 'AMERICA'
            AND s_nationkey = n2.n_nationkey AND o_orderdate BETWEEN date '1995-01-01' AND date '1996-12-31') AS x
        GROUP BY o_year""", f.column("SELECT p_partkey FROM p"))
    return f.ask("FROM answer")


def q14_split(f: Fetched):
    """A and B: part on one server, lineitem on the other. Both kinds of parts count, so all sums are needed."""
    f.from_postgres("l", "lineitem", f"""
        SELECT l_partkey, sum({REVENUE}) AS revenue FROM lineitem
        WHERE l_shipdate >= date '1995-09-01' AND l_shipdate < date '1995-10-01' GROUP BY l_partkey""")
    f.from_postgres("p", "part", "SELECT p_partkey, p_type LIKE 'PROMO%' AS promo FROM part WHERE p_partkey = ANY ({keys})",
                    f.column("SELECT l_partkey FROM l"))
    return f.ask("""
        SELECT 100.00 * sum(CASE WHEN promo THEN revenue ELSE 0 END) / sum(revenue) FROM l JOIN p ON l_partkey = p_partkey""")


def q19_a(f: Fetched):
    kinds = [("Brand#12", "'SM CASE', 'SM BOX', 'SM PACK', 'SM PKG'", 1, 11, 5),
             ("Brand#23", "'MED BAG', 'MED BOX', 'MED PKG', 'MED PACK'", 10, 20, 10),
             ("Brand#34", "'LG CASE', 'LG BOX', 'LG PACK', 'LG PKG'", 20, 30, 15)]
    of_part = [f"(p_brand = '{brand}' AND p_container IN ({boxes}) AND p_size BETWEEN 1 AND {size})"
               for brand, boxes, _, _, size in kinds]
    f.from_postgres("p", "part", f"SELECT p_partkey, p_brand FROM part WHERE {' OR '.join(of_part)}")
    sums = ", ".join(f"sum({REVENUE}) FILTER (WHERE l_quantity BETWEEN {low} AND {high}) AS r{at}"
                     for at, (_, _, low, high, _) in enumerate(kinds))
    f.from_postgres("l", "lineitem", f"""
        SELECT l_partkey, {sums} FROM lineitem WHERE l_partkey = ANY ({{keys}}) AND l_shipmode IN ('AIR', 'AIR REG')
        AND l_shipinstruct = 'DELIVER IN PERSON' AND l_quantity BETWEEN 1 AND 30 GROUP BY l_partkey""",
                    f.column("SELECT p_partkey FROM p"))
    chosen = " ".join(f"WHEN '{brand}' THEN r{at}" for at, (brand, *_) in enumerate(kinds))
    return f.ask(f"SELECT sum(CASE p_brand {chosen} END) FROM l JOIN p ON l_partkey = p_partkey")


BY_HAND = {
    "P1": {"q03": q03_p1, "q05": q05_p1, "q10": q10_p1},
    "P3": {query: whole(query) for query in ("q03", "q05", "q10")},
    "A": {"q08": q08_a, "q14": q14_split, "q19": q19_a},
    "B": {"q03": q03_split, "q10": q10_split, "q14": q14_split},
    "C": {"q03": q03_split, "q05": q05_split, "q10": q10_split},
}
assert all(placement in tpch.PLACEMENTS for placement in BY_HAND)
