//! The syslog sink: the local socket, or a remote host over UDP (RFC 5426) or TCP (RFC 6587, octet
//! counting).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tracer_model::alert::Event;

use super::journald::priority;
use super::{Deliver, Failure};
use crate::config::{SyslogAddress, SyslogTarget};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum message length, bytes. RFC 5426: receivers must accept 480 and should accept 2048.
const MAX_MESSAGE: usize = 2048;

pub(super) struct Syslog {
    target: SyslogTarget,
    tcp: Option<TcpStream>,
}

impl Syslog {
    pub(super) fn new(target: &SyslogTarget) -> Self {
        Self { target: target.clone(), tcp: None }
    }

    fn send(&mut self, event: &Event) -> std::io::Result<()> {
        let priority = self.target.facility * 8 + priority(event);
        match &self.target.to {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                socket.send_to(local(event, priority).as_bytes(), path).map(|_| ())
            }
            SyslogAddress::Udp(to) => {
                let address = resolve(to)?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                // Connected, so that a closed port shows as an error of the next message.
                socket.connect(address)?;
                socket.send(remote(event, priority).as_bytes()).map(|_| ())
            }
            SyslogAddress::Tcp(to) => {
                let mut stream = match self.tcp.take().filter(is_open) {
                    Some(stream) => stream,
                    None => {
                        let stream = TcpStream::connect_timeout(&resolve(to)?, TIMEOUT)?;
                        stream.set_write_timeout(Some(TIMEOUT))?;
                        stream
                    }
                };
                let text = remote(event, priority);
                stream.write_all(format!("{} {text}", text.len()).as_bytes())?;
                self.tcp = Some(stream);
                Ok(())
            }
        }
    }
}

impl Deliver for Syslog {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        self.send(event).map_err(|error| Failure::Retry(error.to_string()))
    }
}

fn resolve(to: &str) -> std::io::Result<SocketAddr> {
    to.to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other(format!("{to} has no address")))
}

/// Whether the peer has not closed the connection. syslog has no acknowledgements; this at least
/// detects a closed peer before the next message.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let mut reader = stream;
    let quiet = stream.set_nonblocking(true).is_ok()
        && matches!(reader.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    quiet && stream.set_nonblocking(false).is_ok()
}

/// Formats a message for the local system log (RFC 3164, without the host). The log daemon uses its
/// own time stamp.
fn local(event: &Event, priority: u8) -> String {
    let time = event.time.strftime("%b %e %H:%M:%S");
    let pid = std::process::id();
    truncate(format!("<{priority}>{time} filltop[{pid}]: {} {}", event.rule, event.summary))
}

/// Formats a message for a remote system log (RFC 5424).
fn remote(event: &Event, priority: u8) -> String {
    let printable = |text: &str, most: usize| -> String {
        let text: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let host = printable(&event.host, 255);
    let rule = printable(&event.rule, 32);
    let pid = std::process::id();
    let time = event.time.strftime("%Y-%m-%dT%H:%M:%SZ");
    let (kind, severity) = (event.event.name(), event.severity.name());
    let text = &event.summary;
    truncate(format!(
        "<{priority}>1 {time} {host} filltop {pid} {rule} - {kind} {severity}: {text}"
    ))
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::sinks::tests::event;
    use std::net::TcpListener;

    #[test]
    fn local_and_remote_messages_have_their_formats() {
        assert!(local(&event(), 26).starts_with("<26>Nov 21 03:12:07 filltop["));
        let text = remote(&event(), 26);
        assert!(text.starts_with("<26>1 2026-11-21T03:12:07Z db1 filltop "), "{text}");
        assert!(text.contains(" time-to-full - firing critical: "), "{text}");
        let long = Event { summary: "é".repeat(5000), ..event() };
        assert!(remote(&long, 26).len() <= MAX_MESSAGE);
    }

    #[test]
    fn datagrams_arrive_and_a_missing_local_socket_is_retried() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SyslogAddress::Udp(server.local_addr().unwrap().to_string());
        Syslog::new(&SyslogTarget { to, facility: 16 }).deliver(&event()).unwrap();
        let mut buffer = [0; 4096];
        let length = server.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with("<130>1 "), "{text}");
        let dir = tempfile::tempdir().unwrap();
        let to = SyslogAddress::Unix(dir.path().join("log"));
        let mut syslog = Syslog::new(&SyslogTarget { to, facility: 3 });
        assert!(matches!(syslog.deliver(&event()), Err(Failure::Retry(_))));
        let listener = UnixDatagram::bind(dir.path().join("log")).unwrap();
        syslog.deliver(&event()).unwrap();
        assert!(listener.recv(&mut buffer).unwrap() > 50);
    }

    /// With a receiver that does not read, the attempt times out.
    #[test]
    fn a_receiver_that_does_not_read_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixDatagram::bind(dir.path().join("log")).unwrap();
        let target = SyslogTarget { to: SyslogAddress::Unix(dir.path().join("log")), facility: 3 };
        let mut syslog = Syslog::new(&target);
        let start = std::time::Instant::now();
        let failed = (0..2000).find_map(|_| syslog.deliver(&event()).err());
        assert!(matches!(failed, Some(Failure::Retry(_))), "{failed:?}");
        assert!(start.elapsed() < TIMEOUT * 2, "{:?}", start.elapsed());
        drop(listener);
    }

    #[test]
    fn a_closed_connection_is_reopened() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = SyslogAddress::Tcp(listener.local_addr().unwrap().to_string());
        let mut syslog = Syslog::new(&SyslogTarget { to, facility: 3 });
        for _ in 0..2 {
            syslog.deliver(&event()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (count, rest) = text.split_once(' ').unwrap();
            assert_eq!(count.parse::<usize>().unwrap(), rest.len(), "{text}");
            assert!(rest.starts_with("<26>1 "), "{text}");
            drop(stream);
            std::thread::sleep(Duration::from_millis(50));
        }
        syslog.deliver(&event()).unwrap();
        drop(listener);
        std::thread::sleep(Duration::from_millis(50));
        assert!(matches!(syslog.deliver(&event()), Err(Failure::Retry(_))));
    }
}
