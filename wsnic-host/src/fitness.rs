//! What keeps wsnic from starting on this machine, and what to do about it.

use crate::links::{
    BRIDGE_GROUP, DYING_GROUP, LEAF_PREFIX, Link, Links, PORT_GROUP, lan_of, port_of,
};
use crate::routing::way_out;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use wsnic_proto::Settings;
use wsnic_proto::settings::{InterfaceName, Nat, Network};

/// Why wsnic cannot start here.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { what: what.into(), remedy: remedy.into() }
}

/// The privilege that the helper needs is missing.
pub fn privilege() -> Option<Problem> {
    let held = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN);
    let missing = problem(
        "this process may not administer the network",
        "run it as root, or give the container --cap-add=NET_ADMIN",
    );
    (!held.unwrap_or(false)).then_some(missing)
}

/// The device that the helper needs is missing.
pub fn device() -> Option<Problem> {
    let error = OpenOptions::new().read(true).write(true).open("/dev/net/tun").err()?;
    Some(problem(
        format!("/dev/net/tun cannot be opened ({error})"),
        "run `modprobe tun`, or give the container --device /dev/net/tun",
    ))
}

/// All of them, for these settings.
///
/// # Errors
/// The kernel does not answer.
pub async fn problems(settings: &Settings, links: &Links) -> io::Result<Vec<Problem>> {
    let mut found: Vec<Problem> = privilege().into_iter().chain(device()).collect();
    found.extend(names(links).await?);
    for network in settings.networks() {
        found.extend(subnet(network, links).await?);
        found.extend(uplink(network, links).await?.err());
    }
    Ok(found)
}

/// Foreign interfaces with names that wsnic would give.
///
/// # Errors
/// The kernel does not answer.
pub async fn names(links: &Links) -> io::Result<Vec<Problem>> {
    let is_foreign = |link: &Link| {
        let of_bridges = lan_of(&link.name).is_some() || link.name.starts_with(LEAF_PREFIX);
        (of_bridges && link.group != BRIDGE_GROUP)
            || (port_of(&link.name).is_some() && ![PORT_GROUP, DYING_GROUP].contains(&link.group))
    };
    let foreign = links.all().await?.into_iter().filter(is_foreign).map(|link| {
        problem(
            format!("there is an interface {} that this program did not make", link.name),
            format!("stop what made it, or remove it with `ip link del {}`", link.name),
        )
    });
    Ok(foreign.collect())
}

/// Other interfaces in a network's subnet.
///
/// # Errors
/// The kernel does not answer.
pub async fn subnet(network: &Network, links: &Links) -> io::Result<Vec<Problem>> {
    let subnet = network.plan.subnet();
    let all = links.all().await?;
    let addresses = links.addresses().await?.into_iter();
    let clashes = addresses
        .filter(|(_, block)| block.overlaps(subnet))
        .filter_map(|(index, block)| Some((all.iter().find(|link| link.index == index)?, block)))
        .filter(|(link, _)| lan_of(&link.name).is_none())
        .map(|(link, block)| {
            problem(
                format!("the guests' subnet {subnet} is in use: {} has {block}", link.name),
                "choose another with the option subnet, such as subnet=10.86.0.0/24",
            )
        });
    Ok(clashes.collect())
}

/// The interface to the Internet, if there is one to have; or the one that the configuration names
/// is missing.
///
/// # Errors
/// The kernel does not answer.
pub async fn uplink(
    network: &Network,
    links: &Links,
) -> io::Result<Result<Option<InterfaceName>, Problem>> {
    let nat = &network.nat;
    let Nat::Interface(name) = nat else { return Ok(Ok(way_out(nat, links).await?)) };
    let others: Vec<String> = links.all().await?.into_iter().map(|link| link.name).collect();
    if others.iter().any(|other| other == name.as_str()) {
        return Ok(Ok(Some(name.clone())));
    }
    let list = others.join(", ");
    Ok(Err(problem(
        format!("inet_iface names {name}, and there is no such interface"),
        format!("use one of {list}, or enable_inet=1 for that of the default route"),
    )))
}
