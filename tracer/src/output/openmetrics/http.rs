//! The HTTP endpoint: `GET /metrics` over HTTP/1.1, plain or with TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Format, Guard, Metrics, Own};

/// Maximum number of connections at a time; more wait.
const MAX_CONNECTIONS: usize = 32;
/// Time limit of a TLS handshake, and of a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Time limit of a connection, which serves one scrape: a slow reader must not occupy a slot.
const LIFE: Duration = Duration::from_secs(30);

/// The state needed to answer requests.
pub struct Endpoint {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Access control.
    pub guard: Guard,
    /// Returns the program's own statistics; called at each scrape.
    pub own: Box<dyn Fn() -> Own + Send + Sync>,
}

/// Binds an address, before privileges are dropped.
///
/// # Errors
/// If the address is in use or not available.
pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics at {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves requests until the task is dropped.
pub async fn serve(listener: TcpListener, endpoint: Arc<Endpoint>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before accepting: connections over the limit wait in the kernel's backlog, which is bounded.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let endpoint = Arc::clone(&endpoint);
                tokio::spawn(async move {
                    if let Ok(Err(error)) = timeout(LIFE, connection(stream, &endpoint)).await {
                        tracing::info!("scrape from {from}: {error:#}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a scrape: {error}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, endpoint: &Arc<Endpoint>) -> anyhow::Result<()> {
    match &endpoint.guard.tls {
        None => http(stream, endpoint).await,
        Some(tls) => {
            let stream = timeout(HEAD_WITHIN, tls.accept(stream)).await.context("handshake")??;
            http(stream, endpoint).await
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    endpoint: &Arc<Endpoint>,
) -> anyhow::Result<()> {
    let service = service_fn(|request| {
        let endpoint = Arc::clone(endpoint);
        async move { Ok::<_, Infallible>(answer(&request, &endpoint).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(16 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(request: &Request<Incoming>, endpoint: &Endpoint) -> Response<Full<Bytes>> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|one| one.to_str().ok());
    if !endpoint.guard.lets_in(header(AUTHORIZATION)).await {
        let realm = (WWW_AUTHENTICATE, "Basic realm=\"filltop\"");
        return said(StatusCode::UNAUTHORIZED, Some(realm), "authentication required\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allowed = (ALLOW, "GET, HEAD");
        return said(StatusCode::METHOD_NOT_ALLOWED, Some(allowed), "method not allowed\n");
    }
    match request.uri().path() {
        "/metrics" => {
            let format = Format::wanted(header(ACCEPT).unwrap_or_default());
            match endpoint.metrics.text(&(endpoint.own)(), format) {
                Some(text) => {
                    said(StatusCode::OK, Some((CONTENT_TYPE, format.content_type())), text)
                }
                None => said(StatusCode::SERVICE_UNAVAILABLE, None, "nothing measured yet\n"),
            }
        }
        "/" => said(StatusCode::OK, None, "filltop: see /metrics\n"),
        _ => said(StatusCode::NOT_FOUND, None, "not found (try /metrics)\n"),
    }
}

fn said(
    status: StatusCode,
    header: Option<(HeaderName, &'static str)>,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    if let Some((name, value)) = header {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}
