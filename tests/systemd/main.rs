//! A Debian booted for this test: what its systemd does with the unit, and `filltop stop` on a
//! unit.
//!
//! These tests change the system: they run in `cargo xtask vm --debian` only.

#[path = "../io_paths/compare.rs"]
mod compare;
mod container;
mod exact;
#[path = "../io_paths/expected.rs"]
mod expected;
mod runaway;
mod service;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail, ensure};
use filltop_tests::filltop;
use filltop_tests::rights::{UNIT as UNIT_FILE, capability};

type Result<T = ()> = anyhow::Result<T>;

const UNIT: &str = "filltop.service";
const SYSUSERS: &str = include_str!("../../contrib/systemd/filltop.sysusers");
const DOCS: &str = include_str!("../../docs/service.md");
const PROGRAM: &str = "/usr/bin/filltop";
const DROP_INS: &str = "/etc/systemd/system/filltop.service.d";

/// What the service keeps after startup: CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and
/// CAP_DAC_READ_SEARCH.
const FOUR: u64 = 1 << capability::BPF
    | 1 << capability::PERFMON
    | 1 << capability::SYS_PTRACE
    | 1 << capability::DAC_READ_SEARCH;

/// Upper limit for every wait: these machines are emulated and slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// Skips a test that would change the developer's machine.
macro_rules! need_debian {
    () => {
        if !crate::is_ours() {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            println!("SKIP {name}: runs only in a Debian booted for this test");
            return Ok(());
        }
    };
}
use need_debian;

fn is_ours() -> bool {
    env::var_os("FILLTOP_IN_VM").is_some() && Path::new("/run/systemd/system").exists()
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Both output streams, for messages.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    succeed(Command::new("systemctl").arg("--no-pager").args(arguments))
}

/// A property of a unit.
fn show(unit: &str, property: &str) -> Result<String> {
    let text = systemctl(&["show", "--value", "-p", property, unit])?;
    Ok(text.trim().to_owned())
}

fn number(unit: &str, property: &str) -> Result<u64> {
    let text = show(unit, property)?;
    text.parse().with_context(|| format!("{property} of {unit} is {text:?}"))
}

fn journal(unit: &str) -> Result<String> {
    succeed(Command::new("journalctl").args(["--no-pager", "-o", "cat", "-u", unit]))
}

/// A member of the group that may connect to the service.
const MEMBER: &str = "member";

/// Creates a user, unless one of this name exists.
fn user(name: &str, arguments: &[&str]) -> Result {
    if !fs::read_to_string("/etc/passwd")?.contains(&format!("{name}:")) {
        succeed(Command::new("useradd").args(arguments).arg(name))?;
    }
    Ok(())
}

/// filltop, run as this user.
fn as_user(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", name, "--regid", name, "--init-groups", PROGRAM]);
    command
}

/// Polls until the condition holds; returns how long that took.
fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let started = Instant::now();
    loop {
        if holds()? {
            return Ok(started.elapsed());
        }
        if started.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}: {}", journal(UNIT)?);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The section of docs/service.md whose commands the tests run.
fn section() -> Result<&'static str> {
    let text =
        DOCS.split("## As a systemd unit").nth(1).and_then(|text| text.split("\n## ").next());
    text.context("docs/service.md has a section about the unit")
}

/// The first drop-in in docs/service.md after these words.
fn drop_in_of_the_docs(words: &str) -> Result<String> {
    const EDIT: &str = "# systemctl edit filltop\n";
    let after = section()?
        .split_once(words)
        .with_context(|| format!("docs/service.md has no {words:?}"))?
        .1;
    let block = after.split_once(EDIT).and_then(|(_, block)| block.split_once("```"));
    let (drop_in, _) = block.with_context(|| format!("no drop-in after {words}"))?;
    Ok(drop_in.to_owned())
}

/// Installs with the commands of docs/service.md, in a directory that looks like a checkout.
fn install() -> Result {
    let commands = section()?.split("```").nth(1);
    let checkout = tempfile::tempdir()?;
    for (path, text) in [("filltop.service", UNIT_FILE), ("filltop.sysusers", SYSUSERS)] {
        let path = checkout.path().join("contrib/systemd").join(path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(path, text)?;
    }
    fs::create_dir_all(checkout.path().join("target/release"))?;
    fs::copy(filltop(), checkout.path().join("target/release/filltop"))?;
    let mut shell = Command::new("sh");
    shell.args(["-exc", commands.context("docs/service.md has no commands")?]);
    succeed(shell.current_dir(&checkout)).with_context(|| journal(UNIT).unwrap_or_default())?;
    Ok(())
}

/// Starts the service with this drop-in, if any.
fn installed(drop_in: Option<&str>) -> Result {
    if !Path::new(PROGRAM).exists() {
        install()?;
    }
    fs::create_dir_all(DROP_INS)?;
    let path = Path::new(DROP_INS).join("test.conf");
    let text = drop_in.unwrap_or_default();
    if fs::read_to_string(&path).unwrap_or_default() != text {
        fs::write(path, text)?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["stop", UNIT])?;
    }
    // Type=notify: it returns when filltop measures.
    systemctl(&["start", UNIT]).with_context(|| journal(UNIT).unwrap_or_default())?;
    Ok(())
}
