//! Destinations of alerts: HTTP and TCP servers on loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

/// The bodies that an HTTP server receives on this listener; it answers 200.
#[must_use]
pub fn http(listener: TcpListener) -> Receiver<(Instant, String)> {
    let (body, bodies) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let text = request(&mut stream);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if body.send((Instant::now(), text)).is_err() {
                return;
            }
        }
    });
    bodies
}

/// The body of one request.
fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return body.to_owned();
            }
        }
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return text,
        }
    }
}

/// What connections to a TCP server send until they end.
#[must_use]
pub fn tcp(listener: TcpListener) -> Receiver<(Instant, String)> {
    let (text, texts) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let text = text.clone();
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let part = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let _ = text.send((Instant::now(), part));
                }
            });
        }
    });
    texts
}

/// Waits for the next text that contains all these words.
///
/// # Errors
/// If it does not arrive in time, with what arrived instead.
pub fn arrives(
    from: &Receiver<(Instant, String)>,
    what: &str,
    words: &[&str],
    most: Duration,
) -> anyhow::Result<()> {
    let until = Instant::now() + most;
    let mut others = String::new();
    loop {
        match from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((_, text)) if words.iter().all(|word| text.contains(word)) => return Ok(()),
            Ok((_, text)) => others.push_str(&text),
            Err(_) => bail!("{what}: no text with {words:?} within {most:?}, but {others:.2000}"),
        }
    }
}

/// A loopback listener and its port.
///
/// # Errors
/// If there is no free port.
pub fn listener() -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}
