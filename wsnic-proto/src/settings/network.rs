//! A network and its policy, checked and typed.

use crate::address::{Cidr, Plan};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A network: a bridge with its policy, or one such bridge for each of its rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name, by which paths and tokens choose it.
    pub name: NetworkName,
    /// Clients at the same time, 1 to 24,000 (a thousand on each of 24 bridges).
    pub max_clients: u32,
    /// Whether only proofs that name this network let in.
    pub private: bool,
    /// Whether there is a network of its own for each last part of the path; None: one for all.
    pub rooms: Option<Rooms>,
    /// Whether guests reach the gateway only, and not each other.
    pub isolation: bool,
    /// Whether each port passes frames with the addresses of its own guest only.
    pub locks: bool,
    /// MAC addresses of each port, 1 to 64, while `locks` is on.
    pub max_macs: u32,
    /// Frames to many that each guest may send in a second, while `locks` is on; 0: no limit.
    pub max_multicast: u32,
    /// Addresses and names for guests.
    pub dhcp: Dhcp,
    /// Gateway and guest addresses.
    pub plan: Plan,
    /// MTU in bytes, 576 to 65521 (the largest that a TAP takes).
    pub mtu: u16,
    /// Where guests' packets leave the host.
    pub nat: Nat,
    /// What guests may reach beyond their own network.
    pub guest_access: GuestAccess,
    /// Blocks that guests may reach although `guest_access` says no.
    pub allow: Vec<Cidr>,
    /// Blocks that guests may not reach, whatever the rest says.
    pub deny: Vec<Cidr>,
    /// What to do about a host firewall that drops forwarded packets.
    pub host_firewall: HostFirewall,
    /// Whether VLAN-tagged frames pass between guests.
    pub allow_vlan: bool,
    /// How clients send frames.
    pub framing: Framing,
    /// Whether TAPs hand over super-frames (TSO, USO) and unfinished checksums.
    pub offloads: bool,
    /// What each guest may send.
    pub rate_up: Rate,
    /// What each guest may get.
    pub rate_down: Rate,
    /// What may come at once, as the time in which the rate brings it, 1 to 60000 ms.
    pub rate_burst_ms: u32,
}

/// What may pass in a second; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Bytes of frames.
    pub bytes: u32,
    /// Frames.
    pub frames: u32,
}

impl Network {
    /// Addresses of the room with this number, below `max` of [`Rooms`]; the network's own if it has
    /// no rooms. None: there is no such room.
    pub fn plan_of(&self, room: u32) -> Option<Plan> {
        let Some(rooms) = self.rooms else { return (room == 0).then_some(self.plan) };
        let size = 1_u32.checked_shl(32 - u32::from(rooms.prefix_len))?;
        let first = u32::from(self.plan.subnet().network()).checked_add(room.checked_mul(size)?)?;
        let block = Cidr::containing(first.into(), rooms.prefix_len);
        let inside = room < rooms.max && self.plan.subnet().contains(block.network());
        inside.then(|| Plan::new(block).ok())?
    }

    /// One line: what guests may reach, by these interfaces, and who resolves their names.
    pub fn summary(&self, uplinks: &[InterfaceName], resolver: Option<Ipv4Addr>) -> String {
        let by_dnsmasq = self.dhcp.service == DhcpService::Dnsmasq;
        if self.nat == Nat::Off {
            let others = if self.isolation { "" } else { "each other and " };
            let names = if by_dnsmasq { " and each other's names" } else { "" };
            return format!(
                "guests reach {others}the gateway's ping{names}, nothing else (no inet_iface)"
            );
        }
        let reach = match self.guest_access {
            GuestAccess::Internet => {
                "the Internet; not this host, private or link-local addresses, mail"
            }
            GuestAccess::Lan => {
                "the Internet and private networks; not this host, link-local addresses, mail"
            }
            GuestAccess::All => "everything that this host reaches, and this host",
        };
        let dns = match resolver {
            _ if by_dnsmasq => "names by dnsmasq".to_owned(),
            Some(resolver) => format!("names by {resolver}"),
            None => "NO NAMES".to_owned(),
        };
        let uplink = match uplinks {
            [] => "nothing yet, there is no default route".to_owned(),
            uplinks => InterfaceName::join(uplinks, ", "),
        };
        format!("guests reach {reach}; by {uplink}, {dns}")
    }
}

