//! The corpus of verdict scenarios: each is played through the engine, and its verdict compared with
//! what must be concluded. `docs/verdict.md` has the table; `UPDATE_DOCS=1` writes it anew.

mod play;
mod properties;
mod scenario;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use play::{play, size};
use scenario::{Expect, File, Scenario};
use tracer_model::snapshot::{Culprit, Resource, Verdict};

const FILES: &[(&str, &str)] = &[
    ("incidents", include_str!("incidents.toml")),
    ("limits", include_str!("limits.toml")),
    ("unexplained", include_str!("unexplained.toml")),
    ("full", include_str!("full.toml")),
    ("behalf", include_str!("behalf.toml")),
    ("held", include_str!("held.toml")),
    ("next", include_str!("next.toml")),
];

/// The smallest number of scenarios: none may get lost.
const AT_LEAST: usize = 40;

fn corpus() -> Vec<(&'static str, Scenario)> {
    let mut all = Vec::new();
    for (name, text) in FILES {
        let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        all.extend(file.scenario.into_iter().map(|scenario| (*name, scenario)));
    }
    all
}

#[test]
fn every_scenario_has_its_verdict() {
    let corpus = corpus();
    assert!(corpus.len() >= AT_LEAST, "{} scenarios", corpus.len());
    let names: HashSet<&str> = corpus.iter().map(|(_, one)| one.name.as_str()).collect();
    assert_eq!(names.len(), corpus.len(), "names are unique");
    let mut wrong = String::new();
    for (_, scenario) in &corpus {
        let snapshot = play(scenario);
        let verdict = snapshot.volumes[0].verdict.clone().expect("a verdict");
        let mut faults = faults(&scenario.expect, &verdict);
        faults.extend(inconsistencies(&verdict));
        if !faults.is_empty() {
            let _ =
                writeln!(wrong, "{}: {}\n  {}", scenario.name, faults.join("; "), verdict.summary);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What holds for every verdict.
fn inconsistencies(verdict: &Verdict) -> Vec<String> {
    let mut faults = Vec::new();
    let named: f64 = verdict.culprits.iter().map(|culprit| culprit.share).sum();
    if let Some(unexplained) = verdict.unexplained_share {
        let sum = named + verdict.others_share + unexplained;
        if (sum - 1.0).abs() > 1e-6 {
            faults.push(format!("shares sum up to {sum}"));
        }
    }
    if verdict.suggestion.is_some() == verdict.no_suggestion.is_some() {
        faults.push("a next step and a reason for none".to_owned());
    }
    faults
}

fn faults(expect: &Expect, verdict: &Verdict) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |what: &str, is_right: bool, is: String| {
        if !is_right {
            faults.push(format!("{what} is {is}"));
        }
    };
    let first = verdict.culprits.first().filter(|_| !verdict.mostly_unexplained);
    check("state", verdict.state.name() == expect.state, verdict.state.name().to_owned());
    if let Some(limit) = &expect.limit {
        check("limit", verdict.limit.name() == limit, verdict.limit.name().to_owned());
    }
    if let Some(culprit) = &expect.culprit {
        let is = first.map_or_else(String::new, called);
        check("culprit", is == *culprit, is.clone());
    }
    if let Some(pid) = expect.pid {
        check("pid", first.is_some_and(|first| first.pids.contains(&pid)), format!("{first:?}"));
    }
    if let Some([least, most]) = expect.share {
        let share = first.map_or(0.0, |first| first.share);
        check("share", (least..=most).contains(&share), share.to_string());
    }
    if let Some(rate) = &expect.rate {
        let wanted = match verdict.resource {
            Resource::Bytes => size(rate) as f64,
            Resource::Inodes => rate.parse().expect("a number"),
        };
        let rate = first.map_or(0.0, |first| first.resource_per_s);
        check("rate", (rate / wanted - 1.0).abs() <= 0.15, rate.to_string());
    }
    if let Some([least, most]) = expect.unexplained {
        let share = verdict.unexplained_share.unwrap_or(-1.0);
        check("unexplained", (least..=most).contains(&share), share.to_string());
    }
    let behalf = first.and_then(|first| first.on_behalf_of.as_ref());
    if let Some(kind) = &expect.behalf {
        let is = behalf.map_or("none", |behalf| behalf.kind.name());
        check("behalf", is == kind, is.to_owned());
    }
    if let Some(name) = &expect.behalf_name {
        let is = behalf.map_or("", |behalf| behalf.name.as_str());
        check("behalf's name", is.contains(name.as_str()), is.to_owned());
    }
    if let Some(directory) = &expect.directory {
        let is = first.and_then(|first| first.directory.clone()).unwrap_or_default();
        check("directory", is == *directory, is.clone());
    }
    let next = next(verdict);
    check("next", next == expect.next, next.clone());
    if let Some(victims) = &expect.victims {
        let is: Vec<&str> = verdict.victims.iter().map(|one| one.comm.as_str()).collect();
        check("victims", is == *victims, format!("{is:?}"));
    }
    for name in &expect.not {
        let blamed = first.is_some() && verdict.culprits.iter().any(|one| one.comm == *name);
        check("not", !blamed, format!("{name} is blamed"));
    }
    if let Some(suspects) = &expect.suspects {
        let is: Vec<&str> = verdict.suspects.iter().map(|one| one.comm.as_str()).collect();
        check("suspects", is == *suspects, format!("{is:?}"));
    }
    for words in &expect.reclaim {
        let lines: Vec<String> = verdict
            .reclaim
            .iter()
            .map(|item| format!("{}; {}; {:?}", item.what, item.how, item.command))
            .collect();
        check("reclaim", lines.iter().any(|line| line.contains(words.as_str())), lines.join(" | "));
    }
    for words in &expect.says {
        check("summary", verdict.summary.contains(words.as_str()), format!("without {words:?}"));
    }
    for words in &expect.never_says {
        check("summary", !verdict.summary.contains(words.as_str()), format!("with {words:?}"));
    }
    faults
}

fn called(culprit: &Culprit) -> String {
    match (&culprit.group, culprit.is_group) {
        (Some(group), true) => group.name.clone(),
        _ => culprit.comm.clone(),
    }
}

fn next(verdict: &Verdict) -> String {
    match (&verdict.suggestion, verdict.no_suggestion) {
        (Some(next), _) => format!("{} {}", next.how, next.target),
        (None, Some(why)) => why.name().to_owned(),
        (None, None) => String::new(),
    }
}

#[test]
fn the_document_has_the_table_of_the_corpus() {
    const BEGIN: &str = "<!-- begin: corpus -->\n";
    const END: &str = "<!-- end: corpus -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verdict.md");
    let text = std::fs::read_to_string(&path).expect("docs/verdict.md");
    let start = text.find(BEGIN).expect("the begin mark") + BEGIN.len();
    let end = text.find(END).expect("the end mark");
    let table = table();
    if text[start..end] != table {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let new = format!("{}{table}{}", &text[..start], &text[end..]);
            std::fs::write(&path, new).expect("docs/verdict.md");
            return;
        }
        panic!(
            "docs/verdict.md is out of date: UPDATE_DOCS=1 cargo test -p tracer-model --test verdicts"
        );
    }
}

/// One line for each scenario, with the verdict that the engine gives.
fn table() -> String {
    let mut table = String::from("| scenario | verdict | next step |\n|---|---|---|\n");
    for (_, scenario) in corpus() {
        let snapshot = play(&scenario);
        let verdict = snapshot.volumes[0].verdict.clone().expect("a verdict");
        let next = match (&verdict.suggestion, &verdict.why_no_suggestion) {
            (Some(next), _) => format!("`{}`", next.command),
            (None, Some(why)) => format!("none: {why}"),
            (None, None) => "none".to_owned(),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            table,
            "| {} | {} | {} |",
            cell(&scenario.title),
            cell(&verdict.summary),
            cell(&next)
        );
    }
    table
}
