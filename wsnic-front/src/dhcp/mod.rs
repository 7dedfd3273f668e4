//! The built-in DHCPv4 server (RFC 2131, RFC 2132), asked on each guest's port.
//!
//! Runs in the front-end. The shuttle hands a guest's DHCP frame to [`Server::handle`] instead of
//! the bridge and sends the reply back to that guest alone. So there is no socket, nothing is
//! flooded, and the server knows which session asks.
//!
//! Theory of operation:
//! - `request` turns a frame into a checked [`request::Query`]; `reply` turns an answer into a frame;
//! - `server` decides which answer RFC 2131 §4.3 asks for;
//! - `pool` decides who gets which address, and `bindings` keeps its books;
//! - `lease_file` is the only file here that does I/O: it is opened before the sandbox closes and
//!   writes to its open descriptor afterwards.
//!
//! Nothing here reads a clock: the time comes as an argument, in seconds since 1970, because that
//! is what the lease file holds. A clock that jumps makes leases longer or shorter, nothing worse.

mod bindings;
mod host_name;
pub(crate) mod lease_file;
mod lease_line;
mod pool;
mod reply;
mod request;
mod server;

pub use host_name::HostName;
pub(crate) use lease_file::{LeaseFile, LeaseFileError, OpenedLeases};
pub use pool::Refusal;
pub use request::Malformed;
pub use server::{Answers, Event, Outcome, Server};

use std::net::Ipv4Addr;
use wsnic_proto::{MacAddr, Plan};

/// What guests are told, and from which addresses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Gateway and guest addresses.
    pub plan: Plan,
    /// The bridge's MAC address: the source of every answer.
    pub gateway_mac: MacAddr,
    /// Interface MTU in bytes (option 26), 68 to 65535.
    pub mtu: u16,
    /// Seconds that a lease lasts (option 51).
    pub lease_time: u32,
    /// Domain that guests search in (option 15); longer than 255 bytes: not announced.
    pub domain_name: Option<String>,
    /// Name servers to announce (option 6), the gateway too if it is one; empty: the option is left out.
    pub nameservers: Vec<Ipv4Addr>,
}

/// One session's port. Never used again for another session, because a closed port's leases and
/// counts hang on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey(pub u64);

/// Who was given which address until when: a line of the lease file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The client hardware address (chaddr) that it belongs to.
    pub mac: MacAddr,
    /// Seconds since 1970. One in the past is the memory of which address the MAC had.
    pub expiry: u64,
    /// What the guest calls itself.
    pub host_name: Option<HostName>,
}

#[cfg(test)]
mod tests;
