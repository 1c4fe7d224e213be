//! Numbers and goals in the tables of docs/benchmarks.md.

use std::fmt::Write as _;

/// A table of goals and of the figures measured for them.
#[derive(Default)]
pub(super) struct Goals(String);

impl Goals {
    /// Adds a figure that should not exceed `limit`, or nothing if it was not measured.
    pub(super) fn add(&mut self, what: &str, figure: Option<f64>, limit: f64) {
        let Some(figure) = figure else { return };
        let verdict = if figure <= limit {
            "met".to_owned()
        } else {
            format!("missed by {:.1} %", (figure / limit - 1.0) * 100.0)
        };
        let _ = writeln!(self.0, "| {what} ≤ {limit} | {figure:.3} | {verdict} |");
    }

    /// The table in Markdown; empty if no goal was measured.
    pub(super) fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        format!("| goal | figure | |\n|---|---:|---|\n{}", self.0)
    }
}

/// Formats a number with thousands separators: 12345.6 as 12,346. Numbers below 10 keep one decimal.
pub(super) fn digits(value: f64) -> String {
    if value.abs() < 10.0 && value != 0.0 {
        return format!("{value:.1}");
    }
    let plain = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 && plain != "0" { format!("−{out}") } else { out }
}

/// Formats a number as [`digits`] does, with a sign.
pub(super) fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", digits(value)) } else { digits(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_and_keep_their_sign() {
        assert_eq!(digits(1_234_567.4), "1,234,567");
        assert_eq!(digits(999.0), "999");
        assert_eq!(signed(281.0), "+281");
        assert_eq!(signed(-30.0), "−30");
        assert_eq!(signed(-0.2), "-0.2");
    }
}
