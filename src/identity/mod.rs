//! Who a peer is.

pub mod name;

pub use name::{Identity, NameError, Role};
