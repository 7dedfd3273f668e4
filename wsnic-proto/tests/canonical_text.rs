//! Settings survive their own text, and no text makes the resolver panic.

mod support;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use support::outcome;
use wsnic_proto::options::{OPTIONS, Place};
use wsnic_proto::settings::{
    ClientCert, Dhcp, DhcpService, Door, Framing, GuestAccess, HostFirewall, InterfaceName,
    LogFormat, Nat, Network, NetworkName, Rate, Rooms, Sandbox, Server, Settings,
};
use wsnic_proto::{Cidr, Facts, IpBlock, Plan};

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    "(/|[a-z]|%|#|=|:|\\[|é)([ -~é]{0,20}[!-~])?".prop_map(Into::into)
}

fn block() -> impl Strategy<Value = Cidr> {
    (any::<u32>(), 0u8..=32).prop_map(|(address, len)| Cidr::containing(address.into(), len))
}

fn plan() -> impl Strategy<Value = Plan> {
    (any::<u32>(), 8u8..=30).prop_filter_map("no subnet", |(address, len)| {
        Plan::new(Cidr::containing(address.into(), len)).ok()
    })
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    proptest::collection::hash_set(1u16.., 1..4).prop_map(|ports| ports.into_iter().collect())
}

fn server() -> impl Strategy<Value = Server> {
    let addresses = proptest::collection::hash_set(any::<IpAddr>(), 1..4);
    let tls = option::of((path(), option::of(path())));
    let more = (vec("[a-z/][a-z ]{0,9}[a-z]", 0..3), option::of(path()), any::<bool>());
    let sockets = vec("/[a-z/]{1,20}", 0..3);
    let mode = (0u32..=6, 0u32..=6).prop_map(|(group, other)| 0o600 | group << 3 | other);
    let mode = mode.prop_filter("no execution", |mode| mode & 0o111 == 0);
    let owner = option::of(("[a-z]{1,9}", option::of("[a-z]{1,9}")));
    let unix = (sockets, mode, owner);
    (addresses, (ports(), ports()), tls, more, unix, any::<[bool; 2]>()).prop_map(
        |(addresses, ports, tls, more, (sockets, mode, listen_owner), [page, strict_paths])| {
            let is_tls = tls.is_some();
            let (wss_cert, wss_key) = tls.map_or((None, None), |(cert, key)| (Some(cert), key));
            let (more, client_ca, optional) = more;
            Server {
                addresses: addresses.into_iter().collect(),
                ws_ports: ports.0,
                wss_ports: ports.1,
                wss_cert,
                wss_key,
                wss_more_certs: more.into_iter().filter(|_| is_tls).map(Into::into).collect(),
                wss_client_ca: client_ca.filter(|_| is_tls),
                wss_client_cert: if optional { ClientCert::Optional } else { ClientCert::Required },
                listen: sockets.into_iter().map(Into::into).collect(),
                listen_mode: mode,
                listen_owner,
                page,
                strict_paths,
            }
        },
    )
}

fn door() -> impl Strategy<Value = Door> {
    let origins = vec("https?://[a-z.]{1,9}(:[1-9]{4})?", 0..3);
    let files = (option::of(path()), option::of(path()), option::of(path()));
    let block = (any::<IpAddr>(), 0u8..=128).prop_map(|(ip, len)| IpBlock::containing(ip, len));
    let proxies = (vec(block, 0..3), any::<bool>());
    let limits = (0u32..=24_000, 0u32..=100_000, 1u32..=1_000_000);
    (origins, files, proxies, limits, any::<[u32; 3]>()).prop_map(
        |(allowed_origins, files, proxies, limits, [ban_time, session_time, idle_time])| Door {
            allowed_origins,
            token_file: files.0,
            jwt_key_file: files.1,
            basic_auth_file: files.2,
            trusted_proxies: proxies.0,
            proxy_protocol: proxies.1,
            max_clients_per_address: limits.0,
            handshake_rate: limits.1,
            ban_after: limits.2,
            ban_time,
            session_time,
            idle_time,
        },
    )
}

fn network() -> impl Strategy<Value = Network> {
    let nat = prop_oneof![
        Just(Nat::Off),
        Just(Nat::DefaultRoute),
        "[!-~]{1,15}".prop_filter_map("no interface", |name| {
            InterfaceName::new(&name).map(Nat::Interface)
        }),
    ];
    let access =
        prop_oneof![Just(GuestAccess::Internet), Just(GuestAccess::Lan), Just(GuestAccess::All)];
    let firewall = prop_oneof![Just(HostFirewall::Report), Just(HostFirewall::Open)];
    let lists = (vec(block(), 0..4), vec(block(), 0..4));
    let rate = any::<(u32, u32)>().prop_map(|(bytes, frames)| Rate { bytes, frames });
    let speed = (any::<bool>(), rate.clone(), rate, 1u32..=60_000);
    let limits = (1u32..=24_000, 1u32..=64, 0u32..=1_000_000);
    let flags = (any::<[bool; 5]>(), speed);
    (plan(), 576u16..=65521, nat, access, lists, firewall, (flags, limits, dhcp())).prop_map(
        |(plan, mtu, nat, guest_access, (allow, deny), host_firewall, (flags, limits, dhcp))| {
            let ([allow_vlan, private, isolation, locks, is_stream], speed) = flags;
            Network {
                name: NetworkName::default(),
                max_clients: limits.0,
                private,
                rooms: None,
                isolation,
                locks,
                max_macs: limits.1,
                max_multicast: limits.2,
                dhcp,
                plan,
                mtu,
                nat,
                guest_access,
                allow,
                deny,
                host_firewall,
                allow_vlan,
                framing: if is_stream { Framing::Stream } else { Framing::Messages },
                offloads: speed.0,
                rate_up: speed.1,
                rate_down: speed.2,
                rate_burst_ms: speed.3,
            }
        },
    )
}

