//! Capabilities of the terminal, from the environment.
//!
//! Pure: the environment is a function, so that every case can be tested.

use tracer_model::sanitize::Charset;

use super::theme::Theme;

/// A variable's value; empty counts as unset, as NO_COLOR and POSIX specify.
fn value(env: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

/// Unicode if the locale's encoding is UTF-8, else ASCII.
#[must_use]
pub fn charset(env: impl Fn(&str) -> Option<String>) -> Charset {
    // POSIX: the first of these that is set decides.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| value(&env, name));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") {
        Charset::Unicode
    } else {
        Charset::Ascii
    }
}

/// Whether colour may be used: not if `NO_COLOR` is set (<https://no-color.org>), and not on
/// monochrome terminals.
#[must_use]
pub fn color(env: impl Fn(&str) -> Option<String>) -> bool {
    let term = value(&env, "TERM").unwrap_or_default();
    let monochrome = ["", "dumb", "unknown"].contains(&&*term)
        || term.starts_with("vt1")
        || term.starts_with("vt2")
        || term.ends_with("-mono")
        || term.ends_with("-m");
    value(&env, "NO_COLOR").is_none() && !monochrome
}

/// The colour theme of the live screen: monochrome if colour may not be used, light if `COLORFGBG`
/// (set by rxvt and Konsole) reports a light background, else dark.
#[must_use]
pub fn theme(env: impl Fn(&str) -> Option<String>) -> Theme {
    if !color(&env) {
        return Theme::Mono;
    }
    let colors = value(&env, "COLORFGBG").unwrap_or_default();
    match colors.rsplit(';').next() {
        Some("7" | "15") => Theme::Light,
        _ => Theme::Dark,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[rstest]
    #[case(&[("LANG", "de_DE.UTF-8")], Charset::Unicode)]
    #[case(&[("LANG", "C.utf8")], Charset::Unicode)]
    #[case(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], Charset::Ascii)]
    #[case(&[("LANG", "C"), ("LC_CTYPE", "en_US.UTF-8"), ("LC_ALL", "")], Charset::Unicode)]
    #[case(&[], Charset::Ascii)]
    fn charsets(#[case] set: &[(&str, &str)], #[case] want: Charset) {
        assert_eq!(charset(env(set)), want);
    }

    #[rstest]
    #[case(&[("TERM", "xterm-256color")], Theme::Dark)]
    #[case(&[("TERM", "linux"), ("NO_COLOR", "1")], Theme::Mono)]
    #[case(&[("TERM", "linux"), ("NO_COLOR", "")], Theme::Dark)]
    #[case(&[("TERM", "vt220")], Theme::Mono)]
    #[case(&[], Theme::Mono)]
    #[case(&[("TERM", "rxvt"), ("COLORFGBG", "0;default;15")], Theme::Light)]
    #[case(&[("TERM", "rxvt"), ("COLORFGBG", "15;0")], Theme::Dark)]
    fn themes(#[case] set: &[(&str, &str)], #[case] want: Theme) {
        assert_eq!(theme(env(set)), want);
    }
}
