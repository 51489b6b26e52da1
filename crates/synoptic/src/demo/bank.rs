//! The bank of the demo: who owns what. Invented, fixed, and consistent with the real prices.
//!
//! Every trade is a purchase at the real closing price of a real trading day, so that a value
//! worked out from it can be checked against the raw data by anybody.

use chrono::NaiveDate;

use super::raw::Bar;
use crate::cli_error::{CliError, Result};

/// A client: id, name, country.
pub const OWNERS: [(i64, &str, &str); 5] = [
    (1, "Anna Berger", "DE"),
    (2, "Dubois Foundation", "FR"),
    (3, "Hartley Pension Fund", "GB"),
    (4, "Keller & Cie", "CH"),
    (5, "Yuki Tanaka", "JP"),
];

/// An account: id, owner, name, base currency.
pub const ACCOUNTS: [(i64, i64, &str, &str); 6] = [
    (101, 1, "Retirement", "EUR"),
    (102, 2, "Endowment", "EUR"),
    (103, 3, "Growth", "GBP"),
    (104, 4, "Treasury", "CHF"),
    (105, 4, "Opportunities", "USD"),
    (106, 5, "Savings", "JPY"),
];

/// A share: symbol, name, exchange, currency.
pub const INSTRUMENTS: [(&str, &str, &str, &str); 5] = [
    ("AAPL", "Apple Inc.", "NASDAQ", "USD"),
    ("FB", "Facebook, Inc.", "NASDAQ", "USD"),
    ("GOOG", "Google Inc.", "NASDAQ", "USD"),
    ("IBM", "International Business Machines", "NYSE", "USD"),
    ("MSFT", "Microsoft Corporation", "NASDAQ", "USD"),
];

/// A purchase: id, account, symbol, trading day, shares as they were counted on that day.
pub const TRADES: [(i64, i64, &str, &str, i64); 19] = [
    (1, 106, "AAPL", "2000-03-24", 60),
    (2, 103, "MSFT", "2000-05-26", 500),
    (3, 101, "AAPL", "2001-09-17", 300),
    (4, 101, "MSFT", "2002-10-09", 400),
    (5, 101, "IBM", "2002-10-09", 150),
    // The last trading day before Microsoft's split of 18 February 2003.
    (6, 102, "MSFT", "2003-02-14", 600),
    (7, 102, "IBM", "2003-03-12", 250),
    // Google's first day on the exchange.
    (8, 102, "GOOG", "2004-08-19", 200),
    // The last trading day before Apple's split of 28 February 2005.
    (9, 102, "AAPL", "2005-02-25", 400),
    (10, 106, "IBM", "2006-07-18", 200),
    (11, 103, "AAPL", "2007-01-09", 500),
    (12, 103, "GOOG", "2007-11-06", 120),
    (13, 104, "IBM", "2008-10-10", 300),
    // The bottom of the financial crisis.
    (14, 104, "MSFT", "2009-03-09", 2500),
    (15, 103, "IBM", "2010-05-06", 400),
    // Facebook's first day on the exchange.
    (16, 105, "FB", "2012-05-18", 2000),
    (17, 104, "FB", "2012-09-04", 1500),
    // Two days from Apple's highest price of these years.
    (18, 105, "AAPL", "2012-09-19", 150),
    (19, 106, "GOOG", "2012-10-18", 40),
];

/// A split: symbol, first day at the new count, new shares per old one, and that as a text.
pub const SPLITS: [(&str, &str, i64, &str); 3] = [
    ("AAPL", "2000-06-21", 2, "2.0000"),
    ("AAPL", "2005-02-28", 2, "2.0000"),
    ("MSFT", "2003-02-18", 2, "2.0000"),
];

/// Cash at the end of 2012: account, currency, balance.
pub const CASH: [(i64, &str, &str); 10] = [
    (101, "EUR", "18250.40"),
    (102, "EUR", "42300.00"),
    (102, "USD", "15600.75"),
    (103, "GBP", "61480.20"),
    (103, "USD", "22010.00"),
    (104, "CHF", "88200.55"),
    (105, "CHF", "12040.00"),
    (105, "USD", "31975.10"),
    (106, "JPY", "4850000.00"),
    (106, "USD", "3120.65"),
];

/// What the accounts hold after every trade and every split: account, symbol, shares.
pub fn positions() -> Vec<(i64, &'static str, i64)> {
    let mut positions = std::collections::BTreeMap::new();
    for (_, account, symbol, day, quantity) in TRADES {
        // ISO dates compare as texts.
        let later = SPLITS.iter().filter(|(split, from, ..)| *split == symbol && *from > day);
        let shares = later.fold(quantity, |shares, (.., ratio, _)| shares * ratio);
        *positions.entry((account, symbol)).or_insert(0) += shares;
    }
    positions.into_iter().map(|((account, symbol), shares)| (account, symbol, shares)).collect()
}

/// The closing price `symbol` had on `day`, in ten-thousandths of a dollar.
///
/// # Errors
/// When the prices have no such day, which would be a fault of the list above.
pub fn closing_price(prices: &[Bar], symbol: &str, day: &str) -> Result<i128> {
    let bar = day
        .parse::<NaiveDate>()
        .ok()
        .and_then(|day| prices.iter().find(|bar| bar.symbol == symbol && bar.day == day));
    bar.map(|bar| bar.close).ok_or_else(|| {
        CliError::failed(format!("the demo's data has no price of {symbol} on {day}"))
    })
}
