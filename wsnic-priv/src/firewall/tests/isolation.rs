//! Isolated guests reach the gateway and nobody else; on one bridge, behind leaf bridges, by routing.

use super::frames::{self, BROADCAST, Mac};
use super::lan::{GATEWAY_MAC, Guest, Lan, only_with};
use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 86, last)
}

/// Two guests on the network's bridge, two on a leaf bridge, one on another.
fn five(locks: bool, isolation: bool) -> (Lan, Vec<Guest>) {
    let mut lan = Lan::new(only_with(locks, |network| network.isolation = isolation));
    let root = lan.bridge("wsbr0", GATEWAY, 24);
    let leaves = [1, 2].map(|leaf| lan.leaf(leaf, root, isolation));
    let places = [(2, root), (3, root), (1002, leaves[0]), (1003, leaves[0]), (2002, leaves[1])];
    let guests = places.into_iter().zip(2..);
    let guests: Vec<Guest> =
        guests.map(|((number, bridge), last)| lan.join(0, bridge, number, ip(last))).collect();
    // Also for what has to be learned on the way.
    for guest in &guests {
        guest.send(&frames::arp_request(guest.mac, guest.ip, GATEWAY));
    }
    guests.iter().for_each(|guest| drop(guest.received()));
    (lan, guests)
}

#[test]
fn isolated_guests_exchange_no_frame() {
    for (locks, isolation) in [(false, true), (true, true), (true, false), (false, false)] {
        let (_lan, guests) = five(locks, isolation);
        for (from, to) in pairs(&guests) {
            let group: Mac = [0x33, 0x33, 0, 0, 0, 1];
            for dest in [to.mac, BROADCAST, group, [2, 0xaa, 0, 0, 0, 1]] {
                let words = from.words(dest, "do you hear me");
                from.send(&words);
                // A locked port hears nothing that is for nobody.
                let is_for_it = dest[0] != 2 || dest == to.mac || !locks;
                let wanted = !isolation && is_for_it;
                let came = to.gets(&words, wanted);
                assert_eq!(came, wanted, "{} to {}, {dest:x?}", from.name, to.name);
            }
        }
    }
}

#[test]
fn isolated_guests_reach_each_other_by_no_detour_over_the_gateway() {
    for filtered in [false, true] {
        for isolation in [true, false] {
            let (lan, guests) = five(true, isolation);
            if filtered {
                lan.filter_frames_as_packets();
            }
            for (from, to) in pairs(&guests) {
                // The host has to know where it is.
                to.send(&frames::arp_request(to.mac, to.ip, GATEWAY));
                to.received();
                let detour = from.udp(GATEWAY_MAC, to.ip, (4000, 4001), b"round about");
                from.send(&detour);
                let came = to.gets(&routed(detour, to.mac), !isolation);
                assert_eq!(came, !isolation, "{} to {}", from.name, to.name);
            }
        }
    }
}

#[test]
fn isolated_guests_and_the_gateway_reach_each_other() {
    for filtered in [false, true] {
        let (lan, guests) = five(true, true);
        if filtered {
            lan.filter_frames_as_packets();
        }
        for guest in &guests {
            guest.send(&frames::arp_request(guest.mac, guest.ip, GATEWAY));
            let answer = frames::arp_reply(GATEWAY_MAC, GATEWAY, guest.mac, guest.ip);
            assert!(guest.gets(&answer, true), "{}", guest.name);
            let others = guests.iter().filter(|other| other.name != guest.name);
            others.for_each(|other| assert!(other.received().is_empty(), "{}", other.name));
        }
    }
}

#[test]
fn a_port_behind_a_leaf_bridge_is_not_stolen() {
    let (_lan, guests) = five(true, false);
    for (thief, owner) in pairs(&guests) {
        thief.send(&frames::ethernet(BROADCAST, owner.mac, frames::EXPERIMENTAL, b"mine"));
        for sender in guests.iter().filter(|guest| ![thief.mac, owner.mac].contains(&guest.mac)) {
            let letter = sender.words(owner.mac, "for you alone");
            sender.send(&letter);
            assert!(owner.gets(&letter, true), "{} to {}", sender.name, owner.name);
        }
        thief.received();
    }
}

/// As the gateway sends it on to a guest.
pub(super) fn routed(mut frame: Vec<u8>, to: Mac) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&GATEWAY_MAC);
    frame[22] -= 1;
    frame[24..26].fill(0);
    let sum = frames::internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn pairs(guests: &[Guest]) -> impl Iterator<Item = (&Guest, &Guest)> {
    let all = guests.iter().flat_map(|from| guests.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.mac != to.mac)
}
