//! Raw bytes over mutual TLS, against the whole server: what a statement asks, sent and answered.
//!
//! `statements.toml` says which test proves which statement. Every test has a server of its own.

mod abuse_packets;
mod abuse_topics;
mod bytes;
mod client;
mod connect;
mod flow;
mod malformed;
mod publish;
mod qos;
mod server;
mod session;
mod site;
mod subscribe;
mod wills;
