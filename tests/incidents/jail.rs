//! mod_gzip: a server in a jail refills a volume each time it is cleaned up.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, Server, listeners, need_tracing};
use tracer_model::forecast::Refill;

use crate::machine::{fewer, patience};
use crate::stage::Stage;
use crate::{Result, need_program};

const GROUP: &str = "filltop-incident-jail";
const PAGE_BYTES: usize = 900_000;
/// Interval of each client's requests: 36 MB/s in all.
const PACE: Duration = Duration::from_millis(100);
const DELETED_BYTES: u64 = 300_000_000;
/// The server checks for the document root before its chroot as well: the path exists in both.
const DOCUMENTS: &str = "srv";

fn lay_out(jail: &Path) -> Result {
    for dir in [DOCUMENTS, "tmp/mod_gzip", "run", "dev"] {
        fs::create_dir_all(jail.join(dir))?;
    }
    let mut page = vec![0; PAGE_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut page)?;
    fs::write(jail.join(DOCUMENTS).join("page"), page)?;
    let owner = Command::new("chown").arg("-R").arg("www-data").arg(jail.join("tmp")).status()?;
    ensure!(owner.success(), "chown: {owner}");
    Ok(())
}

fn configuration(jail: &Path, dir: &Path, address: SocketAddr) -> String {
    let modules: String =
        ["mpm_prefork", "authz_core", "headers", "cache", "cache_disk", "deflate"]
            .map(|name| format!("LoadModule {name}_module modules/mod_{name}.so\n"))
            .concat();
    format!(
        "ServerRoot /usr/lib/apache2\nServerName localhost\n{modules}\
         LoadModule filter_module modules/mod_filter.so\n\
         Listen {address}\nUser www-data\nGroup www-data\nChrootDir {jail}\n\
         PidFile {dir}/httpd.pid\nErrorLog {dir}/httpd.log\nMutex fcntl:{dir} default\n\
         DocumentRoot /{DOCUMENTS}\n<Directory /{DOCUMENTS}>\nRequire all granted\n</Directory>\n\
         StartServers 4\nMinSpareServers 4\nMaxSpareServers 8\nMaxRequestWorkers 8\n\
         MaxConnectionsPerChild 50\nCacheRoot /tmp/mod_gzip\nCacheEnable disk /\n\
         CacheMaxFileSize 4000000\nSetOutputFilter DEFLATE\nDeflateCompressionLevel 1\n\
         Header set Cache-Control \"max-age=3600\"\n",
        jail = jail.display(),
        dir = dir.display(),
    )
}

/// Sends one request and reads the answer to its end.
fn get(address: SocketAddr, n: u64) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&address, patience(2))?;
    stream.set_read_timeout(Some(patience(5)))?;
    write!(
        stream,
        "GET /page?{n} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\
         Connection: close\r\n\r\n"
    )?;
    Ok(stream.read_to_end(&mut Vec::new())?)
}

/// Clients that send requests until the end; they also hang up on a server that is frozen.
fn clients(address: SocketAddr, is_over: &AtomicBool, answers: &AtomicU64) {
    std::thread::scope(|scope| {
        for client in 0..4u64 {
            scope.spawn(move || {
                let mut n = client << 32;
                while !is_over.load(Ordering::Relaxed) {
                    n += 1;
                    let next = Instant::now() + PACE;
                    if get(address, n).is_ok() {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
    });
}

/// Files of a tree with the bytes that they occupy, oldest first.
fn files(dir: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)?.flatten() {
            // The server removes files, too.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push((metadata.modified()?, entry.path(), metadata.blocks() * 512));
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path, bytes)| (path, bytes)).collect())
}

/// What the operator does. Returns the bytes that the deleted files occupied.
fn delete_oldest(dir: &Path) -> anyhow::Result<u64> {
    let mut freed = 0;
    for (path, bytes) in files(dir)? {
        if freed >= fewer(DELETED_BYTES) {
            break;
        }
        if fs::remove_file(path).is_ok() {
            freed += bytes;
        }
    }
    Ok(freed)
}

#[test]
fn jail() -> Result {
    need_tracing!();
    let apache = need_program!("apache2");
    let group = format!("/{GROUP}");
    let stage = Stage::new(include_str!("jail.toml"), &[("group", &group)], |mount, _| {
        lay_out(&mount.join("jail"))
    })?;
    let (jail, cgroup) = (stage.mount().join("jail"), Cgroup::new(GROUP)?);
    let (listener, _) = listeners::listener()?;
    let address = listener.local_addr()?;
    drop(listener);
    let config = stage.dir.path().join("httpd.conf");
    fs::write(&config, configuration(&jail, stage.dir.path(), address))?;
    let mut apache_in_jail = Command::new("unshare");
    apache_in_jail.arg("-m").arg(&apache).args(["-D", "FOREGROUND", "-f"]).arg(&config);
    let _server = Server::spawn_in(&cgroup, &apache_in_jail)?;
    stage
        .until("Apache answers", Duration::from_secs(20), || Ok(get(address, 0).is_ok()))
        .with_context(|| {
            fs::read_to_string(stage.dir.path().join("httpd.log")).unwrap_or_default()
        })?;

    let (is_over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| clients(address, &is_over, &answers));
        let told = fill_and_clean(&stage, &jail, &cgroup, &answers);
        is_over.store(true, Ordering::Relaxed);
        told
    })?;
    stage.finish()
}

