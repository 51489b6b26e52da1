//! Random tables with hostile values.

use std::fmt::Write as _;

use super::rng::Rng;
use crate::slt::tables::{Column, Table};

/// What a value is, as far as queries are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Decimal,
    Float,
    Text,
    Date,
    Timestamp,
    Moment,
    Bool,
    Bytes,
}

/// A column that tables may have.
struct Template {
    name: &'static str,
    /// As PostgreSQL and the other loaders know it.
    kind: &'static str,
    /// Under which PostgreSQL keeps it.
    collation: &'static str,
    is: Kind,
    values: &'static [&'static str],
}

const WORDS: &[&str] = &[
    "",
    " ",
    "a",
    "A",
    "b",
    "B",
    "ä",
    "ab",
    "ab ",
    "aB",
    "a%",
    "a_b",
    "\\",
    "é",
    "e\u{301}",
    "Z",
    "z",
    "10",
    "9",
    "ß",
    "ss",
    "it's",
    "\u{10FFFF}",
];
const DATES: &[&str] = &[
    "0001-01-01",
    "1582-10-10",
    "1969-12-31",
    "1970-01-01",
    "2024-02-29",
    "2024-03-31",
    "9999-12-31",
];

const fn template(
    name: &'static str,
    kind: &'static str,
    is: Kind,
    values: &'static [&'static str],
) -> Template {
    Template { name, kind, collation: "", is, values }
}

const TEMPLATES: &[Template] = &[
    template("a", "integer", Kind::Int, &["0", "1", "2", "3", "4", "-1"]),
    template("s", "smallint", Kind::Int, &["0", "1", "2", "-32768", "32767"]),
    template("i", "integer", Kind::Int, &["0", "1", "3", "-2147483648", "2147483647"]),
    template(
        "b",
        "bigint",
        Kind::Int,
        &["0", "1", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775808"],
    ),
    template(
        "n",
        "numeric(12,2)",
        Kind::Decimal,
        &["0", "0.01", "-0.01", "1.50", "2.00", "-1.50", "9999999999.99", "-9999999999.99"],
    ),
    template(
        "w",
        "numeric(38,10)",
        Kind::Decimal,
        &[
            "0",
            "1",
            "-1.5",
            "0.0000000001",
            "9999999999999999999999999999.9999999999",
            "-9999999999999999999999999999.9999999999",
        ],
    ),
    template("k", "numeric(5,0)", Kind::Decimal, &["0", "1", "2", "99999", "-99999"]),
    template(
        "f",
        "double precision",
        Kind::Float,
        &[
            "0",
            "-0",
            "1.5",
            "-1.5",
            "0.1",
            "0.30000000000000004",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.7976931348623157e308",
            "5e-324",
            "9007199254740992",
        ],
    ),
    template(
        "r",
        "real",
        Kind::Float,
        &["0", "-0", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "3.4028235e38", "16777216"],
    ),
    // Its sums are exact in every order.
    template("q", "double precision", Kind::Float, &["0.25", "0.5", "1", "-1.75", "2", "1024"]),
    Template { name: "t", kind: "text", collation: "C", is: Kind::Text, values: WORDS },
    Template { name: "u", kind: "text", collation: "en-x-icu", is: Kind::Text, values: WORDS },
    Template { name: "v", kind: "text", collation: "blind", is: Kind::Text, values: WORDS },
    template("c", "char(5)", Kind::Text, &["     ", "a    ", "A    ", "ab   ", " a   ", "äbcde"]),
    template("d", "date", Kind::Date, DATES),
    template(
        "ts",
        "timestamp",
        Kind::Timestamp,
        &[
            "0001-01-01 00:00:00",
            "1969-12-31 23:59:59.999999",
            "1970-01-01 00:00:00",
            "2024-03-31 02:30:00",
            "2024-02-29 12:00:00.000001",
            "2024-02-29 00:00:00",
            "9999-12-31 23:59:59.999999",
        ],
    ),
    template(
        "tz",
        "timestamptz",
        Kind::Moment,
        &[
            "0001-01-01 00:00:00+00:00",
            "1969-12-31 23:59:59.999999+00:00",
            "1970-01-01 00:00:00+00:00",
            "2024-03-31 01:30:00+00:00",
            "2024-02-29 12:00:00.000001+00:00",
            "9999-12-31 23:59:59.999999+00:00",
        ],
    ),
    template("o", "boolean", Kind::Bool, &["true", "false"]),
    template("y", "bytea", Kind::Bytes, &["", "00", "01", "ff00", "61", "41"]),
];

/// The tables of a seed, and whether SQLite has a place for their values.
pub struct World {
    pub tables: Vec<Table>,
    pub sqlite: bool,
}

impl World {
    /// Three tables `t0` to `t2`, each with a unique `id` and some of the columns above.
    pub fn random(rng: &mut Rng) -> Self {
        // SQLite has no NaN.
        let sqlite = rng.chance(50);
        let tables = (0..3).map(|at| table(rng, at, sqlite)).collect();
        Self { tables, sqlite }
    }

    /// The same without some rows of one table.
    pub fn without(&self, at: usize, rows: std::ops::Range<usize>) -> Self {
        let copy = |(t, table): (usize, &Table)| Table {
            name: table.name.clone(),
            columns: table.columns.iter().map(copied).collect(),
            rows: (table.rows.iter().enumerate())
                .filter(|(r, _)| t != at || !rows.contains(r))
                .map(|(_, row)| row.clone())
                .collect(),
        };
        let tables = self.tables.iter().enumerate().map(copy).collect();
        Self { tables, sqlite: self.sqlite }
    }

    /// SQL that makes the tables in PostgreSQL.
    pub fn setup(&self) -> String {
        let mut sql = "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', \
                       deterministic = false);\n"
            .to_owned();
        for table in &self.tables {
            let column = |c: &Column| {
                let collate = match collation(&c.name) {
                    "" => String::new(),
                    name => format!(" COLLATE \"{name}\""),
                };
                format!(
                    "{} {}{collate}{}",
                    c.name,
                    c.kind,
                    if c.not_null { " NOT NULL" } else { "" }
                )
            };
            let columns = table.columns.iter().map(column).collect::<Vec<_>>().join(", ");
            let _ = writeln!(sql, "CREATE TABLE {} ({columns});", table.name);
            for row in &table.rows {
                let cell = |(value, column): (&Option<String>, &Column)| match value {
                    None => "NULL".to_owned(),
                    Some(hex) if column.kind == "bytea" => format!("'\\x{hex}'"),
                    Some(text) => format!("'{}'", text.replace('\'', "''")),
                };
                let cells: Vec<_> = row.iter().zip(&table.columns).map(cell).collect();
                let _ = writeln!(sql, "INSERT INTO {} VALUES ({});", table.name, cells.join(", "));
            }
        }
        sql + "ANALYZE;"
    }

    /// The tables as files of `tests/slt/data`.
    pub fn tsv(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let head = |c: &Column| {
                format!("{} {}{}", c.name, c.kind, if c.not_null { " not null" } else { "" })
            };
            let _ = writeln!(text, "-- data/{}.tsv", table.name);
            let columns: Vec<_> = table.columns.iter().map(head).collect();
            let _ = writeln!(text, "{}", columns.join("\t"));
            for row in &table.rows {
                let cells: Vec<_> =
                    row.iter().map(|cell| cell.as_deref().unwrap_or("\\N")).collect();
                let _ = writeln!(text, "{}", cells.join("\t"));
            }
        }
        text
    }
}

