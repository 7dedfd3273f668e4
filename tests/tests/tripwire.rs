//! A front-end that an attacker has taken over, past its system call filter, changes a TAP of its
//! own: it loses its connection and all its ports, and nobody else anything.

use nix::errno::Errno;
use wsnic_proto::{Reply, Request};
use wsnic_tests::{HeldPort, Helper, Lab, Peer, Tampering, wait_until};

/// Both ports of a peer send from one address.
const CONF: &str = "locks = no\n";

/// A frame to all, of the EtherType for experiments (IEEE 802, 0x88b5).
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let mut at = 0;
    while at < 6 {
        frame[at] = 0xff;
        at += 1;
    }
    (frame[6], frame[12], frame[13]) = (2, 0x88, 0xb5);
    frame
};

#[test]
fn another_mac_address_costs_the_connection_and_all_its_ports() {
    trips(Tampering::Address, "its MAC address");
}

#[test]
fn persistence_costs_the_connection_and_all_its_ports() {
    trips(Tampering::Persist, "its persistence");
}

#[test]
fn another_owner_costs_the_connection_and_all_its_ports() {
    trips(Tampering::Owner, "its owner");
}

#[test]
fn another_group_costs_the_connection_and_all_its_ports() {
    trips(Tampering::Group, "its group");
}

#[test]
fn what_the_kernel_does_not_tell_of_harms_nobody_else() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let (bystander, ports) = bystander(&helper);
    let peer = Peer::greeted(&helper);
    let port = peer.open();
    for tampering in [Tampering::Carrier, Tampering::Offload, Tampering::SendBuffer] {
        tampering.apply(&port.tap);
    }
    is_unharmed(&bystander, &ports);
    is_served(&peer);
    drop((peer, port, bystander, ports));
    wait_until("all ports are gone", || lab.ports() == 0);
    assert!(!helper.log().contains("tampered"), "an end is no tampering:\n{}", helper.log());
    helper.stop();
    lab.finish();
}

#[test]
fn what_an_administrator_does_to_a_port_is_not_held_against_the_front_end() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let (peer, ports) = bystander(&helper);
    let name = format!("wstap{}", ports[0].id.0);
    for change in
        ["mtu 1300", "mtu 1500", "down", "up", "txqueuelen 100", "alias mine", "promisc on"]
    {
        lab.srv.ip(&format!("link set {name} {change}"));
    }
    lab.srv.ip(&format!("link set {name} nomaster"));
    lab.srv.ip(&format!("link set {name} master wsbr0"));
    is_unharmed(&peer, &ports);
    assert!(!helper.log().contains("tampered"), "{}", helper.log());
    drop((peer, ports));
    helper.stop();
    lab.finish();
}

#[test]
fn ports_that_come_and_go_in_a_herd_raise_no_alarm() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "max_clients = 200\n");
    let peer = Peer::greeted(&helper);
    for _ in 0..3 {
        let mut ports: Vec<HeldPort> = (0..60).map(|_| peer.open()).collect();
        // Some are closed in order, the rest end with their fd.
        ports.drain(..20).for_each(|port| peer.close(port));
        drop(ports.drain(..20));
        for HeldPort { id: port, generation, .. } in ports {
            peer.say(&Request::Close { req: 1, port, generation });
            while !matches!(peer.hear(), Some((Reply::Done { req: 1 }, None))) {}
        }
    }
    is_served_behind_events(&peer);
    drop(peer);
    wait_until("all ports are gone", || lab.ports() == 0);
    assert!(!helper.log().contains("tampered"), "{}", helper.log());
    helper.stop();
    lab.finish();
}

/// The helper names port and change, and hangs up; everything of that connection goes.
fn trips(tampering: Tampering, what: &str) {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let (bystander, others) = bystander(&helper);
    let peer = Peer::greeted(&helper);
    let ports: Vec<HeldPort> = (0..5).map(|_| peer.open()).collect();
    tampering.apply(&ports[3].tap);
    peer.wait_for_end();
    wait_until("its ports are gone, their fds open or not", || lab.ports() == others.len());
    let log = helper.log();
    let name = format!("wstap{}", ports[3].id.0);
    let line = log.lines().find(|line| line.contains("tampered")).expect("it is said");
    assert!(line.contains(" ERROR ") && line.contains(&name) && line.contains(what), "{line}");
    is_unharmed(&bystander, &others);
    // The real front-end comes again.
    let again = Peer::greeted(&helper);
    again.open();
    drop((again, bystander, others, ports));
    wait_until("all ports are gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}

/// Another front-end with two ports.
fn bystander(helper: &Helper) -> (Peer, [HeldPort; 2]) {
    let peer = Peer::greeted(helper);
    let ports = [peer.open(), peer.open()];
    is_unharmed(&peer, &ports);
    (peer, ports)
}

fn is_unharmed(peer: &Peer, [one, other]: &[HeldPort; 2]) {
    is_served(peer);
    pass(one, other);
    pass(other, one);
}

fn is_served(peer: &Peer) {
    assert!(peer.say(&Request::Ping { req: 9 }), "the connection is open");
    let answer = peer.hear();
    assert!(matches!(answer, Some((Reply::Pong { req: 9 }, None))), "{answer:?}");
}

/// As [`is_served`], where the helper may have sent events before.
fn is_served_behind_events(peer: &Peer) {
    assert!(peer.say(&Request::Ping { req: 9 }), "the connection is open");
    loop {
        match peer.hear() {
            Some((Reply::Pong { req: 9 }, None)) => return,
            Some((Reply::Revoked { .. }, None)) => {}
            other => panic!("a ping is answered: {other:?}"),
        }
    }
}

/// A frame gets from one TAP to the other.
fn pass(from: &HeldPort, to: &HeldPort) {
    wait_until("a frame has passed", || {
        from.send(&FRAME).expect("a TAP takes a frame");
        loop {
            match to.receive() {
                Ok(frame) if frame == FRAME => return true,
                Ok(_) => {}
                Err(Errno::EAGAIN) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    });
}
