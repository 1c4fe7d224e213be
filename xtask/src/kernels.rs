//! `cargo xtask kernels`: docs/kernels.md, made from what the tests of `ways` print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::step::follow;
use crate::workspace::Workspace;
use crate::{native, vm};

const FILESYSTEMS: &[&str] =
    &["ext4", "xfs", "btrfs", "tmpfs", "overlay", "overlay-xfs", "overlay-btrfs"];
const TEST: &str = "ways";
/// What the names of the tests that print `WAY` lines have in common.
const FILTER: &str = "all_ways";
/// The same of those in a booted Debian that perform all ways.
const SERVICE_FILTER: &str = "as_exact_as_for_root";

/// Where the lines come from.
#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// Take the lines from saved output of `cargo xtask vm` and `cargo xtask test` and run nothing
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Keep the cells of the present table for which there is no line
    #[arg(long)]
    keep: bool,
}

/// One `WAY` line.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    kernel: &'a str,
    fs: &'a str,
    way: &'a str,
    backend: &'a str,
    verdict: &'a str,
}

impl<'a> Line<'a> {
    /// `WAY <kernel> <fs> <way> <backend> <verdict> …`; `None` for any other line.
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.strip_prefix("WAY ")?.split(' ');
        let mut next = || words.next();
        Some(Self {
            kernel: next()?,
            fs: next()?,
            way: next()?,
            backend: next()?,
            verdict: next()?,
        })
    }
}

/// Runs the tests, on this kernel and on all others, or reads what they printed, and writes the
/// table.
pub(crate) fn write(workspace: &Workspace, filltop: &Path, arguments: &KernelsArgs) -> Result<()> {
    let mut lines = Vec::new();
    for file in &arguments.from {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        lines.extend(text.lines().map(str::to_owned));
    }
    if arguments.from.is_empty() {
        let machines = |arguments: &[&str]| -> Result<Vec<String>> {
            let mut machines = Command::new(std::env::current_exe()?);
            Ok(follow(machines.args(["vm", "--all"]).args(arguments))?.1)
        };
        for rights in [None, Some(vm::RIGHTS_OF_THE_UNIT)] {
            lines.extend(native::lines_of(workspace, filltop, TEST, FILTER, rights)?);
            let as_service: &[&str] = if rights.is_some() { &["--as-service"] } else { &[] };
            lines.extend(machines(&[&["--test", TEST, "--filter", FILTER], as_service].concat())?);
        }
        // The service itself: its lines replace those of the same kernels.
        lines.extend(machines(&["--debian", "--filter", SERVICE_FILTER])?);
    }
    let path = workspace.root.join("docs/kernels.md");
    let present = if arguments.keep { fs::read_to_string(&path)? } else { String::new() };
    let lines = lines.iter().filter_map(|line| Line::read(line));
    let table = table(cells_of(&present).into_iter().chain(lines))?;
    fs::write(&path, table)?;
    println!("{}", workspace.shown(&path));
    Ok(())
}

/// A kernel, by which columns are ordered, its name, and the backend.
type Column<'a> = (Vec<u32>, &'a str, &'a str);

/// A kernel's place in the order of versions.
fn version(kernel: &str) -> Vec<u32> {
    kernel.split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect()
}

