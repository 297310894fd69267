//! A simulated plant: devices, their credentials' behaviour and one dashboard, on somebody
//! else's MQTT.
//!
//! The protocol engine is `mqtt-protocol-core` over `tokio-rustls`. It shares no line with the
//! broker under test, so a misreading of the specification in the broker's codec cannot be
//! cancelled out by the same misreading here. For the same reason this crate must never depend on
//! `avow`.
//!
//! Read in this order: [`client`] is one connection, [`profile`] is what a kind of device does (as
//! data, in `profiles/*.toml`), [`plant`] runs many devices and a dashboard, [`report`] is what
//! they saw and whether it was what their profiles expect.
//!
//! The invariant: a [`report::PlantReport`] counts only what came back over the wire: an
//! acknowledgement from the broker, or the same bytes at the dashboard.

#![expect(
    clippy::disallowed_methods,
    reason = "devices are outside the broker: clocks, sockets and tasks are their job"
)]

pub mod client;
mod dashboard;
mod device;
pub mod generator;
mod latency;
mod ledger;
mod payload;
pub mod plant;
pub mod profile;
mod random;
pub mod report;
mod seal;
pub mod signing;

pub use client::{Client, ClientError, ConnectOptions, Credentials, Endpoint};
pub use plant::{DashboardSpec, DeviceSpec, Plant, PlantError, PlantOptions};
pub use profile::{Profile, ProfileError};
pub use report::{DeviceReport, Expectation, PlantReport};
pub use signing::{Signing, SigningError};
