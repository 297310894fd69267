//! Frames over TLS over the loopback: hand-made ones in, tungstenite's out.

#![expect(clippy::disallowed_methods, reason = "the client's sockets")]

use std::future::poll_fn;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::{ClientConnection, StreamOwned};

use super::*;
use crate::server::socket::Handshaken;
use crate::server::testing::Site;
use crate::server::transport::Transport;

pub(in crate::server) type Client = StreamOwned<ClientConnection, TcpStream>;

pub(in crate::server) const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
pub(in crate::server) const CLOSE: u8 = 0x88;

/// A masked frame with this first byte.
pub(in crate::server) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Reads one unmasked frame of at most 125 bytes.
pub(in crate::server) fn answer(client: &mut Client) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    client.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// The server's side, and what it was sent.
struct Server {
    transport: Transport,
    plain: Vec<u8>,
}

impl Server {
    async fn read(&mut self) -> io::Result<ReadOutcome> {
        let mut cipher = vec![0; 16 * 1024];
        let within = Duration::from_secs(10);
        let read = poll_fn(|cx| self.transport.poll_read(cx, &mut cipher, &mut self.plain));
        tokio::time::timeout(within, read).await.expect("a frame within ten seconds")
    }

    /// Reads until `bytes` bytes came, or something else than progress.
    async fn read_bytes(&mut self, bytes: usize) -> io::Result<ReadOutcome> {
        while self.plain.len() < bytes {
            let outcome = self.read().await?;
            if outcome == ReadOutcome::Ended {
                return Ok(outcome);
            }
        }
        Ok(ReadOutcome::Progress)
    }

    async fn flush(&mut self) {
        poll_fn(|cx| self.transport.poll_flush(cx)).await.unwrap();
    }
}

/// Runs `client` on a thread of its own against `server`, whose upgrade came with `behind`.
fn between<F: Future<Output = ()>>(
    behind: Vec<u8>,
    client: impl FnOnce(Client) + Send + 'static,
    server: impl FnOnce(Server) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let site = Site::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = site.client("press-7");
        let thread = std::thread::spawn(move || {
            let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
            let tls = ClientConnection::new(config, name).unwrap();
            let socket = TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut stream = StreamOwned::new(tls, socket);
            stream.conn.complete_io(&mut stream.sock).unwrap();
            client(stream);
        });
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&site.tls));
        let stream = acceptor.accept(socket).await.unwrap();
        let upgraded = Upgraded { behind, connect_bytes_max: 1_000, message_bytes_max: 200_000 };
        let handshaken = Handshaken::detach(stream).unwrap().upgraded(upgraded);
        server(Server { transport: handshaken.attach().unwrap(), plain: Vec::new() }).await;
        thread.join().unwrap();
    });
}

/// What the broker makes of `bytes`: the error's text, the code and reason of its close frame.
fn refused(bytes: Vec<u8>) -> (String, u16, String) {
    let (sender, closing) = std::sync::mpsc::channel();
    let client = move |mut client: Client| {
        client.write_all(&bytes).unwrap();
        client.flush().unwrap();
        sender.send(answer(&mut client)).unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    };
    let (sender, error) = std::sync::mpsc::channel();
    between(Vec::new(), client, async move |mut server: Server| {
        let error = server.read_bytes(usize::MAX).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(server.transport.has_closed());
        server.transport.close_notify();
        server.flush().await;
        sender.send(error.to_string()).unwrap();
    });
    let (first, payload) = closing.recv().unwrap();
    assert_eq!(first, CLOSE);
    let (code, reason) = payload.split_first_chunk().unwrap();
    let reason = String::from_utf8(reason.to_vec()).unwrap();
    (error.recv().unwrap(), u16::from_be_bytes(*code), reason)
}

#[test]
fn a_message_split_into_frames_and_frames_split_into_bytes_arrive_whole() {
    let client = |mut client: Client| {
        // [MQTT-6.0.0-2]: a packet in three frames with a ping between, byte by byte.
        let frames = [frame(0x02, b"ab"), frame(PING, b"?"), frame(0x00, b"c"), frame(0x80, b"d")];
        for byte in frames.concat() {
            client.write_all(&[byte]).unwrap();
            client.flush().unwrap();
        }
        assert_eq!(answer(&mut client), (0x8a, b"?".to_vec()));
        // Two packets in one frame.
        client.write_all(&frame(BINARY, b"efgh")).unwrap();
        client.flush().unwrap();
    };
    between(Vec::new(), client, async |mut server: Server| {
        assert_eq!(server.read_bytes(8).await.unwrap(), ReadOutcome::Progress);
        assert_eq!(server.plain, b"abcdefgh");
    });
}

#[test]
fn what_came_with_the_request_is_read_first() {
    let mut bytes = frame(BINARY, b"first");
    let rest = bytes.split_off(7);
    let client = move |mut client: Client| {
        client.write_all(&rest).unwrap();
        client.flush().unwrap();
        client.write_all(&frame(BINARY, b"second")).unwrap();
        client.flush().unwrap();
    };
    between(bytes, client, async |mut server: Server| {
        server.read_bytes(11).await.unwrap();
        assert_eq!(server.plain, b"firstsecond");
    });
    between(frame(BINARY, b"all of it"), drop, async |mut server: Server| {
        server.read().await.unwrap();
        assert_eq!(server.plain, b"all of it");
    });
}

