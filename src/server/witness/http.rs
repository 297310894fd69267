//! One POST to a witness: a connection, a request, a bounded answer, a deadline over all of it.
//!
//! Each request has its own connection: a log asks every few seconds, and a connection that is
//! kept open would have to be watched. The invariant: it ends by the deadline, and holds at most
//! [`ANSWER_BYTES_MAX`] of what the witness says.
#![expect(clippy::disallowed_methods, reason = "opens the socket to a witness")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::url::SubmissionUrl;
use crate::evidence::verdict::WitnessAnswer;
use crate::evidence::witness::{ANSWER_BYTES_MAX, SIZE_CONTENT_TYPE};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostFault {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("https needs `ca` in [evidence.witness]: whom to trust")]
    NoAnchors,
    #[error("the host is no name that a certificate can have")]
    Name,
    #[error("no TLS: {0}")]
    Tls(std::io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes, or breaks off")]
    Body,
    #[error("the request cannot be made")]
    Request,
    #[error("no answer within {}", crate::server::witness::http::shown(*_0))]
    Late(Duration),
}

/// Posts `body` to `url` and reads the answer, all within `timeout`.
pub(super) async fn post(
    url: &SubmissionUrl,
    tls: Option<&Arc<ClientConfig>>,
    body: String,
    timeout: Duration,
) -> Result<WitnessAnswer, PostFault> {
    let answered = tokio::time::timeout(timeout, connect_and_post(url, tls, body)).await;
    answered.unwrap_or(Err(PostFault::Late(timeout)))
}

async fn connect_and_post(
    url: &SubmissionUrl,
    tls: Option<&Arc<ClientConfig>>,
    body: String,
) -> Result<WitnessAnswer, PostFault> {
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await;
    let tcp = tcp.map_err(PostFault::Connect)?;
    if !url.is_https {
        return exchange(tcp, url, body).await;
    }
    let tls = tls.ok_or(PostFault::NoAnchors)?;
    let name = ServerName::try_from(url.host.clone()).map_err(|_| PostFault::Name)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
    exchange(stream.map_err(PostFault::Tls)?, url, body).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &SubmissionUrl,
    body: String,
) -> Result<WitnessAnswer, PostFault> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&url.path)
        .header(HOST, &url.authority)
        .header(USER_AGENT, concat!("avow/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| PostFault::Request)?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get(CONTENT_TYPE);
        let names_size = content_type.is_some_and(|value| value == SIZE_CONTENT_TYPE);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| PostFault::Body)?.to_bytes();
        let body = String::from_utf8(body.to_vec()).map_err(|_| PostFault::Body)?;
        Ok(WitnessAnswer { status, names_size, body })
    };
    tokio::pin!(connection);
    tokio::pin!(answered);
    // The connection moves the bytes; the answer may still come when it has ended.
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended?;
            answered.await
        }
    }
}

fn shown(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
