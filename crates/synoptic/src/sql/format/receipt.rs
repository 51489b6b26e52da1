//! What was read where, as a small table.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use synoptic_types::format_bytes;

use super::table::grouped;

/// The scans of a receipt (the JSON of the contract) for people.
pub fn receipt_table(receipt: &Value) -> String {
    let scans = receipt["scans"].as_array().map_or(&[][..], Vec::as_slice);
    if scans.is_empty() {
        return "no source was read".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["scan", "source", "table", "copy", "rows", "bytes", "sent to the source"]);
    for scan in scans {
        let text = |name: &str| scan[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| scan[name].as_u64().unwrap_or_default();
        table.add_row([
            number("scan").to_string(),
            text("source"),
            text("table"),
            text("copy"),
            grouped(number("rows")),
            format_bytes(number("bytes")),
            text("remote_text"),
        ]);
    }
    for number in [0, 4, 5] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
