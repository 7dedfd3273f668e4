//! The effective configuration: every option, checked and typed.
//!
//! Made once by the command that is started (`wsnic`, or helper and front-end under systemd) from
//! file, environment and command line by [`resolve`]; nothing behind it parses text again.

mod facts;
mod network;
mod parse;
mod render;
mod resolve;

pub use facts::Facts;
pub use network::{
    Dhcp, DhcpService, Framing, GuestAccess, HostFirewall, InterfaceName, Nat, Network,
    NetworkName, Rate, Rooms,
};
pub use resolve::resolve;

use crate::address::IpBlock;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Everything that an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect.
    pub server: Server,
    /// Who may come in, and how much.
    pub door: Door,
    /// The network `default`, which has number 0.
    pub network: Network,
    /// The networks of the sections, from number 1 on.
    pub others: Vec<Network>,
    /// The helper's socket.
    pub helper_socket: PathBuf,
    /// Where root gives orders to the front-end.
    pub admin_socket: PathBuf,
    /// Where a monitoring system asks; none: nowhere.
    pub metrics_listen: Vec<SocketAddr>,
    /// The user that the front-end becomes when it is started as root; None: `wsnic` if there is one, else `nobody`.
    pub user: Option<String>,
    /// The user that the helper becomes when it is started as root; None: `wsnic-priv` if there is one, else a number that nobody has.
    pub helper_user: Option<String>,
    /// What happens where a part of the sandbox cannot be had.
    pub sandbox: Sandbox,
    /// How the log is written.
    pub log_format: LogFormat,
}

impl Settings {
    /// All networks, in the order of their numbers.
    pub fn networks(&self) -> impl Iterator<Item = &Network> + Clone {
        std::iter::once(&self.network).chain(&self.others)
    }

    /// The network of this number.
    pub fn network_of(&self, number: u16) -> Option<&Network> {
        self.networks().nth(number.into())
    }

    /// Clients of all networks together.
    pub fn max_clients(&self) -> u32 {
        self.networks().map(|network| network.max_clients).sum()
    }

    /// Takes from `new` what can change while wsnic runs: of each network `guest_access`, `allow` and
    /// `deny`, and `host_firewall`. Returns the names of other options that differ, which wait for the
    /// next start.
    pub fn reload(&mut self, new: &Settings) -> Vec<String> {
        let same = |own: &&mut Network| new.networks().find(|other| other.name == own.name);
        for own in std::iter::once(&mut self.network).chain(&mut self.others) {
            let Some(given) = same(&own) else { continue };
            own.guest_access = given.guest_access;
            own.allow.clone_from(&given.allow);
            own.deny.clone_from(&given.deny);
            own.host_firewall = given.host_firewall;
        }
        let names = |settings: &Settings| -> Vec<NetworkName> {
            settings.networks().map(|network| network.name.clone()).collect()
        };
        if names(self) != names(new) {
            return vec!["[network]".to_owned()];
        }
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

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The words in wsnic.conf.
    pub(crate) const WORDS: [(&'static str, LogFormat); 2] =
        [("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses to listen on, at least one.
    pub addresses: Vec<IpAddr>,
    /// Ports for ws://, at least one.
    pub ws_ports: Vec<u16>,
    /// Ports for wss://, at least one; those of ws:// among them serve both.
    pub wss_ports: Vec<u16>,
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
    /// Whether browsers get the page that tests the server.
    pub page: bool,
    /// Whether a path that names no network is refused.
    pub strict_paths: bool,
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
