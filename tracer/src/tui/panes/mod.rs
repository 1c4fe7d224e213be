//! The parts of the screen, each with a pure paint function.

pub mod detail;
pub mod footer;
pub mod header;
pub mod menu;
pub mod pages;
pub mod table;
pub mod tabs;
pub mod verdict;
pub mod volumes;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tracer_model::sanitize;
use tracer_model::sanitize::Charset;

use super::state::UiState;
use crate::output::theme::{Role, Theme};

/// Writes text to a buffer, styled by role.
pub struct Painter<'b> {
    buffer: &'b mut Buffer,
    theme: Theme,
    charset: Charset,
}

impl<'b> Painter<'b> {
    /// A painter on `buffer` with the theme and charset of `state`.
    pub fn new(buffer: &'b mut Buffer, state: &UiState) -> Self {
        Self { buffer, theme: state.theme, charset: state.charset }
    }

    /// Writes `text`, which must be escaped already, into at most `width` columns, and returns the
    /// number of columns used.
    pub fn put(&mut self, x: u16, y: u16, text: &str, width: u16, role: Role) -> u16 {
        if !self.buffer.area.contains((x, y).into()) {
            return 0;
        }
        let style = self.theme.style(role);
        let cut = sanitize::truncate(text, usize::from(width), self.charset);
        let text = match self.charset {
            Charset::Unicode => cut,
            Charset::Ascii => sanitize::plain_punctuation(&cut).into(),
        };
        let (end, _) = self.buffer.set_stringn(x, y, &*text, usize::from(width), style);
        end.saturating_sub(x)
    }

    /// Applies the style of a role to `area` without changing its text.
    pub fn tint(&mut self, area: Rect, role: Role) {
        self.buffer.set_style(area.intersection(self.buffer.area), self.theme.style(role));
    }

    /// Blanks `area`.
    pub fn clear(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buffer[(x, y)].reset();
            }
        }
    }
}

/// A line of a page, escaped for display.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// The role that decides its style.
    pub role: Role,
}

impl Line {
    /// A line in the plain role.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), role: Role::Plain }
    }

    /// A line in this role.
    pub fn new(text: impl Into<String>, role: Role) -> Self {
        Self { text: text.into(), role }
    }
}

/// Paints a page of text on `area`, scrolled to line `from`: the title, the wrapped lines, and the
/// number of lines below.
pub fn draw_page(painter: &mut Painter<'_>, area: Rect, title: &str, lines: &[Line], from: usize) {
    painter.clear(area);
    if area.is_empty() {
        return;
    }
    let width = usize::from(area.width);
    let wrapped: Vec<(String, Role)> = lines
        .iter()
        .flat_map(|line| wrap(&line.text, width).into_iter().map(|text| (text, line.role)))
        .collect();
    let height = usize::from(area.height - 1);
    let from = from.min(wrapped.len().saturating_sub(height));
    let below = wrapped.len() - from - height.min(wrapped.len() - from);
    let more = match below {
        0 => String::new(),
        1 => "  (1 more line below)".to_owned(),
        _ => format!("  ({below} more lines below)"),
    };
    painter.put(area.x, area.y, &format!("{title}{more}"), area.width, Role::Head);
    for (y, (text, role)) in (area.y + 1..area.bottom()).zip(&wrapped[from..]) {
        painter.put(area.x, y, text, area.width, *role);
    }
}

/// Wraps `text` into lines of at most `width` columns, at blanks if possible. Continuation lines
/// are indented to the column after the label.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    const LABEL: usize = 14;
    let mut lines = vec![];
    let mut rest = text;
    let mut indent = 0;
    loop {
        let available = width.saturating_sub(indent).max(1);
        let pad = " ".repeat(indent);
        if sanitize::width(rest) <= available {
            lines.push(format!("{pad}{rest}"));
            return lines;
        }
        let mut end = 0;
        let mut used = 0;
        for (at, c) in rest.char_indices() {
            used += sanitize::width(c.encode_utf8(&mut [0; 4]));
            if used > available && at > 0 {
                break;
            }
            end = at + c.len_utf8();
        }
        // Break at a blank only if it is in the last third of the line.
        let at = rest[..end].rfind(' ').filter(|&at| at > end * 2 / 3).unwrap_or(end);
        lines.push(format!("{pad}{}", &rest[..at]));
        rest = rest[at..].trim_start();
        if rest.is_empty() {
            return lines;
        }
        if width > 2 * LABEL {
            indent = LABEL;
        }
    }
}

/// `label` padded to its column, followed by `text`.
#[must_use]
pub fn label_value(label: &str, text: &str) -> String {
    format!("{label:<13} {text}")
}

/// The last `width` values as a sparkline scaled to the largest; padded with blanks on the left.
#[must_use]
pub fn sparkline(values: &[f64], width: usize, charset: Charset) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let bars = match charset {
        Charset::Unicode => BARS,
        Charset::Ascii => PLAIN,
    };
    let last = &values[values.len().saturating_sub(width)..];
    let top = last.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let mut out = " ".repeat(width - last.len());
    out.extend(last.iter().map(|&value| {
        // Negative values get the lowest bar; the signed rate is shown next to the sparkline.
        let part = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
        bars[((part * 7.0).round() as usize).min(7)]
    }));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bars_grow_with_the_values() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 4.0], 6, Charset::Unicode), "  ▁▃▅█");
        assert_eq!(sparkline(&[9.0, -1.0, f64::NAN, 1.0], 3, Charset::Ascii), "__#");
        assert_eq!(sparkline(&[], 2, Charset::Unicode), "  ");
    }

    #[test]
    fn long_lines_are_wrapped_under_their_label() {
        let text = label_value("command", "one two three four five six seven");
        assert_eq!(
            wrap(&text, 30),
            ["command       one two three", "              four five six", "              seven"]
        );
    }

    proptest! {
        #[test]
        fn wrapping_loses_nothing_and_fits(text in "[a-z 日]{0,80}", width in 2usize..60) {
            let lines = wrap(&text, width);
            for line in &lines {
                prop_assert!(sanitize::width(line) <= width, "{line:?}");
            }
            let squeeze = |text: &str| text.replace(' ', "");
            prop_assert_eq!(squeeze(&lines.concat()), squeeze(&text));
        }
    }
}
