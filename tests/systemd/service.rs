//! The unit of contrib/systemd under a real systemd.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use filltop_tests::rights::{capabilities, capability, status, types_helpers};
use rustix::process::{Pid, Signal, kill_process};
use tracer_model::snapshot::Snapshot;

use crate::{
    FOUR, MEMBER, PROGRAM, Result, UNIT, UNIT_FILE, as_user, installed, journal, need_debian,
    number, said, section, show, succeed, systemctl, user, wait_for,
};

/// The capabilities that the helper process keeps.
const ADMIN: u64 = 1 << capability::SYS_ADMIN;
const SOCKET: &str = "/run/filltop/filltop.sock";

fn signal(pid: u64, signal: Signal) -> Result {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(kill_process(pid, signal)?)
}

/// Waits until systemd has restarted it and it measures.
fn started_again(before: u64, restarts: u64) -> Result {
    let took = wait_for("it is started again", || {
        Ok(number(UNIT, "NRestarts")? > restarts
            && show(UNIT, "ActiveState")? == "active"
            && !matches!(number(UNIT, "MainPID")?, 0)
            && number(UNIT, "MainPID")? != before)
    })?;
    println!("active again after {:.1} s", took.as_secs_f64());
    let snapshot = snapshot("1s")?;
    ensure!(!snapshot.volumes.is_empty(), "it measures nothing");
    Ok(())
}

fn snapshot(length: &str) -> Result<Snapshot> {
    let mut command = Command::new(PROGRAM);
    let text = succeed(command.args(["snapshot", "--json", "--for", length]))?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn it_is_active_once_it_measures_and_has_the_units_capabilities() -> Result {
    need_debian!();
    installed(None)?;
    ensure!(show(UNIT, "ActiveState")? == "active" && show(UNIT, "Type")? == "notify");
    wait_for("the status line", || Ok(show(UNIT, "StatusText")?.contains(" volume")))?;
    let pid = number(UNIT, "MainPID")?;
    ensure!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim() == "-900");
    let at = |property| number(UNIT, property);
    let took = at("ActiveEnterTimestampMonotonic")? - at("InactiveExitTimestampMonotonic")?;
    println!("active after {:.1} s", Duration::from_micros(took).as_secs_f64());
    let folder = pid.to_string();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let has = capabilities(&folder, set)?;
        println!("{set} {has:016x}");
        ensure!(has == FOUR, "{set} is {has:016x}");
    }
    ensure!(status(&folder, "NoNewPrivs")? == "1" && status(&folder, "Seccomp")? == "2");
    let [helper] = types_helpers()[..] else { bail!("helpers: {:?}", types_helpers()) };
    let helper = helper.to_string();
    for (set, is) in [("CapBnd", 0), ("CapPrm", ADMIN), ("CapEff", ADMIN)] {
        let has = capabilities(&helper, set)?;
        ensure!(has == is, "{set} of the helper is {has:016x}");
    }
    let locked = status(&folder, "VmLck")?;
    ensure!(!locked.starts_with("0 "), "nothing is locked: {locked}");
    println!("locked {locked}, resident {}", status(&folder, "VmRSS")?);
    let socket = fs::metadata(SOCKET)?;
    ensure!(socket.mode() & 0o777 == 0o660, "{:o}", socket.mode());
    let snapshot = snapshot("1s")?;
    println!("{}, by {}", snapshot.backend.kernel, snapshot.backend.write.name());
    ensure!(snapshot.volumes.iter().any(|volume| volume.mount_point == "/" && !volume.read_only));
    Ok(())
}

