//! `cargo xtask kernels`: generates docs/kernels.md from the output of the suite `io_paths`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command::tee;
use crate::workspace::Workspace;
use crate::{suite, vm};

const FILESYSTEMS: &[&str] =
    &["ext4", "xfs", "btrfs", "tmpfs", "overlay", "overlay-xfs", "overlay-btrfs"];
const SUITE: &str = "io_paths";
/// The filter for tests that print `WAY` lines.
const FILTER: &str = "all_ways";
/// The filter for the same tests in a booted Debian.
const SERVICE_FILTER: &str = "as_exact_as_for_root";

/// The source of the results.
#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// Run nothing; read results from saved output of `cargo xtask vm` and `cargo xtask test`
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Keep cells of the present document for which there is no new result
    #[arg(long)]
    keep: bool,
}

/// A `WAY` line: one way to write, on one kernel and filesystem, with one backend.
#[derive(Debug, PartialEq, Eq)]
struct WayLine<'a> {
    kernel: &'a str,
    fs: &'a str,
    way: &'a str,
    backend: &'a str,
    verdict: &'a str,
}

impl<'a> WayLine<'a> {
    /// Parses `WAY <kernel> <fs> <way> <backend> <verdict> …`; returns `None` for any other line.
    fn parse(line: &'a str) -> Option<Self> {
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

/// Runs the tests on this kernel and on those of virtual machines, or reads their saved output, and writes the
/// document.
pub(crate) fn write(workspace: &Workspace, filltop: &Path, arguments: &KernelsArgs) -> Result<()> {
    let mut lines = Vec::new();
    for file in &arguments.from {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        lines.extend(text.lines().map(str::to_owned));
    }
    if arguments.from.is_empty() {
        let vm_lines = |arguments: &[&str]| -> Result<Vec<String>> {
            let mut vm = Command::new(std::env::current_exe()?);
            Ok(tee(vm.args(["vm", "--all"]).args(arguments))?.1)
        };
        for capabilities in [None, Some(vm::UNIT_CAPABILITIES)] {
            lines.extend(suite::output_of(workspace, filltop, SUITE, FILTER, capabilities)?);
            let as_service: &[&str] = if capabilities.is_some() { &["--as-service"] } else { &[] };
            lines.extend(vm_lines(&[&["--test", SUITE, "--filter", FILTER], as_service].concat())?);
        }
        // The service under systemd. These lines replace those of the same kernels above.
        lines.extend(vm_lines(&["--debian", "--filter", SERVICE_FILTER])?);
    }
    let path = workspace.root.join("docs/kernels.md");
    let present = if arguments.keep { fs::read_to_string(&path)? } else { String::new() };
    let lines = lines.iter().filter_map(|line| WayLine::parse(line));
    let document = document(parse_document(&present).into_iter().chain(lines))?;
    fs::write(&path, document)?;
    println!("{}", workspace.display(&path));
    Ok(())
}

/// A column: the version by which columns are sorted, the kernel's name, and the backend.
type Column<'a> = (Vec<u32>, &'a str, &'a str);

/// The numbers of a kernel's version, for sorting.
fn version(kernel: &str) -> Vec<u32> {
    kernel.split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect()
}

/// Generates the document: one table for each filesystem.
fn document<'a>(lines: impl Iterator<Item = WayLine<'a>>) -> Result<String> {
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
    ensure!(!cells.is_empty(), "the output has no WAY line");
    let mut out = String::from(INTRODUCTION);
    for fs in FILESYSTEMS {
        let columns: BTreeSet<_> =
            cells.keys().filter(|(of, _, _)| of == fs).map(|(_, _, column)| column).collect();
        if columns.is_empty() {
            continue;
        }
        writeln!(out, "\n## {fs}\n")?;
        let headings = columns.iter().map(|(_, kernel, backend)| format!("{kernel} {backend}"));
        writeln!(out, "| way | {} |", headings.collect::<Vec<_>>().join(" | "))?;
        writeln!(out, "|---|{}", "---|".repeat(columns.len()))?;
        for way in &ways {
            let row: Vec<&str> = columns
                .iter()
                .map(|column| {
                    cells.get(&(*fs, *way, (*column).clone())).map_or("", |v| cell_text(v))
                })
                .collect();
            if row.iter().any(|cell| !cell.is_empty()) {
                writeln!(out, "| {way} | {} |", row.join(" | "))?;
            }
        }
    }
    Ok(out)
}

/// Verdicts whose text in the document differs.
const CELL_TEXTS: [(&str, &str); 4] = [
    ("written", "bytes"),
    ("missed", "**missed**"),
    ("wrong", "**wrong**"),
    ("unsupported", "n/a"),
];

fn cell_text(verdict: &str) -> &str {
    CELL_TEXTS.iter().find(|(one, _)| *one == verdict).map_or(verdict, |(_, text)| text)
}

/// Parses the cells of an existing document into the lines from which they were generated.
fn parse_document(document: &str) -> Vec<WayLine<'_>> {
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
                let known = CELL_TEXTS.iter().find(|(_, text)| *text == cell);
                let verdict = known.map_or(cell.trim(), |(verdict, _)| verdict);
                (!verdict.is_empty()).then_some(WayLine { kernel, fs, way, backend, verdict })
            }));
        }
    }
    lines
}

