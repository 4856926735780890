//! Where words go: one JSON document to stdout if that was asked for, text for people to stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether somebody watches who would want a bar that moves.
    pub(crate) fn has_bars(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// A line for the person at the terminal. That nobody reads it is no reason to stop.
    pub(crate) fn say(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Some more of a text, at once; where JSON was asked for it comes with the result.
    pub(crate) fn piece(&self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// What stands before a line that a person is to type.
    pub(crate) fn mark(&self, mark: &str) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{mark}").and_then(|()| stderr.flush());
    }

    /// The result of a verb: as JSON, or as the text that `text` makes, on stdout.
    pub(crate) fn result(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, value).map_err(io::Error::from)?;
            writeln!(stdout)?;
        } else {
            write!(stdout, "{}", text())?;
        }
        Ok(stdout.flush()?)
    }

    /// The failure in words, and as JSON if that was asked for; nothing where stdout has nobody who would read it.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.code == Failure::BROKEN_PIPE {
            return;
        }
        self.say(&format!("error: {failure}"));
        self.document(failure);
    }

    /// The failure as JSON, if that was asked for.
    pub(crate) fn document(&self, failure: &Failure) {
        if self.json {
            let document = json!({"error": failure.message, "exit_code": failure.code});
            let _ = writeln!(io::stdout(), "{document}");
        }
    }
}

/// Rows of cells in columns that line up at the left.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |cell: &str| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line.push_str(&format!("{gap}{cell}{}", " ".repeat(widths[column] - width(cell))));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that people read.
pub(crate) fn bytes(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.0} MiB") }
}

/// How far logits are from others, beside their size.
pub(crate) fn difference(difference: f64, largest: f64, on: &str) -> String {
    format!("{difference:.1e} of logits up to {largest:.3}, on {on}")
}

/// Seconds as people say them.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([7, 999, 1000, 22_742_861].map(thousands), ["7", "999", "1,000", "22,742,861"]);
        assert_eq!([300 << 20, 3 << 29].map(bytes), ["300 MiB", "1.5 GiB"]);
        assert_eq!([1.25, 75.4, 150.0, 7300.0].map(duration), ["1.2 s", "75 s", "2 min 30 s", "2 h 01 min"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["läng".into(), "234".into()]];
        assert_eq!(table(&rows), "a     1\nläng  234\n");
    }
}
