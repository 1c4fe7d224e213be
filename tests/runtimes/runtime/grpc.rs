//! Just enough of gRPC to drive containerd's CRI over its socket: unary calls, and messages of
//! strings, numbers and messages. <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>,
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use h2::client;
use http::Request;
use tokio::net::UnixStream;

use crate::Result;

/// A message that is being written, field by field.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn string(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u32, message: Self) -> Self {
        self.bytes(field, &message.0)
    }

    pub fn number(mut self, field: u32, number: u32) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    /// An entry of a map from string to string.
    pub fn entry(self, field: u32, key: &str, value: &str) -> Self {
        self.message(field, Self::default().string(1, key).string(2, value))
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// Calls a method by its full name; returns the response message undecoded.
pub fn call(socket: &Path, method: &str, request: &Message) -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(unary(socket, method, request)).with_context(|| method.to_owned())
}

async fn unary(socket: &Path, method: &str, request: &Message) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).await?;
    let (client, connection) = client::handshake(stream).await?;
    // It ends with its runtime.
    tokio::spawn(connection);
    let head = Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut body) = client.ready().await?.send_request(head, false)?;
    let length = u32::try_from(request.0.len())?;
    // The frame: a flag for "not compressed", the length, the message.
    let framed = [&[0][..], &length.to_be_bytes(), &request.0].concat();
    body.send_data(framed.into(), true)?;
    let answer = answer.await?;
    let head = answer.headers().clone();
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let tail = body.trailers().await?.unwrap_or(head);
    let text = |key: &str| tail.get(key).and_then(|value| value.to_str().ok()).unwrap_or("?");
    ensure!(text("grpc-status") == "0", "{}: {}", text("grpc-status"), text("grpc-message"));
    ensure!(bytes.len() >= 5, "no message in {} bytes", bytes.len());
    Ok(bytes.split_off(5))
}

/// The first field of a message, which has to be a short string.
pub fn first_string(message: &[u8]) -> Result<String> {
    match message {
        [0x0a, length, rest @ ..] if usize::from(*length) <= rest.len().min(0x7f) => {
            Ok(std::str::from_utf8(&rest[..usize::from(*length)])?.to_owned())
        }
        _ => bail!("{message:?} does not begin with a short string"),
    }
}
