//! Helpers of the sinks' tests, and tests of queue and worker.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracer_model::alert::{Event, EventKind, Severity, Suggestion};

use super::*;
use crate::config::{AlertmanagerTarget, Endpoint, Template, WebhookTarget};
use tracer_model::fixtures;

/// A critical alert with every field.
pub(crate) fn event() -> Event {
    let busy = fixtures::busy();
    Event {
        schema: 1,
        time: busy.taken_at,
        event: EventKind::Firing,
        rule: "time-to-full".to_owned(),
        severity: Severity::Critical,
        volume: Some("/srv/store".to_owned()),
        directory: Some("/srv/store/.minio.sys/multipart".to_owned()),
        summary: "/srv/store will be full in 4 min: minio (pid 2114) adds 100.0 MiB/s".to_owned(),
        avail_bytes: Some(busy.volumes[0].avail_bytes),
        eta_s: busy.volumes[0].eta_s,
        pace_s: busy.volumes[0].pace_s,
        culprits: vec![busy.writers[0].clone()],
        victims: busy.victims,
        held_bytes: busy.volumes[0].held_bytes,
        suggestion: Some(Suggestion {
            target: "2114".to_owned(),
            how: "freeze".to_owned(),
            frees_bytes: 0,
            command: "filltop stop 2114 --how freeze".to_owned(),
        }),
        host: busy.host,
        key: "db1/time-to-full//srv/store".to_owned(),
        id: "db1/time-to-full//srv/store/1/1".to_owned(),
        since: busy.taken_at,
        resolved: false,
    }
}

type Server = Box<dyn Fn(TcpStream, usize) + Send>;

/// Starts a loopback server that runs `with` on each connection; returns its address.
fn serve(with: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            with(stream, n);
        }
    });
    address
}

/// Reads one request to the end of its body; returns its head and body.
fn request(stream: &mut impl Read) -> (String, String) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return (head.to_owned(), body.to_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return (text, String::new()),
        }
    }
}

fn answer(mut stream: impl Read + Write, status: &str) -> String {
    let (_, body) = request(&mut stream);
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    body
}

fn webhook(url: String, ca_file: Option<std::path::PathBuf>) -> webhook::Webhook {
    webhook::Webhook::new(&WebhookTarget {
        endpoint: Endpoint {
            url,
            headers: std::collections::BTreeMap::new(),
            ca_file,
            timeout: Duration::from_millis(500),
        },
        template: Template::Json,
    })
}

fn post_to(with: Server) -> (Result<(), Failure>, Duration) {
    let address = serve(with);
    let start = clock::instant();
    let result = webhook(format!("http://{address}/hook"), None).deliver(&event());
    (result, start.elapsed())
}

/// Keeps a connection open without sending anything: to the client it looks half-open.
fn keep(stream: TcpStream) {
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(3));
        drop(stream);
    });
}

