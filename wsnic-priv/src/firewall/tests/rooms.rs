//! Rooms: bridges of one network that share its rules, and no packet.

use super::frames::{self, BROADCAST};
use super::lan::{GATEWAY_MAC, Guest, Lan};
use super::*;
use std::net::UdpSocket;

/// Rooms of 62 guests in 10.3.0.0/16, with the Internet by up0.
fn rooms(locks: bool, isolation: bool) -> Policy {
    let bridge = Bridge::Rooms { prefix: "wsbr0r".to_owned(), prefix_len: 26 };
    let plan = Plan::new("10.3.0.0/16".parse().unwrap()).unwrap();
    let access = GuestAccess::All;
    only(NetworkPolicy { bridge, plan, locks, isolation, ..network(access) })
}

fn ip(room: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 3, 0, room * 64 + last)
}

/// Two rooms with two guests each, and who is beyond at 93.184.216.34 and 8.8.8.8.
fn two_rooms(policy: Policy) -> (Lan, [[Guest; 2]; 2], Netns) {
    let mut lan = Lan::new(policy);
    let beyond = Netns::new();
    lan.host.sh(&format!(
        "ip link add up0 type veth peer name eth0 netns {}
         ip address add 93.184.216.1/24 dev up0; ip link set up0 up
         ip route add default via 93.184.216.34",
        beyond.tid
    ));
    beyond.sh("ip address add 93.184.216.34/24 dev eth0; ip address add 8.8.8.8/32 dev lo
         ip link set eth0 up");
    let guests = [("wsbr0r0", 0), ("wsbr0r1", 1)].map(|(name, room)| {
        let bridge = lan.bridge(name, ip(room, 1), 26);
        let subnet = Cidr::containing(ip(room, 0), 26);
        lan.firewall.add_room(bridge, subnet).unwrap();
        [2, 3].map(|last| {
            let number = u32::from(room) * 10 + u32::from(last);
            lan.join(0, bridge, number, ip(room, last))
        })
    });
    for guest in guests.as_flattened() {
        let room = (guest.ip.octets()[3]) / 64;
        guest.send(&frames::arp_request(guest.mac, guest.ip, ip(room, 1)));
        guest.send(&guest.words(BROADCAST, "here I am"));
    }
    guests.as_flattened().iter().for_each(|guest| drop(guest.received()));
    (lan, guests, beyond)
}

/// The IPv4 packets that a guest has got: source and payload.
fn packets(guest: &Guest) -> Vec<(Ipv4Addr, Vec<u8>)> {
    let frames = guest.received();
    let packets = frames.iter().filter_map(|frame| frames::parse_ipv4(frame));
    packets.map(|(source, _, _, payload)| (source, payload.to_vec())).collect()
}

#[test]
fn nothing_passes_between_rooms_whatever_it_says_of_itself() {
    for (locks, filtered) in [(true, false), (true, true), (false, false), (false, true)] {
        let (lan, [[from, friend], [other, another]], _beyond) = two_rooms(rooms(locks, false));
        if filtered {
            lan.filter_frames_as_packets();
        }
        let sources = [from.ip, friend.ip, other.ip, another.ip, ip(1, 1), ip(0, 1), ip(0, 0)];
        for source in sources {
            for dest in [other.ip, ip(1, 63), ip(1, 0), Ipv4Addr::new(224, 0, 0, 251)] {
                for to in [GATEWAY_MAC, other.mac, BROADCAST] {
                    let datagram = frames::udp(4000, 4001, b"hello");
                    from.send(&frames::ipv4(to, from.mac, source, dest, 17, &datagram));
                }
            }
        }
        for to in [other.mac, BROADCAST] {
            from.send(&from.words(to, "hello"));
            from.send(&frames::arp_request(from.mac, from.ip, other.ip));
        }
        assert!(other.received().is_empty() && another.received().is_empty());
        friend.received();
        // Within the room all is well, also by way of the gateway.
        from.send(&from.udp(friend.mac, friend.ip, (4000, 4001), b"hello"));
        from.send(&from.udp(GATEWAY_MAC, friend.ip, (4000, 4001), b"hello"));
        let hello = (from.ip, frames::udp(4000, 4001, b"hello"));
        assert_eq!(packets(&friend), [hello.clone(), hello], "locks {locks}, filtered {filtered}");
    }
}

#[test]
fn without_the_guard_rooms_reach_each_other() {
    let (mut lan, [[from, _], [other, _]], _beyond) = two_rooms(rooms(true, false));
    assert!(lan.firewall.teardown().is_empty());
    from.send(&from.udp(GATEWAY_MAC, other.ip, (4000, 4001), b"hello"));
    assert_eq!(packets(&other).len(), 1);
}

#[test]
fn isolation_holds_in_a_room_too() {
    let (_lan, [[from, friend], _], _beyond) = two_rooms(rooms(true, true));
    from.send(&from.udp(friend.mac, friend.ip, (4000, 4001), b"hello"));
    from.send(&from.udp(GATEWAY_MAC, friend.ip, (4000, 4001), b"hello"));
    assert!(friend.received().is_empty());
    let ping = frames::echo_request(7, b"hello");
    from.send(&frames::ipv4(GATEWAY_MAC, from.mac, from.ip, ip(0, 1), 1, &ping));
    assert_eq!(packets(&from).len(), 1);
}

#[test]
fn answers_come_back_to_the_room_that_asked() {
    let (_lan, [[first, _], [second, _]], beyond) = two_rooms(rooms(true, false));
    let place = Ipv4Addr::new(93, 184, 216, 34);
    let socket = beyond.run(move || UdpSocket::bind((place, 7000)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for (guest, text) in [(&first, "first"), (&second, "second")] {
        guest.send(&guest.udp(GATEWAY_MAC, place, (4000, 7000), text.as_bytes()));
    }
    for _ in 0..2 {
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip().to_string(), "93.184.216.1");
        socket.send_to(&buffer[..length], from).unwrap();
    }
    for (guest, text) in [(&first, "first"), (&second, "second")] {
        let answer = frames::udp(7000, 4000, text.as_bytes());
        assert_eq!(wait_for_packets(guest), [(place, answer)].map(without_sum));
    }
}

#[test]
fn each_room_has_its_gateway_for_names_and_pings() {
    let (lan, guests, beyond) = two_rooms(rooms(true, false));
    let place = Ipv4Addr::new(8, 8, 8, 8);
    let resolver = beyond.run(move || UdpSocket::bind((place, 53)).unwrap());
    resolver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for (guest, room) in guests.as_flattened().iter().zip([0, 0, 1, 1]) {
        guest.send(&guest.udp(GATEWAY_MAC, ip(room, 1), (4000, 53), b"who"));
        let mut buffer = [0; 64];
        let (_, from) = resolver.recv_from(&mut buffer).unwrap();
        resolver.send_to(b"you", from).unwrap();
        let answer = (ip(room, 1), frames::udp(53, 4000, b"you"));
        assert_eq!(wait_for_packets(guest), [without_sum(answer)]);
    }
    // With less access, pings go to the own gateway alone.
    let mut firewall = lan.firewall;
    let mut less = rooms(true, false);
    less.networks[0].access = GuestAccess::Internet;
    firewall.update(&less).unwrap();
    let ping = frames::echo_request(7, b"hello");
    for (to, answered) in [(ip(0, 1), true), (ip(1, 1), false)] {
        let guest = &guests[0][0];
        guest.send(&frames::ipv4(GATEWAY_MAC, guest.mac, guest.ip, to, 1, &ping));
        let answers = packets(guest);
        let is_answer = |(source, packet): &(Ipv4Addr, Vec<u8>)| *source == to && packet[0] == 0;
        assert_eq!(answers.iter().any(is_answer), answered, "{to}");
    }
}

#[test]
fn a_room_that_nobody_announced_or_that_is_gone_reaches_nothing() {
    let (mut lan, [[first, friend], [second, _]], _beyond) = two_rooms(rooms(true, false));
    let ping = |guest: &Guest, to| {
        let ping = frames::echo_request(7, b"hello");
        guest.send(&frames::ipv4(GATEWAY_MAC, guest.mac, guest.ip, to, 1, &ping));
        !packets(guest).is_empty()
    };
    assert!(ping(&first, ip(0, 1)) && ping(&second, ip(1, 1)));
    let bridge = lan.index("wsbr0r0");
    lan.firewall.remove_rooms(&[bridge]).unwrap();
    assert!(!ping(&first, ip(0, 1)) && ping(&second, ip(1, 1)));
    first.send(&first.udp(GATEWAY_MAC, friend.ip, (4000, 4001), b"hello"));
    assert!(packets(&friend).is_empty());
    assert!(!lan.host.sh("nft list ruleset").contains("10.3.0.0 "));
    lan.firewall.remove_rooms(&[bridge]).expect("twice is no error");
}

#[test]
fn rooms_and_networks_do_not_reach_each_other_even_with_all_access() {
    let mut policy = rooms(true, false);
    policy.networks.push(network(GuestAccess::All));
    let mut second = network(GuestAccess::All);
    second.bridge = Bridge::One(InterfaceName::new("wsbr2").unwrap());
    second.plan = Plan::new("10.9.0.0/24".parse().unwrap()).unwrap();
    policy.networks.push(second);
    // The names of the first network's rooms begin like this one's bridge.
    let (mut lan, [[in_room, _], _], _beyond) = two_rooms(policy);
    let gateways = [Ipv4Addr::new(192, 168, 86, 1), Ipv4Addr::new(10, 9, 0, 1)];
    let one = lan.bridge("wsbr0", gateways[0], 24);
    let two = lan.bridge("wsbr2", gateways[1], 24);
    let in_one = lan.join(1, one, 100_000, Ipv4Addr::new(192, 168, 86, 2));
    let in_two = lan.join(2, two, 200_000, Ipv4Addr::new(10, 9, 0, 2));
    for (guest, gateway) in [(&in_one, gateways[0]), (&in_two, gateways[1])] {
        guest.send(&frames::arp_request(guest.mac, guest.ip, gateway));
        assert_eq!(guest.received().len(), 1, "its gateway answers");
    }
    let guests = [&in_room, &in_one, &in_two];
    for from in guests {
        for to in guests.into_iter().filter(|to| to.mac != from.mac) {
            for source in guests.map(|guest| guest.ip) {
                let datagram = frames::udp(4000, 4001, b"hello");
                from.send(&frames::ipv4(GATEWAY_MAC, from.mac, source, to.ip, 17, &datagram));
            }
            assert!(to.received().is_empty(), "{} to {}", from.name, to.name);
        }
    }
}

/// At least one packet, as soon as it is there.
fn wait_for_packets(guest: &Guest) -> Vec<(Ipv4Addr, Vec<u8>)> {
    for _ in 0..5000 {
        let packets = packets(guest);
        if !packets.is_empty() {
            return packets.into_iter().map(without_sum).collect();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{} gets nothing", guest.name);
}

/// A UDP packet with no checksum.
fn without_sum((source, mut datagram): (Ipv4Addr, Vec<u8>)) -> (Ipv4Addr, Vec<u8>) {
    datagram[6..8].fill(0);
    (source, datagram)
}