#[test]
fn systemd_rates_its_exposure_as_the_docs_say() -> Result {
    need_debian!();
    installed(None)?;
    let mut rate = Command::new("systemd-analyze");
    let text = said(&rate.args(["--no-pager", "security", UNIT]).output()?);
    let verdict =
        text.lines().rfind(|line| line.contains("exposure level")).context("a verdict")?;
    println!("{}", verdict.trim());
    let figure = verdict.split(' ').find(|word| word.parse::<f64>().is_ok());
    let figure = figure.with_context(|| verdict.to_owned())?;
    let told = section()?.split("`systemd-analyze security` says ").nth(1).unwrap_or_default();
    let told = told.split(':').next().unwrap_or_default();
    ensure!(told.contains(figure), "docs/service.md has {told}, systemd {figure}");
    Ok(())
}

#[test]
fn a_reload_applies_a_valid_configuration_and_rejects_an_invalid_one() -> Result {
    need_debian!();
    let config = "/etc/filltop.toml";
    fs::write(config, "")?;
    let start = UNIT_FILE.lines().find(|line| line.starts_with("ExecStart="));
    let start = start.context("the unit starts something")?;
    installed(Some(&format!("[Service]\nExecStart=\n{start} --config {config}\n")))?;
    let pid = number(UNIT, "MainPID")?;
    let rule = "[[rule]]\nname = \"anything-used\"\nwhen = \"used_bytes\"\nwarning = \"1B\"\n";
    ensure!(!journal(UNIT)?.contains("anything-used"));
    fs::write(config, rule)?;
    systemctl(&["reload", UNIT]).with_context(|| journal(UNIT).unwrap_or_default())?;
    wait_for("the new rule fires", || Ok(journal(UNIT)?.contains("anything-used")))?;
    fs::write(config, "[[rule]]\nnam = \"x\"\n")?;
    systemctl(&["reload", UNIT])?;
    wait_for("the error in the journal", || {
        Ok(journal(UNIT)?.contains("keeping the previous one"))
    })?;
    ensure!(show(UNIT, "ActiveState")? == "active" && number(UNIT, "MainPID")? == pid);
    Ok(())
}

#[test]
fn it_is_restarted_after_kill_9() -> Result {
    need_debian!();
    installed(None)?;
    let (pid, restarts) = (number(UNIT, "MainPID")?, number(UNIT, "NRestarts")?);
    signal(pid, Signal::KILL)?;
    started_again(pid, restarts)
}

#[test]
fn a_hanging_service_is_restarted_by_the_watchdog() -> Result {
    need_debian!();
    ensure!(
        UNIT_FILE.lines().any(|line| line == "WatchdogSec=30"),
        "the unit has no WatchdogSec=30, which this test shortens"
    );
    installed(Some("[Service]\nWatchdogSec=5\nTimeoutAbortSec=2\n"))?;
    let (pid, restarts) = (number(UNIT, "MainPID")?, number(UNIT, "NRestarts")?);
    // As long as it responds, the watchdog does not act.
    std::thread::sleep(Duration::from_secs(12));
    ensure!(number(UNIT, "MainPID")? == pid && number(UNIT, "NRestarts")? == restarts);
    signal(pid, Signal::STOP)?;
    started_again(pid, restarts)?;
    let text = journal(UNIT)?;
    ensure!(text.contains("Watchdog timeout"), "{text}");
    Ok(())
}

#[test]
fn only_members_of_the_group_may_connect() -> Result {
    need_debian!();
    installed(None)?;
    user(MEMBER, &["-G", "filltop"])?;
    user("stranger", &[])?;
    let ask = |name: &str| as_user(name).args(["snapshot", "--json", "--for", "1s"]).output();
    let member = ask(MEMBER)?;
    ensure!(member.status.success(), "{}", said(&member));
    let snapshot: Snapshot = serde_json::from_slice(&member.stdout)?;
    ensure!(snapshot.volumes.iter().any(|volume| volume.mount_point == "/"));
    let stranger = ask("stranger")?;
    ensure!(stranger.status.code() == Some(1) && stranger.stdout.is_empty(), "{}", said(&stranger));
    println!("a user outside of the group gets: {}", said(&stranger).trim());
    Ok(())
}