#[test]
fn a20_websocket_text_and_broken_frames_are_told_why() {
    let long = vec![b'x'; 1_001];
    let unmasked = vec![BINARY, 1, b'x'];
    let rows = [
        // [MQTT-6.0.0-1]
        ("MQTT is binary", 1003, frame(0x81, b"text")),
        ("MQTT is binary", 1003, [frame(0x01, b"te"), frame(0x80, b"xt")].concat()),
        ("not UTF-8", 1007, frame(0x81, b"\xff")),
        ("message too long", 1009, frame(BINARY, &long)),
        ("message too long", 1009, [frame(0x02, &long[1..]), frame(0x80, b"x")].concat()),
        // Announced and not sent.
        (
            "message too long",
            1009,
            vec![BINARY, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("not RFC 6455", 1002, unmasked),
        ("not RFC 6455", 1002, frame(0x80, b"continues nothing")),
        ("not RFC 6455", 1002, [frame(0x02, b"a"), frame(BINARY, b"b")].concat()),
        ("not RFC 6455", 1002, frame(PING, &[0; 126])),
        ("not RFC 6455", 1002, frame(0x09, b"a ping in pieces")),
        ("not RFC 6455", 1002, frame(0x83, b"an unknown kind")),
        // As compression would mark it, which was never agreed to.
        ("not RFC 6455", 1002, frame(0xc2, b"compressed")),
    ];
    for (what, code, bytes) in rows {
        let shown = bytes.get(..16).unwrap_or(&bytes).to_vec();
        let expected = (what.to_owned(), code, what.to_owned());
        assert_eq!(refused(bytes), expected, "{shown:02x?}");
    }
}

#[test]
fn the_larger_bound_holds_after_connect() {
    let client = |mut client: Client| {
        client.write_all(&frame(BINARY, &[1; 1_000])).unwrap();
        client.flush().unwrap();
        assert_eq!(answer(&mut client), (0x82, b"go".to_vec()));
        client.write_all(&frame(BINARY, &vec![2; 200_000])).unwrap();
        client.flush().unwrap();
        assert_eq!(answer(&mut client), (0x82, b"on".to_vec()));
        // One byte more, announced and not sent.
        client.write_all(&frame(BINARY, &vec![3; 200_001])[..14]).unwrap();
        client.flush().unwrap();
        assert_eq!(answer(&mut client).1[..2], 1009_u16.to_be_bytes());
    };
    between(Vec::new(), client, async |mut server: Server| {
        server.read_bytes(1_000).await.unwrap();
        server.transport.connected();
        server.transport.seal(b"go").unwrap();
        server.flush().await;
        server.read_bytes(201_000).await.unwrap();
        server.transport.seal(b"on").unwrap();
        server.flush().await;
        let error = server.read_bytes(usize::MAX).await.unwrap_err();
        assert_eq!(error.to_string(), "message too long");
        server.flush().await;
    });
}

#[test]
fn a_close_frame_is_answered_and_one_of_ours_goes_before_the_end_of_tls() {
    let client = |mut client: Client| {
        client.write_all(&frame(CLOSE, &1001_u16.to_be_bytes())).unwrap();
        client.flush().unwrap();
        assert_eq!(answer(&mut client), (CLOSE, 1001_u16.to_be_bytes().to_vec()));
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    };
    between(Vec::new(), client, async |mut server: Server| {
        assert_eq!(server.read().await.unwrap(), ReadOutcome::Ended);
        assert!(server.transport.has_closed());
        server.transport.close_notify();
        server.flush().await;
    });
    let client = |mut client: Client| {
        assert_eq!(answer(&mut client), (0x82, b"bye".to_vec()));
        assert_eq!(answer(&mut client), (CLOSE, 1000_u16.to_be_bytes().to_vec()));
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    };
    between(Vec::new(), client, async |mut server: Server| {
        server.transport.seal(b"bye").unwrap();
        server.flush().await;
        server.transport.close_notify();
        server.flush().await;
    });
}

#[test]
fn pings_that_nobody_reads_the_answers_of_pile_up_nothing() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let client = move |mut client: Client| {
        let pings = frame(PING, &[7; 125]).repeat(100);
        for _ in 0..1_000 {
            client.write_all(&pings).unwrap();
        }
        client.write_all(&frame(BINARY, b"still here")).unwrap();
        client.flush().unwrap();
        let _ = wait.recv();
    };
    between(Vec::new(), client, async move |mut server: Server| {
        // 12.5 MB of pings, of whose pongs the client reads none.
        server.read_bytes(10).await.unwrap();
        assert_eq!(server.plain, b"still here");
        let Transport::WebSocket(websocket) = &server.transport else { panic!("no WebSocket") };
        assert!(websocket.framing.get_ref().tls.wants_write(), "the socket is full");
        drop(done);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_the_cuts_the_bytes_are_the_same(
        messages in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4),
            1..6,
        ),
        write_bytes in 1_usize..700,
    ) {
        let expected = messages.concat().concat();
        let mut bytes = Vec::new();
        for message in &messages {
            let last = message.len() - 1;
            for (number, part) in message.iter().enumerate() {
                let kind = if number == 0 { 0x02 } else { 0x00 };
                let end = if number == last { 0x80 } else { 0x00 };
                bytes.extend(frame(kind | end, part));
            }
        }
        let client = move |mut client: Client| {
            for piece in bytes.chunks(write_bytes) {
                client.write_all(piece).unwrap();
                client.flush().unwrap();
            }
        };
        between(Vec::new(), client, async move |mut server: Server| {
            server.read_bytes(expected.len()).await.unwrap();
            assert_eq!(server.plain, expected);
        });
    }
}
