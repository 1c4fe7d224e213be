//! Wide characters that were partly overwritten, such as a name below a menu.

use ratatui::buffer::Buffer;
use ratatui::layout::Position;
use tracer_model::sanitize;

/// Replaces each wide character whose second half was overwritten with a space. A terminal cannot
/// show half a character, and ratatui's comparison of frames assumes that there is none: it would
/// skip the cell drawn over the second half.
pub fn blank_half_covered(buffer: &mut Buffer) {
    let area = buffer.area;
    for y in area.top()..area.bottom() {
        let mut x = area.left();
        while x < area.right() {
            let is_wide = sanitize::width(buffer[(x, y)].symbol()) == 2;
            let covered = buffer
                .cell(Position { x: x + 1, y })
                .is_none_or(|second| !matches!(second.symbol(), "" | " "));
            if is_wide && covered {
                buffer[(x, y)].set_symbol(" ");
            }
            x += if is_wide && !covered { 2 } else { 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Cell;

    use super::*;

    #[test]
    fn half_covered_characters_become_blank() {
        let mut buffer = Buffer::with_lines(["日本語abc"]);
        buffer[(3, 0)].set_symbol("│");
        blank_half_covered(&mut buffer);
        let symbols: Vec<&str> = buffer.content.iter().map(Cell::symbol).collect();
        assert_eq!(symbols, ["日", " ", " ", "│", "語", " ", "a", "b", "c"]);
        let before = buffer.clone();
        blank_half_covered(&mut buffer);
        assert_eq!(buffer, before);
    }
}