#[test]
fn http_failures_are_classified_and_time_out() {
    let (ok, _) = post_to(Box::new(|stream, _| drop(answer(stream, "204 No Content"))));
    assert_eq!(ok, Ok(()));
    let retried: [(&str, Server); 7] = [
        ("500", Box::new(|stream, _| drop(answer(stream, "500 Oh no")))),
        ("429", Box::new(|stream, _| drop(answer(stream, "429 Later")))),
        ("half-open", Box::new(|stream, _| keep(stream))),
        ("closed immediately", Box::new(|stream, _| drop(stream))),
        (
            "garbage",
            Box::new(|mut stream, _| {
                request(&mut stream);
                let _ = stream.write_all(&[0xff; 4096]);
            }),
        ),
        (
            "slow",
            Box::new(|mut stream, _| {
                request(&mut stream);
                for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().cycle().take(60) {
                    thread::sleep(Duration::from_millis(50));
                    let _ = stream.write_all(&[*byte]);
                }
            }),
        ),
        (
            "endless head",
            Box::new(|mut stream, _| {
                request(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
            }),
        ),
    ];
    for (what, server) in retried {
        let (result, took) = post_to(server);
        assert!(matches!(result, Err(Failure::Retry(_))), "{what}: {result:?}");
        assert!(took < Duration::from_secs(2), "{what} took {took:?}");
    }
    for status in ["400 Bad", "404 Not here", "301 Elsewhere\r\nLocation: http://127.0.0.1:1/"] {
        let (result, _) = post_to(Box::new(move |stream, _| drop(answer(stream, status))));
        assert!(matches!(result, Err(Failure::Never(_))), "{status}: {result:?}");
    }
    let refused = webhook("http://127.0.0.1:1/secret-path".to_owned(), None).deliver(&event());
    let Err(Failure::Retry(text)) = refused else { panic!("{refused:?}") };
    assert!(text.starts_with("127.0.0.1:1: ") && !text.contains("secret"), "{text}");
}

#[test]
fn tls_is_checked_against_the_given_authority() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        println!(
            "SKIP tls_is_checked_against_the_given_authority: no openssl to make certificates"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let openssl = |arguments: &str| {
        let text = arguments.split_whitespace();
        let done =
            std::process::Command::new("openssl").args(text).current_dir(dir.path()).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca"));
    openssl(&format!("req -x509 {key} -keyout other.key -out other.pem -subj /CN=other"));
    openssl(&format!("req -new {key} -keyout key.pem -out csr.pem -subj /CN=localhost"));
    std::fs::write(file("ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem",
    );
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("cert.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("key.pem")).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let address = serve(Box::new(move |mut stream, _| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        answer(rustls::Stream::new(&mut tls, &mut stream), "200 OK");
    }));
    let port = address.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}/");
    assert_eq!(webhook(url.clone(), Some(file("ca.pem"))).deliver(&event()), Ok(()));
    for (url, ca) in [
        (url.clone(), Some(file("other.pem"))),
        (url, None),
        (format!("https://127.0.0.1:{port}/"), Some(file("ca.pem"))),
    ] {
        let refused = webhook(url.clone(), ca).deliver(&event());
        let Err(Failure::Retry(text)) = refused else { panic!("{url}: {refused:?}") };
        assert!(text.to_lowercase().contains("certificate"), "{text}");
    }
}

/// A sink that fails a number of times, then passes on the ids of its events.
struct Scripted {
    failures: usize,
    given: std::sync::mpsc::Sender<String>,
}

impl Deliver for Scripted {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(Failure::Retry("not yet".to_owned()));
        }
        let _ = self.given.send(event.id.clone());
        Ok(())
    }
}

fn scripted(
    failures: usize,
    give_up: f64,
) -> (Arc<Queue>, std::sync::mpsc::Receiver<String>, tokio::sync::mpsc::UnboundedReceiver<SinkReport>)
{
    let queue = Arc::new(Queue::default());
    let (given, gets) = std::sync::mpsc::channel();
    let (reports, reported) = tokio::sync::mpsc::unbounded_channel();
    let worker = worker::Worker {
        name: "test".to_owned(),
        give_up_after: Duration::from_secs_f64(give_up),
        queue: Arc::clone(&queue),
        reports,
    };
    thread::spawn(move || worker.run(&mut Scripted { failures, given }));
    (queue, gets, reported)
}

fn numbered(n: usize, kind: EventKind) -> Arc<Event> {
    Arc::new(Event { event: kind, id: n.to_string(), key: format!("key {}", n % 300), ..event() })
}

#[test]
fn a_failed_event_is_delivered_once_later_and_the_failure_is_reported() {
    let (queue, gets, mut reports) = scripted(2, 60.0);
    queue.push(numbered(1, EventKind::Firing));
    // Reminders of an alert that is still queued are redundant.
    queue.push(numbered(1, EventKind::Repeat));
    queue.push(numbered(1, EventKind::Repeat));
    queue.push(numbered(2, EventKind::Firing));
    let wait = Duration::from_secs(10);
    assert_eq!(gets.recv_timeout(wait).unwrap(), "1");
    assert_eq!(gets.recv_timeout(wait).unwrap(), "2");
    assert!(gets.recv_timeout(Duration::from_millis(200)).is_err());
    let states = [reports.blocking_recv().unwrap().state, reports.blocking_recv().unwrap().state];
    assert!(matches!(&states[0], SinkState::Failing { why, .. } if why == "not yet"), "{states:?}");
    assert!(matches!(states[1], SinkState::Recovered { .. }), "{states:?}");
}

