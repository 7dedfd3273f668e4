//! Guests that would take what is another's, by the WebSocket. The same by a front-end that was taken
//! over, which holds the TAPs, is tried in wsnic-priv (`firewall/tests`).

use std::net::Ipv4Addr;
use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames::{self, BROADCAST, Dhcp, EXPERIMENTAL, IPV4, IPV6, Mac};
use wsnic_tests::{Door, Fragment, Lab, RawGuest, Server, wait_until};

/// A guest who means ill, one who is to be harmed, and one who looks on.
struct Scene {
    lab: Lab,
    server: Server,
    rogue: RawGuest,
    victim: RawGuest,
    witness: RawGuest,
}

impl Scene {
    fn new(conf: &str) -> Scene {
        let lab = Lab::new();
        let server = Server::start(&lab, conf);
        let join = || {
            let mut guest = RawGuest::join(&lab);
            guest.ping_gateway(10);
            guest
        };
        let (rogue, victim, witness) = (join(), join(), join());
        Scene { rogue, victim, witness, server, lab }
    }

    fn end(self) {
        drop((self.rogue, self.victim, self.witness));
        self.server.stop();
        self.lab.finish();
    }

    /// Whether this frame of the rogue's gets to the witness.
    fn arrives(&mut self, frame: &[u8]) -> bool {
        self.rogue.send(frame);
        self.rogue.shout("that was it");
        self.witness.hear("that was it").iter().any(|heard| heard[..] == *frame)
    }
}

/// Each attack, by its name.
fn attacks(scene: &Scene) -> Vec<(&'static str, Vec<u8>)> {
    let Scene { rogue, victim, witness, .. } = scene;
    let to = witness.mac;
    let datagram = |from_port, to_port| frames::udp(from_port, to_port, b"rogue");
    let advertisement = {
        // An ICMPv6 Router Advertisement (RFC 4861 §4.2) from a link-local address to all nodes.
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
        packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        frames::ethernet([0x33, 0x33, 0, 0, 0, 1], rogue.mac, IPV6, &packet)
    };
    vec![
        ("a forged MAC", frames::ethernet(to, victim.mac, EXPERIMENTAL, &[7; 60])),
        ("ARP for the gateway", frames::arp_reply(rogue.mac, GATEWAY, to, witness.ip)),
        ("ARP for a guest", frames::arp_reply(rogue.mac, victim.ip, to, witness.ip)),
        ("an announcement", frames::arp_request(rogue.mac, victim.ip, victim.ip)),
        ("a guest's IPv4", frames::ipv4(to, rogue.mac, victim.ip, witness.ip, 17, &datagram(9, 9))),
        ("the gateway's", frames::ipv4(to, rogue.mac, GATEWAY, witness.ip, 17, &datagram(53, 9))),
        (
            "a foreign IPv4",
            frames::ipv4(
                to,
                rogue.mac,
                Ipv4Addr::new(9, 9, 9, 9),
                witness.ip,
                17,
                &datagram(53, 9),
            ),
        ),
        ("a Router Advertisement", advertisement),
    ]
}

#[test]
fn what_is_forged_does_not_reach_another_guest() {
    let mut scene = Scene::new("");
    for (attack, frame) in attacks(&scene) {
        assert!(!scene.arrives(&frame), "{attack}");
    }
    let honest = frames::ethernet(scene.witness.mac, scene.rogue.mac, EXPERIMENTAL, &[8; 60]);
    assert!(scene.arrives(&honest), "its own address may be used");
    // What was tried has cost nobody anything.
    scene.victim.ping_gateway(20);
    scene.rogue.ping_gateway(20);
    scene.end();
}

#[test]
fn without_locks_the_same_frames_arrive() {
    let mut scene = Scene::new("locks = no\n");
    for (attack, frame) in attacks(&scene) {
        assert!(scene.arrives(&frame), "{attack}");
    }
    scene.end();
}

#[test]
fn two_who_help_each_other_get_no_further_than_one() {
    let mut scene = Scene::new("");
    let mut accomplice = RawGuest::join(&scene.lab);
    accomplice.ping_gateway(10);
    let forged: Vec<Vec<u8>> = attacks(&scene).into_iter().map(|(_, frame)| frame).collect();
    // Each as the other, whose own these addresses are; then both from the victim's.
    accomplice.send_all(forged.clone());
    let as_other =
        frames::ethernet(scene.witness.mac, accomplice.mac, EXPERIMENTAL, b"as the other");
    scene.rogue.send(&as_other);
    let stolen = frames::ethernet(BROADCAST, scene.victim.mac, EXPERIMENTAL, b"I am he");
    for guest in [&mut scene.rogue, &mut accomplice] {
        guest.send(&stolen);
        guest.send_all(forged.clone());
        guest.shout("that was it");
    }
    let heard = scene.witness.hear("that was it");
    let more = scene.witness.hear("that was it");
    for frame in heard.iter().chain(&more) {
        assert!(!forged.contains(frame) && *frame != stolen && *frame != as_other, "{frame:02x?}");
    }
    let secret = frames::ethernet(scene.victim.mac, scene.witness.mac, EXPERIMENTAL, b"secret");
    scene.witness.send(&secret);
    scene.victim.receive_until(|frame| (frame == secret).then_some(()));
    scene.witness.shout("done");
    for guest in [&mut scene.rogue, &mut accomplice] {
        assert!(!guest.hear("done").contains(&secret), "it went astray");
    }
    scene.victim.ping_gateway(20);
    drop(accomplice);
    scene.end();
}

