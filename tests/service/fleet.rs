//! The real Prometheus, promtool and Alertmanager of Debian's packages, on loopback, with data
//! directories and ports of their own.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, need_tracing};
use serde_json::Value;

use crate::Result;
use crate::watch::{Watch, free_port, succeeded, utf8};
use crate::writer::{Job, Writer};

/// The password in the guard file: `htpasswd -nBC 5 prometheus`.
const PASSWORD: &str = "scrape me";
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuDQ2G6CtOSfXSi/WLeZe4OQ1K1XdEEg6";

/// A program of the packages: unpacked by xtask, or installed.
fn tool(name: &str) -> Option<PathBuf> {
    let unpacked = env::var_os("FILLTOP_FLEET_TOOLS").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    unpacked
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Skips the test if the packages are not available.
macro_rules! need_tool {
    ($name:literal) => {
        match tool($name) {
            Some(path) => path,
            None => {
                let test = thread::current().name().unwrap_or("?").to_owned();
                println!("SKIP {test}: no {} here", $name);
                return Ok(());
            }
        }
    };
}

/// A file of contrib/ for fleets.
fn contrib(path: &str) -> anyhow::Result<PathBuf> {
    let tests = env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?;
    Ok(Path::new(&tests).join("../contrib").join(path))
}

/// A server that is killed, by its pid, on drop.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, log: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let log_file = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let server = Self(command.spawn().with_context(|| format!("cannot run {command:?}"))?);
        let start = Instant::now();
        while !get(address, "/-/ready").is_ok_and(|(status, _)| status == 200) {
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "{command:?} is not ready: {}",
                fs::read_to_string(log)?
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Alertmanager, which reads its templates from /usr/share: where it was only unpacked, they are
/// mounted there in a mount namespace of its own.
fn alertmanager_program() -> anyhow::Result<Command> {
    let program = tool("prometheus-alertmanager").context("no alertmanager")?;
    let share = program.ancestors().nth(2).context("it lies in usr/bin")?.join("share");
    if Path::new("/usr/share/prometheus/alertmanager").exists() || !share.exists() {
        return Ok(Command::new(program));
    }
    let script = "mount -t overlay overlay -o \"lowerdir=$0:/usr/share\" /usr/share && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(share).arg(program);
    Ok(command)
}

/// Status and body. HTTP/1.0, so that the body has no chunks.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The result of an instant query.
fn query(prometheus: SocketAddr, expression: &str) -> anyhow::Result<Vec<Value>> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (status, body) = get(prometheus, &format!("/api/v1/query?query={encoded}"))?;
    ensure!(status == 200, "{expression}: {body}");
    let body: Value = serde_json::from_str(&body)?;
    Ok(body["data"]["result"].as_array().cloned().unwrap_or_default())
}

/// A receiver of Alertmanager's webhooks: each body is sent to the channel, with its time.
fn receiver() -> anyhow::Result<(SocketAddr, mpsc::Receiver<(Instant, Value)>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(body) = posted(stream) else { continue };
            if sender.send((Instant::now(), body)).is_err() {
                return;
            }
        }
    });
    Ok((address, received))
}

fn posted(mut stream: TcpStream) -> Option<Value> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend(&buffer[..count]);
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let line = text.lines().find_map(|line| line.strip_prefix("content-length:"))?;
            break (head + 4, line.trim().parse::<usize>().ok()?);
        }
    };
    while bytes.len() < head + length {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend(&buffer[..count]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    serde_json::from_slice(&bytes[head..head + length]).ok()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() -> Result {
    let promtool = need_tool!("promtool");
    let rules = contrib("prometheus/filltop.rules.yml")?;
    let output = succeeded(Command::new(&promtool).args(["check", "rules"]).arg(&rules).output()?)?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    succeeded(
        Command::new(&promtool)
            .args(["test", "rules", "filltop.rules.test.yml"])
            .current_dir(contrib("prometheus")?)
            .output()?,
    )?;
    let config = contrib("prometheus/prometheus.yml")?;
    succeeded(Command::new(&promtool).args(["check", "config"]).arg(config).output()?)?;
    // Every alert has a test, so that a changed rule has to be changed twice.
    let tests = fs::read_to_string(contrib("prometheus/filltop.rules.test.yml")?)?;
    for line in fs::read_to_string(&rules)?.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            ensure!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
        }
    }
    let amtool = need_tool!("amtool");
    let config = contrib("alertmanager/alertmanager.yml")?;
    succeeded(Command::new(amtool).arg("check-config").arg(config).output()?)?;
    Ok(())
}

