//! Files of all earlier versions mean what they meant.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use support::outcome;
use wsnic_proto::options::{OPTIONS, Place, template};
use wsnic_proto::settings::{DhcpService, GuestAccess, HostFirewall, Nat, Sandbox};
use wsnic_proto::{Facts, Settings};

const OLDEST: &str = include_str!("data/oldest.conf");
const MIDDLE: &str = include_str!("data/middle.conf");
const NEWEST: &str = include_str!("data/newest.conf");

/// The settings of a file that is right, without facts.
fn settings(text: &str) -> Settings {
    outcome(text, &Facts::default()).expect("the file is right").0
}

#[test]
fn files_of_three_versions_give_the_same_settings_without_warnings() {
    let expected = outcome(MIDDLE, &Facts::default()).unwrap();
    assert_eq!(expected.1, [""; 0]);
    assert_eq!(outcome(OLDEST, &Facts::default()).unwrap(), expected);
    assert_eq!(outcome(NEWEST, &Facts::default()).unwrap(), expected);

    let settings = expected.0;
    assert_eq!(settings.server.addresses, [IpAddr::V4(Ipv4Addr::UNSPECIFIED)]);
    assert_eq!((settings.server.ws_ports, settings.server.wss_ports), (vec![8070], vec![8071]));
    assert_eq!(settings.server.wss_key.unwrap().to_str(), Some("/srv/wsnic/private.pem"));
    assert!(matches!(&settings.network.nat, Nat::Interface(name) if name.as_str() == "enp3s0"));
    assert_eq!(settings.network.plan.gateway(), Ipv4Addr::new(10, 86, 0, 1));
    assert_eq!(settings.network.mtu, 1400);
    assert_eq!(settings.network.dhcp.service, DhcpService::Disabled);
    assert_eq!(settings.network.dhcp.lease_time, 3600);
    assert_eq!(settings.network.dhcp.domain_name.as_deref(), Some("guests.example"));
    assert_eq!(settings.network.dhcp.nameservers.len(), 2);
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let settings = settings("");
    assert_eq!(settings.server.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    assert_eq!((settings.server.ws_ports, settings.server.wss_ports), (vec![8086], vec![8087]));
    assert_eq!((settings.server.wss_cert, settings.server.wss_key), (None, None));
    assert_eq!(settings.network.max_clients, 1000);
    assert_eq!(settings.network.plan.subnet().to_string(), "192.168.86.0/24");
    assert_eq!(settings.network.mtu, 1500);
    assert_eq!(settings.network.nat, Nat::Off);
    assert_eq!(settings.network.guest_access, GuestAccess::Internet);
    assert_eq!(settings.network.host_firewall, HostFirewall::Report);
    assert!(!settings.network.allow_vlan);
    assert_eq!(settings.network.dhcp.service, DhcpService::Builtin);
    assert_eq!(settings.network.dhcp.lease_time, 86400);
    assert!(settings.network.dhcp.nameservers.is_empty());
    assert_eq!(settings.helper_socket.to_str(), Some("/run/wsnic-priv.sock"));
    assert_eq!(settings.user, None);
}

#[test]
fn the_template_gives_the_defaults_as_it_stands_and_with_every_option_uncommented() {
    let defaults = outcome("", &Facts::default()).unwrap();
    assert_eq!(outcome(&template(), &Facts::default()).unwrap(), defaults);
    let uncommented: String = template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(option) if !option.starts_with([' ', '#']) => format!("{option}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(uncommented.contains("\ndhcp_nameserver=\n"));
    assert_eq!(outcome(&uncommented, &Facts::default()).unwrap(), defaults);
}

#[test]
fn every_option_and_every_alias_may_be_empty() {
    let defaults = outcome("", &Facts::default()).unwrap();
    for spec in OPTIONS.iter().filter(|spec| spec.place != Place::CommandLine) {
        let switches = spec.switches.iter().map(|switch| switch.name);
        for name in spec.aliases.iter().copied().chain([spec.name]).chain(switches) {
            let file = format!("{}=\n", name.to_uppercase());
            assert_eq!(outcome(&file, &Facts::default()).unwrap(), defaults, "{name}");
        }
    }
}

#[test]
fn every_alias_sets_what_its_option_sets() {
    for (canonical, alias) in [
        ("ws_server_addr=::1", "ws_address=::1"),
        ("ws_server_port=1", "ws_port=1"),
        ("wss_server_port=2", "wss_port=2"),
        ("wss_server_cert=c", "wss_certificate=c"),
        ("wss_server_cert=c\nwss_server_key=k", "wss_server_cert=c\nwss_private_key=k"),
        ("inet_iface=e0", "eth_iface=e0"),
        ("subnet=10.0.0.0/8", "bridge_subnet=10.0.0.0/8"),
        ("dhcp_domain_name=a.b", "dhcp_domain=a.b"),
        ("dhcp_nameserver=9.9.9.9", "dhcp_domain_name_server=9.9.9.9"),
        ("dhcp_service=disabled", "disable_dhcp=t"),
        ("dhcp_service=builtin", "disable_dhcp=0"),
        ("dhcp_service=disabled", "dhcp_enabled=0"),
        ("dhcp_service=builtin", "dhcp_enabled=1"),
        ("dhcp_service=builtin", "dhcp_service=internal"),
        ("dhcp_service=dnsmasq", "dhcp_service=DnsMasq"),
        ("mtu=9000", "dhcp_mtu=9000"),
    ] {
        assert_eq!(settings(canonical), settings(alias), "{alias}");
    }
    assert_eq!(settings("dhcp_service=dnsmasq").network.dhcp.service, DhcpService::Dnsmasq);
}

#[test]
fn nat_follows_interface_and_switch() {
    let nat = |text: &str| match settings(text).network.nat {
        Nat::Off => "off".to_owned(),
        Nat::DefaultRoute => "default route".to_owned(),
        Nat::Interface(name) => name.to_string(),
    };
    assert_eq!(nat(""), "off");
    assert_eq!(nat("inet_iface=eth0"), "eth0");
    assert_eq!(nat("enable_inet=\ninet_iface=eth0"), "eth0");
    assert_eq!(nat("enable_inet=1\ninet_iface=eth0"), "eth0");
    assert_eq!(nat("enable_inet=1"), "default route");
    assert_eq!(nat("enable_inet=yes\ninet_iface="), "default route");
    assert_eq!(nat("enable_inet=0\ninet_iface=eth0"), "off");
    assert_eq!(nat("enable_inet=F"), "off");
}

#[test]
fn listen_addresses_are_a_list_of_both_families() {
    let addresses = |text: &str| -> Vec<String> {
        let server = settings(&format!("ws_server_addr={text}")).server;
        server.addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(addresses("127.0.0.1, ::1;10.0.0.1\t::"), ["127.0.0.1", "::1", "10.0.0.1", "::"]);
    assert_eq!(addresses("[fe80::1] localhost 127.0.0.1"), ["fe80::1", "127.0.0.1"]);
}

#[test]
fn ipv6_name_servers_are_warned_about_and_left_out() {
    let file = "\ndhcp_nameserver=9.9.9.9, 2620:fe::fe";
    let (settings, warnings) = outcome(file, &Facts::default()).unwrap();
    assert_eq!(settings.network.dhcp.nameservers, [Ipv4Addr::new(9, 9, 9, 9)]);
    assert_eq!(
        warnings,
        ["wsnic.conf:2: name server 2620:fe::fe is left out: DHCPv4 cannot announce IPv6 \
          addresses, give IPv4 ones"]
    );
}

#[test]
fn iperf_is_warned_about_with_the_command_to_run() {
    assert_eq!(
        outcome("enable_iperf=1", &Facts::default()).unwrap().1,
        ["wsnic.conf:1: enable_iperf is ignored: run iperf3 -s -B 192.168.86.1 on this machine"]
    );
}

#[test]
fn a_private_name_server_that_guests_cannot_reach_is_warned_about() {
    let warned = |text: &str| outcome(text, &Facts::default()).unwrap().1.len();
    let file = "dhcp_nameserver=192.168.1.1\ninet_iface=eth0\n";
    assert_eq!(warned(file), 1);
    assert_eq!(warned(&format!("{file}allow=192.168.1.1")), 0);
    assert_eq!(warned(&format!("{file}guest_access=lan")), 0);
    assert_eq!(warned(&format!("{file}subnet=192.168.1.0/24")), 0);
    assert_eq!(warned("dhcp_nameserver=192.168.1.1"), 0);
}

#[test]
fn what_systemd_starts_requires_its_sandbox() {
    let level = |variable: Option<&str>| {
        let facts = Facts::default().of_process(77, variable.map(Into::into));
        outcome("", &facts).unwrap().0.sandbox
    };
    assert_eq!(level(Some("77")), Sandbox::Require);
    for other in [None, Some("78"), Some(""), Some("x")] {
        assert_eq!(level(other), Sandbox::Prefer, "{other:?}");
    }
}
