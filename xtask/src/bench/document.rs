//! The text of docs/benchmarks.md, and the same tables for the terminal.

use std::fmt::Write as _;

use super::catalog::{CASES, PROGRAMS};
use super::daemon::DaemonCost;
use super::measure::{Part, Row};
use super::table::{Goals, digits, signed};

/// The program for which there are goals.
const FILLTOP: &str = "filltop-fexit";
/// The best repeatability of the medians of native loops, in nanoseconds.
const NOISE_NS: f64 = 20.0;

/// The section of one part: its figures, goals, and programs that could not be measured.
pub(crate) fn tables(part: &Part) -> String {
    let mut out = String::new();
    let (kernel, unit) = (&part.kernel, &part.unit);
    let cases: Vec<&str> = CASES
        .iter()
        .copied()
        .filter(|case| part.rows.iter().any(|row| row.case == *case))
        .collect();
    let programs: Vec<&str> = PROGRAMS
        .iter()
        .copied()
        .filter(|program| part.rows.iter().any(|row| row.program == *program))
        .collect();
    let _ = writeln!(out, "## Linux {kernel}: {unit} added per operation\n");
    let _ = writeln!(out, "| loop | baseline | {} |", programs.join(" | "));
    let _ = writeln!(out, "|---|---:|{}", "---:|".repeat(programs.len()));
    for case in &cases {
        let rows: Vec<Option<&Row>> =
            programs.iter().map(|program| part.row(program, case)).collect();
        let baseline =
            rows.iter().flatten().next().map_or(String::new(), |row| digits(row.baseline));
        let cells: Vec<String> =
            rows.iter().map(|row| row.map_or(String::new(), |row| cell(row, unit))).collect();
        let _ = writeln!(out, "| {case} | {baseline} | {} |", cells.join(" | "));
    }
    if part.unit == "instructions" {
        let _ = writeln!(
            out,
            "\nBaselines differed by at most {} between measurements.",
            digits(part.drift)
        );
        let _ = write!(out, "\n{}", goals(part));
    }
    if let Some(goals) = scaling_goal(part) {
        let _ = write!(out, "\n{goals}");
    }
    if !part.skips.is_empty() {
        out += "\nNot measured:\n\n";
    }
    for skip in &part.skips {
        let _ = writeln!(out, "- {}: {}", skip.program, skip.skip);
    }
    out
}

fn cell(row: &Row, unit: &str) -> String {
    let times = row.times_floor.map_or(String::new(), |times| format!(" ({times:.2} ×)"));
    if unit == "ns" {
        let [low, high] = row.spread;
        return format!("{} [{} … {}]", signed(row.added), signed(low), signed(high));
    }
    format!("{}{times}", signed(row.added))
}

/// The goals for figures in instructions.
fn goals(part: &Part) -> String {
    let mut goals = Goals::default();
    for case in [
        "write1-tmpfs",
        "write1-ext4",
        "write1-xfs",
        "write1-btrfs",
        "write1-10kfiles",
        "write1-10kfiles-ext4",
    ] {
        let figure = part.row(FILLTOP, case).and_then(|row| row.times_floor);
        goals.add(&format!("{case}, relative to the empty fexit"), figure, 1.75);
    }
    for (tool, case, limit) in [
        ("bpftrace-inode", "write1-tmpfs", 0.8),
        ("bpftrace-name", "write1-tmpfs", 0.4),
        ("filetop", "write1-tmpfs", 0.25),
        ("fatrace", "write1-ext4", 0.07),
        ("strace", "write1-tmpfs", 0.02),
    ] {
        let figure = part.row(FILLTOP, case).zip(part.row(tool, case));
        let ratio = figure.map(|(ours, theirs)| ours.added / theirs.added);
        goals.add(&format!("{case}, relative to {tool}"), ratio, limit);
    }
    for (case, limit) in
        [("devnull", 1.01), ("pipe", 1.01), ("socket", 1.01), ("create-write-unlink", 1.04)]
    {
        let figure = part.row(FILLTOP, case).map(|row| (row.baseline + row.added) / row.baseline);
        goals.add(&format!("{case}, relative to the baseline"), figure, limit);
    }
    goals.table()
}

/// The goal for scaling, because filltop's CPUs share nothing: the cost added by a thread on every CPU, relative to
/// that of a counter in a shared hash map.
fn scaling_goal(part: &Part) -> Option<String> {
    let added = |program, case| part.row(program, case).map(|row| row.added);
    let more = |program| Some(added(program, "threads-own")? - added(program, "threads-one")?);
    let hash = added("hash-raw-tp-sys_exit", "threads-own")?
        - added("filter-raw-tp-sys_exit", "threads-own")?;
    let mut goals = Goals::default();
    // If the map's cost cannot be distinguished from its filter's, there is nothing to compare with.
    let ratio = (hash >= NOISE_NS).then_some(more("filltop-tracepoint")? / hash);
    goals.add(
        "a thread on every CPU minus one alone, relative to a shared hash map minus its filter",
        ratio,
        0.3,
    );
    Some(goals.table())
}

