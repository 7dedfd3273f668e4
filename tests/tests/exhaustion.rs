//! What runs out costs those who come too late a 503 or some patience, nobody else anything, and
//! is served again when there is some.

use std::collections::BTreeSet;
use std::process::Command;
use wsnic_proto::{ErrorCode, Reply, Request};
use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames::Dhcp;
use wsnic_tests::{Door, HANDSHAKE, Helper, Lab, Peer, RawGuest, Server, wait_until};

#[test]
fn without_a_free_file_the_front_end_pauses_or_says_503_and_then_goes_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::join(&lab));
    let front_end = server.front_end();
    // Room for a client and not for its port, for one of two, and for nobody.
    for room in [1, 3, 0] {
        let limit = leave_files(&lab, front_end, room);
        let mut waiting: Vec<Door> = (0..4)
            .map(|_| {
                let mut door = Door::knock(&lab);
                door.send(format!("{HANDSHAKE}\r\n").as_bytes());
                door
            })
            .collect();
        one.shout("meanwhile");
        other.hear("meanwhile");
        one.ping_gateway(56);
        limit_files(&lab, front_end, limit);
        let statuses: Vec<u16> = waiting.iter_mut().map(|door| door.response().status).collect();
        assert!(statuses.iter().all(|status| [101, 503].contains(status)), "{statuses:?}");
        let served = statuses.iter().filter(|status| **status == 101).count();
        wait_until("each port is a session's", || lab.ports() == 2 + served);
        drop(waiting);
        wait_until("their ports are gone", || lab.ports() == 2);
        RawGuest::join(&lab).ping_gateway(56);
        wait_until("its port is gone", || lab.ports() == 2);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn without_a_free_file_the_helper_refuses_ports_and_then_goes_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::join(&lab));
    let helper = server.helper();
    let limit = leave_files(&lab, helper, 0);
    assert_eq!(status_of_a_newcomer(&lab), 503);
    one.shout("meanwhile");
    other.hear("meanwhile");
    drop(other);
    wait_until("a port can be deleted", || lab.ports() == 1);
    limit_files(&lab, helper, limit);
    RawGuest::join(&lab).ping_gateway(56);
    one.ping_gateway(56);
    drop(one);
    server.stop();
    lab.finish();
}

#[test]
fn when_every_port_is_taken_the_next_is_told_so_and_a_free_one_is_given_again() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "max_clients = 3\n");
    let (peer, other) = (Peer::greeted(&helper), Peer::greeted(&helper));
    let mut ports: Vec<_> = (0..3).map(|_| peer.open()).collect();
    for asking in [&peer, &other] {
        asking.say(&Request::Open { req: 4, network: 0 });
        let answer = asking.hear();
        let expected = Reply::Err { req: 4, code: ErrorCode::NoPortFree };
        assert!(matches!(&answer, Some((reply, None)) if *reply == expected), "{answer:?}");
    }
    peer.close(ports.pop().expect("three ports"));
    drop(other.open());
    drop((peer, other, ports));
    wait_until("all ports are gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}

#[test]
fn a_bridge_that_takes_no_more_ports_costs_the_late_a_503_and_leaves_no_tap() {
    // The kernel gives a bridge 1,023 ports (BR_MAX_PORTS); others may have taken them.
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::join(&lab));
    fill_bridge(&lab, "add");
    assert_eq!(status_of_a_newcomer(&lab), 503);
    server.wait_for_log("cannot make a TAP");
    assert_eq!(lab.ports(), 2);
    one.shout("meanwhile");
    other.hear("meanwhile");
    fill_bridge(&lab, "delete");
    RawGuest::join(&lab).ping_gateway(56);
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_without_an_address_waits_harms_nobody_and_gets_one_that_is_freed() {
    let lab = Lab::new();
    // A gateway and five guests.
    let server = Server::start(&lab, "subnet = 192.168.86.0/29\n");
    let mut guests: Vec<RawGuest> = (0..5).map(|_| RawGuest::join(&lab)).collect();
    let mut late = RawGuest::connect(&lab);
    late.send(&Dhcp::new(1, late.mac).frame());
    server.wait_for_log("dhcp: no address left");
    late.shout("without an address");
    for guest in &mut guests {
        guest.hear("without an address");
        guest.ping_gateway(56);
    }
    let leaving = guests.last_mut().expect("five guests");
    let gateway = GATEWAY.octets();
    let release = Dhcp { ciaddr: leaving.ip, ..Dhcp::new(7, leaving.mac) }.with(54, &gateway);
    leaving.send(&release.frame());
    // It is heard before the next message of this guest is.
    leaving.ping_gateway(56);
    late.dhcp();
    late.ping_gateway(56);
    drop((guests, late));
    server.stop();
    lab.finish();
}

/// Takes all files but `room` from a process; gives how many it might open before.
///
/// As its own user: another one, even root, may need a capability for it that a container has not.
fn leave_files(lab: &Lab, pid: u32, room: usize) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let limit = line.split_whitespace().nth(3).and_then(|word| word.parse().ok());
    let used = || -> BTreeSet<usize> {
        let used = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        used.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok()).collect()
    };
    // It opens files for a moment now and then, which are not to count.
    let mut always = used();
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        always = always.intersection(&used()).copied().collect();
    }
    let used = always;
    let free = (0..).filter(|number| !used.contains(number));
    limit_files(lab, pid, free.take(room + 1).last().expect("numbers do not end"));
    limit.expect("a number")
}

