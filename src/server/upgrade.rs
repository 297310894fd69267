//! From an HTTP request to a WebSocket: what is read, what is asked of it, what is answered.
//!
//! One request head of at most [`HEAD_BYTES_MAX`] bytes is read and judged; nothing else of HTTP is
//! spoken here: no body, no second request, no redirect. A browser sends its user's certificate
//! along with any page's WebSocket, so the page's Origin must stand in a list; comparison is byte
//! by byte, which is what scheme, host and port in their one written form allow. No extension is
//! ever agreed to, `permessage-deflate` least of all: nothing is decompressed before CONNECT.
//!
//! Not here: deadlines, certificates, frames. Invariant: an [`UpgradeRefusal`] has one row, with
//! the name that the log uses and the status that the peer gets.
//! Specification: RFC 6455 section 4.2; MQTT 5.0 and 3.1.1 section 6.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{
    CONTENT_LENGTH, ORIGIN, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING,
};

/// Longest request head, its empty line included, in bytes.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most bytes thrown away after a refusal, so that the peer gets to read the answer.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;
/// [MQTT-6.0.0-3], [MQTT-6.0.0-4]
const SUBPROTOCOL: &str = "mqtt";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What a request must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpgradeRules {
    /// The one path.
    pub(super) path: String,
    /// The Origins of the pages that may connect, as browsers write them.
    pub(super) origins: Vec<String>,
    /// Whether a client that names no Origin may connect; a browser always names one.
    pub(super) allow_no_origin: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeRefusal {
    /// The head did not come in time.
    TooSlow,
    /// The head is longer than the bound.
    HeadTooLong,
    /// Not an HTTP/1.1 request without a body.
    Malformed,
    /// A request for something else than a WebSocket of version 13.
    NotWebSocket,
    /// A request for another path; a query makes it another one.
    Path,
    /// No Origin, where one must be.
    NoOrigin,
    /// An Origin that is not in the list, `null`, or more than one.
    Origin,
    /// The subprotocol `mqtt` is not offered.
    Subprotocol,
    /// No client certificate, and nothing else yet that could stand for one.
    NoCertificate,
}

impl UpgradeRefusal {
    /// The table: name in the log, status and text of the answer.
    const fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::TooSlow => {
                ("websocket.timed_out", "408 Request Timeout", "the request did not come in time")
            }
            Self::HeadTooLong => (
                "websocket.header_bytes",
                "431 Request Header Fields Too Large",
                "the request head is longer than 8 KiB",
            ),
            Self::Malformed => {
                ("websocket.malformed", "400 Bad Request", "not an HTTP/1.1 request without a body")
            }
            Self::NotWebSocket => (
                "websocket.not_websocket",
                "426 Upgrade Required",
                "here is MQTT over WebSocket, version 13, and nothing else",
            ),
            Self::Path => ("websocket.path", "404 Not Found", "there is nothing at this path"),
            Self::NoOrigin => (
                "websocket.no_origin",
                "403 Forbidden",
                "an Origin is required (`allow_no_origin` in [listen.websocket])",
            ),
            Self::Origin => (
                "websocket.origin",
                "403 Forbidden",
                "this Origin is not allowed (`origins` in [listen.websocket])",
            ),
            Self::Subprotocol => {
                ("websocket.subprotocol", "400 Bad Request", "offer the subprotocol `mqtt`")
            }
            Self::NoCertificate => {
                ("websocket.no_certificate", "403 Forbidden", "a client certificate is required")
            }
        }
    }

    /// Its stable name.
    pub(super) const fn name(self) -> &'static str {
        self.row().0
    }

    /// The answer, whole.
    fn answer(self) -> String {
        let (_, status, text) = self.row();
        let hint = match self {
            Self::NotWebSocket => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {status}\r\n{hint}Connection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{text}\n",
            text.len() + 1,
        )
    }
}

/// Why there is no request head.
#[derive(Debug)]
pub(super) enum HeadFault {
    /// It is too long.
    TooLong,
    /// The connection ended or failed; nobody is there to be answered.
    Io(io::Error),
}

/// A request head as it was read, and the bytes behind it.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    /// What belongs to the WebSocket already.
    pub(super) behind: Vec<u8>,
}

/// Reads a request head. Waits as long as it takes: the caller has the deadline.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Head, HeadFault> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        // One byte more than the bound, to see that it is exceeded.
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(bytes.len()).min(chunk.len());
        let room = chunk.get_mut(..room).unwrap_or_default();
        let read = stream.read(room).await.map_err(HeadFault::Io)?;
        if read == 0 {
            return Err(HeadFault::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        // The end may lie across what was read before and what is new.
        let from = bytes.len().saturating_sub(HEAD_END.len() - 1);
        bytes.extend_from_slice(room.get(..read).unwrap_or_default());
        let fresh = bytes.get(from..).unwrap_or_default();
        let found = fresh.windows(HEAD_END.len()).position(|window| window == HEAD_END);
        match found.map(|at| from + at + HEAD_END.len()) {
            Some(end) if end <= HEAD_BYTES_MAX => {
                let behind = bytes.split_off(end);
                return Ok(Head { bytes, behind });
            }
            None if bytes.len() <= HEAD_BYTES_MAX => {}
            Some(_) | None => return Err(HeadFault::TooLong),
        }
    }
}

/// Judges a request head; the answer that accepts it.
pub(super) fn judge(head: &Head, rules: &UpgradeRules) -> Result<Vec<u8>, UpgradeRefusal> {
    use UpgradeRefusal as R;
    let parsed = Request::try_parse(&head.bytes).map_err(|_| R::Malformed)?;
    let Some((length, request)) = parsed else { return Err(R::Malformed) };
    // The parser lets lines end without CR; then its end of the head may be another one than ours.
    if length != head.bytes.len() || has_body(&request) {
        return Err(R::Malformed);
    }
    // A query has nothing to say here, and a secret in one would end up in the logs of whatever
    // stands between.
    let uri = request.uri();
    if uri.authority().is_some() || uri.path() != rules.path || uri.query().is_some() {
        return Err(R::Path);
    }
    let mut response = create_response(&request).map_err(|_| R::NotWebSocket)?;
    let mut origins = request.headers().get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) if rules.allow_no_origin => {}
        (None, _) => return Err(R::NoOrigin),
        (Some(origin), None) => {
            let is_listed = |listed: &String| listed.as_bytes() == origin.as_bytes();
            if !rules.origins.iter().any(is_listed) {
                return Err(R::Origin);
            }
        }
        (Some(_), Some(_)) => return Err(R::Origin),
    }
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    if !offers.any(|offer| offer.trim() == SUBPROTOCOL) {
        return Err(R::Subprotocol);
    }
    let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| R::Malformed)?;
    Ok(answer)
}

fn has_body(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
}

/// Sends the answer that accepts.
pub(super) async fn accept(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &[u8],
) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.flush().await
}

/// Sends the answer that refuses, ends the connection and waits for the peer to do so too: closing
/// a socket with unread bytes could destroy the answer on its way. The caller has the deadline.
pub(super) async fn refuse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    refusal: UpgradeRefusal,
) -> io::Result<()> {
    stream.write_all(refusal.answer().as_bytes()).await?;
    stream.shutdown().await?;
    let mut discarded = 0;
    let mut chunk = [0; 4096];
    while discarded < DISCARDED_BYTES_MAX {
        match stream.read(&mut chunk).await? {
            0 => break,
            read => discarded += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
