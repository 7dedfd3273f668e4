//! The host's own firewall: who else would drop guests' forwarded packets, and what opens it.
//!
//! Runs in `wsnic`: once for `wsnic check`, again and again for `wsnic run`. It reads and changes
//! nothing. In netfilter an accept is final only for its own table: any other table's chain at the
//! forward hook can still drop what wsnic's guard let pass. So each of those is walked with two
//! sample packets, a guest's first one out and the answer to it, and is an obstacle when either is
//! dropped for certain.

mod walk;

#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;
use tokio::time::{Interval, interval};
use walk::{Packet, Ruleset};
use wsnic_host::{Links, bridge_name, rooms_prefix};
use wsnic_nft::{ChainInfo, Family, HookPoint, Netfilter, NftError, Table};
use wsnic_os::log::chain;
use wsnic_proto::ports::Lan;
use wsnic_proto::settings::{HostFirewall, InterfaceName, Nat, Network, Settings};

/// How often a change is looked for.
const PAUSE: Duration = Duration::from_secs(5);
/// What cannot be looked at.
pub const LEGACY: &str = "there are iptables-legacy rules, which cannot be read from here: if \
    guests have no connection, look at \"iptables-legacy -S FORWARD\"";

/// By which bridges guests of a network come, and by which interfaces they leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The bridge, or one of those of its rooms.
    bridge: String,
    /// What all names of its rooms' bridges begin with.
    prefix: Option<String>,
    uplinks: Vec<InterfaceName>,
}

impl Way {
    /// The bridges, as iptables, ufw and firewalld take them.
    fn plus(&self) -> String {
        self.prefix.as_ref().map_or_else(|| self.bridge.clone(), |prefix| format!("{prefix}+"))
    }

    /// The bridges, as nft takes them on a command line.
    fn star(&self) -> String {
        self.prefix
            .as_ref()
            .map_or_else(|| self.bridge.clone(), |prefix| format!("'\"{prefix}*\"'"))
    }
}

/// Tells the log of obstacles, of each once, for as long as wsnic runs.
pub struct Watch {
    networks: Vec<Network>,
    links: Links,
    nf: Netfilter,
    /// nf_tables' generation when that was last looked at; 0 (none that is real): never.
    generation: u32,
    told: Vec<Obstacle>,
    /// It could not be read the last time.
    unreadable: bool,
    ticks: Interval,
}

impl Watch {
    /// A watch, if the configuration leaves the host's firewall to its operator.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn new(settings: &Settings) -> io::Result<Option<Watch>> {
        let networks: Vec<Network> = settings.networks().cloned().collect();
        let is_closed = networks.iter().all(|network| network.nat == Nat::Off);
        if is_closed || settings.network.host_firewall == HostFirewall::Open {
            return Ok(None);
        }
        if has_legacy_filter() {
            tracing::warn!("{LEGACY}");
        }
        let (links, nf) = (Links::connect()?, Netfilter::open().map_err(io::Error::other)?);
        let ticks = interval(PAUSE);
        Ok(Some(Watch {
            networks,
            links,
            nf,
            generation: 0,
            told: Vec::new(),
            unreadable: false,
            ticks,
        }))
    }

    /// Waits for its time (the first comes at once) and looks, if there may be anything new.
    ///
    /// # Cancel safety
    /// What was being looked at is looked at again the next time.
    pub async fn next(watch: &mut Option<Watch>) {
        let Some(watch) = watch else { return };
        watch.ticks.tick().await;
        let ways = ways(watch.networks.iter(), &watch.links).await;
        match watch.look(&ways) {
            Ok(found) => {
                watch.unreadable = false;
                found.iter().for_each(|obstacle| tracing::warn!("{obstacle}"));
            }
            Err(error) => {
                if !std::mem::replace(&mut watch.unreadable, true) {
                    tracing::warn!("cannot read the host's firewall rules: {}", chain(&error));
                }
            }
        }
    }

    /// Obstacles that were not there the last time.
    fn look(&mut self, ways: &[Way]) -> Result<Vec<Obstacle>, NftError> {
        // Taken before looking: what changes meanwhile is seen the next time.
        let generation = self.nf.generation()?;
        if generation == self.generation {
            return Ok(vec![]);
        }
        let found = survey(&mut self.nf, ways)?;
        self.generation = generation;
        let told = std::mem::replace(&mut self.told, found);
        Ok(self.told.iter().filter(|obstacle| !told.contains(obstacle)).cloned().collect())
    }
}

/// How guests' packets leave, at the moment; of networks that have no way out, nothing.
pub async fn ways(networks: impl Iterator<Item = &Network>, links: &Links) -> Vec<Way> {
    let mut ways = Vec::new();
    for (number, network) in (0..).zip(networks) {
        let uplink = wsnic_host::uplink(network, links).await;
        let uplinks: Vec<_> = uplink.ok().and_then(Result::ok).flatten().into_iter().collect();
        let bridge = bridge_name(Lan { network: number, room: 0 }, network.rooms.is_some());
        let prefix = network.rooms.map(|_| rooms_prefix(number));
        if !uplinks.is_empty() {
            ways.push(Way { bridge, prefix, uplinks });
        }
    }
    ways
}

