//! Locks: what leaves a port, on and off. What does not arrive with locks arrives without.

use super::attacks::{attacks, ordinary};
use super::frames::{self, BROADCAST, Mac};
use super::lan::{GATEWAY_MAC, Guest, Lan, only_with};
use super::*;
use std::net::UdpSocket;
use std::time::Instant;

const SUBNET: [u8; 3] = [192, 168, 86];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);

fn ip(last: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last)
}

/// A bridge with three guests that have their addresses.
fn three(locks: bool, change: impl FnOnce(&mut NetworkPolicy)) -> (Lan, [Guest; 3]) {
    let mut lan = Lan::new(only_with(locks, change));
    let bridge = lan.bridge("wsbr0", GATEWAY, 24);
    let guests = [2, 3, 4].map(|last| lan.join(0, bridge, u32::from(last), ip(last)));
    meet(guests.each_ref());
    (lan, guests)
}

/// Shows a bridge that learns where each guest is, and forgets what came of it.
fn meet<const N: usize>(guests: [&Guest; N]) {
    for guest in guests {
        guest.send(&guest.words(BROADCAST, "here I am"));
    }
    guests.iter().for_each(|guest| drop(guest.received()));
}

/// Nothing harmful arrives, all else does.
fn check([from, to, other]: [&Guest; 3], when: &str) {
    for (name, sent) in attacks(from, to, other) {
        sent.iter().for_each(|frame| from.send(frame));
        assert!(!to.got(&sent[0]) && !other.got(&sent[0]), "{name}, {when}");
    }
    for (name, sent) in ordinary(from, to) {
        sent.iter().for_each(|frame| from.send(frame));
        assert_eq!(to.received(), sent, "{name}, {when}");
    }
}

