//! The layout of the screen for a given terminal size.

use ratatui::layout::{Rect, Size};

/// The smallest terminal with tables; a smaller one gets a single sentence.
pub const MIN: Size = Size::new(30, 8);
/// From this width on, the details of the selected row are shown next to the table.
const SIDE_FROM: u16 = 150;
/// From this height on, a second table is shown below the first.
const SECOND_FROM: u16 = 44;

/// From this height on, one line shows the verdict, and from the second on, two do.
const VERDICT_FROM: [u16; 2] = [14, 24];

/// The areas of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// One line: host, time, losses, backend.
    pub header: Rect,
    /// A heading, and one line for each volume that fits.
    pub volumes: Rect,
    /// The verdict on the focused volume; `None` on low terminals.
    pub verdict: Option<Rect>,
    /// One line: the names of the tables.
    pub tabs: Rect,
    /// A heading and the rows.
    pub table: Rect,
    /// The details of the selected row, on wide terminals.
    pub side: Option<Rect>,
    /// A second table, on tall terminals.
    pub second: Option<Rect>,
    /// One line: the keys available now.
    pub footer: Rect,
}

impl Layout {
    /// The layout of `area` with this many volumes; `None` if it is smaller than [`MIN`].
    #[must_use]
    pub fn new(area: Rect, volumes: usize) -> Option<Self> {
        if area.width < MIN.width || area.height < MIN.height {
            return None;
        }
        let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
        let most = (area.height.saturating_sub(6) / 3).max(1);
        let shown = u16::try_from(volumes).unwrap_or(u16::MAX).clamp(1, most);
        // Always as many lines, so that nothing moves when a volume begins to fill.
        let lines = VERDICT_FROM.into_iter().filter(|height| area.height >= *height).count() as u16;
        let verdict = (lines > 0).then_some(Rect { y: area.y + 2 + shown, height: lines, ..area });
        let top = 1 + 1 + shown + lines;
        let body = Rect { y: area.y + top + 1, height: area.height - top - 2, ..area };
        let side_width = if area.width >= SIDE_FROM { area.width * 2 / 5 } else { 0 };
        let side = (side_width > 0).then_some(Rect {
            x: area.x + area.width - side_width,
            width: side_width,
            ..body
        });
        // One blank column in between.
        let main_width = area.width - side_width - u16::from(side_width > 0);
        let second_height = if area.height >= SECOND_FROM { body.height / 2 } else { 0 };
        let main = Rect { width: main_width, height: body.height - second_height, ..body };
        let second = (second_height > 0).then_some(Rect {
            y: main.y + main.height,
            height: second_height,
            ..main
        });
        Some(Self {
            header: line(0),
            volumes: Rect { y: area.y + 1, height: 1 + shown, ..area },
            verdict,
            tabs: line(top),
            table: main,
            side,
            second,
            footer: line(area.height - 1),
        })
    }

    /// Number of table rows, without the heading.
    #[must_use]
    pub fn page(&self) -> usize {
        usize::from(self.table.height.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn areas_are_on_the_screen_and_disjoint(
            width in 1u16..=300, height in 1u16..=100, volumes in 0usize..200,
        ) {
            let area = Rect::new(0, 0, width, height);
            let Some(layout) = Layout::new(area, volumes) else {
                prop_assert!(width < MIN.width || height < MIN.height);
                return Ok(());
            };
            let mut areas = vec![
                layout.header, layout.volumes, layout.tabs, layout.table, layout.footer,
            ];
            areas.extend(layout.verdict);
            areas.extend(layout.side);
            areas.extend(layout.second);
            for (i, one) in areas.iter().enumerate() {
                prop_assert!(one.area() > 0 && area.union(*one) == area, "{one}");
                for other in &areas[..i] {
                    prop_assert!(one.intersection(*other).area() == 0, "{one} {other}");
                }
            }
            prop_assert!(layout.page() >= 1);
        }
    }
}