/// True if the iptables of the old kernel interface have a filter table here; nothing can read it
/// but iptables-legacy itself.
pub fn has_legacy_filter() -> bool {
    // "/proc/net" would be the main thread's namespace.
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Whose firewall it is, as far as names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker's chains in the iptables filter table.
    Docker,
    /// ufw's chains in the iptables filter table.
    Ufw,
    /// firewalld's own table.
    Firewalld,
    /// Anything else.
    Other,
}

/// A chain of the host that drops what guests send or get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The table.
    pub table: Table,
    /// The base chain at the forward hook.
    pub chain: String,
    /// Whose it is.
    pub kind: Kind,
    /// True: the table belongs to another process's socket, nobody else can change it.
    pub owned_by_other: bool,
    /// The shell commands that open it for the bridge.
    pub remedy: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Obstacle { table, chain, remedy, .. } = self;
        let who = match self.kind {
            Kind::Docker => "Docker's firewall",
            Kind::Ufw => "ufw",
            Kind::Firewalld => "firewalld",
            Kind::Other => "the host's firewall",
        };
        write!(f, "{who} ({table} {chain}) drops guests' packets, open it with: {remedy}")
    }
}

/// The chains that drop guests' packets on their way through the host.
///
/// # Errors
/// Tables, chains or rules cannot be read, for want of CAP_NET_ADMIN or of nf_tables.
pub fn survey(nf: &mut Netfilter, ways: &[Way]) -> Result<Vec<Obstacle>, NftError> {
    let mut obstacles = Vec::new();
    if ways.is_empty() {
        return Ok(obstacles);
    }
    let tables = nf.tables()?;
    let chains = nf.chains()?;
    for base in chains.iter().filter(|chain| is_foreign(chain)) {
        let ruleset = Ruleset::new(nf.rules(&base.table)?);
        let is_dropped = |way: &&Way| {
            way.uplinks.iter().any(|uplink| {
                let request = Packet::first(&way.bridge, uplink.as_str());
                let answer = Packet::answer(uplink.as_str(), &way.bridge);
                ruleset.drops(base, &request) || ruleset.drops(base, &answer)
            })
        };
        for way in ways.iter().filter(is_dropped) {
            let owner = tables.iter().find(|info| info.table == base.table).map(|info| info.owner);
            let kind = kind_of(base, &chains);
            obstacles.push(Obstacle {
                table: base.table.clone(),
                chain: base.name.clone(),
                kind,
                owned_by_other: owner.flatten().is_some(),
                remedy: remedy(kind, base, way),
            });
        }
    }
    Ok(obstacles)
}

/// Base chains of other tables that see forwarded IPv4 packets.
fn is_foreign(chain: &ChainInfo) -> bool {
    chain.hook == Some(HookPoint::Forward as u32)
        && [Family::INET, Family::IPV4].contains(&chain.table.family)
        && !chain.table.name.starts_with("wsnic_")
}

fn is_iptables(base: &ChainInfo) -> bool {
    base.table == Table::new(Family::IPV4, "filter") && base.name == "FORWARD"
}

fn kind_of(base: &ChainInfo, chains: &[ChainInfo]) -> Kind {
    let has = |wanted: fn(&str) -> bool| {
        chains.iter().any(|chain| chain.table == base.table && wanted(&chain.name))
    };
    if base.table == Table::new(Family::INET, "firewalld") {
        Kind::Firewalld
    } else if is_iptables(base) && has(|name| name == "DOCKER-USER") {
        // Before ufw: Docker's jump stands at the head, and what it accepts ufw does not see.
        Kind::Docker
    } else if is_iptables(base) && has(|name| name.starts_with("ufw-")) {
        Kind::Ufw
    } else {
        Kind::Other
    }
}

fn remedy(kind: Kind, base: &ChainInfo, way: &Way) -> String {
    let (plus, star) = (way.plus(), way.star());
    let iptables = |chain| {
        format!(
            "iptables -I {chain} -i {plus} -j ACCEPT && iptables -I {chain} -o {plus} -j ACCEPT"
        )
    };
    match kind {
        Kind::Docker => iptables("DOCKER-USER"),
        // Answers are let through by ufw itself.
        Kind::Ufw => format!("ufw route allow in on {plus}"),
        Kind::Firewalld => format!("firewall-cmd --zone=trusted --add-interface={plus}"),
        Kind::Other if is_iptables(base) => iptables("FORWARD"),
        Kind::Other => {
            let ChainInfo { table, name, .. } = base;
            format!(
                "nft insert rule {table} {name} iifname {star} accept && \
                 nft insert rule {table} {name} oifname {star} accept"
            )
        }
    }
}
