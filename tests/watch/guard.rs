//! The mod_gzip incident end to end: a jail fills the volume that a database lives on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{
    Cgroup, Postgres, Server, TestVolume, Watch, need_tracing, wait_until, workload,
};
use rustix::process::Signal;
use tracer_model::alert::{Event, EventKind};

use super::Result;

const PATIENCE: Duration = Duration::from_secs(30);

/// A volume with a database on it (recognized by its name and by the files it has open, as the
/// guard does), and a forking server in a cgroup that fills it at some 40 MB/s.
struct Incident {
    volume: TestVolume,
    jail: Cgroup,
    run: tempfile::TempDir,
    wal: PathBuf,
    database: Server,
    server: Server,
    watch: Watch,
}

impl Incident {
    fn new(name: &str, guard: &str) -> anyhow::Result<Self> {
        let volume = TestVolume::new("ext4", 1500)?;
        let jail = Cgroup::new(name)?;
        let run = tempfile::tempdir()?;
        let mount = volume.path().to_str().context("UTF-8")?;
        let config = format!(
            "stdout = true\n[guard]\nenabled = true\nvolumes = [{mount:?}]\nwithin = \"1m\"\n\
             for = \"2s\"\nhold = \"1h\"\n{guard}"
        );
        let watch = Watch::start_with(&config, |command| {
            command.env("FILLTOP_RUN_DIR", run.path());
        })?;
        let wal = volume.path().join("pg_wal");
        fs::create_dir(&wal)?;
        let wal = wal.join("000000010000000000000001");
        let postgres = run.path().join("postgres");
        fs::copy(workload().get_program(), &postgres)?;
        let path = wal.to_str().context("UTF-8")?;
        let database =
            Server::start(&postgres, &["pace", path, "--rate", "500000", "--block", "8192"])?;
        let spool = volume.path().join("mod_gzip");
        fs::create_dir(&spool)?;
        let server = Server::start(
            Path::new(workload().get_program()),
            &[
                "fork-server",
                spool.to_str().context("UTF-8")?,
                "--workers",
                "1000000",
                "--bytes",
                "262144",
                "--life-ms",
                "50",
            ],
        )?;
        jail.take(&server.0)?;
        Ok(Self { volume, jail, run, wal, database, server, watch })
    }

    fn action(&self, is_it: impl Fn(&Event) -> bool) -> anyhow::Result<Event> {
        let wanted = |event: &Event| event.event == EventKind::Action && is_it(event);
        Ok(self.watch.wait(PATIENCE, wanted)?.1)
    }

    fn spooled(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(self.volume.path().join("mod_gzip"))? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum)
    }
}

#[test]
fn in_a_dry_run_the_jail_is_named_and_not_frozen() -> Result {
    need_tracing!();
    let incident = Incident::new("filltop-jail-dry", "")?;
    let event = incident.action(|event| event.summary.starts_with("would freeze"))?;
    println!("{}", event.summary);
    ensure!(event.summary.contains("/filltop-jail-dry"), "{}", event.summary);
    ensure!(event.summary.contains("because protected (postgres)"), "{}", event.summary);
    let suggestion = event.suggestion.as_ref().context("no command")?;
    ensure!(suggestion.command == "filltop stop /filltop-jail-dry --how freeze", "{suggestion:?}");
    let event = incident.action(|event| event.summary.contains("dry run: nothing was done"))?;
    ensure!(event.summary.contains("cgroup.freeze"), "{}", event.summary);
    let before = incident.spooled()?;
    wait_until("the jail keeps writing", PATIENCE, || Ok(incident.spooled()? > before))?;
    Ok(())
}

#[test]
fn when_armed_it_freezes_the_jail_before_the_disk_is_full_and_the_database_continues() -> Result {
    need_tracing!();
    let mut incident = Incident::new("filltop-jail", "dry_run = false\n")?;
    let start = Instant::now();
    let event = incident.action(|event| event.summary.contains("suspended in"))?;
    println!("after {:.1} s: {}", start.elapsed().as_secs_f64(), event.summary);
    let (before, wal) = (incident.spooled()?, fs::metadata(&incident.wal)?.len());
    // Independent of how busy this machine is: the jail must not move meanwhile.
    let frozen = Instant::now();
    while fs::metadata(&incident.wal)?.len() <= wal + 100_000
        || frozen.elapsed() < Duration::from_secs(2)
    {
        ensure!(frozen.elapsed() < PATIENCE, "the database does not continue");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(incident.spooled()? == before, "the jail is not frozen");
    ensure!(incident.database.0.try_wait()?.is_none(), "the database has ended");
    let space = rustix::fs::statvfs(incident.volume.path())?;
    let share = space.f_bavail as f64 / space.f_blocks as f64;
    println!("{:.0} % is still free", share * 100.0);
    ensure!(share > 0.05, "the disk is full: {share}");
    // kill -9 of the watch that is the supervisor of the freeze.
    let records = fs::read_dir(incident.run.path().join("actions"))?.count();
    ensure!(records == 1, "{records} records");
    incident.watch.signal(Signal::KILL)?;
    let start = Instant::now();
    while incident.spooled()? == before {
        ensure!(start.elapsed() < Duration::from_secs(1), "it stays frozen");
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("resumed {:.0} ms after kill -9", start.elapsed().as_secs_f64() * 1e3);
    ensure!(incident.server.0.try_wait()?.is_none() && !incident.jail.processes().is_empty());
    Ok(())
}

#[test]
fn an_unattended_freeze_escalates_to_kill() -> Result {
    need_tracing!();
    let ladder =
        "dry_run = false\nladder = [\"freeze\", \"kill\"]\nwait = \"3s\"\ncool_down = \"1s\"\n";
    let mut incident = Incident::new("filltop-jail-kill", ladder)?;
    incident.action(|event| event.summary.contains("suspended in"))?;
    let event = incident.action(|event| event.summary.starts_with("kill "))?;
    ensure!(event.summary.contains("no operator has intervened"), "{}", event.summary);
    incident.action(|event| event.summary.contains(" signalled"))?;
    ensure!(incident.server.0.wait()?.code().is_none(), "it was not killed");
    ensure!(incident.jail.processes().is_empty(), "{:?}", incident.jail.processes());
    ensure!(incident.database.0.try_wait()?.is_none(), "the database has ended");
    Ok(())
}

/// The same with a real PostgreSQL, whose clients notice nothing.
#[test]
fn postgresql_on_the_same_volume_continues() -> Result {
    need_tracing!();
    let incident = Incident::new("filltop-jail-pg", "dry_run = false\n")?;
    let socket = tempfile::tempdir()?;
    let Some(postgres) = Postgres::new(incident.volume.path(), socket.path())? else {
        println!("SKIP postgresql_on_the_same_volume_continues: PostgreSQL is not installed");
        return Ok(());
    };
    let transactions = std::thread::scope(|scope| {
        let bench = scope.spawn(|| postgres.bench(&["-T", "25", "-c", "2"]));
        let event = incident.action(|event| event.summary.contains("suspended in"))?;
        println!("{}", event.summary);
        let before = incident.spooled()?;
        let said = bench.join().map_err(|_| anyhow::anyhow!("pgbench panicked"))??;
        ensure!(incident.spooled()? == before, "the jail is not frozen");
        Ok(said)
    })?;
    let failed = transactions.lines().find(|line| line.contains("failed")).context("no figures")?;
    ensure!(failed.contains(": 0 "), "{transactions}");
    let done = transactions.lines().find(|line| line.contains("actually processed"));
    println!("PostgreSQL: {}", done.unwrap_or_default());
    Ok(())
}
