//! RocksDB: the ups and downs of compaction, space freed by a program in time, and the end.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Server, need_tracing};
use tracer_model::alert::EventKind;

use crate::measure::used_below;
use crate::stage::Stage;
use crate::{Result, need_program, need_speed};

/// Root could use the reserve as well.
const NOBODY: u32 = 65_534;
/// Removes whole files from the database in `$1`, those with the lowest numbers first.
const HOOK: &str = r#"[ "$FILLTOP_RULE $FILLTOP_EVENT" = "make-room firing" ] || exit 0
for file in $(ls COLD/*.sst | head -n MOST); do
    number=$(basename "$file" .sst)
    LDB --db=COLD unsafe_remove_sst_file "$number" && echo "$file" >> DONE
done
"#;
/// Number of files of the cold database that the program may remove.
const MOST: usize = 24;

fn db_bench(program: &Path, db: &Path, work: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("--db={}", db.display())).args(work.split_whitespace());
    command.args("--value_size=1000 --compression_type=none --threads=1".split(' '));
    command.args("--target_file_size_base=4194304 --write_buffer_size=4194304".split(' '));
    command.arg("--max_bytes_for_level_base=16777216").uid(NOBODY);
    command
}

/// A counter of `--statistics`.
fn counter(report: &str, name: &str) -> anyhow::Result<u64> {
    let start = format!("rocksdb.{name} COUNT : ");
    let value = report.lines().find_map(|line| line.strip_prefix(&start));
    Ok(value.with_context(|| format!("db_bench does not print {name}"))?.trim().parse()?)
}

#[test]
fn engine() -> Result {
    need_tracing!();
    need_speed!("db_bench has to write 30 MB/s and to compact meanwhile, 1.2 GB in 41 s");
    let program = need_program!("db_bench");
    let ldb = need_program!("ldb");
    let stage = Stage::new(include_str!("engine.toml"), &[], |mount, dir| {
        let [cold, done] = [mount.join("cold"), dir.join("done")];
        let hook = HOOK
            .replace("COLD", &cold.to_string_lossy())
            .replace("DONE", &done.to_string_lossy())
            .replace("LDB", &ldb.to_string_lossy())
            .replace("MOST", &MOST.to_string());
        fs::write(dir.join("hook"), hook)?;
        for db in ["cold", "hot"] {
            fs::create_dir(mount.join(db))?;
            std::os::unix::fs::chown(mount.join(db), Some(NOBODY), None)?;
        }
        Ok(())
    })?;
    cold(&stage, &program)?;
    hot(&stage, &program, &ldb)?;
    stage.finish()
}

/// The first database, whose figures are compared with RocksDB's own.
fn cold(stage: &Stage, program: &Path) -> Result {
    let db = stage.mount().join("cold");
    stage.begin("cold");
    let work = "--benchmarks=overwrite,waitforcompaction --num=150000 --duration=8 --statistics \
                --benchmark_write_rate_limit=30000000";
    let child =
        db_bench(program, &db, work).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let pid = child.id();
    stage.must("time")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "db_bench: {}", output.status);
    let report = String::from_utf8(output.stdout)?;
    let own = counter(&report, "wal.bytes")?
        + counter(&report, "flush.write.bytes")?
        + counter(&report, "compact.write.bytes")?;
    rustix::fs::sync();
    stage.pump(Duration::from_secs(2));
    let snapshot = stage.snapshot(&format!("{}s", stage.now_s().ceil() + 1.0))?;
    let row = stage.writer(&snapshot, pid)?;
    let (allocated, freed) = row.allocated_bytes.zip(row.freed_bytes).context("no space")?;
    let left = used_below(&db)?;
    stage.truth(format!(
        "db_bench's own figures: {own} B written (log, flushes, compactions), {left} B left; \
         filltop: {} B written, {allocated} B allocated, {freed} B freed",
        row.written_bytes
    ));
    let near = |told: f64, truth: f64| (told / truth - 1.0).abs() <= 0.02;
    ensure!(near(row.written_bytes as f64, own as f64), "{} B, not {own} B", row.written_bytes);
    let net = allocated as f64 - freed as f64;
    ensure!(near(net, left as f64), "{net} B, but {left} B are left");
    Ok(())
}

/// The second one, to its end.
fn hot(stage: &Stage, program: &Path, ldb: &Path) -> Result {
    let [cold, done] = [stage.mount().join("cold"), stage.dir.path().join("done")];
    let words = stage.dir.path().join("words");
    stage.begin("hot");
    let work = "--benchmarks=fillrandom --num=2000000 --benchmark_write_rate_limit=20000000";
    let mut command = db_bench(program, &stage.mount().join("hot"), work);
    command.stdout(Stdio::null()).stderr(fs::File::create(&words)?);
    let mut server = Server::spawn(&mut command)?;
    let (mut series, mut room_at, mut refused_at) = (Vec::new(), None, None);
    while !stage.has("errors")? {
        let free = stage.free_bytes()?;
        if room_at.is_none() && stage.has("room")? {
            room_at = Some((Instant::now(), free));
            stage.sample_other_tools("the program has made room");
        }
        let ended = server.0.try_wait()?.is_some();
        if refused_at.is_none() && (ended || free < 1 << 20) {
            refused_at = Some(Instant::now());
        }
        series.push((Instant::now(), stage.volume_now()?.eta_s));
        ensure!(stage.now_s() < 150.0, "nothing is reported");
        stage.pump(Duration::from_millis(100));
    }
    stage.must("errors")?;
    let said = stage.said_at("errors")?;
    let after = refused_at.map_or(Duration::ZERO, |at| said.saturating_duration_since(at));
    stage.pump(Duration::from_secs(3));
    let state = match server.0.try_wait()? {
        // Debian builds RocksDB with its assertions enabled: after a failed write, the next one may
        // abort it before it prints anything.
        Some(_) => fs::read_to_string(&words)?.rsplit("ops").next().unwrap_or_default().to_owned(),
        None => "stalled: it cannot compact, and waits for space".to_owned(),
    };
    let signs = ["No space left", "GetStatusForPrevError", "stalled"];
    ensure!(signs.iter().any(|sign| state.contains(sign)), "another reason: {state}");
    stage.truth(format!(
        "db_bench: {}; filltop had reported it {:.1} s after the volume was full or the engine had ended",
        state.trim(),
        after.as_secs_f64()
    ));
    ensure!(after < Duration::from_secs(4), "{after:?} later");

    let room = stage.must("room")?;
    let removed = fs::read_to_string(&done).context("the program did not run")?.lines().count();
    let (at, free) = room_at.context("the shortage was reported")?;
    let continued_for = said.duration_since(at);
    stage.truth(format!(
        "with {free} B left the program removed {removed} whole files; the engine continued for {:.1} s",
        continued_for.as_secs_f64()
    ));
    ensure!(removed == MOST && room.avail_bytes.is_some_and(|avail| avail > 0), "{removed} files");
    ensure!(continued_for > Duration::from_secs(1), "the engine ended after {continued_for:?}");
    let check = Command::new(ldb)
        .arg(format!("--db={}", cold.display()))
        .arg("checkconsistency")
        .output()?;
    ensure!(
        check.status.success(),
        "the cold database: {}",
        String::from_utf8_lossy(&check.stdout)
    );
    peaks(stage, said, &series)?;
    let told = stage.alerts_since("cold")?;
    let moved = told.iter().filter(|event| event.rule == "time-to-full");
    let moves: Vec<_> = moved.map(|event| (event.event, event.severity)).collect();
    ensure!(!moves.iter().any(|(event, _)| *event == EventKind::Resolved), "{told:#?}");
    ensure!(moves.len() <= 3, "the alert flaps: {told:#?}");
    Ok(())
}

/// Since space was freed, the estimates are for the peaks, which reach the limit.
fn peaks(stage: &Stage, ended: Instant, series: &[(Instant, Option<f64>)]) -> Result {
    let last = series.iter().filter_map(|(at, eta)| {
        let truth = ended.saturating_duration_since(*at).as_secs_f64();
        (1.0..=10.0).contains(&truth).then_some((truth, *eta))
    });
    let last: Vec<(f64, Option<f64>)> = last.collect();
    let within = |factor: f64| {
        let right = last.iter().filter(|(truth, eta)| {
            let off = eta.map_or(f64::INFINITY, |eta| (eta + 1.0) / (truth + 1.0));
            (1.0 / factor..=factor).contains(&off)
        });
        right.count()
    };
    stage.truth(format!(
        "of the {} estimates in the last 10 s before the engine failed {} were right within a \
         factor of 2 (and a second), {} within 4",
        last.len(),
        within(2.0),
        within(4.0),
    ));
    // The last compaction may use up in seconds what would have lasted for many.
    ensure!(within(4.0) * 2 >= last.len(), "{last:?}");
    Ok(())
}
