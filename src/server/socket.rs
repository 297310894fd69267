//! TLS over one socket, driven by hand.
//!
//! The handshake is made on the acceptor's thread; [`Handshaken`] then carries the socket, without
//! a reactor, and the TLS state to the shard's thread, where [`TlsSocket`] drives both. Driving
//! rustls directly buys three things over a stream wrapper: one `recv` of up to
//! [`READ_BYTES_MAX`] into a buffer that all connections of the thread share, one `writev` for
//! everything that is queued, and no buffer of ours in an idle connection.
//!
//! Nothing here knows MQTT. Invariant: ciphertext that was taken from the socket has been handed
//! to rustls before a call returns.

use std::io::{self, BufRead as _, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::transport::Transport;
use super::websocket::Upgraded;

/// Most ciphertext taken from a socket by one system call, in bytes.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;
/// Most plaintext sealed before the socket has taken what was sealed earlier, in bytes.
pub(super) const SEAL_BYTES_MAX: usize = 64 * 1024;

/// A finished handshake between two reactors.
#[derive(Debug)]
pub(super) struct Handshaken {
    socket: std::net::TcpStream,
    tls: Box<ServerConnection>,
    upgraded: Option<Upgraded>,
}

impl Handshaken {
    /// Takes the stream out of the reactor of this thread.
    pub(super) fn detach(stream: tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, mut tls) = stream.into_inner();
        // What we seal at once is bounded by `SEAL_BYTES_MAX`, on our side of the fence.
        tls.set_buffer_limit(None);
        Ok(Self { socket: socket.into_std()?, tls: Box::new(tls), upgraded: None })
    }

    /// The same, with a WebSocket in it.
    pub(super) fn upgraded(self, upgraded: Upgraded) -> Self {
        Self { upgraded: Some(upgraded), ..self }
    }

    /// Puts the stream into the reactor of this thread.
    pub(super) fn attach(self) -> io::Result<Transport> {
        let socket = TcpStream::from_std(self.socket)?;
        let tls = TlsSocket { socket, tls: self.tls, eof: false };
        Ok(Transport::new(tls, self.upgraded))
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// Plaintext was appended, or records without any were processed; there may be more.
    Progress,
    /// The peer will send nothing more.
    Ended,
}

/// TLS over a socket of this thread's reactor.
#[derive(Debug)]
pub(super) struct TlsSocket {
    socket: TcpStream,
    tls: Box<ServerConnection>,
    eof: bool,
}

impl TlsSocket {
    /// Appends to `plain` what has arrived, with at most one system call, using `cipher` (all of
    /// it may be overwritten) for the ciphertext.
    ///
    /// # Errors
    /// The socket's, and `InvalidData` when the peer broke TLS; its alert is then queued.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<ReadOutcome>> {
        // The handshake's last flight may have carried application data.
        let before = plain.len();
        let closed = self.open(plain)?;
        if plain.len() > before {
            return Poll::Ready(Ok(ReadOutcome::Progress));
        }
        if closed || self.eof {
            return Poll::Ready(Ok(ReadOutcome::Ended));
        }
        let mut buffer = ReadBuf::new(cipher);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result?,
        }
        let filled = buffer.filled();
        if filled.is_empty() {
            self.eof = true;
            return Poll::Ready(Ok(ReadOutcome::Ended));
        }
        self.feed(filled, plain)?;
        Poll::Ready(Ok(ReadOutcome::Progress))
    }

    /// Hands `cipher` to rustls piece by piece and takes the plaintext out in between, so that its
    /// own bounds on unread plaintext are never met.
    fn feed(&mut self, mut cipher: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !cipher.is_empty() {
            let taken = self.tls.read_tls(&mut cipher)?;
            self.tls.process_new_packets().map_err(|error| {
                // The alert that says why: as far as the socket takes it now.
                let _ = self.tls.write_tls(&mut TryWrite(&self.socket));
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
            let closed = self.open(plain)?;
            if taken == 0 || closed {
                break;
            }
        }
        Ok(())
    }

    /// Moves decrypted bytes to `plain`; `true` after close_notify.
    fn open(&mut self, plain: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let mut reader = self.tls.reader();
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            plain.extend_from_slice(chunk);
            let length = chunk.len();
            reader.consume(length);
        }
    }

    /// Seals `plain` into records. Call it only when [`Self::poll_flush`] was ready, with at most
    /// [`SEAL_BYTES_MAX`] bytes.
    pub(super) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)
    }

    /// Whether sealed records wait for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Gives every sealed record to the socket.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut writer = PollWrite { socket: &mut self.socket, cx };
            match self.tls.write_tls(&mut writer) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Queues the alert that ends the TLS session in order.
    pub(super) fn close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// Ends our direction of the TCP connection.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Throws away what the peer still sends: closing a socket with unread bytes makes the kernel
    /// reset the connection, and a reset can destroy our last packet on its way. Ready when the
    /// peer has ended its direction too.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, cipher: &mut [u8]) -> Poll<()> {
        loop {
            let mut buffer = ReadBuf::new(cipher);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
        }
    }
}

/// The socket as `io::Write` inside a poll.
struct PollWrite<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for PollWrite<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket as `io::Write`, without waiting.
struct TryWrite<'a>(&'a TcpStream);

impl Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