fn limit_files(lab: &Lab, pid: u32, files: usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let id = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("its ids");
        line.split_whitespace().nth(1).expect("a number").to_owned()
    };
    let (user, group) = (id("Uid:"), id("Gid:"));
    lab.srv.run(&format!(
        "setpriv --reuid={user} --regid={group} --clear-groups prlimit --pid {pid} --nofile={files}:"
    ));
}

fn status_of_a_newcomer(lab: &Lab) -> u16 {
    let mut door = Door::knock(lab);
    door.send(format!("{HANDSHAKE}\r\n").as_bytes());
    door.response().status
}

/// Pairs of interfaces: with both ends, one more than a bridge takes.
const PAIRS: usize = 512;

/// Puts all the interfaces on the bridge that it takes, or takes them away.
fn fill_bridge(lab: &Lab, verb: &str) {
    let commands: String = match verb {
        "add" => (0..PAIRS)
            .map(|n| {
                format!(
                    "link add full{n}a type veth peer name full{n}b\n\
                     link set full{n}a master wsbr0\nlink set full{n}b master wsbr0\n"
                )
            })
            .collect(),
        _ => (0..PAIRS).map(|n| format!("link delete full{n}a\n")).collect(),
    };
    let file = lab.file("batch");
    std::fs::write(&file, commands).expect("a file in the lab's folder");
    // The last of them do not fit.
    lab.srv.output(Command::new("ip").args(["-force", "-batch"]).arg(&file));
    std::fs::remove_file(&file).expect("it was just written");
}

#[test]
fn ports_that_are_still_being_deleted_are_in_nobodys_way() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "max_clients = 20\n");
    let peer = Peer::greeted(&helper);
    let ports: Vec<_> = (0..20).map(|_| peer.open()).collect();
    for port in &ports {
        peer.say(&Request::Close { req: 1, port: port.id, generation: port.generation });
    }
    (0..20).for_each(|_| assert!(peer.say(&Request::Open { req: 2, network: 0 })));
    let mut taps = Vec::new();
    for _ in 0..40 {
        match peer.hear() {
            Some((Reply::Opened { req: 2, .. }, Some(tap))) => taps.push(tap),
            Some((Reply::Done { req: 1 }, None)) => {}
            other => panic!("each is met: {other:?}"),
        }
    }
    assert_eq!(taps.len(), 20);
    drop((ports, taps, peer));
    wait_until("all ports are gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}
