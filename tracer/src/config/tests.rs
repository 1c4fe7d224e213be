//! Tests of the configuration parser: what it accepts, what it rejects, and the error messages.

use proptest::prelude::*;
use rstest::rstest;
use tracer_model::alert::Condition;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("x.toml", text).map_err(|error| error.to_string())
}

/// The sample with every example enabled.
fn all_of_the_sample() -> String {
    SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_sample_has_the_defaults() {
    let sample = parse(SAMPLE).unwrap();
    assert_eq!(sample.rules, Config::default().rules);
    assert_eq!(sample.interval, Config::default().interval);
    assert!(sample.sinks.is_empty() && sample.stdout);
}

#[test]
fn every_example_of_the_sample_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "https://example.org/hook\n").unwrap();
    let mut text = all_of_the_sample();
    for secret in ["token", "slack-url", "pagerduty-key"] {
        text = text.replace(&format!("/etc/filltop/{secret}"), file.to_str().unwrap());
    }
    let all = parse(&text).unwrap();
    assert_eq!(all.rules.len(), 9);
    assert_eq!(all.sinks.len(), 10, "{:?}", all.sinks.iter().map(|s| &s.name).collect::<Vec<_>>());
    assert_eq!(all.directories(), ["/srv/store/uploads"]);
    // The sample shows the guard's defaults, and the reference is generated from the sample.
    assert_eq!(all.guard, GuardConfig::default());
    let rule = |name: &str| all.rules.iter().find(|rule| rule.name == name).unwrap();
    assert_eq!(rule("uploads-cap").critical, Some(10_737_418_240.0));
    assert!(matches!(&rule("backup-too-fast").condition, Condition::GroupRate { .. }));
    let slack = all.sinks.iter().find(|sink| sink.name == "slack").unwrap();
    let SinkKind::Webhook(slack) = &slack.kind else { panic!("{slack:?}") };
    assert_eq!(
        (&slack.template, slack.endpoint.url.as_str()),
        (&Template::Slack, "https://example.org/hook")
    );
}

