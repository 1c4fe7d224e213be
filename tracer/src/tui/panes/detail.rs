//! The details of the selected row.

use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{
    Directory, Group, Held, HeldBy, PathRow, Snapshot, Victim, WriteErrors, Writer,
};
use tracer_model::units;

use super::{Line, label_value, sparkline};
use crate::output::format;
use crate::output::theme::Role;
use crate::tui::rows::item::{GroupSum, Item};
use crate::tui::state::UiState;
use crate::tui::views::cells::{milliseconds, number};

/// Files, members or holders listed before "and N more".
const LIST: usize = 12;

/// Returns the title and the lines of the page.
#[must_use]
pub fn lines(
    snapshot: &Snapshot,
    groups: &[GroupSum],
    item: Option<Item>,
    state: &UiState,
    width: usize,
) -> (String, Vec<Line>) {
    let page = Page { snapshot, state, width };
    let nothing = || match &state.selected {
        Some(key) if state.selection_missing => {
            let text = "not in this window: inactive or gone";
            let lines = vec![Line::new(text, Role::Warning), page.trend(Trend::Growth)];
            (page.safe(&key.label()), lines)
        }
        _ => ("Nothing selected".to_owned(), vec![]),
    };
    match item {
        Some(Item::Writer(i)) => snapshot.writers.get(i).map(|row| page.writer(row)),
        Some(Item::Group(i)) => groups.get(i).map(|row| page.group(row)),
        Some(Item::Dir(i)) => snapshot.dirs.get(i).map(|row| page.dir(row)),
        Some(Item::File(i)) => snapshot.paths.get(i).map(|row| page.file(row)),
        Some(Item::Held(i)) => snapshot.held.get(i).map(|row| page.held(row)),
        Some(Item::Victim(i)) => snapshot.victims.get(i).map(|row| page.victim(row)),
        None => None,
    }
    .unwrap_or_else(nothing)
}

/// The value that a sparkline plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trend {
    /// Growth, bytes per second.
    Growth,
    /// Bytes of a deleted file.
    Size,
    /// Failed writes.
    Failures,
}

impl Trend {
    const fn label(self) -> &'static str {
        match self {
            Self::Growth => "growth trend",
            Self::Size => "size trend",
            Self::Failures => "failure trend",
        }
    }
}

struct Page<'a> {
    snapshot: &'a Snapshot,
    state: &'a UiState,
    width: usize,
}

