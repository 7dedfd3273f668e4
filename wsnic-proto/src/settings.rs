//! The effective configuration: every option, checked and typed.
//!
//! Made once by the command that is started (`wsnic`, or helper and front-end under systemd) from
//! file, environment and command line by [`resolve`]; nothing behind it parses text again.

mod facts;
mod parse;
mod render;
mod resolve;

pub use facts::Facts;
pub use resolve::resolve;

use crate::address::{Cidr, IpBlock, Plan};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Everything that an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect.
    pub server: Server,
    /// Who may come in, and how much.
    pub door: Door,
    /// The guests' network.
    pub network: Network,
    /// Addresses and names for guests.
    pub dhcp: Dhcp,
    /// The helper's socket.
    pub helper_socket: PathBuf,
    /// Where root gives orders to the front-end.
    pub admin_socket: PathBuf,
    /// The user that the front-end becomes when it is started as root; None: `wsnic` if there is one, else `nobody`.
    pub user: Option<String>,
    /// The user that the helper becomes when it is started as root; None: `wsnic-priv` if there is one, else a number that nobody has.
    pub helper_user: Option<String>,
    /// What happens where a part of the sandbox cannot be had.
    pub sandbox: Sandbox,
}

impl Settings {
    /// Takes from `new` what can change while wsnic runs: `guest_access`, `allow`, `deny` and
    /// `host_firewall`. Returns the names of other options that differ, which wait for the next start.
    pub fn reload(&mut self, new: &Settings) -> Vec<String> {
        let (own, given) = (&mut self.network, &new.network);
        own.guest_access = given.guest_access;
        own.allow.clone_from(&given.allow);
        own.deny.clone_from(&given.deny);
        own.host_firewall = given.host_firewall;
        let (own, given) = (self.to_conf(), new.to_conf());
        let changed = own.lines().zip(given.lines()).filter(|(own, given)| own != given);
        changed.filter_map(|(line, _)| Some(line.split_once('=')?.0.to_owned())).collect()
    }
}

/// What happens where a part of the sandbox cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// The program does not start.
    Require,
    /// The log names the part, and the program goes on.
    Prefer,
    /// No part is tried; for debugging.
    Off,
}

impl Sandbox {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, Sandbox); 3] =
        [("require", Sandbox::Require), ("prefer", Sandbox::Prefer), ("off", Sandbox::Off)];
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses to listen on, at least one.
    pub addresses: Vec<IpAddr>,
    /// Port for ws://.
    pub ws_port: u16,
    /// Port for wss://.
    pub wss_port: u16,
    /// Certificate chain (PEM); None: no wss://.
    pub wss_cert: Option<PathBuf>,
    /// Private key (PEM); None: it stands in the certificate's file.
    pub wss_key: Option<PathBuf>,
    /// More certificates, each with its key in the same file (PEM), chosen by SNI.
    pub wss_more_certs: Vec<PathBuf>,
    /// Who signs clients' certificates (PEM); None: clients are not asked for one.
    pub wss_client_ca: Option<PathBuf>,
    /// What follows for a client without a certificate.
    pub wss_client_cert: ClientCert,
    /// Unix sockets to listen on too.
    pub listen: Vec<PathBuf>,
    /// Their mode.
    pub listen_mode: u32,
    /// Their user, and their group; None: root.
    pub listen_owner: Option<(String, Option<String>)>,
    /// Sessions at the same time, 1 to 24,000 (a thousand on each of 24 bridges).
    pub max_clients: u32,
    /// Whether browsers get the page that tests the server.
    pub page: bool,
}

/// What follows for a client without a certificate, where clients are asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// It is refused.
    Required,
    /// It needs another proof, if any is asked for.
    Optional,
}

impl ClientCert {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, ClientCert); 2] =
        [("required", ClientCert::Required), ("optional", ClientCert::Optional)];
}

/// Who may come in, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Origins of web pages that may connect, in lower case; none: all.
    pub allowed_origins: Vec<String>,
    /// Tokens, one a line.
    pub token_file: Option<PathBuf>,
    /// Public key (PEM) or secret of signed tokens.
    pub jwt_key_file: Option<PathBuf>,
    /// Names and passwords (htpasswd, bcrypt).
    pub basic_auth_file: Option<PathBuf>,
    /// Who is believed for which client he speaks.
    pub trusted_proxies: Vec<IpBlock>,
    /// Whether those begin connections with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Clients of one address, or one IPv6 /64, at the same time; 0: no limit.
    pub max_clients_per_address: u32,
    /// Connections that one address may begin in a second; 0: no limit.
    pub handshake_rate: u32,
    /// Wrong proofs within `ban_time` that lead to a ban.
    pub ban_after: u32,
    /// Seconds from the last attempt; 0: no bans.
    pub ban_time: u32,
    /// Seconds; 0: for ever.
    pub session_time: u32,
    /// Seconds without a frame of the guest; 0: for ever.
    pub idle_time: u32,
}

/// The guests' network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
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
    /// One line: what guests may reach, by these interfaces, and who resolves their names.
    pub fn summary(&self, uplinks: &[InterfaceName], resolver: Option<Ipv4Addr>) -> String {
        if self.nat == Nat::Off {
            return "guests reach each other and the gateway's ping, nothing else (no inet_iface)"
                .to_owned();
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
            Some(resolver) => format!("names by {resolver}"),
            None => "NO NAMES".to_owned(),
        };
        let names: Vec<&str> = uplinks.iter().map(InterfaceName::as_str).collect();
        let uplink = match names.as_slice() {
            [] => "nothing yet, there is no default route".to_owned(),
            names => names.join(", "),
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
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// The words in wsnic.conf, the canonical one of each first.
    pub(crate) const WORDS: [(&'static str, DhcpService); 4] = [
        ("builtin", DhcpService::Builtin),
        ("internal", DhcpService::Builtin),
        ("dnsmasq", DhcpService::Dnsmasq),
        ("disabled", DhcpService::Disabled),
    ];
}
