//! Roles and their styles. Nothing is expressed by colour alone: words or position carry the same
//! information.

use ratatui::style::{Color, Modifier, Style};

/// The role of a piece of text, which decides its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Ordinary text.
    Plain,
    /// Headings and names.
    Head,
    /// Less important text.
    Faint,
    /// Usage bars, sparklines and keys.
    Accent,
    /// A volume that fills within hours; a held file that grows.
    Warning,
    /// A volume that is full, or will be within half an hour.
    Critical,
    /// The selected row.
    Selected,
}

/// A set of styles, one per role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// The terminal's own 16 colours on a dark background.
    #[default]
    Dark,
    /// The same for a light background, on which yellow and cyan are illegible.
    Light,
    /// Blue and orange from the 256-colour palette, distinguishable with every colour blindness.
    Safe,
    /// Bold, underlined and reversed text only (`NO_COLOR`).
    Mono,
}

impl Theme {
    /// The next theme in the order of the `c` key.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Dark => Self::Light,
            Self::Light => Self::Safe,
            Self::Safe => Self::Mono,
            Self::Mono => Self::Dark,
        }
    }

    /// The name, for the footer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Safe => "colour-blind safe",
            Self::Mono => "no colour",
        }
    }

    /// The style of a role.
    #[must_use]
    pub fn style(self, role: Role) -> Style {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        match (role, self) {
            (Role::Plain, _) => plain,
            (Role::Head, _) => bold,
            (Role::Selected, _) => plain.add_modifier(Modifier::REVERSED),
            (Role::Faint, Self::Mono) => plain,
            (Role::Faint, _) => plain.fg(Color::DarkGray),
            (Role::Accent, Self::Dark) => plain.fg(Color::Cyan),
            (Role::Accent, Self::Light) => plain.fg(Color::Blue),
            (Role::Accent, Self::Safe) => plain.fg(Color::Indexed(32)),
            (Role::Accent, Self::Mono) => plain,
            (Role::Warning, Self::Dark) => plain.fg(Color::Yellow),
            (Role::Warning, Self::Light) => plain.fg(Color::Magenta),
            (Role::Warning, Self::Safe) => plain.fg(Color::Indexed(172)),
            (Role::Warning, Self::Mono) => plain.add_modifier(Modifier::UNDERLINED),
            (Role::Critical, Self::Dark | Self::Light) => bold.fg(Color::Red),
            (Role::Critical, Self::Safe) => {
                bold.fg(Color::Indexed(172)).add_modifier(Modifier::UNDERLINED)
            }
            (Role::Critical, Self::Mono) => bold.add_modifier(Modifier::UNDERLINED),
        }
    }
}
