//! `filltop watch` and `filltop check` as users see them: real volumes that fill, real sinks that
//! fail.

mod blind;
mod check;
mod guard;
mod sinks;
mod verdict;

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, Watch, command, fill, is, need_tracing, write_at};
use rustix::process::Signal;
use tracer_model::alert::{EventKind, Severity};

type Result = anyhow::Result<()>;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_runaway_is_critical_and_named_within_five_seconds() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 3072)?;
    let watch = Watch::start("")?;
    // Writes that are seconds old by the time the runaway begins, and a few samples at rest.
    thread::sleep(6 * SECOND);
    let start = std::time::Instant::now();
    let writer = write_at(&volume.path().join("runaway"), 100e6, 8 * SECOND)?;
    let mount = volume.path().to_str().map(str::to_owned);
    let (at, event) = watch
        .wait(10 * SECOND, |event| event.volume == mount && event.severity == Severity::Critical)?;
    let took = at.duration_since(start);
    println!("first critical event after {:.2} s: {}", took.as_secs_f64(), event.summary);
    ensure!(took <= 5 * SECOND, "after {took:?}");
    ensure!(event.event == EventKind::Firing && event.rule == "time-to-full", "{event:?}");
    let first = event.culprits.first().context("no culprit")?;
    ensure!(first.pid == std::process::id(), "{first:?}");
    ensure!(event.culprits.len() == 1, "{:?}", event.culprits);
    ensure!((50e6..200e6).contains(&first.growth_bytes_per_s), "{first:?}");
    let eta = event.eta_s.context("no estimate")?;
    ensure!((10.0..80.0).contains(&eta), "{eta} s instead of some 28 s");
    ensure!(event.summary.contains(&format!("pid {}", first.pid)), "{}", event.summary);
    let suggestion = event.suggestion.context("no suggestion")?;
    ensure!(suggestion.command == format!("filltop stop {} --how freeze", first.pid));
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    Ok(())
}

#[test]
fn full_fires_repeats_and_resolves_when_there_is_space() -> Result {
    need_tracing!();
    let config = "[[rule]]\nname = \"full\"\nclear_after = \"1s\"\nrepeat = \"2s\"\n\
                  [[rule]]\nname = \"time-to-full\"\nclear_after = \"1s\"";
    let volume = TestVolume::new("ext4", 100)?;
    let watch = Watch::start(config)?;
    thread::sleep(2 * SECOND);
    let path = volume.path().join("big");
    fill(&path)?;
    let (_, event) = watch.wait(10 * SECOND, is(volume.path(), "full", EventKind::Firing))?;
    ensure!(event.summary.contains("is FULL") && event.avail_bytes == Some(0), "{event:?}");
    ensure!(event.culprits.first().is_some_and(|c| c.pid == std::process::id()), "{event:?}");
    let mount = volume.path().to_str().map(str::to_owned);
    let later = watch.during(6 * SECOND);
    let here: Vec<_> = later.iter().filter(|event| event.volume == mount).collect();
    ensure!(here.iter().all(|event| event.event != EventKind::Resolved), "{here:#?}");
    let repeats = here.iter().filter(|e| e.rule == "full" && e.event == EventKind::Repeat).count();
    ensure!((2..=3).contains(&repeats), "{repeats} in 6 s: {here:#?}");
    watch.signal(Signal::USR1)?;
    thread::sleep(SECOND);
    watch.during(Duration::ZERO);
    let quiet = watch.during(4 * SECOND);
    ensure!(!quiet.iter().any(|e| e.volume == mount && e.rule == "full"), "{quiet:#?}");
    fs::remove_file(&path)?;
    watch.wait(15 * SECOND, is(volume.path(), "full", EventKind::Resolved))?;
    Ok(())
}