/// Where guests' packets leave the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nat {
    /// Nowhere.
    Off,
    /// By this interface.
    Interface(InterfaceName),
    /// By the interface of the default route, whichever that is at the moment.
    DefaultRoute,
}

/// What guests may reach beyond their own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAccess {
    /// Public addresses only.
    Internet,
    /// Private ranges too; not the host's services, not link-local or metadata addresses.
    Lan,
    /// Everything that the host reaches, and the host.
    All,
}

impl GuestAccess {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, GuestAccess); 3] =
        [("internet", GuestAccess::Internet), ("lan", GuestAccess::Lan), ("all", GuestAccess::All)];
}

/// What to do about a host firewall that drops forwarded packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFirewall {
    /// Say so in the log, with the command that opens it.
    Report,
    /// Insert two accept rules and remove them at exit.
    Open,
}

impl HostFirewall {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, HostFirewall); 2] =
        [("report", HostFirewall::Report), ("open", HostFirewall::Open)];
}

/// How the binary messages of a WebSocket carry frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A message is a frame.
    Messages,
    /// The bytes of all messages are a stream, in which each frame stands behind its length.
    Stream,
}

impl Framing {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, Framing); 2] =
        [("messages", Framing::Messages), ("stream", Framing::Stream)];
}

/// A network's name: 1 to 32 letters, digits, `-` and `_` in lower case, the first one a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkName(String);

impl NetworkName {
    /// That of the network of the options outside of sections.
    pub const DEFAULT: &str = "default";

    /// The name, if it is one.
    pub fn new(name: &str) -> Option<NetworkName> {
        let good = (1..=32).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            });
        good.then(|| NetworkName(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NetworkName {
    fn default() -> NetworkName {
        NetworkName(NetworkName::DEFAULT.to_owned())
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a network is divided into rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rooms {
    /// Rooms at the same time, 1 to 1000.
    pub max: u32,
    /// Bits of the prefix of each room's subnet, more than those of the network's and at most 30.
    pub prefix_len: u8,
}

/// A Linux interface name: 1 to 15 bytes, no `/`, no white space, not `.` or `..` (dev_valid_name).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name, if the kernel would take it.
    pub fn new(name: &str) -> Option<InterfaceName> {
        let good = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        good.then(|| InterfaceName(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names with something `between` them.
    pub fn join(names: &[InterfaceName], between: &str) -> String {
        names.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(between)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses and names for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// Who answers.
    pub service: DhcpService,
    /// Where leases are kept across restarts; None: nowhere.
    pub lease_file: Option<PathBuf>,
    /// Seconds, 120 to 4294967294.
    pub lease_time: u32,
    /// Domain that guests search in.
    pub domain_name: Option<String>,
    /// Name servers to announce; empty: the gateway, which forwards to the host's resolvers.
    pub nameservers: Vec<Ipv4Addr>,
}

/// Who answers DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpService {
    /// The front-end, on each port.
    Builtin,
    /// A dnsmasq process.
    Dnsmasq,
    /// Nobody.
    Disabled,
}

impl DhcpService {
    /// Its word in wsnic.conf.
    pub fn word(self) -> &'static str {
        let mut words = DhcpService::WORDS.into_iter();
        words.find(|(_, service)| *service == self).map_or("", |(word, _)| word)
    }

    /// The words in wsnic.conf, the canonical one of each first.
    pub(crate) const WORDS: [(&'static str, DhcpService); 4] = [
        ("builtin", DhcpService::Builtin),
        ("internal", DhcpService::Builtin),
        ("dnsmasq", DhcpService::Dnsmasq),
        ("disabled", DhcpService::Disabled),
    ];
}
