//! More ports than a bridge of the kernel takes: leaf bridges come and go, and guests see one network.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use wsnic_tests::frames::{self, BROADCAST};
use wsnic_tests::{HeldPort, Keeper, Lab, Peer, RawGuest, address, wait_until};

const CONF: &str = "max_clients = 2100\n";
/// Ports on the first bridge.
const FIRST: usize = 1000;

#[test]
fn guests_on_different_bridges_are_on_one_network() {
    let lab = Lab::new();
    let keeper = Keeper::start(&lab, CONF);
    let mut guests = vec![RawGuest::join(&lab)];
    let filler = Filler::start(&keeper, FIRST - 1);
    assert!(!lab.srv.ip("link").contains("wsleaf"), "none without need");
    guests.extend((0..3).map(|_| RawGuest::join(&lab)));
    assert_eq!(on(&lab, "wsleaf1"), ["wsleaf1d", "wstap1000", "wstap1001", "wstap1002"]);
    reach_each_other(&mut guests, "hello.");
    guests.iter_mut().for_each(|guest| guest.ping_gateway(1400));
    // To one alone, who is known to both bridges by now.
    let alone = frames::ethernet(guests[0].mac, guests[3].mac, frames::EXPERIMENTAL, b"you alone");
    guests[3].send(&alone);
    guests[0].hear("you alone");
    drop((guests, filler));
    wait_until("all ports are gone", || lab.ports() == 0);
    wait_until("the leaf bridge is gone", || !lab.srv.ip("link").contains("wsleaf"));
    RawGuest::join(&lab).ping_gateway(56);
    keeper.stop();
    lab.finish();
}

