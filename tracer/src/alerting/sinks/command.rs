//! Sinks that run a program for each event: a user-defined one, or sendmail(1). No shell is
//! involved: arguments are passed unchanged, and the event's fields are in the environment.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process_group};
use tracer_model::alert::Event;

use super::{Deliver, Failure, fields};
use crate::config::{ExecTarget, MailTarget};
use tracer_host::clock;

/// Maximum length of one environment value, bytes. execve(2) allows 128 KiB (MAX_ARG_STRLEN).
const MAX_VALUE: usize = 100 << 10;
/// Bytes of the program's stderr shown in an error.
const MAX_STDERR: usize = 200;

pub(super) struct Exec(ExecTarget);

impl Exec {
    pub(super) fn new(target: &ExecTarget) -> Self {
        Self(target.clone())
    }
}

impl Deliver for Exec {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        run(&self.0.command, &fields::of(event), "", self.0.timeout)
    }
}

pub(super) struct Mail(MailTarget);

impl Mail {
    pub(super) fn new(target: &MailTarget) -> Self {
        Self(target.clone())
    }
}

impl Deliver for Mail {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        run(&self.0.command, &[], &message(event, &self.0), self.0.timeout)
    }
}

/// Formats the message (RFC 5322), with 7-bit headers.
fn message(event: &Event, target: &MailTarget) -> String {
    let state =
        if event.resolved { "RESOLVED".to_owned() } else { event.severity.name().to_uppercase() };
    let mut text = String::new();
    let mut header = |name: &str, value: &str| {
        // Only printable ASCII: nothing that could end the header. All else becomes `?`.
        let value: String =
            value.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
        text.push_str(&format!("{name}: {value}\n"));
    };
    if let Some(from) = &target.from {
        header("From", from);
    }
    header("To", &target.to.join(", "));
    let place = event.volume.as_deref().unwrap_or("filltop");
    header("Subject", &format!("[{state}] {}: {} {place}", event.host, event.rule));
    header("Date", &event.time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
    header("MIME-Version", "1.0");
    header("Content-Type", "text/plain; charset=utf-8");
    header("Content-Transfer-Encoding", "8bit");
    header("Auto-Submitted", "auto-generated");
    text.push_str(&format!("\n{}\n\n", event.summary));
    if let Some(suggestion) = &event.suggestion {
        text.push_str(&format!("Suggested action: {}\n\n", suggestion.command));
    }
    for (name, value) in fields::of(event) {
        if !matches!(name, "FILLTOP_SUMMARY" | "FILLTOP_JSON" | "FILLTOP_COMMAND") {
            let name = name.trim_start_matches("FILLTOP_").to_lowercase().replace('_', " ");
            text.push_str(&format!("{name}: {}\n", tracer_model::sanitize::display(&value)));
        }
    }
    text
}

/// Runs a program until it exits or is killed after `timeout`.
fn run(
    command: &[String],
    environment: &[(&'static str, String)],
    input: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Never("no program configured".to_owned()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(
            environment
                .iter()
                .filter(|(_, value)| value.len() <= MAX_VALUE)
                .map(|(name, value)| (*name, value.replace('\0', ""))),
        )
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Retry(format!("{program}: {error}")))?;
    // The OOM killer spares the watch, but must not spare the programs that it starts.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    // Neither a program that does not read nor one that writes endlessly may block this thread.
    if let Some(mut stdin) = stdin {
        let input = input.to_owned();
        thread::spawn(move || {
            // A program may close its input without reading it.
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    let stderr_reader = stderr.map(|mut stderr| {
        thread::spawn(move || {
            let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let space = MAX_STDERR.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..length.min(space)]);
            }
            kept
        })
    });
    let status = wait(&mut child, timeout);
    if status.is_none() {
        kill(&mut child);
    }
    let status = match status {
        None => {
            return Err(Failure::Retry(format!(
                "{program}: killed after {} s",
                timeout.as_secs_f64()
            )));
        }
        Some(Err(error)) => return Err(Failure::Retry(format!("{program}: {error}"))),
        Some(Ok(status)) => status,
    };
    if status.success() {
        return Ok(());
    }
    // A child of the program may keep its stderr open: wait only briefly for the text.
    let text = stderr_reader.filter(has_ended).and_then(|thread| thread.join().ok());
    let text = tracer_model::sanitize::escape(text.unwrap_or_default().trim_ascii());
    let colon = if text.is_empty() { "" } else { ": " };
    Err(Failure::Retry(format!("{program}: {status}{colon}{text}")))
}

fn has_ended<T>(thread: &thread::JoinHandle<T>) -> bool {
    let until = clock::instant() + Duration::from_millis(200);
    while !thread.is_finished() && clock::instant() < until {
        thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

/// Waits for the program to exit; `None` if it still runs after `timeout`.
fn wait(child: &mut Child, timeout: Duration) -> Option<std::io::Result<std::process::ExitStatus>> {
    let until = clock::instant() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(Ok(status)),
            Ok(None) if clock::instant() >= until => return None,
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Kills the program's process group: all that it started, unless moved to another group.
fn kill(child: &mut Child) {
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::sinks::tests::event;

    fn exec(command: &[&str], timeout: f64) -> Result<(), Failure> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let timeout = Duration::from_secs_f64(timeout);
        Exec::new(&ExecTarget { command, timeout }).deliver(&event())
    }

    #[test]
    fn the_environment_has_only_the_event() {
        let check = r#"[ "$FILLTOP_CULPRIT_COMM" = minio ] && [ -z "$HOME$CARGO_MANIFEST_DIR" ]"#;
        assert_eq!(exec(&["/bin/sh", "-c", check], 5.0), Ok(()));
    }

    #[test]
    fn the_error_contains_the_programs_stderr() {
        let error = exec(&["/bin/sh", "-c", "echo no such pager >&2; exit 3"], 5.0).unwrap_err();
        let Failure::Retry(error) = error else { panic!("{error:?}") };
        assert!(error.contains("exit status: 3: no such pager"), "{error}");
        assert!(matches!(exec(&["/no/such/program"], 5.0), Err(Failure::Retry(_))));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alive");
        let script = format!("(sleep 1; touch {}) & sleep 60", file.display());
        let start = clock::instant();
        let error = exec(&["/bin/sh", "-c", &script], 0.2).unwrap_err();
        assert!(matches!(error, Failure::Retry(text) if text.contains("killed after 0.2 s")));
        assert!(start.elapsed() < Duration::from_secs(1));
        thread::sleep(Duration::from_millis(1300));
        assert!(!file.exists(), "a child kept running");
    }

    #[test]
    fn endless_output_and_a_closed_stdin_do_not_block() {
        let error = exec(&["/bin/sh", "-c", "exec 0<&-; yes x >&2"], 0.5).unwrap_err();
        assert!(matches!(error, Failure::Retry(_)));
    }

    #[test]
    fn a_hostile_name_cannot_add_a_header() {
        let target = MailTarget {
            to: vec!["ops@example.org".to_owned()],
            from: None,
            command: vec!["/usr/sbin/sendmail".to_owned()],
            timeout: Duration::from_secs(5),
        };
        let hostile = Event { volume: Some("/srv\nBcc: x@example.org".to_owned()), ..event() };
        let text = message(&hostile, &target);
        let (head, body) = text.split_once("\n\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(head.contains("Subject: [CRITICAL] db1: time-to-full /srv?Bcc: x@example.org"));
        assert!(body.starts_with(&event().summary), "{body}");
    }

    #[test]
    fn sendmail_reads_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mail");
        let script = format!("cat > {}", file.display());
        let target = MailTarget {
            to: vec!["ops@example.org".to_owned()],
            from: Some("filltop@db1".to_owned()),
            command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            timeout: Duration::from_secs(5),
        };
        Mail::new(&target).deliver(&event()).unwrap();
        let text = fs::read_to_string(file).unwrap();
        assert!(text.starts_with("From: filltop@db1\nTo: ops@example.org\n"), "{text}");
    }
}
