//! Makes file names and command lines, which are untrusted, safe and unambiguous to show.
//!
//! A name has three forms, with one conversion from each to the next:
//!
//! 1. **raw**: the kernel's bytes, anything but NUL.
//! 2. **lossless** ([`lossless`], reversed by [`restore`]): the form in a
//!    [`Snapshot`](crate::snapshot) and its JSON. It is the exact name if that is valid UTF-8 (JSON
//!    itself escapes control characters). A byte that is not UTF-8 becomes `\xNN`; to keep this
//!    unambiguous, backslashes in front of a literal `\x80`…`\xff` are doubled.
//! 3. **shown** ([`display`] from the lossless form, [`escape`] from raw bytes, reversed by
//!    [`unescape`]): the form for a terminal or a log. Nothing in it moves the cursor, changes the
//!    direction of text, or is invisible.
//!
//! The rule that no control character may reach a terminal is fd's. The reversible form is our own,
//! because users must be able to find a culprit's file by the name that was printed.

#[cfg(test)]
mod tests;
mod truncate;

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

pub use self::truncate::{fit, truncate, width};

/// Most combining marks on one character; further marks are escaped. Enough for every living
/// script, too few to paint over the neighbouring lines.
const MAX_MARKS: usize = 4;

/// Length of the escape that [`lossless`] writes for one byte: `\xNN`.
const HEX_ESCAPE: usize = 4;

/// Converts the raw bytes of a name to the lossless form; see the [module](self).
///
/// ```
/// # use tracer_model::sanitize::{lossless, restore};
/// assert_eq!(lossless(b"/srv/d\xc3\xa9j\xc3\xa0"), "/srv/d\u{e9}j\u{e0}");
/// assert_eq!(lossless(b"/srv/\xff"), r"/srv/\xff");
/// assert_eq!(lossless(br"/srv/\xff"), r"/srv/\\xff");
/// assert_eq!(restore(r"/srv/\xff"), b"/srv/\xff");
/// ```
#[must_use]
pub fn lossless(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        push_doubling(&mut out, chunk.valid(), !chunk.invalid().is_empty());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Appends `text`, doubling each run of backslashes in front of a literal `x80`…`xff`, or at the
/// end of `text` if an escape `follows`.
fn push_doubling(out: &mut String, text: &str, follows: bool) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let run = rest[at..].bytes().take_while(|&b| b == b'\\').count();
        let after = &rest[at + run..];
        let times = if is_high_hex(after) || (after.is_empty() && follows) { 2 } else { 1 };
        out.extend(std::iter::repeat_n('\\', run * times));
        rest = after;
    }
    out.push_str(rest);
}

/// Whether `text` starts with `x80`…`xff`, as written by [`lossless`].
fn is_high_hex(text: &str) -> bool {
    matches!(text.as_bytes(), [b'x', b'8' | b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f', ..])
}

/// Returns the raw bytes that were given to [`lossless`].
#[must_use]
pub fn restore(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let run = rest[at..].bytes().take_while(|&b| b == b'\\').count();
        let after = &rest[at + run..];
        if !is_high_hex(after) {
            out.extend(std::iter::repeat_n(b'\\', run));
            rest = after;
            continue;
        }
        out.extend(std::iter::repeat_n(b'\\', run / 2));
        rest = after;
        if run % 2 == 1 {
            // `is_high_hex` has just checked both digits.
            out.push(u8::from_str_radix(&after[1..HEX_ESCAPE - 1], 16).unwrap_or_default());
            rest = &after[HEX_ESCAPE - 1..];
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

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

/// Escapes raw bytes so that they are safe on a terminal; [`unescape`] reverses it.
///
/// `\` becomes `\\`; newline, tab and carriage return become `\n`, `\t`, `\r`; other control
/// characters and bytes that are not UTF-8 become `\xNN`. Other characters that are invisible or
/// change the appearance of their surroundings (C1, bidi, zero width, separators, odd spaces, stray
/// combining marks) become `\u{N}`.
///
/// ```
/// # use tracer_model::sanitize::escape;
/// assert_eq!(escape(b"a\x1b[2Jb\n"), r"a\x1b[2Jb\n");
/// assert_eq!(escape("exe\u{202e}gpj".as_bytes()), r"exe\u{202e}gpj");
/// ```
#[must_use]
pub fn escape(raw: &[u8]) -> String {
    escape_for(raw, Charset::Unicode)
}

/// Like [`escape`], for a terminal that shows only `charset`.
#[must_use]
pub fn escape_for(raw: &[u8], charset: Charset) -> String {
    let mut out = String::with_capacity(raw.len() + 8);
    // Combining marks since the last character with a width.
    let mut marks = MAX_MARKS;
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            let safe = match c {
                ' '..='~' => c != '\\',
                _ if c.is_ascii() || charset == Charset::Ascii => false,
                _ => is_visible(c),
            };
            let mark = safe && c.width() == Some(0);
            if safe && (!mark || marks < MAX_MARKS) {
                marks = if mark { marks + 1 } else { 0 };
                out.push(c);
            } else {
                // A following mark would combine with the last character of the escape.
                marks = MAX_MARKS;
                push_escaped(&mut out, c);
            }
        }
        for byte in chunk.invalid() {
            marks = MAX_MARKS;
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if c.is_ascii() => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// Whether this non-ASCII character is visible and leaves its surroundings alone.
///
/// Excludes Unicode's `Default_Ignorable_Code_Point`, `Bidi_Control`, `White_Space` and `Cc`, and
/// the variation selectors, on whose width terminals disagree.
fn is_visible(c: char) -> bool {
    !(c.is_control()
        || c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'))
}

/// Returns the raw bytes that were given to [`escape`]; `None` if `text` is not its output.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = &rest[at + 1..];
        let kind = code.chars().next()?;
        let after = &code[kind.len_utf8()..];
        rest = match kind {
            '\\' | 'n' | 't' | 'r' => {
                out.push(match kind {
                    'n' => b'\n',
                    't' => b'\t',
                    'r' => b'\r',
                    _ => b'\\',
                });
                after
            }
            'x' => {
                out.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
                &after[2..]
            }
            'u' => {
                let (hex, tail) = after.strip_prefix('{')?.split_once('}')?;
                let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                tail
            }
            _ => return None,
        };
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// Escapes a string of a Snapshot (lossless form) so that it is safe on a terminal.
#[must_use]
pub fn display(text: &str) -> Cow<'_, str> {
    display_for(text, Charset::Unicode)
}

/// Like [`display`], for a terminal that shows only `charset`.
#[must_use]
pub fn display_for(text: &str, charset: Charset) -> Cow<'_, str> {
    // Nearly every name: printable ASCII without escapes.
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(escape_for(&restore(text), charset))
}

/// Quotes `word` as one argument for a POSIX shell.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Replaces our own punctuation by ASCII; names must be escaped for [`Charset::Ascii`] already.
///
/// Every character is replaced by one of the same width, so that columns stay aligned.
#[must_use]
pub fn plain_punctuation(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '…' => '~',
            '–' | '─' => '-',
            '·' | '│' => '|',
            '≤' | '←' => '<',
            '→' => '>',
            '↑' => '^',
            '↓' => 'v',
            c if c.is_ascii() => c,
            _ => '?',
        })
        .collect()
}
