//! HTTP POST with time-outs and TLS. Redirects are not followed: an alert goes only to the
//! configured host.

use std::fs;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::Failure;
use crate::config::Endpoint;

/// CA bundles of the distributions: Debian, Fedora, SUSE, Alpine.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An [`Endpoint`] with its connections.
pub(super) struct Client {
    endpoint: Endpoint,
    agent: Option<ureq::Agent>,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), agent: None }
    }

    /// Posts JSON to the endpoint's URL with `suffix` appended. Any response other than 200 to 299
    /// is a failure; it is retried unless the status rules out a later success.
    pub(super) fn post(&mut self, suffix: &str, id: &str, body: &str) -> Result<(), Failure> {
        let host = self.endpoint.host().to_owned();
        let agent = match &self.agent {
            Some(agent) => agent,
            None => self.agent.insert(agent(&self.endpoint)?),
        };
        let mut request = agent
            .post(format!("{}{suffix}", self.endpoint.url))
            .content_type("application/json")
            .header("idempotency-key", &printable(id));
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        let response = request.send(body).map_err(|error| {
            // ureq's message may repeat the URL, which may be a secret.
            let message = error.to_string().replace(&self.endpoint.url, "the URL");
            Failure::Retry(format!("{host}: {message}"))
        })?;
        let status = response.status().as_u16();
        let message = format!("{host} answered {}", response.status());
        match status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Failure::Retry(message)),
            _ => Err(Failure::Never(message)),
        }
    }
}

/// Replaces all but visible ASCII, for use in a header value; a mount point may be any text.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

fn agent(endpoint: &Endpoint) -> Result<ureq::Agent, Failure> {
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(endpoint.timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections_per_host(0)
        .user_agent(concat!("filltop/", env!("CARGO_PKG_VERSION")));
    if endpoint.url.starts_with("https:") {
        let roots = RootCerts::Specific(Arc::new(authorities(endpoint)?));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

fn authorities(endpoint: &Endpoint) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = match &endpoint.ca_file {
        Some(file) => fs::read(file)
            .map_err(|error| Failure::Retry(format!("{}: {error}", file.display())))?,
        None => BUNDLES.iter().find_map(|file| fs::read(file).ok()).ok_or_else(|| {
            Failure::Retry("no trusted CA certificates found; install ca-certificates".to_owned())
        })?,
    };
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Failure::Retry("no certificate in the CA file".to_owned()));
    }
    Ok(found)
}
