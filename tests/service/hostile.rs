//! Clients that stall, die, send garbage or have no permission.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Public, TestVolume, filltop, need_tracing, run_workload, workload};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};
use rustix::process::Signal;

use crate::Result;
use crate::watch::{Watch, utf8, value};

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(body);
    frame
}

fn hello(protocol: u32) -> Vec<u8> {
    let body =
        format!(r#"{{"protocol":{protocol},"client":"test","since_s":3600.0,"follow":true}}"#);
    frame(b'H', body.as_bytes())
}

/// Type and body of the next frame.
fn next(stream: &mut UnixStream) -> anyhow::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head[4], body))
}

fn connect(watch: &Watch) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(watch.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

#[test]
fn garbage_is_answered_with_an_error_and_disconnected() -> Result {
    need_tracing!();
    let watch = Watch::start(&[])?;
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no hello"),
        ("too long", [&u32::MAX.to_le_bytes()[..], b"H"].concat(), "longer than"),
        ("no JSON", frame(b'H', b"\xff\xfe{"), "no hello"),
        ("another frame", frame(b'S', b""), "no hello"),
        ("another version", hello(99), "protocol 1, not 99"),
        ("nothing", Vec::new(), "no hello in time"),
        ("half a hello", hello(1)[..20].to_vec(), "no hello in time"),
    ];
    for (name, bytes, words) in cases {
        let mut stream = connect(&watch)?;
        stream.write_all(&bytes)?;
        let (kind, body) = next(&mut stream).with_context(|| name.to_owned())?;
        let said = String::from_utf8(body)?;
        ensure!(kind == b'R' && said.contains(words), "{name}: {said}");
        let mut rest = Vec::new();
        // Unread data that it had sent resets the connection.
        let _ = stream.read_to_end(&mut rest);
        ensure!(rest.is_empty(), "{name}: more data after the error");
    }
    // The same after a welcome.
    let mut stream = connect(&watch)?;
    stream.write_all(&hello(1))?;
    ensure!(next(&mut stream)?.0 == b'W');
    stream.write_all(b"x")?;
    while let Ok((kind, _)) = next(&mut stream) {
        ensure!(kind == b'S' || kind == b'R', "{kind}");
    }
    let refused = value(&watch.metrics("")?, "filltop_service_refused_clients_total");
    ensure!(refused == Some(8.0), "{refused:?}");
    watch.snapshot("1s")?;
    Ok(())
}

/// Forty clients that read nothing: the service answers others as before, measures as before, and
/// does not grow.
#[test]
fn stalled_clients_cost_nothing_and_are_dropped() -> Result {
    need_tracing!();
    let watch = Watch::start(&[])?;
    thread::sleep(Duration::from_secs(2));
    let before = watch.resident()?;
    // These never read: data is sent until the socket's buffer is full, then nothing.
    let mut stalled = Vec::new();
    for _ in 0..31 {
        let mut stream = connect(&watch)?;
        stream.write_all(&hello(1))?;
        stalled.push(stream);
    }
    thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    watch.snapshot("1s")?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(1), "answered only after {took:?}");
    // A client too many is refused immediately; it is not kept waiting.
    let mut last = connect(&watch)?;
    last.write_all(&hello(1))?;
    ensure!(next(&mut last)?.0 == b'W', "the last free place is refused");
    let mut more = connect(&watch)?;
    let (kind, body) = next(&mut more)?;
    let said = String::from_utf8(body)?;
    ensure!(kind == b'R' && said.contains("32 clients"), "{said}");
    drop((last, more));
    // Sampling stays on time: no interval is longer than it should be.
    let count = |text: &str| value(text, "filltop_snapshots_total").context("no count");
    let (first, since) = (count(&watch.metrics("")?)?, Instant::now());
    thread::sleep(Duration::from_secs(5));
    let text = watch.metrics("")?;
    let rate = (count(&text)? - first) / since.elapsed().as_secs_f64();
    ensure!((1.6..2.4).contains(&rate), "{rate} Snapshots a second");
    let grown = watch.resident()?.saturating_sub(before);
    println!("31 stalled clients: {} KiB more", grown >> 10);
    ensure!(grown < 16 << 20, "{grown} bytes more");
    // Clients that died are dropped.
    drop(stalled);
    let clients = |text: &str| value(text, "filltop_service_clients");
    let text = watch.settled("", |text| clients(text) == Some(0.0))?;
    ensure!(clients(&text) == Some(0.0), "{:?}", clients(&text));
    Ok(())
}