#[test]
fn promtool_accepts_the_metrics() -> Result {
    need_tracing!();
    let promtool = need_tool!("promtool");
    let watch = Watch::start(&["--metrics-directory", "/tmp"])?;
    let text = watch.metrics("text/plain")?;
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    check.stdin.take().context("piped")?.write_all(text.as_bytes())?;
    let output = succeeded(check.wait_with_output()?)?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    println!("{} series", text.lines().filter(|line| !line.starts_with('#')).count());
    Ok(())
}

/// Creates a key and a certificate for 127.0.0.1 with openssl(1); `false` where there is none.
fn certificate(folder: &Path) -> anyhow::Result<bool> {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=filltop"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"));
    match command.output() {
        Ok(output) => succeeded(output).map(|_| true),
        Err(_) => Ok(false),
    }
}

/// Prometheus, Alertmanager and the receiver behind them, scraping one filltop with TLS and
/// password.
struct Fleet {
    _servers: [Server; 2],
    prometheus: SocketAddr,
    received: mpsc::Receiver<(Instant, Value)>,
    _dir: tempfile::TempDir,
}

impl Fleet {
    fn start(dir: tempfile::TempDir, scraped: SocketAddr) -> anyhow::Result<Self> {
        let at = |name: &str| dir.path().join(name);
        let (to, received) = receiver()?;
        let (prometheus, alertmanager) = (free_port()?, free_port()?);
        // The rules as shipped, but with a shorter wait after the end.
        let rules = fs::read_to_string(contrib("prometheus/filltop.rules.yml")?)?;
        let quick = rules.replace("keep_firing_for: 5m", "keep_firing_for: 2s");
        ensure!(quick != rules);
        fs::write(at("rules.yml"), quick)?;
        fs::write(at("password"), PASSWORD)?;
        fs::write(
            at("prometheus.yml"),
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [rules.yml]\n\
                 scrape_configs:\n- job_name: filltop\n  scheme: https\n\
                 \x20 tls_config: {{ca_file: cert.pem}}\n\
                 \x20 basic_auth: {{username: prometheus, password_file: password}}\n\
                 \x20 static_configs: [{{targets: ['{scraped}']}}]\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n"
            ),
        )?;
        // The example, with another address and shorter waits.
        let example = fs::read_to_string(contrib("alertmanager/alertmanager.yml")?)?;
        let config = example
            .replace("http://127.0.0.1:9999/", &format!("http://{to}/"))
            .replace("group_interval: 30s", "group_interval: 1s");
        ensure!(config.contains(&to.to_string()) && config.contains("group_interval: 1s"));
        fs::write(at("alertmanager.yml"), config)?;
        let mut command = alertmanager_program()?;
        command
            .arg(format!("--config.file={}", at("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", at("alertmanager").display()))
            .arg(format!("--web.listen-address={alertmanager}"))
            .arg("--cluster.listen-address=");
        let manager = Server::start(&mut command, &at("alertmanager.log"), alertmanager)?;
        let mut command = Command::new(tool("prometheus").context("prometheus")?);
        command
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("prometheus").display()))
            .arg(format!("--web.listen-address={prometheus}"))
            .arg("--rules.alert.resend-delay=1s");
        let server = Server::start(&mut command, &at("prometheus.log"), prometheus)?;
        Ok(Self { _servers: [server, manager], prometheus, received, _dir: dir })
    }

    /// The first alert of this name and volume that arrives with this status.
    fn alert(
        &self,
        (name, volume, status): (&str, &str, &str),
        limit: Duration,
    ) -> anyhow::Result<(Instant, Value)> {
        let start = Instant::now();
        let mut seen = BTreeSet::new();
        while let Some(left) = limit.checked_sub(start.elapsed()) {
            let Ok((at, body)) = self.received.recv_timeout(left) else { break };
            for alert in body["alerts"].as_array().into_iter().flatten() {
                let labels = &alert["labels"];
                seen.insert(format!("{} {}", labels["alertname"], alert["status"]));
                if labels["alertname"] == name
                    && labels["volume"] == volume
                    && alert["status"] == status
                {
                    return Ok((at, alert.clone()));
                }
            }
        }
        let now = query(self.prometheus, "filltop_volume_time_to_full_seconds")?;
        anyhow::bail!("no {status} {name} within {limit:?}; there were {seen:?}; now {now:?}")
    }
}

