//! A recorded or generated history with its truth: when the fill could first be known, and when the
//! volume was full.

use std::path::Path;

use anyhow::{Context, Result};

/// One row of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Time on the clock, seconds. A clock that is stepped makes this differ from [`Row::truth`].
    pub time: f64,
    /// Seconds that really passed.
    pub truth: f64,
    /// Size of the volume, bytes.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that ordinary users can still take.
    pub avail: u64,
}

/// One fill of a trace, in seconds of [`Row::truth`].
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// When the writing that filled the volume began.
    pub onset: f64,
    /// First row with nothing available.
    pub full: f64,
}

/// A trace with its ground truth.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Rows in the order they were seen.
    pub rows: Vec<Row>,
    /// Every fill, in order.
    pub fills: Vec<Fill>,
    /// Until this time, a warning was right although the volume did not fill: it was enlarged, or
    /// the machine was suspended.
    pub spared: f64,
}

impl Trace {
    /// Seconds until the volume is next full, seen from `truth`; infinite when it never is.
    #[must_use]
    pub fn remaining(&self, truth: f64) -> f64 {
        self.fills.iter().find(|f| f.full >= truth).map_or(f64::INFINITY, |f| f.full - truth)
    }
}

/// Which half of the kinds of history a trace belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Half {
    /// The forecaster was tuned on it.
    Tuning,
    /// It was scored only for the report.
    Reporting,
}

/// A recorded trace.
pub struct Recording {
    /// Name of its file in `tests/forecast/traces`, without `.csv`.
    pub name: &'static str,
    /// The second at which the writing began that filled the volume, if it was filled.
    pub onset: f64,
    /// Its half, by kind of software.
    pub half: Half,
}

const fn tuning(name: &'static str, onset: f64) -> Recording {
    Recording { name, onset, half: Half::Tuning }
}

const fn reporting(name: &'static str, onset: f64) -> Recording {
    Recording { name, onset, half: Half::Reporting }
}

/// The recorded traces.
///
/// The first four: PostgreSQL 15 (`pgbench`, its WAL held by an unused replication slot in the second)
/// and RocksDB's `db_bench` on ext4 volumes of 0.6 to 1 GB, statvfs twice a second.
/// `postgres-wal-held` ends with 3.6 MiB available, where no WAL segment of 16 MiB fits any more and
/// the server has stopped. The others were recorded by `tests/forecast/record.sh`, which says what
/// ran.
pub const RECORDED: &[Recording] = &[
    tuning("postgres-pgbench", 6.0),
    tuning("postgres-wal-held", 32.0),
    tuning("rocksdb-fillrandom", 5.0),
    tuning("rocksdb-overwrite", 5.0),
    tuning("rocksdb-wal", 26.0),
    tuning("dpkg-reinstall", 0.0),
    tuning("ffmpeg", 45.0),
    tuning("tar-schedule", 40.0),
    tuning("logrotate", 0.0),
    tuning("borg", 0.0),
    tuning("rocksdb-universal", 25.0),
    reporting("restic", 5.0),
    reporting("git-gc", 20.0),
    reporting("debootstrap", 41.0),
    reporting("npm", 30.0),
    reporting("ccache", 0.0),
    reporting("apt-index", 0.0),
];

/// Reads a recorded trace; `onset` is when its load was started.
///
/// Full is the first row with nothing available. If there is none, it is the first row from which less
/// than 1 % of the size is available until the end, so that a database that gives up just before the
/// last block counts as having filled its volume.
pub fn recorded(path: &Path, onset: f64) -> Result<Trace> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate().skip(1) {
        let mut cells = line.split(',');
        let mut next = || cells.next().with_context(|| format!("{}:{}", path.display(), n + 1));
        let time: f64 = next()?.parse()?;
        let (total, used, avail) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
        rows.push(Row { time, truth: time, total, used, avail });
    }
    let open = rows.iter().rposition(|r| (r.avail as f64) >= 0.01 * r.total as f64);
    let full = rows.iter().find(|r| r.avail == 0).or(rows.get(open.map_or(0, |i| i + 1)));
    let fills = full.map(|r| Fill { onset, full: r.truth }).into_iter().collect();
    Ok(Trace { rows, fills, spared: 0.0 })
}
