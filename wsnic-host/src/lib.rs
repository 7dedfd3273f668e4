//! What the machine is like: interfaces, addresses, routes, resolver, and what keeps wsnic off it.
//!
//! For the helper, which refuses to start on a machine that is not fit, and for `wsnic check`. It
//! looks and changes nothing.
#![forbid(unsafe_code)]

mod events;
mod fitness;
mod links;
mod listeners;
mod resolver;
mod routing;
pub mod tripwire;

pub use events::{Event, events};
pub use fitness::{Problem, device, names, privilege, problems, subnet, uplink};
pub use links::{
    BRIDGE_GROUP, BRIDGE_PREFIX, DYING_GROUP, LEAF_PREFIX, Link, Links, PORT_GROUP, PORT_PREFIX,
    bridge_name, describe, io_error, lan_of, port_name, port_of, rooms_prefix,
};
pub use listeners::Listeners;
pub use resolver::resolver;
pub use routing::{forwards_everything, routing, way_out, ways_to};

use wsnic_proto::MacAddr;

/// The address of a network's bridges, the same at every start on this machine: guests keep it in their
/// ARP caches.
pub fn bridge_mac(network: u16) -> MacAddr {
    let mut seed = std::fs::read("/etc/machine-id").unwrap_or_default();
    seed.extend_from_slice(format!("{BRIDGE_PREFIX}{network}").as_bytes());
    MacAddr::locally_administered(&seed)
}