fn table<'a>(lines: impl Iterator<Item = Line<'a>>) -> Result<String> {
    let mut cells: BTreeMap<(&str, &str, Column<'_>), &str> = BTreeMap::new();
    let mut ways: Vec<&str> = Vec::new();
    for line in lines {
        if !ways.contains(&line.way) {
            ways.push(line.way);
        }
        let column = (version(line.kernel), line.kernel, line.backend);
        // A later run replaces an earlier one.
        cells.insert((line.fs, line.way, column), line.verdict);
    }
    ensure!(!cells.is_empty(), "there is no WAY line in it");
    let mut out = String::from(HEAD);
    for fs in FILESYSTEMS {
        let columns: BTreeSet<_> =
            cells.keys().filter(|(of, _, _)| of == fs).map(|(_, _, column)| column).collect();
        if columns.is_empty() {
            continue;
        }
        writeln!(out, "\n## {fs}\n")?;
        let heads = columns.iter().map(|(_, kernel, backend)| format!("{kernel} {backend}"));
        writeln!(out, "| way | {} |", heads.collect::<Vec<_>>().join(" | "))?;
        writeln!(out, "|---|{}", "---|".repeat(columns.len()))?;
        for way in &ways {
            let row: Vec<&str> = columns
                .iter()
                .map(|column| cells.get(&(*fs, *way, (*column).clone())).map_or("", |v| shown(v)))
                .collect();
            if row.iter().any(|cell| !cell.is_empty()) {
                writeln!(out, "| {way} | {} |", row.join(" | "))?;
            }
        }
    }
    Ok(out)
}

/// Verdicts that the table has in other words.
const SHOWN: [(&str, &str); 4] = [
    ("written", "bytes"),
    ("missed", "**missed**"),
    ("wrong", "**wrong**"),
    ("unsupported", "n/a"),
];

fn shown(verdict: &str) -> &str {
    SHOWN.iter().find(|(one, _)| *one == verdict).map_or(verdict, |(_, text)| text)
}

/// The cells of a table that was written before, as the lines that they were made of.
fn cells_of(document: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for section in document.split("\n## ").skip(1) {
        let (fs, rows) = section.split_once('\n').unwrap_or((section, ""));
        let mut rows = rows.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        let columns: Vec<_> = rows.next().into_iter().flat_map(|row| row.split(" | ")).collect();
        for row in rows {
            let mut cells = row.split(" | ").zip(&columns);
            let Some((way, _)) = cells.next() else { continue };
            lines.extend(cells.filter_map(|(cell, column)| {
                let (kernel, backend) = column.split_once(' ')?;
                let known = SHOWN.iter().find(|(_, text)| *text == cell);
                let verdict = known.map_or(cell.trim(), |(verdict, _)| verdict);
                (!verdict.is_empty()).then_some(Line { kernel, fs, way, backend, verdict })
            }));
        }
    }
    lines
}

const HEAD: &str = "\
# What is counted where

Made by `cargo xtask kernels`, which performs every way to write and to free (the tests of `ways`)
on this machine's kernel and on those of the virtual machines, and compares filltop's figures with
the truth. Do not edit: `tests/ways/expected.rs` holds what is expected and the reason for each
exception, and the tests fail when a cell here is not as it says.

A column is a kernel and the one backend that was forced there, or `service`: nothing is forced, and filltop has the
rights of the systemd unit, with what takes CAP_SYS_ADMIN given up after the start. On generic kernels that is the
service itself in a Debian that was booted for it (`cargo xtask vm --debian --all`), on others a filltop that is started
with the unit's capabilities (`--as-service`). `overlay` is one on ext4. On 5.10, functions of modules (xfs, btrfs)
are reached by kprobes under fentry, too. Kernels are Debian's, of cloud flavour; on generic ones ext4 is a
module as well. Without force, each hook takes the best that it can get.

| word | meaning |
|---|---|
| exact | written, allocated and freed bytes equal the truth, in one row, credited to who asked |
| approximate | so they do, but stores through a mapping are counted by page, and 64 synchronous threads to within 64 KiB of space, for blocks of the filesystem's own tree of extents come and go |
| sampled | written bytes are exact, and growth to 64 KiB: space is asked from the filesystem by statx(2), once a second, and shown as approximate |
| bytes | written bytes are exact; space is not known |
| folios | stores through a mapping are written by folio, a page or more, as the kernel writes them back; space is as exact as elsewhere on this filesystem, to 64 KiB |
| space | allocated and freed bytes are exact; what was written is not seen |
| **missed** | nothing of it is seen |
| **wrong** | something else is shown |
| n/a | this kernel or filesystem cannot do it |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_cells() {
        let text = "WAY 6.1 ext4 write fentry exact written=1/1 allocated=1/1 freed=0/0\n\
                    noise\n\
                    WAY 6.12 ext4 write fentry missed written=0/1\n\
                    WAY 6.1 ext4 mmap fentry approximate written=1/1\n\
                    WAY 6.1 xfs reflink kprobe unsupported (Operation not supported)\n";
        let table = table(text.lines().filter_map(Line::read)).unwrap();
        assert!(table.contains("| way | 6.1 fentry | 6.12 fentry |\n"), "{table}");
        assert!(table.contains("| write | exact | **missed** |\n"), "{table}");
        assert!(table.contains("| mmap | approximate |  |\n"), "{table}");
        assert!(table.contains("## xfs\n\n| way | 6.1 kprobe |\n|---|---|\n| reflink | n/a |\n"));
    }

    #[test]
    fn a_table_that_is_read_again_is_the_same() {
        let text = "WAY 6.1 ext4 write fentry exact\nWAY 6.1 ext4 write service missed\n\
                    WAY 6.12 ext4 mmap fentry written\nWAY 6.1 xfs reflink kprobe unsupported\n";
        let first = table(text.lines().filter_map(Line::read)).unwrap();
        assert_eq!(table(cells_of(&first).into_iter()).unwrap(), first);
        let newer = Line::read("WAY 6.1 ext4 write service exact");
        let second = table(cells_of(&first).into_iter().chain(newer)).unwrap();
        assert!(second.contains("| write | exact | exact |  |\n"), "{second}");
    }

    #[test]
    fn no_lines_are_no_table() {
        assert!(table(["test x ... ok"].into_iter().filter_map(Line::read)).is_err());
    }
}
