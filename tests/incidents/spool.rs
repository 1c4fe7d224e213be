//! Deleted files: a server's spool, and one huge file of a script.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Server, listeners, need_tracing};
use tracer_model::snapshot::{Held, HeldKind};
use tracer_model::units::Units;

use crate::stage::Stage;
use crate::{Result, need_program};

const UPLOADS: usize = 200;
const ROUNDS: usize = 8;
const ROUND_BYTES: usize = 128 << 10;
const GIANT_BYTES: u64 = 300 << 20;
const BLOCK: u64 = 4096;
/// Writes the huge file at 40 MiB/s, and then keeps it open.
const GIANT: &str = "
import sys, tempfile, time
with tempfile.TemporaryFile(dir=sys.argv[1], buffering=0) as file:
    for _ in range(300):
        file.write(bytes(1 << 20))
        time.sleep(0.025)
    time.sleep(600)
";

fn configuration(mount: &Path, dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    let elsewhere: String = ["proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
        .concat();
    format!(
        "daemon off;\nuser www-data;\nworker_processes 1;\npid {dir}/nginx.pid;\n\
         error_log {dir}/nginx.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nclient_max_body_size 0;\nclient_body_timeout 600s;\n\
         client_body_temp_path {}/spool;\n{elsewhere}\
         server {{ listen {address}; location / {{ proxy_pass http://127.0.0.1:9; }} }}\n}}\n",
        mount.display()
    )
}

/// Uploads that are not finished yet; each round sends a part of each.
fn uploads(address: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for n in 0..UPLOADS {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "POST /upload/{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"
        )?;
        streams.push(stream);
    }
    let piece = vec![7; ROUND_BYTES];
    for _ in 0..ROUNDS {
        for stream in &mut streams {
            stream.write_all(&piece)?;
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(streams)
}

/// The volume's deleted files per process, from its descriptors: their number, and the bytes that
/// they occupy.
fn truth(mount: &Path, pids: &[u32]) -> anyhow::Result<BTreeMap<u32, (usize, u64)>> {
    held_by(mount, pids, |metadata| metadata.blocks() * 512)
}

fn held_by(
    mount: &Path,
    pids: &[u32],
    bytes_of: fn(&fs::Metadata) -> u64,
) -> anyhow::Result<BTreeMap<u32, (usize, u64)>> {
    let mut found = BTreeMap::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let target = fs::read_link(entry.path())?;
            if metadata.nlink() == 0 && metadata.is_file() && target.starts_with(mount) {
                let (files, bytes) = found.entry(*pid).or_insert((0, 0));
                *files += 1;
                *bytes += bytes_of(&metadata);
            }
        }
    }
    Ok(found)
}

/// Bytes of this volume's deleted files as lsof prints them, its sizes rounded up to blocks.
fn lsof(mount: &Path) -> anyhow::Result<Option<u64>> {
    let Some(program) = crate::machine::tool("lsof") else { return Ok(None) };
    let output =
        Command::new(program).args(["-nP", "-F", "pfs", "-a", "+L1"]).arg(mount).output()?;
    let text = String::from_utf8(output.stdout)?;
    let sizes = text.lines().filter_map(|line| line.strip_prefix('s')?.parse::<u64>().ok());
    Ok(Some(sizes.map(|size| size.next_multiple_of(BLOCK)).sum()))
}

fn du(mount: &Path) -> anyhow::Result<u64> {
    let output = Command::new("du").args(["-s", "-x", "-B1"]).arg(mount).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("du prints nothing")?.parse()?)
}

fn used(mount: &Path) -> anyhow::Result<u64> {
    let space = rustix::fs::statvfs(mount)?;
    Ok((space.f_blocks - space.f_bfree) * space.f_frsize)
}

/// The only child of a process.
fn child_of(pid: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path)?;
    Ok(text.split_whitespace().next().context("nginx has no worker")?.parse()?)
}

