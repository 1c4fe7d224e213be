//! The Snapshot as plain text: `filltop snapshot` and `filltop held`.
//!
//! No line is longer than the terminal is wide. Rows beyond `top` are summed up in a last line, so
//! that nothing is silently omitted.

mod groups;
mod tables;
#[cfg(test)]
mod tests;
mod verdicts;

use std::fmt::Write as _;

use tracer_model::alert::blind_message;
use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{Held, Snapshot, Volume};
use tracer_model::units::Units;
use tracer_model::{sanitize, units};

use super::columns;
use super::columns::Column;
use super::format::least_explained;

/// Width from which byte counts are written out (`102.4 MiB`); narrower terminals get `102M`.
const LONG_FORM_FROM: usize = 72;
/// Width from which every writer's group is shown; narrower terminals show the column only if a
/// container is among the writers.
const GROUPS_FROM: usize = 100;
/// A volume that fills within this many seconds is critical, as in the built-in alert rules.
const CRITICAL_S: f64 = 30.0 * 60.0;
/// A volume that fills within this many seconds is a warning.
const WARNING_S: f64 = 4.0 * 3600.0;

/// Options of the text output.
#[derive(Debug, Clone, Copy)]
pub struct TextOptions {
    /// Width of the terminal, columns.
    pub width: usize,
    /// IEC or SI units.
    pub units: Units,
    /// Maximum number of rows of each table.
    pub top: usize,
    /// Whether to use ANSI colours (the 8 that every terminal has).
    pub color: bool,
    /// Characters that the terminal can show.
    pub charset: Charset,
    /// What the writers are grouped by.
    pub by: By,
}

/// What a row of the table of writers stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// A process
    #[default]
    Process,
    /// A unit, container, pod, machine, cgroup or session
    Group,
}

impl Default for TextOptions {
    /// 80 columns, IEC, ten rows of processes, no colour, Unicode.
    fn default() -> Self {
        Self {
            width: 80,
            units: Units::Iec,
            top: 10,
            color: false,
            charset: Charset::Unicode,
            by: By::Process,
        }
    }
}

/// Emphasis of a line, where colour is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Head,
    Faint,
    Warning,
    Critical,
}

impl Tone {
    const fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Warning => "\x1b[33m",
            Self::Critical => "\x1b[1;31m",
        }
    }
}

struct Row {
    cells: Vec<String>,
    tone: Tone,
}

/// Formats a Snapshot: volumes, writers or groups, files, victims, databases, held space.
#[must_use]
pub fn snapshot(snapshot: &Snapshot, options: &TextOptions) -> String {
    let mut page = Page { out: String::new(), options };
    page.header(snapshot);
    page.volumes(&snapshot.volumes);
    page.verdicts(snapshot);
    match options.by {
        By::Process => page.writers(snapshot),
        By::Group => page.groups(snapshot),
    }
    page.paths(snapshot);
    page.victims(snapshot);
    page.residents(snapshot);
    page.held(&snapshot.held, options.top.min(3));
    let missing = |volume: &Volume| volume.held_bytes.is_none();
    if snapshot.uninspected_processes > 0 && snapshot.volumes.iter().any(missing) {
        page.missing(Missing::Processes(snapshot.uninspected_processes));
    }
    page.finish()
}

/// Why held files may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// So many processes could not be inspected.
    Processes(u64),
    /// /proc does not even show how many processes there are.
    HiddenProcesses,
    /// The size of a file that the kernel holds is unknown.
    Size,
}

/// Formats the list of deleted files that are still open, largest first, with their sum. `missing`:
/// what could not be inspected, so that files may be missing.
#[must_use]
pub fn held(held: &[Held], missing: Option<Missing>, options: &TextOptions) -> String {
    let mut page = Page { out: String::new(), options };
    match missing {
        _ if !held.is_empty() => page.held(held, options.top),
        None => page.line("No deleted file is still open.", Tone::Plain),
        Some(_) => page.line("No deleted file was found.", Tone::Plain),
    }
    if let Some(missing) = missing {
        page.missing(missing);
    }
    page.finish()
}

struct Page<'a> {
    out: String,
    options: &'a TextOptions,
}

