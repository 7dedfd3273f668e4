//! The built-in DHCP server, message by message (RFC 2131).

use std::collections::HashSet;
use std::net::Ipv4Addr;
use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames::{self, BROADCAST, Dhcp};
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

#[test]
fn a_lease_says_what_a_guest_needs() {
    let lab = Lab::new();
    let conf = "inet_iface = wan0\nmtu = 1400\ndhcp_lease_time = 3600\ndhcp_domain_name = guests.example\n";
    let server = Server::start(&lab, conf);
    let mut guest = RawGuest::connect(&lab);
    let ack = guest.dhcp();
    assert_eq!(ack.yiaddr, Ipv4Addr::new(192, 168, 86, 2));
    for (option, value) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[192, 168, 86, 1]),
        (6, &[192, 168, 86, 1]),
        (15, b"guests.example"),
        (26, &1400_u16.to_be_bytes()),
        (28, &[192, 168, 86, 255]),
        (51, &3600_u32.to_be_bytes()),
        (54, &[192, 168, 86, 1]),
        (58, &1800_u32.to_be_bytes()),
        (59, &3150_u32.to_be_bytes()),
    ] {
        assert_eq!(ack.option(option), Some(value), "option {option}: {ack:?}");
    }
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn addresses_are_given_in_order_and_a_mac_keeps_its_own() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guests: Vec<RawGuest> = (0..5).map(|_| RawGuest::join(&lab)).collect();
    let addresses: Vec<u8> = guests.iter().map(|guest| guest.ip.octets()[3]).collect();
    assert_eq!(addresses, [2, 3, 4, 5, 6]);
    let third = guests.remove(2);
    let (mac, ip) = (third.mac, third.ip);
    third.leave();
    let stranger = RawGuest::join(&lab);
    assert_ne!(stranger.ip, ip, "the address stays its MAC's for a while");
    let mut back = RawGuest::connect(&lab);
    back.mac = mac;
    back.dhcp();
    assert_eq!(back.ip, ip);
    drop((guests, stranger, back));
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_that_remembers_its_address_gets_it_again() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let ip = guest.ip;
    // INIT-REBOOT: no server identifier, no ciaddr.
    let ack = guest.dhcp_ask(&Dhcp::new(REQUEST, guest.mac).with(50, &ip.octets()));
    assert_eq!((ack.kind, ack.yiaddr), (ACK, ip));
    // RENEWING and REBINDING: ciaddr, no option 50.
    let ack = guest.dhcp_ask(&Dhcp { ciaddr: ip, ..Dhcp::new(REQUEST, guest.mac) });
    assert_eq!((ack.kind, ack.yiaddr), (ACK, ip));
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn an_address_of_another_subnet_or_of_another_guest_is_refused_with_nak() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let owner = RawGuest::join(&lab);
    let mut guest = RawGuest::connect(&lab);
    for wrong in [Ipv4Addr::new(10, 0, 0, 7), GATEWAY, owner.ip, Ipv4Addr::new(192, 168, 86, 255)] {
        let nak = guest.dhcp_ask(&Dhcp::new(REQUEST, guest.mac).with(50, &wrong.octets()));
        assert_eq!(nak.kind, NAK, "{wrong}: {nak:?}");
    }
    guest.dhcp();
    drop((owner, guest));
    server.stop();
    lab.finish();
}

