//! Truncates text to a number of columns.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::charset::Charset;

/// Columns that `text` occupies on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// The longest prefix of `text` in at most `columns`, including its combining marks.
fn head(text: &str, columns: usize) -> &str {
    if text.len() <= columns {
        return text;
    }
    let mut used = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        end = at + c.len_utf8();
    }
    &text[..end]
}

/// The longest suffix of `text` in at most `columns` that does not start with a combining mark of
/// the removed part.
fn tail(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        let w = c.width().unwrap_or(0);
        used += w;
        if used > columns {
            break;
        }
        if w > 0 {
            start = at;
        }
    }
    &text[start..]
}

/// Truncates a label, command or sentence to `columns` at its end: `postgres: chec…`.
///
/// `text` must be escaped already ([`display`](super::display)).
#[must_use]
pub fn truncate(text: &str, columns: usize, charset: Charset) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    match columns {
        0 => Cow::Borrowed(""),
        _ => Cow::Owned(format!("{}{}", head(text, columns - 1), charset.ellipsis())),
    }
}

/// Shortens a path to `columns` and keeps its end: `/srv/…/part.0001`, or `…art.0001` if not even
/// the last name fits.
///
/// Long ids are shortened first, so that the part that names the container or pod stays. As many
/// whole leading directories are kept as fit. `text` must be escaped already
/// ([`display`](super::display)).
#[must_use]
pub fn fit(text: &str, columns: usize, charset: Charset) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let dots = charset.ellipsis();
    Cow::Owned(fit_whole(&short_ids(text, dots), columns, dots).into_owned())
}

/// Shortens ids of containers, layers and pods to their first digits, which identify them.
fn short_ids<'t>(text: &'t str, dots: &str) -> Cow<'t, str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut kept_to) = (0, 0);
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| is_digit(**byte)).count();
        let shown = if run >= LONG_ID {
            Some((12, run))
        } else {
            uuid(&bytes[at..]).map(|length| (8, length))
        };
        let begins = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        if let Some((shown, length)) = shown.filter(|_| begins) {
            out.push_str(&text[kept_to..at + shown]);
            out.push_str(dots);
            at += length;
            kept_to = at;
        } else {
            at += run.max(1);
        }
    }
    if kept_to == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept_to..]);
    Cow::Owned(out)
}

/// Fewest consecutive hexadecimal digits that count as an id rather than a number or a word.
const LONG_ID: usize = 32;

/// The length of the UUID at the start of `bytes`, if there is one.
fn uuid(bytes: &[u8]) -> Option<usize> {
    let uuid = bytes.get(..36)?;
    let fits = uuid.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(uuid.len())
}

fn fit_whole<'t>(text: &'t str, columns: usize, dots: &str) -> Cow<'t, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    if columns == 0 {
        return Cow::Borrowed("");
    }
    // `/…/name`: the name with its slash, and two columns for the `/…` before it.
    let name = text.trim_end_matches('/').rfind('/').map_or(text, |at| &text[at..]);
    let name_width = name.width();
    if name.len() == text.len() || name_width + 2 > columns {
        return Cow::Owned(format!("{dots}{}", tail(text, columns - 1)));
    }
    let available = columns - name_width - 1;
    let front = head(&text[..text.len() - name.len()], available);
    // Keep only whole directories in front; a path always keeps its leading slash.
    let front = front.rfind('/').map_or("", |at| &front[..=at]);
    if front.is_empty() {
        return Cow::Owned(format!("{dots}{}", tail(text, columns - 1)));
    }
    // Use the columns left over by whole directories for the end of the path.
    let left = columns - front.width() - 1;
    let end = tail(text, left);
    let end = end.find('/').map_or(end, |at| &end[at..]);
    Cow::Owned(format!("{front}{dots}{end}"))
}
