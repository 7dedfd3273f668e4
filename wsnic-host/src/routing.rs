//! By which interfaces guests' packets go, and whether the host forwards them there.

use crate::links::{Link, Links, lan_of};
use std::io;
use std::net::Ipv4Addr;
use wsnic_proto::settings::{InterfaceName, Nat};

/// The interface to the Internet at the moment, if there is one to have.
///
/// # Errors
/// The kernel does not answer.
pub async fn way_out(nat: &Nat, links: &Links) -> io::Result<Option<InterfaceName>> {
    match nat {
        Nat::Off => Ok(None),
        Nat::Interface(name) => Ok(Some(name.clone())),
        Nat::DefaultRoute => {
            let name = links.default_route().await?;
            Ok(name.and_then(|name| InterfaceName::new(&name)))
        }
    }
}

/// The interfaces by which packets to these addresses leave and answers come back, and if `all`,
/// every other with an address. Not the guests' bridges.
///
/// # Errors
/// The kernel does not answer.
pub async fn ways_to(
    addresses: impl Iterator<Item = Ipv4Addr>,
    all: bool,
    links: &Links,
) -> io::Result<Vec<InterfaceName>> {
    let mut names = Vec::new();
    for address in addresses {
        names.extend(links.route_to(address).await?);
    }
    if all {
        let addresses = links.addresses().await?;
        let has_address = |link: &Link| addresses.iter().any(|(index, _)| *index == link.index);
        names.extend(links.all().await?.into_iter().filter(has_address).map(|link| link.name));
    }
    let others = names.iter().filter(|name| lan_of(name).is_none() && *name != "lo");
    Ok(others.filter_map(|name| InterfaceName::new(name)).collect())
}

/// True if the operator lets this host forward between all its interfaces (net.ipv4.ip_forward).
pub fn forwards_everything() -> bool {
    read("ip_forward") == "1"
}

/// What says whether packets are forwarded, for `interfaces` and in all: differs when it changed.
pub fn routing<'a>(interfaces: impl Iterator<Item = &'a str>) -> String {
    let one = |name: &str| read(&format!("conf/{name}/forwarding"));
    interfaces.map(one).fold(read("ip_forward"), |all, one| all + " " + &one)
}

/// A value below net.ipv4; empty if it is not there.
fn read(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    text.trim_end().to_owned()
}
