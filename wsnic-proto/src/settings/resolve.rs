//! Layers to settings: default < file < environment of a container < command line.

use super::{
    ClientCert, Dhcp, DhcpService, Door, Facts, Framing, GuestAccess, HostFirewall, InterfaceName,
    LogFormat, Nat, NetworkName, Rate, Rooms, Sandbox,
};
use super::{Network, Server, Settings, parse};
use crate::address::{Cidr, IpBlock, Plan};
use crate::conf::{ConfError, ConfFile, Given, Layer, Origin, Section, Warning, quoted};
use crate::options::{Kind, OptionId};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// DHCP's option 6 holds 255 bytes, four for each server (RFC 2132 §3.8).
const MAX_NAMESERVERS: usize = 63;

/// The settings that follow from all that was said, and what was said in vain.
///
/// The environment counts inside a container only. An empty value on the command line takes the
/// file's value back.
///
/// # Errors
/// The first value that is not allowed, or that does not fit another one.
pub fn resolve(
    file: &ConfFile,
    command_line: &Layer,
    facts: &Facts,
) -> Result<(Settings, Vec<Warning>), ConfError> {
    let environment = facts.layer()?;
    let mut resolver = Resolver {
        layers: [command_line, &environment, &file.layer],
        facts,
        warnings: file.warnings.clone(),
    };
    if !facts.in_container() {
        let [_, environment, _] = &mut resolver.layers;
        *environment = &NOTHING;
        resolver.warn_of_unused_environment();
    }
    let mut settings = resolver.settings()?;
    let mut warnings = resolver.warnings;
    for section in &file.sections {
        let (network, more) = of_section(section, &settings)?;
        settings.others.push(network);
        warnings.extend(more);
    }
    Ok((settings, warnings))
}

/// The network of a section: what the section does not say is the option's default.
fn of_section(
    section: &Section,
    settings: &Settings,
) -> Result<(Network, Vec<Warning>), ConfError> {
    let facts = Facts::default();
    let mut resolver = Resolver {
        layers: [&section.layer, &NOTHING, &NOTHING],
        facts: &facts,
        warnings: Vec::new(),
    };
    let wrong = |problem: String, remedy: &str| ConfError::Network {
        origin: section.origin.clone(),
        name: section.name.clone(),
        problem,
        remedy: remedy.to_owned(),
    };
    if resolver.given(OptionId::Subnet).origin == Origin::Default {
        return Err(wrong(
            "has no subnet".to_owned(),
            "write subnet= with a block that no other network has, such as 10.86.1.0/24",
        ));
    }
    let mut network = resolver.network(section.name.clone())?;
    // What belongs to the machine is said once.
    network.host_firewall = settings.network.host_firewall;
    network.offloads = settings.network.offloads;
    let subnet = network.plan.subnet();
    if let Some(other) = settings.networks().find(|other| other.plan.subnet().overlaps(subnet)) {
        let taken = other.plan.subnet();
        let problem = format!("has the subnet {subnet}, which meets {taken} of {}", other.name);
        return Err(wrong(problem, "give each network a subnet of its own"));
    }
    let file = network.dhcp.lease_file.as_ref();
    let shares = |other: &&Network| file.is_some() && other.dhcp.lease_file.as_ref() == file;
    if let Some(other) = settings.networks().find(shares) {
        let problem = format!("has the dhcp_lease_file of network {}", other.name);
        return Err(wrong(problem, "give each network a lease file of its own"));
    }
    Ok((network, resolver.warnings))
}

static NOTHING: Layer = Layer::new();

struct Resolver<'a> {
    /// The strongest first.
    layers: [&'a Layer; 3],
    facts: &'a Facts,
    warnings: Vec<Warning>,
}

