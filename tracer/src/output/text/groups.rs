//! The table of groups: `filltop snapshot --by group`.

use std::collections::{BTreeMap, HashSet};

use tracer_model::snapshot::{GroupKind, GroupRow, Snapshot};
use tracer_model::units;

use super::tables::kept;
use super::{Page, Row, Tone};
use crate::output::columns::{Align, Column};
use crate::output::format::volume;

/// A row of the table: a group, or all containers of a pod together, on one volume.
#[derive(Debug, Clone)]
struct Sum<'s> {
    /// Indentation of the name: a container is listed below its pod.
    indent: &'static str,
    name: String,
    kind: GroupKind,
    volume: &'s str,
    processes: u64,
    written: f64,
    growth: f64,
    logs: f64,
    directory: &'s str,
}

impl<'s> Sum<'s> {
    fn of(row: &'s GroupRow) -> Self {
        Self {
            indent: "",
            name: row.group.name.clone(),
            kind: row.group.kind,
            volume: &row.volume,
            processes: row.processes,
            written: row.written_bytes_per_s,
            growth: row.charged_growth(),
            logs: row.log_bytes_per_s,
            directory: row.directory.as_deref().unwrap_or(""),
        }
    }

    /// The row of a pod: the sum of its containers.
    fn of_pod(name: String, containers: &[&'s GroupRow]) -> Option<Self> {
        let sums = containers.iter().map(|row| Self::of(row));
        let mut pod = sums.reduce(|mut all, one| {
            all.processes += one.processes;
            all.written += one.written;
            all.growth += one.growth;
            all.logs += one.logs;
            all
        })?;
        (pod.name, pod.kind, pod.directory) = (name, GroupKind::Pod, "");
        Some(pod)
    }
}

impl Page<'_> {
    /// The groups that wrote in the interval, largest growth first; the containers of a pod are
    /// listed below it. Growth is charged to the group that causes it: a container's log is charged
    /// to the container, not to the daemon that writes it.
    pub(super) fn groups(&mut self, snapshot: &Snapshot) {
        self.out.push('\n');
        let sums = sums(snapshot);
        let Some(first) = sums.first() else {
            self.line("Nothing was written.", Tone::Plain);
            return;
        };
        let one_volume = sums.iter().all(|sum| sum.volume == first.volume);
        let has_logs = sums.iter().any(|sum| sum.logs > 0.0);
        let columns = [
            (true, Column::new("GROUP", Align::Left, 14, 0)),
            (true, Column::new("KIND", Align::Left, 10, 3)),
            (true, Column::new("PROCS", Align::Right, 4, 6)),
            (true, Column::new("WRITTEN/s", Align::Right, 4, 0)),
            (true, Column::new("GROWTH/s", Align::Right, 4, 1)),
            (has_logs, Column::new("LOG/s", Align::Right, 4, 2)),
            (true, Column::new("SHARE", Align::Right, 4, 4)),
            (!one_volume, Column::new("VOLUME", Align::Path, 8, 5)),
            (true, Column::new("DIRECTORY", Align::Path, 10, 7)),
        ];
        let mut whole: BTreeMap<&str, f64> = BTreeMap::new();
        for sum in sums.iter().filter(|sum| sum.indent.is_empty()) {
            *whole.entry(sum.volume).or_default() += sum.growth.max(0.0);
        }
        let share = |sum: &Sum<'_>| match whole.get(sum.volume) {
            Some(whole) if *whole > 0.0 => sum.growth.max(0.0) / whole,
            _ => 0.0,
        };
        let rows: Vec<Row> = sums
            .iter()
            .take(self.options.top)
            .map(|sum| {
                let rate = |per_s: f64| self.rate(per_s).trim_end_matches("/s").to_owned();
                let cells = [
                    format!("{}{}", sum.indent, self.safe(&sum.name)),
                    sum.kind.to_string(),
                    sum.processes.to_string(),
                    rate(sum.written),
                    self.growth(sum.growth).trim_end_matches("/s").to_owned(),
                    if sum.logs > 0.0 { rate(sum.logs) } else { "-".to_owned() },
                    units::percent(share(sum)),
                    volume(snapshot, sum.volume, self.options.charset),
                    self.safe(sum.directory),
                ];
                Row { cells: kept(&columns, cells), tone: Tone::Plain }
            })
            .collect();
        self.table(&kept(&columns, columns.map(|(_, column)| column)), &rows);
        let rest = sums.get(self.options.top..).unwrap_or_default();
        let sum = self.rate(rest.iter().map(|sum| sum.written).sum());
        self.rest("group", rest.len(), &sum);
    }
}

fn sums(snapshot: &Snapshot) -> Vec<Sum<'_>> {
    let is_active = |row: &&GroupRow| {
        row.written_bytes > 0 || row.growth_bytes_per_s != 0.0 || row.log_bytes_per_s > 0.0
    };
    let rows: Vec<&GroupRow> = snapshot.groups.iter().filter(is_active).collect();
    let mut seen = HashSet::new();
    let mut heads: Vec<(Sum<'_>, Vec<Sum<'_>>)> = Vec::new();
    for row in &rows {
        let Some(pod) = &row.group.pod else {
            heads.push((Sum::of(row), Vec::new()));
            continue;
        };
        if !seen.insert((pod, &row.volume)) {
            continue;
        }
        let containers: Vec<&GroupRow> = rows
            .iter()
            .filter(|other| other.group.pod.as_ref() == Some(pod) && other.volume == row.volume)
            .copied()
            .collect();
        if let [alone] = *containers {
            heads.push((Sum::of(alone), Vec::new()));
            continue;
        }
        let full = format!("{}/{}", pod.namespace, pod.name);
        let below = format!("{full}/");
        let containers_of = |row: &&'_ GroupRow| -> String {
            row.group.name.strip_prefix(&below).unwrap_or(&row.group.name).to_owned()
        };
        let mut members: Vec<Sum<'_>> = containers
            .iter()
            .map(|row| Sum { indent: "  ", name: containers_of(row), ..Sum::of(row) })
            .collect();
        members.sort_by(|a, b| b.growth.total_cmp(&a.growth));
        heads.extend(Sum::of_pod(full, &containers).map(|head| (head, members)));
    }
    heads.sort_by(|(a, _), (b, _)| {
        b.growth.total_cmp(&a.growth).then_with(|| b.written.total_cmp(&a.written))
    });
    heads.into_iter().flat_map(|(head, members)| std::iter::once(head).chain(members)).collect()
}
