//! The real data the demo is made from, carried inside the binary. See `data/README.md`.

use std::io::Read;

use chrono::NaiveDate;
use flate2::read::GzDecoder;

use crate::cli_error::{CliError, Result};

const STOCKS: &[u8] = include_bytes!("../../../../data/stocks.csv.gz");
const RATES: &[u8] = include_bytes!("../../../../data/eurofxref-2000-2013.csv.gz");

/// Decimal places of a price.
pub const PRICE_SCALE: u8 = 4;
/// Decimal places of an adjusted close: as many as the data has, so that none is rounded.
pub const ADJUSTED_SCALE: u8 = 15;

/// One share on one trading day. Prices are integers scaled by [`PRICE_SCALE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// The share.
    pub symbol: String,
    /// The trading day in New York.
    pub day: NaiveDate,
    /// First price of the day.
    pub open: i128,
    /// Highest price of the day.
    pub high: i128,
    /// Lowest price of the day.
    pub low: i128,
    /// Last price of the day, as it was traded: not adjusted for what came later.
    pub close: i128,
    /// Shares traded.
    pub volume: i64,
    /// The close divided by every later split and dividend, scaled by [`ADJUSTED_SCALE`].
    pub adjusted_close: i128,
}

/// One euro in one currency, as the European Central Bank fixed it on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixing {
    /// The day.
    pub day: NaiveDate,
    /// The currency.
    pub currency: String,
    /// Units of the currency per euro, as published.
    pub rate: String,
}

/// Every daily bar, by symbol and day.
///
/// # Errors
/// When the embedded file cannot be read.
pub fn prices() -> Result<Vec<Bar>> {
    let text = unpack("stocks.csv.gz", STOCKS)?;
    let mut bars = Vec::new();
    for record in csv::Reader::from_reader(text.as_bytes()).records() {
        let record = record.map_err(|error| broken("stocks.csv.gz", &error.to_string()))?;
        let bar = bar(&record).ok_or_else(|| broken("stocks.csv.gz", &format!("{record:?}")))?;
        bars.push(bar);
    }
    bars.sort_by(|a, b| (&a.symbol, a.day).cmp(&(&b.symbol, b.day)));
    Ok(bars)
}

/// Every fixing, by day and currency.
///
/// # Errors
/// When the embedded file cannot be read.
pub fn fixings() -> Result<Vec<Fixing>> {
    const NAME: &str = "eurofxref-2000-2013.csv.gz";
    let text = unpack(NAME, RATES)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| broken(NAME, &error.to_string()))?.clone();
    let mut fixings = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| broken(NAME, &error.to_string()))?;
        let day = record.get(0).and_then(|day| day.parse().ok());
        let day = day.ok_or_else(|| broken(NAME, &format!("{record:?}")))?;
        for (currency, rate) in header.iter().zip(&record).skip(1) {
            let (currency, rate) = (currency.to_owned(), rate.to_owned());
            fixings.push(Fixing { day, currency, rate });
        }
    }
    fixings.sort_by(|a, b| (a.day, &a.currency).cmp(&(b.day, &b.currency)));
    Ok(fixings)
}

fn bar(record: &csv::StringRecord) -> Option<Bar> {
    let price = |column| decimal(record.get(column)?, PRICE_SCALE);
    Some(Bar {
        symbol: record.get(0)?.to_owned(),
        day: record.get(1)?.parse().ok()?,
        open: price(2)?,
        high: price(3)?,
        low: price(4)?,
        close: price(5)?,
        volume: record.get(6)?.parse().ok()?,
        adjusted_close: decimal(record.get(7)?, ADJUSTED_SCALE)?,
    })
}

/// Reads a decimal as an integer scaled by `scale`; `None` when it has more places than that.
fn decimal(text: &str, scale: u8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let missing = usize::from(scale).checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(missing)).parse().ok()
}

fn unpack(name: &str, packed: &[u8]) -> Result<String> {
    let mut text = String::new();
    let read = GzDecoder::new(packed).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| broken(name, &error.to_string()))
}

fn broken(name: &str, what: &str) -> CliError {
    CliError::failed(format!("the demo's data file {name} cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_scaled_and_never_rounded() {
        assert_eq!(decimal("130.31", 4), Some(1_303_100));
        assert_eq!(decimal("127", 4), Some(1_270_000));
        assert_eq!(decimal("0.00012", 4), None);
        assert_eq!(decimal("12.x", 4), None);
    }

    #[test]
    fn the_data_is_whole() {
        let prices = prices().expect("prices");
        assert_eq!(prices.len(), 12_154);
        let first = prices.first().expect("a bar");
        assert_eq!((first.symbol.as_str(), first.close), ("AAPL", 1_303_100));
        let fixings = fixings().expect("fixings");
        assert_eq!(fixings.len(), 4 * 3_583);
        assert!(fixings.iter().all(|fixing| decimal(&fixing.rate, 6).is_some()));
    }
}
