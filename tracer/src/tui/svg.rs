//! Renders a painted frame as a picture for documents, cell by cell as a terminal would show it.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// Width of a cell, pixels.
const CELL_WIDTH: f64 = 8.4;
/// Height of a cell, pixels.
const CELL_HEIGHT: f64 = 17.0;
/// Margin around the screen, pixels.
const MARGIN: f64 = 10.0;
/// Text baseline, pixels below the top of a cell.
const BASELINE: f64 = 13.0;

/// Colours of a terminal with a dark background.
const FOREGROUND: &str = "#d0d0d0";
const BACKGROUND: &str = "#16181d";

/// The 16 basic colours.
const BASIC: [&str; 16] = [
    "#16181d", "#e0625d", "#7fb069", "#e0b04f", "#6a9fe0", "#c07fd0", "#5fb8c0", "#d0d0d0",
    "#7a808c", "#ff7a75", "#9fd089", "#ffd06f", "#8abfff", "#e09ff0", "#7fd8e0", "#ffffff",
];

/// Renders the frame as a complete SVG document.
#[must_use]
pub fn render_svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let width = f64::from(area.width) * CELL_WIDTH + 2.0 * MARGIN;
    let height = f64::from(area.height) * CELL_HEIGHT + 2.0 * MARGIN;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, Menlo, Consolas, \
         'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>"
    );
    for y in area.top()..area.bottom() {
        let mut x = area.left();
        while x < area.right() {
            let first = &buffer[(x, y)];
            let start = x;
            let mut text = String::new();
            while x < area.right() && style_of(&buffer[(x, y)]) == style_of(first) {
                text.push_str(buffer[(x, y)].symbol());
                // The second half of a wide character is an empty cell of its own.
                let wide = tracer_model::sanitize::width(buffer[(x, y)].symbol()).max(1);
                x = x.saturating_add(wide as u16);
            }
            write_run(
                &mut out,
                start - area.left(),
                y - area.top(),
                x.min(area.right()) - start,
                &text,
                first,
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn style_of(cell: &Cell) -> (Color, Color, Modifier) {
    (cell.fg, cell.bg, cell.modifier)
}

/// Writes neighbouring cells of the same style.
fn write_run(out: &mut String, x: u16, y: u16, cells: u16, text: &str, cell: &Cell) {
    let left = MARGIN + f64::from(x) * CELL_WIDTH;
    let top = MARGIN + f64::from(y) * CELL_HEIGHT;
    let width = f64::from(cells) * CELL_WIDTH;
    let reversed = cell.modifier.contains(Modifier::REVERSED);
    let mut front = color(cell.fg).unwrap_or_else(|| FOREGROUND.to_owned());
    let mut back = color(cell.bg);
    if reversed {
        let behind = back.unwrap_or_else(|| BACKGROUND.to_owned());
        back = Some(std::mem::replace(&mut front, behind));
    }
    if let Some(back) = back {
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{back}\"/>"
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let mut attributes = String::new();
    if cell.modifier.contains(Modifier::BOLD) {
        attributes.push_str(" font-weight=\"bold\"");
    }
    if cell.modifier.contains(Modifier::UNDERLINED) {
        attributes.push_str(" text-decoration=\"underline\"");
    }
    let _ = writeln!(
        out,
        "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" \
         xml:space=\"preserve\" fill=\"{front}\"{attributes}>{}</text>",
        top + BASELINE,
        escape(text)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn color(color: Color) -> Option<String> {
    let basic = |n: usize| Some(BASIC[n].to_owned());
    match color {
        Color::Reset => None,
        Color::Black => basic(0),
        Color::Red => basic(1),
        Color::Green => basic(2),
        Color::Yellow => basic(3),
        Color::Blue => basic(4),
        Color::Magenta => basic(5),
        Color::Cyan => basic(6),
        Color::Gray => basic(7),
        Color::DarkGray => basic(8),
        Color::LightRed => basic(9),
        Color::LightGreen => basic(10),
        Color::LightYellow => basic(11),
        Color::LightBlue => basic(12),
        Color::LightMagenta => basic(13),
        Color::LightCyan => basic(14),
        Color::White => basic(15),
        Color::Rgb(r, g, b) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
        Color::Indexed(n @ 0..=15) => basic(usize::from(n)),
        Color::Indexed(n @ 16..=231) => {
            // xterm's colour cube: six steps per channel.
            let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let n = n - 16;
            Some(format!("#{:02x}{:02x}{:02x}", step(n / 36), step(n / 6 % 6), step(n % 6)))
        }
        Color::Indexed(n) => {
            let grey = 8 + 10 * (n - 232);
            Some(format!("#{grey:02x}{grey:02x}{grey:02x}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn a_frame_becomes_a_picture() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "a<b 日本", Style::new());
        buffer.set_string(0, 1, "FULL", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
        buffer.set_string(6, 1, "x", Style::new().add_modifier(Modifier::REVERSED));
        insta::assert_snapshot!(render_svg(&buffer));
    }
}