#[test]
fn a_leaf_bridge_answers_nothing_and_takes_nothing_for_the_host() {
    let lab = Lab::new();
    let keeper = Keeper::start(&lab, CONF);
    let filler = Filler::start(&keeper, FIRST);
    let mut guest = RawGuest::join(&lab);
    let gateway = guest.resolve(address::GATEWAY);
    // One answer, and that of the network's own bridge.
    guest.send(&frames::arp_request(guest.mac, guest.ip, address::GATEWAY));
    guest.send(&frames::arp_request(guest.mac, guest.ip, "127.0.0.1".parse().expect("one")));
    let answers = arp_answers(&mut guest);
    assert!(answers.iter().all(|mac| *mac == gateway), "{answers:x?} and not {gateway:x?}");
    assert_eq!(answers.len(), 1);
    // The leaf bridge takes what is for its own address or for all, and gets no further with it.
    let leaf = mac_of(&lab, "wsleaf1");
    let ping = frames::echo_request(7, &[7; 56]);
    for (to, answered) in [(gateway, true), (leaf, false), (BROADCAST, true)] {
        guest.send(&frames::ipv4(to, guest.mac, guest.ip, address::GATEWAY, 1, &ping));
        guest.shout("asked");
        let came = frames_until_quiet(&mut guest);
        let is_answer = |frame: &&Vec<u8>| frames::parse_ipv4(frame).is_some_and(|ip| ip.2 == 1);
        assert_eq!(came.iter().filter(is_answer).count(), usize::from(answered), "{to:x?}");
    }
    drop((guest, filler));
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn leaf_bridges_outlive_a_killed_helper_and_are_made_again_when_somebody_deletes_them() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests = vec![RawGuest::connect(&lab)];
    let filler = Filler::start(&keeper, FIRST - 1);
    guests.extend((0..2).map(|_| RawGuest::connect(&lab)));
    reach_each_other(&mut guests, "before.");
    let index = index_of(&lab, "wsleaf1");
    keeper.kill_helper();
    reach_each_other(&mut guests, "without a helper.");
    keeper.start_helper();
    keeper.wait_until_the_helper_serves();
    guests.push(RawGuest::connect(&lab));
    reach_each_other(&mut guests, "with the next.");
    assert_eq!(index_of(&lab, "wsleaf1"), index, "it is the same bridge");
    let ports = ["wsleaf1d", "wstap1000", "wstap1001", "wstap1002"];
    for part in ["wsleaf1", "wsleaf1u", "wsleaf1d", "wsbr0"] {
        let (old, bound) = (index_of(&lab, part), lab.bound_macs());
        lab.srv.ip(&format!("link delete {part}"));
        wait_until("it is another", || index_of(&lab, part).is_some_and(|new| Some(new) != old));
        wait_until("all ports are back", || on(&lab, "wsleaf1") == ports);
        wait_until("all are back", || on(&lab, "wsbr0").len() == FIRST + 1);
        wait_until("the bridges know all guests", || lab.bound_macs() == bound);
        wait_until("all ports forward", || {
            lab.srv.run("bridge link show").lines().all(|port| port.contains(" state forwarding "))
        });
        reach_each_other(&mut guests, &format!("without {part}."));
        guests.push(RawGuest::connect(&lab));
        reach_each_other(&mut guests, &format!("one more, {part}."));
        drop(guests.pop());
        wait_until("its port is gone", || on(&lab, "wsleaf1") == ports);
    }
    drop((guests, filler));
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn half_a_leaf_bridge_that_a_killed_helper_left_is_made_whole() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests = vec![RawGuest::connect(&lab)];
    let filler = Filler::start(&keeper, FIRST - 1);
    let steps = [
        "link add wsleaf1 group 2004025344 type bridge",
        "link add wsleaf1u group 2004025344 type veth peer name wsleaf1d group 2004025344",
        "link set wsleaf1u up master wsbr0",
        "link set wsleaf1d up master wsleaf1",
    ];
    for done in 1..=steps.len() {
        keeper.kill_helper();
        steps[..done].iter().for_each(|step| drop(lab.srv.ip(step)));
        keeper.start_helper();
        keeper.wait_until_the_helper_serves();
        guests.push(RawGuest::connect(&lab));
        reach_each_other(&mut guests, "whole.");
        drop(guests.pop());
        wait_until("the leaf bridge is gone", || !lab.srv.ip("link").contains("wsleaf"));
    }
    drop((guests, filler));
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

/// Ports that nobody uses.
struct Filler {
    _peer: Peer,
    _ports: Vec<HeldPort>,
}

impl Filler {
    fn start(keeper: &Keeper<'_>, ports: usize) -> Filler {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a process may use its limit");
        let peer = Peer::greeted_at(&keeper.socket());
        let ports = (0..ports).map(|_| peer.open()).collect();
        Filler { _peer: peer, _ports: ports }
    }
}

fn reach_each_other(guests: &mut [RawGuest], text: &str) {
    for speaker in 0..guests.len() {
        let text = format!("{speaker} {text}");
        guests[speaker].shout(&text);
        for listener in (0..guests.len()).filter(|listener| *listener != speaker) {
            guests[listener].hear(&text);
        }
    }
}

/// Ports of a bridge, in order.
fn on(lab: &Lab, bridge: &str) -> Vec<String> {
    let list = lab.srv.ip("-o link show");
    let is_on = |line: &&str| line.contains(&format!(" master {bridge} "));
    let name = |line: &str| {
        let name = line.split(": ").nth(1).expect("a name");
        name.split('@').next().expect("a name").to_owned()
    };
    let mut names: Vec<String> = list.lines().filter(is_on).map(name).collect();
    names.sort();
    names
}

fn index_of(lab: &Lab, name: &str) -> Option<u32> {
    let list = lab.srv.ip("-o link show");
    let line = list.lines().find(|line| {
        let named = line.split(": ").nth(1).expect("a name");
        named.split('@').next() == Some(name)
    })?;
    line.split(':').next()?.parse().ok()
}

fn mac_of(lab: &Lab, name: &str) -> frames::Mac {
    let text = lab.srv.run(&format!("cat /sys/class/net/{name}/address"));
    let byte = |part: &str| u8::from_str_radix(part, 16).expect("a byte");
    let bytes: Vec<u8> = text.trim().split(':').map(byte).collect();
    bytes.try_into().expect("six bytes")
}

fn arp_answers(guest: &mut RawGuest) -> Vec<frames::Mac> {
    let came = frames_until_quiet(guest);
    let answers = came.iter().filter_map(|frame| frames::parse_arp(frame));
    answers.filter(|arp| arp.0 == 2).map(|arp| arp.1).collect()
}

/// What comes within a while.
fn frames_until_quiet(guest: &mut RawGuest) -> Vec<Vec<u8>> {
    let end = Instant::now() + Duration::from_millis(400);
    let mut came = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        came.extend(guest.receive_within(left));
    }
    came
}
