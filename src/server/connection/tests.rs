//! Both ends of a connection over the loopback: a rustls client, and the task with the test in
//! the place of its shard.

#![expect(clippy::disallowed_methods, reason = "the client's sockets, and waiting for them")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::sync::Semaphore;

use super::*;
use crate::broker::{ConnectionFacts, ConnectionId};
use crate::mqtt::{
    Ack, ClientId, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    TopicName, encode, encode_publish,
};
use crate::server::options::Bounds;
use crate::server::testing::{Site, now};

const ID: ConnectionId = ConnectionId(7);

type Client = StreamOwned<ClientConnection, TcpStream>;

/// The payload of a PUBLISH at which the task of its connection panics, in the middle of a read.
pub(in crate::server) const PANIC: &[u8] = b"panic, for the sake of a test";

pub(in crate::server) fn panic_if_asked(packet: &Packet) {
    if let Packet::Publish(publish) = packet {
        assert!(&*publish.payload != PANIC, "a test asked for this panic");
    }
}

/// The shard's side of one connection.
struct Shard {
    local: Rc<Local>,
    link: Rc<Link>,
    inputs: VecDeque<Input>,
    facts: ConnectionFacts,
}

impl Shard {
    /// Waits for the next input.
    async fn next(&mut self) -> Input {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            self.local.take_inputs(&mut self.inputs);
            self.local.round_ended(false);
            if let Some(input) = self.inputs.pop_front() {
                return input;
            }
            assert!(tokio::time::Instant::now() < deadline, "no input came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for the next packets.
    async fn packets(&mut self) -> Vec<Packet> {
        match self.next().await {
            Input::Packets { connection: ID, packets } => packets,
            other => panic!("packets expected: {other:?}"),
        }
    }

    async fn closed(&mut self) -> CloseCause {
        match self.next().await {
            Input::Closed { connection: ID, cause } => cause,
            other => panic!("the end expected: {other:?}"),
        }
    }

    /// Nothing comes within a moment.
    async fn is_silent(&mut self) -> bool {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.local.take_inputs(&mut self.inputs);
        self.local.round_ended(false);
        self.inputs.is_empty()
    }
}

/// Runs `client` on a thread of its own against `shard`.
fn between<C, S, F>(bounds: Bounds, client: C, shard: S)
where
    C: FnOnce(Client) + Send + 'static,
    S: FnOnce(Shard) -> F,
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async move {
        let site = Site::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = site.client("press-7");
        let thread = std::thread::spawn(move || client(connect(&config, address)));
        let (socket, peer) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&site.tls));
        let stream = acceptor.accept(socket).await.unwrap();
        let (_, tls) = stream.get_ref();
        let peer = crate::server::handshake::establish(tls, peer, &site.issuers, now()).unwrap();
        let facts = peer.named().unwrap();
        let handshaken = crate::server::socket::Handshaken::detach(stream).unwrap();
        let local = Rc::new(Local::new(bounds));
        let link = Rc::new(Link::new(ID));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let socket = handshaken.attach().unwrap();
        let task = Connection::new(Rc::clone(&local), Rc::clone(&link), socket, permit);
        let task = tokio::task::spawn_local(task);
        let inputs = VecDeque::new();
        shard(Shard { local: Rc::clone(&local), link, inputs, facts }).await;
        let _ = tokio::time::timeout(Duration::from_secs(10), task).await.expect("the task ends");
        assert_eq!(local.tasks(), 0);
        thread.join().unwrap();
    });
}

fn connect(config: &Arc<ClientConfig>, address: std::net::SocketAddr) -> Client {
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut stream = StreamOwned::new(tls, socket);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

fn bytes(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        encode(packet, ProtocolVersion::V5, &mut bytes).unwrap();
    }
    bytes
}

fn connect_packet(client_id: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive_seconds: 60,
        client_id: ClientId::new(client_id),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }))
}