/// A runaway on a real volume: scraped, fired, delivered with its culprit, and resolved when it is
/// over.
#[test]
fn a_runaway_fires_and_resolves_in_prometheus_and_alertmanager() -> Result {
    need_tracing!();
    need_tool!("prometheus");
    need_tool!("prometheus-alertmanager");
    let dir = tempfile::tempdir()?;
    if !certificate(dir.path())? {
        println!(
            "SKIP a_runaway_fires_and_resolves_in_prometheus_and_alertmanager: openssl is not installed"
        );
        return Ok(());
    }
    let guard = dir.path().join("guard.toml");
    let tls = "[tls]\ncert_file = 'cert.pem'\nkey_file = 'key.pem'\n";
    fs::write(&guard, format!("{tls}[users]\nprometheus = '{HASH}'\n"))?;
    let volume = TestVolume::new("ext4", 1024)?;
    let mount = utf8(volume.path())?;
    let watch = Watch::start_guarded(&["--metrics-guard", utf8(&guard)?])?;
    let fleet = Fleet::start(dir, watch.address())?;
    let start = Instant::now();
    while query(fleet.prometheus, "up{job=\"filltop\"} == 1")?.is_empty() {
        ensure!(start.elapsed() < Duration::from_secs(20), "nothing is scraped");
        thread::sleep(Duration::from_millis(200));
    }
    let quiet = query(fleet.prometheus, "ALERTS{alertname=~\"FilltopVolume.*\"}")?;
    let ours = |alert: &&Value| alert["metric"]["volume"] == mount;
    ensure!(quiet.iter().filter(ours).count() == 0, "alerts at rest: {quiet:?}");

    let job = Job {
        name: "runaway",
        root: volume.path(),
        block: 64 << 10,
        every_ms: 4,
        workers: 0,
        cgroup: None,
    };
    let writer = Writer::start(&job)?;
    let began = Instant::now();
    let firing = ("FilltopVolumeFullSoon", mount, "firing");
    let (arrived, alert) = fleet.alert(firing, Duration::from_secs(60))?;
    let took = arrived.duration_since(began);
    println!("from the first write to the receiver: {:.1} s", took.as_secs_f64());
    println!("{}", alert["annotations"]);
    ensure!(alert["labels"]["severity"] == "critical", "{alert}");
    // The culprit has the same name as in all other outputs.
    let snapshot = watch.snapshot("2s")?;
    let row = snapshot.writers.iter().find(|row| row.comm == "runaway").context("no runaway")?;
    let group = row.group.as_ref().context("the runaway has no group")?;
    let culprit = alert["annotations"]["culprit"].as_str().context("no culprit")?;
    ensure!(!culprit.is_empty() && group.name.starts_with(culprit), "{culprit}: {group:?}");
    dashboard(&fleet, mount)?;

    drop(writer);
    for entry in fs::read_dir(volume.path())?.flatten() {
        if entry.path().is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    let over = Instant::now();
    let resolved = ("FilltopVolumeFullSoon", mount, "resolved");
    let (at, _) = fleet.alert(resolved, Duration::from_secs(120))?;
    println!("resolved {:.1} s after the end", at.duration_since(over).as_secs_f64());
    Ok(())
}

/// Every query of the dashboard is valid for this Prometheus and about existing metrics; those
/// about the runaway have a result.
fn dashboard(fleet: &Fleet, mount: &str) -> Result {
    let text = fs::read_to_string(contrib("grafana/filltop.json")?)?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let names = get(fleet.prometheus, "/api/v1/label/__name__/values")?.1;
    let names: Value = serde_json::from_str(&names)?;
    let known: BTreeSet<&str> =
        names["data"].as_array().context("no names")?.iter().filter_map(Value::as_str).collect();
    // These do not exist without a declared directory or an error.
    let may_be_absent = ["filltop_directory_", "filltop_volume_explained_ratio"];
    let mut answered = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("no expr")?;
            for name in expression.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c))
            {
                if name.starts_with("filltop_") || name.starts_with("instance_") {
                    let absent = may_be_absent.iter().any(|prefix| name.starts_with(prefix));
                    // A recording rule over five minutes has no value after a few seconds.
                    ensure!(absent || name.contains(":rate") || known.contains(name), "{name}");
                }
            }
            let filled = expression
                .replace("$instance", ".*")
                .replace("$volume", mount)
                .replace("$__range", "1m");
            if !query(fleet.prometheus, &filled)?.is_empty() {
                answered.push(panel["title"].as_str().context("no title")?.to_owned());
            }
        }
    }
    println!("answered: {}", answered.join(", "));
    for title in ["Time to full", "Used", "Available", "Growth by group", "Alerts", "Versions"] {
        ensure!(answered.iter().any(|one| one == title), "{title} has no answer: {answered:?}");
    }
    Ok(())
}
