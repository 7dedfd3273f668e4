//! Helpers that are killed one after the other without a pause, under sessions and requests: none
//! of a hundred sessions is lost, and every request is met by a later helper or refused.

use nix::sys::signal::Signal;
use std::time::Duration;
use wsnic_tests::{Door, HANDSHAKE, Keeper, Lab, Peer, RawGuest, Server, wait_until};

/// A hundred sessions, one that comes late, and room.
const CONF: &str = "max_clients = 110\n";
/// The group of TAPs that are about to be deleted.
const DYING_GROUP: u32 = 0x7773_0002;
/// Requests that the front-end has under way at most.
const IN_FLIGHT: usize = 64;

#[test]
fn a_hundred_sessions_outlive_ten_helpers_killed_in_a_row() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..100).map(|_| RawGuest::connect(&lab)).collect();
    reach_each_other(&mut guests, "before.");
    let front_end = keeper.front_end();
    for round in 0..10 {
        keeper.kill_helper();
        reach_each_other(&mut guests, &format!("{round}, without a helper."));
        keeper.start_helper();
        reach_each_other(&mut guests, &format!("{round}, while one starts."));
        keeper.wait_until_the_helper_serves();
        RawGuest::join(&lab).ping_gateway(56);
        reach_each_other(&mut guests, &format!("{round}, after."));
    }
    assert_eq!(keeper.front_end(), front_end);
    wait_until("only the hundred have ports", || lab.ports() == guests.len());
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn a_hundred_sessions_outlive_a_helper_that_wsnic_run_starts_again() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..100).map(|_| RawGuest::connect(&lab)).collect();
    reach_each_other(&mut guests, "before.");
    let front_end = server.front_end();
    for round in 0..2 {
        let killed = server.helper();
        server.without_program("wsnic-priv", || {
            reach_each_other(&mut guests, &format!("{round}, without."));
        });
        // The first client to come gets its port from the next helper, or is refused and comes again.
        wait_until("a new client is served", || try_connect(&lab).is_some());
        assert_ne!(server.helper(), killed);
        reach_each_other(&mut guests, &format!("{round}, after."));
    }
    assert_eq!(server.front_end(), front_end);
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn a_front_end_that_was_stopped_while_helpers_died_loses_no_session() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..5).map(|_| RawGuest::connect(&lab)).collect();
    for deaths in [1, 2, 6] {
        // As many wait as may, and more.
        keeper.signal_helper(Signal::SIGSTOP);
        let waiting: Vec<Door> = (0..IN_FLIGHT + 10).map(|_| knock(&lab)).collect();
        pause(100);
        keeper.signal_front_end(Signal::SIGSTOP);
        (0..deaths).for_each(|_| keeper.replace_helper());
        keeper.signal_front_end(Signal::SIGCONT);
        let served = are_answered(waiting);
        reach_each_other(&mut guests, &format!("{deaths} deaths."));
        assert_eq!(lab.ports(), guests.len() + served.len(), "each port is a session's");
        drop(served);
        wait_until("their ports are gone", || lab.ports() == guests.len());
    }
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn a_port_that_a_helper_was_deleting_when_it_died_is_in_no_new_clients_way() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let (mut dying, other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    keeper.kill_helper();
    // Deleted are those of a group, after they were put there.
    lab.srv.ip(&format!("link set wstap0 group {DYING_GROUP}"));
    keeper.start_helper();
    keeper.wait_until_the_helper_serves();
    wait_until("it is gone", || lab.ports() == 1);
    RawGuest::join(&lab).ping_gateway(56);
    assert_eq!(dying.close_code(), 1011);
    drop((dying, other));
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn a_stopped_front_end_keeps_its_sessions_and_holds_up_no_other() {
    let lab = Lab::new();
    let keeper = Keeper::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..10).map(|_| RawGuest::join(&lab)).collect();
    keeper.signal_front_end(Signal::SIGSTOP);
    // More than its queues hold: the rest is lost, and only here.
    for guest in &mut guests {
        (0..100).for_each(|_| guest.shout("into a closed door"));
    }
    let other = Peer::greeted_at(&keeper.socket());
    for _ in 0..5 {
        let ports: Vec<_> = (0..10).map(|_| other.open()).collect();
        ports.into_iter().for_each(|port| other.close(port));
    }
    // What it is told waits for it.
    lab.srv.ip("link delete wstap9");
    wait_until("nine have their ports", || lab.ports() == 9);
    drop(other);
    keeper.signal_front_end(Signal::SIGCONT);
    assert_eq!(guests.pop().expect("ten guests").close_code(), 1011);
    // What is still in the queues would leave no room for more.
    for guest in &mut guests {
        while guest.receive_within(Duration::from_millis(300)).is_some() {}
    }
    reach_each_other(&mut guests, "we are back");
    guests.iter_mut().for_each(|guest| guest.ping_gateway(56));
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn opens_in_flight_of_killed_helpers_are_met_or_refused_and_leak_no_tap() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..3).map(|_| RawGuest::connect(&lab)).collect();
    let mut numbers = Numbers(0x5eed);
    let mut met = 0;
    for round in 0..12 {
        let waiting: Vec<Door> = (0..IN_FLIGHT + 10).map(|_| knock(&lab)).collect();
        // The first ones are being made, or have been; then it dies, and the next one perhaps too.
        for _ in 0..=numbers.below(3) {
            pause(numbers.below(25));
            keeper.kill_helper();
            keeper.start_helper();
        }
        let served = are_answered(waiting);
        met += served.len();
        reach_each_other(&mut guests, &format!("round {round}."));
        wait_until("each port is a session's", || lab.ports() == guests.len() + served.len());
        // And it may die while it deletes them.
        drop(served);
        pause(numbers.below(25));
        keeper.replace_helper();
        wait_until("their ports are gone", || lab.ports() == guests.len());
    }
    assert!(met > 0, "some were met");
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    // Every slot is free.
    let all: Vec<RawGuest> = (0..110).map(|_| RawGuest::connect(&lab)).collect();
    assert!(try_connect(&lab).is_none(), "no more than there are");
    drop(all);
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

#[test]
fn a_bridge_deleted_while_no_helper_runs_ends_its_sessions_and_is_made_again() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, CONF);
    let mut guests: Vec<RawGuest> = (0..3).map(|_| RawGuest::connect(&lab)).collect();
    keeper.kill_helper();
    lab.srv.ip("link delete wsbr0");
    keeper.start_helper();
    keeper.wait_until_the_helper_serves();
    for guest in &mut guests {
        assert_eq!(guest.close_code(), 1011);
    }
    wait_until("the ports of before are gone", || lab.ports() == 0);
    RawGuest::join(&lab).ping_gateway(56);
    drop(guests);
    wait_until("all ports are gone", || lab.ports() == 0);
    keeper.stop();
    lab.finish();
}

/// A client that has asked for a session and waits.
fn knock(lab: &Lab) -> Door {
    let mut door = Door::knock(lab);
    door.send(format!("{HANDSHAKE}\r\n").as_bytes());
    door
}

/// Each gets a session or a 503; those with a session.
fn are_answered(waiting: Vec<Door>) -> Vec<Door> {
    let served = waiting.into_iter().filter_map(|mut door| match door.response().status {
        101 => Some(door),
        503 => None,
        other => panic!("a client was answered {other}"),
    });
    served.collect()
}

fn try_connect(lab: &Lab) -> Option<RawGuest> {
    RawGuest::connect_to(&lab.srv, Server::address(), "/", &[]).ok()
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

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// The same numbers at every run (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}
