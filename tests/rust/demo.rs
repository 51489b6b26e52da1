//! The demo's answers, against figures worked out from the raw files without this project.
//!
//! The expected rows were computed once in Python with exact fractions from `data/*.gz` and the
//! list of trades, and rounded half up at the end. A different figure is a wrong answer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use synoptic::DemoOptions;
use synoptic::compose;
use synoptic::demo::{self, Answer, QUESTIONS, Question};
use synoptic_config::Config;
use synoptic_engine::{Engine, ScanReceipt, Session};
use tempfile::TempDir;

const EXPECTED: [&[&[&str]]; 8] = [
    // market value
    &[
        &["102", "Dubois Foundation", "Endowment", "2012-12-24", "632393.10", "478433.27"],
        &["103", "Hartley Pension Fund", "Growth", "2012-12-24", "445204.15", "336816.58"],
        &["101", "Anna Berger", "Retirement", "2012-12-24", "358080.20", "270903.46"],
        &["106", "Yuki Tanaka", "Savings", "2012-12-24", "189864.68", "143641.00"],
        &["104", "Keller & Cie", "Treasury", "2012-12-24", "164500.00", "124451.51"],
        &["105", "Keller & Cie", "Opportunities", "2012-12-24", "129969.93", "98327.98"],
    ],
    // daily pnl
    &[
        &["2013-01-22", "1442319.59", "11721.25", "757.75", "12479.00"],
        &["2013-01-23", "1477773.78", "36896.79", "-1442.60", "35454.19"],
        &["2013-01-24", "1370525.73", "-105294.56", "-1953.49", "-107248.05"],
        &["2013-01-25", "1342963.40", "-15489.85", "-12072.49", "-27562.33"],
    ],
    // exposure
    &[
        &["USD", "72706.50", "1962420.04", "1542463.65", "85.50"],
        &["CHF", "100240.55", "0.00", "83035.58", "4.60"],
        &["GBP", "61480.20", "0.00", "75334.15", "4.18"],
        &["EUR", "60550.40", "0.00", "60550.40", "3.36"],
        &["JPY", "4850000.00", "0.00", "42689.90", "2.37"],
    ],
    // best and worst
    &[
        &["101", "AAPL", "2001-09-17", "300", "16.9900", "600", "4967.33", "2433.67"],
        &["106", "AAPL", "2000-03-24", "60", "138.6900", "240", "1141.53", "210.38"],
        &["102", "AAPL", "2005-02-25", "400", "88.9900", "800", "867.46", "383.73"],
        &["102", "MSFT", "2003-02-14", "600", "48.3000", "1200", "15.73", "-42.13"],
        &["103", "GOOG", "2007-11-06", "120", "741.7900", "120", "8.68", "8.68"],
        &["103", "MSFT", "2000-05-26", "500", "61.4400", "1000", "-9.02", "-54.51"],
        &["105", "FB", "2012-05-18", "2000", "38.2318", "2000", "-27.34", "-27.34"],
        &["105", "AAPL", "2012-09-19", "150", "702.1000", "150", "-38.69", "-38.69"],
    ],
    // split
    &[
        &["2005-02-23", "88.2300", "", "", "", "5.6694"],
        &["2005-02-24", "88.9300", "0.79", "", "0.79", "5.7144"],
        &["2005-02-25", "88.9900", "0.07", "", "0.07", "5.7182"],
        &["2005-02-28", "44.8600", "-49.59", "2.0000", "0.82", "5.7651"],
        &["2005-03-01", "44.5000", "-0.80", "", "-0.80", "5.7189"],
        &["2005-03-02", "44.1210", "-0.85", "", "-0.85", "5.6702"],
    ],
    // drawdown
    &[&["2007-12-26", "259167.94", "2008-12-29", "120418.01", "-53.54", "2010-03-05"]],
    // no fixing
    &[
        &["Easter Monday", "13", "2000-04-24", "2012-04-09"],
        &["1 May", "9", "2000-05-01", "2012-05-01"],
        &["26 December", "8", "2000-12-26", "2012-12-26"],
        &["31 December", "1", "2001-12-31", "2001-12-31"],
    ],
    // point lookup
    &[&["9", "Dubois Foundation", "400", "88.9900", "88.1900", "89.9100"]],
];

/// The demo's folder and an engine over it, made the way `synoptic demo` does.
struct Demo {
    dir: TempDir,
    engine: Arc<Engine>,
}

impl Demo {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = demo::build(dir.path(), "127.0.0.1:0").expect("built");
        let config = Config::load(&path, &synoptic_connectors::names()).expect("a configuration");
        Self { engine: compose(&config).expect("an engine"), dir }
    }

    fn session(&self) -> Session {
        self.engine.session("test")
    }
}

