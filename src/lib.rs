//! Avow.

pub mod broker;
pub mod evidence;
pub mod identity;
pub mod mqtt;
pub mod refusal;
pub mod server;
pub mod session;
pub mod storage;
pub mod telemetry;
pub mod time;

pub mod policy;

pub mod source;
