//! The acceptor: from a TCP connection to its shard.
//!
//! One thread accepts, bounds and shakes hands ([`super::entrance`]) for all shards, so that a flood of strangers costs
//! the shards nothing. Each socket has one deadline from accept to CONNECT; a socket that says
//! nothing holds a place in a bounded line and no TLS state. Invariant: what reaches a shard has an
//! identity, and whatever is turned away is told to a shard under a stable name.

#![expect(clippy::disallowed_methods, reason = "the acceptor owns the listening socket")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock::Clock;
use super::entrance::{Entered, Entrance};
use super::message::{Message, Opened, RefusedHandshake, Shards};
use super::options::Bounds;
use super::proxy::ProxyRefusal;
use super::shutdown::Stopper;
use crate::broker::{ConnectionId, Histogram};
use crate::identity::Identity;
use crate::limits::AddressLimiter;
use crate::time::Instant;

/// Refused handshakes on their way to a shard at once; more are counted and dropped.
pub(super) const REFUSALS_QUEUED_MAX: usize = 1_024;
/// Wait after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the acceptor measured, for the metrics.
#[derive(Debug, Default)]
pub struct HandshakeStats {
    durations: Mutex<Histogram>,
    unreported: AtomicU64,
}

impl HandshakeStats {
    /// Time from the first byte of a client to its identity, of those that succeeded.
    pub fn durations(&self) -> Histogram {
        self.durations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refused handshakes that reached no log because too many waited.
    pub fn unreported(&self) -> u64 {
        self.unreported.load(Ordering::Relaxed)
    }

    fn observe(&self, duration: Duration) {
        self.durations.lock().unwrap_or_else(PoisonError::into_inner).observe(duration);
    }
}

/// What the acceptor is made of.
pub(super) struct AcceptorParts {
    pub(super) address_limiter: AddressLimiter,
    pub(super) bounds: Bounds,
    pub(super) clock: Clock,
    pub(super) shards: Shards,
    pub(super) stats: Arc<HandshakeStats>,
}

/// What the tasks of the acceptor share.
struct Acceptor {
    bounds: Bounds,
    clock: Clock,
    shards: Shards,
    stats: Arc<HandshakeStats>,
    address_limiter: RefCell<AddressLimiter>,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Places between accept and identity, shaking hands or waiting for it.
    sockets: Arc<Semaphore>,
    per_address: RefCell<HashMap<IpAddr, usize>>,
    next_connection: AtomicU64,
}

/// Accepts at every entrance until `stopper` says stop. Must run on a local runtime of its own
/// thread.
pub(super) async fn accept(
    mqtt: (TcpListener, Entrance),
    websocket: Option<(TcpListener, Entrance)>,
    parts: AcceptorParts,
    stopper: Stopper,
) {
    let AcceptorParts { address_limiter, bounds, clock, shards, stats } = parts;
    let sockets_max = bounds.handshakes_max.saturating_add(bounds.handshakes_waiting_max);
    let acceptor = Rc::new(Acceptor {
        bounds,
        clock,
        shards,
        stats,
        address_limiter: RefCell::new(address_limiter),
        connections: Arc::new(Semaphore::new(bounds.connections_max.min(Semaphore::MAX_PERMITS))),
        refusals: Arc::new(Semaphore::new(REFUSALS_QUEUED_MAX)),
        sockets: Arc::new(Semaphore::new(sockets_max.min(Semaphore::MAX_PERMITS))),
        per_address: RefCell::default(),
        next_connection: AtomicU64::new(0),
    });
    let at_websocket = async {
        if let Some((listener, entrance)) = websocket {
            acceptor.accept_at(listener, entrance, &stopper).await;
        }
    };
    let (listener, entrance) = mqtt;
    tokio::join!(acceptor.accept_at(listener, entrance, &stopper), at_websocket);
}

/// Errors of `accept` that concern the connection alone.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl Acceptor {
    /// Accepts at one entrance until `stopper` says stop.
    async fn accept_at(
        self: &Rc<Self>,
        listener: TcpListener,
        entrance: Entrance,
        stopper: &Stopper,
    ) {
        let entrance = Rc::new(entrance);
        let stopped = stopper.stopped();
        tokio::pin!(stopped);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    if let Err(reason) = self.admit(&entrance, socket, peer) {
                        self.report_refused(peer, reason);
                    }
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives `socket` a place and a task, or closes it at once.
    fn admit(
        self: &Rc<Self>,
        entrance: &Rc<Entrance>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Result<(), &'static str> {
        let deadline = self.clock.instant().after(self.bounds.connect_max);
        // A proxy's own address counts for nothing: its connections are those of its clients.
        let is_proxied = entrance.is_proxied(peer.ip()).map_err(ProxyRefusal::name)?;
        let address = if is_proxied { None } else { Some(self.admit_address(peer.ip())?) };
        let connection = Arc::clone(&self.connections)
            .try_acquire_owned()
            .map_err(|_| "tls.connections_full")?;
        let place =
            Arc::clone(&self.sockets).try_acquire_owned().map_err(|_| "tls.handshakes_full")?;
        let (this, entrance) = (Rc::clone(self), Rc::clone(entrance));
        let task = async move {
            let _place = place;
            this.let_in(&entrance, socket, peer, address, deadline, connection).await;
        };
        #[expect(clippy::let_underscore_future, reason = "the task reports its own end")]
        let _ = tokio::task::spawn_local(task);
        Ok(())
    }

    /// Counts a connection of `address`, and takes its place among those of that address.
    fn admit_address(self: &Rc<Self>, address: IpAddr) -> Result<AddressPlace, &'static str> {
        if !self.address_limiter.borrow_mut().admit(self.clock.now(), address) {
            return Err("tls.address_rate");
        }
        AddressPlace::take(self, address).ok_or("tls.address_handshakes")
    }

