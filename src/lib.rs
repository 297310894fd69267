//! Avow.

pub mod broker;
pub mod evidence;
pub mod identity;
pub mod mqtt;
pub mod refusal;
pub mod server;
pub mod session;
pub mod time;

pub mod limits;
pub mod policy;
pub mod schema;

pub mod source;
