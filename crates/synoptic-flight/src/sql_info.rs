//! GetSqlInfo: what this server is and can do.
//!
//! Every key from 0 to 11, 100, 101 and 500 to 576 is present, each in the union child that
//! clients cast it to: JDBC before 19 fails on a missing key, and a wrong child is a cast error in
//! JDBC, a failed assertion in ADBC, undefined behaviour in ODBC. The identifier cases (503, 505),
//! the ordering of NULLs (507) and the isolation (562) are int64, although they are small.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};

use crate::options::FlightOptions;
use crate::status::{Fault, Result};

/// The answer to GetSqlInfo for these keys; no keys are all keys, unknown ones are skipped.
pub(crate) fn answer(options: &FlightOptions, keys: &[u32]) -> Result<RecordBatch> {
    all(options)?
        .record_batch(keys.iter().copied())
        .map_err(|e| Fault::internal(format!("GetSqlInfo: {e}")))
}

/// The schema of the answer.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(SqlInfoDataBuilder::schema().clone())
}

fn all(options: &FlightOptions) -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info, options);
    names(&mut info);
    abilities(&mut info);
    limits(&mut info, options);
    transactions_and_cursors(&mut info);
    info.build().map_err(|e| Fault::internal(format!("GetSqlInfo: {e}")))
}

fn server(info: &mut SqlInfoDataBuilder, options: &FlightOptions) {
    info.append(0, "Synoptic");
    info.append(1, env!("CARGO_PKG_VERSION"));
    // The version of the Arrow columnar format.
    info.append(2, "1.3.0");
    info.append(3, false); // not read only: sources may be writable
    info.append(4, true); // SQL
    info.append(5, false); // Substrait
    info.append(6, "");
    info.append(7, "");
    info.append(8, 0_i32); // no transactions
    info.append(9, true); // CancelQuery
    info.append(10, false); // bulk ingestion
    info.append(11, false);
    let idle = i32::try_from(options.session_idle_ttl.as_millis()).unwrap_or(i32::MAX);
    info.append(100, idle); // prepared statements, unused, in milliseconds
    info.append(101, 0_i32);
}

fn names(info: &mut SqlInfoDataBuilder) {
    const LOWER_CASE: i64 = 3;
    const CASE_SENSITIVE: i64 = 0;
    const NULLS_SORTED_HIGH: i64 = 0;
    for ddl in 500..=502 {
        info.append(ddl, false);
    }
    info.append(503, LOWER_CASE);
    info.append(504, "\"");
    info.append(505, CASE_SENSITIVE);
    info.append(506, true); // every table that is listed can be selected
    info.append(507, NULLS_SORTED_HIGH);
    info.append(508, KEYWORDS);
    info.append(509, NUMERIC_FUNCTIONS);
    info.append(510, STRING_FUNCTIONS);
    info.append(511, SYSTEM_FUNCTIONS);
    info.append(512, DATETIME_FUNCTIONS);
    info.append(513, "\\");
    info.append(514, "");
    info.append(529, "schema");
    info.append(530, "");
    info.append(531, "catalog");
    info.append(532, true); // the catalog comes first
}

fn abilities(info: &mut SqlInfoDataBuilder) {
    for (key, can) in [
        (515, true),  // column aliases
        (516, true),  // NULL + 1 is NULL
        (518, true),  // table aliases
        (519, false), // which need not differ from table names
        (520, true),  // expressions in ORDER BY
        (521, true),  // ORDER BY what is not selected
        (523, true),  // LIKE … ESCAPE
        (524, true),  // NOT NULL columns
        (527, false), // integrity enhancement
        (536, false), // SELECT FOR UPDATE
        (537, false), // stored procedures
        (539, true),  // correlated subqueries
    ] {
        info.append(key, can);
    }
    info.append(517, conversions());
    info.append(522, 0b11_i32); // GROUP BY unrelated and beyond SELECT
    info.append(525, 0b11_i32); // minimum and core grammar
    info.append(526, 0b1_i32); // SQL-92 entry level
    info.append(528, 2_i32); // full outer joins
    info.append(533, 0_i32); // schemas: only in queries
    info.append(534, 0_i32); // catalogs: only in queries
    info.append(535, 0_i32); // no positioned commands
    info.append(538, 0b1111_i32); // subqueries in comparisons, EXISTS, IN, quantified
    info.append(540, 0b11_i32); // UNION and UNION ALL
}

