//! Avow.

pub mod broker;
pub mod cli;
pub mod config;
pub mod evidence;
pub mod identity;
pub mod limits;
pub mod mqtt;
pub mod policy;
pub mod refusal;
pub mod schema;
pub mod server;
pub mod session;
pub mod source;
pub mod storage;
pub mod telemetry;
pub mod time;