async fn ask_sql(session: &Session, sql: &'static str) -> Answer {
    let question = Question { title: "", note: "", sql, finding: "" };
    demo::ask(session, &question).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn rows(answer: &Answer) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in &answer.batches {
        let options = FormatOptions::default();
        let formatters = batch.columns().iter().map(|column| {
            ArrayFormatter::try_new(column.as_ref(), &options).expect("a type with a text")
        });
        let formatters: Vec<_> = formatters.collect();
        for row in 0..batch.num_rows() {
            rows.push(formatters.iter().map(|f| f.value(row).to_string()).collect());
        }
    }
    rows
}

fn scan<'a>(answer: &'a Answer, source: &str, table: &str) -> &'a ScanReceipt {
    let found = answer.receipt.scans.iter().find(|s| s.source == source && s.table.contains(table));
    found.unwrap_or_else(|| panic!("no scan of {source} {table} in {:?}", answer.receipt))
}

#[tokio::test]
async fn every_answer_is_what_the_raw_data_says() {
    let demo = Demo::new();
    let session = demo.session();
    for (question, expected) in QUESTIONS.iter().zip(EXPECTED) {
        let answer = demo::ask(&session, question).await.expect(question.title);
        assert_eq!(rows(&answer), expected, "{}", question.title);
    }
}

#[tokio::test]
async fn every_answer_is_the_same_without_pushdown() {
    let demo = Demo::new();
    let session = demo.session();
    session.set_option("pushdown", "none").expect("an option");
    for (question, expected) in QUESTIONS.iter().zip(EXPECTED) {
        let answer = demo::ask(&session, question).await.expect(question.title);
        assert_eq!(rows(&answer), expected, "{}", question.title);
    }
}

#[tokio::test]
async fn the_first_question_reads_three_sources_and_says_so() {
    let demo = Demo::new();
    let answer = demo::ask(&demo.session(), &QUESTIONS[0]).await.expect("an answer");
    for (source, table) in [
        ("portfolio", "owners"),
        ("portfolio", "accounts"),
        ("portfolio", "positions"),
        ("portfolio", "instruments"),
        ("market", "prices"),
        ("fx", "rates"),
    ] {
        let scan = scan(&answer, source, table);
        assert!(scan.rows > 0, "{scan:?}");
        assert!(scan.bytes > 0, "{scan:?}");
        assert!(!scan.remote_text.is_empty(), "{scan:?}");
        assert_eq!(scan.copy.copy, "primary");
    }
}

#[tokio::test]
async fn a_point_lookup_moves_almost_nothing() {
    let demo = Demo::new();
    let lookup = &QUESTIONS[7];
    let answer = demo::ask(&demo.session(), lookup).await.expect("an answer");
    let trades = scan(&answer, "portfolio", "trades");
    assert_eq!(trades.rows, 1, "{trades:?}");
    assert!(trades.remote_text.contains("'AAPL'"), "{trades:?}");
    let prices = scan(&answer, "market", "prices");
    assert!(prices.remote_text.contains("1 of 5 files"), "{prices:?}");
    assert!(prices.rows <= 64, "more than a page of 12,154 prices: {prices:?}");

    let session = demo.session();
    session.set_option("pushdown", "none").expect("an option");
    let answer = demo::ask(&session, lookup).await.expect("an answer");
    assert_eq!(scan(&answer, "portfolio", "trades").rows, 19);
    assert_eq!(scan(&answer, "market", "prices").rows, 12_154);
}

#[tokio::test]
async fn the_sources_hold_the_whole_data_and_money_is_decimal() {
    let demo = Demo::new();
    let session = demo.session();
    let counts = "SELECT (SELECT count(*) FROM market.prices), (SELECT count(*) FROM fx.rates), \
                  (SELECT count(*) FROM portfolio.trades)";
    assert_eq!(rows(&ask_sql(&session, counts).await), [["12154", "14332", "19"]]);

    for (sql, precision, scale) in [
        ("SELECT close FROM market.prices LIMIT 0", 18, 4),
        ("SELECT rate FROM fx.rates LIMIT 0", 12, 6),
        ("SELECT price FROM portfolio.trades LIMIT 0", 18, 4),
        ("SELECT balance FROM portfolio.cash LIMIT 0", 18, 2),
        ("SELECT ratio FROM portfolio.splits LIMIT 0", 9, 4),
    ] {
        let answer = ask_sql(&session, sql).await;
        let data_type = answer.schema.field(0).data_type();
        assert_eq!(data_type, &DataType::Decimal128(precision, scale), "{sql}");
    }

    let exact = "SELECT close, adjusted_close FROM market.prices \
                 WHERE symbol = 'AAPL' AND trading_day = DATE '2013-03-01'";
    assert_eq!(rows(&ask_sql(&session, exact).await), [["430.4700", "56.137353095488000"]]);
    let rate = "SELECT rate FROM fx.rates \
                WHERE currency = 'GBP' AND fixing_day = DATE '2012-12-24'";
    assert_eq!(rows(&ask_sql(&session, rate).await), [["0.817500"]]);
}