/// Generates the document.
pub(crate) fn generate(mut parts: Vec<Part>, daemon: Option<&DaemonCost>) -> String {
    parts.sort_by(|a, b| a.unit.cmp(&b.unit).then(a.name.cmp(&b.name)));
    let mut out = String::from(INTRODUCTION);
    for part in &parts {
        out += "\n";
        out += &tables(part);
    }
    if let Some(daemon) = daemon {
        out += "\n";
        out += &daemon.tables();
    }
    out
}

const INTRODUCTION: &str = "\
# Overhead of filltop

Generated by `cargo xtask bench`; do not edit. `cargo xtask bench --quick` measures only the most important
figures, `--json FILE` writes all of them as rows.

**Instructions** are counted in a virtual machine with one CPU under `-icount shift=0,sleep=off`, where a
nanosecond of the machine's clock is one instruction. Each loop runs in batches. The figure is the fastest batch
with the program minus the fastest without it, so that interrupts and a program's own background work do not
count. Figures repeat to within a few instructions in loops that write, ± 80 in create+write+unlink on tmpfs and
± 500 on ext4. They do not include effects of caches and locks.

**Nanoseconds** are measured on the machine that generated this document, with and without the program in turns:
medians of five differences, and in brackets the second lowest and the second highest. If those are far apart,
other processes kept the machine busy and the figure means little.

`empty-fexit` is the floor: a program at the exit of vfs_write that does nothing. Multiples of it are in
parentheses. filltop hooks one level below, at the filesystem's own write_iter, so that /dev/null, pipes and
sockets cost nothing. `empty-raw-tp-sys_exit` runs at every system call. The loops of `10kfiles` use fewer files
if the limit on open files requires it. tests/workload/bench/ has the loops and the exact command of each program.

`filter-raw-tp-sys_exit` only detects writes of one byte; `hash-raw-tp-sys_exit` also counts them by process, in
a hash map that all CPUs share.

The loops of `threads-` run one thread on each CPU (`threads-one`: a single thread). Each thread writes to a file
of its own, in `threads-shared` all write to one file. If the machine has more simulated CPUs than the host has
real ones, threads wait for a CPU; then the relevant figure is whether the added share grows with the number of
CPUs.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(program: &str, case: &str, added: f64, times_floor: Option<f64>) -> Row {
        Row {
            kernel: "6.1".into(),
            case: case.into(),
            program: program.into(),
            baseline: 1000.0,
            added,
            times_floor,
            spread: [added, added],
        }
    }

    #[test]
    fn a_hash_map_within_the_noise_is_not_used() {
        let part = |hash| Part {
            name: "native".into(),
            kernel: "6.18".into(),
            unit: "ns".into(),
            rows: vec![
                row("filltop-tracepoint", "threads-one", 350.0, None),
                row("filltop-tracepoint", "threads-own", 360.0, None),
                row("hash-raw-tp-sys_exit", "threads-own", hash, None),
                row("filter-raw-tp-sys_exit", "threads-own", 100.0, None),
            ],
            skips: Vec::new(),
            drift: 0.0,
        };
        assert!(tables(&part(150.0)).contains("≤ 0.3 | 0.200 | met |"));
        assert!(tables(&part(125.0)).contains("≤ 0.3 | 0.400 | missed by 33.3 % |"));
        for hash in [90.0, 100.0, 119.0] {
            assert!(!tables(&part(hash)).contains("met |"), "{hash}");
        }
    }

    #[test]
    fn a_missed_goal_shows_by_how_much() {
        let part = Part {
            name: "vm-6.1".into(),
            kernel: "6.1".into(),
            unit: "instructions".into(),
            rows: vec![
                row("filltop-fexit", "write1-tmpfs", 350.0, Some(1.925)),
                row("filltop-fexit", "devnull", 1.0, Some(0.0)),
            ],
            skips: Vec::new(),
            drift: 1.0,
        };
        let text = tables(&part);
        assert!(text.contains("| 1.925 | missed by 10.0 % |"), "{text}");
        assert!(
            text.contains("| devnull, relative to the baseline ≤ 1.01 | 1.001 | met |"),
            "{text}"
        );
    }

    #[test]
    fn the_document_in_the_repository_has_this_introduction() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
        assert!(std::fs::read_to_string(path).unwrap().starts_with(INTRODUCTION));
    }
}
