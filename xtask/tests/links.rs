//! Documents may only name files that exist: links in Markdown, headings that links point to, and paths of
//! the source between backticks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Paths are not checked in these: they describe earlier states, or the output of a recorded run.
const HISTORY: &[&str] = &["CHANGELOG.md", "docs/incidents.md"];

/// Top-level folders whose paths are checked between backticks.
const FOLDERS: &[&str] = &[
    "contrib/",
    "docs/",
    "tests/",
    "tracer/",
    "tracer-common/",
    "tracer-ebpf/",
    "tracer-host/",
    "tracer-kernel/",
    "tracer-model/",
    "xtask/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Markdown files of the repository; none if this is not a repository.
fn documents() -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "*.md"]).output();
    let Ok(listed) = listed else { return Vec::new() };
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    prose
}

/// The targets of links: `[text](target)`.
fn links(prose: &str) -> Vec<&str> {
    let ends = prose.split("](").skip(1);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The paths of files between backticks that are neither patterns nor have a placeholder.
fn paths(prose: &str) -> Vec<&str> {
    let quoted = prose.split('`').skip(1).step_by(2);
    quoted
        .filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| !path.contains(|c: char| "*{}<>…? \n".contains(c)))
        .filter(|path| !path.split(['/', '.']).any(is_placeholder))
        .collect()
}

/// `NAME` stands for a name, `README` and `LICENSE-MIT` do not.
fn is_placeholder(part: &str) -> bool {
    part == "NAME"
}

/// The anchors that GitHub gives to a document's headings, and those set with `<a id="…">`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
    let slug = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    let set = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    headings.map(slug).chain(set.map(str::to_owned)).collect()
}

/// The broken links and paths of a document, one message each.
fn broken(name: &str, text: &str) -> Vec<String> {
    let prose = prose(text);
    let folder = root().join(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut found = Vec::new();
    for target in links(&prose) {
        let is_external = target.contains("://") || target.starts_with("mailto:");
        if is_external {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let linked = match file {
            "" => Some(text.to_owned()),
            file if !folder.join(file).exists() => {
                found.push(format!("{name}: broken link: {target}"));
                continue;
            }
            // A folder, or a picture, has no headings.
            file => fs::read_to_string(folder.join(file)).ok(),
        };
        if !anchor.is_empty() && linked.is_some_and(|text| !anchors(&text).contains(anchor)) {
            found.push(format!("{name}: {target}: no such heading"));
        }
    }
    if !HISTORY.contains(&name) {
        for path in paths(&prose) {
            if !root().join(path).exists() {
                found.push(format!("{name}: there is no {path}"));
            }
        }
    }
    found
}

#[test]
fn documents_name_files_that_exist() {
    let documents = documents();
    if documents.is_empty() {
        println!("SKIP documents_name_files_that_exist: no git, or not a repository");
        return;
    }
    let mut found = Vec::new();
    for name in documents {
        let Ok(text) = fs::read_to_string(root().join(&name)) else { continue };
        found.extend(broken(&name, &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn broken_links_and_paths_are_found() {
    let text = "# A head: `x`\n[a](README.md) [b](docs/none.md) [c](#a-head-x) [d](#b) `xtask/none.rs`\n\
                `xtask/src/main.rs` `tests/*/x.rs`\n```\n[e](none) `xtask/none2.rs`\n```\n";
    assert_eq!(
        broken("CONTRIBUTING.md", text),
        [
            "CONTRIBUTING.md: broken link: docs/none.md",
            "CONTRIBUTING.md: #b: no such heading",
            "CONTRIBUTING.md: there is no xtask/none.rs",
        ]
    );
}
