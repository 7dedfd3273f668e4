//! What an administrator's commands do to a running wsnic: what is taken away is repaired or the
//! session ends with a code that says so, and guests never reach what they may not.

use nix::sys::signal::Signal;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wsnic_proto::{ErrorCode, Reply, Request};
use wsnic_tests::address::{LAN, METADATA, NAMED_PORT, PRIVATE, WAN, WEB};
use wsnic_tests::{Helper, LIMIT, Lab, NativeGuest, Peer, RawGuest, Server, wait_until};

const CONF: &str = "inet_iface = wan0\n";
const HELPER: &str = "wsnic-priv";

#[test]
fn a_bridge_whose_name_is_taken_meanwhile_is_made_again_as_soon_as_that_is_possible() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut guests = [RawGuest::join(&lab), RawGuest::join(&lab)];
    server.signal_program(HELPER, Signal::SIGSTOP);
    lab.srv.ip("link delete wsbr0");
    lab.srv.ip("link add wsbr0 type veth peer name other0");
    server.signal_program(HELPER, Signal::SIGCONT);
    server.wait_for_log("guests have no network, trying again");
    let refused = RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]);
    assert!(is_503(&refused), "a guest without a bridge: {refused:?}");
    lab.srv.ip("link delete wsbr0");
    wait_until("both are on a bridge again", || on_bridge(&lab) == 2);
    let [one, other] = &mut guests;
    one.shout("here");
    other.hear("here");
    one.ping_gateway(56);
    RawGuest::join(&lab).ping_gateway(56);
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn guests_that_first_speak_while_the_bridge_is_deleted_keep_their_sessions() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..8).map(|_| RawGuest::connect(&lab)).collect();
    server.signal_program(HELPER, Signal::SIGSTOP);
    for (number, guest) in guests.iter_mut().enumerate() {
        guest.shout(&format!("I am {number}"));
    }
    // As a rule they have come to the front-end by then, and it asks.
    std::thread::sleep(Duration::from_millis(200));
    lab.srv.ip("link delete wsbr0");
    server.signal_program(HELPER, Signal::SIGCONT);
    wait_until("all are on a bridge again", || on_bridge(&lab) == guests.len());
    wait_until("all addresses are bound", || lab.bound_macs() == guests.len());
    let (one, others) = guests.split_first_mut().expect("guests");
    one.shout("here");
    others.iter_mut().for_each(|other| drop(other.hear("here")));
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn ports_that_are_being_opened_while_the_bridge_is_deleted_end_up_on_the_new_one() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "max_clients = 200\n");
    let done = AtomicBool::new(false);
    let ports = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let peer = Peer::greeted(&helper);
            let mut ports = Vec::new();
            // As long as the other thread, should that fail, and no longer.
            let end = Instant::now() + LIMIT * 2;
            while !done.load(Ordering::Relaxed) && ports.len() < 190 && Instant::now() < end {
                assert!(peer.say(&Request::Open { req: 1, network: 0 }), "{}", helper.log());
                match peer.hear() {
                    Some((Reply::Opened { .. }, Some(tap))) => ports.push(tap),
                    // There was no bridge.
                    Some((Reply::Err { code: ErrorCode::Kernel, .. }, None)) => {}
                    other => panic!("an open is answered: {other:?}\n{}", helper.log()),
                }
            }
            (peer, ports)
        });
        for round in 0..8 {
            wait_until("there is a bridge", || is_up(&lab));
            std::thread::sleep(Duration::from_millis(2 * round));
            lab.srv.ip("link delete wsbr0");
        }
        done.store(true, Ordering::Relaxed);
        opening.join().expect("opening does not panic")
    });
    let (peer, taps) = ports;
    wait_until("every port is on it", || on_bridge(&lab) == taps.len());
    assert_eq!(lab.ports(), taps.len(), "no other port is left");
    drop((peer, taps));
    wait_until("all ports are gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}

#[test]
fn flushing_the_firewall_opens_nothing_to_guests_and_cuts_nobody_off() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let guest = NativeGuest::join(&lab);
    is_served_and_contained(&guest);
    for command in [
        "nft flush ruleset",
        "nft delete table inet wsnic_guard",
        "nft delete table ip wsnic_nat",
        "nft flush table inet wsnic_guard",
        "nft flush chain inet wsnic_guard forward",
    ] {
        // The tables belong to the helper: the kernel passes over them, or refuses.
        lab.srv.succeeds(command);
        assert!(lab.srv.nft_lists("table inet wsnic_guard"), "after {command}");
        is_served_and_contained(&guest);
    }
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn a_firewall_flushed_while_no_helper_runs_is_back_before_it_serves() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let guest = NativeGuest::join(&lab);
    server.without_program(HELPER, || {
        // Without its owner the guard stays, and can be removed.
        assert!(lab.srv.nft_lists("table inet wsnic_guard"), "it outlives the helper");
        is_contained(&guest);
        lab.srv.run("nft flush ruleset");
    });
    wait_until("a new guest is served", || {
        RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_ok()
    });
    is_served_and_contained(&guest);
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn a_port_that_is_set_down_or_taken_off_the_bridge_is_mute_until_it_is_put_back() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::join(&lab));
    for (change, back) in [
        ("down", "up"),
        ("nomaster", "master wsbr0"),
        ("mtu 1000", "mtu 1500"),
        ("txqueuelen 1", "txqueuelen 500"),
    ] {
        lab.srv.ip(&format!("link set wstap0 {change}"));
        one.shout("into the void");
        other.ping_gateway(56);
        lab.srv.ip(&format!("link set wstap0 {back}"));
        let text = format!("after {change}");
        wait_until("the bridge takes its frames again", || {
            lab.srv.run("bridge link show dev wstap0").contains("state forwarding")
        });
        one.shout(&text);
        other.hear(&text);
        one.ping_gateway(56);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn of_many_deleted_taps_each_session_is_told_1011_and_the_others_go_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 20\n");
    let mut guests: Vec<RawGuest> = (0..20).map(|_| RawGuest::connect(&lab)).collect();
    for port in (0..20).step_by(2) {
        lab.srv.ip(&format!("link delete wstap{port}"));
    }
    let mut numbers = 0..;
    let (mut lost, mut others): (Vec<_>, Vec<_>) =
        guests.drain(..).partition(|_| numbers.next().is_some_and(|number| number % 2 == 0));
    lost.iter_mut().for_each(|guest| assert_eq!(guest.close_code(), 1011));
    drop(lost);
    let (speaker, listeners) = others.split_first_mut().expect("ten are left");
    speaker.shout("we go on");
    listeners.iter_mut().for_each(|guest| drop(guest.hear("we go on")));
    // Their places can be had again.
    let mut places = Vec::new();
    wait_until("ten come in their place", || {
        places.extend(RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).ok());
        places.len() == 10
    });
    drop((others, places));
    server.stop();
    lab.finish();
}

fn is_served_and_contained(guest: &NativeGuest) {
    is_contained(guest);
    assert_eq!(guest.hears(WEB, NAMED_PORT).as_deref(), Some("web"));
}

fn is_contained(guest: &NativeGuest) {
    let forbidden: [IpAddr; 4] = [WAN.into(), LAN.into(), PRIVATE.into(), METADATA.into()];
    std::thread::scope(|scope| {
        for place in forbidden {
            scope.spawn(move || {
                assert_eq!(guest.hears(place, NAMED_PORT), None, "{place} is reached");
            });
        }
    });
}

fn is_up(lab: &Lab) -> bool {
    let bridges = lab.srv.ip("-o link show up type bridge");
    bridges.contains(": wsbr0:")
}

fn on_bridge(lab: &Lab) -> usize {
    let mut command = std::process::Command::new("ip");
    // It fails while there is no bridge.
    let output = lab.srv.output(command.args(["-o", "link", "show", "master", "wsbr0"]));
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("wstap")).count()
}

fn is_503(refused: &Result<RawGuest, tokio_tungstenite::tungstenite::Error>) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    matches!(refused, Err(Error::Http(response)) if response.status().as_u16() == 503)
}