#[test]
fn an_undeliverable_event_is_dropped_and_reported() {
    let (queue, gets, mut reports) = scripted(usize::MAX, 0.0);
    queue.push(numbered(1, EventKind::Firing));
    let state = reports.blocking_recv().unwrap().state;
    assert!(matches!(state, SinkState::Dropped { events: 1, .. }), "{state:?}");
    queue.close();
    assert!(gets.recv_timeout(Duration::from_secs(5)).is_err());
}

#[test]
fn a_queue_is_bounded_and_drops_reminders_first() {
    let queue = Queue::default();
    for n in 0..queue::CAPACITY {
        let kind = if n == 100 { EventKind::Repeat } else { EventKind::Firing };
        queue.push(numbered(n, kind));
    }
    queue.push(numbered(257, EventKind::Firing));
    queue.push(numbered(258, EventKind::Firing));
    assert_eq!((queue.len(), queue.take_dropped()), (queue::CAPACITY, 2));
    let mut left = Vec::new();
    queue.close();
    while let queue::Next::Event(event) = queue.next(None) {
        left.push(event.id.clone());
        queue.done();
    }
    assert!(!left.contains(&"100".to_owned()), "the reminder went first");
    assert!(!left.contains(&"0".to_owned()), "then the oldest");
    assert_eq!(left.last().unwrap(), "258");
}

#[test]
fn a_stalled_delivery_is_reported_once() {
    let queue = Queue::default();
    queue.push(numbered(1, EventKind::Firing));
    assert!(matches!(queue.next(None), queue::Next::Event(_)));
    let later = clock::instant() + Duration::from_secs(60);
    assert_eq!(queue.report_stalled(clock::instant(), STALL_TIMEOUT), None);
    assert_eq!(queue.report_stalled(later, STALL_TIMEOUT), Some(1));
    assert_eq!(queue.report_stalled(later, STALL_TIMEOUT), None);
}

#[test]
fn alertmanager_gets_resent_alerts_and_their_end() {
    let (seen, sees) = std::sync::mpsc::channel();
    let address = serve(Box::new(move |stream, _| {
        let _ = seen.send(answer(stream, "200 OK"));
    }));
    let target = AlertmanagerTarget {
        endpoint: Endpoint {
            url: format!("http://{address}"),
            headers: std::collections::BTreeMap::new(),
            ca_file: None,
            timeout: Duration::from_secs(5),
        },
        labels: [("team".to_owned(), "storage".to_owned())].into(),
        resend: Duration::from_secs(60),
    };
    let mut sink = alertmanager::Alertmanager::new(&target);
    let get = || -> serde_json::Value {
        serde_json::from_str(&sees.recv_timeout(Duration::from_secs(5)).unwrap()).unwrap()
    };
    let now = clock::now();
    let event = Event { time: now, since: now, severity: Severity::Warning, ..event() };
    sink.deliver(&event).unwrap();
    let first = get();
    assert_eq!(first[0]["labels"]["alertname"], "FilltopTimeToFull");
    assert_eq!(first[0]["labels"]["team"], "storage");
    let ends = |value: &serde_json::Value| -> jiff::Timestamp {
        value["endsAt"].as_str().unwrap().parse().unwrap()
    };
    assert!(ends(&first[0]).duration_since(now).as_secs() > 200);
    sink.idle().unwrap();
    assert_eq!(get()[0]["labels"], first[0]["labels"]);
    // Another severity is another alert to Alertmanager: the old one ends.
    sink.deliver(&Event { severity: Severity::Critical, ..event.clone() }).unwrap();
    let both = get();
    assert_eq!(
        (&both[0]["labels"]["severity"], &both[1]["labels"]["severity"]),
        (&"warning".into(), &"critical".into())
    );
    assert!(ends(&both[0]) <= clock::now());
    let over = Event {
        resolved: true,
        event: EventKind::Resolved,
        severity: Severity::Critical,
        time: clock::now(),
        ..event
    };
    sink.deliver(&over).unwrap();
    assert!(ends(&get()[0]) <= clock::now());
    sink.idle().unwrap();
    assert!(sees.recv_timeout(Duration::from_millis(100)).is_err(), "nothing is firing");
}