fn publish(payload: &[u8]) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(TopicName::parse("plant/press-7/temperature").unwrap()),
        packet_id: Some(PacketId::ONE),
        properties: PublishProperties::default(),
        payload: payload.to_vec().into(),
    }
}

fn publish_packet(payload: &[u8]) -> Packet {
    Packet::Publish(Box::new(publish(payload)))
}

fn connack() -> Packet {
    Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }))
}

fn read_exactly(client: &mut Client, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_session_from_connect_to_close() {
    let answer = bytes(&[connack()]);
    let acks = [1, 2, 3]
        .map(|id| Packet::PubAck(Ack::new(PacketId::new(id).unwrap(), ReasonCode::Success)));
    let ack_bytes = bytes(&acks);
    let delivered = bytes(&[publish_packet(b"21")]);
    let client = move |mut client: Client| {
        // PUBLISH pipelined behind CONNECT, the last one cut in the middle.
        let mut all = bytes(&[connect_packet("c")]);
        all.extend(bytes(&[publish_packet(b"1"), publish_packet(b"2"), publish_packet(b"3")]));
        let (first, second) = all.split_at(all.len() - 4);
        client.write_all(first).unwrap();
        assert_eq!(read_exactly(&mut client, answer.len()), answer);
        client.write_all(second).unwrap();
        assert_eq!(read_exactly(&mut client, ack_bytes.len()), ack_bytes);
        assert_eq!(read_exactly(&mut client, delivered.len()), delivered);
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).unwrap(), 0, "close_notify came");
    };
    between(Bounds::default(), client, async move |mut shard: Shard| {
        assert_eq!(shard.facts.identity.name(), "press-7");
        assert_eq!(shard.facts.tls_version, "1.3");
        assert_eq!(shard.packets().await, [connect_packet("c")], "CONNECT comes alone");
        assert!(shard.is_silent().await, "nothing behind it is read before the answer");
        assert_eq!(shard.link.version.get(), Some(ProtocolVersion::V5));
        shard.link.send(&shard.local, &connack()).unwrap();
        shard.link.set_open(true);
        assert_eq!(shard.packets().await, [publish_packet(b"1"), publish_packet(b"2")]);
        assert_eq!(shard.packets().await, [publish_packet(b"3")]);
        for ack in &acks {
            shard.link.send(&shard.local, ack).unwrap();
        }
        let copy = encode_publish(&publish(b"21"), ProtocolVersion::V5).unwrap();
        shard.link.deliver(&shard.local, &copy, false, Some(PacketId::ONE));
        match shard.next().await {
            Input::Written { connection: ID, bytes } => assert_eq!(bytes, copy.len()),
            other => panic!("{other:?}"),
        }
        shard.link.close();
        assert_eq!(shard.closed().await, CloseCause::Ours);
    });
}

#[test]
fn a_paused_peer_is_not_read_and_a_resumed_one_is() {
    let client = |mut client: Client| {
        client.write_all(&bytes(&[connect_packet("c")])).unwrap();
        client.write_all(&bytes(&[publish_packet(b"1")])).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        client.conn.send_close_notify();
        client.flush().unwrap();
    };
    between(Bounds::default(), client, async |mut shard: Shard| {
        shard.packets().await;
        shard.link.set_open(true);
        shard.link.set_open(false);
        assert!(shard.is_silent().await);
        shard.link.set_open(true);
        assert_eq!(shard.packets().await, [publish_packet(b"1")]);
        shard.local.round_ended(true);
        shard.link.notify();
        tokio::time::sleep(Duration::from_millis(300)).await;
        shard.local.take_inputs(&mut shard.inputs);
        assert!(shard.inputs.is_empty(), "a backlogged core reads nobody, not even the end");
        shard.local.round_ended(false);
        assert_eq!(shard.closed().await, CloseCause::Peer);
    });
}

