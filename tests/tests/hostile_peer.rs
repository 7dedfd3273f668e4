//! The helper against a front-end that an attacker has taken over: whatever it says costs it its
//! connection and its ports, and nobody else anything.

use std::fs::File;
use std::os::fd::AsRawFd;
use wsnic_proto::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use wsnic_proto::{ErrorCode, Generation, MacAddr, PortId, Reply, Request, codec};
use wsnic_tests::{HeldPort, Helper, Lab, Peer, open_files, resident_kib, wait_until};

const CONF: &str = "max_clients = 200\n";
/// The most fds that one message can carry (SCM_MAX_FD, net/scm.h).
const MAX_FDS: usize = 253;
/// A user who is neither root nor wsnic's.
const NOBODY: u32 = 65534;

#[test]
fn open_before_hello_ends_the_connection() {
    ends_before_hello(|peer| peer.say(&Request::Open { req: 1, network: 0 }));
}

#[test]
fn no_version_in_common_ends_the_connection() {
    for (magic, min, max) in [
        (MAGIC, VERSION + 1, u16::MAX),
        (MAGIC, 0, VERSION - 1),
        (MAGIC, VERSION + 1, VERSION - 1),
        (MAGIC ^ 1, VERSION, VERSION),
    ] {
        ends_before_hello(|peer| peer.say(&Request::Hello { magic, min, max }));
    }
}

#[test]
fn a_peer_that_says_nothing_is_not_kept() {
    ends_before_hello(|_| true);
}

#[test]
fn a_second_hello_ends_the_connection() {
    ends(|peer, _, _| peer.say(&Peer::hello()));
}

#[test]
fn a_stale_generation_ends_the_connection() {
    ends(close_with_a_stale_generation);
    ends(|peer, own, _| {
        let generation = Generation(own.generation.0.wrapping_add(1));
        peer.say(&Request::Bind {
            req: 1,
            port: own.id,
            generation,
            mac: MacAddr([2; 6]),
            address: [0; 4],
            given: false,
        })
    });
}

#[test]
fn a_port_that_was_closed_already_ends_the_connection() {
    ends(|peer, own, _| {
        let close = Request::Close { req: 1, port: own.id, generation: own.generation };
        peer.say(&close) && peer.say(&close)
    });
}

#[test]
fn somebody_elses_port_ends_the_connection_and_stays_theirs() {
    ends(close_somebody_elses_port);
    ends(|peer, _, other| {
        let (port, generation) = (other.id, other.generation);
        peer.say(&Request::Bind {
            req: 1,
            port,
            generation,
            mac: MacAddr([2; 6]),
            address: [0; 4],
            given: false,
        })
    });
}

#[test]
fn a_port_that_cannot_exist_ends_the_connection() {
    for port in [PortId(199), PortId(200), PortId(u32::MAX)] {
        ends(move |peer, own, _| {
            peer.say(&Request::Close { req: 1, port, generation: own.generation })
        });
    }
}

#[test]
fn an_unknown_variant_ends_the_connection() {
    ends(send_an_unknown_variant);
    ends(|peer, _, _| peer.send(&[0xff; 8], &[]));
}

#[test]
fn packets_of_a_wrong_length_end_the_connection() {
    ends(|peer, _, _| peer.send(&[], &[]));
    ends(send_bytes_behind_the_message);
    ends(|peer, _, _| {
        let packet = codec::encode_request(&Request::Open { req: 1, network: 0 });
        let (_, cut) = packet.as_bytes().split_last().expect("a packet has bytes");
        peer.send(cut, &[])
    });
    for len in [codec::MAX_PACKET, codec::MAX_PACKET + 1, 100_000] {
        ends(move |peer, _, _| {
            // The front of it is a request that would be served.
            let mut packet =
                codec::encode_request(&Request::Open { req: 1, network: 0 }).as_bytes().to_vec();
            packet.resize(len, 0);
            peer.send(&packet, &[])
        });
    }
}

#[test]
fn fds_that_come_along_end_the_connection_and_never_arrive() {
    ends(|peer, _, _| smuggle(peer, &Request::Ping { req: 1 }, 1));
    ends(smuggle_all_that_fit);
    ends_before_hello(|peer| smuggle(peer, &Peer::hello(), MAX_FDS));
}

