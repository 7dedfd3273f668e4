//! What is to hold for guests: the words that rules are built from.

use std::net::Ipv4Addr;
use wsnic_host::{bridge_name, rooms_prefix};
use wsnic_nft::Rule;
use wsnic_proto::ports::Lan;
use wsnic_proto::settings::{
    DhcpService, GuestAccess, HostFirewall, InterfaceName, Network, Settings,
};
use wsnic_proto::{Cidr, Plan};

/// What is to hold for all guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The networks by number.
    pub networks: Vec<NetworkPolicy>,
    /// Interfaces that forward because of guests: nothing else that comes in by them is forwarded.
    pub closed: Vec<InterfaceName>,
    /// Whether to open the host's own firewall for guests.
    pub host_firewall: HostFirewall,
}

/// What is to hold for guests of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Where they are.
    pub bridge: Bridge,
    /// Subnet and gateway; where there are rooms, the subnet of all of them.
    pub plan: Plan,
    /// Interfaces to the Internet; empty: guests reach nothing beyond the host.
    pub uplinks: Vec<InterfaceName>,
    /// What they may reach beyond the bridge.
    pub access: GuestAccess,
    /// Blocks that they may reach although `access` says no.
    pub allow: Vec<Cidr>,
    /// Blocks that they may not reach, whatever the rest says (but see `resolver`).
    pub deny: Vec<Cidr>,
    /// Name servers announced to guests as they are; their port 53 is reachable unless denied.
    pub nameservers: Vec<Ipv4Addr>,
    /// Where questions to the gateway's port 53 go, even inside `deny`: it is the gateway that asks.
    /// The kernel sends nothing from the bridge to a loopback address.
    pub resolver: Option<Ipv4Addr>,
    /// Whether a DHCP server listens on the host.
    pub dhcp_on_host: bool,
    /// Whether a name server listens on the gateway's address.
    pub dns_on_host: bool,
    /// Whether guests reach the gateway and not each other.
    pub isolation: bool,
    /// Whether ports are held to the addresses that are bound to them.
    pub locks: bool,
    /// With locks: whether VLAN-tagged frames pass.
    pub allow_vlan: bool,
    /// With locks: frames to many that a port may send in a second; 0: no limit.
    pub max_multicast: u32,
}

/// The bridges of a network, which need not exist yet. Their names begin with
/// [`wsnic_host::BRIDGE_PREFIX`], by which the rules know guests of other networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bridge {
    /// All guests are on this one (and on the leaf bridges behind it).
    One(InterfaceName),
    /// Every room has one.
    Rooms {
        /// Begins their names, and no others.
        prefix: String,
        /// Length of a room's subnet; its gateway is the first host address.
        prefix_len: u8,
    },
}

impl Policy {
    /// The policy of a configuration, without what the machine is like at the moment: uplinks,
    /// resolvers, and interfaces that are closed.
    ///
    /// # Panics
    /// Never: a bridge's name is one that the kernel takes.
    pub fn of(settings: &Settings) -> Policy {
        let networks = (0..).zip(settings.networks());
        let networks = networks.map(|(number, network)| NetworkPolicy {
            bridge: match network.rooms {
                None => {
                    let name = bridge_name(Lan { network: number, room: 0 }, false);
                    Bridge::One(InterfaceName::new(&name).expect("letters and digits, below 16"))
                }
                Some(rooms) => {
                    Bridge::Rooms { prefix: rooms_prefix(number), prefix_len: rooms.prefix_len }
                }
            },
            plan: network.plan,
            uplinks: Vec::new(),
            access: network.guest_access,
            allow: network.allow.clone(),
            deny: network.deny.clone(),
            nameservers: network.dhcp.nameservers.clone(),
            resolver: None,
            dhcp_on_host: network.dhcp.service != DhcpService::Builtin,
            dns_on_host: network.dhcp.service == DhcpService::Dnsmasq,
            isolation: network.isolation,
            locks: network.locks,
            allow_vlan: network.allow_vlan,
            max_multicast: network.max_multicast,
        });
        Policy {
            networks: networks.collect(),
            closed: Vec::new(),
            host_firewall: settings.network.host_firewall,
        }
    }

    /// True if guests of a network that has a way out have nobody who resolves their names.
    pub fn is_deaf(&self) -> bool {
        let is_deaf = |network: &NetworkPolicy| {
            !network.uplinks.is_empty() && network.resolver.is_none() && !network.dns_on_host
        };
        self.networks.iter().any(is_deaf)
    }

    /// A line for the log for each network: what its guests may reach.
    pub fn summaries(&self, networks: &[Network]) -> Vec<String> {
        let one = |(network, policy): (&Network, &NetworkPolicy)| {
            let summary = network.summary(&policy.uplinks, policy.resolver);
            match networks.len() {
                1 => summary,
                _ => format!("network {}: {summary}", network.name),
            }
        };
        networks.iter().zip(&self.networks).map(one).collect()
    }

    /// True if any network holds its ports to addresses.
    pub fn has_locks(&self) -> bool {
        self.networks.iter().any(|network| network.locks)
    }

    /// True if guests of any network have a way out.
    pub fn has_uplinks(&self) -> bool {
        self.networks.iter().any(|network| !network.uplinks.is_empty())
    }

    pub(crate) fn has_rooms(&self) -> bool {
        self.networks.iter().any(|network| network.bridge.has_rooms())
    }
}

impl NetworkPolicy {
    /// Addresses beyond the bridge that guests may reach by name: one of each block, and resolvers.
    pub fn named(&self) -> Vec<Ipv4Addr> {
        let allowed = self.allow.iter().map(|block| block.network());
        allowed.chain(self.resolver).chain(self.nameservers.iter().copied()).collect()
    }
}

impl Bridge {
    pub(crate) fn has_rooms(&self) -> bool {
        matches!(self, Bridge::Rooms { .. })
    }

    /// What comes from its guests.
    pub(crate) fn from(&self) -> Rule {
        match self {
            Bridge::One(name) => Rule::new().from(name),
            Bridge::Rooms { prefix, .. } => Rule::new().from_any(prefix),
        }
    }
}
