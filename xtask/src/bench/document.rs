//! docs/benchmarks.md, and the tables on the terminal.

use std::fmt::Write as _;

use super::daemon::Own;
use super::measure::{Part, Row};
use super::{CASES, PROGRAMS};

/// The program that is to be cheap.
const OURS: &str = "filltop-fexit";
/// Medians of native loops repeat within so many nanoseconds at best.
const NOISE_NS: f64 = 20.0;

/// The tables of one part.
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
    let _ = writeln!(out, "## Linux {kernel}: {unit} added to an operation\n");
    let _ = writeln!(out, "| loop | alone | {} |", programs.join(" | "));
    let _ = writeln!(out, "|---|---:|{}", "---:|".repeat(programs.len()));
    for case in &cases {
        let rows: Vec<Option<&Row>> =
            programs.iter().map(|program| part.row(program, case)).collect();
        let alone = rows.iter().flatten().next().map_or(String::new(), |row| digits(row.baseline));
        let cells: Vec<String> =
            rows.iter().map(|row| row.map_or(String::new(), |row| cell(row, unit))).collect();
        let _ = writeln!(out, "| {case} | {alone} | {} |", cells.join(" | "));
    }
    if part.unit == "instructions" {
        let _ = writeln!(
            out,
            "\nBaselines changed by at most {} from the first measurement to the last.",
            digits(part.drift)
        );
        let _ = write!(out, "\n{}", goals(part));
    }
    if let Some(goals) = sharing(part) {
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

/// What is aimed at, and what came of it.
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
        let figure = part.row(OURS, case).and_then(|row| row.times_floor);
        goals.add(&format!("{case}, by the empty fexit"), figure, 1.75);
    }
    for (peer, case, limit) in [
        ("bpftrace-inode", "write1-tmpfs", 0.8),
        ("bpftrace-name", "write1-tmpfs", 0.4),
        ("filetop", "write1-tmpfs", 0.25),
        ("fatrace", "write1-ext4", 0.07),
        ("strace", "write1-tmpfs", 0.02),
    ] {
        let figure = part.row(OURS, case).zip(part.row(peer, case));
        let ratio = figure.map(|(ours, theirs)| ours.added / theirs.added);
        goals.add(&format!("{case}, by {peer}"), ratio, limit);
    }
    for (case, limit) in
        [("devnull", 1.01), ("pipe", 1.01), ("socket", 1.01), ("create-write-unlink", 1.04)]
    {
        let figure = part.row(OURS, case).map(|row| (row.baseline + row.added) / row.baseline);
        goals.add(&format!("{case}, by the baseline"), figure, limit);
    }
    goals.table()
}

/// What a second processor costs, for which CPUs have to share nothing: by what it costs a counter in a hash
/// map that they share.
fn sharing(part: &Part) -> Option<String> {
    let added = |program, case| part.row(program, case).map(|row| row.added);
    let more = |program| Some(added(program, "threads-own")? - added(program, "threads-one")?);
    let hash = added("hash-raw-tp-sys_exit", "threads-own")?
        - added("filter-raw-tp-sys_exit", "threads-own")?;
    let mut goals = Goals::default();
    // Where the map costs nothing that can be told from its filter, there is nothing to compare with.
    let ratio = (hash >= NOISE_NS).then_some(more("filltop-tracepoint")? / hash);
    goals.add("every CPU's thread beside one alone, by a hash map above its filter", ratio, 0.3);
    Some(goals.table())
}

/// What is aimed at, line by line.
#[derive(Default)]
pub(super) struct Goals(String);

impl Goals {
    /// A figure that should be no more than its limit; nothing where it was not measured.
    pub(super) fn add(&mut self, what: &str, figure: Option<f64>, limit: f64) {
        let Some(figure) = figure else { return };
        let verdict = if figure <= limit {
            "met".to_owned()
        } else {
            format!("missed by {:.1} %", (figure / limit - 1.0) * 100.0)
        };
        let _ = writeln!(self.0, "| {what} ≤ {limit} | {figure:.3} | {verdict} |");
    }

    /// As a table.
    pub(super) fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        format!("| goal | figure | |\n|---|---:|---|\n{}", self.0)
    }
}

/// The whole document.
pub(crate) fn write(mut parts: Vec<Part>, own: Option<&Own>) -> String {
    parts.sort_by(|a, b| a.unit.cmp(&b.unit).then(a.name.cmp(&b.name)));
    let mut out = String::from(HEAD);
    for part in &parts {
        out += "\n";
        out += &tables(part);
    }
    if let Some(own) = own {
        out += "\n";
        out += &own.tables();
    }
    out
}

/// 12345.6 as 12,346; small figures keep a decimal.
pub(super) fn digits(value: f64) -> String {
    if value.abs() < 10.0 && value != 0.0 {
        return format!("{value:.1}");
    }
    let plain = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 && plain != "0" { format!("−{out}") } else { out }
}

fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", digits(value)) } else { digits(value) }
}

const HEAD: &str = "\
# What filltop costs

Made by `cargo xtask bench`; do not edit. `cargo xtask bench --quick` is a look at the figures that
matter most, `--json FILE` writes all of them as rows.

**Instructions** are counted in a virtual machine with one CPU under `-icount shift=0,sleep=off`, where
a nanosecond of the machine's clock is one instruction. Each loop runs in batches; the figure is the
quickest batch with the program less the quickest without, so that interrupts and what a program does
on its own account do not count. They repeat to within a few instructions in loops that write, ± 80 in
create+write+unlink on tmpfs, ± 500 on ext4, and know nothing of caches and locks. **Nanoseconds**
are measured on the machine that made this document, with and without the program in turns: medians
of five differences, and in brackets the second and the last but one of them: where those lie far apart,
others kept the machine busy, and the figure says little.

`empty-fexit` is the floor: a program at the exit of vfs_write that does nothing; in parentheses are
multiples of it. filltop counts one level below, at the filesystem's own write_iter, so that
/dev/null, pipes and sockets pay nothing. `empty-raw-tp-sys_exit` runs at every system call.
The loops of `10kfiles` take fewer where a process may keep no more open. tests/workload/bench/ has the
loops and the exact command of each program.

`filter-raw-tp-sys_exit` tells writes of one byte apart, and `hash-raw-tp-sys_exit` counts them, too, by
process, in a hash map that all CPUs share.

The loops of `threads-` run one thread on each CPU, or one thread alone; they write to files of their own,
or all to one. Where the machine has more simulated CPUs than the host has real ones, threads wait for
their turn, and what counts is whether the share that is added grows with the number of CPUs.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_and_keep_their_sign() {
        assert_eq!(digits(1_234_567.4), "1,234,567");
        assert_eq!(digits(999.0), "999");
        assert_eq!(signed(281.0), "+281");
        assert_eq!(signed(-30.0), "−30");
        assert_eq!(signed(-0.2), "-0.2");
    }

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
    fn a_map_that_costs_nothing_is_no_measure() {
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
    fn a_missed_goal_says_by_how_much() {
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
        assert!(text.contains("| devnull, by the baseline ≤ 1.01 | 1.001 | met |"), "{text}");
    }
}
