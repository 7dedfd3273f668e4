//! Guests among themselves: one Ethernet.

use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL, IPX};
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server};

#[test]
fn two_guests_reach_each_other() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (one, other) = (NativeGuest::join(&lab), NativeGuest::join(&lab));
    assert_ne!(one.ip(), other.ip());
    assert!(one.pings(other.ip()));
    assert!(other.pings(one.ip()));
    server.stop();
    lab.finish();
}

#[test]
fn a_broadcast_reaches_every_other_guest() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guests: Vec<RawGuest> = (0..4).map(|_| RawGuest::connect(&lab)).collect();
    let (speaker, listeners) = guests.split_first_mut().expect("four guests");
    speaker.shout("hello");
    for listener in listeners {
        listener.hear("hello");
    }
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn frames_that_are_not_ip_pass_unchanged() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    let packet: Vec<u8> = (0..200).collect();
    let broadcast = frames::ethernet(BROADCAST, one.mac, IPX, &packet);
    one.send(&broadcast);
    let is_ipx = |frame: &[u8]| (frames::ethertype(frame) == IPX).then(|| frame.to_vec());
    assert_eq!(other.receive_until(is_ipx), broadcast);
    let answer = frames::ethernet(one.mac, other.mac, IPX, &packet[..60]);
    other.send(&answer);
    assert_eq!(one.receive_until(is_ipx), answer);
    // 802.3 with a length instead of an EtherType, as Novell and NetBEUI had it.
    let old = frames::ethernet(BROADCAST, one.mac, 100, &[0xe0; 100]);
    one.send(&old);
    assert_eq!(
        other.receive_until(|frame| (frames::ethertype(frame) == 100).then(|| frame.to_vec())),
        old
    );
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn multicast_reaches_the_other_guests() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    let frame = frames::ethernet([1, 0, 0x5e, 0, 0, 251], one.mac, EXPERIMENTAL, b"group");
    one.send(&frame);
    other.hear("group");
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_does_not_hear_itself() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    guest.shout("echo?");
    let (mac, request) = (guest.mac, frames::arp_request(guest.mac, guest.ip, GATEWAY));
    guest.send(&request);
    guest.receive_until(|frame| {
        assert_ne!(frames::source(frame), mac, "its own frame came back");
        frames::parse_arp(frame).filter(|(operation, ..)| *operation == 2).map(drop)
    });
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_that_moves_to_another_session_is_found_there() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut peer = RawGuest::join(&lab);
    let first = RawGuest::join(&lab);
    let (mac, ip) = (first.mac, first.ip);
    drop(first);
    let mut second = RawGuest::connect(&lab);
    second.mac = mac;
    second.dhcp();
    assert_eq!(second.ip, ip, "a MAC address keeps its address");
    // Both directions, by the bridge's own table and not by flooding alone.
    second.shout("back");
    peer.hear("back");
    peer.send(&frames::ethernet(mac, peer.mac, EXPERIMENTAL, b"for you"));
    second.hear("for you");
    drop((peer, second));
    server.stop();
    lab.finish();
}
