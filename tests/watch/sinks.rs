//! Alerts reach every sink, whatever is full, slow or gone.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use filltop_tests::listeners::{arrives, http, listener, tcp};
use filltop_tests::{TestVolume, Watch, fill, is, need_tracing};
use tracer_model::alert::{Event, EventKind};

use super::{Result, SECOND};

/// The datagrams that our socket receives.
fn datagrams(socket: UnixDatagram) -> Receiver<(Instant, String)> {
    let (text, texts) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(length) = socket.recv(&mut buffer) {
            let part = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.send((Instant::now(), part)).is_err() {
                return;
            }
        }
    });
    texts
}

#[test]
fn every_sink_delivers_while_filltops_own_disk_is_full() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 100)?;
    let sockets = tempfile::tempdir()?;
    let journal = sockets.path().join("journal");
    let log = sockets.path().join("log");
    let ports: Vec<(TcpListener, u16)> =
        (0..5).map(|_| listener()).collect::<anyhow::Result<_>>()?;
    let port = |n: usize| ports[n].1;
    let config = format!(
        r#"
[[journald]]
socket = "{journal}"
[[syslog]]
to = "{log}"
[[syslog]]
to = "tcp://127.0.0.1:{tcp}"
[[webhook]]
url = "http://localhost:{hook}/x"
format = "slack"
[[alertmanager]]
url = "http://127.0.0.1:{alertmanager}"
[[exec]]
command = ["/bin/bash", "-c", "echo $FILLTOP_RULE $FILLTOP_EVENT $FILLTOP_VOLUME > /dev/tcp/127.0.0.1/{exec}"]
[[mail]]
to = ["ops@example.org"]
command = ["/bin/bash", "-c", "exec cat > /dev/tcp/127.0.0.1/{mail}"]
"#,
        journal = journal.display(),
        log = log.display(),
        tcp = port(0),
        hook = port(1),
        alertmanager = port(2),
        exec = port(3),
        mail = port(4),
    );
    let journal = datagrams(UnixDatagram::bind(&journal)?);
    let log = datagrams(UnixDatagram::bind(&log)?);
    let mut ports = ports.into_iter().map(|(listener, _)| listener);
    let mut next = || ports.next().context("a listener for each");
    let (syslog, hook, alertmanager) = (tcp(next()?), http(next()?), http(next()?));
    let (exec, mail) = (tcp(next()?), tcp(next()?));
    // Everything that it might write to is on the volume that fills.
    let watch = Watch::start_with(&config, |command| {
        command.current_dir(volume.path());
        for name in ["TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env(name, volume.path());
        }
    })?;
    thread::sleep(2 * SECOND);
    fill(&volume.path().join("big"))?;
    let most = 10 * SECOND;
    watch.wait(most, is(volume.path(), "full", EventKind::Firing))?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let full = format!("{mount} is FULL");
    arrives(&journal, "journald", &["FILLTOP_RULE=full\n", "PRIORITY=2\n", &full], most)?;
    arrives(&log, "syslog", &["<26>", &full], most)?;
    arrives(&syslog, "syslog by TCP", &["<26>1 ", &full], most)?;
    arrives(&hook, "slack", &["\"text\"", ":rotating_light:", &full], most)?;
    arrives(&alertmanager, "alertmanager", &["\"alertname\":\"FilltopFull\"", &full], most)?;
    arrives(&exec, "exec", &[&format!("full firing {mount}\n")], most)?;
    arrives(&mail, "mail", &["To: ops@example.org\n", "Subject: [CRITICAL]", &full], most)?;
    Ok(())
}

