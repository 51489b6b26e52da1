//! The portfolio system of the demo: a SQLite database.

use std::path::Path;

use rusqlite::{Connection, ToSql, params};

use super::bank;
use super::raw::{Bar, PRICE_SCALE};
use crate::cli_error::{CliError, Result};

const SCHEMA: &str = "
CREATE TABLE owners (
  owner_id INTEGER PRIMARY KEY,
  name     TEXT NOT NULL,
  country  TEXT NOT NULL
);
CREATE TABLE accounts (
  account_id    INTEGER PRIMARY KEY,
  owner_id      INTEGER NOT NULL REFERENCES owners,
  name          TEXT NOT NULL,
  base_currency TEXT NOT NULL
);
CREATE TABLE instruments (
  symbol   TEXT PRIMARY KEY NOT NULL,
  name     TEXT NOT NULL,
  exchange TEXT NOT NULL,
  currency TEXT NOT NULL
);
CREATE TABLE trades (
  trade_id   INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES accounts,
  symbol     TEXT NOT NULL REFERENCES instruments,
  trade_day  DATE NOT NULL,
  quantity   INTEGER NOT NULL,
  price      DECIMAL(18, 4) NOT NULL
);
CREATE TABLE splits (
  symbol        TEXT NOT NULL REFERENCES instruments,
  effective_day DATE NOT NULL,
  ratio         DECIMAL(9, 4) NOT NULL,
  PRIMARY KEY (symbol, effective_day)
);
CREATE TABLE positions (
  account_id INTEGER NOT NULL REFERENCES accounts,
  symbol     TEXT NOT NULL REFERENCES instruments,
  shares     INTEGER NOT NULL,
  PRIMARY KEY (account_id, symbol)
);
CREATE TABLE cash (
  account_id INTEGER NOT NULL REFERENCES accounts,
  currency   TEXT NOT NULL,
  balance    DECIMAL(18, 2) NOT NULL,
  PRIMARY KEY (account_id, currency)
);
";

/// Writes the database to the new file `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, prices: &[Bar]) -> Result<()> {
    let failed = |error: rusqlite::Error| {
        CliError::failed(format!("cannot write {}: {error}", path.display()))
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(SCHEMA).map_err(failed)?;
    let insert =
        |sql: &str, row: &[&dyn ToSql]| transaction.execute(sql, row).map(drop).map_err(failed);
    for (id, name, country) in bank::OWNERS {
        insert("INSERT INTO owners VALUES (?, ?, ?)", params![id, name, country])?;
    }
    for (id, owner, name, currency) in bank::ACCOUNTS {
        insert("INSERT INTO accounts VALUES (?, ?, ?, ?)", params![id, owner, name, currency])?;
    }
    for (symbol, name, exchange, currency) in bank::INSTRUMENTS {
        let row = params![symbol, name, exchange, currency];
        insert("INSERT INTO instruments VALUES (?, ?, ?, ?)", row)?;
    }
    for (id, account, symbol, day, quantity) in bank::TRADES {
        let price = decimal_text(bank::closing_price(prices, symbol, day)?, PRICE_SCALE);
        let row = params![id, account, symbol, day, quantity, price];
        insert("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?)", row)?;
    }
    for (symbol, day, _, ratio) in bank::SPLITS {
        insert("INSERT INTO splits VALUES (?, ?, ?)", params![symbol, day, ratio])?;
    }
    for (account, symbol, shares) in bank::positions() {
        insert("INSERT INTO positions VALUES (?, ?, ?)", params![account, symbol, shares])?;
    }
    for (account, currency, balance) in bank::CASH {
        insert("INSERT INTO cash VALUES (?, ?, ?)", params![account, currency, balance])?;
    }
    transaction.commit().map_err(failed)?;
    connection.execute_batch("ANALYZE").map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))
}

/// A positive number scaled by `scale` as a decimal text.
fn decimal_text(value: i128, scale: u8) -> String {
    let unit = 10_i128.pow(u32::from(scale));
    format!("{}.{:0width$}", value / unit, value % unit, width = usize::from(scale))
}

#[cfg(test)]
mod tests {
    use super::decimal_text;

    #[test]
    fn a_price_as_text() {
        assert_eq!(decimal_text(889_900, 4), "88.9900");
        assert_eq!(decimal_text(5, 4), "0.0005");
    }
}
