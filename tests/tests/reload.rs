//! SIGHUP: what guests may reach changes while they are there, and a wrong file changes nothing.

use nix::sys::signal::Signal;
use std::fs;
use wsnic_tests::address::{NAMED_PORT, PRIVATE, WEB};
use wsnic_tests::{Lab, NativeGuest, Server};

const NAT: &str = "inet_iface = wan0\n";

fn change(lab: &Lab, server: &Server, conf: &str, log: &str) {
    fs::write(lab.file("wsnic.conf"), conf).expect("the lab's file can be written");
    server.signal(Signal::SIGHUP);
    server.wait_for_log(log);
}

#[test]
fn a_reload_applies_to_guests_that_are_there_and_ends_no_session() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let guest = NativeGuest::join(&lab);
    let programs = (server.helper(), server.front_end());
    assert_eq!(guest.hears(PRIVATE, NAMED_PORT), None);
    change(&lab, &server, &format!("{NAT}guest_access = lan\n"), "private networks;");
    assert_eq!(guest.hears(PRIVATE, NAMED_PORT).as_deref(), Some("private"));
    change(&lab, &server, &format!("{NAT}deny = {WEB}\n"), "reloaded: guests reach the Internet;");
    assert_eq!(guest.hears(PRIVATE, NAMED_PORT), None);
    assert_eq!(guest.hears(WEB, NAMED_PORT), None);
    assert_eq!(programs, (server.helper(), server.front_end()), "nothing was started again");
    // What was loaded is what counts after a crash, too.
    server.without_program("wsnic-priv", || ());
    server.wait_for_log("going on with a front-end");
    assert_eq!(guest.hears(WEB, NAMED_PORT), None);
    assert_eq!(lab.ports(), 1, "the session is there");
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn what_needs_a_restart_is_named_and_waits_for_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let conf = format!("{NAT}subnet = 10.77.0.0/24\nallow = {PRIVATE}\n");
    change(&lab, &server, &conf, "reloaded");
    let log = server.log();
    assert!(log.contains("takes effect at the next start option=\"subnet\""), "{log}");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.hears(PRIVATE, NAMED_PORT).as_deref(), Some("private"));
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn a_wrong_file_is_refused_with_its_line_and_everything_goes_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{NAT}guest_access = lan\n"));
    let guest = NativeGuest::join(&lab);
    let conf = format!("{NAT}guest_access = wan\n");
    change(&lab, &server, &conf, "not reloaded, going on as before");
    let log = server.log();
    assert!(log.contains("wsnic.conf:2: guest_access=\"wan\""), "{log}");
    assert_eq!(guest.hears(PRIVATE, NAMED_PORT).as_deref(), Some("private"));
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn the_front_end_outlives_a_hangup_signal() {
    let lab = Lab::new();
    let server = Server::start(&lab, NAT);
    let front_end = server.front_end();
    server.signal_program("wsnic-front", Signal::SIGHUP);
    server.wait_for_log("options of the front-end take effect at its next start");
    assert_eq!(server.front_end(), front_end);
    server.stop();
    lab.finish();
}
