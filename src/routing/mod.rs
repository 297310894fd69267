//! Who gets a recorded message: subscriptions, shared subscriptions, retained messages.
//!
//! Nothing enters here but what is [`crate::evidence::Recorded`]. Whether a receiver may read a
//! topic is asked of the policy at each delivery, by the core; this room only knows who asked for
//! it. Sections 3.3, 3.8 and 4.7 to 4.9 of the specification.

mod delivery;
mod message;
mod retained;
mod tree;

pub use delivery::{Delivery, EncodedCopies};
pub(crate) use message::FoundMessage;
pub use message::{Message, kept_bytes};
pub use retained::{Reserved, Retained, Scan};
pub use tree::{Eligibility, Interest, SessionKey, Subscription, SubscriptionTree};
