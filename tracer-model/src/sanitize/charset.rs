//! The characters that a terminal can show.

/// The characters that the terminal can show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Charset {
    /// All printable characters.
    #[default]
    Unicode,
    /// ASCII; everything else is escaped.
    Ascii,
}

impl Charset {
    /// The mark for omitted text, one column wide.
    #[must_use]
    pub const fn ellipsis(self) -> &'static str {
        match self {
            Self::Unicode => "…",
            Self::Ascii => "~",
        }
    }
}
