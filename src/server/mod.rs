//! The shell: what touches sockets, TLS and the clock, around a core that touches none of them.

pub mod tls;
