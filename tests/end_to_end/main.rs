//! End to end: the built binary, real sockets, real certificates, other people's clients.
//!
//! Each test makes a plant of its own in a scratch directory and serves it on loopback
//! ([`harness`]). [`strangers`] are the clients that people have, [`kill_nine`] and [`tampering`]
//! hold the promise of the log, [`refusals`] is bad input of every kind, [`starting`] is what
//! clients hear while it is read, [`websocket`] is the way in for browsers, [`tokens`] what names
//! those without a certificate, [`proxy`] the one behind a proxy, [`erase`] and [`privacy`] what
//! the log tells of people, [`reading`] what one can ask of it, [`witness`] and [`timestamp`] what
//! others sign of it, [`auditing`] the read API, [`full_disk`] and [`clock`] what a machine does to it, [`batches`] and
//! [`freshness`] what devices say of themselves, [`demo`] is the command of the README.

#![expect(clippy::disallowed_methods, reason = "these tests run a program and wait for it")]

#[cfg(test)]
mod auditing;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod bundle;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod erase;
#[cfg(test)]
mod freshness;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod index;
#[cfg(test)]
mod kill_nine;
#[cfg(test)]
mod privacy;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod public_form;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod tampering;
#[cfg(test)]
mod timestamp;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod websocket;
#[cfg(test)]
mod witness;