fn dhcp() -> impl Strategy<Value = Dhcp> {
    let service = prop_oneof![
        Just(DhcpService::Builtin),
        Just(DhcpService::Dnsmasq),
        Just(DhcpService::Disabled)
    ];
    let domain = option::of("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[A-Z_]{1,9}){0,3}");
    let servers = vec(any::<Ipv4Addr>(), 0..=63);
    (service, option::of(path()), 120u32..u32::MAX, domain, servers).prop_map(
        |(service, lease_file, lease_time, domain_name, nameservers)| Dhcp {
            service,
            lease_file,
            lease_time,
            domain_name,
            nameservers,
        },
    )
}

/// The network default, and others that fit to it.
fn networks() -> impl Strategy<Value = (Network, Vec<Network>)> {
    let other = (network(), option::of((1u32..=1000, 1u8..=9)));
    (network(), proptest::collection::btree_map("[a-z][a-z0-9_-]{0,5}", other, 0..4)).prop_map(
        |(default, others)| {
            let mut fitting: Vec<Network> = Vec::new();
            for (name, (mut network, rooms)) in others {
                let subnet = network.plan.subnet();
                let is_free = |other: &Network| !other.plan.subnet().overlaps(subnet);
                if name == NetworkName::DEFAULT
                    || !is_free(&default)
                    || !fitting.iter().all(is_free)
                {
                    continue;
                }
                network.name = NetworkName::new(&name).expect("a name");
                network.host_firewall = default.host_firewall;
                network.offloads = default.offloads;
                let lease_file = network.dhcp.lease_file.as_ref();
                let shares = |other: &Network| other.dhcp.lease_file.as_ref() == lease_file;
                if std::iter::once(&default).chain(&fitting).any(shares) {
                    network.dhcp.lease_file = None;
                }
                network.rooms = rooms.and_then(|(max, bits)| {
                    let prefix_len = subnet.prefix_len() + bits;
                    (prefix_len <= 30).then(|| Rooms { max: max.min(1 << bits), prefix_len })
                });
                if network.rooms.is_some() {
                    network.dhcp.lease_file = None;
                    network.dhcp.service = DhcpService::Builtin;
                }
                fitting.push(network);
            }
            (default, fitting)
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let user = option::of("[a-z_][a-z0-9_-]{0,20}");
    let sandbox = prop_oneof![Just(Sandbox::Require), Just(Sandbox::Prefer), Just(Sandbox::Off)];
    let address = any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port.max(1)));
    let log_format = prop_oneof![Just(LogFormat::Text), Just(LogFormat::Json)];
    let paths = (path(), path(), vec(address, 0..4));
    (server(), door(), networks(), paths, (user.clone(), user, sandbox, log_format)).prop_map(
        |(server, door, (network, others), paths, (user, helper_user, sandbox, log_format))| {
            Settings {
                server,
                door,
                network,
                others,
                helper_socket: paths.0,
                admin_socket: paths.1,
                metrics_listen: paths.2,
                user,
                helper_user,
                sandbox,
                log_format,
            }
        },
    )
}

/// The settings of a file that is right, without facts.
fn resolved(text: &str) -> Settings {
    outcome(text, &Facts::default()).expect("the file is right").0
}

#[test]
fn the_canonical_text_names_every_option_once() {
    let text = resolved("").to_conf();
    let names: Vec<&str> =
        text.lines().map(|line| line.split_once('=').expect("a setting").0).collect();
    let expected: Vec<&str> = OPTIONS
        .iter()
        .filter(|spec| spec.place == Place::Everywhere)
        .map(|spec| spec.name)
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn relative_certificate_paths_survive() {
    let facts =
        Facts { cert: Some("cert/cert.crt"), key: Some("cert/cert.key"), ..Facts::default() };
    let (settings, _) = outcome("", &facts).unwrap();
    assert_eq!(resolved(&settings.to_conf()), settings);
    assert_eq!(settings.server.wss_cert.unwrap().to_str(), Some("cert/cert.crt"));
}

proptest! {
    #[test]
    fn settings_survive_their_canonical_text(settings in settings()) {
        let text = settings.to_conf();
        let (again, _) = outcome(&text, &Facts::default()).expect(&text);
        prop_assert_eq!(again, settings);
    }

    #[test]
    fn whatever_resolves_survives_its_canonical_text(
        lines in vec((0..OPTIONS.len(), "\\PC{0,12}|[0-9]{1,5}|[0-9./]{7,12}|yes|[ -~\t]{1,9}"), 0..5),
        docker_mode: bool,
    ) {
        let text: String =
            lines.iter().map(|(row, value)| format!("{}={value}\n", OPTIONS[*row].name)).collect();
        let facts = Facts { docker_mode, cert: Some("a"), key: Some("b"), ..Facts::default() };
        if let Ok((settings, _)) = outcome(&text, &facts) {
            prop_assert_eq!(outcome(&settings.to_conf(), &Facts::default()).unwrap().0, settings);
        }
    }
}