#[test]
fn an_invalid_new_configuration_is_reported_and_the_old_one_kept() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let rule = |name: &str, above: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nwhen = \"used_bytes\"\nvolumes = [\"{mount}\"]\nwarning = \"{above}\"\n"
        )
    };
    let watch = Watch::start(&rule("old", "10MiB"))?;
    fs::write(watch.config(), "[[rule]]\nname = \"new\"\nwehn = \"full\"\n")?;
    watch.signal(Signal::HUP)?;
    let (_, event) = watch.wait(5 * SECOND, |event| event.rule == "config")?;
    ensure!(event.event == EventKind::Health && event.summary.contains(":3:1: "), "{event:?}");
    ensure!(event.summary.contains("did you mean `when`?"), "{}", event.summary);
    fs::write(volume.path().join("file"), vec![7; 20 << 20])?;
    watch.wait(5 * SECOND, is(volume.path(), "old", EventKind::Firing))?;
    fs::write(watch.config(), rule("new", "15MiB"))?;
    watch.signal(Signal::HUP)?;
    watch.wait(5 * SECOND, is(volume.path(), "new", EventKind::Firing))?;
    let (took, status) = watch.stop()?;
    ensure!(took < SECOND && status.success(), "{took:?}, {status}");
    Ok(())
}

#[test]
fn a_directory_is_scanned_once_and_then_updated_from_writes() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 200)?;
    let dir = volume.path().join("uploads");
    fs::create_dir_all(dir.join("a/b"))?;
    fs::write(dir.join("a/b/old"), vec![7; 40 << 20])?;
    rustix::fs::sync();
    let path = dir.to_str().context("UTF-8")?;
    let config = format!(
        "[[rule]]\nname = \"cap\"\nwhen = \"dir_size\"\npath = \"{path}\"\ncritical = \"50MiB\"\nclear_after = \"1s\"\n\
         [[rule]]\nname = \"budget\"\nwhen = \"dir_growth\"\npath = \"{path}\"\nper = \"1m\"\nwarning = \"15MiB\"\n"
    );
    let watch = Watch::start(&config)?;
    let before = watch.during(3 * SECOND);
    ensure!(!before.iter().any(|event| event.rule == "cap"), "{before:?}");
    fs::write(dir.join("a/new"), vec![7; 8 << 20])?;
    let between = watch.during(3 * SECOND);
    ensure!(!between.iter().any(|event| event.rule == "cap"), "{between:?}");
    fs::write(dir.join("more"), vec![7; 8 << 20])?;
    let mut rules = vec![];
    for _ in 0..2 {
        let (_, event) = watch.wait(5 * SECOND, |event| {
            event.directory.as_deref() == Some(path) && event.event == EventKind::Firing
        })?;
        rules.push(event.rule);
    }
    rules.sort();
    ensure!(rules == ["budget", "cap"], "{rules:?}");
    // A file from before the start, whose writes filltop has never seen.
    fs::remove_file(dir.join("a/b/old"))?;
    watch.wait(8 * SECOND, is(volume.path(), "cap", EventKind::Resolved))?;
    Ok(())
}

#[test]
fn a_recorded_history_is_replayed_without_privileges() -> Result {
    let trace =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("forecast/traces/rocksdb-fillrandom.csv");
    let output = command(&["watch", "--json", "--replay-csv"]).arg(trace).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Vec<tracer_model::alert::Event> = String::from_utf8(output.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    ensure!(!events.is_empty() && events[0].rule == "time-to-full", "{events:#?}");
    ensure!(
        events.iter().filter(|event| event.event == EventKind::Firing).count() <= 4,
        "{events:#?}"
    );
    Ok(())
}

#[test]
fn the_printed_sample_passes_the_check() -> Result {
    let sample = command(&["watch", "--print-config"]).output()?;
    ensure!(sample.status.success());
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("filltop.toml");
    fs::write(&file, &sample.stdout)?;
    let check = command(&["watch", "--check-config", "--config"]).arg(&file).output()?;
    ensure!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    fs::write(&file, "\nfoo = 1\n")?;
    let check = command(&["watch", "--check-config", "--config"]).arg(&file).output()?;
    let said = String::from_utf8(check.stderr)?;
    ensure!(check.status.code() == Some(1) && said.lines().count() == 1, "{said}");
    ensure!(said.contains(":2:1: unknown key `foo`"), "{said}");
    Ok(())
}
