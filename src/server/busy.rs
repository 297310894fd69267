//! The answer while the log is read: CONNACK with Server busy (3.x: Server unavailable), and the
//! end.
//!
//! There is no core yet, so nobody can have a session and nothing can be recorded. Whoever came in
//! through an entrance like any other (PROXY, TLS, WebSocket, certificate) sends CONNECT and is
//! told to come again, and the connection is closed [MQTT-3.2.2-7]; whatever else it sends ends the
//! connection without a word.
//!
//! Not here: how many may come at once, which is the acceptor's. Invariant: one answer to one
//! CONNECT, each wait has a deadline, and what a peer makes us hold is bounded as before any
//! CONNECT.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::time::timeout_at;

use super::clock::Clock;
use super::options::Bounds;
use super::socket::{Handshaken, ReadOutcome};
use super::transport::Transport;
use crate::mqtt::{
    ConnAck, ConnAckProperties, Decoded, Decoder, Packet, ProtocolVersion, ReasonCode, encode,
};
use crate::time::Instant;

/// Ciphertext taken by one read, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// Waits for CONNECT until `deadline`, answers it, and closes the connection. `refused` is called
/// before the answer can be seen.
///
/// # Errors
/// Whatever ended the connection earlier; nobody needs to know.
pub(super) async fn turn_away(
    handshaken: Handshaken,
    bounds: &Bounds,
    clock: Clock,
    deadline: Instant,
    refused: impl FnOnce(),
) -> io::Result<()> {
    let mut socket = handshaken.attach()?;
    let connect = read_connect(&mut socket, bounds);
    let version = timeout_at(clock.deadline(deadline), connect).await??;
    let mut bytes = Vec::new();
    if let Some(version) = version {
        refused();
        let answer = Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason: ReasonCode::ServerBusy,
            properties: ConnAckProperties::default(),
        }));
        encode(&answer, version, &mut bytes).map_err(io::Error::other)?;
    }
    let close = clock.deadline(clock.instant().after(bounds.close_max));
    timeout_at(close, send_last(&mut socket, &bytes)).await??;
    let linger = clock.deadline(clock.instant().after(bounds.linger_max));
    let ended = poll_fn(|cx| socket.poll_discard(cx, &mut [0; READ_BYTES]));
    Ok(timeout_at(linger, ended).await?)
}

/// The version of the CONNECT that comes; `None` if something else does.
async fn read_connect(
    socket: &mut Transport,
    bounds: &Bounds,
) -> io::Result<Option<ProtocolVersion>> {
    let mut decoder = Decoder::server(bounds.connect_bytes_max);
    let mut plain = Vec::new();
    loop {
        match decoder.decode(&plain) {
            Ok(Decoded::Packet { packet: Packet::Connect(connect), .. }) => {
                return Ok(Some(connect.version));
            }
            Ok(Decoded::Incomplete { .. }) => {}
            Ok(Decoded::Packet { .. }) | Err(_) => return Ok(None),
        }
        if poll_fn(|cx| poll_read(socket, cx, &mut plain)).await? == ReadOutcome::Ended {
            return Ok(None);
        }
    }
}

/// One read, after what the transport itself has to say.
fn poll_read(
    socket: &mut Transport,
    cx: &mut Context<'_>,
    plain: &mut Vec<u8>,
) -> Poll<io::Result<ReadOutcome>> {
    ready!(socket.poll_flush(cx))?;
    socket.poll_read(cx, &mut [0; READ_BYTES], plain)
}

/// Sends `bytes` and ends our direction.
async fn send_last(socket: &mut Transport, bytes: &[u8]) -> io::Result<()> {
    poll_fn(|cx| socket.poll_flush(cx)).await?;
    socket.seal(bytes)?;
    poll_fn(|cx| socket.poll_flush(cx)).await?;
    socket.close_notify();
    poll_fn(|cx| {
        ready!(socket.poll_flush(cx))?;
        socket.poll_shutdown(cx)
    })
    .await
}

#[cfg(test)]
mod tests;