#[tokio::test]
async fn the_bank_is_consistent_with_itself_and_with_the_market() {
    let demo = Demo::new();
    let session = demo.session();
    let paid_another_price = "
        SELECT count(*) FROM portfolio.trades t
        LEFT JOIN market.prices p ON p.symbol = t.symbol AND p.trading_day = t.trade_day
        WHERE p.close IS DISTINCT FROM t.price";
    assert_eq!(rows(&ask_sql(&session, paid_another_price).await), [["0"]]);

    let positions_off = "
        WITH lot AS (
          SELECT t.trade_id, t.account_id, t.symbol, t.quantity,
                 coalesce(CAST(exp(sum(ln(s.ratio))) AS DECIMAL(9, 4)), 1) AS factor
          FROM portfolio.trades t
          LEFT JOIN portfolio.splits s ON s.symbol = t.symbol AND s.effective_day > t.trade_day
          GROUP BY t.trade_id, t.account_id, t.symbol, t.quantity
        ), held AS (
          SELECT account_id, symbol, sum(quantity * factor) AS shares
          FROM lot GROUP BY account_id, symbol
        )
        SELECT count(*), count(*) FILTER (WHERE h.shares IS DISTINCT FROM p.shares)
        FROM held h
        FULL JOIN portfolio.positions p ON p.account_id = h.account_id AND p.symbol = h.symbol";
    assert_eq!(rows(&ask_sql(&session, positions_off).await), [["19", "0"]]);
}

#[test]
fn building_again_replaces_the_files_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("notes.txt"), "mine").expect("written");
    for listen in ["127.0.0.1:1", "127.0.0.1:2"] {
        let config = demo::build(dir.path(), listen).expect("built");
        assert!(fs::read_to_string(config).expect("read").contains(listen));
    }
    assert_eq!(
        names_in(dir.path()),
        ["export", "fx", "market", "notes.txt", "portfolio.db", "synoptic.toml"]
    );
    assert_eq!(
        names_in(&dir.path().join("market/prices")),
        ["symbol=AAPL", "symbol=FB", "symbol=GOOG", "symbol=IBM", "symbol=MSFT"]
    );
}

#[test]
fn a_folder_that_holds_other_things_of_these_names_is_left_alone() {
    for name in ["synoptic.toml", "portfolio.db"] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(name);
        fs::write(&file, "mine").expect("written");
        let error = demo::build(dir.path(), "127.0.0.1:0").expect_err("refused").to_string();
        assert!(error.contains(name) && error.contains("--dir"), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "mine");
        assert_eq!(names_in(dir.path()), [name]);
    }
}

#[tokio::test]
async fn the_tour_fits_a_page_and_needs_no_colours() {
    let demo = Demo::new();
    let options =
        DemoOptions { dir: demo.dir.path().into(), serve: false, listen: "127.0.0.1:0".into() };
    let mut out = Vec::new();
    demo::tour(&demo.engine, &options, &mut out).await.expect("a tour");
    let page = String::from_utf8(out).expect("UTF-8");
    assert!(!page.contains('\x1b'), "an escape code where there is no terminal");
    // The path of the folder and of this program are as long as they are.
    let long = page.lines().filter(|line| line.chars().count() > 100);
    let long: Vec<_> = long.filter(|line| !line.contains("synoptic.toml")).collect();
    assert!(long.is_empty(), "lines beyond 100 columns: {long:#?}");
    for question in QUESTIONS {
        assert!(page.contains(question.title), "{}", question.title);
    }
    for part in ["478,433.27", "-107,248.05", "sent to portfolio", "sent to fx", "1 of 8"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
}

#[tokio::test]
async fn the_export_answers_until_somebody_writes_to_the_database() {
    let demo = Demo::new();
    let options =
        DemoOptions { dir: demo.dir.path().into(), serve: false, listen: "127.0.0.1:0".into() };
    for _ in 0..2 {
        let mut out = Vec::new();
        demo::tour(&demo.engine, &options, &mut out).await.expect("a tour");
        let page = String::from_utf8(out).expect("UTF-8");
        let receipts: Vec<_> = page.lines().filter(|line| line.contains("the receipt:")).collect();
        let [before, after] = receipts.as_slice() else { panic!("{receipts:?}") };
        assert!(before.contains("copy 'export' (replica), by position"), "{before}");
        assert!(after.contains("copy 'primary' (authoritative)"), "{after}");
        let rows = page.lines().filter(|line| line.contains("│ AAPL")).count();
        assert!(rows >= 2, "both answer");
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
