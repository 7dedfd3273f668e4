//! What the machine is like: interfaces, addresses, routes, resolver, and what keeps wsnic off it.
//!
//! For the helper, which refuses to start on a machine that is not fit, and for `wsnic check`. It
//! looks and changes nothing.
#![forbid(unsafe_code)]

mod fitness;
mod links;
mod resolver;
mod routing;

pub use fitness::{Problem, device, names, privilege, problems, subnet, uplink};
pub use links::{
    BRIDGE, BRIDGE_GROUP, DYING_GROUP, LEAF_PREFIX, Link, Links, PORT_GROUP, PORT_PREFIX, describe,
    io_error, port_name, port_of,
};
pub use resolver::resolver;
pub use routing::{forwards_everything, routing, way_out, ways_to};

use wsnic_proto::MacAddr;

/// The bridge's address, the same at every start on this machine: guests keep it in their ARP caches.
pub fn bridge_mac() -> MacAddr {
    let mut seed = std::fs::read("/etc/machine-id").unwrap_or_default();
    seed.extend_from_slice(BRIDGE.as_bytes());
    MacAddr::locally_administered(&seed)
}