#[test]
fn more_requests_in_flight_than_allowed_end_the_connection() {
    ends(|peer, _, _| {
        // Opens are answered one by one; closes gather while the kernel deletes the first.
        let ports: Vec<HeldPort> = (0..MAX_IN_FLIGHT * 2 + 20).map(|_| peer.open()).collect();
        for HeldPort { id: port, generation, .. } in &ports {
            // Those behind the one too many may find the connection closed.
            peer.say(&Request::Close { req: 1, port: *port, generation: *generation });
        }
        true
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_waited_for() {
    ends(|peer, _, _| floods(peer, &Request::Ping { req: 1 }));
    ends(|peer, _, _| floods(peer, &Request::Stats { req: 1 }));
}

#[test]
fn ports_that_a_peer_does_not_take_are_deleted() {
    ends(|peer, _, _| {
        // More than there are; each reply carries an fd. What waits is thrown away with the rest.
        for req in 0..300 {
            peer.say(&Request::Open { req, network: 0 });
        }
        peer.finish_sending();
        true
    });
}

#[test]
fn a_half_closed_connection_is_closed() {
    ends(half_close);
}

#[test]
fn what_is_not_served_is_refused_and_the_connection_goes_on() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let peer = Peer::greeted(&helper);
    let (port, other) = (peer.open(), peer.open());
    peer.bind(&other, MacAddr([6; 6]), [192, 168, 86, 9]);
    for network in [1, u16::MAX] {
        peer.say(&Request::Open { req: 2, network });
        refused(&peer, ErrorCode::NoSuchNetwork);
        peer.say(&Request::OpenRoom { req: 2, network, room: [7; 16] });
        refused(&peer, ErrorCode::NoSuchNetwork);
    }
    peer.say(&Request::OpenRoom { req: 2, network: 0, room: [7; 16] });
    refused(&peer, ErrorCode::NoSuchNetwork);
    let (id, generation) = (port.id, port.generation);
    let address = |last| [192, 168, 86, last];
    for (mac, address, code) in [
        (MacAddr::BROADCAST, [0; 4], ErrorCode::NotAllowed),
        (MacAddr::ZERO, [0; 4], ErrorCode::NotAllowed),
        (port.gateway_mac, [0; 4], ErrorCode::NotAllowed),
        (MacAddr([2; 6]), address(1), ErrorCode::NotAllowed),
        (MacAddr([2; 6]), [10, 0, 0, 5], ErrorCode::NotAllowed),
        (MacAddr([4; 6]), address(9), ErrorCode::Taken),
    ] {
        peer.say(&Request::Bind { req: 2, port: id, generation, mac, address, given: false });
        refused(&peer, code);
    }
    peer.close(port);
    peer.close(other);
    drop(peer);
    helper.stop();
    lab.finish();
}

#[test]
fn one_connection_cannot_have_more_ports_than_there_are() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "max_clients = 5\n");
    let peer = Peer::greeted(&helper);
    let mut ports: Vec<HeldPort> = (0..5).map(|_| peer.open()).collect();
    peer.say(&Request::Open { req: 2, network: 0 });
    refused(&peer, ErrorCode::NoPortFree);
    let port = ports.pop().expect("five ports");
    let (id, generation) = (port.id, port.generation);
    peer.close(port);
    let again = peer.open();
    assert_eq!(again.id, id, "the slot is used again");
    assert_ne!(again.generation, generation, "as another port");
    drop(peer);
    wait_until("all ports are gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}

#[test]
fn connections_are_few_and_one_that_ends_makes_room() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    // Those of the start may still be there.
    wait_until("eight connections are served", || {
        let eight: Vec<Peer> = (0..8).map(|_| Peer::connect(&helper)).collect();
        eight.iter().all(|peer| peer.say(&Peer::hello()) && peer.hear().is_some())
            && !peer_is_served(&Peer::connect(&helper))
    });
    wait_until("there is room again", || peer_is_served(&Peer::connect(&helper)));
    helper.stop();
    lab.finish();
}

#[test]
fn another_user_is_refused() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    assert!(Peer::connect_as(&helper, NOBODY).is_none(), "the socket is not for everybody");
    // And if it were: the kernel says who it is.
    helper.open_to_all();
    let peer = Peer::connect_as(&helper, NOBODY).expect("the file system lets everybody");
    peer.say(&Peer::hello());
    peer.wait_for_end();
    assert!(helper.log().contains("this user may not talk to the helper"), "{}", helper.log());
    drop(Peer::connect_as(&helper, 0).expect("root may"));
    drop(Peer::greeted(&helper));
    helper.stop();
    lab.finish();
}

#[test]
fn two_hundred_rounds_of_misuse_cost_the_helper_no_file_and_no_memory() {
    const MISUSES: [Misuse; 7] = [
        close_with_a_stale_generation,
        close_somebody_elses_port,
        send_an_unknown_variant,
        send_bytes_behind_the_message,
        smuggle_all_that_fit,
        half_close,
        |peer, _, _| floods(peer, &Request::Ping { req: 1 }),
    ];
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let witness = Peer::greeted(&helper);
    let port = witness.open();
    let rounds = |count: usize| {
        for misuse in MISUSES.iter().cycle().take(count) {
            commit(&helper, *misuse, &port);
            assert!(answers(&witness));
        }
        wait_until("only the witness has a port", || lab.ports() == 1);
    };
    // What is allocated once is not a leak.
    rounds(4 * MISUSES.len());
    let (files, memory) = (open_files(helper.pid()), resident_kib(helper.pid()));
    rounds(200);
    wait_until("all files are closed", || open_files(helper.pid()) <= files);
    let grown = resident_kib(helper.pid()).saturating_sub(memory);
    assert!(grown < 1024, "the helper has grown by {grown} KiB");
    witness.close(port);
    drop(witness);
    helper.stop();
    lab.finish();
}