#[test]
fn attacks_arrive_without_locks_only() {
    let mut wrong = Vec::new();
    for locks in [true, false] {
        let (_lan, [from, to, other]) = three(locks, |_| ());
        for (name, sent) in attacks(&from, &to, &other) {
            meet([&from, &to, &other]);
            sent.iter().for_each(|frame| from.send(frame));
            let came = [&to, &other].iter().any(|guest| guest.got(&sent[0]));
            if came == locks {
                wrong.push(format!("{name}: locks {locks}, came {came}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_guests_ordinarily_send_arrives_with_locks() {
    for locks in [true, false] {
        let (_lan, [from, to, _]) = three(locks, |network| network.max_multicast = 500);
        for (name, sent) in ordinary(&from, &to) {
            sent.iter().for_each(|frame| from.send(frame));
            assert_eq!(to.received(), sent, "{name}: locks {locks}");
        }
    }
}

#[test]
fn attacks_do_not_arrive_where_frames_are_filtered_as_packets() {
    let (lan, [from, to, other]) = three(true, |_| ());
    lan.filter_frames_as_packets();
    for (name, sent) in attacks(&from, &to, &other) {
        sent.iter().for_each(|frame| from.send(frame));
        assert!(to.received().is_empty() && other.received().is_empty(), "{name}");
    }
    // What is in fragments comes in one piece.
    for (name, sent) in ordinary(&from, &to) {
        sent.iter().for_each(|frame| from.send(frame));
        assert!(!to.received().is_empty(), "{name}");
    }
}

#[test]
fn a_port_without_addresses_may_send_nothing() {
    for locks in [true, false] {
        let (mut lan, [to, other, _]) = three(locks, |_| ());
        let bridge = lan.index("wsbr0");
        let from = lan.open(0, bridge, 5, ip(5));
        let both = ordinary(&from, &to).into_iter().chain(attacks(&from, &to, &other));
        for (name, sent) in both {
            sent.iter().for_each(|frame| from.send(frame));
            let came = !(to.received().is_empty() && other.received().is_empty());
            assert!(came != locks, "{name}: locks {locks}, came {came}");
            meet([&to, &other]);
        }
        from.received();
        other.send(&other.words(BROADCAST, "to all"));
        assert_eq!(from.received().len(), 1, "it hears what is for all");
    }
}

#[test]
fn a_port_is_not_stolen() {
    for locks in [true, false] {
        let (_lan, [thief, owner, sender]) = three(locks, |_| ());
        thief.send(&frames::ethernet(BROADCAST, owner.mac, frames::EXPERIMENTAL, b"mine"));
        owner.received();
        let letter = sender.words(owner.mac, "for you alone");
        sender.send(&letter);
        assert_eq!((owner.got(&letter), thief.got(&letter)), (locks, !locks));
    }
}

#[test]
fn frames_to_nobody_are_not_overheard() {
    for locks in [true, false] {
        let (_lan, [sender, listener, _]) = three(locks, |_| ());
        let letter = sender.words([2, 0xaa, 0, 0, 0, 9], "for nobody here");
        sender.send(&letter);
        assert_eq!(listener.got(&letter), !locks);
    }
}

#[test]
fn the_bridge_remembers_no_more_addresses_than_are_bound() {
    for locks in [true, false] {
        let (lan, [flooder, ..]) = three(locks, |_| ());
        let before = lan.fdb("wsbr0");
        for number in 0..2000_u32 {
            let [_, _, a, b] = number.to_be_bytes();
            let mac = [2, 0xcc, 0, 0, a, b];
            flooder.send(&frames::ethernet(BROADCAST, mac, frames::EXPERIMENTAL, b"new"));
        }
        assert_eq!(lan.fdb("wsbr0") - before, if locks { 0 } else { 2000 });
    }
}

#[test]
fn the_gateway_is_not_fooled_about_who_is_who() {
    for locks in [true, false] {
        let (lan, [liar, owner, _]) = three(locks, |_| ());
        owner.send(&frames::arp_request(owner.mac, owner.ip, GATEWAY));
        assert_eq!(lan.neighbour(owner.ip), Some(owner.mac));
        lan.host.sh("ip neigh flush dev wsbr0");
        // The last three count as untagged.
        let claim = frames::arp_request(liar.mac, owner.ip, GATEWAY);
        let tags = [0x8100_0000_u32, 0x8100_e000, 0x88a8_0000].map(u32::to_be_bytes);
        let tagged = |tag: &[u8]| [&claim[..12], tag, &claim[12..]].concat();
        let twice = tagged(&[tags[2], tags[0]].concat());
        for claim in tags.map(|tag| tagged(&tag)).into_iter().chain([twice, claim.clone()]) {
            lan.host.sh("ip neigh flush dev wsbr0");
            liar.send(&claim);
            assert_eq!(lan.neighbour(owner.ip), (!locks).then_some(liar.mac), "{claim:x?}");
        }
    }
}

/// A socket on the host that hears what guests send to this port.
fn listen(lan: &Lan, port: u16) -> UdpSocket {
    let socket = lan.host.run(move || UdpSocket::bind((GATEWAY, port)).unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

#[test]
fn the_gateway_hears_guests_by_their_own_addresses_only() {
    for locks in [true, false] {
        let (lan, [from, _, other]) = three(locks, |_| ());
        let socket = listen(&lan, 7000);
        let heard = || {
            let mut buffer = [0; 64];
            socket.recv_from(&mut buffer).ok().map(|(_, from)| from.ip())
        };
        let say = |mac: Mac, source: Ipv4Addr| {
            let hello = frames::udp(4000, 7000, b"hello");
            from.send(&frames::ipv4(GATEWAY_MAC, mac, source, GATEWAY, 17, &hello));
        };
        let forged = [
            (from.mac, other.ip),
            (other.mac, from.ip),
            (other.mac, other.ip),
            (GATEWAY_MAC, from.ip),
        ];
        for (mac, source) in forged {
            say(mac, source);
            assert_eq!(heard().is_some(), !locks, "{mac:x?} {source}");
        }
        say(from.mac, from.ip);
        assert_eq!(heard(), Some(from.ip.into()));
    }
}

#[test]
fn nobody_beyond_the_gateway_hears_a_forged_source() {
    for locks in [true, false] {
        let (lan, [from, _, other]) = three(locks, |_| ());
        let beyond = Netns::new();
        lan.host.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}
             ip address add 93.184.216.1/24 dev up0; ip link set up0 up",
            beyond.tid
        ));
        beyond.sh("ip address add 93.184.216.34/24 dev eth0; ip link set eth0 up");
        let place = Ipv4Addr::new(93, 184, 216, 34);
        let socket = beyond.run(move || UdpSocket::bind((place, 7000)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for (source, text) in [(other.ip, "forged"), (from.ip, "own")] {
            let datagram = frames::udp(4000, 7000, text.as_bytes());
            from.send(&frames::ipv4(GATEWAY_MAC, from.mac, source, place, 17, &datagram));
        }
        let mut buffer = [0; 64];
        let mut heard = || {
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        if !locks {
            assert_eq!(heard(), "forged");
        }
        assert_eq!(heard(), "own");
    }
}

#[test]
fn a_locked_guest_and_its_gateway_reach_each_other() {
    let (lan, [guest, ..]) = three(true, |_| ());
    guest.send(&frames::arp_request(guest.mac, guest.ip, GATEWAY));
    let answer = frames::arp_reply(GATEWAY_MAC, GATEWAY, guest.mac, guest.ip);
    assert!(guest.got(&answer));
    let ping = frames::echo_request(7, b"hello");
    guest.send(&frames::ipv4(GATEWAY_MAC, guest.mac, guest.ip, GATEWAY, 1, &ping));
    let answers = guest.received();
    assert!(answers.iter().any(|frame| frames::parse_ipv4(frame).is_some_and(|ip| ip.2 == 1)));
    lan.host.sh("ip neigh flush dev wsbr0");
    lan.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (ip(2), 9)).unwrap());
    let asked = guest.received();
    assert!(asked.iter().any(|frame| frames::parse_arp(frame).is_some_and(|arp| arp.0 == 1)));
}

#[test]
fn frames_for_bridges_alone_reach_neither_guests_nor_the_host() {
    for locks in [true, false] {
        let (lan, [from, to, _]) = three(locks, |_| ());
        // The kernel gives the host such a frame from the port, past the bridge, where the guard is.
        let dropped = |lan: &Lan| {
            let rules = lan.host.sh("nft list chain inet wsnic_guard input");
            let rule = rules.lines().find(|line| line.contains("wstap*")).unwrap().to_owned();
            rule.split_whitespace().nth(4).unwrap().parse::<u32>().unwrap()
        };
        for last in 0..16 {
            let to_bridges = [0x01, 0x80, 0xc2, 0, 0, last];
            let before = dropped(&lan);
            from.send(&from.udp(to_bridges, GATEWAY, (4000, 7000), b"hello"));
            // BPDUs are forwarded by a bridge that takes no part, pause frames end in every bridge.
            let for_host = !locks && last > 1;
            assert_eq!(dropped(&lan) - before, u32::from(for_host), "{last}");
            assert_eq!(to.received().len(), usize::from(!locks && last == 0), "{last}");
        }
    }
}

#[test]
fn frames_to_many_are_limited_for_each_port() {
    for limit in [50, 0] {
        let (_lan, [flooder, listener, other]) = three(true, |net| net.max_multicast = limit);
        let start = Instant::now();
        let mut came = 0;
        for _ in 0..40 {
            for to in [BROADCAST, [1, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0, 0, 0, 1]] {
                flooder.send(&flooder.words(to, "to all"));
            }
            came += listener.received().len() as u64;
        }
        let most = 50 + 50 * start.elapsed().as_millis() as u64 / 1000 + 1;
        match limit {
            0 => assert_eq!(came, 120),
            _ => assert!((40..=most).contains(&came), "{came} of at most {most}"),
        }
        flooder.send(&flooder.words(listener.mac, "to one"));
        assert_eq!(listener.received().len(), 1, "frames to one are not limited");
        other.send(&other.words(BROADCAST, "to all"));
        assert_eq!(listener.received().len(), 1, "others are not limited for it");
    }
}

#[test]
fn tags_pass_where_they_are_allowed_unless_they_are_for_no_vlan() {
    let (_lan, [from, to, other]) = three(true, |network| network.allow_vlan = true);
    for (name, sent) in attacks(&from, &to, &other) {
        sent.iter().for_each(|frame| from.send(frame));
        let is_allowed = name.contains("frame of a");
        assert_eq!(to.got(&sent[0]), is_allowed, "{name}");
    }
    let mut forged = from.words(to.mac, "tagged");
    forged[6..12].copy_from_slice(&other.mac);
    forged.splice(12..12, [0x81, 0, 0, 5]);
    from.send(&forged);
    assert!(!to.got(&forged), "the MAC address has to be its own all the same");
}

#[test]
fn addresses_come_and_go() {
    let (mut lan, [guest, to, _]) = three(true, |_| ());
    let second: Mac = [2, 0xdd, 0, 0, 0, 1];
    let sends = |mac: Mac, source: Ipv4Addr| {
        let frame = frames::ipv4(to.mac, mac, source, to.ip, 6, &[1; 20]);
        guest.send(&frame);
        let arp = frames::arp_reply(mac, source, to.mac, to.ip);
        guest.send(&arp);
        let came = to.received();
        assert_eq!(came.contains(&frame), came.contains(&arp));
        !came.is_empty()
    };
    assert!(sends(guest.mac, guest.ip) && !sends(guest.mac, ip(9)) && !sends(second, ip(9)));
    let pairs = [(guest.mac, Some(guest.ip)), (guest.mac, Some(ip(9))), (second, Some(ip(10)))];
    lan.bind_pairs(0, &guest, &pairs);
    assert!(sends(guest.mac, guest.ip) && sends(guest.mac, ip(9)) && sends(second, ip(10)));
    assert!(!sends(guest.mac, ip(11)) && !sends(to.mac, ip(10)));
    lan.bind_pairs(0, &guest, &[(second, Some(ip(10)))]);
    assert!(sends(second, ip(10)) && !sends(guest.mac, guest.ip));
    let words = guest.words(to.mac, "no protocol");
    guest.send(&words);
    assert!(to.got(&words), "the bridge has it still");
    let (port, mac) = (guest.index, MacAddr(guest.mac));
    lan.links(async move |links| {
        links.remove_mac(port, mac).await.unwrap();
        links.remove_mac(port, mac).await.expect("twice is no error");
    });
    guest.send(&words);
    assert!(!to.got(&words));
    lan.firewall.unbind(&[guest.index]).unwrap();
    lan.firewall.unbind(&[guest.index]).expect("twice is no error");
    assert!(!sends(second, ip(10)));
}

#[test]
fn a_mac_address_moves_to_the_port_that_it_is_bound_to_last() {
    let (mut lan, [first, second, sender]) = three(true, |_| ());
    lan.bind_pairs(0, &second, &[(first.mac, None)]);
    let letter = sender.words(first.mac, "for you alone");
    sender.send(&letter);
    assert!(!first.got(&letter) && second.got(&letter));
    let words = first.words(sender.mac, "I am still here");
    first.send(&words);
    assert!(!sender.got(&words));
    let (port, mac) = (first.index, MacAddr(first.mac));
    lan.links(async move |links| links.remove_mac(port, mac).await.unwrap());
    sender.send(&letter);
    assert!(second.got(&letter), "who had it before takes nothing along");
}

#[test]
fn rules_lock_ports_where_the_bridge_cannot() {
    let (mut lan, guests) = three(true, |_| ());
    let [from, to, other] = &guests;
    // As on a kernel that passes over what it does not know.
    for guest in &guests {
        lan.host.sh(&format!("bridge link set dev {} locked off", guest.name));
    }
    let forged = frames::ethernet(to.mac, other.mac, frames::EXPERIMENTAL, b"not mine");
    from.send(&forged);
    assert!(to.got(&forged));
    let notes = lan.firewall.do_without_bridge_locks().unwrap();
    assert!(matches!(notes[..], [Note::NoBridgeLocks]), "{notes:?}");
    assert!(lan.firewall.do_without_bridge_locks().unwrap().is_empty(), "said once");
    check([from, to, other], "by rules");
}

#[test]
fn locks_outlive_the_helper_and_the_next_one_takes_them_over() {
    let (lan, guests) = three(true, |_| ());
    let [from, to, other] = &guests;
    let check = |when| check([from, to, other], when);
    let Lan { host, firewall, .. } = lan;
    die(&host, firewall);
    check("without a helper");
    let (mut firewall, notes) = host.run(|| Firewall::install(&only_with(true, |_| ())).unwrap());
    assert!(matches!(notes[..], [Note::LeftoversReplaced(2)]), "{notes:?}");
    check("with the next");
    let wanted = [(MacAddr(from.mac), None), (MacAddr(from.mac), Some(from.ip))];
    assert_eq!(firewall.bound(from.index).unwrap().pairs, wanted);
    firewall.retain(&[from.index, to.index]).unwrap();
    assert!(firewall.bound(other.index).is_none());
    check("without who is gone");
    let listed = host.sh("nft list set bridge wsnic_ports bound");
    assert!(listed.contains("wstap3") && !listed.contains("wstap4"), "{listed}");
    // Locks may be turned off and on again.
    firewall.update(&only_with(false, |_| ())).unwrap();
    assert!(!host.sh("nft list ruleset").contains("wsnic_ports"));
    firewall.update(&only_with(true, |_| ())).unwrap();
    check("turned on again");
}

#[test]
fn locks_that_somebody_removed_come_back_with_all_addresses() {
    let mut lan = Lan::on_kernel(only_with(true, |_| ()), 2);
    let bridge = lan.bridge("wsbr0", GATEWAY, 24);
    let guests = [2, 3, 4].map(|last| lan.join(0, bridge, u32::from(last), ip(last)));
    let [from, to, other] = &guests;
    let offer = from.udp(BROADCAST, Ipv4Addr::BROADCAST, (67, 68), b"offer");
    assert!(lan.firewall.verify().unwrap().is_empty());
    assert!(lan.firewall.verify().unwrap().is_empty());
    for removal in ["flush set bridge wsnic_ports bound", "delete table bridge wsnic_ports"] {
        lan.host.sh(&format!("nft {removal}"));
        from.send(&offer);
        assert_eq!(to.got(&offer), removal.contains("table"));
        let notes = lan.firewall.verify().unwrap();
        assert_eq!(notes.len(), usize::from(removal.contains("table")), "{notes:?}");
        check([from, to, other], removal);
        // Whoever is bound next brings all back too.
        lan.host.sh(&format!("nft {removal}"));
        lan.bind_pairs(0, from, &[]);
        lan.bind(0, from);
        check([from, to, other], removal);
    }
}

#[test]
fn a_network_without_locks_beside_a_locked_one_has_none() {
    let open = only_with(false, |_| ()).networks.remove(0);
    let name = InterfaceName::new("wsbr1").unwrap();
    let open = NetworkPolicy { bridge: Bridge::One(name), ..open };
    let mut policy = only_with(true, |_| ());
    policy.networks.push(open);
    let mut lan = Lan::new(policy);
    for (network, name) in [(0, "wsbr0"), (1, "wsbr1")] {
        let bridge = lan.bridge(name, GATEWAY, 24);
        let number = |last: u8| u32::from(network) * 100_000 + u32::from(last);
        let [from, to, other] =
            [2, 3, 4].map(|last| lan.join(network, bridge, number(last), ip(last)));
        for (name, sent) in attacks(&from, &to, &other) {
            meet([&from, &to, &other]);
            sent.iter().for_each(|frame| from.send(frame));
            let came = [&to, &other].iter().any(|guest| guest.got(&sent[0]));
            assert_eq!(came, network == 1, "{name}");
        }
    }
}
