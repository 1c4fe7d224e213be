//! Patterns for mount points and for names of processes and groups.
//!
//! Not those of the crate globset: there `?` matches one byte (not `é`), and `[`, `{` and `\` are
//! special, so that not every text is a valid pattern.

/// A pattern for names: `*` matches any text, `?` any one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Creates a pattern. Every text is a valid pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the pattern matches all of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Position of the last `*` in the pattern, and how far into the text it has matched.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(b'?') => (p, t) = (p + 1, t + char_len(text, t)),
                Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
                _ => match &mut star {
                    Some((at, taken)) => {
                        *taken += 1;
                        (p, t) = (*at + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

/// Length in bytes of the UTF-8 character that starts at `at`.
fn char_len(text: &[u8], at: usize) -> usize {
    let rest = &text[at + 1..];
    1 + rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*", "", true)]
    #[case("/srv/*", "/srv/store", true)]
    #[case("/srv/*", "/srv", false)]
    #[case("*a*b", "xaxxab", true)]
    #[case("a?c", "aéc", true)]
    #[case("a?c", "ac", false)]
    #[case("", "", true)]
    #[case("", "a", false)]
    #[case("a**", "a", true)]
    fn patterns(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(Glob::new(pattern).matches(text), expected);
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_its_parts_with_stars(text in "[a-zé/]{0,12}", cut in 0usize..12) {
            prop_assert!(Glob::new(&text).matches(&text));
            let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let pattern = format!("{}*{}", &text[..cut], &text[cut..]);
            prop_assert!(Glob::new(&pattern).matches(&text));
        }
    }
}
