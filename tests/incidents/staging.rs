//! An upload sink drains more slowly than it is filled, on the volume of a database.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, Postgres, Server, listeners, need_tracing};
use tracer_model::snapshot::{Directory, Snapshot};

use crate::machine::{fewer, patience};
use crate::measure::used_below;
use crate::stage::Stage;
use crate::{Result, need_program};

const GROUP: &str = "filltop-incident-sink";
const PART_BYTES: u64 = 64 << 20;
const CLIENT_BYTES_PER_S: u64 = 8_000_000;
/// Rate at which the sink uploads.
const DRAIN_BYTES_PER_S: u64 = 20 << 20;
const PIECE_BYTES: usize = 256 << 10;
/// Time for three parts of each client.
const QUIET_S: u64 = 24;

/// The size of a part on this machine, in whole pieces.
fn part_bytes() -> usize {
    let pieces = fewer(PART_BYTES) as usize / PIECE_BYTES;
    pieces * PIECE_BYTES
}

/// The number of clients, and whether they continue.
struct Clients {
    address: SocketAddr,
    wanted: AtomicUsize,
    is_over: AtomicBool,
    parts: AtomicUsize,
}

impl Clients {
    /// One client, which uploads part after part while its number is below the wanted number of
    /// clients.
    fn run(&self, number: usize) {
        let mut part = 0;
        // The clients start at different times.
        thread::sleep(Duration::from_millis(4000 * (number as u64 % 2) + 400 * number as u64));
        while !self.is_over.load(Ordering::Relaxed) {
            if number < self.wanted.load(Ordering::Relaxed)
                && self.put(&format!("/part-{number}-{part}")).is_ok()
            {
                self.parts.fetch_add(1, Ordering::Relaxed);
            }
            part += 1;
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn put(&self, path: &str) -> Result {
        let mut stream = TcpStream::connect(self.address)?;
        // Needed when the sink is frozen.
        stream.set_write_timeout(Some(patience(2)))?;
        stream.set_read_timeout(Some(patience(2)))?;
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            part_bytes()
        )?;
        let piece = vec![7; PIECE_BYTES];
        let start = Instant::now();
        for n in 1..=part_bytes() / PIECE_BYTES {
            ensure!(!self.is_over.load(Ordering::Relaxed));
            stream.write_all(&piece)?;
            let rate = fewer(CLIENT_BYTES_PER_S) as f64;
            let due = Duration::from_secs_f64((n * PIECE_BYTES) as f64 / rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        Ok(())
    }
}

/// Starts the sink; parts wait in `staging`, and end up in `remote`.
fn sink(
    rclone: &Path,
    cgroup: &Cgroup,
    address: SocketAddr,
    staging: &Path,
    remote: &Path,
) -> anyhow::Result<Server> {
    fs::create_dir(remote)?;
    let mut command = Command::new(rclone);
    command.args(["serve", "webdav", "--config", "/dev/null", "--addr", &address.to_string()]);
    command.args(["--vfs-cache-mode", "writes", "--vfs-write-back", "1s"]);
    command.args(["--vfs-cache-max-age", "1s", "--vfs-cache-poll-interval", "1s"]);
    let drain = format!("{}B", fewer(DRAIN_BYTES_PER_S));
    command.args(["--transfers", "4", "--bwlimit", &drain, "--cache-dir"]).arg(staging).arg(remote);
    let server = Server::spawn_in(cgroup, &command)?;
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(start.elapsed() < patience(20), "rclone does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(server)
}

#[test]
fn staging() -> Result {
    need_tracing!();
    let rclone = need_program!("rclone");
    let cgroup = Cgroup::new(GROUP)?;
    let (listener, _) = listeners::listener()?;
    let address = listener.local_addr()?;
    drop(listener);
    let clients = Clients {
        address,
        wanted: AtomicUsize::new(2),
        is_over: AtomicBool::new(false),
        parts: AtomicUsize::new(0),
    };
    let sockets = tempfile::tempdir()?;
    let mut server = None;
    let mut postgres = None;
    thread::scope(|scope| {
        let told = (|| {
            let group = format!("/{GROUP}");
            let words = [("group", group.as_str())];
            let stage = Stage::new(include_str!("staging.toml"), &words, |mount, dir| {
                let (staging, remote) = (mount.join("staging"), dir.join("remote"));
                server = Some(sink(&rclone, &cgroup, address, &staging, &remote)?);
                // The load is steady when filltop starts.
                for number in 0..10 {
                    let clients = &clients;
                    scope.spawn(move || clients.run(number));
                }
                postgres = Postgres::new(mount, sockets.path())?;
                if let Some(postgres) = &postgres {
                    // Its WAL would grow for minutes, which would be another incident.
                    postgres.query("alter system set max_wal_size = '64MB'")?;
                    postgres.query("alter system set min_wal_size = '32MB'")?;
                    postgres.query("select pg_reload_conf()")?;
                    postgres.query("checkpoint")?;
                }
                thread::sleep(Duration::from_secs(8));
                Ok(())
            })?;
            let Some(postgres) = &postgres else {
                println!("SKIP staging: PostgreSQL is not installed");
                return Ok(());
            };
            flooded(&stage, postgres, &clients)?;
            stage.finish()
        })();
        clients.is_over.store(true, Ordering::Relaxed);
        told
    })
}

fn flooded(stage: &Stage, postgres: &Postgres, clients: &Clients) -> Result {
    thread::scope(|scope| {
        let seconds = patience(62).as_secs().to_string();
        let bench =
            scope.spawn(move || postgres.bench(&["-n", "-T", &seconds, "-c", "2", "-R", "100"]));
        stage.begin("two clients");
        let staged = || used_below(&stage.mount().join("staging"));
        let before = staged()?;
        stage.pump(Duration::from_secs(QUIET_S));
        let net = staged()? as f64 - before as f64;
        let early = stage.alerts_since("two clients")?;
        let drains = early.iter().filter(|event| event.rule == "staging-drain");
        ensure!(drains.count() == 0, "at two clients: {early:#?}");
        let snapshot = stage.snapshot(&format!("{QUIET_S}s"))?;
        let dir = directory(&snapshot, &stage.mount().join("staging"))?;
        let flow = dir.inflow_bytes_per_s * snapshot.interval_s;
        stage.truth(format!(
            "two clients: the directory grew by {:.1} MB in {QUIET_S} s; filltop: {:.2} of the {:.1} \
             MB that came in went out again",
            net / 1e6,
            dir.drain.unwrap_or_default(),
            flow / 1e6,
        ));
        // The two windows may begin in different seconds, or with a part in the middle.
        let told = flow * (1.0 - dir.drain.unwrap_or_default());
        ensure!((told - net).abs() < 1.5 * part_bytes() as f64, "{told} B, in truth {net} B");

        stage.begin("ten clients");
        clients.wanted.store(10, Ordering::Relaxed);
        let start = Instant::now();
        let mut series = Vec::new();
        let mut victims = Vec::new();
        stage.must("time")?;
        stage.sample_other_tools("ten clients");
        // Until it is stopped: collect the free space, the estimates, and the processes that had to
        // wait.
        while !stage.has("frozen")? {
            ensure!(start.elapsed() < patience(130), "the guard does nothing");
            let snapshot = stage.snapshot("1s")?;
            victims.extend(snapshot.victims.iter().map(|row| row.comm.clone()));
            if let Some(volume) = row(&snapshot, stage.mount()) {
                series.push((Instant::now(), volume.avail_bytes, volume.eta_s));
            }
            stage.pump(Duration::from_millis(500));
        }
        stage.must("drain")?;
        stage.must("guard")?;
        let frozen = stage.must("frozen")?;
        let free = stage.free_bytes()?;
        ensure!(frozen.avail_bytes.is_some_and(|avail| avail > 0) && free > 0, "{frozen:?}");
        ensure!(
            victims.iter().any(|comm| comm == "postgres"),
            "PostgreSQL is not a victim: {victims:?}"
        );
        estimates(stage, &series)?;
        stage.truth(format!(
            "{} parts of {} MiB were taken; the sink was stopped with {free} B left",
            clients.parts.load(Ordering::Relaxed),
            part_bytes() >> 20
        ));
        let said = bench.join().map_err(|_| anyhow::anyhow!("pgbench panicked"))??;
        let failed = said.lines().find(|line| line.contains("failed")).context("no figures")?;
        ensure!(failed.contains(": 0 "), "{said}");
        ensure!(stage.free_bytes()? > free / 2, "it was not stopped");
        intact(stage, postgres, &said)
    })
}

fn row<'s>(snapshot: &'s Snapshot, mount: &Path) -> Option<&'s tracer_model::snapshot::Volume> {
    snapshot.volumes.iter().find(|volume| Some(volume.mount_point.as_str()) == mount.to_str())
}

/// The row of a directory.
fn directory<'s>(snapshot: &'s Snapshot, path: &Path) -> anyhow::Result<&'s Directory> {
    let found = snapshot.dirs.iter().find(|dir| Some(dir.path.as_str()) == path.to_str());
    found.with_context(|| format!("no row for {}", path.display()))
}