#[test]
fn spool() -> Result {
    need_tracing!();
    let nginx = need_program!("nginx");
    let python = need_program!("python3");
    let stage = Stage::new(include_str!("spool.toml"), &[], |mount, _| {
        Ok(fs::write(mount.join("archive"), vec![7; 50 << 20])?)
    })?;
    let mount = stage.mount();
    let (listener, _) = listeners::listener()?;
    let address = listener.local_addr()?;
    drop(listener);
    let config = stage.dir.path().join("nginx.conf");
    fs::write(&config, configuration(mount, stage.dir.path(), address))?;
    let server =
        Server::spawn(Command::new(nginx).arg("-c").arg(&config).arg("-p").arg(stage.dir.path()))?;
    stage.until("nginx answers", Duration::from_secs(20), || {
        Ok(TcpStream::connect(address).is_ok())
    })?;
    let worker = child_of(server.pid())?;
    rustix::fs::sync();
    let gap_before = used(mount)? - du(mount)?;

    stage.begin("spooling");
    let streams = thread::spawn(move || uploads(address));
    let place = mount.to_str().context("UTF-8")?;
    let giant = Server::start(&python, &["-c", GIANT, place])?;
    let event = stage.must("held")?;
    let streams = streams.join().map_err(|_| anyhow::anyhow!("the clients panicked"))??;
    let whole = || Ok(truth(mount, &[giant.pid()])?.values().any(|held| held.1 >= GIANT_BYTES));
    stage.until("the huge file is complete", Duration::from_secs(60), whole)?;
    rustix::fs::sync();
    let suggestion = event.suggestion.context("no suggested command")?;
    stage.truth(format!(
        "held, by descriptors: {}",
        said_of(&truth(mount, &[worker, giant.pid()])?)
    ));
    stage.sample_other_tools("all is written, nothing moves");
    let held = to_the_block(&stage, &[worker, giant.pid()])?;
    let gap = used(mount)? - du(mount)? - gap_before;
    let sum: u64 = held.iter().map(|row| row.bytes).sum();
    let explained = sum as f64 / gap as f64;
    stage.truth(format!(
        "df and du differ by {gap} B more than before: filltop's held files are {:.3} % of that",
        explained * 100.0
    ));
    ensure!((0.99..=1.01).contains(&explained), "{sum} B of {gap} B");

    // Restarting the largest holder frees everything that only it holds.
    let largest = held.first().context("nothing is held")?;
    ensure!(largest.pid == giant.pid() && largest.kind == HeldKind::Anonymous, "{largest:?}");
    ensure!(suggestion.how == "term", "{suggestion:?}");
    let target = suggestion.target.parse::<u32>()?;
    ensure!([giant.pid(), worker].contains(&target), "{suggestion:?}");
    let plan = stage.stop(&[&giant.pid().to_string(), "--how", "term", "--dry-run"])?;
    ensure!(
        plan.contains(&Units::Iec.bytes(largest.bytes)),
        "the plan does not show what it frees: {plan}"
    );

    let free = stage.free_bytes()?;
    let descriptor = largest.fd.context("no descriptor")?.to_string();
    stage.begin("truncated");
    let pid = giant.pid().to_string();
    stage.stop(&[&pid, "--how", "truncate", "--file", &descriptor, "--yes"])?;
    stage.must("given back")?;
    // btrfs frees the space with its next commit.
    stage.until("the space is back", Duration::from_secs(40), || {
        Ok(stage.free_bytes()?.saturating_sub(free) >= GIANT_BYTES * 99 / 100)
    })?;
    let given_back = stage.free_bytes()? - free;
    let running = |pid: u32| Path::new(&format!("/proc/{pid}/stat")).exists();
    ensure!(running(giant.pid()) && running(worker), "a process was killed");
    stage.truth(format!("{given_back} B more are free, and both processes run on"));
    drop(streams);
    stage.finish()
}

fn said_of(truth: &BTreeMap<u32, (usize, u64)>) -> String {
    let words =
        truth.iter().map(|(pid, (files, bytes))| format!("pid {pid} {files} files, {bytes} B"));
    words.collect::<Vec<_>>().join("; ")
}

/// `filltop held` equals what the descriptors and lsof show, process by process; returns its rows.
fn to_the_block(stage: &Stage, pids: &[u32]) -> anyhow::Result<Vec<Held>> {
    let mount = stage.mount();
    let truth = truth(mount, pids)?;
    stage.note("filltop held", &of(mount, &stage.ask(&["held", "--standalone"])?));
    let rows: Vec<Held> = serde_json::from_str(&stage.ask(&["held", "--json", "--standalone"])?)?;
    let mount_text = mount.to_str().context("UTF-8")?;
    let rows: Vec<Held> = rows.into_iter().filter(|row| row.volume == mount_text).collect();
    let mut told: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
    for row in &rows {
        let (files, bytes) = told.entry(row.pid).or_default();
        *files += 1;
        *bytes += row.bytes;
    }
    ensure!(told == truth, "{told:?}, but in truth {truth:?}");
    ensure!(truth.values().map(|held| held.0).sum::<usize>() == UPLOADS + 1, "{truth:?}");
    let sum: u64 = truth.values().map(|held| held.1).sum();
    if let Some(lsof) = lsof(mount)? {
        let sizes = held_by(mount, pids, |metadata| metadata.len().next_multiple_of(BLOCK))?;
        let sizes: u64 = sizes.values().map(|held| held.1).sum();
        // xfs keeps preallocated space behind the end of an open file, which lsof does not know.
        ensure!(lsof == sizes && sizes <= sum, "lsof +L1 has {lsof} B, filltop {sum} B");
        stage.truth(format!("lsof +L1 has {lsof} B in blocks, filltop held {sum} B"));
    }
    // The service scans all descriptors every 10 s.
    stage.until("the Snapshot has the same", Duration::from_secs(20), || {
        let snapshot = stage.snapshot("1s")?;
        let volume = snapshot.volumes.iter().find(|volume| volume.mount_point == mount_text);
        Ok(volume.is_some_and(|volume| volume.held_bytes == Some(sum)))
    })?;
    Ok(rows)
}

/// The heading and the largest rows of this volume: other processes of the machine have held files
/// too.
fn of(mount: &Path, text: &str) -> String {
    let mount = mount.to_string_lossy();
    let heading = text.lines().filter(|line| line.contains("HELD"));
    let rows = text.lines().filter(|line| line.contains(&*mount)).take(3);
    heading.chain(rows).collect::<Vec<_>>().join("\n")
}
