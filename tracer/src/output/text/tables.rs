//! The tables of the text output: their columns and cells.

use tracer_model::alert::unexplained_part;
use tracer_model::snapshot::{Blind, Group, GroupKind, Held, Snapshot, Volume};
use tracer_model::units;

use super::{CRITICAL_S, GROUPS_FROM, LONG_FORM_FROM, Page, Row, Tone, WARNING_S};
use crate::output::columns::{Align, Column};
use crate::output::format::{
    command, eta_fitting, file, held_path, resident, used_ratio, user, volume,
};

/// Width of the longest time to full: `1 h 20 min (55 min – 1 h 50 min)` and a limit's name.
const ETA_WIDTH: usize = 40;

/// Selects the items (one per column) of the columns that are shown.
pub(super) fn kept<T, const N: usize>(columns: &[(bool, Column); N], all: [T; N]) -> Vec<T> {
    all.into_iter().zip(columns).filter(|(_, (shown, _))| *shown).map(|(one, _)| one).collect()
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
        let room = self.options.width.saturating_sub(21).min(ETA_WIDTH);
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
                    eta_fitting(volume, room),
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
            self.nobody(snapshot);
            return;
        };
        let one_volume = writers.iter().all(|writer| writer.volume == first.volume);
        let shown = &writers[..writers.len().min(self.options.top)];
        let is_wide = self.options.width >= GROUPS_FROM;
        let has_container = shown.iter().filter_map(|writer| writer.group.as_ref());
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
        let rows: Vec<Row> = shown
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
                    cells: kept(&columns, cells),
                    tone: if writer.alive { Tone::Plain } else { Tone::Faint },
                }
            })
            .collect();
        self.table(&kept(&columns, columns.map(|(_, column)| column)), &rows);
        let rest = writers.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|writer| writer.written_bytes_per_s).sum());
        self.rest("writer", rest.len(), &sum);
    }

    /// The group's name, or `-`. A narrow terminal omits plain cgroups and sessions, which are of
    /// little use.
    fn writers_group(&self, group: Option<&Group>) -> String {
        let is_wide = self.options.width >= GROUPS_FROM;
        let says_much = |group: &&Group| {
            is_wide || !matches!(group.kind, GroupKind::Cgroup | GroupKind::Session)
        };
        group.filter(says_much).map_or_else(|| "-".to_owned(), |group| self.safe(&group.name))
    }

    /// Printed in place of the writers if there are none.
    fn nobody(&mut self, snapshot: &Snapshot) {
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
                        format!("{}{gone}", file(path, self.options.charset)),
                    ],
                    tone: Tone::Plain,
                }
            })
            .collect();
        self.out.push('\n');
        self.table(&COLUMNS, &rows);
        let rest = paths.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|path| per_s(path.written_bytes)).sum());
        self.rest("file", rest.len(), &sum);
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
        const COLUMNS: [Column; 6] = [
            Column::new("HELD", Align::Right, 4, 0),
            Column::new("PID", Align::Right, 3, 0),
            Column::new("FD", Align::Right, 2, 3),
            Column::new("GROUP", Align::Left, 6, 2),
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
                        self.group(file.group.as_ref()),
                        self.safe(&file.comm),
                        format!("{}{grows}", held_path(file, self.options.charset)),
                    ],
                    tone: if file.growing { Tone::Warning } else { Tone::Plain },
                }
            })
            .collect();
        if held.iter().any(|file| file.group.as_ref().is_some_and(stands_apart)) {
            self.table(&COLUMNS, &rows);
        } else {
            let keep = |i: usize| COLUMNS[i].title != "GROUP";
            let columns: Vec<Column> = (0..6).filter(|&i| keep(i)).map(|i| COLUMNS[i]).collect();
            let without = |mut row: Row| {
                row.cells.remove(3);
                row
            };
            let rows: Vec<Row> = rows.into_iter().map(without).collect();
            self.table(&columns, &rows);
        }
        let rest = held.get(top..).unwrap_or_default();
        let sum = self.bytes(rest.iter().map(|file| file.bytes).sum());
        self.rest("held file", rest.len(), &sum);
    }

    fn group(&self, group: Option<&Group>) -> String {
        group.map_or_else(
            || units::UNKNOWN.to_owned(),
            |group| format!("{} {}", group.kind, self.safe(&group.name)),
        )
    }
}

/// Whether the group's view of the file system differs from the host's.
fn stands_apart(group: &Group) -> bool {
    group.is_container() || group.root.is_some() || group.mount_namespace.is_some()
}
