//! The Snapshot as plain text: `filltop snapshot` and `filltop held`.
//!
//! No line is longer than the terminal is wide. What is cut off by `top` is summed up in a last
//! line, so that nothing is silently left out.

use std::fmt::Write as _;

use tracer_model::sanitize::{self, Charset, display_for};
use tracer_model::snapshot::{Held, Snapshot, Volume};
use tracer_model::units::{self, Units};

use super::columns::{self, Align, Column};
use super::words::{command, eta_cell, least_explained, resident, used_ratio, user};

/// From here on bytes are written out (`102.4 MiB`); narrower terminals get `102M`.
const LONG_FORM_FROM: usize = 72;
/// A volume that fills within this many seconds is critical, as the default alert rules have it.
const CRITICAL_S: f64 = 30.0 * 60.0;
/// … and within this many a warning.
const WARNING_S: f64 = 4.0 * 3600.0;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct TextOptions {
    /// Columns of the terminal.
    pub width: usize,
    /// IEC or SI.
    pub units: Units,
    /// Rows of each table.
    pub top: usize,
    /// ANSI colours (the 8 that every terminal has).
    pub color: bool,
    /// What the terminal can show.
    pub charset: Charset,
}

impl Default for TextOptions {
    /// 80 columns, IEC, ten rows, no colour, Unicode.
    fn default() -> Self {
        Self { width: 80, units: Units::Iec, top: 10, color: false, charset: Charset::Unicode }
    }
}

/// How a cell stands out, where colour is on.
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

/// Everything in the Snapshot that fits a page: volumes, writers, files, errors, held space.
#[must_use]
pub fn snapshot(snapshot: &Snapshot, options: &TextOptions) -> String {
    let mut page = Page { out: String::new(), options };
    page.header(snapshot);
    page.volumes(&snapshot.volumes);
    page.writers(snapshot);
    page.paths(snapshot);
    page.victims(snapshot);
    page.residents(snapshot);
    page.held(&snapshot.held, options.top.min(3));
    page.finish()
}