#[test]
fn a_webhook_that_was_down_for_a_minute_receives_the_alert_once() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let (closed, port) = listener()?;
    drop(closed);
    let config = format!(
        "[[rule]]\nname = \"used\"\nwhen = \"used_bytes\"\nvolumes = [\"{mount}\"]\nwarning = \"10MiB\"\nrepeat = \"1s\"\n\
         [[webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:{port}/\"\n"
    );
    let watch = Watch::start(&config)?;
    std::fs::write(volume.path().join("file"), vec![7; 20 << 20])?;
    watch.wait(5 * SECOND, is(volume.path(), "used", EventKind::Firing))?;
    let down = Instant::now();
    let (_, event) = watch.wait(10 * SECOND, |event| event.rule == "sink")?;
    ensure!(event.summary.starts_with("sink ops cannot deliver alerts: "), "{}", event.summary);
    thread::sleep((60 * SECOND).saturating_sub(down.elapsed()));
    let bodies = http(TcpListener::bind(("127.0.0.1", port))?);
    let mut fired = 0;
    // The longest pause between two attempts is 30 s. After a success it is one second again, so
    // that a second delivery would follow soon.
    let mut until = Instant::now() + 45 * SECOND;
    while let Ok((_, body)) = bodies.recv_timeout(until.saturating_duration_since(Instant::now())) {
        let event: Event = serde_json::from_str(&body).context(body)?;
        if event.rule == "used" && event.event == EventKind::Firing {
            fired += 1;
            until = until.min(Instant::now() + 10 * SECOND);
            println!("delivered {:.1} s after the alert", down.elapsed().as_secs_f64());
        }
    }
    ensure!(fired == 1, "delivered {fired} times");
    watch.wait(SECOND, |event| event.summary.starts_with("sink ops delivers alerts again"))?;
    Ok(())
}

#[test]
fn a_stalled_reader_does_not_block_other_sinks() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    std::fs::write(volume.path().join("file"), vec![7; 20 << 20])?;
    let (hook, port) = listener()?;
    let (half_open, dead_port) = listener()?;
    let mut config = format!(
        "[[webhook]]\nurl = \"http://127.0.0.1:{port}/\"\n\
         [[webhook]]\nname = \"dead\"\nurl = \"http://127.0.0.1:{dead_port}/\"\n"
    );
    for n in 0..40 {
        config.push_str(&format!(
            "[[rule]]\nname = \"used-{n}\"\nwhen = \"used_bytes\"\nvolumes = [\"{mount}\"]\nwarning = \"10MiB\"\nrepeat = \"1s\"\n"
        ));
    }
    let bodies = http(hook);
    // This pipe is not read: it holds 64 KiB.
    let (mut reader, writer) = std::io::pipe()?;
    let watch = Watch::start_with(&config, |command| {
        command.stdout(Stdio::from(writer));
    })?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < 8 * SECOND {
        if bodies.recv_timeout(2 * SECOND).is_ok() {
            count += 1;
        }
    }
    ensure!(count >= 100, "{count} events in 8 s from the working webhook");
    let (took, status) = watch.stop()?;
    ensure!(took < SECOND && status.success(), "{took:?}, {status}");
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    ensure!(text.len() <= 1 << 17, "the pipe was full");
    drop(half_open);
    Ok(())
}

#[test]
fn exec_sinks_keep_the_privileges_that_the_tracer_drops() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let (socket, port) = listener()?;
    let rule = format!(
        "[[rule]]\nname = \"used\"\nwhen = \"used_bytes\"\nvolumes = [\"{mount}\"]\nwarning = \"10MiB\"\n"
    );
    let exec = format!(
        "[[exec]]\ncommand = [\"/bin/bash\", \"-c\", \"exec grep -E '^(NoNewPrivs|CapEff)' /proc/self/status > /dev/tcp/127.0.0.1/{port}\"]\n"
    );
    let own = std::fs::read_to_string("/proc/self/status")?;
    let capabilities =
        |status: &str| status.lines().find(|line| line.starts_with("CapEff:")).map(str::to_owned);
    let texts = tcp(socket);
    let watch = Watch::start(&format!("{rule}{exec}"))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.pid()))?;
    ensure!(status.contains("NoNewPrivs:\t1"), "the tracer has no no_new_privs: {status}");
    std::fs::write(volume.path().join("file"), vec![7; 20 << 20])?;
    let kept = capabilities(&own).context("no CapEff")?;
    arrives(&texts, "exec", &["NoNewPrivs:\t0", &kept], 10 * SECOND)?;
    drop(watch);
    // A reload that adds one comes too late, and that is reported.
    let watch = Watch::start(&rule)?;
    std::fs::write(watch.config(), format!("{rule}{exec}"))?;
    watch.signal(rustix::process::Signal::HUP)?;
    watch.wait(5 * SECOND, |event| event.summary.contains("without root's privileges"))?;
    std::fs::write(volume.path().join("more"), vec![7; 1 << 20])?;
    arrives(&texts, "exec", &["NoNewPrivs:\t1"], 10 * SECOND)
}
