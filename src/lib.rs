//! Avow.

pub mod evidence;
pub mod identity;
pub mod mqtt;
pub mod refusal;
pub mod session;
pub mod storage;
pub mod time;