fn copied(c: &Column) -> Column {
    Column { name: c.name.clone(), kind: c.kind.clone(), not_null: c.not_null }
}

fn table(rng: &mut Rng, at: usize, sqlite: bool) -> Table {
    // SQLite has integers and floating-point numbers of one width.
    let kind = |kind: &str| match kind {
        "integer" | "smallint" if sqlite => "bigint".to_owned(),
        other => other.to_owned(),
    };
    let id = Column { name: "id".to_owned(), kind: kind("integer"), not_null: true };
    let mut columns = vec![id];
    let mut chosen = Vec::new();
    for template in TEMPLATES.iter().filter(|t| !(sqlite && t.kind == "real")) {
        // Something to join by is in every table.
        if template.name == "a" || rng.chance(60) {
            let not_null = rng.chance(15);
            let (name, kind) = (template.name.to_owned(), kind(template.kind));
            columns.push(Column { name, kind, not_null });
            chosen.push((template, not_null));
        }
    }
    let size = *rng.pick(&[0, 1, 5, 12, 25, 25, 40]);
    let rows = (1..=size).map(|id: i32| {
        let cells = chosen.iter().map(|(template, not_null)| {
            let value = *rng.pick(template.values);
            // Nor a negative zero, nor a decimal of more digits than a double has.
            let impossible = sqlite
                && (matches!(value, "NaN" | "-0") || value.len() > 30 && template.name == "w");
            let null = !not_null && rng.chance(20);
            let value = if impossible { template.values[0] } else { value };
            (!null).then(|| value.to_owned())
        });
        std::iter::once(Some(id.to_string())).chain(cells).collect::<Vec<_>>()
    });
    let rows = rows.collect();
    Table { name: format!("t{at}"), columns, rows }
}

fn collation(column: &str) -> &'static str {
    TEMPLATES.iter().find(|t| t.name == column).map_or("", |t| t.collation)
}

/// What the values of `column` are.
pub fn kind_of(column: &str) -> Kind {
    TEMPLATES.iter().find(|t| t.name == column).map_or(Kind::Int, |t| t.is)
}

/// A value that columns of the kind may have, as a literal that has the same type everywhere.
/// `near`: mostly one that the column of this name may have.
pub fn literal(rng: &mut Rng, kind: Kind, near: &str) -> String {
    let own = TEMPLATES.iter().find(|t| t.name == near && t.is == kind);
    let of: Vec<_> = TEMPLATES.iter().filter(|t| t.is == kind).collect();
    let template = own.filter(|_| rng.chance(75)).unwrap_or(*rng.pick(&of));
    let value = *rng.pick(template.values);
    match kind {
        Kind::Int if value == "-9223372036854775808" => "-9223372036854775807".to_owned(),
        // With a point it is a decimal, and never more digits than a decimal has.
        Kind::Decimal if rng.chance(20) => (*rng.pick(&["0.5", "1.005", "-1.5", "2.0"])).to_owned(),
        Kind::Int | Kind::Bool => value.to_owned(),
        Kind::Decimal => format!("CAST('{value}' AS DECIMAL(38,10))"),
        Kind::Float => format!("CAST('{value}' AS DOUBLE)"),
        Kind::Text => format!("'{}'", value.replace('\'', "''")),
        Kind::Date => format!("DATE '{value}'"),
        // A plain literal has nanoseconds, which end in the years 1677 and 2262.
        Kind::Timestamp if !value.starts_with("2024") || rng.chance(30) => {
            format!("arrow_cast('{value}', 'Timestamp(Microsecond, None)')")
        }
        Kind::Timestamp => format!("TIMESTAMP '{value}'"),
        Kind::Moment if !value.starts_with("2024") || rng.chance(30) => {
            format!("arrow_cast('{value}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
        }
        Kind::Moment => format!("TIMESTAMPTZ '{value}'"),
        Kind::Bytes => format!("X'{value}'"),
    }
}