impl Resolver<'_> {
    fn settings(&mut self) -> Result<Settings, ConfError> {
        let server = self.server()?;
        let door = self.door()?;
        let network = self.network(NetworkName::default())?;
        if network.rooms.is_some() {
            return Err(self.given(OptionId::Rooms).error(
                "makes rooms of the network default, which every other path leads to",
                "write it below a line [network NAME]",
            ));
        }
        if self.flag(OptionId::EnableIperf)? == Some(true) {
            let text = format!(
                "enable_iperf is ignored: run iperf3 -s -B {} on this machine",
                network.plan.gateway()
            );
            self.warn(OptionId::EnableIperf, text);
        }
        let helper_socket =
            self.required(OptionId::HelperSocket, "is no such path", parse::socket_path)?;
        let admin_socket =
            self.required(OptionId::AdminSocket, "is no such path", parse::socket_path)?;
        let metrics_listen = self.list(OptionId::MetricsListen, |item| {
            parse::socket_address(item).ok_or_else(|| {
                format!("contains {}, which is no address with a port", quoted(item))
            })
        })?;
        let user = self.optional(OptionId::User, "is not a user's name", parse::user)?;
        let helper_user =
            self.optional(OptionId::HelperUser, "is not a user's name", parse::user)?;
        let sandbox = self.word(OptionId::Sandbox, &Sandbox::WORDS)?;
        let log_format = self.word(OptionId::LogFormat, &LogFormat::WORDS)?;
        Ok(Settings {
            server,
            door,
            network,
            others: Vec::new(),
            helper_socket,
            admin_socket,
            metrics_listen,
            user,
            helper_user,
            sandbox,
            log_format,
        })
    }

    fn server(&mut self) -> Result<Server, ConfError> {
        let addresses = self.list(OptionId::WsServerAddr, |item| {
            parse::listen_address(item)
                .ok_or_else(|| format!("contains {}, which is not an IP address", quoted(item)))
        })?;
        if addresses.is_empty() {
            return Err(self.error(OptionId::WsServerAddr, "names no address"));
        }
        let server = Server {
            addresses: parse::without_repetitions(addresses),
            ws_ports: self.ports(OptionId::WsServerPort)?,
            wss_ports: self.ports(OptionId::WssServerPort)?,
            wss_cert: self.path(OptionId::WssServerCert),
            wss_key: self.path(OptionId::WssServerKey),
            wss_more_certs: parse::paths(&self.given(OptionId::WssMoreCerts).value),
            wss_client_ca: self.path(OptionId::WssClientCa),
            wss_client_cert: self.word(OptionId::WssClientCert, &ClientCert::WORDS)?,
            listen: self.list(OptionId::Listen, |item| {
                parse::listener(item).ok_or_else(|| format!("contains {}", quoted(item)))
            })?,
            listen_mode: self.required(OptionId::ListenMode, "is no such mode", parse::mode)?,
            listen_owner: self.optional(OptionId::ListenOwner, "names no user", parse::owner)?,
            page: self.flag(OptionId::Page)?.unwrap_or(true),
            strict_paths: self.flag(OptionId::StrictPaths)?.unwrap_or(false),
        };
        self.check_tls(server)
    }

    fn check_tls(&mut self, mut server: Server) -> Result<Server, ConfError> {
        if server.wss_cert.is_none() {
            if self.given(OptionId::WssServerKey).origin != Origin::Default {
                let text = "wss_server_key is not used: set wss_server_cert too for wss://";
                self.warn(OptionId::WssServerKey, text);
            }
            for id in [OptionId::WssMoreCerts, OptionId::WssClientCa] {
                if !self.given(id).value.is_empty() {
                    let text = format!(
                        "{} is not used: set wss_server_cert too for wss://",
                        id.spec().name
                    );
                    self.warn(id, text);
                }
            }
            server.wss_key = None;
            server.wss_more_certs = Vec::new();
            server.wss_client_ca = None;
            return Ok(server);
        }
        let cert = self.given(OptionId::WssServerCert);
        let key = self.given(OptionId::WssServerKey);
        if cert.origin != Origin::Default && key.origin == Origin::Default && !key.value.is_empty()
        {
            let text = format!(
                "the private key is taken from {}, which exists: set wss_server_key if that is not \
                 the key of this certificate",
                key.value
            );
            self.warn(OptionId::WssServerCert, text);
        }
        Ok(server)
    }

    fn door(&mut self) -> Result<Door, ConfError> {
        Ok(Door {
            allowed_origins: self.list(OptionId::AllowedOrigins, |item| {
                parse::origin(item)
                    .ok_or_else(|| format!("contains {}, which is no origin", quoted(item)))
            })?,
            token_file: self.path(OptionId::TokenFile),
            jwt_key_file: self.path(OptionId::JwtKeyFile),
            basic_auth_file: self.path(OptionId::BasicAuthFile),
            trusted_proxies: self.list(OptionId::TrustedProxies, |item| {
                item.parse::<IpBlock>().map_err(|error| format!("({error})"))
            })?,
            proxy_protocol: self.flag(OptionId::ProxyProtocol)?.unwrap_or(false),
            max_clients_per_address: self.number(OptionId::MaxClientsPerAddress)?,
            handshake_rate: self.number(OptionId::HandshakeRate)?,
            ban_after: self.number(OptionId::BanAfter)?,
            ban_time: self.number(OptionId::BanTime)?,
            session_time: self.number(OptionId::SessionTime)?,
            idle_time: self.number(OptionId::IdleTime)?,
        })
    }

    fn network(&mut self, name: NetworkName) -> Result<Network, ConfError> {
        let given = self.given(OptionId::Subnet);
        let remedy = "give an IPv4 block from /8 to /30 such as 192.168.86.0/24";
        let block: Cidr =
            given.value.parse().map_err(|error| given.error(format!("({error})"), remedy))?;
        let plan = Plan::new(block).map_err(|error| given.error(format!("({error})"), remedy))?;
        let mut network = Network {
            name,
            max_clients: self.number(OptionId::MaxClients)?,
            private: self.flag(OptionId::Private)?.unwrap_or(false),
            rooms: self.rooms(plan)?,
            isolation: self.flag(OptionId::Isolation)?.unwrap_or(false),
            locks: self.flag(OptionId::Locks)?.unwrap_or(true),
            max_macs: self.number(OptionId::MaxMacs)?,
            max_multicast: self.number(OptionId::MaxMulticast)?,
            dhcp: Dhcp {
                service: self.word(OptionId::DhcpService, &DhcpService::WORDS)?,
                lease_file: self.path(OptionId::DhcpLeaseFile),
                lease_time: self.number(OptionId::DhcpLeaseTime)?,
                domain_name: self.optional(
                    OptionId::DhcpDomainName,
                    "is not a domain name",
                    parse::domain,
                )?,
                nameservers: Vec::new(),
            },
            plan,
            mtu: self.number(OptionId::Mtu)?,
            nat: self.nat()?,
            guest_access: self.word(OptionId::GuestAccess, &GuestAccess::WORDS)?,
            allow: self.blocks(OptionId::Allow)?,
            deny: self.blocks(OptionId::Deny)?,
            host_firewall: self.word(OptionId::HostFirewall, &HostFirewall::WORDS)?,
            allow_vlan: self.flag(OptionId::AllowVlan)?.unwrap_or(false),
            framing: self.word(OptionId::Framing, &Framing::WORDS)?,
            offloads: self.flag(OptionId::Offloads)?.unwrap_or(true),
            rate_up: Rate {
                bytes: self.number(OptionId::RateLimitUpBytes)?,
                frames: self.number(OptionId::RateLimitUpFrames)?,
            },
            rate_down: Rate {
                bytes: self.number(OptionId::RateLimitDownBytes)?,
                frames: self.number(OptionId::RateLimitDownFrames)?,
            },
            rate_burst_ms: self.number(OptionId::RateLimitBurst)?,
        };
        network.dhcp.nameservers = self.nameservers(&network)?;
        if network.rooms.is_some() {
            self.refuse_in_rooms(&network)?;
        }
        Ok(network)
    }

    fn rooms(&self, plan: Plan) -> Result<Option<Rooms>, ConfError> {
        let (max, prefix_len): (u32, u8) =
            (self.number(OptionId::MaxRooms)?, self.number(OptionId::RoomPrefix)?);
        if self.flag(OptionId::Rooms)? != Some(true) {
            return Ok(None);
        }
        let given = self.given(OptionId::RoomPrefix);
        let subnet = plan.subnet();
        if prefix_len <= subnet.prefix_len() {
            return Err(given.error(
                format!("is no part of the subnet {subnet}"),
                format!("give a number from {} to 30", subnet.prefix_len() + 1),
            ));
        }
        let has = 1_u32 << (prefix_len - subnet.prefix_len()).min(31);
        if self.given(OptionId::MaxRooms).origin != Origin::Default && max > has {
            return Err(self.given(OptionId::MaxRooms).error(
                format!("is more than the {has} rooms of /{prefix_len} that {subnet} has"),
                "give fewer, a larger subnet, or a longer room_prefix",
            ));
        }
        Ok(Some(Rooms { max: max.min(has), prefix_len }))
    }

    /// What rooms, which come and go, cannot have.
    fn refuse_in_rooms(&self, network: &Network) -> Result<(), ConfError> {
        if network.dhcp.service == DhcpService::Dnsmasq {
            return Err(self
                .given(OptionId::DhcpService)
                .error("cannot serve rooms, which come and go", "give builtin or disabled"));
        }
        if network.dhcp.lease_file.is_some() {
            return Err(self
                .given(OptionId::DhcpLeaseFile)
                .error("would outlive the rooms whose leases it keeps", "remove the line"));
        }
        Ok(())
    }

    fn nat(&mut self) -> Result<Nat, ConfError> {
        let enabled = self.flag(OptionId::EnableInet)?;
        let interface = self.optional(
            OptionId::InetIface,
            "cannot be an interface's name",
            InterfaceName::new,
        )?;
        if let (Some(false), Some(name)) = (enabled, &interface) {
            let no = self.given(OptionId::EnableInet);
            // In one file both together are a choice; from two places, one may be forgotten.
            if !no.origin.same_place(&self.given(OptionId::InetIface).origin) {
                let text =
                    format!("interface {name} is not used: {} says {}=no", no.origin, no.key);
                self.warn(OptionId::InetIface, text);
            }
        }
        Ok(match (enabled, interface) {
            (Some(false), _) | (None, None) => Nat::Off,
            (_, Some(name)) => Nat::Interface(name),
            (Some(true), None) => Nat::DefaultRoute,
        })
    }

    fn nameservers(&mut self, network: &Network) -> Result<Vec<Ipv4Addr>, ConfError> {
        let id = OptionId::DhcpNameserver;
        let given = self.list(id, |item| {
            item.parse::<IpAddr>()
                .map_err(|_| format!("contains {}, which is not an IP address", quoted(item)))
        })?;
        let mut servers = Vec::new();
        for address in given {
            match address {
                IpAddr::V4(address) => servers.push(address),
                IpAddr::V6(address) => {
                    let text = format!(
                        "name server {address} is left out: DHCPv4 cannot announce IPv6 addresses, \
                         give IPv4 ones"
                    );
                    self.warn(id, text);
                }
            }
        }
        if servers.len() > MAX_NAMESERVERS {
            return Err(self.error(id, "names more than a DHCP answer can carry"));
        }
        for address in servers.iter().filter(|address| parse::kept_from(**address, network)) {
            let text = format!(
                "guests may not reach name server {address}, it is no public address: set \
                 allow={address} or guest_access=lan"
            );
            self.warn(id, text);
        }
        Ok(servers)
    }

    /// What counts for an option: the strongest layer that mentions it, if that is not empty.
    fn given(&self, id: OptionId) -> Given {
        let given = self.layers.iter().find_map(|layer| layer.get(id));
        given.filter(|given| !given.value.is_empty()).cloned().unwrap_or_else(|| {
            Given::new(Origin::Default, id.spec().name, self.facts.default_of(id))
        })
    }

    fn optional<T>(
        &self,
        id: OptionId,
        problem: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfError> {
        let given = self.given(id);
        if given.value.is_empty() {
            return Ok(None);
        }
        parse(&given.value).map(Some).ok_or_else(|| self.error(id, problem))
    }

    fn required<T>(
        &self,
        id: OptionId,
        problem: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfError> {
        parse(&self.given(id).value).ok_or_else(|| self.error(id, problem))
    }

    fn list<T>(
        &self,
        id: OptionId,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfError> {
        parse::items(&self.given(id).value)
            .map(|item| parse(item).map_err(|problem| self.error(id, problem)))
            .collect()
    }

    fn blocks(&self, id: OptionId) -> Result<Vec<Cidr>, ConfError> {
        self.list(id, |item| item.parse::<Cidr>().map_err(|error| format!("({error})")))
    }

    fn number<T: TryFrom<u32>>(&self, id: OptionId) -> Result<T, ConfError> {
        self.required(id, "is out of range or no whole number", |text| {
            let number = parse::number(text)?;
            let allowed = match id.spec().kind {
                Kind::Number { min, max } => (min..=max).contains(&number),
                _ => false,
            };
            T::try_from(number).ok().filter(|_| allowed)
        })
    }

    fn ports(&self, id: OptionId) -> Result<Vec<u16>, ConfError> {
        let ports = self.list(id, |item| {
            let port = parse::number(item).and_then(|number| u16::try_from(number).ok());
            port.filter(|port| *port > 0)
                .ok_or_else(|| format!("contains {}, which is not a port", quoted(item)))
        })?;
        if ports.is_empty() {
            return Err(self.error(id, "names no port"));
        }
        Ok(parse::without_repetitions(ports))
    }

    fn flag(&self, id: OptionId) -> Result<Option<bool>, ConfError> {
        let given = self.given(id);
        if given.value.is_empty() { Ok(None) } else { given.flag().map(Some) }
    }

    fn word<T: Copy>(&self, id: OptionId, words: &[(&str, T)]) -> Result<T, ConfError> {
        self.required(id, "is none of the known words", |text| {
            words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
        })
    }

    fn path(&self, id: OptionId) -> Option<PathBuf> {
        Some(self.given(id).value).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn error(&self, id: OptionId, problem: impl Into<String>) -> ConfError {
        self.given(id).error(problem, format!("give {}", id.spec().kind.allowed()))
    }

    fn warn(&mut self, id: OptionId, text: impl Into<String>) {
        let origin = self.given(id).origin;
        self.warnings.push(Warning { origin, text: text.into() });
    }

    fn warn_of_unused_environment(&mut self) {
        for (name, _) in self.facts.environment.iter().filter(|(_, value)| !value.is_empty()) {
            let text = format!(
                "{name} is ignored outside a container: add --docker-mode to use it, or unset it"
            );
            self.warnings.push(Warning { origin: Origin::Environment, text });
        }
    }
}