impl Page<'_> {
    fn finish(self) -> String {
        match self.options.charset {
            Charset::Unicode => self.out,
            // Names are escaped already; only filltop's own punctuation is left.
            Charset::Ascii => sanitize::plain_punctuation(&self.out),
        }
    }

    fn safe(&self, text: &str) -> String {
        display_for(text, self.options.charset).into_owned()
    }

    fn bytes(&self, bytes: u64) -> String {
        if self.options.width < LONG_FORM_FROM {
            self.options.units.short(bytes)
        } else {
            self.options.units.bytes(bytes)
        }
    }

    fn rate(&self, per_s: f64) -> String {
        if self.options.width < LONG_FORM_FROM {
            self.options.units.short_rate(per_s)
        } else {
            self.options.units.rate(per_s)
        }
    }

    fn growth(&self, per_s: f64) -> String {
        if self.options.width < LONG_FORM_FROM {
            self.options.units.short_growth(per_s)
        } else {
            self.options.units.growth(per_s)
        }
    }

    fn line(&mut self, text: &str, tone: Tone) {
        let text = sanitize::truncate(text, self.options.width, self.options.charset);
        let text = text.trim_end();
        if self.options.color && tone != Tone::Plain {
            let _ = writeln!(self.out, "{}{text}\x1b[0m", tone.sgr());
        } else {
            let _ = writeln!(self.out, "{text}");
        }
    }

    /// Joins facts with ` · `, on as many lines as they need.
    fn facts(&mut self, facts: &[String]) {
        let mut line = String::new();
        for fact in facts {
            let joined = if line.is_empty() { fact.clone() } else { format!("{line} · {fact}") };
            if sanitize::width(&joined) <= self.options.width {
                line = joined;
                continue;
            }
            self.line(&line, Tone::Plain);
            line.clone_from(fact);
        }
        self.line(&line, Tone::Plain);
    }

    fn table(&mut self, columns: &[Column], rows: &[Row]) {
        let wanted: Vec<usize> = (0..columns.len())
            .map(|i| {
                let cells = rows.iter().map(|row| sanitize::width(&row.cells[i]));
                cells.max().unwrap_or(0).max(columns[i].title.len())
            })
            .collect();
        let widths = columns::widths(columns, &wanted, self.options.width, 2);
        let last = widths.iter().rposition(|&w| w > 0).unwrap_or(0);
        let join = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.enumerate().filter(|(i, _)| widths[*i] > 0).map(|(i, text)| {
                columns::cell(text, columns[i].align, widths[i], i != last, self.options.charset)
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        let head = join(&mut columns.iter().map(|column| column.title));
        let lines: Vec<(String, Tone)> = rows
            .iter()
            .map(|row| (join(&mut row.cells.iter().map(String::as_str)), row.tone))
            .collect();
        self.line(&head, Tone::Head);
        for (line, tone) in lines {
            self.line(&line, tone);
        }
    }

    /// A last line for the rows beyond `top`. `what` is singular.
    fn rest(&mut self, what: &str, rows: usize, sum: &str) {
        if rows > 0 {
            let s = if rows == 1 { "" } else { "s" };
            self.line(&format!("… and {rows} more {what}{s}: {sum}"), Tone::Faint);
        }
    }

    fn header(&mut self, snapshot: &Snapshot) {
        let backend = &snapshot.backend;
        let mut facts = vec![
            format!("filltop on {}", self.safe(&snapshot.host)),
            snapshot.taken_at.strftime("%F %T UTC").to_string(),
            format!("{:.1} s", snapshot.interval_s),
            format!("{}, Linux {}", backend.write.name(), self.safe(&backend.kernel)),
            format!("explained {}", units::percent_or_unknown(least_explained(snapshot))),
            format!("lost {}", backend.lost_events),
        ];
        if backend.unattributed_bytes > 0 {
            facts.push(format!("unattributed {}", self.bytes(backend.unattributed_bytes)));
        }
        if backend.folded_files > 0 {
            let files = if backend.folded_files == 1 { "file" } else { "files" };
            facts.push(format!("{} more {files}", backend.folded_files));
        }
        self.facts(&facts);
        for sentence in
            snapshot.volumes.iter().filter_map(|row| blind_message(row, self.options.units))
        {
            self.paragraph(&sentence, Tone::Critical);
        }
    }

    /// Wraps a sentence over as many lines as it needs.
    fn paragraph(&mut self, text: &str, tone: Tone) {
        let mut line = String::new();
        for word in text.split(' ') {
            let joined = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if !line.is_empty() && sanitize::width(&joined) > self.options.width {
                self.line(&line, tone);
                // Continued lines are indented.
                line = format!("  {word}");
            } else {
                line = joined;
            }
        }
        self.line(&line, tone);
    }
}