#[test]
fn a_connect_longer_than_its_bound_is_refused_at_its_header() {
    let bounds = Bounds { connect_bytes_max: 1_000, ..Bounds::default() };
    let client = |mut client: Client| {
        // A fixed header that announces 64 KiB; the body never comes.
        client.write_all(&[0x10, 0x80, 0x80, 0x04]).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    };
    between(bounds, client, async |mut shard: Shard| {
        match shard.next().await {
            Input::Violated { violation, version, .. } => {
                assert_eq!(violation.reason, ReasonCode::PacketTooLarge);
                assert_eq!(version, None);
            }
            other => panic!("{other:?}"),
        }
        shard.link.close();
        assert_eq!(shard.closed().await, CloseCause::Ours);
    });
}

#[test]
fn after_a_violation_the_last_packet_still_reaches_a_peer_that_goes_on_sending() {
    let disconnect = Packet::Disconnect(Box::new(Disconnect {
        reason: ReasonCode::MalformedPacket,
        properties: DisconnectProperties::default(),
    }));
    let expected = bytes(std::slice::from_ref(&disconnect));
    let client = move |mut client: Client| {
        client.write_all(&bytes(&[connect_packet("c")])).unwrap();
        client.write_all(&[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
        for _ in 0..64 {
            if client.write_all(&[0; 1_024]).is_err() {
                break;
            }
        }
        assert_eq!(read_exactly(&mut client, expected.len()), expected);
    };
    between(Bounds::default(), client, async move |mut shard: Shard| {
        shard.packets().await;
        shard.link.set_open(true);
        match shard.next().await {
            Input::Violated { version: Some(ProtocolVersion::V5), .. } => {}
            other => panic!("{other:?}"),
        }
        shard.link.send(&shard.local, &disconnect).unwrap();
        shard.link.close();
        assert_eq!(shard.closed().await, CloseCause::Ours);
    });
}

#[test]
fn a_peer_that_does_not_read_is_given_up_after_its_deadline() {
    let bounds = Bounds { write_stall_max: Duration::from_millis(200), ..Bounds::default() };
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let client = move |mut client: Client| {
        client.write_all(&bytes(&[connect_packet("c")])).unwrap();
        let _ = wait.recv();
    };
    between(bounds, client, async move |mut shard: Shard| {
        shard.packets().await;
        shard.link.set_open(true);
        let copy = encode_publish(&publish(&[0; 60_000]), ProtocolVersion::V5).unwrap();
        // More than the buffers of both ends of a loopback connection hold.
        for _ in 0..200 {
            shard.link.deliver(&shard.local, &copy, false, Some(PacketId::ONE));
        }
        assert_eq!(shard.closed().await, CloseCause::Transport);
        drop(done);
    });
}

#[test]
fn more_unsent_than_the_bound_ends_the_connection() {
    let bounds = Bounds { out_bytes_max: 10_000, ..Bounds::default() };
    let client = |mut client: Client| {
        client.write_all(&bytes(&[connect_packet("c")])).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    };
    between(bounds, client, async |mut shard: Shard| {
        shard.packets().await;
        let copy = encode_publish(&publish(&[0; 6_000]), ProtocolVersion::V5).unwrap();
        shard.link.deliver(&shard.local, &copy, false, Some(PacketId::ONE));
        shard.link.deliver(&shard.local, &copy, false, Some(PacketId::ONE));
        assert_eq!(shard.closed().await, CloseCause::TaskFailed);
    });
}

#[test]
fn a_large_packet_in_small_pieces_arrives_whole_and_leaves_no_buffer_behind() {
    let payload = vec![b'x'; 100_000];
    let sent = publish_packet(&payload);
    let expected = sent.clone();
    let client = move |mut client: Client| {
        client.write_all(&bytes(&[connect_packet("c")])).unwrap();
        for piece in bytes(&[sent]).chunks(777) {
            client.write_all(piece).unwrap();
        }
    };
    between(Bounds::default(), client, async move |mut shard: Shard| {
        shard.packets().await;
        shard.link.set_open(true);
        assert_eq!(shard.packets().await, [expected]);
        assert_eq!(shard.closed().await, CloseCause::Peer);
    });
}
