//! What a screen costs the line and the host, next to the tools in use today, under the same load.
//!
//! `cargo bench -p filltop-tests --bench screen` (as root, with target/release/filltop built) starts
//! filltop, htop, btop, iotop and top at the same time, each on an 80 x 24 pseudo-terminal with an
//! interval of 1 s, and prints bytes and processor time of each, median and range of seven windows: first
//! with no load, then with 200 writers.

#[expect(dead_code, reason = "the tests use all of it")]
mod pty;
#[expect(dead_code, reason = "the tests use all of it")]
mod writer;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::Context as _;
use filltop_tests::TestVolume;
use pty::Terminal;
use writer::{Job, Writer};

const WARM_UP: Duration = Duration::from_secs(5);
/// Windows that are measured one after the other, and how long each is.
const WINDOWS: usize = 7;
const MEASURED: Duration = Duration::from_secs(8);
const WRITERS: u32 = 200;

struct Tool {
    name: &'static str,
    command: Command,
}

fn tools(config: &Path) -> anyhow::Result<Vec<Tool>> {
    let btop = config.join("btop");
    fs::create_dir_all(&btop)?;
    fs::write(btop.join("btop.conf"), "update_ms = 1000\n")?;
    let filltop = env::var_os("FILLTOP_BIN").unwrap_or_else(|| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/filltop").into()
    });
    let mut tools = vec![Tool { name: "filltop", command: Command::new(filltop) }];
    for (name, arguments) in [
        ("htop", &["-d", "10"][..]),
        ("btop", &["--utf-force"]),
        ("iotop", &["-d", "1"]),
        ("top", &["-d", "1"]),
    ] {
        let found = ["/usr/bin", "/usr/sbin"].iter().map(|dir| Path::new(dir).join(name));
        let Some(path) = found.into_iter().find(|path| path.exists()) else {
            println!("(no {name} here)");
            continue;
        };
        let mut command = Command::new(path);
        command.args(arguments).env("XDG_CONFIG_HOME", config);
        tools.push(Tool { name, command });
    }
    Ok(tools)
}

/// Processor time of a process and its threads so far, seconds.
fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("stat")?;
    let ticks: Vec<f64> =
        rest.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn measure(load: &str, config: &Path) -> anyhow::Result<()> {
    let mut running = vec![];
    for tool in tools(config)? {
        running.push((tool.name, Terminal::start(tool.command, 80, 24)?));
    }
    sleep(WARM_UP);
    let mut rows: Vec<Row> = running.iter().map(|_| Row::default()).collect();
    let mut loads = vec![];
    for _ in 0..WINDOWS {
        let mut before = vec![];
        for (name, terminal) in &running {
            let cpu = cpu_s(terminal.pid());
            let cpu = cpu.with_context(|| format!("{name} has ended: {}", terminal.text()))?;
            before.push((terminal.received(), cpu));
        }
        let start = Instant::now();
        sleep(MEASURED);
        let elapsed = start.elapsed().as_secs_f64();
        for ((row, (_, terminal)), (bytes, cpu)) in rows.iter_mut().zip(&running).zip(before) {
            row.bytes.push((terminal.received() - bytes) as f64 / elapsed);
            row.cpu.push((cpu_s(terminal.pid())? - cpu) / elapsed * 100.0);
        }
        let average = fs::read_to_string("/proc/loadavg")?;
        loads.push(average.split(' ').next().unwrap_or_default().parse()?);
    }
    println!("({load}: load {})", spread(&mut loads, 1));
    for ((name, terminal), mut row) in running.iter_mut().zip(rows) {
        let redraw = redraw(name, terminal)?;
        let (bytes, cpu) = (spread(&mut row.bytes, 0), spread(&mut row.cpu, 1));
        println!("| {load} | {name} | {bytes} | {cpu} | {redraw} |");
    }
    Ok(())
}

/// The cost of one program in each window.
#[derive(Default)]
struct Row {
    bytes: Vec<f64>,
    cpu: Vec<f64>,
}

/// Median, least and most.
fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", values[values.len() / 2])
}

/// Bytes of a full redraw, where a key requests one: the least of five, as other output may follow
/// immediately.
fn redraw(name: &str, terminal: &mut Terminal) -> anyhow::Result<String> {
    if !["filltop", "htop"].contains(&name) {
        return Ok("-".to_owned());
    }
    let mut least = u64::MAX;
    for _ in 0..5 {
        let before = terminal.received();
        terminal.press("\x0c")?;
        sleep(Duration::from_millis(230));
        least = least.min(terminal.received() - before);
    }
    Ok(least.to_string())
}

fn main() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: tracing needs root");
        return Ok(());
    }
    let config = tempfile::tempdir()?;
    println!("| host | program | bytes/s | CPU % | bytes of a full redraw |");
    println!("|---|---|---|---|---|");
    measure("idle", config.path())?;
    let volume = TestVolume::new("ext4", 2048)?;
    let job = Job {
        name: "busy-writer",
        root: volume.path(),
        block: 8 << 10,
        every_ms: 200,
        workers: 0,
        cgroup: None,
    };
    let _writers: Vec<Writer> =
        (0..WRITERS).map(|_| Writer::start(&job)).collect::<anyhow::Result<_>>()?;
    measure("200 writers", config.path())
}
