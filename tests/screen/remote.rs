//! An sshd on loopback, with key, port and configuration for this test alone.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

const SSHD: &str = "/usr/sbin/sshd";

/// Killed, by its pid, on drop.
pub struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts it; `None` where there is no sshd or no ssh.
    pub fn start() -> anyhow::Result<Option<Self>> {
        if !Path::new(SSHD).exists() || !Path::new("/usr/bin/ssh").exists() {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key));
            ensure!(keygen.status()?.success(), "{keygen:?}");
        }
        fs::copy(at("user.pub"), at("authorized"))?;
        // The directory for privilege separation, which Debian's service creates.
        fs::create_dir_all("/run/sshd")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            host = at("host").display(),
            authorized = at("authorized").display(),
        );
        fs::write(at("config"), config)?;
        let child = Command::new(SSHD)
            .args(["-D", "-f"])
            .arg(at("config"))
            .arg("-E")
            .arg(at("log"))
            .stdin(Stdio::null())
            .spawn()?;
        let server = Self { child, port, dir };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                let log = fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
                bail!("sshd does not listen: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(server))
    }

    /// An ssh that runs `command` on a terminal over this connection.
    pub fn client(&self, command: &str) -> Command {
        let mut ssh = Command::new("/usr/bin/ssh");
        ssh.args(["-tt", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"])
            .arg("-i")
            .arg(self.dir.path().join("user"))
            .args(["-p", &self.port.to_string(), "root@127.0.0.1", command]);
        ssh
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
