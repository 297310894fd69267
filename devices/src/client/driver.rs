//! The task that owns one socket: moves bytes between TLS and the [`Session`].
//!
//! It writes what many calls asked for in one go, and reads only while the application keeps up.
//! Reading and writing never wait for each other, so two full socket buffers cannot deadlock.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;

use super::session::Session;
use super::{ClientError, Command, ConnectOptions, Endpoint, Received, tls};

/// One read from TLS, in bytes.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Bytes waiting for the socket above which no further call is taken.
const OUTGOING_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Driver {
    stream: TlsStream<TcpStream>,
    session: Session,
}

/// Connects; returns the driver, and whether the broker has a session.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ConnectOptions,
) -> Result<(Driver, bool), ClientError> {
    let mut stream = tls::open(endpoint).await?;
    let mut session = Session::open(options, Instant::now())?;
    // A broker that refused the certificate has closed already. The write may fail for it, but
    // only the read brings the alert that says why.
    let _ = stream.write_all(&session.outgoing).await;
    let _ = stream.flush().await;
    session.outgoing.clear();
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        let count = stream.read(&mut buffer).await.map_err(|error| tls::before_connack(&error))?;
        if count == 0 {
            return Err(ClientError::TlsRefused { detail: "end of stream".to_owned() });
        }
        session.receive(buffer.get(..count).unwrap_or_default(), Instant::now());
        if let Some(connack) = session.connack.take() {
            let session_present = connack?;
            return Ok((Driver { stream, session }, session_present));
        }
        if let Some(end) = session.end.take() {
            return Err(end);
        }
    }
}

impl Driver {
    /// Runs the connection to its end, and tells everybody why it ended.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        messages: mpsc::Sender<Received>,
        ended: watch::Sender<Option<ClientError>>,
    ) {
        let reason = self.serve(&mut commands, &messages).await;
        if reason == ClientError::Finished {
            self.finish(&messages).await;
        }
        ended.send_replace(Some(reason.clone()));
        commands.close();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Publish { answer, .. } => drop(answer.send(Err(reason.clone()))),
                Command::Subscribe { answer, .. } => drop(answer.send(Err(reason.clone()))),
                Command::Disconnect => {}
            }
        }
        self.session.close(&reason);
    }

    async fn serve(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        messages: &mpsc::Sender<Received>,
    ) -> ClientError {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let session = &mut self.session;
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut unflushed = false;
        loop {
            if let Some(end) = session.end.take() {
                return end;
            }
            let deadline = session.deadline();
            let unsent = unflushed || !session.outgoing.is_empty();
            let takes_commands = session.outgoing.len() < OUTGOING_BYTES_MAX && session.has_room();
            tokio::select! {
                read = reader.read(&mut buffer), if session.inbox.is_empty() => match read {
                    Ok(0) => return closed("end of stream"),
                    Ok(count) => {
                        let bytes = buffer.get(..count).unwrap_or_default();
                        session.receive(bytes, Instant::now());
                    }
                    Err(error) => return closed(&error.to_string()),
                },
                written = write(&mut writer, &session.outgoing), if unsent => match written {
                    Ok(count) => {
                        unflushed = count > 0;
                        session.outgoing.drain(..count);
                    }
                    Err(error) => return closed(&error.to_string()),
                },
                permit = messages.reserve(), if !session.inbox.is_empty() => {
                    match (permit, session.inbox.pop_front()) {
                        (Ok(permit), Some(message)) => permit.send(message),
                        // Nobody listens.
                        (Err(_), _) => session.inbox.clear(),
                        (Ok(_), None) => {}
                    }
                }
                command = commands.recv(), if takes_commands => match command {
                    Some(command) => take(session, command, commands),
                    None => return closed("its handles were dropped"),
                },
                () = sleep_until(deadline), if deadline.is_some() => {
                    session.timeout(Instant::now());
                }
            }
        }
    }

    /// Writes what is left, closes TLS, and hands over what was read.
    async fn finish(&mut self, messages: &mpsc::Sender<Received>) {
        let written: io::Result<()> = async {
            self.stream.write_all(&self.session.outgoing).await?;
            self.stream.shutdown().await
        }
        .await;
        // The broker may close first; DISCONNECT has no answer to wait for.
        drop(written);
        for message in self.session.inbox.drain(..) {
            let _ = messages.try_send(message);
        }
    }
}

/// Takes a call and those that wait behind it, so that they leave in one write.
fn take(session: &mut Session, first: Command, commands: &mut mpsc::Receiver<Command>) {
    let now = Instant::now();
    let mut next = Some(first);
    while let Some(command) = next {
        match command {
            Command::Publish { message, permit, answer } => {
                session.publish(&message, permit, answer, now);
            }
            Command::Subscribe { filters, answer } => session.subscribe(&filters, answer, now),
            Command::Disconnect => {
                session.disconnect(now);
                return;
            }
        }
        let room = session.outgoing.len() < OUTGOING_BYTES_MAX && session.has_room();
        next = if room { commands.try_recv().ok() } else { None };
    }
}

/// Writes some of `bytes` and returns how many, or flushes when there are none. Safe to cancel.
async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    writer.write(bytes).await
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

fn closed(detail: &str) -> ClientError {
    ClientError::Closed { detail: detail.to_owned() }
}