#[test]
fn a_declined_address_is_not_offered_again_at_once() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let declined = guest.ip;
    let decline =
        Dhcp::new(DECLINE, guest.mac).with(50, &declined.octets()).with(54, &GATEWAY.octets());
    guest.send(&decline.frame());
    guest.dhcp();
    assert_ne!(guest.ip, declined);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn inform_is_answered_without_an_address() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::connect(&lab);
    let ciaddr = Ipv4Addr::new(192, 168, 86, 77);
    let ack = guest.dhcp_ask(&Dhcp { ciaddr, ..Dhcp::new(INFORM, guest.mac).with(55, &[1, 3]) });
    assert_eq!((ack.kind, ack.yiaddr), (ACK, Ipv4Addr::UNSPECIFIED));
    assert_eq!(ack.option(51), None, "no lease time: {ack:?}");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_released_address_is_free_for_its_owner_again() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let ip = guest.ip;
    let release = Dhcp { ciaddr: ip, ..Dhcp::new(RELEASE, guest.mac).with(54, &GATEWAY.octets()) };
    guest.send(&release.frame());
    guest.dhcp();
    assert_eq!(guest.ip, ip);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn dhcp_messages_of_one_guest_do_not_reach_another() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    one.dhcp();
    // A rogue server's OFFER to everybody.
    let mut message = vec![2, 1, 6, 0];
    message.resize(300, 0);
    let offer = frames::udp(67, 68, &message);
    let all = Ipv4Addr::BROADCAST;
    one.send(&frames::ipv4(BROADCAST, one.mac, one.ip, all, 17, &offer));
    one.shout("done");
    let before = other.hear("done");
    let dhcp = before.iter().filter(|frame| {
        frames::parse_ipv4(frame)
            .and_then(|(.., data)| frames::parse_udp(data))
            .is_some_and(|(from, to, _)| [67, 68].contains(&from) || [67, 68].contains(&to))
    });
    assert_eq!(dhcp.count(), 0);
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn one_guest_cannot_empty_the_pool() {
    let lab = Lab::new();
    let server = Server::start(&lab, "subnet = 192.168.86.0/27\n");
    let mut greedy = RawGuest::connect(&lab);
    let mut given = HashSet::new();
    for number in 0..60_u8 {
        let mac = [2, 0, 0, 1, 0, number];
        greedy.send(&Dhcp { xid: u32::from(number), ..Dhcp::new(DISCOVER, mac) }.frame());
    }
    greedy.shout("enough");
    let mut guest = RawGuest::join(&lab);
    guest.ping_gateway(56);
    greedy.send(&frames::arp_request(greedy.mac, greedy.ip, GATEWAY));
    greedy.receive_until(|frame| {
        if let Some(offer) = Dhcp::parse(frame).filter(|offer| offer.kind == OFFER) {
            given.insert(offer.yiaddr);
        }
        frames::parse_arp(frame).filter(|(operation, ..)| *operation == 2).map(drop)
    });
    assert!(given.len() < 29, "one port was offered {} of 29 addresses", given.len());
    drop((greedy, guest));
    server.stop();
    lab.finish();
}

#[test]
fn leases_survive_a_restart_where_a_file_is_named() {
    let lab = Lab::new();
    let file = lab.file("leases");
    let conf = format!("dhcp_lease_file = {}\n", file.display());
    let first = Server::start(&lab, &conf);
    let guests: Vec<RawGuest> = (0..3).map(|_| RawGuest::join(&lab)).collect();
    let (mac, ip) = (guests[1].mac, guests[1].ip);
    drop(guests);
    first.stop();
    assert!(file.exists());
    let second = Server::start(&lab, &conf);
    let mut stranger = RawGuest::join(&lab);
    assert_ne!(stranger.ip, ip);
    let mut back = RawGuest::connect(&lab);
    back.mac = mac;
    back.dhcp();
    assert_eq!(back.ip, ip);
    stranger.ping_gateway(56);
    drop((stranger, back));
    // Killed, it leaves a readable file as well.
    second.kill_all();
    let third = Server::start(&lab, &conf);
    let mut again = RawGuest::connect(&lab);
    again.mac = mac;
    again.dhcp();
    assert_eq!(again.ip, ip);
    drop(again);
    third.stop();
    std::fs::remove_file(&file).expect("the lease file is there");
    lab.finish();
}

#[test]
fn disabled_dhcp_leaves_the_guests_to_themselves() {
    let lab = Lab::new();
    let server = Server::start(&lab, "dhcp_service = disabled\n");
    let guest = NativeGuest::plug(&lab);
    assert!(guest.try_dhcp().is_err());
    guest.netns.ip("address add 192.168.86.50/24 dev eth0");
    assert!(guest.pings(GATEWAY));
    server.stop();
    lab.finish();
}

#[test]
fn nonsense_in_dhcp_harms_nobody() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::connect(&lab);
    let good = Dhcp::new(DISCOVER, guest.mac).with(12, b"name").frame();
    // Every shorter frame, and every byte changed once.
    guest.send_all((14..good.len()).step_by(7).map(|len| good[..len].to_vec()).collect::<Vec<_>>());
    let changed = (14..good.len()).filter(|at| *at < 60 || *at > 280);
    let frames = changed.map(|at| {
        let mut frame = good.clone();
        frame[at] ^= 0xff;
        frame
    });
    guest.send_all(frames.collect::<Vec<_>>());
    drop(guest);
    let mut next = RawGuest::join(&lab);
    next.ping_gateway(56);
    drop(next);
    server.stop();
    lab.finish();
}
