//! What a connection reads from and writes to: TLS, or a WebSocket inside it.
//!
//! The two look the same: bytes of MQTT come out, bytes of MQTT go in. Nothing else of the server
//! asks which it is. Invariant: a method means here what it means in [`TlsSocket`].

use std::io;
use std::task::{Context, Poll};

use super::socket::{ReadOutcome, TlsSocket};
use super::websocket::{Upgraded, WebSocket};

/// The transport of one connection.
#[derive(Debug)]
pub(super) enum Transport {
    /// MQTT right inside TLS.
    Tls(TlsSocket),
    /// MQTT in the messages of a WebSocket.
    WebSocket(Box<WebSocket>),
}

impl Transport {
    pub(super) fn new(tls: TlsSocket, upgraded: Option<Upgraded>) -> Self {
        match upgraded {
            None => Self::Tls(tls),
            Some(upgraded) => Self::WebSocket(Box::new(WebSocket::new(tls, upgraded))),
        }
    }

    /// CONNECT has come: the bounds of a connection hold from now on.
    pub(super) fn connected(&mut self) {
        match self {
            Self::Tls(_) => {}
            Self::WebSocket(websocket) => websocket.connected(),
        }
    }

    /// See [`TlsSocket::poll_read`].
    ///
    /// # Errors
    /// The socket's, and `InvalidData` when the peer broke TLS or the WebSocket.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<ReadOutcome>> {
        match self {
            Self::Tls(tls) => tls.poll_read(cx, cipher, plain),
            Self::WebSocket(websocket) => websocket.poll_read(cx, cipher, plain),
        }
    }

    /// See [`TlsSocket::seal`].
    pub(super) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.seal(plain),
            Self::WebSocket(websocket) => websocket.seal(plain),
        }
    }

    /// See [`TlsSocket::poll_flush`].
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_flush(cx),
            Self::WebSocket(websocket) => websocket.poll_flush(cx),
        }
    }

    /// Queues what ends the session in order: a close frame where there are frames, then the
    /// alert of TLS.
    pub(super) fn close_notify(&mut self) {
        match self {
            Self::Tls(tls) => tls.close_notify(),
            Self::WebSocket(websocket) => websocket.close_notify(),
        }
    }

    /// Whether a last word to the peer may be on its way though the core said nothing: then the
    /// connection is closed in order.
    pub(super) fn has_closed(&self) -> bool {
        match self {
            Self::Tls(_) => false,
            Self::WebSocket(websocket) => websocket.has_closed(),
        }
    }

    /// See [`TlsSocket::poll_shutdown`].
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls().poll_shutdown(cx)
    }

    /// See [`TlsSocket::poll_discard`].
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, cipher: &mut [u8]) -> Poll<()> {
        self.tls().poll_discard(cx, cipher)
    }

    fn tls(&mut self) -> &mut TlsSocket {
        match self {
            Self::Tls(tls) => tls,
            Self::WebSocket(websocket) => websocket.tls(),
        }
    }
}
