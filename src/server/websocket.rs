//! A WebSocket as a stream of bytes: what the connection loop sees of it is what it sees of TLS.
//!
//! The framing is tungstenite's, between this type and [`TlsSocket`]; nothing is awaited in it.
//! MQTT takes no notice of frames: a packet may come in many, and many packets in one
//! ([MQTT-6.0.0-2]). Only binary messages carry it; text ends the connection ([MQTT-6.0.0-1]), and
//! so does whatever breaks RFC 6455. A ping is answered, and while the answer cannot be sent the
//! next one replaces it, so that pings pile up nothing.
//!
//! A message is put together before its bytes go on, and bounded by [`Upgraded`]. Invariant:
//! every byte of a message that is handed on came in a binary one; nothing is sealed while
//! earlier records wait for the socket, close frames included.
//! Specification: RFC 6455; MQTT 5.0 and 3.1.1 section 6.

use std::io::{self, Read, Write};
use std::task::{Context, Poll, ready};

use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Message, Utf8Bytes};

use super::socket::{ReadOutcome, SEAL_BYTES_MAX, TlsSocket};

/// Read buffer of an idle WebSocket, in bytes.
const IDLE_BYTES: usize = 2 * 1024;
/// Most bytes of ours that wait in the framing, in bytes: one piece and what it is wrapped in.
const FRAMED_BYTES_MAX: usize = SEAL_BYTES_MAX + 1024;

/// What an upgrade hands over.
#[derive(Debug)]
pub(super) struct Upgraded {
    /// Bytes of the WebSocket that came with the request.
    pub(super) behind: Vec<u8>,
    /// Longest message until CONNECT, in bytes.
    pub(super) connect_bytes_max: usize,
    /// Longest message afterwards, in bytes.
    pub(super) message_bytes_max: usize,
}

/// A WebSocket over TLS.
#[derive(Debug)]
pub(super) struct WebSocket {
    framing: tungstenite::WebSocket<Records>,
    message_bytes_max: usize,
    /// Whether a close frame of ours was queued, as an answer or first.
    has_closed: bool,
}

impl WebSocket {
    pub(super) fn new(tls: TlsSocket, upgraded: Upgraded) -> Self {
        let first_bytes_max = Some(upgraded.connect_bytes_max);
        let config = WebSocketConfig::default()
            .read_buffer_size(IDLE_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(FRAMED_BYTES_MAX)
            .max_message_size(first_bytes_max)
            .max_frame_size(first_bytes_max)
            .accept_unmasked_frames(false);
        let records = Records { tls, opened: upgraded.behind, taken: 0 };
        Self {
            framing: tungstenite::WebSocket::from_raw_socket(records, Role::Server, Some(config)),
            message_bytes_max: upgraded.message_bytes_max,
            has_closed: false,
        }
    }

    /// CONNECT has come: from now on the larger bound holds.
    pub(super) fn connected(&mut self) {
        let bytes_max = Some(self.message_bytes_max);
        self.framing.set_config(|config| {
            config.max_message_size = bytes_max;
            config.max_frame_size = bytes_max;
        });
    }

    /// As [`TlsSocket::poll_read`], of the messages' bytes.
    ///
    /// # Errors
    /// The socket's, and `InvalidData` when the peer broke TLS or the WebSocket.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<ReadOutcome>> {
        // Whatever came with the request is here without a read; later this finds nothing.
        let before = plain.len();
        let mut outcome = self.unframe(plain);
        if matches!(outcome, Ok(ReadOutcome::Progress)) && plain.len() == before {
            let records = self.framing.get_mut();
            match ready!(records.tls.poll_read(cx, cipher, &mut records.opened))? {
                ReadOutcome::Progress => outcome = self.unframe(plain),
                ReadOutcome::Ended => return Poll::Ready(Ok(ReadOutcome::Ended)),
            }
        }
        // Pongs and close frames, as far as the socket takes them now; it is asked again later.
        let _ = self.poll_flush(cx)?;
        Poll::Ready(outcome)
    }

    /// Appends to `plain` the bytes of every whole message that is here.
    fn unframe(&mut self, plain: &mut Vec<u8>) -> io::Result<ReadOutcome> {
        loop {
            let (code, what) = match self.framing.read() {
                Ok(Message::Binary(bytes)) => {
                    plain.extend_from_slice(&bytes);
                    continue;
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => {
                    // The answer is queued already.
                    self.has_closed = true;
                    return Ok(ReadOutcome::Ended);
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Ok(ReadOutcome::Ended);
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(ReadOutcome::Progress);
                }
                Err(Error::Io(error)) => return Err(error),
                // [MQTT-6.0.0-1]
                Ok(Message::Text(_)) => (CloseCode::Unsupported, "MQTT is binary"),
                Err(Error::Utf8(_)) => (CloseCode::Invalid, "not UTF-8"),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    (CloseCode::Size, "message too long")
                }
                // Protocol errors; the others are of the handshake, or of a client.
                Err(_) => (CloseCode::Protocol, "not RFC 6455"),
            };
            self.close(code, what);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }

    /// Queues a close frame, once.
    fn close(&mut self, code: CloseCode, reason: &'static str) {
        if !std::mem::replace(&mut self.has_closed, true) {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            // What cannot be written now stays queued; after an error there is nobody to tell.
            let _ = self.framing.close(Some(frame));
        }
    }

    /// As [`TlsSocket::seal`], in one binary message.
    pub(super) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        quiet(self.framing.write(Message::Binary(Bytes::copy_from_slice(plain))))
    }

    /// As [`TlsSocket::poll_flush`], of every frame too.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.framing.get_mut().tls.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            quiet(self.framing.flush())?;
            if !self.framing.get_ref().tls.wants_write() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Queues the close frame, unless one went already, and the end of TLS behind it.
    pub(super) fn close_notify(&mut self) {
        self.close(CloseCode::Normal, "");
        self.framing.get_mut().tls.close_notify();
    }

    /// Whether the peer is waiting for a close frame of ours that may still be on its way.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// The TLS beneath.
    pub(super) fn tls(&mut self) -> &mut TlsSocket {
        &mut self.framing.get_mut().tls
    }
}

/// An error of the framing's writing as one of the socket: what waits, waits in the framing, and
/// that a closed one takes nothing more is no error of the socket.
fn quiet(result: Result<(), Error>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(Error::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// TLS as the framing sees it: it reads what was opened, and writes records.
#[derive(Debug)]
struct Records {
    tls: TlsSocket,
    /// Plaintext, from `taken` on not yet read by the framing.
    opened: Vec<u8>,
    taken: usize,
}

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.opened.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            // An idle connection keeps no buffer.
            self.opened = Vec::new();
            self.taken = 0;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = rest.len().min(buffer.len());
        let (Some(into), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) else {
            return Ok(0);
        };
        into.copy_from_slice(from);
        self.taken += length;
        Ok(length)
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One piece at a time: what the peer does not read stays in the framing, where it is
        // bounded.
        if self.tls.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.tls.seal(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