const INTRODUCTION: &str = "\
# What is counted on which kernel

Generated by `cargo xtask kernels`; do not edit. It performs every way to write and to free space (the suite
`io_paths`) on this machine's kernel and on those of the virtual machines, and compares filltop's figures with the
truth. `tests/io_paths/expected.rs` has the expected results and the reason for each exception; a test fails if a
result differs.

A column is a kernel and the backend that was forced on it. `service` means that no backend was forced, and that
filltop had the privileges of the systemd unit and gave up those that need CAP_SYS_ADMIN after startup.
On generic kernels this was the service itself, in a Debian booted for it (`cargo xtask vm --debian --all`);
elsewhere filltop was started with the unit's capabilities (`--as-service`). Without a forced backend, each hook
uses the best type of probe available. `overlay` is an overlay on ext4. On 5.10, functions in modules (xfs,
btrfs) are hooked with kprobes even under fentry. The kernels are Debian's cloud flavour; on generic ones ext4
is a module as well.

| word | meaning |
|---|---|
| exact | written, allocated and freed bytes equal the truth, in one row, credited to the process that made the request |
| approximate | as exact, except that stores through a mapping are counted by page, and that with 64 synchronous threads space is within 64 KiB of the truth, because blocks of the filesystem's own extent tree come and go |
| sampled | written bytes are exact, and growth is within 64 KiB: space is read from the filesystem with statx(2) once a second and marked approximate |
| bytes | written bytes are exact; space is unknown |
| folios | stores through a mapping are counted by folio (a page or more) when the kernel writes them back; space is as exact as elsewhere on this filesystem, within 64 KiB |
| space | allocated and freed bytes are exact; written bytes are not seen |
| **missed** | nothing is seen |
| **wrong** | the figures are wrong |
| n/a | not supported by this kernel or filesystem |
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
        let table = document(text.lines().filter_map(WayLine::parse)).unwrap();
        assert!(table.contains("| way | 6.1 fentry | 6.12 fentry |\n"), "{table}");
        assert!(table.contains("| write | exact | **missed** |\n"), "{table}");
        assert!(table.contains("| mmap | approximate |  |\n"), "{table}");
        assert!(table.contains("## xfs\n\n| way | 6.1 kprobe |\n|---|---|\n| reflink | n/a |\n"));
    }

    #[test]
    fn a_parsed_document_is_generated_unchanged() {
        let text = "WAY 6.1 ext4 write fentry exact\nWAY 6.1 ext4 write service missed\n\
                    WAY 6.12 ext4 mmap fentry written\nWAY 6.1 xfs reflink kprobe unsupported\n";
        let first = document(text.lines().filter_map(WayLine::parse)).unwrap();
        assert_eq!(document(parse_document(&first).into_iter()).unwrap(), first);
        let newer = WayLine::parse("WAY 6.1 ext4 write service exact");
        let second = document(parse_document(&first).into_iter().chain(newer)).unwrap();
        assert!(second.contains("| write | exact | exact |  |\n"), "{second}");
    }

    #[test]
    fn without_lines_there_is_no_document() {
        assert!(document(["test x ... ok"].into_iter().filter_map(WayLine::parse)).is_err());
    }

    #[test]
    fn the_document_in_the_repository_is_generated_unchanged() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
        let present = fs::read_to_string(path).unwrap();
        assert!(present == document(parse_document(&present).into_iter()).unwrap());
    }
}
