//! Supervisor, helper and front-end are killed (SIGKILL) in every order, at moments that go through
//! start and stop step by step: the next start always comes up, and its stop leaves nothing.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use wsnic_tests::{LIMIT, Lab, RawGuest, Server, wait_until};

const CONF: &str = "inet_iface = wan0\n";
/// Moments in a start, and between two of them: beyond what a start takes.
const MOMENTS: u32 = 18;
const STEP: Duration = Duration::from_millis(10);

/// The orders in which the three can die.
const ORDERS: [[&str; 3]; 6] = [
    ["wsnic", "wsnic-priv", "wsnic-front"],
    ["wsnic", "wsnic-front", "wsnic-priv"],
    ["wsnic-priv", "wsnic", "wsnic-front"],
    ["wsnic-priv", "wsnic-front", "wsnic"],
    ["wsnic-front", "wsnic", "wsnic-priv"],
    ["wsnic-front", "wsnic-priv", "wsnic"],
];

#[test]
fn a_start_that_is_killed_at_any_moment_is_in_no_later_ones_way() {
    let lab = Lab::new();
    for (moment, order) in (0..MOMENTS).zip(ORDERS.iter().cycle()) {
        let server = Server::launch(&lab, CONF, &[]);
        std::thread::sleep(STEP * moment);
        server.kill_in_order(order);
        if moment % 6 == 5 {
            serves(&lab).stop();
        }
    }
    serves(&lab).stop();
    lab.finish();
}

#[test]
fn a_stop_that_is_killed_at_any_moment_is_in_no_later_starts_way() {
    let lab = Lab::new();
    for (moment, order) in (0..MOMENTS / 2).zip(ORDERS.iter().cycle()) {
        let server = serves(&lab);
        let guests = [RawGuest::connect(&lab), RawGuest::connect(&lab)];
        server.signal(Signal::SIGTERM);
        std::thread::sleep(STEP / 2 * moment);
        server.kill_in_order(order);
        drop(guests);
    }
    serves(&lab).stop();
    lab.finish();
}

#[test]
fn a_start_that_is_killed_after_each_of_its_steps_is_in_no_later_ones_way() {
    let forwarding = "net/ipv4/conf/wan0/forwarding";
    type Step = fn(&Lab) -> bool;
    let steps: [(&str, Step); 5] = [
        ("a table", |lab| lab.srv.nft_lists("table inet wsnic_guard")),
        ("a bridge", |lab| has_interface(lab, "wsbr0")),
        ("a bridge with its note", |lab| {
            lab.srv.enter(|| {
                std::fs::read_to_string("/sys/class/net/wsbr0/ifalias")
                    .is_ok_and(|note| !note.trim().is_empty())
            })
        }),
        ("forwarding", |lab| lab.srv.sysctl("net/ipv4/conf/wan0/forwarding") == "1"),
        ("a port", |lab| {
            drop(RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]));
            has_interface(lab, "wstap0")
        }),
    ];
    let lab = Lab::new();
    let before = lab.srv.sysctl(forwarding);
    for (name, is_there) in steps {
        for order in [ORDERS[0], ORDERS[3]] {
            let server = Server::launch(&lab, CONF, &[]);
            let end = Instant::now() + LIMIT;
            while !is_there(&lab) {
                assert!(Instant::now() < end, "never {name}:\n{}", server.log());
            }
            server.kill_in_order(&order);
        }
        serves(&lab).stop();
        assert_eq!(lab.srv.sysctl(forwarding), before, "after a death behind {name}");
    }
    lab.finish();
}

#[test]
fn a_helper_that_is_killed_at_any_moment_of_the_start_is_replaced_or_the_start_says_so() {
    let lab = Lab::new();
    for moment in 0..MOMENTS / 2 {
        let mut server = Server::launch(&lab, CONF, &[]);
        std::thread::sleep(STEP * 2 * moment);
        server.kill_program("wsnic-priv");
        wait_until("it has come up, or has ended", || {
            server.log().contains("ws://") || server.has_ended()
        });
        if server.has_ended() {
            assert!(!server.wait().success());
            assert!(server.log().contains("did not start"), "{}", server.log());
        } else {
            let serves = || RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_ok();
            wait_until("it serves", serves);
            server.stop();
        }
        assert_eq!(lab.ports(), 0);
    }
    serves(&lab).stop();
    lab.finish();
}

#[test]
fn a_front_end_in_a_crash_loop_costs_the_helper_nothing_and_then_serves() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 12\n");
    let helper = server.helper();
    let guests: Vec<RawGuest> = (0..12).map(|_| RawGuest::connect(&lab)).collect();
    let files = wsnic_tests::open_files(helper);
    // Each is killed when it has just come, some before they have said hello.
    for _ in 0..4 {
        let killed = server.front_end();
        assert!(server.kill_program("wsnic-front"));
        wait_until("another one comes", || {
            server.program("wsnic-front").is_some_and(|pid| pid != killed)
        });
    }
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    let mut all: Vec<RawGuest> = Vec::new();
    wait_until("every slot can be had", || {
        all.extend(RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).ok());
        all.len() == 12
    });
    assert!(RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).is_err(), "and no more");
    assert_eq!(server.helper(), helper, "the helper is the same all the time");
    wait_until("it has no file more open", || wsnic_tests::open_files(helper) <= files);
    drop(all);
    server.stop();
    lab.finish();
}

/// A server that comes up, whatever was left, and serves.
fn serves(lab: &Lab) -> Server {
    let server = Server::start(lab, CONF);
    RawGuest::connect(lab).shout("served");
    server
}

fn has_interface(lab: &Lab, name: &str) -> bool {
    let path = format!("/sys/class/net/{name}");
    lab.srv.enter(|| std::path::Path::new(&path).exists())
}
