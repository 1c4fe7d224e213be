//! The files of contrib/ for installers: the unit, the image's recipe, the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, ensure};
use filltop_tests::{filltop, need_tracing};
use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::watch::{Watch, utf8};

/// A file of contrib/.
pub fn contrib(path: &str) -> anyhow::Result<PathBuf> {
    let tests = env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?;
    Ok(Path::new(&tests).join("../contrib").join(path))
}

/// Values of a setting in the unit.
pub fn setting(unit: &str, key: &str) -> Vec<String> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() -> Result {
    let unit = contrib("systemd/filltop.service")?;
    // verify requires the program to exist at the unit's path.
    let dir = tempfile::tempdir()?;
    let text = fs::read_to_string(&unit)?;
    let program = filltop();
    let text = text.replace("/usr/bin/filltop", utf8(&program)?);
    let copy = dir.path().join("filltop.service");
    fs::write(&copy, text)?;
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&copy).output() else {
        println!(
            "SKIP systemd_finds_nothing_wrong_with_the_unit: systemd-analyze is not installed"
        );
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    let mut security = Command::new("systemd-analyze");
    // 3.3 of 10, less is better; docs/service.md explains the rest.
    security.args(["security", "--offline=true", "--threshold=33"]).arg(&copy);
    let output = security.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = said.lines().rfind(|line| line.contains("exposure level")).unwrap_or_default();
    println!("{}", verdict.trim());
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The unit's filter allows every system call that is made at start, while clients and scrapers
/// connect, and at the end.
#[test]
fn the_units_filter_allows_every_system_call_used() -> Result {
    need_tracing!();
    let sets = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output();
    let (Ok(sets), true) = (sets, Path::new("/usr/bin/strace").exists()) else {
        println!(
            "SKIP the_units_filter_allows_every_system_call_used: systemd-analyze or strace is not installed"
        );
        return Ok(());
    };
    let sets = Sets::parse(&String::from_utf8(sets.stdout)?);
    let unit = fs::read_to_string(contrib("systemd/filltop.service")?)?;
    let mut allowed = BTreeSet::new();
    for line in setting(&unit, "SystemCallFilter") {
        let taken_away = line.starts_with('~');
        for name in line.trim_start_matches('~').split(' ') {
            for call in sets.calls(name) {
                if taken_away {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    ensure!(allowed.contains("mlockall") && !allowed.contains("mount"), "{allowed:?}");
    let dir = tempfile::tempdir()?;
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&trace).arg(filltop());
    let mut watch = Watch::start_by(command, &[])?;
    watch.snapshot("1s")?;
    let pid = fs::read_to_string(&trace)?;
    let pid: i32 = pid.split(' ').next().context("an empty trace")?.parse()?;
    let pid = Pid::from_raw(pid).context("no pid")?;
    kill_process(pid, Signal::TERM)?;
    // strace has written all of its trace when it exits.
    watch.has_exited_within(Duration::from_secs(20))?;
    let text = fs::read_to_string(&trace)?;
    let made: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(call, _)| call)
        .filter(|call| {
            call.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    ensure!(made.contains("bpf") && made.contains("accept4"), "{made:?}");
    let refused: Vec<_> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    ensure!(refused.is_empty(), "the filter refuses {refused:?}");
    println!("{} system calls, all among {}", made.len(), allowed.len());
    Ok(())
}

/// systemd's sets of system calls, by name.
struct Sets(BTreeMap<String, Vec<String>>);

impl Sets {
    fn parse(text: &str) -> Self {
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            let name = line.trim();
            if line.starts_with('@') {
                name.clone_into(&mut current);
            } else if line.starts_with(' ') && !name.starts_with('#') {
                sets.entry(current.clone()).or_default().push(name.to_owned());
            }
        }
        Self(sets)
    }

    fn calls(&self, name: &str) -> Vec<String> {
        if !name.starts_with('@') {
            return vec![name.to_owned()];
        }
        let members = self.0.get(name).into_iter().flatten();
        members.flat_map(|member| self.calls(member)).collect()
    }
}
