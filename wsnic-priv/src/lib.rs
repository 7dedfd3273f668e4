//! wsnic-priv, the helper: the only part of wsnic that holds a privilege.
//!
//! Owns the bridge, the TAPs and the firewall rules, and hands TAP fds to the front-end over one
//! unix socket. It never sees a frame, a WebSocket or a name that a stranger chose.

mod bridge;
mod closer;
mod firewall;
mod leaf;
mod link;
mod network;
mod ports;
mod sandbox;
mod server;
pub mod startup;
mod sysctl;
mod tap;
