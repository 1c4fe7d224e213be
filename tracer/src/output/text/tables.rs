//! The tables of the text output: their columns and cells.

use tracer_model::alert::unexplained_part;
use tracer_model::snapshot::{Blind, Group, GroupKind, Held, HeldBy, Snapshot, Volume};
use tracer_model::units;

use super::{CRITICAL_S, GROUPS_FROM, LONG_FORM_FROM, Missing, Page, Row, Tone, WARNING_S};
use crate::output::columns::{Align, Column};
use crate::output::format::{
    command, eta_fitting, file, held_path, held_through, resident, used_ratio, user, volume,
};

/// Width of the longest time to full: `1 h 20 min (55 min – 1 h 50 min)` and a limit's name.
const ETA_WIDTH: usize = 40;

/// Selects the items (one per column) of the columns that are shown.
pub(super) fn shown<T, const N: usize>(columns: &[(bool, Column); N], all: [T; N]) -> Vec<T> {
    all.into_iter()
        .zip(columns)
        .filter(|(_, (is_shown, _))| *is_shown)
        .map(|(one, _)| one)
        .collect()
}

impl Page<'_> {
    pub(super) fn volumes(&mut self, volumes: &[Volume]) {
        // The volume of a container is prefixed with the container's name.
        let is_narrow = self.options.width < LONG_FORM_FROM;
        let columns = [
            Column::new("VOLUME", Align::Path, if is_narrow { 8 } else { 16 }, 0),
            Column::new("SIZE", Align::Right, 4, 3),
            Column::new("USED", Align::Right, 4, 0),
            Column::new("AVAIL", Align::Right, 4, 0),
            Column::new("RESERVED", Align::Right, 4, 4),
            Column::new("HELD", Align::Right, 4, 5),
            Column::new("GROWTH/s", Align::Right, 4, 1),
            Column::new("EXPLAINED", Align::Right, 4, 6),
            Column::new("FULL IN", Align::Left, ETA_WIDTH, 0),
        ];
        // VOLUME, USED and AVAIL stay next to it on the narrowest terminal.
        let eta_width = self.options.width.saturating_sub(21).min(ETA_WIDTH);
        let rows: Vec<Row> = volumes
            .iter()
            .take(self.options.top)
            .map(|volume| Row {
                cells: vec![
                    self.safe(volume.shown_as()),
                    self.bytes(volume.total_bytes),
                    units::percent(used_ratio(volume)),
                    self.bytes(volume.avail_bytes),
                    self.bytes(volume.reserved_bytes),
                    volume.held_bytes.map_or(units::UNKNOWN.to_owned(), |held| self.bytes(held)),
                    self.growth(volume.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
                    units::percent_or_unknown(volume.explained),
                    eta_fitting(volume, eta_width),
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
            self.line("No writable volume is mounted.", Tone::Plain);
        } else {
            self.table(&columns, &rows);
        }
        let rest = volumes.get(self.options.top..).unwrap_or_default();
        // The Snapshot lists the volumes that are closest to full first.
        self.rest("volume", rest.len(), "none of them closer to full");
    }

    pub(super) fn writers(&mut self, snapshot: &Snapshot) {
        self.out.push('\n');
        let writers = &snapshot.writers;
        let Some(first) = writers.first() else {
            self.no_writers(snapshot);
            return;
        };
        let one_volume = writers.iter().all(|writer| writer.volume == first.volume);
        let listed = &writers[..writers.len().min(self.options.top)];
        let is_wide = self.options.width >= GROUPS_FROM;
        let has_container = listed.iter().filter_map(|writer| writer.group.as_ref());
        let has_container = has_container.into_iter().any(Group::is_container);
        let columns = [
            (true, Column::new("PID", Align::Right, 3, 0)),
            (true, Column::new("USER", Align::Left, 4, 5)),
            (true, Column::new("WRITTEN/s", Align::Right, 4, 0)),
            (true, Column::new("GROWTH/s", Align::Right, 4, 1)),
            (true, Column::new("SHARE", Align::Right, 4, 3)),
            (true, Column::new("FILES", Align::Right, 4, 6)),
            (!one_volume, Column::new("VOLUME", Align::Path, 8, 4)),
            (is_wide || has_container, Column::new("GROUP", Align::Left, 16, 2)),
            (true, Column::new("COMMAND", Align::Left, 16, 0)),
        ];
        let rows: Vec<Row> = listed
            .iter()
            .map(|writer| {
                let cells = [
                    writer.pid.to_string(),
                    user(writer, self.options.charset),
                    self.rate(writer.written_bytes_per_s).trim_end_matches("/s").to_owned(),
                    self.growth(writer.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
                    units::percent(writer.share),
                    writer.files.to_string(),
                    volume(snapshot, &writer.volume, self.options.charset),
                    self.writers_group(writer.group.as_ref()),
                    command(writer, self.options.charset),
                ];
                Row {
                    cells: shown(&columns, cells),
                    tone: if writer.alive { Tone::Plain } else { Tone::Faint },
                }
            })
            .collect();
        self.table(&shown(&columns, columns.map(|(_, column)| column)), &rows);
        let rest = writers.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|writer| writer.written_bytes_per_s).sum());
        self.rest("writer", rest.len(), &sum);
    }

    /// The group's name, or `-`. A narrow terminal omits plain cgroups and sessions, which are of
    /// little use.
    fn writers_group(&self, group: Option<&Group>) -> String {
        let is_wide = self.options.width >= GROUPS_FROM;
        let is_informative = |group: &&Group| {
            is_wide || !matches!(group.kind, GroupKind::Cgroup | GroupKind::Session)
        };
        group.filter(is_informative).map_or_else(|| "-".to_owned(), |group| self.safe(&group.name))
    }

    /// Printed in place of the writers if there are none.
    fn no_writers(&mut self, snapshot: &Snapshot) {
        let hidden: Vec<String> = snapshot
            .volumes
            .iter()
            .filter_map(|volume| {
                let blind = volume.blind.filter(Blind::hides_most)?;
                let part = unexplained_part(&blind, self.options.units)?;
                Some(format!(
                    "{part} of growth on {} is unexplained.",
                    self.safe(&volume.mount_point)
                ))
            })
            .collect();
        if hidden.is_empty() {
            self.line("Nothing was written.", Tone::Plain);
        }
        for line in hidden {
            self.paragraph(&line, Tone::Warning);
        }
    }

    pub(super) fn paths(&mut self, snapshot: &Snapshot) {
        // Names are worth more than a column that the rate implies.
        let file_width = if self.options.width < LONG_FORM_FROM { 12 } else { 32 };
        let columns = [
            Column::new("GROWTH/s", Align::Right, 4, 0),
            Column::new("SIZE", Align::Right, 4, 1),
            Column::new("WRITTEN/s", Align::Right, 4, 2),
            Column::new("WRITTEN", Align::Right, 4, 4),
            Column::new("PID", Align::Right, 3, 3),
            Column::new("FILE", Align::Path, file_width, 0),
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
                        self.growth(path.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
                        path.size_bytes.map_or(units::UNKNOWN.to_owned(), |size| self.bytes(size)),
                        format!("{about}{}", rate.trim_end_matches("/s")),
                        format!("{about}{}", self.bytes(path.written_bytes)),
                        format!("{pid}{more}"),
                        format!("{}{gone}", file(path, self.options.charset)),
                    ],
                    tone: Tone::Plain,
                }
            })
            .collect();
        self.out.push('\n');
        self.table(&columns, &rows);
        let rest = paths.get(self.options.top..).unwrap_or_default();
        let growth = self.growth(rest.iter().map(|path| path.growth_bytes_per_s).sum());
        let written = self.rate(rest.iter().map(|path| per_s(path.written_bytes)).sum());
        self.rest("file", rest.len(), &format!("{growth}, {written} written"));
    }

    pub(super) fn victims(&mut self, snapshot: &Snapshot) {
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
                    volume(snapshot, &victim.volume, self.options.charset),
                ],
                tone: if victim.errors.no_space() > 0 { Tone::Critical } else { Tone::Warning },
            })
            .collect();
        self.out.push('\n');
        self.table(&COLUMNS, &rows);
        let rest = victims.get(self.options.top..).unwrap_or_default();
        let failed: u64 = rest.iter().map(|victim| victim.errors.total()).sum();
        let writes = if failed == 1 { "write" } else { "writes" };
        self.rest("victim", rest.len(), &format!("{failed} failed {writes}"));
    }

    /// Databases on volumes that are full or filling: the services that fail next.
    pub(super) fn residents(&mut self, snapshot: &Snapshot) {
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
            let volume = volume(snapshot, &row.volume, self.options.charset);
            let words = resident(row, self.options.units, self.options.charset);
            self.line(&format!("{volume}: {words}"), Tone::Warning);
        }
    }

    pub(super) fn held(&mut self, held: &[Held], top: usize) {
        if held.is_empty() {
            return;
        }
        let has_group = held.iter().any(|file| file.group.as_ref().is_some_and(has_own_view));
        let columns = [
            (true, Column::new("HELD", Align::Right, 4, 0)),
            (true, Column::new("PID", Align::Right, 3, 0)),
            (true, Column::new("FD", Align::Right, 2, 3)),
            (has_group, Column::new("GROUP", Align::Left, 6, 2)),
            (true, Column::new("HOLDER", Align::Left, 6, 1)),
            (true, Column::new("DELETED FILE", Align::Path, 12, 0)),
        ];
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
                let cells = [
                    self.bytes(file.bytes),
                    if file.pid == 0 { "-".to_owned() } else { format!("{}{more}", file.pid) },
                    held_through(file),
                    self.group(file.group.as_ref()),
                    self.safe(&file.comm),
                    format!("{}{grows}", held_path(file, self.options.charset)),
                ];
                Row {
                    cells: shown(&columns, cells),
                    tone: if file.growing { Tone::Warning } else { Tone::Plain },
                }
            })
            .collect();
        self.table(&shown(&columns, columns.map(|(_, column)| column)), &rows);
        let rest = held.get(top..).unwrap_or_default();
        let sum = self.bytes(rest.iter().map(|file| file.bytes).sum());
        self.rest("held file", rest.len(), &sum);
        let unknown = held.iter().filter(|file| file.held_by == HeldBy::Unknown);
        let (count, sum) = unknown.fold((0, 0), |(n, sum), file| (n + 1, sum + file.bytes));
        if count > 0 {
            let files = if count == 1 { "file" } else { "files" };
            self.line(
                &format!("{} held, holder unknown ({count} {files})", self.bytes(sum)),
                Tone::Warning,
            );
        }
    }

    /// What could not be inspected, so that held files may be missing.
    pub(super) fn missing(&mut self, missing: Missing) {
        let line = match missing {
            Missing::Processes(count) => {
                let (processes, they) =
                    if count == 1 { ("process", "it holds") } else { ("processes", "they hold") };
                format!(
                    "Could not inspect {count} {processes}: files that only {they} are missing here."
                )
            }
            Missing::HiddenProcesses => {
                "Could not inspect processes of other users or outside this \
                PID namespace: files that only they hold are missing here."
                    .to_owned()
            }
            Missing::Size => {
                "The size of a deleted file that a loop device uses is not known.".to_owned()
            }
        };
        self.paragraph(&line, Tone::Warning);
    }

    fn group(&self, group: Option<&Group>) -> String {
        group.map_or_else(
            || units::UNKNOWN.to_owned(),
            |group| format!("{} {}", group.kind, self.safe(&group.name)),
        )
    }
}

/// Whether the group's view of the file system differs from the host's.
fn has_own_view(group: &Group) -> bool {
    group.is_container() || group.root.is_some() || group.mount_namespace.is_some()
}