/// A full volume prevents the socket, not the watch.
#[test]
fn watch_runs_even_if_the_socket_is_on_a_full_volume() -> Result {
    need_tracing!();
    let full = TestVolume::new("ext4", 16)?;
    // Directories may also take the blocks that files leave, which the filesystem keeps for itself.
    // Writeback may release some that were reserved for it.
    for n in 0.. {
        ensure!(n < 20_000, "the volume is not full");
        if n % 100 == 0 {
            run_workload(workload().arg("fill").arg(full.path().join(format!("all-{n}"))))?;
            rustix::fs::syncfs(&File::open(full.path())?)?;
        }
        match fs::create_dir(full.path().join(format!("dir-{n}"))) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    let socket = full.path().join("run/filltop.sock");
    let watch = Watch::start_at(&socket)?;
    ensure!(!socket.exists());
    ensure!(watch.metrics("")?.contains("filltop_volume_avail_bytes"));
    Ok(())
}

/// A service that hangs does not hang its clients: after a while commands measure directly.
#[test]
fn commands_measure_directly_if_the_service_hangs() -> Result {
    need_tracing!();
    let watch = Watch::start(&[])?;
    watch.suspend()?;
    // Its queue takes at most 128 on usual systems, then connect(2) itself would block.
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
        if connect_to(&socket, &SocketAddrUnix::new(watch.socket())?).is_err() {
            break;
        }
        waiting.push(socket);
    }
    println!("{} in the queue", waiting.len());
    for full in [true, false] {
        let start = Instant::now();
        let output = watch.ask(&["snapshot", "--json", "--for", "300ms"]).output()?;
        let (took, said) = (start.elapsed(), String::from_utf8(output.stderr)?);
        ensure!(output.status.success() && said.contains("does not answer"), "{full}: {said}");
        // Five seconds of waiting, plus the time to measure.
        ensure!(took < Duration::from_secs(30), "{full}: {took:?}");
        waiting.clear();
        watch.signal(Signal::CONT)?;
        thread::sleep(Duration::from_millis(500));
        watch.suspend()?;
    }
    watch.signal(Signal::CONT)?;
    watch.snapshot("1s")?;
    Ok(())
}

#[test]
fn stalled_scrapers_do_not_block_others_for_long() -> Result {
    need_tracing!();
    let watch = Watch::start(&[])?;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(watch.address())?;
        stream.write_all(b"GET /metrics HTT")?;
        slow.push(stream);
    }
    let start = Instant::now();
    let text = loop {
        if let Ok(text) = watch.metrics("") {
            break text;
        }
        ensure!(start.elapsed() < Duration::from_secs(12), "no scrape succeeds");
    };
    println!("answered after {:.1} s", start.elapsed().as_secs_f64());
    ensure!(text.contains("filltop_volume_avail_bytes"));
    watch.snapshot("1s")?;
    Ok(())
}

/// A command run as nobody, with or without an additional group.
fn as_nobody(watch: &Watch, group: Option<u32>) -> anyhow::Result<Output> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534"]);
    match group {
        Some(group) => command.arg("--groups").arg(group.to_string()),
        None => command.arg("--clear-groups"),
    };
    let program = Public::new(&filltop())?;
    command.arg(program.path()).args(["snapshot", "--json", "--for", "500ms"]);
    command.arg("--socket").arg(watch.socket());
    Ok(command.stderr(Stdio::piped()).output()?)
}

/// The socket's permissions admit root and the group; if they are opened, the service still checks
/// its clients.
#[test]
fn only_root_and_the_group_may_connect() -> Result {
    const GROUP: u32 = 54_321;
    need_tracing!();
    let dir = tempfile::tempdir()?;
    let groups = dir.path().join("group");
    fs::write(&groups, format!("root:x:0:\nfilltop:x:{GROUP}:\n"))?;
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {} /etc/group && exec \"$0\" \"$@\"", utf8(&groups)?);
    command.args(["--mount", "sh", "-c", &script]).arg(filltop());
    let watch = Watch::start_by(command, &[])?;
    let socket = watch.socket();
    let mode = fs::metadata(&socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o660, "{mode:o}");
    // Temporary directories are open to root alone; only the socket is under test here.
    for folder in socket.ancestors().skip(2).take(1) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let output = as_nobody(&watch, Some(GROUP))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = as_nobody(&watch, None)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && said.contains("join the group filltop"), "{said}");
    for path in [socket.parent().context("it has a folder")?, &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    let output = as_nobody(&watch, None)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("only root and members of the group filltop"), "{said}");
    ensure!(!output.status.success(), "the command measured as user nobody");
    // Clients check the service as well: one of user nobody is not trusted.
    let fake = dir.path().join("fake.sock");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    let mut python = Command::new("python3");
    let script = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); \
                  s.listen(); print('ready', flush=True); time.sleep(20)";
    python.args(["-c", script]).arg(&fake).uid(65534).gid(65534).stdout(Stdio::piped());
    let Ok(mut python) = python.spawn() else {
        println!("SKIP the part about a fake service: python3 is not installed");
        return Ok(());
    };
    let mut stdout = python.stdout.take().context("piped")?;
    stdout.read_exact(&mut [0; 6])?;
    let command = ["snapshot", "--json", "--for", "300ms", "--socket", utf8(&fake)?];
    let output = Command::new(filltop()).args(command).output()?;
    python.kill()?;
    python.wait()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success() && said.contains("neither root nor you"), "{said}");
    Ok(())
}