fn fill_and_clean(stage: &Stage, jail: &Path, cgroup: &Cgroup, answers: &AtomicU64) -> Result {
    let spool = jail.join("tmp/mod_gzip");
    stage.begin("filling");
    let named = stage.must("named")?;
    ensure!(
        named.avail_bytes.is_some_and(|avail| avail > 0),
        "the culprit was named only when the volume was full: {named:?}"
    );
    stage.sample_other_tools("while it fills");
    let suggestion = named.suggestion.as_ref().context("no suggested command")?;
    ensure!(suggestion.command.contains(GROUP), "{suggestion:?}");
    let snapshot = stage.snapshot("5s")?;
    let mount = stage.mount().to_str();
    let first = snapshot.groups.iter().find(|row| Some(row.volume.as_str()) == mount);
    let first = first.context("no group")?;
    ensure!(first.group.root.as_deref() == jail.to_str(), "{first:?}");
    stage.must("errors")?;
    stage.must("full")?;
    let space = rustix::fs::statvfs(stage.mount())?;
    let reserve = (space.f_bfree - space.f_bavail) * space.f_frsize;
    let is_ext4 = stage.volume_now()?.fs_type == "ext4";
    ensure!(!is_ext4 || reserve > fewer(20 << 20), "root has no reserve: {reserve} B");
    stage.truth(format!(
        "full for www-data after {:.1} s and {} answers, with {:.1} MiB free for root",
        stage.now_s(),
        answers.load(Ordering::Relaxed),
        reserve as f64 / f64::from(1 << 20)
    ));
    stage.sample_other_tools("full");
    for turn in 1..=3 {
        stage.begin(&format!("deleted {turn}"));
        let freed = delete_oldest(&spool)?;
        let mut told = None;
        let took = stage.until("it is full again", Duration::from_secs(60), || {
            let volume = stage.volume_now()?;
            told = volume.refill;
            Ok(stage.free_bytes()? < 4 << 20 && volume.full)
        })?;
        stage.truth(format!(
            "clean-up {turn}: {freed} B were deleted, and taken again within {:.1} s",
            took.as_secs_f64()
        ));
        if turn == 1 {
            stage.must("in vain")?;
        }
        refilled(stage, freed, took, told)?;
    }
    let said = stage.stop(&[&format!("/{GROUP}"), "--how", "freeze", "--yes"])?;
    ensure!(said.contains("suspended in"), "{said}");
    stage.begin("stopped");
    let freed = delete_oldest(&spool)?;
    stage.must("free")?;
    stage.pump(Duration::from_secs(3));
    let free = stage.free_bytes()?;
    stage.truth(format!(
        "clean-up 4, the jail frozen: {freed} B were deleted, and {free} B are free 3 s later"
    ));
    ensure!(free > freed / 20 * 19, "{free} of {freed} B are left");
    stage.stop(&[&format!("/{GROUP}"), "--how", "kill", "--yes"])?;
    ensure!(cgroup.processes().is_empty(), "{:?}", cgroup.processes());
    Ok(())
}

/// The Snapshot is right about the clean-up: how much was freed, and how soon it was used up again.
///
/// `first` is the refill that it reported when the volume was full again; a file that the server
/// itself removes later may count as the next clean-up.
fn refilled(stage: &Stage, freed: u64, took: Duration, first: Option<Refill>) -> Result {
    let mut last = first;
    let told = stage.until("the refill is known", Duration::from_secs(10), || {
        let seen = last;
        last = stage.volume_now()?.refill;
        Ok([seen, last].into_iter().flatten().any(|refill| {
            // There is one sample per second: what is written between two of them is not seen as
            // freed.
            refill.freed_bytes.abs_diff(freed) < freed / 3
                && (refill.gone_in_s - took.as_secs_f64()).abs() < patience(5).as_secs_f64()
        }))
    });
    told.map(drop).with_context(|| format!("{last:?}"))
}
