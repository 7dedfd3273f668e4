//! What in this machine stands in wsnic's way, and what to do about it.
//!
//! Used at every start, and by `wsnic check`, which prints all of it. Looks and changes nothing.

use crate::firewall::{self, Obstacle};
use crate::link::{BRIDGE_GROUP, DYING_GROUP, Links, PORT_GROUP, port_of};
use crate::network::{self, BRIDGE};
use crate::resolver;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use wsnic_os::log::chain;
use wsnic_proto::settings::{HostFirewall, InterfaceName, Nat, Settings};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// wsnic starts, and something will not work.
    Warning,
    /// wsnic cannot start.
    Problem,
}

/// One line of `wsnic check`.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do about it; empty when it is good.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, ": {}", self.remedy) }
    }
}

fn good(what: impl Into<String>) -> Finding {
    Finding { level: Level::Good, what: what.into(), remedy: String::new() }
}

fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, what: what.into(), remedy: remedy.into() }
}

fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Problem, what: what.into(), remedy: remedy.into() }
}

/// The privilege and the device that the helper needs.
pub fn machine() -> Vec<Finding> {
    let privilege =
        match caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN) {
            Ok(true) => good("this process may administer the network (CAP_NET_ADMIN)"),
            _ => problem(
                "this process may not administer the network",
                "run it as root, or give the container --cap-add=NET_ADMIN",
            ),
        };
    let device = match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => good("/dev/net/tun can be opened"),
        Err(error) => problem(
            format!("/dev/net/tun cannot be opened ({error})"),
            "run `modprobe tun`, or give the container --device /dev/net/tun",
        ),
    };
    vec![privilege, device]
}

/// Interfaces, addresses, way out, resolver and the host's firewall.
///
/// # Errors
/// The kernel does not answer.
pub async fn network(settings: &Settings, links: &Links) -> io::Result<Vec<Finding>> {
    let mut findings = machine();
    findings.extend(names(links).await?);
    findings.extend(subnet(settings, links).await?);
    findings.extend(uplink(settings, links).await?);
    Ok(findings)
}

/// Foreign interfaces with names that wsnic would give.
async fn names(links: &Links) -> io::Result<Vec<Finding>> {
    let foreign: Vec<Finding> = links
        .all()
        .await?
        .into_iter()
        .filter(|link| {
            (link.name == BRIDGE && link.group != BRIDGE_GROUP)
                || (port_of(&link.name).is_some()
                    && ![PORT_GROUP, DYING_GROUP].contains(&link.group))
        })
        .map(|link| {
            problem(
                format!("there is an interface {} that this program did not make", link.name),
                format!("stop what made it, or remove it with `ip link del {}`", link.name),
            )
        })
        .collect();
    Ok(if foreign.is_empty() { vec![good("no interface is in the way")] } else { foreign })
}

async fn subnet(settings: &Settings, links: &Links) -> io::Result<Vec<Finding>> {
    let subnet = settings.network.plan.subnet();
    let all = links.all().await?;
    let clashes: Vec<Finding> = links
        .addresses()
        .await?
        .into_iter()
        .filter(|(_, block)| block.overlaps(subnet))
        .filter_map(|(index, block)| Some((all.iter().find(|link| link.index == index)?, block)))
        .filter(|(link, _)| link.name != BRIDGE)
        .map(|(link, block)| {
            problem(
                format!("the guests' subnet {subnet} is in use: {} has {block}", link.name),
                "choose another with the option subnet, such as subnet=10.86.0.0/24",
            )
        })
        .collect();
    Ok(if clashes.is_empty() {
        vec![good(format!("the subnet {subnet} is free"))]
    } else {
        clashes
    })
}

async fn uplink(settings: &Settings, links: &Links) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let uplink = match &settings.network.nat {
        Nat::Off => {
            findings.push(good("guests get no Internet, as configured (set inet_iface or enable_inet to change that)"));
            return Ok(findings);
        }
        Nat::Interface(name) => match links.find(name.as_str()).await? {
            Some(_) => Some(name.clone()),
            None => {
                let others: Vec<String> =
                    links.all().await?.into_iter().map(|link| link.name).collect();
                findings.push(problem(
                    format!("inet_iface names {name}, and there is no such interface"),
                    format!(
                        "use one of {}, or enable_inet=1 for that of the default route",
                        others.join(", ")
                    ),
                ));
                None
            }
        },
        Nat::DefaultRoute => match links.default_route().await? {
            Some(name) => InterfaceName::new(&name),
            None => {
                findings.push(warning(
                    "this host has no IPv4 default route",
                    "guests get Internet as soon as there is one, or name the interface with inet_iface",
                ));
                None
            }
        },
    };
    if let Some(name) = uplink {
        findings.push(good(format!("guests get Internet by {name}")));
    }
    findings.push(match (settings.dhcp.nameservers.first(), resolver::read()) {
        (Some(server), _) => good(format!("guests' names are resolved by {server}, as configured")),
        (None, Ok(server)) => good(format!("guests' names are resolved by {server}")),
        (None, Err(reason)) => warning(
            format!("guests cannot resolve names: {reason}"),
            "name a server with the option dhcp_nameserver, such as dhcp_nameserver=9.9.9.9",
        ),
    });
    Ok(findings)
}

/// Rules of others that drop what guests send or get; at a start the firewall itself tells of them.
pub async fn host_firewall(settings: &Settings, links: &Links) -> Vec<Finding> {
    let policy = network::policy(settings, links).await;
    let obstacles = match firewall::survey(&policy) {
        Ok(obstacles) => obstacles,
        Err(error) => return vec![warning(chain(&error), "run the check as root")],
    };
    if obstacles.is_empty() {
        return vec![good("no firewall of this host drops guests' packets")];
    }
    let opens = settings.network.host_firewall == HostFirewall::Open;
    let finding = |obstacle: &Obstacle| match opens && !obstacle.owned_by_other {
        true => good(format!("{obstacle}; wsnic opens it, as configured (host_firewall=open)")),
        false => warning(obstacle.to_string(), "or let wsnic do it: host_firewall=open"),
    };
    obstacles.iter().map(finding).collect()
}
