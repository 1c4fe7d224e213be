//! Jobs fill a cache beyond its agreed size, and a consensus store on the same disk gets slow.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, Server, listeners, need_tracing};

use crate::machine::patience;
use crate::measure::used_below;
use crate::stage::Stage;
use crate::{Result, need_program, need_speed};

const JOBS: &str = "filltop-incident-jobs";
const STORE: &str = "filltop-incident-etcd";
const CAP_BYTES: u64 = 200_000_000;
/// One job after another: new content, stored under its hashes.
const BUILD: &str = "
cd \"$1\" && while [ ! -e over ]; do
    head -c 25000000 /dev/urandom > artefact
    \"$0\" backup --quiet --no-cache artefact && echo >> jobs
done";

fn restic(program: &Path, cache: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("RESTIC_REPOSITORY", cache).env("RESTIC_PASSWORD", "x").env("GOMAXPROCS", "1");
    command.stdout(Stdio::null());
    command
}

fn etcd(program: &Path, data: &Path, cgroup: &Cgroup) -> anyhow::Result<(Server, SocketAddr)> {
    let (clients, _) = listeners::listener()?;
    let (peers, _) = listeners::listener()?;
    let (address, peer) = (clients.local_addr()?, peers.local_addr()?);
    drop((clients, peers));
    let url = format!("http://{address}");
    let peer = format!("http://{peer}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(data).args(["--log-level", "error"]);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    let server = Server::spawn_in(cgroup, &command)?;
    let start = Instant::now();
    while put(address, 0).is_err() {
        ensure!(start.elapsed() < patience(30), "etcd does not answer");
        thread::sleep(Duration::from_millis(100));
    }
    Ok((server, address))
}

fn ask(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience(2))?;
    stream.set_read_timeout(Some(patience(20)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// Stores 1 kB under one of 1,000 keys.
fn put(address: SocketAddr, n: u64) -> Result {
    // Base64 of arbitrary data: four letters are three bytes.
    let body = format!(r#"{{"key":"k{:03}","value":"{}"}}"#, n % 1000, "abcd".repeat(341));
    ask(
        address,
        &format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
    .map(drop)
}

/// Upper bound of the bucket that holds 99 % of etcd's own fsyncs of its log, seconds, and their
/// number, since `before`.
fn own_p99(before: &[(f64, u64)], after: &[(f64, u64)]) -> Option<(f64, u64)> {
    let all = after.last()?.1 - before.last()?.1;
    let within = |n: usize| after[n].1 - before[n].1;
    let bucket = (0..after.len()).find(|n| within(*n) as f64 >= 0.99 * all as f64)?;
    Some((after[bucket].0, all))
}

/// Buckets of etcd's histogram of fsyncs: upper bound, count.
fn fsyncs(address: SocketAddr) -> anyhow::Result<Vec<(f64, u64)>> {
    let text =
        ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let buckets = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.replace("+Inf", "inf").parse().ok()?, count.trim().parse().ok()?))
    });
    Ok(buckets.collect())
}

#[test]
fn cache() -> Result {
    need_tracing!();
    need_speed!("restic has to encrypt 200 MB within a minute, next to an etcd under load");
    let restic_program = need_program!("restic");
    let etcd_program = need_program!("etcd");
    let (jobs, store) = (Cgroup::new(JOBS)?, Cgroup::new(STORE)?);
    let (hook, port) = listeners::listener()?;
    let group = format!("/{JOBS}");
    let words = [("group", group.as_str()), ("port", &port.to_string())];
    let mut started = None;
    let stage = Stage::new(include_str!("cache.toml"), &words, |mount, dir| {
        let cache = mount.join("cache");
        let init = restic(&restic_program, &cache).arg("init").status()?;
        ensure!(init.success(), "restic init: {init}");
        fs::create_dir(dir.join("job"))?;
        started = Some(etcd(&etcd_program, &mount.join("etcd"), &store)?);
        Ok(())
    })?;
    let bodies = listeners::http(hook);
    let (server, address) = started.context("etcd was started")?;
    let (is_over, puts) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let n = puts.fetch_add(1, Ordering::Relaxed);
                    let _ = put(address, n);
                }
            });
        }
        let told = (|| {
            let cache = stage.mount().join("cache");
            let job = stage.dir.path().join("job");
            let before = fsyncs(address)?;
            stage.begin("building");
            let mut build = restic(Path::new("/bin/sh"), &cache);
            build.args(["-c", BUILD]).arg(&restic_program).arg(&job);
            let _build = Server::spawn_in(&jobs, &build)?;
            let event = stage.must("cap")?;
            let size = used_below(&cache)?;
            stage.sample_other_tools("over the cap");
            let times = size as f64 / CAP_BYTES as f64;
            stage.truth(format!("the cache holds {size} B, {times:.2} of its cap, a moment later"));
            ensure!((1.0..1.3).contains(&times), "reported at {times:.2} of the cap");
            let said_s = stage.now_s();
            listeners::arrives(&bodies, "the webhook", &["cache-cap"], patience(10))?;
            stage.truth(format!("the webhook had it {:.1} s later", stage.now_s() - said_s));
            ensure!(stage.now_s() < patience(60).as_secs_f64(), "after {:.0} s", stage.now_s());
            let suggestion = event.suggestion.context("no suggested command")?;
            ensure!(suggestion.command.contains(JOBS), "{suggestion:?}");
            stage.must("fsync")?;
            let length = format!("{}s", stage.now_s().ceil());
            let after = fsyncs(address)?;
            let snapshot = stage.snapshot(&length)?;
            let row = stage.writer(&snapshot, server.pid())?;
            let told = row.fsync.context("no fsync of etcd")?;
            ensure!(snapshot.victims.iter().any(|row| row.pid == server.pid()), "no victim");
            let (own, count) = own_p99(&before, &after).context("no histogram")?;
            stage.truth(format!(
                "etcd's own histogram of {count} log fsyncs: 99 % under {:.0} ms; filltop: p99 {:.1} \
                 ms, longest {:.1} ms, of {}",
                own * 1e3,
                told.p99_ms,
                told.max_ms,
                told.count
            ));
            // etcd's buckets double, and filltop counts the database's fsyncs, too.
            ensure!(told.count >= count * 9 / 10, "{told:?}, but etcd has {count}");
            // filltop gives the percentile of the worst of many intervals: no less than that of
            // all.
            ensure!(told.p99_ms * 2.5 >= own * 1e3, "{told:?}, but {own} s by etcd");
            let done = fs::read_to_string(job.join("jobs"))?.lines().count();
            let rows: Vec<_> = snapshot
                .groups
                .iter()
                .filter(|row| row.group.name == group)
                .filter(|row| Some(row.volume.as_str()) == stage.mount().to_str())
                .collect();
            ensure!(rows.len() == 1 && rows[0].processes as usize >= done, "{done} jobs: {rows:?}");
            stage.truth(format!(
                "{done} jobs had ended; filltop has them as one writer of {} processes",
                rows[0].processes
            ));
            Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        told
    })?;
    stage.finish()
}
