//! Settings to canonical wsnic.conf text: how one process hands its settings to another.

use super::{
    ClientCert, DhcpService, Framing, GuestAccess, HostFirewall, LogFormat, Nat, Network, Sandbox,
    Settings,
};
use crate::options::OptionId;
use std::fmt::Display;
use std::path::PathBuf;

impl Settings {
    /// Every option with its value, one a line; then the sections.
    ///
    /// For settings made by [`super::resolve`], parsing and resolving the text without facts gives
    /// the same settings; relative paths stay relative.
    pub fn to_conf(&self) -> String {
        let Settings { server, door, user, helper_user, sandbox, log_format, .. } = self;
        let mut lines = of_network(&self.network);
        lines.extend([
            (OptionId::WsServerAddr, list(&server.addresses)),
            (OptionId::WsServerPort, list(&server.ws_ports)),
            (OptionId::WssServerPort, list(&server.wss_ports)),
            (OptionId::WssServerCert, path(server.wss_cert.as_ref())),
            (OptionId::WssServerKey, path(server.wss_key.as_ref())),
            (OptionId::WssMoreCerts, paths(&server.wss_more_certs, "")),
            (OptionId::WssClientCa, path(server.wss_client_ca.as_ref())),
            (OptionId::WssClientCert, word(server.wss_client_cert, &ClientCert::WORDS)),
            (OptionId::Listen, paths(&server.listen, "unix:")),
            (OptionId::ListenMode, format!("{:04o}", server.listen_mode)),
            (OptionId::ListenOwner, owner(server.listen_owner.as_ref())),
            (OptionId::Page, flag(server.page)),
            (OptionId::StrictPaths, flag(server.strict_paths)),
            (OptionId::AllowedOrigins, door.allowed_origins.join(",")),
            (OptionId::TokenFile, path(door.token_file.as_ref())),
            (OptionId::JwtKeyFile, path(door.jwt_key_file.as_ref())),
            (OptionId::BasicAuthFile, path(door.basic_auth_file.as_ref())),
            (OptionId::TrustedProxies, list(&door.trusted_proxies)),
            (OptionId::ProxyProtocol, flag(door.proxy_protocol)),
            (OptionId::MaxClientsPerAddress, door.max_clients_per_address.to_string()),
            (OptionId::HandshakeRate, door.handshake_rate.to_string()),
            (OptionId::BanAfter, door.ban_after.to_string()),
            (OptionId::BanTime, door.ban_time.to_string()),
            (OptionId::SessionTime, door.session_time.to_string()),
            (OptionId::IdleTime, door.idle_time.to_string()),
            (OptionId::HelperSocket, path(Some(&self.helper_socket))),
            (OptionId::AdminSocket, path(Some(&self.admin_socket))),
            (OptionId::MetricsListen, list(&self.metrics_listen)),
            (OptionId::User, user.clone().unwrap_or_default()),
            (OptionId::HelperUser, helper_user.clone().unwrap_or_default()),
            (OptionId::Sandbox, word(*sandbox, &Sandbox::WORDS)),
            (OptionId::LogFormat, word(*log_format, &LogFormat::WORDS)),
        ]);
        // The table's order.
        lines.sort_unstable_by_key(|(id, _)| *id);
        let mut text = written(&lines);
        for network in &self.others {
            let mut lines = of_network(network);
            lines.retain(|(id, _)| id.is_of_network());
            text += &format!("\n[network {}]\n{}", network.name, written(&lines));
        }
        text
    }
}

fn written(lines: &[(OptionId, String)]) -> String {
    lines.iter().map(|(id, value)| format!("{}={value}\n", id.spec().name)).collect()
}

fn of_network(network: &Network) -> Vec<(OptionId, String)> {
    let (enable_inet, inet_iface) = match &network.nat {
        Nat::Off => ("no", ""),
        Nat::DefaultRoute => ("yes", ""),
        Nat::Interface(name) => ("yes", name.as_str()),
    };
    let dhcp = &network.dhcp;
    let rooms = network.rooms.map(|rooms| [rooms.max, rooms.prefix_len.into()]);
    let [max_rooms, room_prefix] =
        rooms.map_or_else(Default::default, |rooms| rooms.map(|number| number.to_string()));
    vec![
        (OptionId::MaxClients, network.max_clients.to_string()),
        (OptionId::Subnet, network.plan.subnet().to_string()),
        (OptionId::Mtu, network.mtu.to_string()),
        (OptionId::EnableInet, enable_inet.to_owned()),
        (OptionId::InetIface, inet_iface.to_owned()),
        (OptionId::GuestAccess, word(network.guest_access, &GuestAccess::WORDS)),
        (OptionId::Allow, list(&network.allow)),
        (OptionId::Deny, list(&network.deny)),
        (OptionId::HostFirewall, word(network.host_firewall, &HostFirewall::WORDS)),
        (OptionId::AllowVlan, flag(network.allow_vlan)),
        (OptionId::Framing, word(network.framing, &Framing::WORDS)),
        (OptionId::Offloads, flag(network.offloads)),
        (OptionId::RateLimitUpBytes, network.rate_up.bytes.to_string()),
        (OptionId::RateLimitUpFrames, network.rate_up.frames.to_string()),
        (OptionId::RateLimitDownBytes, network.rate_down.bytes.to_string()),
        (OptionId::RateLimitDownFrames, network.rate_down.frames.to_string()),
        (OptionId::RateLimitBurst, network.rate_burst_ms.to_string()),
        (OptionId::Isolation, flag(network.isolation)),
        (OptionId::Locks, flag(network.locks)),
        (OptionId::MaxMacs, network.max_macs.to_string()),
        (OptionId::MaxMulticast, network.max_multicast.to_string()),
        (OptionId::Private, flag(network.private)),
        (OptionId::Rooms, flag(network.rooms.is_some())),
        (OptionId::MaxRooms, max_rooms),
        (OptionId::RoomPrefix, room_prefix),
        (OptionId::DhcpService, word(dhcp.service, &DhcpService::WORDS)),
        (OptionId::DhcpLeaseFile, path(dhcp.lease_file.as_ref())),
        (OptionId::DhcpLeaseTime, dhcp.lease_time.to_string()),
        (OptionId::DhcpDomainName, dhcp.domain_name.clone().unwrap_or_default()),
        (OptionId::DhcpNameserver, list(&dhcp.nameservers)),
    ]
}

fn flag(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn path(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn paths(paths: &[PathBuf], before: &str) -> String {
    let texts = paths.iter().map(|path| format!("{before}{}", path.display()));
    texts.collect::<Vec<_>>().join(",")
}

fn owner(owner: Option<&(String, Option<String>)>) -> String {
    match owner {
        None => String::new(),
        Some((user, None)) => user.clone(),
        Some((user, Some(group))) => format!("{user}:{group}"),
    }
}

fn word<T: PartialEq>(value: T, words: &[(&'static str, T)]) -> String {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word).to_owned()
}
