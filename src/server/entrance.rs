//! One way in: what is demanded, in order, of whoever comes to one listening address.
//!
//! A header of the PROXY protocol, where proxies stand before it; TLS; an HTTP upgrade, where
//! WebSockets are served; a name. One deadline covers them all, and CONNECT behind them. A refused
//! upgrade is answered, within a bound of its own; everything else just ends.
//!
//! Not here: how many may come at once. Invariant: who comes out has an identity.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::clock::Clock;
use super::handshake::{self, Peer, Refused};
use super::options::{Bounds, ProxyOptions, WebSocketOptions};
use super::proxy::{self, ProxyRefusal, Source};
use super::socket::Handshaken;
use super::tls::HandshakeFailure;
use super::upgrade::{self, HeadFault, UpgradeRefusal, UpgradeRules};
use super::websocket::Upgraded;
use crate::broker::ConnectionFacts;
use crate::identity::Issuers;
use crate::time::Instant;

/// What every entrance needs of the server.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) issuers: Arc<Issuers>,
    pub(super) bounds: Bounds,
    pub(super) clock: Clock,
}

/// One way in.
pub(super) struct Entrance {
    around: Surroundings,
    tls: TlsAcceptor,
    proxy: Option<ProxyOptions>,
    websocket: Option<WebSocketRules>,
    /// Places to shake hands. Each entrance has its own: a flood of browsers must not keep the
    /// devices waiting.
    handshakes: Semaphore,
}

struct WebSocketRules {
    upgrade: UpgradeRules,
    message_bytes_max: usize,
}

/// Who came in, and how long it took from the first byte of TLS.
pub(super) struct Entered {
    pub(super) facts: ConnectionFacts,
    pub(super) handshaken: Handshaken,
    pub(super) begin: Instant,
}

/// Who did not come in, and the answer that it is owed.
pub(super) struct TurnedAway {
    pub(super) refused: Refused,
    farewell: Option<Box<Farewell>>,
}

struct Farewell {
    stream: TlsStream<TcpStream>,
    refusal: UpgradeRefusal,
}

impl From<Refused> for TurnedAway {
    fn from(refused: Refused) -> Self {
        Self { refused, farewell: None }
    }
}

/// A stream after TLS, and its place among the handshakes.
struct Secured<'a> {
    stream: TlsStream<TcpStream>,
    begin: Instant,
    _turn: SemaphorePermit<'a>,
}

impl Entrance {
    /// MQTT right inside TLS.
    pub(super) fn mqtt(
        around: Surroundings,
        tls: Arc<rustls::ServerConfig>,
        proxy: Option<ProxyOptions>,
    ) -> Self {
        let places = around.bounds.handshakes_max.min(Semaphore::MAX_PERMITS);
        let handshakes = Semaphore::new(places);
        Self { around, tls: tls.into(), proxy, websocket: None, handshakes }
    }

    /// MQTT over WebSocket.
    pub(super) fn websocket(around: Surroundings, options: WebSocketOptions) -> Self {
        let WebSocketOptions { tls, path, origins, allow_no_origin, .. } = options;
        let websocket = WebSocketRules {
            upgrade: UpgradeRules { path, origins, allow_no_origin },
            message_bytes_max: options.message_bytes_max,
        };
        Self { websocket: Some(websocket), ..Self::mqtt(around, tls, options.proxy) }
    }

    /// Whether the address of a socket is that of its client, or a header will say whose it is.
    pub(super) fn is_proxied(&self, peer: IpAddr) -> Result<bool, ProxyRefusal> {
        match &self.proxy {
            None => Ok(false),
            Some(proxy) if proxy.trusted.iter().any(|network| network.contains(peer)) => Ok(true),
            Some(_) => Err(ProxyRefusal::Untrusted),
        }
    }

