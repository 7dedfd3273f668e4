//! What guests can and cannot reach (docs/old-faults.md, fault 8).

use std::net::IpAddr;
use wsnic_tests::address::{
    GATEWAY, LAN, METADATA, NAMED_PORT, NEIGHBOUR, NEIGHBOUR6, PRIVATE, UPLINK, WAN, WAN6, WEB,
    WEB6,
};
use wsnic_tests::{Lab, NativeGuest, Server};

/// Which of these places a guest reaches by TCP, in this order, all asked at the same time.
fn reached(guest: &NativeGuest, places: &[IpAddr]) -> Vec<IpAddr> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = places
            .iter()
            .map(|place| {
                scope.spawn(|| {
                    (guest.hears(*place, NAMED_PORT), guest.hears_udp(*place, NAMED_PORT))
                })
            })
            .collect();
        let answers = asked.into_iter().zip(places).map(|(thread, place)| {
            let (tcp, udp) = thread.join().expect("asking does not panic");
            assert_eq!(tcp.is_some(), udp.is_some(), "TCP and UDP to {place}: {tcp:?}, {udp:?}");
            tcp.map(|_| *place)
        });
        answers.flatten().collect()
    })
}

fn everywhere() -> Vec<IpAddr> {
    vec![
        GATEWAY.into(),
        WAN.into(),
        LAN.into(),
        PRIVATE.into(),
        METADATA.into(),
        UPLINK.into(),
        WEB.into(),
        WAN6.into(),
        WEB6.into(),
        NEIGHBOUR6.into(),
    ]
}

/// Starts wsnic with NAT and this policy and returns what a guest reaches.
fn policy(conf: &str) -> Vec<IpAddr> {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("inet_iface = wan0\n{conf}"));
    let guest = NativeGuest::join(&lab);
    // A guest that makes itself an IPv6 route to the bridge gets nowhere either.
    guest.netns.ip("-6 address add 2001:db8:86::2/64 dev eth0 nodad");
    guest.netns.ip("-6 route replace default via fe80::1 dev eth0");
    let found = reached(&guest, &everywhere());
    assert!(guest.pings(GATEWAY));
    server.stop();
    lab.finish();
    found
}

#[test]
fn by_default_guests_reach_the_internet_and_nothing_else() {
    assert_eq!(policy(""), [IpAddr::from(UPLINK), WEB.into()]);
}

#[test]
fn guest_access_lan_adds_private_ranges_only() {
    assert_eq!(policy("guest_access = lan\n"), [IpAddr::from(PRIVATE), UPLINK.into(), WEB.into()]);
}

#[test]
fn guest_access_all_opens_everything_in_ipv4() {
    assert_eq!(
        policy("guest_access = all\n"),
        [
            IpAddr::from(GATEWAY),
            WAN.into(),
            LAN.into(),
            PRIVATE.into(),
            METADATA.into(),
            UPLINK.into(),
            WEB.into()
        ]
    );
}

#[test]
fn guest_access_lan_and_all_reach_networks_behind_other_interfaces_too() {
    for (conf, expected) in [
        ("", None),
        ("guest_access = lan\n", Some("lan")),
        ("guest_access = all\n", Some("lan")),
        ("allow = 192.168.50.2\n", Some("lan")),
        ("guest_access = lan\ndeny = 192.168.50.0/24\n", None),
    ] {
        let lab = Lab::new();
        let server = Server::start(&lab, &format!("inet_iface = wan0\n{conf}"));
        let guest = NativeGuest::join(&lab);
        assert_eq!(guest.hears(NEIGHBOUR, NAMED_PORT).as_deref(), expected, "{conf}");
        server.stop();
        drop(guest);
        lab.finish();
    }
}

#[test]
fn allow_opens_one_block_that_guest_access_closes() {
    assert_eq!(
        policy("allow = 10.20.30.40/32\n"),
        [IpAddr::from(PRIVATE), UPLINK.into(), WEB.into()]
    );
}

#[test]
fn deny_closes_one_block_whatever_the_rest_says() {
    assert_eq!(
        policy("guest_access = lan\nallow = 93.184.216.34\ndeny = 93.184.216.0/24\n"),
        [IpAddr::from(PRIVATE), UPLINK.into()]
    );
}

#[test]
fn a_neighbour_in_the_lan_cannot_reach_guests() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    let _service =
        wsnic_tests::services::named_service(&guest.netns, guest.ip().into(), 7000, "guest");
    let ip = guest.ip();
    lab.lan.ip("route add 192.168.86.0/24 via 192.168.50.1");
    lab.inet.ip("route add 192.168.86.0/24 via 93.184.215.2");
    for outside in [&lab.lan, &lab.inet] {
        assert!(!outside.succeeds(&format!("ping -n -c 2 -i 0.2 -W 1 {ip}")));
        assert!(!outside.succeeds(&format!("busybox nc -w 2 {ip} 7000")));
    }
    // The host itself may.
    assert!(lab.srv.succeeds(&format!("ping -n -c 3 -W 2 {ip}")));
    server.stop();
    lab.finish();
}

#[test]
fn the_gateway_answers_dhcp_dns_and_ping_and_no_other_port() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\nws_server_addr = 0.0.0.0\n");
    let guest = NativeGuest::join(&lab);
    assert!(guest.pings(GATEWAY));
    for port in [22, 80, 8086, NAMED_PORT] {
        assert_eq!(guest.hears(GATEWAY, port), None, "port {port}");
    }
    server.stop();
    lab.finish();
}

#[test]
fn the_log_says_at_start_what_guests_may_reach() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let log = server.log().to_lowercase();
    assert!(log.lines().any(|line| line.contains("guests") && line.contains("internet")), "{log}");
    server.stop();
    lab.finish();
}