/// Something that no front-end does: with the connection, its own port and somebody else's. True
/// if it could be said.
type Misuse = fn(&Peer, &HeldPort, &HeldPort) -> bool;

/// The misuse ends its connection, deletes its ports, and leaves another connection alone.
fn ends(misuse: impl Fn(&Peer, &HeldPort, &HeldPort) -> bool) {
    alone(|helper, witness| commit(helper, &misuse, witness));
}

/// The same for a peer that has not said hello.
fn ends_before_hello(misuse: impl Fn(&Peer) -> bool) {
    alone(|helper, _| {
        let peer = Peer::connect(helper);
        assert!(misuse(&peer), "the helper took it");
        peer.wait_for_end();
    });
}

fn alone(misuse: impl Fn(&Helper, &HeldPort)) {
    let lab = Lab::new();
    let helper = Helper::start(&lab, CONF);
    let witness = Peer::greeted(&helper);
    let port = witness.open();
    wait_until("the connections of the start are closed", || {
        helper.log().matches("has left").count() >= 2
    });
    // It is done with them, and the thread that deletes has opened what it needs.
    witness.close(witness.open());
    let files = open_files(helper.pid());
    misuse(&helper, &port);
    wait_until("its ports are gone, the other's is not", || lab.ports() == 1);
    wait_until("its slots are free", || ports_in_all(&witness) == 1);
    wait_until("its files are closed", || open_files(helper.pid()) <= files);
    assert!(answers(&witness), "another connection goes on:\n{}", helper.log());
    let another = witness.open();
    assert_ne!(another.id, port.id);
    witness.close(another);
    witness.close(port);
    drop(witness);
    helper.stop();
    lab.finish();
}

fn commit(
    helper: &Helper,
    misuse: impl Fn(&Peer, &HeldPort, &HeldPort) -> bool,
    witness: &HeldPort,
) {
    let peer = Peer::greeted(helper);
    let port = peer.open();
    assert!(misuse(&peer, &port, witness), "the helper took it");
    peer.wait_for_end();
}

fn close_with_a_stale_generation(peer: &Peer, own: &HeldPort, _: &HeldPort) -> bool {
    let generation = Generation(own.generation.0.wrapping_sub(1));
    peer.say(&Request::Close { req: 1, port: own.id, generation })
}

fn close_somebody_elses_port(peer: &Peer, _: &HeldPort, other: &HeldPort) -> bool {
    peer.say(&Request::Close { req: 1, port: other.id, generation: other.generation })
}

fn send_an_unknown_variant(peer: &Peer, _: &HeldPort, _: &HeldPort) -> bool {
    // As long as an Open.
    peer.send(&[6, 0, 0, 0, 1, 0, 0, 0, 0, 0], &[])
}

fn send_bytes_behind_the_message(peer: &Peer, _: &HeldPort, _: &HeldPort) -> bool {
    let packet = codec::encode_request(&Request::Ping { req: 1 });
    peer.send(&[packet.as_bytes(), &[0]].concat(), &[])
}

fn smuggle_all_that_fit(peer: &Peer, _: &HeldPort, _: &HeldPort) -> bool {
    smuggle(peer, &Request::Ping { req: 1 }, MAX_FDS)
}

fn half_close(peer: &Peer, _: &HeldPort, _: &HeldPort) -> bool {
    peer.finish_sending();
    true
}

fn smuggle(peer: &Peer, request: &Request, fds: usize) -> bool {
    let file = File::open("/dev/null").expect("a file to send");
    peer.send(codec::encode_request(request).as_bytes(), &vec![file.as_raw_fd(); fds])
}

/// Sends requests without reading the answers; true if the helper does not take them for ever.
fn floods(peer: &Peer, request: &Request) -> bool {
    (0..100_000).any(|_| !peer.say(request))
}

fn peer_is_served(peer: &Peer) -> bool {
    peer.say(&Peer::hello()) && peer.hear().is_some()
}

fn answers(peer: &Peer) -> bool {
    peer.say(&Request::Ping { req: 5 })
        && matches!(peer.hear(), Some((Reply::Pong { req: 5 }, None)))
}

fn ports_in_all(peer: &Peer) -> u32 {
    peer.say(&Request::Stats { req: 6 });
    match peer.hear() {
        Some((Reply::Stats { req: 6, ports_in_all, .. }, None)) => ports_in_all,
        other => panic!("the helper counts ports: {other:?}"),
    }
}

fn refused(peer: &Peer, code: ErrorCode) {
    let answer = peer.hear();
    let expected = Reply::Err { req: 2, code };
    assert!(matches!(&answer, Some((reply, None)) if *reply == expected), "{answer:?}");
}
