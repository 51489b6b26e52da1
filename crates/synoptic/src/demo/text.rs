//! The look of the tour: a page of 100 columns, plain text, colour only on a terminal.

use std::io::{self, IsTerminal, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

/// Columns of the page.
pub const WIDTH: usize = 100;

/// Where the tour is written.
pub struct Page<'a> {
    out: &'a mut (dyn Write + Send),
    colour: bool,
}

/// How a line looks where colours exist.
#[derive(Clone, Copy)]
pub enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Strong,
    /// What matters less than the answer.
    Faint,
    /// SQL.
    Code,
}

impl<'a> Page<'a> {
    /// A page on `out`; colours are for terminals whose user did not refuse them (`NO_COLOR`).
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { out, colour: io::stdout().is_terminal() && !refused }
    }

    /// An empty line.
    pub fn gap(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// One line.
    pub fn line(&mut self, style: Style, text: &str) -> io::Result<()> {
        let code = match style {
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Code => "36",
            Style::Plain => "",
        };
        if self.colour && !code.is_empty() {
            writeln!(self.out, "\x1b[{code}m{text}\x1b[0m")
        } else {
            writeln!(self.out, "{text}")
        }
    }

    /// Several lines, `indent` spaces in.
    pub fn block(&mut self, style: Style, indent: usize, text: &str) -> io::Result<()> {
        for line in text.lines() {
            self.line(style, &format!("{:indent$}{line}", ""))?;
        }
        Ok(())
    }

    /// A paragraph, `indent` spaces in, broken to the width of the page.
    pub fn paragraph(&mut self, style: Style, indent: usize, text: &str) -> io::Result<()> {
        for line in wrap(text, WIDTH - indent) {
            self.line(style, &format!("{:indent$}{line}", ""))?;
        }
        Ok(())
    }

    /// A line across the page with `text` in it.
    pub fn rule(&mut self, text: &str) -> io::Result<()> {
        let rest = WIDTH.saturating_sub(text.chars().count() + 4);
        self.line(Style::Strong, &format!("── {text} {}", "─".repeat(rest)))
    }

    /// Makes everything written so far visible.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An answer as a table. Numbers stand to the right; decimals have their thousands marked.
///
/// # Errors
/// When a value cannot be shown as text.
pub fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(schema.fields().iter().map(|field| field.name()));
    let options = FormatOptions::default();
    for batch in batches {
        let columns = batch.columns().iter();
        let formatters = columns
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = formatters.iter().zip(schema.fields()).map(|(formatter, field)| {
                let text = formatter.value(row).try_to_string()?;
                let decimal = matches!(field.data_type(), DataType::Decimal128(..));
                Ok(Cell::new(if decimal { group_thousands(&text) } else { text }))
            });
            table.add_row(cells.collect::<Result<Vec<_>, ArrowError>>()?);
        }
    }
    for (index, field) in schema.fields().iter().enumerate() {
        if let (true, Some(column)) = (field.data_type().is_numeric(), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}

/// `-1234567.80` as `-1,234,567.80`.
pub fn group_thousands(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Breaks `text` at spaces into lines of at most `width` characters; a longer word is cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        used += word.len();
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_marked_before_the_point_only() {
        for (plain, grouped) in [
            ("0.5000", "0.5000"),
            ("999", "999"),
            ("-1234567.8900", "-1,234,567.8900"),
            ("100000", "100,000"),
            ("", ""),
        ] {
            assert_eq!(group_thousands(plain), grouped);
        }
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_are_cut() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("a bcdefghij k", 4), ["a", "bcde", "fghi", "j k"]);
        assert!(wrap("   ", 4).is_empty());
    }
}
