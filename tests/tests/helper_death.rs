//! The helper, the front-end or the bridge goes away under connected guests: sessions outlive what
//! they can, and afterwards every port belongs to a session (SECURITY.md, faults that must be
//! survived).

use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Error;
use wsnic_tests::{Lab, RawGuest, Server, wait_until};

const HELPER: &str = "wsnic-priv";
const FRONT_END: &str = "wsnic-front";

#[test]
fn sessions_outlive_the_helper_again_and_again() {
    const GUESTS: usize = 30;
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 32\n");
    let mut guests = connect(&lab, GUESTS);
    let front_end = server.front_end();
    reach_each_other(&mut guests, "before.");
    for round in 0..4 {
        let before = server.helper();
        server.without_program(HELPER, || {
            reach_each_other(&mut guests, &format!("{round}, without."));
            is_refused(&lab);
        });
        reach_each_other(&mut guests, &format!("{round}, meanwhile."));
        let mut late = connect(&lab, 1);
        assert_ne!(server.helper(), before, "another helper serves");
        late.extend(connect(&lab, 1));
        guests.append(&mut late);
        reach_each_other(&mut guests, &format!("{round}, after."));
        // Two leave, an old one and a new one.
        drop((guests.remove(0), guests.pop()));
        wait_until("the ports of those that left are gone", || lab.ports() == GUESTS);
    }
    assert_eq!(server.front_end(), front_end, "the front-end is the same all the time");
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    serves(&lab, 32);
    server.stop();
    lab.finish();
}

#[test]
fn guests_that_leave_while_there_is_no_helper_leave_no_port() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 80\n");
    let mut guests = connect(&lab, 80);
    server.without_program(HELPER, || drop(guests.split_off(2)));
    wait_until("the ports of those that left are gone", || lab.ports() == 2);
    reach_each_other(&mut guests, "we stay");
    guests.extend((0..78).map(|_| connect_in_time(&lab)));
    is_refused(&lab);
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn clients_that_come_and_go_while_helpers_die_leave_everything_consistent() {
    const MAX_CLIENTS: usize = 40;
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("max_clients = {MAX_CLIENTS}\n"));
    let mut residents = connect(&lab, 3);
    let front_end = server.front_end();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut guests = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    guests.extend(try_connect(&lab).ok());
                    if guests.len() == 5 {
                        guests.clear();
                    }
                }
            });
        }
        for round in 0..5_u64 {
            wait_until("a helper runs", || server.program(HELPER).is_some());
            // From while it starts to when it has served for a while.
            std::thread::sleep(Duration::from_millis(round * round * 13));
            server.kill_program(HELPER);
            reach_each_other(&mut residents, &format!("round {round}."));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(server.front_end(), front_end, "the front-end is the same all the time");
    wait_until("only ports with a session are left", || lab.ports() == residents.len());
    reach_each_other(&mut residents, "they are gone");
    drop(residents);
    serves(&lab, MAX_CLIENTS);
    server.stop();
    lab.finish();
}

#[test]
fn a_stopped_helper_leaks_no_port() {
    const MAX_CLIENTS: usize = 80;
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("max_clients = {MAX_CLIENTS}\n"));
    let mut guests = connect(&lab, MAX_CLIENTS);
    reach_each_other(&mut guests, "before.");
    server.signal_program(HELPER, Signal::SIGSTOP);
    is_refused(&lab);
    reach_each_other(&mut guests, "still here");
    drop(guests.split_off(2));
    // More than may be in flight, and for longer than the front-end waits for an answer.
    wait_until("the front-end has given up on each of them", || {
        server.log().matches("the helper takes long to delete a port").count() == MAX_CLIENTS - 2
    });
    is_refused(&lab);
    reach_each_other(&mut guests, "still here, alone");
    server.signal_program(HELPER, Signal::SIGCONT);
    wait_until("the ports of those that left are gone", || lab.ports() == 2);
    drop(guests);
    serves(&lab, MAX_CLIENTS);
    server.stop();
    lab.finish();
}

#[test]
fn the_ports_of_a_killed_front_end_are_free_for_the_next_one() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 12\n");
    for _ in 0..2 {
        let guests = connect(&lab, 12);
        server.without_program(FRONT_END, || {
            wait_until("its ports are gone", || lab.ports() == 0);
        });
        drop(guests);
        serves(&lab, 12);
    }
    server.stop();
    lab.finish();
}

#[test]
fn helper_and_front_end_killed_together_come_back_together() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 12\n");
    for names in [[HELPER, FRONT_END], [FRONT_END, HELPER]] {
        let guests = connect(&lab, 12);
        let [first, second] = names;
        server.without_program(first, || assert!(server.kill_program(second)));
        drop(guests);
        serves(&lab, 12);
    }
    server.stop();
    lab.finish();
}

#[test]
fn a_bridge_that_somebody_deletes_comes_back_with_all_guests_on_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let mut guests: Vec<RawGuest> = (0..10).map(|_| RawGuest::join(&lab)).collect();
    for round in 0..3 {
        // The server's own DHCP answers a guest while the helper still binds its address.
        wait_until("all guests are bound", || lab.bound_macs() == guests.len());
        lab.srv.ip("link del wsbr0");
        wait_until("all ports are on a bridge again", || {
            let on_bridge = lab.srv.output(
                std::process::Command::new("ip").args(["-o", "link", "show", "master", "wsbr0"]),
            );
            String::from_utf8_lossy(&on_bridge.stdout).lines().count() == guests.len()
        });
        wait_until("the bridge knows all guests", || lab.bound_macs() == guests.len());
        reach_each_other(&mut guests, &format!("round {round}."));
        guests.iter_mut().for_each(|guest| guest.ping_gateway(56));
        guests.push(RawGuest::join(&lab));
    }
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    server.stop();
    lab.finish();
}

/// Guests that have been heard, so that their addresses are bound.
fn connect(lab: &Lab, guests: usize) -> Vec<RawGuest> {
    let guests = (0..guests).map(|_| connect_in_time(lab)).map(|mut guest| {
        let bound = lab.bound_macs();
        guest.shout("here I am");
        wait_until("its address is bound", || lab.bound_macs() > bound);
        guest
    });
    guests.collect()
}

fn try_connect(lab: &Lab) -> Result<RawGuest, Error> {
    RawGuest::connect_to(&lab.srv, Server::address(), "/", &[])
}

/// Tries again until a port can be had.
fn connect_in_time(lab: &Lab) -> RawGuest {
    let mut guest = None;
    wait_until("a client is served", || {
        guest = try_connect(lab).ok();
        guest.is_some()
    });
    guest.expect("it was served")
}

fn is_refused(lab: &Lab) {
    match try_connect(lab) {
        Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 503),
        other => panic!("a client without a port was to get 503: {other:?}"),
    }
}

/// The first speaks to all others, and the last.
fn reach_each_other(guests: &mut [RawGuest], text: &str) {
    let (first, others) = guests.split_first_mut().expect("guests");
    first.shout(text);
    others.iter_mut().for_each(|guest| guest.hear(text).clear());
    let answer = format!("answer to {text}");
    let (last, others) = guests.split_last_mut().expect("guests");
    last.shout(&answer);
    others.iter_mut().for_each(|guest| guest.hear(&answer).clear());
}

/// All ports can be had, no more than that, and all are given back.
fn serves(lab: &Lab, max_clients: usize) {
    let mut guests: Vec<RawGuest> = (0..max_clients).map(|_| connect_in_time(lab)).collect();
    assert_eq!(lab.ports(), max_clients, "every port is a session's");
    is_refused(lab);
    reach_each_other(&mut guests, "a full house");
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
}
