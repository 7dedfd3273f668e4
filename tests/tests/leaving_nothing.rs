//! What a run leaves behind: nothing (docs/old-faults.md, fault 4).

use nix::sys::signal::Signal;
use wsnic_tests::{
    Door, HANDSHAKE, Lab, NativeGuest, RawGuest, Server, Snapshot, address, wait_until,
};

#[test]
fn after_sigterm_everything_is_as_before() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\nguest_access = lan\n");
    let guest = NativeGuest::join(&lab);
    assert!(!lab.difference().is_empty(), "a running server is seen");
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn after_sigint_everything_is_as_before() {
    let lab = Lab::new();
    let mut server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = RawGuest::join(&lab);
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
    drop(guest);
    lab.finish();
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let mut lab = Lab::new();
    lab.srv.set_sysctl("net/ipv4/ip_forward", "1");
    lab.settle();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    drop(NativeGuest::join(&lab));
    server.stop();
    lab.finish();
}

#[test]
fn rules_of_others_are_left_alone() {
    let mut lab = Lab::new();
    lab.srv.nft(
        "table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; \
         oifname \"wan0\" ip saddr 10.9.0.0/16 masquerade\n }\n }\n\
         table inet mine { set s { type ipv4_addr; elements = { 10.0.0.1 }; }\n }\n",
    );
    lab.settle();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn two_hundred_joins_and_leaves_leave_nothing() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let rules = || lab.srv.run("nft list ruleset").lines().count();
    let before = rules();
    // One of each first: what is allocated once is not a leak.
    RawGuest::join(&lab).leave();
    wait_until("the first guest's port is gone", || !has_ports(&lab));
    wait_until("so are its rules", || rules() == before);
    let empty = Snapshot::take(&lab.srv, lab.file("").as_path());
    let left = || empty.difference(&Snapshot::take(&lab.srv, lab.file("").as_path()));
    let files = server.open_files();
    for round in 0..200 {
        match round % 4 {
            // In good order, by cutting the line, before the handshake is over, and at its end.
            0 => RawGuest::join(&lab).leave(),
            1 => drop(RawGuest::join(&lab)),
            2 => Door::knock(&lab).send(&HANDSHAKE.as_bytes()[..50]),
            _ => Door::knock(&lab).send(format!("{HANDSHAKE}\r\n").as_bytes()),
        }
    }
    wait_until("all ports are gone", || !has_ports(&lab));
    // The first guest's may still have been open when they were counted.
    wait_until("all files are closed", || {
        server.open_files().iter().zip(&files).all(|(now, before)| now <= before)
    });
    let mut difference = String::new();
    wait_until("nothing is left of 200 guests", || {
        let now = left();
        if now != difference {
            eprintln!("left of 200 guests:\n{now}");
        }
        difference = now;
        difference.is_empty()
    });
    server.stop();
    lab.finish();
}

#[test]
fn guests_that_come_all_at_once_are_all_served_and_leave_nothing() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let guests: Vec<RawGuest> = (0..15).map(|_| RawGuest::join(&lab)).collect();
                guests.into_iter().for_each(|mut guest| guest.ping_gateway(56));
            });
        }
    });
    wait_until("all ports are gone", || !has_ports(&lab));
    server.stop();
    lab.finish();
}

fn has_ports(lab: &Lab) -> bool {
    lab.srv.ip("-o link show").contains("wstap")
}

#[test]
fn routing_that_the_operator_turns_on_meanwhile_works_and_stays_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    assert!(lab.srv.nft_lists("iifname \"wan0\" counter"), "closed to all but guests");
    lab.srv.set_sysctl("net/ipv4/ip_forward", "1");
    server.wait_for_log("somebody has changed how this host forwards packets");
    wait_until("the uplink is open again", || !lab.srv.nft_lists("iifname \"wan0\" counter"));
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    server.stop();
    drop(guest);
    assert_eq!(lab.srv.sysctl("net/ipv4/conf/wan0/forwarding"), "1");
    lab.srv.set_sysctl("net/ipv4/ip_forward", "0");
    lab.finish();
}

#[test]
fn routing_that_somebody_turns_off_comes_back_for_guests() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    lab.srv.set_sysctl("net/ipv4/ip_forward", "1");
    lab.srv.set_sysctl("net/ipv4/ip_forward", "0");
    server.wait_for_log("somebody has changed how this host forwards packets");
    wait_until("the guest reaches the Internet again", || {
        guest.hears(address::WEB, address::NAMED_PORT).as_deref() == Some("web")
    });
    server.stop();
    drop(guest);
    lab.finish();
}
