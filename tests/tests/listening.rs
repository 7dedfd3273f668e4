//! Where clients connect (docs/old-faults.md, fault 10).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use wsnic_tests::{Lab, RawGuest, Server, address};

fn serves(from: &wsnic_tests::Netns, address: impl Into<IpAddr>, port: u16) {
    let address = SocketAddr::new(address.into(), port);
    let guest = RawGuest::connect_to(from, address, "/", &[]);
    let mut guest = guest.unwrap_or_else(|error| panic!("{address}: {error}"));
    guest.dhcp();
    guest.ping_gateway(56);
    guest.leave();
}

fn is_closed(from: &wsnic_tests::Netns, address: impl Into<IpAddr>, port: u16) {
    let address = SocketAddr::new(address.into(), port);
    assert!(from.enter(|| std::net::TcpStream::connect(address)).is_err(), "{address} is open");
}

#[test]
fn by_default_only_the_machine_itself_can_connect() {
    let lab = Lab::new();
    // Where the tests themselves run in a container, the default is another.
    let in_container = std::path::Path::new("/.dockerenv").exists();
    let conf = if in_container { "ws_server_addr = 127.0.0.1\n" } else { "" };
    let server = Server::start(&lab, conf);
    assert!(server.log().contains("ws://127.0.0.1:8086"), "{}", server.log());
    serves(&lab.srv, [127, 0, 0, 1], 8086);
    is_closed(&lab.lan, address::LAN, 8086);
    is_closed(&lab.inet, address::WAN, 8086);
    server.stop();
    lab.finish();
}

#[test]
fn inside_a_container_everybody_can_connect() {
    let mut lab = Lab::new();
    lab.srv
        .enter(|| std::fs::write("/run/.containerenv", ""))
        .expect("a file below the namespace's own /run");
    lab.settle();
    let server = Server::start(&lab, "");
    serves(&lab.inet, address::WAN, 8086);
    server.stop();
    lab.finish();
}

#[test]
fn it_listens_on_every_port_that_is_named_and_says_so() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_port = 9000, 9001\nws_server_addr = 127.0.0.1\n");
    for port in [9000, 9001] {
        serves(&lab.srv, [127, 0, 0, 1], port);
        assert!(server.log().contains(&format!("ws://127.0.0.1:{port}/")), "{}", server.log());
    }
    is_closed(&lab.srv, [127, 0, 0, 1], 8086);
    server.stop();
    lab.finish();
}

#[test]
fn it_listens_on_ipv4_and_ipv6_addresses_that_are_named() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 192.168.50.1, ::1\nws_server_port = 9000\n");
    serves(&lab.lan, address::LAN, 9000);
    serves(&lab.srv, Ipv6Addr::LOCALHOST, 9000);
    is_closed(&lab.srv, [127, 0, 0, 1], 9000);
    is_closed(&lab.inet, address::WAN, 9000);
    server.stop();
    lab.finish();
}

#[test]
fn the_two_unspecified_addresses_do_not_get_in_each_others_way() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0, ::\n");
    serves(&lab.inet, address::WAN, 8086);
    serves(&lab.inet, address::WAN6, 8086);
    server.stop();
    lab.finish();
}

#[test]
fn the_unspecified_ipv6_address_serves_ipv6() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = ::\n");
    serves(&lab.inet, address::WAN6, 8086);
    server.stop();
    lab.finish();
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let lab = Lab::new();
    let other =
        lab.srv.enter(|| std::net::TcpListener::bind("127.0.0.1:8086")).expect("a free port");
    let log = Server::refuses(&lab, "", &[]);
    assert!(log.contains("8086"), "{log}");
    drop(other);
    let server = Server::start(&lab, "");
    server.stop();
    lab.finish();
}

#[test]
fn the_command_line_beats_the_file() {
    let lab = Lab::new();
    let server = Server::start_with(&lab, "ws_server_port = 9000\n", &["--ws-server-port", "9001"]);
    serves(&lab.srv, [127, 0, 0, 1], 9001);
    is_closed(&lab.srv, [127, 0, 0, 1], 9000);
    server.stop();
    lab.finish();
}
