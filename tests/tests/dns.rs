//! Which resolvers answer on the gateway's address.

use wsnic_tests::services::WEB_NAME;
use wsnic_tests::{Lab, NativeGuest, Server, address, address::GATEWAY};

#[test]
fn a_resolver_in_the_private_lan_answers_although_the_lan_is_closed() {
    let lab = Lab::new();
    lab.set_resolv_conf("# the home router\nsearch home\nnameserver 192.168.50.2\n");
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    assert!(guest.asks_dns_by_tcp(GATEWAY, WEB_NAME).is_ok());
    assert_eq!(guest.asks_dns(address::NEIGHBOUR, WEB_NAME), None, "directly it stays closed");
    server.stop();
    lab.finish();
}

#[test]
fn behind_a_loopback_stub_the_real_resolver_is_found() {
    let mut lab = Lab::new();
    lab.set_resolv_conf("nameserver 127.0.0.53\noptions edns0 trust-ad\n");
    lab.srv
        .enter(|| {
            std::fs::create_dir_all("/run/systemd/resolve")?;
            std::fs::write("/run/systemd/resolve/resolv.conf", "nameserver 93.184.216.53\n")
        })
        .expect("files below the namespace's own /run");
    lab.settle();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    server.stop();
    lab.finish();
}

#[test]
fn without_a_usable_resolver_the_log_says_so() {
    let lab = Lab::new();
    lab.set_resolv_conf("nameserver 127.0.0.1\nnameserver ::1\n");
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let log = server.log().to_lowercase();
    assert!(log.contains("resolve"), "{log}");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    lab.finish();
}

#[test]
fn a_configured_name_server_is_announced_as_it_is() {
    let lab = Lab::new();
    let server =
        Server::start(&lab, "inet_iface = wan0\ndhcp_nameserver = 93.184.216.53, 9.9.9.9\n");
    let guest = NativeGuest::plug(&lab);
    let lease = guest.dhcp();
    assert_eq!(lease.get("dns"), "93.184.216.53 9.9.9.9", "{lease:?}");
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    server.stop();
    lab.finish();
}

#[test]
fn without_nat_no_name_server_is_announced_and_none_answers() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let guest = NativeGuest::plug(&lab);
    let lease = guest.dhcp();
    assert_eq!(lease.get("dns"), "", "{lease:?}");
    assert_eq!(guest.asks_dns(GATEWAY, WEB_NAME), None);
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 5: the shipped template has this line.
#[test]
fn an_empty_dhcp_nameserver_means_the_gateway() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\ndhcp_nameserver =\n");
    let guest = NativeGuest::plug(&lab);
    assert_eq!(guest.dhcp().get("dns"), "192.168.86.1");
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    server.stop();
    lab.finish();
}