impl Page<'_> {
    fn safe(&self, text: &str) -> String {
        display_for(text, self.state.charset).into_owned()
    }

    fn bytes(&self, bytes: Option<u64>) -> String {
        self.state.units.bytes_or_unknown(bytes)
    }

    fn rate(&self, per_s: f64) -> String {
        self.state.units.rate(per_s)
    }

    fn per_s(&self, bytes: u64) -> String {
        self.rate(bytes as f64 / self.snapshot.interval_s)
    }

    /// A sparkline of the row's history, with its peak.
    fn trend(&self, trend_of: Trend) -> Line {
        let trend = &self.state.trends.selected;
        let top = trend.iter().copied().fold(0.0, f64::max);
        let top = match trend_of {
            Trend::Size => self.state.units.bytes(top as u64),
            Trend::Failures => format!("{top:.0}"),
            Trend::Growth => self.rate(top),
        };
        // The label and the peak take up part of the line.
        let width = self.width.saturating_sub(14 + 8 + top.len()).min(trend.len());
        let bars = sparkline(trend, width, self.state.charset);
        Line::new(label_value(trend_of.label(), &format!("{bars} up to {top}")), Role::Accent)
    }

    fn errors(errors: &WriteErrors) -> Option<Line> {
        let named = [
            ("ENOSPC", errors.enospc),
            ("EDQUOT", errors.edquot),
            ("EIO", errors.eio),
            ("other", errors.other),
        ];
        let text: Vec<String> = named
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        (!text.is_empty())
            .then(|| Line::new(label_value("failed writes", &text.join(", ")), Role::Critical))
    }

    fn list(lines: &mut Vec<Line>, heading: &str, items: Vec<String>) {
        if items.is_empty() {
            return;
        }
        lines.push(Line::plain(""));
        lines.push(Line::new(format!("{heading} ({})", items.len()), Role::Head));
        let more = items.len().saturating_sub(LIST);
        lines.extend(items.into_iter().take(LIST).map(|item| Line::plain(format!("  {item}"))));
        if more > 0 {
            lines.push(Line::new(format!("  … and {more} more"), Role::Faint));
        }
    }

    fn writer(&self, writer: &Writer) -> (String, Vec<Line>) {
        let title = format!("{} ({})", self.safe(&writer.comm), writer.pid);
        let started = writer.start_time.strftime("%F %T UTC").to_string();
        let age = self.snapshot.taken_at - writer.start_time;
        let age = units::duration(age.total(jiff::Unit::Second).unwrap_or(f64::NAN));
        let state = if writer.alive { "running" } else { "exited in this window" };
        let unknown = || units::UNKNOWN.to_owned();
        let maybe = |text: Option<&String>| text.map_or_else(unknown, |text| self.safe(text));
        let group = self.group_name(writer.group.as_ref());
        let cgroup = writer.group.as_ref().and_then(|group| group.cgroup.as_ref());
        let user = format::user(writer, Charset::Unicode);
        let share = units::percent(writer.share);
        let growth = self.state.units.growth(writer.growth_bytes_per_s);
        let mut lines = vec![
            Line::plain(label_value("command", &maybe(writer.cmdline.as_ref()))),
            Line::plain(label_value("program", &maybe(writer.exe.as_ref()))),
            Line::plain(label_value("started", &format!("{started}, {age} ago, {state}"))),
            Line::plain(label_value("user", &format!("{} ({})", self.safe(&user), writer.uid))),
            Line::plain(label_value("group", &group)),
            Line::plain(label_value("cgroup", &maybe(cgroup))),
        ];
        if !writer.parents.is_empty() {
            let parents: Vec<String> = writer
                .parents
                .iter()
                .map(|parent| format!("{} ({})", self.safe(&parent.comm), parent.pid))
                .collect();
            lines.push(Line::plain(label_value("parents", &parents.join(" < "))));
        }
        let written = self.rate(writer.written_bytes_per_s);
        let total = self.bytes(Some(writer.written_bytes));
        let allocated = self.bytes(writer.allocated_bytes);
        let freed = self.bytes(writer.freed_bytes);
        lines.extend([
            Line::plain(label_value("volume", &self.safe(&writer.volume))),
            Line::plain(label_value("written", &format!("{written}, {total} in this window"))),
            Line::plain(label_value("growth", &format!("{growth}, {share} of the volume's"))),
            Line::plain(label_value("space", &format!("{allocated} allocated, {freed} freed"))),
            Line::plain(label_value(
                "held",
                &format!("{} of deleted files", self.bytes(writer.held_bytes)),
            )),
            self.trend(Trend::Growth),
        ]);
        lines.extend(Self::errors(&writer.errors));
        if let Some(fsync) = writer.fsync.filter(|fsync| fsync.count > 0) {
            let (p99, max) = (milliseconds(fsync.p99_ms), milliseconds(fsync.max_ms));
            let calls = if fsync.count == 1 { "call" } else { "calls" };
            let text = format!("{} {calls}, 99% within {p99}, longest {max}", fsync.count);
            lines.push(Line::plain(label_value("fsync", &text)));
        }
        if let Some(container) = writer.mostly_for() {
            lines.push(Line::plain(label_value("permanent fix", format::log_cure(container))));
        }
        let logs = writer.on_behalf_of.iter().map(|log| {
            let growth = self.state.units.growth(log.growth_bytes_per_s);
            format!("{growth:>13}  {}", format::log_of(&log.group, self.state.charset))
        });
        Self::list(&mut lines, "Container logs it writes", logs.collect());
        let files = self.snapshot.paths.iter().filter(|path| path.writers.contains(&writer.pid));
        Self::list(&mut lines, "Files it wrote", files.map(|path| self.file_line(path)).collect());
        let held = self
            .snapshot
            .held
            .iter()
            .filter(|held| held.pid == writer.pid || held.holders.contains(&writer.pid));
        Self::list(
            &mut lines,
            "Deleted files it holds open",
            held.map(|held| {
                format!("{:>10}  {}", self.bytes(Some(held.bytes)), self.safe(&held.path))
            })
            .collect(),
        );
        (title, lines)
    }

    fn file_line(&self, path: &PathRow) -> String {
        let gone = if path.deleted { " (deleted)" } else { "" };
        let growth = self.state.units.growth(path.growth_bytes_per_s);
        format!("{growth:>13}  {}{gone}", format::file(path, self.state.charset))
    }

    fn writer_line(&self, writer: &Writer) -> String {
        let growth = self.state.units.growth(writer.growth_bytes_per_s);
        format!("{growth:>13}  {} {}", writer.pid, format::command(writer, self.state.charset))
    }

    fn group(&self, group: &GroupSum) -> (String, Vec<Line>) {
        let unknown = units::UNKNOWN.to_owned();
        let cgroup = group.cgroup.as_ref().map_or(unknown, |cgroup| self.safe(cgroup));
        let alive = format!("{} ({} running)", group.members.len(), group.alive);
        let growth = self.state.units.growth(group.growth_bytes_per_s);
        let share = units::percent(group.share);
        let mut lines = vec![
            Line::plain(label_value("kind", group.kind_name())),
            Line::plain(label_value("cgroup", &cgroup)),
            Line::plain(label_value("processes", &alive)),
            Line::plain(label_value("written", &self.rate(group.written_bytes_per_s))),
            Line::plain(label_value("growth", &format!("{growth}, {share} of the volume's"))),
            Line::plain(label_value(
                "held",
                &format!("{} of deleted files", self.bytes(group.held_bytes)),
            )),
            self.trend(Trend::Growth),
        ];
        if group.errors > 0 {
            let text = group.errors.to_string();
            lines.push(Line::new(label_value("failed writes", &text), Role::Critical));
        }
        let members = group.members.iter().filter_map(|&i| self.snapshot.writers.get(i));
        let members = members.map(|writer| self.writer_line(writer)).collect();
        Self::list(&mut lines, "Processes", members);
        (self.safe(&group.name), lines)
    }

    fn dir(&self, dir: &Directory) -> (String, Vec<Line>) {
        let below = |path: &str| {
            path.strip_prefix(&*dir.path)
                .is_some_and(|rest| rest.starts_with('/') || dir.path == "/")
        };
        let drain = dir.drain.map_or_else(|| "-".to_owned(), units::percent);
        let (created, removed) = (number(dir.files_created), number(dir.files_removed));
        let files = format!("{created} created, {removed} removed");
        let drains = format!("{drain} of the inflow flows out");
        let mut lines = vec![
            Line::plain(label_value("volume", &self.safe(&dir.volume))),
            Line::plain(label_value("inflow", &self.rate(dir.inflow_bytes_per_s))),
            Line::plain(label_value("outflow", &self.rate(dir.outflow_bytes_per_s))),
            Line::plain(label_value("drain", &drains)),
            Line::plain(label_value("files", &files)),
            self.trend(Trend::Growth),
        ];
        let paths: Vec<&PathRow> =
            self.snapshot.paths.iter().filter(|path| below(&path.path)).collect();
        let writers = self.snapshot.writers.iter().filter(|writer| {
            writer.volume == dir.volume
                && paths.iter().any(|path| path.writers.contains(&writer.pid))
        });
        let writers = writers.map(|writer| self.writer_line(writer)).collect();
        Self::list(&mut lines, "Writers below it", writers);
        Self::list(
            &mut lines,
            "Files written below it",
            paths.into_iter().map(|path| self.file_line(path)).collect(),
        );
        (self.safe(&dir.path), lines)
    }

    fn file(&self, path: &PathRow) -> (String, Vec<Line>) {
        let written = format!(
            "{}, {} in this window",
            self.per_s(path.written_bytes),
            self.bytes(Some(path.written_bytes))
        );
        let allocated = self.bytes(path.allocated_bytes);
        let freed = self.bytes(path.freed_bytes);
        let mut lines = vec![
            Line::plain(label_value("volume", &self.safe(&path.volume))),
            Line::plain(label_value(
                "file",
                &format!("inode {} on {}", path.ino, self.safe(&path.dev)),
            )),
            Line::plain(label_value("size", &self.bytes(path.size_bytes))),
            Line::plain(label_value("growth", &self.state.units.growth(path.growth_bytes_per_s))),
            Line::plain(label_value("written", &written)),
            Line::plain(label_value("space", &format!("{allocated} allocated, {freed} freed"))),
            self.trend(Trend::Growth),
        ];
        if let Some(inside) = &path.path_in_container {
            lines.insert(0, Line::plain(label_value("in container", &self.safe(inside))));
        }
        if let Some(container) = &path.container {
            lines.insert(0, Line::plain(label_value("container", &self.safe(container))));
        }
        if let Some(container) = &path.log_of {
            let whose = format::log_of(container, self.state.charset);
            lines.insert(0, Line::plain(label_value("contents", &whose)));
            lines.push(Line::plain(label_value("permanent fix", format::log_cure(container))));
        }
        if path.deleted {
            let text = label_value("deleted", "no name left; its space is freed when it is closed");
            lines.push(Line::new(text, Role::Warning));
        }
        if path.approximate {
            let text = "mmap stores are counted per page";
            lines.push(Line::plain(label_value("approximate", text)));
        }
        self.processes(&mut lines, "Written by", &path.writers);
        (self.safe(&path.path), lines)
    }

    fn processes(&self, lines: &mut Vec<Line>, heading: &str, pids: &[u32]) {
        let known = pids.iter().map(|&pid| {
            match self.snapshot.writers.iter().find(|writer| writer.pid == pid) {
                Some(writer) => self.writer_line(writer),
                None => format!("{:>13}  {pid}", units::UNKNOWN),
            }
        });
        Self::list(lines, heading, known.collect());
    }

    fn group_name(&self, group: Option<&Group>) -> String {
        group.map_or_else(
            || "none known".to_owned(),
            |group| format!("{} ({})", self.safe(&group.name), group.kind),
        )
    }

    fn held(&self, held: &Held) -> (String, Vec<Line>) {
        let process = || format!("{} ({})", self.safe(&held.comm), held.pid);
        let by = match (held.held_by, held.fd) {
            (_, Some(fd)) => format!("{} through descriptor {fd}", process()),
            (HeldBy::Mapping | HeldBy::Descriptor, None) => {
                format!("{} through a mapping", process())
            }
            (HeldBy::Socket, None) => {
                format!("a message that waits in a socket of {}", process())
            }
            (HeldBy::LoopDevice, None) => format!("the loop device {}", self.safe(&held.comm)),
            (HeldBy::Swap, None) => "the kernel, as swap space".to_owned(),
            (HeldBy::Kernel, None) => "the kernel".to_owned(),
            (HeldBy::Unknown, None) => "holder unknown".to_owned(),
        };
        let to_free = match held.held_by {
            HeldBy::LoopDevice => "unmount it, then losetup -d",
            HeldBy::Swap => "swapoff",
            HeldBy::Kernel | HeldBy::Unknown => "nothing is known to hold it in a process",
            _ => "stop or restart the holders (x)",
        };
        let mut lines = vec![
            Line::plain(label_value("size", &self.bytes(Some(held.bytes)))),
            Line::plain(label_value("volume", &self.safe(&held.volume))),
            Line::plain(label_value("held by", &by)),
            Line::plain(label_value("group", &self.group_name(held.group.as_ref()))),
            Line::plain(label_value("kind", held.kind.name())),
            self.trend(Trend::Size),
        ];
        if let Some(path) = &held.path_in_container {
            lines.push(Line::plain(label_value("in container", &self.safe(path))));
        }
        if held.growing {
            lines.push(Line::new(label_value("growing", "still being written"), Role::Warning));
        }
        lines.push(Line::plain(label_value("to free it", to_free)));
        self.processes(&mut lines, "Holders", &held.holders);
        (self.safe(&held.path), lines)
    }

    fn victim(&self, victim: &Victim) -> (String, Vec<Line>) {
        let waited = victim.waiting_ms.map_or_else(|| units::UNKNOWN.to_owned(), milliseconds);
        let mut lines = vec![
            Line::plain(label_value("volume", &self.safe(&victim.volume))),
            Line::plain(label_value("waited", &format!("{waited} in this window"))),
            self.trend(Trend::Failures),
        ];
        lines.extend(Self::errors(&victim.errors));
        let culprits = self.snapshot.writers.iter().filter(|writer| {
            writer.volume == victim.volume
                && writer.pid != victim.pid
                && writer.growth_bytes_per_s > 0.0
        });
        let culprits = culprits.map(|writer| self.writer_line(writer)).collect();
        Self::list(&mut lines, "Writers filling this volume", culprits);
        (format!("{} ({})", self.safe(&victim.comm), victim.pid), lines)
    }
}