    /// Takes one connection from its first byte to its shard. Without an `address` that was
    /// admitted, the address is yet to be read.
    async fn let_in(
        self: &Rc<Self>,
        entrance: &Entrance,
        mut socket: TcpStream,
        peer: SocketAddr,
        address: Option<AddressPlace>,
        deadline: Instant,
        connection: OwnedSemaphorePermit,
    ) {
        let (peer, _address) = match address {
            Some(address) => (peer, address),
            None => {
                let source = match entrance.source(&mut socket, peer, deadline).await {
                    Ok(source) => source,
                    Err(refused) => return self.report_refused(peer, refused.reason),
                };
                match self.admit_address(source.ip()) {
                    Ok(address) => (source, address),
                    Err(reason) => return self.report_refused(source, reason),
                }
            }
        };
        match entrance.enter(socket, peer, deadline).await {
            Ok(Entered { facts, handshaken, begin }) => {
                self.stats.observe(self.clock.instant().since(begin));
                self.give(Opened {
                    connection: self.next_id(),
                    connect_deadline: deadline,
                    permit: connection,
                    facts: Arc::new(facts),
                    handshaken,
                });
            }
            Err(away) => {
                // Told before anybody can see it.
                self.report_refused(peer, away.refused.reason);
                entrance.dismiss(away).await;
            }
        }
    }

    fn next_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    fn give(&self, opened: Opened) {
        let hash = shard_hash(&opened.facts.identity);
        self.shards.send_hashed(hash, Message::Opened(Box::new(opened)));
    }

    /// Tells the core, unless too many wait to be told.
    fn report_refused(&self, peer: SocketAddr, reason: &'static str) {
        let permit: Result<OwnedSemaphorePermit, _> =
            Arc::clone(&self.refusals).try_acquire_owned();
        match permit {
            Ok(permit) => {
                let refused = RefusedHandshake { peer, reason, permit };
                self.shards.send(0, Message::HandshakeRefused(refused));
            }
            Err(_) => {
                self.stats.unreported.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What decides the shard of an identity; the same in every run.
fn shard_hash(identity: &Identity) -> u64 {
    use std::hash::BuildHasher as _;
    foldhash::quality::FixedState::with_seed(0).hash_one(identity)
}

/// A place among the sockets of one address.
struct AddressPlace {
    acceptor: Rc<Acceptor>,
    address: IpAddr,
}

impl AddressPlace {
    fn take(acceptor: &Rc<Acceptor>, address: IpAddr) -> Option<Self> {
        let address = network_of(address);
        let mut per_address = acceptor.per_address.borrow_mut();
        let count = per_address.entry(address).or_default();
        if *count >= acceptor.bounds.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        Some(Self { acceptor: Rc::clone(acceptor), address })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut per_address = self.acceptor.per_address.borrow_mut();
        if let Some(count) = per_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_address.remove(&self.address);
            }
        }
    }
}

/// What one subscriber of an access network holds: an IPv4 address, or a /64 of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let first: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let second: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(network_of(first), network_of(second));
        assert_ne!(network_of(first), network_of(other));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(network_of(mapped), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_shard_of_an_identity_never_changes() {
        let identity = Identity::parse("spiffe://plant/device/press-7", "plant").unwrap();
        assert_eq!(shard_hash(&identity), shard_hash(&identity.clone()));
        let other = Identity::parse("spiffe://plant/device/press-8", "plant").unwrap();
        assert_ne!(shard_hash(&identity), shard_hash(&other));
    }
}