#[test]
fn a_guest_answers_others_as_a_dhcp_server_without_locks_only() {
    for (conf, arrives) in [("", false), ("locks = no\n", true)] {
        let lab = Lab::new();
        // The built-in server would refuse such answers itself.
        let server = Server::start(&lab, &format!("dhcp_service = disabled\n{conf}"));
        let (mut rogue, mut witness) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
        witness.shout("here");
        rogue.hear("here");
        let own = Ipv4Addr::new(192, 168, 86, 77);
        let offer = frames::udp(67, 68, &[2; 300]);
        let offer = frames::ipv4(BROADCAST, rogue.mac, own, Ipv4Addr::BROADCAST, 17, &offer);
        rogue.send(&offer);
        rogue.shout("that was it");
        assert_eq!(witness.hear("that was it").contains(&offer), arrives, "{conf}");
        drop((rogue, witness));
        server.stop();
        lab.finish();
    }
}

#[test]
fn nobody_gets_frames_of_another_by_sending_from_his_address() {
    let mut scene = Scene::new("");
    for _ in 0..20 {
        let stolen = frames::ethernet(BROADCAST, scene.victim.mac, EXPERIMENTAL, b"I am he");
        scene.rogue.send(&stolen);
        let secret = frames::ethernet(scene.victim.mac, scene.witness.mac, EXPERIMENTAL, b"secret");
        scene.witness.send(&secret);
        scene.victim.receive_until(|frame| (frame == secret).then_some(()));
    }
    scene.witness.shout("done");
    let heard = scene.rogue.hear("done");
    assert!(!heard.iter().any(|frame| frame.ends_with(b"secret")), "it went astray");
    scene.end();
}

#[test]
fn frames_for_an_address_that_nobody_has_are_shown_to_nobody() {
    let mut scene = Scene::new("");
    let nobodys = frames::ethernet([2, 9, 9, 9, 9, 9], scene.victim.mac, EXPERIMENTAL, b"nobody's");
    scene.victim.send(&nobodys);
    scene.victim.shout("done");
    for guest in [&mut scene.rogue, &mut scene.witness] {
        assert!(!guest.hear("done").contains(&nobodys));
    }
    scene.end();
}

#[test]
fn a_thousand_addresses_of_one_guest_do_not_fill_the_bridges_table() {
    let mut scene = Scene::new("");
    let flood = (0..1000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        let mac: Mac = [2, 0xf1, 0, 0, high, low];
        frames::ethernet(BROADCAST, mac, EXPERIMENTAL, b"flood")
    });
    scene.rogue.send_all(flood);
    scene.victim.ping_gateway(20);
    assert!(scene.lab.bound_macs() <= 3, "one for each guest, at any moment");
    wait_until("his last one is bound", || scene.lab.bound_macs() == 3);
    let table = scene.lab.srv.run("bridge fdb show br wsbr0");
    assert!(table.lines().count() < 40, "{table}");
    scene.end();
}

#[test]
fn more_frames_to_many_than_a_guest_may_send_are_dropped_and_only_his() {
    let mut scene = Scene::new("max_multicast = 50\n");
    let frame = frames::ethernet(BROADCAST, scene.rogue.mac, EXPERIMENTAL, b"flood");
    scene.rogue.send_all((0..2000).map(|_| frame.clone()));
    scene.rogue.ping_gateway(20);
    for _ in 0..10 {
        scene.victim.shout("I may");
    }
    scene.victim.shout("last");
    let heard = scene.witness.hear("last");
    let of = |text: &[u8]| heard.iter().filter(|frame| frame.ends_with(text)).count();
    assert!((1..2000).contains(&of(b"flood")), "{} of a flood", of(b"flood"));
    assert_eq!(heard.iter().filter(|frame| frame[14..].starts_with(b"I may")).count(), 10);
    scene.end();
}

