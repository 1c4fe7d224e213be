//! Spelling of all texts in the repository: names, comments, messages, documents. The dictionary is
//! that of `typos`, a list of known misspellings, so that names and abbreviations need no list of
//! their own.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::Command;

use typos::tokens::{Identifier, TokenizerBuilder, Word};
use typos::{Dictionary, Status, check_str};

/// Not checked: generated, copied or recorded files.
const SKIPPED: &[&str] = &[
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tests/forecast/traces/",
    "tests/runtimes/runtime/",
    "docs/pictures/",
    // What older versions printed in recorded runs.
    "docs/incidents.md",
];

/// Names and abbreviations that look like misspellings, and words that are misspelled or cut short
/// on purpose.
const ACCEPTED: &[&str] = &[
    "abd",
    "chec",
    "controllen",
    "filp",
    "flate",
    "freez",
    "ful",
    "inh",
    "monitord",
    "paralle",
    "parms",
    "ratatui",
    "slee",
    "sumary",
    "warnign",
    "wronly",
];

/// Phrases that the project does not use, with the standard term.
const PHRASES: &[(&str, &str)] = &[
    ("stands still", "is suspended"),
    ("stand still", "are suspended"),
    ("put aside", "preempted"),
    ("lets go", "resumes, releases"),
    ("let go on", "resumed"),
    ("gone by", "applied"),
];

struct KnownMisspellings;

impl Dictionary for KnownMisspellings {
    fn correct_ident<'s>(&'s self, _: Identifier<'_>) -> Option<Status<'s>> {
        None
    }

    fn correct_word<'s>(&'s self, word: Word<'_>) -> Option<Status<'s>> {
        if ACCEPTED.contains(&word.token().to_lowercase().as_str()) {
            return None;
        }
        let corrections = typos_dict::WORD.find(&word.token().into())?;
        Some(Status::Corrections(corrections.iter().map(|word| Cow::Borrowed(*word)).collect()))
    }
}

/// All files of the repository, or of the folder if it is not a repository (a release's archive).
fn files(root: &Path) -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output();
    let Ok(listed) = listed else { return Vec::new() };
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = names.split('\0').filter(|name| !name.is_empty());
    names
        .filter(|name| !SKIPPED.iter().any(|skipped| name.starts_with(skipped)))
        // Their texts come from the sources; columns cut words short.
        .filter(|name| !name.ends_with(".snap"))
        .map(str::to_owned)
        .collect()
}

/// `FILE:LINE: what is wrong`, for each misspelled word of a text.
fn misspelled(name: &str, text: &str) -> Vec<String> {
    let tokenizer = TokenizerBuilder::new().build();
    let line = |offset: usize| text[..offset].matches('\n').count() + 1;
    let typos = check_str(text, &tokenizer, &KnownMisspellings);
    let mut found: Vec<String> = typos
        .map(|typo| {
            let corrections = match &typo.corrections {
                Status::Corrections(words) => words.join(" or "),
                Status::Valid | Status::Invalid => "?".to_owned(),
            };
            format!("{name}:{}: {} should be {corrections}", line(typo.byte_offset), typo.typo)
        })
        .collect();
    let lower = text.to_lowercase();
    for (phrase, term) in PHRASES {
        for (offset, _) in lower.match_indices(phrase) {
            let line = lower[..offset].matches('\n').count() + 1;
            found.push(format!("{name}:{line}: {phrase:?}: write {term}"));
        }
    }
    found
}

#[test]
fn the_repository_is_spelled_correctly() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = files(&root);
    if files.is_empty() {
        println!("SKIP the_repository_is_spelled_correctly: no git, or not a repository");
        return;
    }
    let mut found = Vec::new();
    for name in files.iter().filter(|name| !name.ends_with("tests/spelling.rs")) {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        found.extend(misspelled(name, &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_misspelling_and_a_coined_phrase_are_found() {
    let text = "fine\nthe comand\nit stands still";
    assert_eq!(
        misspelled("a.md", text),
        [
            "a.md:2: comand should be command".to_owned(),
            "a.md:3: \"stands still\": write is suspended".to_owned(),
        ]
    );
}