fn limits(info: &mut SqlInfoDataBuilder, options: &FlightOptions) {
    // 0 is "no limit, or not known".
    for key in (541..=554).chain(558..=561) {
        info.append(key, 0_i64);
    }
    info.append(555, i64::try_from(options.max_row_bytes).unwrap_or(i64::MAX));
    info.append(556, true); // which counts long values too
    info.append(557, i64::try_from(options.max_request_bytes).unwrap_or(i64::MAX));
}

fn transactions_and_cursors(info: &mut SqlInfoDataBuilder) {
    const READ_ONLY: i32 = 0b10;
    const FORWARD_ONLY: i32 = 0b10;
    info.append(562, 0_i64); // isolation: none
    info.append(563, false);
    info.append(564, 0b1_i32); // only TRANSACTION_NONE
    info.append(565, false);
    info.append(566, false);
    info.append(567, FORWARD_ONLY);
    info.append(568, 0_i32);
    info.append(569, READ_ONLY);
    info.append(570, 0_i32);
    info.append(571, 0_i32);
    for key in 572..=576 {
        info.append(key, false);
    }
}

/// What CAST converts from each type, in the numbers of `SqlSupportsConvert`.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    // Numbers: BIGINT, DECIMAL, FLOAT, INTEGER, NUMERIC, REAL, SMALLINT, TINYINT.
    const NUMBERS: [i32; 8] = [0, 5, 6, 7, 12, 13, 14, 17];
    const BINARY: [i32; 3] = [1, 10, 18];
    const TEXT: [i32; 3] = [3, 11, 19];
    const BIT: i32 = 2;
    const DATE: i32 = 4;
    const TIME: i32 = 15;
    const TIMESTAMP: i32 = 16;
    let mut map = BTreeMap::new();
    for number in NUMBERS {
        map.insert(number, [&NUMBERS[..], &TEXT, &[BIT]].concat());
    }
    for binary in BINARY {
        map.insert(binary, [&BINARY[..], &TEXT].concat());
    }
    let everything = [&NUMBERS[..], &BINARY, &TEXT, &[BIT, DATE, TIME, TIMESTAMP]].concat();
    for text in TEXT {
        map.insert(text, everything.clone());
    }
    map.insert(BIT, [&NUMBERS[..], &TEXT].concat());
    map.insert(DATE, [&[TIMESTAMP][..], &TEXT].concat());
    map.insert(TIME, TEXT.to_vec());
    map.insert(TIMESTAMP, [&[DATE, TIME][..], &TEXT].concat());
    map
}

/// Words with a meaning.
const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "CUBE",
    "CURRENT",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "RESET",
    "RIGHT",
    "ROLLUP",
    "ROW",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SETS",
    "SHOW",
    "SIMILAR",
    "SOME",
    "TABLE",
    "THEN",
    "TRUE",
    "TRY_CAST",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "USE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "ceil",
    "cos",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sqrt",
    "tan",
    "trunc",
];

const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "btrim",
    "char_length",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "initcap",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "position",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring",
    "translate",
    "trim",
    "upper",
];

const SYSTEM_FUNCTIONS: &[&str] = &["coalesce", "nullif", "version"];

const DATETIME_FUNCTIONS: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "date_bin",
    "date_part",
    "date_trunc",
    "extract",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_timestamp",
    "to_unixtime",
];

#[cfg(test)]
mod tests;
