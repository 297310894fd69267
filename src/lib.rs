//! Avow.

pub mod identity;
pub mod mqtt;
pub mod time;
