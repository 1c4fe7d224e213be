//! Access control of the metrics endpoint: TLS, client certificates and passwords, configured in a
//! file. Without one, the endpoint is plain HTTP without authentication, meant for loopback.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Maximum bcrypt cost of a password hash; 2^14 rounds take a second.
const MAX_COST: u32 = 14;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tls: Option<Tls>,
    #[serde(default)]
    users: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: Option<PathBuf>,
}

/// The requirements on connections and requests.
pub struct Auth {
    /// TLS, if configured.
    pub tls: Option<TlsAcceptor>,
    users: BTreeMap<String, String>,
    /// The last valid header: bcrypt takes about 50 ms, and Prometheus scrapes every 15 s.
    last_valid: Mutex<Option<String>>,
    /// Allows one password check at a time, so that guessing cannot occupy more than one CPU.
    checking: Semaphore,
}

impl Default for Auth {
    /// No requirements: plain HTTP without authentication.
    fn default() -> Self {
        Self::new(None, BTreeMap::new())
    }
}

impl Auth {
    const fn new(tls: Option<TlsAcceptor>, users: BTreeMap<String, String>) -> Self {
        Self { tls, users, last_valid: Mutex::new(None), checking: Semaphore::const_new(1) }
    }

    /// Reads a file: `[tls]` with `cert_file`, `key_file` and optionally `client_ca_file` (relative to
    /// the file), `[users]` with a bcrypt hash for each name.
    ///
    /// # Errors
    /// If a file cannot be read, or contains invalid values or unknown keys.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("{}", path.display());
        let text = fs::read_to_string(path).with_context(named)?;
        let file: File = toml::from_str(&text).with_context(named)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        ensure!(
            file.tls.is_some() || !file.users.is_empty(),
            "{}: defines no protection; add [tls], [users] or both",
            path.display()
        );
        for (user, hash) in &file.users {
            let cost = hash.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost());
            let cost = cost.with_context(|| {
                format!(
                    "{}: the hash of {user:?} is not a bcrypt hash; create one with `htpasswd -nBC 10 \
                     {user}`",
                    path.display()
                )
            })?;
            ensure!(
                cost <= MAX_COST,
                "{}: the bcrypt cost of {user:?} is too high; the maximum is {MAX_COST}",
                path.display()
            );
        }
        let tls = file.tls.map(|tls| tls_acceptor(&tls, folder)).transpose().with_context(named)?;
        Ok(Self::new(tls, file.users))
    }

    /// Whether access is unrestricted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tls.is_none() && self.users.is_empty()
    }

    /// Whether a request with this `Authorization` header is allowed.
    pub async fn allows(&self, authorization: Option<&str>) -> bool {
        if self.users.is_empty() {
            return true;
        }
        let Some(header) = authorization else { return false };
        let last_valid = self.last_valid.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last_valid.is_some_and(|valid| same(valid.as_bytes(), header.as_bytes())) {
            return true;
        }
        let Some((user, password)) = basic(header) else { return false };
        let Some(hash) = self.users.get(&user).cloned() else { return false };
        let Ok(_permit) = self.checking.acquire().await else { return false };
        let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash));
        let valid = matches!(checked.await, Ok(Ok(true)));
        if valid {
            *self.last_valid.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(header.to_owned());
        }
        valid
    }
}

/// Compares in constant time.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Decodes the user and password of Basic authentication (RFC 7617).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn tls_acceptor(tls: &Tls, folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let (cert, key) = (folder.join(&tls.cert_file), folder.join(&tls.key_file));
    let mode = fs::metadata(&key).with_context(|| format!("{}", key.display()))?.mode();
    if mode & 0o007 != 0 {
        bail!("{} is accessible to all users; use chmod 600", key.display());
    }
    let chain = certificates(&cert)?;
    let key = PrivateKeyDer::from_pem_file(&key)
        .with_context(|| format!("{}: no private key in PEM form", key.display()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&folder.join(file))? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{}: no certificates in PEM form", path.display());
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).with_context(named)?;
    ensure!(!found.is_empty(), named());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Auth> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("guard.toml");
        fs::write(&path, text)?;
        Auth::read(&path)
    }

    #[test]
    fn errors_in_the_file_are_reported() {
        for (text, word) in [
            ("", "no protection"),
            ("[user]\nx='y'", "unknown field"),
            ("[users]\nx='secret'", "htpasswd"),
            (
                "[users]\nx='$2b$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
                "too high",
            ),
            ("[tls]\ncert_file='none.pem'\nkey_file='none.pem'", "none.pem"),
            ("[tls]\ncert_file='none.pem'", "key_file"),
        ] {
            let error = format!("{:#}", read(text).err().unwrap());
            assert!(error.contains(word) && error.contains("guard.toml"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn only_the_correct_password_is_accepted() {
        let hash = bcrypt::hash("open sesame: now", 4).unwrap();
        let auth = read(&format!("[users]\nprometheus = '{hash}'")).unwrap();
        // base64 of `prometheus:open sesame: now`.
        let right = "Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZTogbm93";
        for _ in 0..2 {
            assert!(auth.allows(Some(right)).await);
        }
        for wrong in [
            None,
            Some("Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZTogbm9x"),
            Some("Basic ????"),
            Some("Bearer cHJvbWV0aGV1czpvcGVuIHNlc2FtZTogbm93"),
            Some("Basic"),
            // `nobody:x`
            Some("Basic bm9ib2R5Ong="),
        ] {
            assert!(!auth.allows(wrong).await, "{wrong:?}");
        }
        assert!(Auth::default().allows(None).await);
    }
}