/// From 30 s before the volume would have been full, the estimates are right within a factor of 2.
fn estimates(stage: &Stage, series: &[(Instant, u64, Option<f64>)]) -> Result {
    let (last, left, _) = *series.last().context("no sample")?;
    // Measured over three parts of each client: parts leave as a whole, so that a shorter time
    // includes one of them more or less.
    let from = last - Duration::from_secs(QUIET_S);
    let (first, had, _) = *series.iter().find(|(at, ..)| *at >= from).context("no sample")?;
    let rate = had.saturating_sub(left) as f64 / last.duration_since(first).as_secs_f64();
    let rest_s = left as f64 / rate;
    let mut factors: Vec<f64> = Vec::new();
    for (at, avail, eta) in series {
        let truth = last.duration_since(*at).as_secs_f64() + rest_s;
        if truth <= 30.0 {
            let eta = eta.with_context(|| format!("no estimate with {avail} B left"))?;
            factors.push((eta / truth).max(truth / eta));
        }
    }
    let right = factors.iter().filter(|factor| **factor <= 2.0).count();
    let worst = factors.iter().copied().fold(1.0, f64::max);
    stage.truth(format!(
        "at {:.1} MB/s it would have been full {rest_s:.1} s after the last sample; of the {} \
         estimates of the last 30 s {right} were right within a factor of 2, the worst was off by \
         {worst:.2}",
        rate / 1e6,
        factors.len(),
    ));
    // A part that leaves as a whole lowers the estimate for a sample or two.
    ensure!(
        factors.len() >= 5 && right * 10 >= factors.len() * 9,
        "{right} of {} right: {series:?}",
        factors.len()
    );
    Ok(())
}

/// The sums of pgbench agree, and every index and table is intact.
fn intact(stage: &Stage, postgres: &Postgres, bench: &str) -> Result {
    let sums = postgres.query(
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from \
         pgbench_history) and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) \
         from pgbench_tellers)",
    )?;
    ensure!(sums.trim() == "t", "the books do not balance: {sums}");
    postgres.query("create extension if not exists amcheck")?;
    let broken = postgres.query(
        "select count(*) from pg_class c join pg_am a on a.oid = c.relam, lateral \
         verify_heapam(c.oid) where a.amname = 'heap' and c.relkind = 'r'",
    )?;
    ensure!(broken.trim() == "0", "{broken} places are corrupt");
    let done = bench.lines().find(|line| line.contains("actually processed")).unwrap_or_default();
    stage.truth(format!(
        "PostgreSQL: {done}, none failed; afterwards its sums balance and amcheck finds nothing"
    ));
    Ok(())
}