    /// Reads whose connection `socket` is; `peer` is its own address.
    pub(super) async fn source(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<SocketAddr, Refused> {
        let Some(proxy) = &self.proxy else { return Ok(peer) };
        let read = async { Ok(proxy::read_header(socket, proxy.version).await?) };
        match self.in_time(deadline, read).await? {
            Source::Client(client) => Ok(client),
            Source::Socket => Ok(peer),
        }
    }

    /// Lets `socket` in, or says why not; then the caller reports it and calls [`Self::dismiss`].
    pub(super) async fn enter(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Entered, TurnedAway> {
        let secured = self.in_time(deadline, self.shake_hands(socket)).await?;
        match &self.websocket {
            None => {
                let facts = self.establish(&secured.stream, peer)?.named()?;
                let begin = secured.begin;
                let handshaken = detach(secured.stream)?;
                Ok(Entered { facts, handshaken, begin })
            }
            Some(rules) => self.upgrade(rules, secured, peer, deadline).await,
        }
    }

    async fn shake_hands(&self, socket: TcpStream) -> Result<Secured<'_>, Refused> {
        socket.set_nodelay(true).map_err(|_| Refused::FAILED)?;
        // Whoever says nothing waits here, at the price of a socket.
        socket.readable().await.map_err(|_| Refused::FAILED)?;
        let turn = self.handshakes.acquire().await.map_err(|_| Refused::FAILED)?;
        let begin = self.around.clock.instant();
        let stream = self.tls.accept(socket).await.map_err(|error| Refused::of(&error))?;
        Ok(Secured { stream, begin, _turn: turn })
    }

    async fn upgrade(
        &self,
        rules: &WebSocketRules,
        secured: Secured<'_>,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Entered, TurnedAway> {
        let Secured { mut stream, begin, _turn } = secured;
        let head =
            timeout_at(self.around.clock.deadline(deadline), upgrade::read_head(&mut stream));
        let judged = match head.await {
            Ok(Ok(head)) => upgrade::judge(&head, &rules.upgrade).map(|answer| (head, answer)),
            Ok(Err(HeadFault::TooLong)) => Err(UpgradeRefusal::HeadTooLong),
            Ok(Err(HeadFault::Io(error))) => {
                let reason = HandshakeFailure::Io(error.kind()).name();
                return Err(Refused { reason }.into());
            }
            Err(_elapsed) => Err(UpgradeRefusal::TooSlow),
        };
        // Only a request that is right in itself is told about its certificate.
        let judged = match judged {
            Ok(accepted) => match self.establish(&stream, peer)? {
                Peer::Named(facts) => Ok((*facts, accepted)),
                // Here a token in CONNECT will give a name to whoever has none.
                Peer::Nameless => Err(UpgradeRefusal::NoCertificate),
            },
            Err(refusal) => Err(refusal),
        };
        match judged {
            Ok((facts, (head, answer))) => {
                let accepted = async {
                    upgrade::accept(&mut stream, &answer).await.map_err(|_| Refused::FAILED)
                };
                self.in_time(deadline, accepted).await?;
                let handshaken = detach(stream)?.upgraded(Upgraded {
                    behind: head.behind,
                    connect_bytes_max: self.around.bounds.connect_bytes_max,
                    message_bytes_max: rules.message_bytes_max,
                });
                Ok(Entered { facts, handshaken, begin })
            }
            Err(refusal) => {
                let farewell = Some(Box::new(Farewell { stream, refusal }));
                Err(TurnedAway { refused: refusal.into(), farewell })
            }
        }
    }

    /// Answers whoever is owed an answer, within a bound, and closes the connection.
    pub(super) async fn dismiss(&self, away: TurnedAway) {
        let Some(mut farewell) = away.farewell else { return };
        let linger = self.around.clock.instant().after(self.around.bounds.linger_max);
        let answered = upgrade::refuse(&mut farewell.stream, farewell.refusal);
        let _ = timeout_at(self.around.clock.deadline(linger), answered).await;
    }

    fn establish(&self, stream: &TlsStream<TcpStream>, peer: SocketAddr) -> Result<Peer, Refused> {
        let (_, tls) = stream.get_ref();
        handshake::establish(tls, peer, &self.around.issuers, self.around.clock.now())
    }

    async fn in_time<T>(
        &self,
        deadline: Instant,
        step: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        let timeout = self.around.clock.deadline(deadline);
        timeout_at(timeout, step).await.unwrap_or(Err(Refused::TIMED_OUT))
    }
}

/// Takes the stream out of this thread's reactor.
fn detach(stream: TlsStream<TcpStream>) -> Result<Handshaken, Refused> {
    Handshaken::detach(stream).map_err(|_| Refused::FAILED)
}