/// The deleted-but-open files, largest first, with their sum.
#[must_use]
pub fn held(held: &[Held], options: &TextOptions) -> String {
    let mut page = Page { out: String::new(), options };
    if held.is_empty() {
        page.line("No deleted file is held open.", Tone::Plain);
    } else {
        page.held(held, options.top);
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
            // Names are escaped already; what is left is our own punctuation.
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
        let text = sanitize::cut(text, self.options.width, self.options.charset);
        let text = text.trim_end();
        if self.options.color && tone != Tone::Plain {
            let _ = writeln!(self.out, "{}{text}\x1b[0m", tone.sgr());
        } else {
            let _ = writeln!(self.out, "{text}");
        }
    }

    /// Facts with ` · ` between them, on as many lines as they need.
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

    /// A last line for the rows that `top` leaves out.
    fn rest(&mut self, what: &str, rows: usize, sum: &str) {
        if rows > 0 {
            self.line(&format!("… and {rows} more {what}: {sum}"), Tone::Faint);
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
        self.facts(&facts);
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        const COLUMNS: [Column; 9] = [
            Column::new("VOLUME", Align::Path, 8, 0),
            Column::new("SIZE", Align::Right, 4, 3),
            Column::new("USED", Align::Right, 4, 0),
            Column::new("AVAIL", Align::Right, 4, 0),
            Column::new("RESERVED", Align::Right, 4, 4),
            Column::new("HELD", Align::Right, 4, 5),
            Column::new("GROWTH/s", Align::Right, 4, 1),
            Column::new("EXPLAINED", Align::Right, 4, 6),
            Column::new("FULL IN", Align::Left, 12, 0),
        ];
        let rows: Vec<Row> = volumes
            .iter()
            .take(self.options.top)
            .map(|volume| Row {
                cells: vec![
                    self.safe(&volume.mount_point),
                    self.bytes(volume.total_bytes),
                    units::percent(used_ratio(volume)),
                    self.bytes(volume.avail_bytes),
                    self.bytes(volume.reserved_bytes),
                    volume.held_bytes.map_or(units::UNKNOWN.to_owned(), |held| self.bytes(held)),
                    self.growth(volume.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
                    units::percent_or_unknown(volume.explained),
                    eta_cell(volume),
                ],
                tone: match (volume.full, volume.eta_s) {
                    (true, _) => Tone::Critical,
                    (_, Some(eta)) if eta < CRITICAL_S => Tone::Critical,
                    (_, Some(eta)) if eta < WARNING_S => Tone::Warning,
                    _ => Tone::Plain,
                },
            })
            .collect();
        self.out.push('\n');
        if rows.is_empty() {
            self.line("No volume is mounted writable.", Tone::Plain);
        } else {
            self.table(&COLUMNS, &rows);
        }
        let rest = volumes.get(self.options.top..).unwrap_or_default();
        // The Snapshot has the most endangered first.
        self.rest("volumes", rest.len(), "none of them nearer to full");
    }

    fn writers(&mut self, snapshot: &Snapshot) {
        const COLUMNS: [Column; 8] = [
            Column::new("PID", Align::Right, 3, 0),
            Column::new("USER", Align::Left, 4, 4),
            Column::new("WRITTEN/s", Align::Right, 4, 0),
            Column::new("GROWTH/s", Align::Right, 4, 1),
            Column::new("SHARE", Align::Right, 4, 2),
            Column::new("FILES", Align::Right, 4, 5),
            Column::new("VOLUME", Align::Path, 8, 3),
            Column::new("COMMAND", Align::Left, 16, 0),
        ];
        self.out.push('\n');
        let writers = &snapshot.writers;
        let Some(first) = writers.first() else {
            self.line("Nobody wrote anything.", Tone::Plain);
            return;
        };
        let one_volume = writers.iter().all(|writer| writer.volume == first.volume);
        let rows: Vec<Row> = writers
            .iter()
            .take(self.options.top)
            .map(|writer| Row {
                cells: vec![
                    writer.pid.to_string(),
                    user(writer, self.options.charset),
                    self.rate(writer.written_bytes_per_s).trim_end_matches("/s").to_owned(),
                    self.growth(writer.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
                    units::percent(writer.share),
                    writer.files.to_string(),
                    if one_volume { String::new() } else { self.safe(&writer.volume) },
                    command(writer, self.options.charset),
                ],
                tone: if writer.alive { Tone::Plain } else { Tone::Faint },
            })
            .collect();
        if one_volume {
            let keep = |i: usize| COLUMNS[i].title != "VOLUME";
            let columns: Vec<Column> = (0..8).filter(|&i| keep(i)).map(|i| COLUMNS[i]).collect();
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|mut row| {
                    row.cells.remove(6);
                    row
                })
                .collect();
            self.table(&columns, &rows);
        } else {
            self.table(&COLUMNS, &rows);
        }
        let rest = writers.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|writer| writer.written_bytes_per_s).sum());
        self.rest("writers", rest.len(), &sum);
    }

    fn paths(&mut self, snapshot: &Snapshot) {
        const COLUMNS: [Column; 4] = [
            Column::new("WRITTEN/s", Align::Right, 4, 0),
            Column::new("WRITTEN", Align::Right, 4, 1),
            Column::new("PID", Align::Right, 3, 2),
            Column::new("FILE", Align::Path, 12, 0),
        ];
        let paths = &snapshot.paths;
        if paths.is_empty() {
            return;
        }
        let per_s = |bytes: u64| bytes as f64 / snapshot.interval_s;
        let rows: Vec<Row> = paths
            .iter()
            .take(self.options.top)
            .map(|path| {
                let about = if path.approximate { "~" } else { "" };
                let gone = if path.deleted { " (deleted)" } else { "" };
                let more = if path.writers.len() > 1 { "+" } else { "" };
                let pid = path.writers.first().map(u32::to_string).unwrap_or_default();
                let rate = self.rate(per_s(path.written_bytes));
                Row {
                    cells: vec![
                        format!("{about}{}", rate.trim_end_matches("/s")),
                        format!("{about}{}", self.bytes(path.written_bytes)),
                        format!("{pid}{more}"),
                        format!("{}{gone}", self.safe(&path.path)),
                    ],
                    tone: Tone::Plain,
                }
            })
            .collect();
        self.out.push('\n');
        self.table(&COLUMNS, &rows);
        let rest = paths.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|path| per_s(path.written_bytes)).sum());
        self.rest("files", rest.len(), &sum);
    }

    fn victims(&mut self, snapshot: &Snapshot) {
        const COLUMNS: [Column; 7] = [
            Column::new("PID", Align::Right, 3, 0),
            Column::new("VICTIM", Align::Left, 7, 0),
            Column::new("ENOSPC", Align::Right, 4, 1),
            Column::new("EDQUOT", Align::Right, 4, 2),
            Column::new("OTHER", Align::Right, 4, 4),
            Column::new("WAITED", Align::Right, 4, 3),
            Column::new("VOLUME", Align::Path, 8, 0),
        ];
        let victims = &snapshot.victims;
        if victims.is_empty() {
            return;
        }
        let rows: Vec<Row> = victims
            .iter()
            .take(self.options.top)
            .map(|victim| Row {
                cells: vec![
                    victim.pid.to_string(),
                    self.safe(&victim.comm),
                    victim.errors.enospc.to_string(),
                    victim.errors.edquot.to_string(),
                    (victim.errors.eio + victim.errors.other).to_string(),
                    victim
                        .waiting_ms
                        .map_or(units::UNKNOWN.to_owned(), |ms| units::duration(ms / 1000.0)),
                    self.safe(&victim.volume),
                ],
                tone: if victim.errors.no_space() > 0 { Tone::Critical } else { Tone::Warning },
            })
            .collect();
        self.out.push('\n');
        self.table(&COLUMNS, &rows);
        let rest = victims.get(self.options.top..).unwrap_or_default();
        let failed: u64 = rest.iter().map(|victim| victim.errors.total()).sum();
        self.rest("victims", rest.len(), &format!("{failed} failed writes"));
    }

    /// Databases on volumes that are full or will be: what goes down then.
    fn residents(&mut self, snapshot: &Snapshot) {
        let in_danger = |mount: &str| {
            let volume = snapshot.volumes.iter().find(|volume| volume.mount_point == mount);
            volume.is_some_and(|volume| volume.full || volume.eta_s.is_some())
        };
        let rows = snapshot.residents.iter().filter(|row| !row.databases.is_empty());
        let rows: Vec<_> = rows.filter(|row| in_danger(&row.volume)).collect();
        if rows.is_empty() {
            return;
        }
        self.out.push('\n');
        for row in rows.iter().take(self.options.top) {
            let volume = self.safe(&row.volume);
            let words = resident(row, self.options.units, self.options.charset);
            self.line(&format!("{volume}: {words}"), Tone::Warning);
        }
    }

    fn held(&mut self, held: &[Held], top: usize) {
        const COLUMNS: [Column; 5] = [
            Column::new("HELD", Align::Right, 4, 0),
            Column::new("PID", Align::Right, 3, 0),
            Column::new("FD", Align::Right, 2, 2),
            Column::new("HOLDER", Align::Left, 6, 1),
            Column::new("DELETED FILE", Align::Path, 12, 0),
        ];
        if held.is_empty() {
            return;
        }
        let sum = held.iter().map(|file| file.bytes).sum();
        let count = held.len();
        let files = if count == 1 { "file" } else { "files" };
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let total = format!("{} held by {count} deleted {files} still open:", self.bytes(sum));
        self.line(&total, Tone::Plain);
        let rows: Vec<Row> = held
            .iter()
            .take(top)
            .map(|file| {
                let more = if file.holders.len() > 1 { "+" } else { "" };
                let grows = if file.growing { " (growing)" } else { "" };
                Row {
                    cells: vec![
                        self.bytes(file.bytes),
                        format!("{}{more}", file.pid),
                        file.fd.map_or("mmap".to_owned(), |fd| fd.to_string()),
                        self.safe(&file.comm),
                        format!("{}{grows}", self.safe(&file.path)),
                    ],
                    tone: if file.growing { Tone::Warning } else { Tone::Plain },
                }
            })
            .collect();
        self.table(&COLUMNS, &rows);
        let rest = held.get(top..).unwrap_or_default();
        let sum = self.bytes(rest.iter().map(|file| file.bytes).sum());
        self.rest("held files", rest.len(), &sum);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fixtures;

    fn at(width: usize) -> TextOptions {
        TextOptions { width, ..TextOptions::default() }
    }

    #[rstest]
    #[case(40)]
    #[case(80)]
    #[case(120)]
    fn a_busy_host(#[case] width: usize) {
        insta::assert_snapshot!(format!("busy_{width}"), snapshot(&fixtures::busy(), &at(width)));
    }

    #[test]
    fn an_idle_host() {
        insta::assert_snapshot!(snapshot(&fixtures::idle(), &at(80)));
    }

    #[test]
    fn colour_marks_the_danger() {
        let options = TextOptions { color: true, ..at(80) };
        insta::assert_snapshot!(snapshot(&fixtures::busy(), &options).replace('\x1b', "ESC"));
    }

    #[test]
    fn held_files() {
        insta::assert_snapshot!(held(&fixtures::busy().held, &at(80)));
        assert_eq!(held(&[], &at(80)), "No deleted file is held open.\n");
    }

    #[test]
    fn no_line_is_too_long_and_no_name_gets_through() {
        let mut busy = fixtures::busy();
        busy.writers[0].cmdline = Some("x\x1b[2J\n日本".repeat(50));
        busy.volumes[0].mount_point = "/\u{202e}".repeat(40);
        for width in 20..200 {
            for charset in [Charset::Unicode, Charset::Ascii] {
                let options = TextOptions { charset, ..at(width) };
                let text = snapshot(&busy, &options);
                assert_eq!(charset == Charset::Ascii, text.is_ascii(), "{text}");
                for line in text.lines() {
                    assert!(!line.contains(['\x1b', '\u{202e}']));
                    // Below 40 columns the columns of rank 0 are cut where the line ends.
                    assert!(sanitize::width(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_out_is_summed_up() {
        let options = TextOptions { top: 1, ..at(80) };
        let text = snapshot(&fixtures::busy(), &options);
        assert!(text.contains("… and 3 more writers: 12.6 MiB/s"), "{text}");
        assert!(text.contains("… and 3 more files: 48.6 MiB/s"), "{text}");
        assert!(text.contains("… and 1 more held files: 88.0 MiB"), "{text}");
    }
}
