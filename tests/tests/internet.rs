//! The main job: a guest gets an address, names and the Internet.

use wsnic_tests::services::{BIG_ADDRESSES, BIG_NAME, BLOB_LEN, WEB_NAME, blob, checksum};
use wsnic_tests::{Lab, NativeGuest, Server, address, address::GATEWAY};

const NAT: &str = "inet_iface = wan0\n";

#[test]
fn a_guest_gets_address_route_and_resolver_by_dhcp() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let guest = NativeGuest::plug(&lab);
    let lease = guest.dhcp();
    assert_eq!(lease.get("ip"), "192.168.86.2", "{lease:?}");
    assert_eq!(lease.get("mask"), "24", "{lease:?}");
    assert_eq!(lease.get("router"), "192.168.86.1", "{lease:?}");
    assert_eq!(lease.get("dns"), "192.168.86.1", "{lease:?}");
    assert_eq!(lease.get("lease"), "86400", "{lease:?}");
    assert!(guest.pings(GATEWAY));
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_resolves_names_over_udp_and_tcp() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    assert!(guest.resolves("nowhere.example.com").is_empty());
    let short = guest.asks_dns(GATEWAY, BIG_NAME).expect("an answer over UDP");
    assert_ne!(short[2] & 2, 0, "the answer is too long for UDP and says so");
    let long = guest.asks_dns_by_tcp(GATEWAY, BIG_NAME).expect("an answer over TCP");
    assert_eq!(usize::from(u16::from_be_bytes([long[6], long[7]])), BIG_ADDRESSES);
    server.stop();
    lab.finish();
}

#[test]
fn fifty_megabytes_come_down_unharmed() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let guest = NativeGuest::join(&lab);
    let body = guest.downloads(address::WEB, &format!("/blob/{BLOB_LEN}"));
    assert_eq!(body.len(), BLOB_LEN);
    assert_eq!(checksum(&body), checksum(&blob(BLOB_LEN)));
    server.stop();
    lab.finish();
}

#[test]
fn fifty_megabytes_go_up_unharmed() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let guest = NativeGuest::join(&lab);
    guest.uploads(address::WEB, &blob(BLOB_LEN));
    server.stop();
    lab.finish();
}

#[test]
fn nat_through_the_default_routes_interface_needs_no_name() {
    let lab = Lab::new();
    let server = Server::start(&lab, "enable_inet = 1\n");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    assert_eq!(guest.hears_udp(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    assert!(guest.pings(address::WEB));
    server.stop();
    lab.finish();
}

#[test]
fn without_nat_a_guest_reaches_the_gateway_and_nothing_behind_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let guest = NativeGuest::join(&lab);
    assert!(guest.pings(GATEWAY));
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT), None);
    assert_eq!(guest.hears(address::NEIGHBOUR, address::NAMED_PORT), None);
    assert_eq!(lab.srv.sysctl("net/ipv4/conf/wsbr0/forwarding"), "0", "nothing needs forwarding");
    server.stop();
    lab.finish();
}

#[test]
fn enable_inet_0_beats_a_named_interface() {
    let lab = Lab::new();
    let server = Server::start(&lab, "enable_inet = 0\ninet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    assert!(guest.pings(GATEWAY));
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT), None);
    server.stop();
    lab.finish();
}

#[test]
fn another_subnet_serves_as_well() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\nsubnet = 10.77.0.0/22\n");
    let guest = NativeGuest::plug(&lab);
    let lease = guest.dhcp();
    assert_eq!((lease.get("ip"), lease.get("mask")), ("10.77.0.2", "22"), "{lease:?}");
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    lab.finish();
}
