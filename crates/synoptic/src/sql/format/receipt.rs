//! What was read where, and how fresh it is proved to be, for people.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use synoptic_types::format_bytes;

use super::table::grouped;

const HEADER: [&str; 12] = [
    "scan",
    "source",
    "table",
    "copy",
    "kind",
    "position",
    "as of",
    "stale by up to",
    "bound",
    "method",
    "rows",
    "bytes",
];

/// The scans of a receipt (the JSON of the contract): a line for each in a table, below it what was
/// sent to its source, and at the end what holds for the statement.
pub fn receipt_table(receipt: &Value) -> String {
    let scans = receipt["scans"].as_array().map_or(&[][..], Vec::as_slice);
    if scans.is_empty() {
        return "no source was read".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(HEADER);
    for scan in scans {
        let number = |name: &str| scan[name].as_u64().unwrap_or_default();
        table.add_row([
            number("scan").to_string(),
            text(scan, "source").to_owned(),
            text(scan, "table").to_owned(),
            text(scan, "copy").to_owned(),
            text(scan, "kind").to_owned(),
            text(scan, "position").to_owned(),
            as_of(scan),
            millis(&scan["staleness_ms"]),
            bound(scan),
            text(scan, "method").to_owned(),
            grouped(number("rows")),
            format_bytes(number("bytes")),
        ]);
    }
    for number in [0, 7, 10, 11] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut shown = table.trim_fmt();
    for scan in scans {
        let number = scan["scan"].as_u64().unwrap_or_default();
        let _ = write!(shown, "\nscan {number} sent: {}", text(scan, "remote_text"));
        if let Some(why) = scan["degraded_reason"].as_str() {
            let _ = write!(shown, "\nscan {number} is less than was asked for: {why}");
        }
    }
    if receipt["skew_ms"].is_number() {
        let _ = write!(shown, "\nskew: {}", millis(&receipt["skew_ms"]));
    }
    if let Some(at) = receipt["committed_at"].as_str() {
        let _ = write!(shown, "\ncommitted at: {at}");
    }
    if let Some(token) = receipt["token"].as_str() {
        let _ = write!(shown, "\ntoken: {token}");
    }
    shown
}

fn text<'a>(scan: &'a Value, name: &str) -> &'a str {
    scan[name].as_str().unwrap_or_default()
}

/// The interval, one end below the other.
fn as_of(scan: &Value) -> String {
    match (scan["as_of_lo"].as_str(), scan["as_of_hi"].as_str()) {
        (Some(lo), Some(hi)) => format!("{lo}\n{hi}"),
        (None, Some(hi)) => format!("unknown\n{hi}"),
        _ => String::new(),
    }
}

fn bound(scan: &Value) -> String {
    let bound = millis(&scan["bound_ms"]);
    match scan["satisfied"].as_bool() {
        Some(false) => format!("{bound}, not met"),
        _ => bound,
    }
}

fn millis(value: &Value) -> String {
    value.as_f64().map(|millis| format!("{millis:.3} ms")).unwrap_or_default()
}
