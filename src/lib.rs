//! Avow.

pub mod evidence;
pub mod identity;
pub mod mqtt;
pub mod time;
