//! For `cargo xtask pictures`: SVG pictures of the screen under a real load.
//!
//! Runs as root in its own mount namespace, where it mounts an empty filesystem on /srv for real
//! programs to fill. Arguments: the output directory, and a path for the filesystem image.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use anyhow::{Context as _, ensure};
use ratatui::layout::Size;
use tracer::measure::pipeline::{POLL_INTERVAL, Pipeline};
use tracer::tui::keys::Key;
use tracer::tui::{App, UiState, render_svg};
use tracer_kernel::TracerOptions;
use tracer_model::history::retention::Limits;

/// How long to measure before the pictures are taken.
const WATCHED: Duration = Duration::from_secs(25);

/// Name and command of the writing programs, in start order; each runs in a cgroup of that name.
const LOAD: [(&str, &str); 3] = [
    (
        "backup",
        "mkdir -p /srv/backup && exec tar -cf /srv/backup/share.tar -C / usr/share usr/lib usr/share usr/lib",
    ),
    (
        "dump",
        "mkdir -p /srv/dump && head -c 1G /dev/urandom | exec gzip -1 > /srv/dump/orders.sql.gz",
    ),
    (
        "web",
        "mkdir -p /srv/log && while sleep 0.02; do echo 'GET / HTTP/1.1 200' >> /srv/log/access.log; done",
    ),
];

/// File name, size, and the keys to press after the previous picture.
const PICTURES: [(&str, u16, u16, &[Key]); 3] = [
    ("writers", 100, 24, &[]),
    ("groups", 100, 24, &[Key::Char('2'), Key::Char('E')]),
    ("act", 80, 24, &[Key::Char('1'), Key::Char('x')]),
];

/// Shell script that removes the cgroups at the end. It is started before the tracer drops the
/// privileges for that. Processes that a shell had started may take a moment to exit.
const SWEEP: &str =
    "cat; for i in 1 2 3 4 5; do sleep 0.2; rmdir \"$@\" 2>/dev/null && break; done";

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let into = arguments.next().context("usage: pictures DIRECTORY IMAGE")?;
    let image = arguments.next().context("usage: pictures DIRECTORY IMAGE")?;
    let (into, image) = (Path::new(&into), Path::new(&image));
    fs::File::create(image)?.set_len(6 << 30)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg("/srv"))?;
    // Other mounts of this machine do not belong in the pictures.
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if ["/tmp/", "/mnt/", "/var/tmp/"].iter().any(|place| mount.starts_with(place)) {
            run(Command::new("umount").args(["-l", mount]))?;
        }
    }
    let mut load = vec![];
    let mut sweeper = Command::new("sh")
        .args(["-c", SWEEP, "sh"])
        .args([cgroup(LOAD[0].0)?, cgroup(LOAD[1].0)?, cgroup(LOAD[2].0)?])
        .stdin(Stdio::piped())
        .spawn()?;
    let result = take(into, &mut load);
    for child in &mut load {
        // Kills the shell and its children, which form a process group.
        let group = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
    }
    // The script waits for the end of its standard input.
    drop(sweeper.stdin.take());
    sweeper.wait()?;
    // The mount disappears with its namespace. Unmounting it would need a privilege that the tracer
    // has dropped by now.
    fs::remove_file(image)?;
    result
}

fn take(into: &Path, load: &mut Vec<Child>) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let state = UiState { can_act: true, ..UiState::default() };
    let mut app = App::new(state, Limits::default());
    for (name, command) in LOAD {
        let mut shell = Command::new("sh");
        // Pictures must not reveal the directory in which they were made.
        shell.args(["-c", command]).current_dir("/").stderr(Stdio::null()).process_group(0);
        let procs = cgroup(name)?.join("cgroup.procs");
        // SAFETY: between fork and exec it only opens and writes one file, with system calls alone.
        // The path was allocated before the fork; `0` means the writing process.
        unsafe { shell.pre_exec(move || fs::write(&procs, "0")) };
        load.push(shell.spawn()?);
    }
    // After the load: this drops the privilege to move processes into cgroups.
    let mut pipeline = Pipeline::start(&TracerOptions::default())?;
    watch(&mut pipeline, &mut app, WATCHED)?;
    for (name, width, height, keys) in PICTURES {
        app.resize(Size::new(width, height));
        for key in keys {
            app.press(*key);
        }
        let path = into.join(format!("{name}.svg"));
        fs::write(&path, render_svg(&app.frame()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Creates a cgroup for a program, as a service manager would.
fn cgroup(name: &str) -> anyhow::Result<PathBuf> {
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let root = places.into_iter().find(|place| place.join("cgroup.procs").exists());
    let cgroup = root.context("cgroup v2 is not mounted")?.join(name);
    match fs::create_dir(&cgroup) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(cgroup),
    }
}

/// Samples once per second, like the live screen.
fn watch(pipeline: &mut Pipeline, app: &mut App, length: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut due = Duration::from_secs(1);
    while start.elapsed() < length {
        thread::sleep(POLL_INTERVAL);
        pipeline.poll();
        if start.elapsed() >= due {
            due += Duration::from_secs(1);
            app.add_snapshot(pipeline.snapshot(false)?);
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    ensure!(command.status()?.success(), "{command:?}");
    Ok(())
}
