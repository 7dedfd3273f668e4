//! Whatever is killed at whatever moment: the next start finds nothing in its way.

use nix::sys::signal::Signal;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server, address, wait_until};

const CONF: &str = "inet_iface = wan0\n";
const ROUNDS: u64 = 10;

#[test]
fn after_kill_9_of_everything_at_any_moment_the_next_start_works() {
    let lab = Lab::new();
    for round in 0..ROUNDS {
        let server = Server::launch(&lab, CONF, &[]);
        // Anywhere from before the bridge is there to well after the first guests.
        let delay = Duration::from_micros(random() % 600_000);
        eprintln!("round {round}: killed after {delay:?}");
        std::thread::sleep(delay / 2);
        let guests =
            server.log().contains("ws://").then(|| [RawGuest::join(&lab), RawGuest::join(&lab)]);
        std::thread::sleep(delay / 2);
        server.kill_all();
        drop(guests);
    }
    works_and_cleans_up(lab);
}

#[test]
fn after_kill_9_of_the_supervisor_alone_the_next_start_works() {
    let lab = Lab::new();
    for round in 0..ROUNDS {
        let server = Server::launch(&lab, CONF, &[]);
        let delay = Duration::from_micros(random() % 400_000);
        eprintln!("round {round}: killed after {delay:?}");
        std::thread::sleep(delay);
        server.kill();
    }
    works_and_cleans_up(lab);
}

#[test]
fn a_killed_front_end_is_started_again_and_its_ports_are_gone() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    for _ in 0..2 {
        let mut guest = RawGuest::join(&lab);
        let killed = server.front_end();
        assert!(server.kill_program("wsnic-front"));
        assert_eq!(guest.close_code(), 1006, "the connection breaks");
        wait_until("another front-end runs", || {
            server.program("wsnic-front").is_some_and(|pid| pid != killed)
        });
        wait_until("it serves", || {
            RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_ok()
        });
        wait_until("the old ports are gone", || !lab.srv.ip("-o link show").contains("wstap"));
    }
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn after_kill_9_of_the_helper_service_comes_back() {
    let lab = Lab::new();
    let mut server = Server::start(&lab, CONF);
    let guest = RawGuest::join(&lab);
    let killed = server.helper();
    assert!(server.kill_program("wsnic-priv"));
    drop(guest);
    // Either the command starts what is missing, or it ends with an error and the next start works.
    wait_until("the helper is back or the command has ended", || {
        server.program("wsnic-priv").is_some_and(|pid| pid != killed)
            || server.family().len() == 1 && !server.log().is_empty() && server.has_ended()
    });
    if server.has_ended() {
        assert!(!server.wait().success(), "a lost helper is an error");
        server = Server::start(&lab, CONF);
    }
    wait_until("it serves", || RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_ok());
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn a_foreign_interface_of_the_bridges_name_is_refused_and_not_touched() {
    let mut lab = Lab::new();
    lab.srv.ip("link add wsbr0 type veth peer name other0");
    lab.settle();
    let log = Server::refuses(&lab, CONF, &[]);
    assert!(log.contains("wsbr0"), "{log}");
    lab.finish();
}

#[test]
fn a_foreign_interface_of_a_ports_name_is_not_touched() {
    let mut lab = Lab::new();
    lab.srv.ip("tuntap add dev wstap0 mode tap");
    lab.settle();
    let server = Server::launch(&lab, CONF, &[]);
    wait_until("it is ready or has refused", || {
        server.log().contains("ws://") || server.has_ended()
    });
    if server.has_ended() {
        assert!(server.log().contains("wstap0"), "{}", server.log());
    } else {
        RawGuest::join(&lab).leave();
        server.stop();
    }
    lab.finish();
}

#[test]
fn a_stopped_helper_costs_new_clients_a_503_and_old_ones_nothing() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut one = RawGuest::join(&lab);
    let mut other = RawGuest::join(&lab);
    let helper = nix::unistd::Pid::from_raw(server.helper() as i32);
    nix::sys::signal::kill(helper, Signal::SIGSTOP).expect("the helper is there");
    let refused = RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]);
    match refused {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            assert_eq!(response.status().as_u16(), 503);
        }
        other => panic!("a new client was to get 503: {other:?}"),
    }
    one.shout("still here");
    other.hear("still here");
    nix::sys::signal::kill(helper, Signal::SIGCONT).expect("the helper is there");
    wait_until("new guests are served again", || {
        RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_ok()
    });
    drop((one, other));
    server.stop();
    lab.finish();
}

fn works_and_cleans_up(lab: Lab) {
    let server = Server::start(&lab, CONF);
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    drop(guest);
    lab.finish();
}

/// The standard library's hasher starts at random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[test]
fn all_clients_of_a_killed_front_end_are_back_at_once_and_none_is_refused() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 300\n");
    let guests: Vec<RawGuest> = (0..300).map(|_| RawGuest::connect(&lab)).collect();
    let killed = server.front_end();
    assert!(server.kill_program("wsnic-front"));
    drop(guests);
    let mut back = Vec::new();
    wait_until("the front-end listens again", || {
        back.extend(RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).ok());
        !back.is_empty()
    });
    assert_ne!(server.front_end(), killed);
    back.extend((1..300).map(|_| RawGuest::connect(&lab)));
    let refused = RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]);
    assert!(refused.is_err(), "max_clients holds, whatever is still being deleted");
    wait_until("the ports of before are gone", || lab.ports() == 300);
    drop(back);
    server.stop();
    lab.finish();
}