#[rstest]
#[case("interwal = \"1s\"", "x.toml:1:1: unknown key `interwal`: did you mean `interval`?")]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"used_percent\"\nabove = \"90%\"",
    "x.toml:4:1: unknown key `above`; expected one of name"
)]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"used_procent\"",
    "x.toml:3:8: unknown value `used_procent`: did you mean `used_percent`?"
)]
#[case("\n\n[[webhook]]\nurl = \"ftp://x\"", "x.toml:4:7: url: must be http")]
#[case("[[webhook]]\nformat = \"slack\"", "x.toml:1:1: a webhook needs either `url` or `url_file`")]
#[case(
    "[[webhook]]\nurl_file = \"/no/such/file\"",
    "x.toml:2:12: url_file: /no/such/file: No such file"
)]
#[case(
    "[[webhook]]\nurl = \"http://x\"\nformat = \"custom\"\nbody = \"{sumary}\"",
    "x.toml:4:8: body: unknown field {sumary}: did you mean `summary`?"
)]
#[case(
    "[[exec]]\ncommand = [\"page.sh\"]",
    "x.toml:2:11: command: the program must be an absolute path"
)]
#[case("[[exec]]\ncommand = []", "x.toml:2:11: command: must name a program")]
#[case("[[mail]]\nto = [\"root\"]", "x.toml:2:6: to: must be a list of addresses")]
#[case("[[syslog]]\nto = \"loghost\"", "x.toml:2:6: to: must be a socket path")]
#[case(
    "[[syslog]]\nfacility = \"demon\"",
    "x.toml:2:12: facility: unknown value `demon`: did you mean `daemon`?"
)]
#[case("[[rule]]\nname = \"a\"", "x.toml:2:8: rule `a` has no `when`")]
#[case("[[rule]]\nname = \"a\"\nwhen = \"growth\"", "x.toml:2:8: rule `a` has neither")]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"growth\"\nwarning = \"1GB\"",
    "x.toml:4:11: warning: must be a rate such as 50MB/s"
)]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"growth\"\nwarning = \"1GB/s\"\npath = \"/x\"",
    "x.toml:5:8: `path` does not apply"
)]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"dir_size\"\nwarning = \"1GB\"",
    "x.toml:3:8: rule `a` needs a `path`"
)]
#[case(
    "[[rule]]\nname = \"a\"\nwhen = \"dir_size\"\nwarning = \"1GB\"\npath = \"x\"",
    "x.toml:5:8: path: must be absolute"
)]
#[case(
    "[[rule]]\nname = \"time-to-full\"\nwarning = \"1m\"",
    "x.toml:2:8: rule `time-to-full`: the critical threshold is reached before the warning one"
)]
#[case(
    "[[rule]]\nname = \"full\"\nquiet = \"22-7\"",
    "x.toml:3:9: quiet: must be a time range such as"
)]
#[case(
    "[[rule]]\nname = \"full\"\nrepeat = \"0s\"",
    "x.toml:3:10: repeat: must be between 1s and 3650d"
)]
#[case(
    "[[rule]]\nname = \"full\"\nyields_to = [\"time-to-ful\"]",
    "x.toml:3:14: yields_to: no rule `time-to-ful`: did you mean `time-to-full`?"
)]
#[case("[[rule]]\nname = \"full\"\n[[rule]]\nname = \"full\"", "x.toml:4:8: duplicate rule `full`")]
#[case("interval = \"1ms\"", "x.toml:1:12: interval: must be between 100ms and 1h")]
#[case("rule = 7", "x.toml:1:8: invalid type")]
#[case("[[rule]\n", "x.toml:1:")]
fn errors_have_a_line_and_an_explanation(#[case] text: &str, #[case] words: &str) {
    let error = parse(text).unwrap_err();
    assert!(error.contains(words), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_built_in_rule_is_changed_or_removed_by_its_name() {
    let text = "[[rule]]\nname = \"time-to-full\"\nwarning = \"8h\"\n[[rule]]\nname = \"nearly-full\"\nenabled = false";
    let config = parse(text).unwrap();
    let rule = config.rules.iter().find(|rule| rule.name == "time-to-full").unwrap();
    assert_eq!((rule.warning, rule.critical), (Some(28_800.0), Some(1800.0)));
    assert_eq!(rule.inhibited_by, ["full"], "the rest stays");
    assert_eq!(config.rules.len(), Config::default().rules.len() - 1);
}

#[test]
fn no_secret_is_ever_printed() {
    let text = "[[webhook]]\nurl = \"https://user:hunter2@example.org/T000/hunter2\"\nheaders = { Authorization = \"hunter2\" }";
    let config = parse(text).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any text is accepted, or rejected with one line, and never panics.
    #[test]
    fn any_text_is_accepted_or_rejected(text in "[\\[\\]\"'= \n#.a-z0-9_%é\u{0}\\\\{},:-]{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.starts_with("x.toml") && !error.contains('\n'), "{error}");
        }
    }

    /// The full sample with some of its text broken is accepted, or rejected with a line that exists.
    #[test]
    fn a_broken_sample_is_accepted_or_rejected(
        at in 0.0..1.0f64,
        length in 0usize..12,
        new in "[\\[\\]\"'= \n#a-z0-9_%{},:/-]{0,6}",
    ) {
        let mut text = all_of_the_sample();
        let place = |at: usize| (at..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        let start = place(((text.len() as f64 * at) as usize).min(text.len()));
        let end = place((start + length).min(text.len()));
        text.replace_range(start..end, &new);
        if let Err(error) = Config::parse("x.toml", &text) {
            prop_assert!(!error.message.contains('\n') && !error.message.is_empty());
            if let Some((line, column)) = error.place {
                prop_assert!(line >= 1 && column >= 1 && line <= text.matches('\n').count() + 1);
            }
        }
    }
}