#[test]
fn a_guest_that_changes_its_mac_address_goes_on_with_the_new_one() {
    let mut scene = Scene::new("");
    let old = scene.rogue.mac;
    scene.rogue.mac = [2, 0xcc, 0, 0, 0, 1];
    // As a restored machine does: the same IPv4 address, another card.
    scene.rogue.ping_gateway(30);
    let back = frames::ethernet(scene.witness.mac, old, EXPERIMENTAL, b"the old card again");
    assert!(scene.arrives(&back), "it may go back");
    scene.rogue.dhcp();
    scene.rogue.ping_gateway(30);
    scene.end();
}

#[test]
fn of_two_guests_with_one_mac_address_the_first_keeps_it_and_the_other_waits() {
    let Scene { lab, server, rogue: mut first, victim: mut other, witness } = Scene::new("");
    let mut clone = RawGuest::connect(&lab);
    clone.mac = first.mac;
    clone.shout("I am the first");
    server.wait_for_log("a guest may not use its address");
    let line = server.log();
    let line =
        line.lines().find(|line| line.contains("may not use")).expect("it is there").to_owned();
    assert!(line.contains("another guest has the address"), "{line}");
    first.shout("still the first");
    let heard = other.hear("still the first");
    assert!(
        !heard.iter().any(|frame| frame.ends_with(b"I am the first")),
        "the clone is not heard"
    );
    first.ping_gateway(40);
    first.leave();
    // What it had is free now.
    wait_until("the clone has its address", || {
        clone.shout("I am alone");
        other
            .receive_within(std::time::Duration::from_millis(200))
            .is_some_and(|frame| frame[14..].starts_with(b"I am alone"))
    });
    drop((clone, other, witness));
    server.stop();
    lab.finish();
}

#[test]
fn an_address_whose_holder_is_not_there_any_more_goes_to_who_asks_for_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut listener = RawGuest::join(&lab);
    // A client that answers no ping, such as one behind a line that was cut.
    let mut dead = Door::upgraded(&lab);
    let mac: Mac = [2, 0xde, 0xad, 0, 0, 1];
    let frame = frames::ethernet(BROADCAST, mac, EXPERIMENTAL, b"last words");
    dead.send_fragment(&Fragment::binary(&frame));
    listener.hear("last words");
    let mut again = RawGuest::connect(&lab);
    again.mac = mac;
    wait_until("it has its address back", || {
        again.shout("back again");
        listener
            .receive_within(std::time::Duration::from_millis(200))
            .is_some_and(|frame| frame[14..].starts_with(b"back again"))
    });
    server.wait_for_log("the client is silent");
    drop((listener, dead, again));
    server.stop();
    lab.finish();
}

#[test]
fn a_static_address_works_as_long_as_nobody_else_has_it() {
    let Scene { lab, server, mut rogue, mut victim, witness } = Scene::new("");
    let leased = victim.ip;
    rogue.ip = Ipv4Addr::new(192, 168, 86, 99);
    rogue.ping_gateway(20);
    // Now a lease cannot be had for that one.
    let mut wishful = RawGuest::connect(&lab);
    let wish = Dhcp::new(1, wishful.mac).with(50, &rogue.ip.octets());
    assert_ne!(wishful.dhcp_ask(&wish).yiaddr, rogue.ip);
    let stolen = frames::ipv4(BROADCAST, rogue.mac, leased, GATEWAY, 17, &frames::udp(9, 9, b"x"));
    rogue.send(&stolen);
    rogue.shout("tried");
    let heard = victim.hear("tried");
    assert!(!heard.iter().any(|frame| frames::ethertype(frame) == IPV4), "{heard:?}");
    victim.ping_gateway(20);
    drop((rogue, victim, witness, wishful));
    server.stop();
    lab.finish();
}

#[test]
fn isolated_guests_reach_the_gateway_and_not_each_other() {
    let lab = Lab::new();
    let server = Server::start(&lab, "isolation = yes\nguest_access = all\nenable_inet = yes\n");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::join(&lab));
    for _ in 0..3 {
        one.shout("nobody hears");
        one.send(&frames::arp_request(one.mac, one.ip, other.ip));
        one.ping_gateway(20);
    }
    let gateway = one.resolve(GATEWAY);
    // By the gateway, as a router.
    let routed =
        frames::ipv4(gateway, one.mac, one.ip, other.ip, 1, &frames::echo_request(1, b"x"));
    one.send(&routed);
    one.ping_gateway(20);
    other.send(&frames::arp_request(other.mac, other.ip, GATEWAY));
    let heard = other.receive_until(|frame| {
        assert_ne!(frames::source(frame), one.mac, "of the other: {frame:02x?}");
        assert!(frames::parse_ipv4(frame).is_none_or(|packet| packet.0 != one.ip), "{frame:02x?}");
        frames::parse_arp(frame).filter(|arp| arp.0 == 2 && arp.2 == GATEWAY)
    });
    assert_eq!(heard.1, gateway);
    drop((one, other));
    server.stop();
    lab.finish();
}
