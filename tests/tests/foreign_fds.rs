//! The helper against fds from outside, sent by the crate passfd, which shares nothing with our own
//! end: none arrives, none is kept, and no other front-end notices.

use passfd::FdPassingExt;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use wsnic_proto::{Reply, Request, codec};
use wsnic_tests::{Helper, Lab, Peer, open_files, resident_kib, wait_until};

/// The longest packets are far beyond what the helper takes.
const LENGTHS: [usize; 6] = [0, 1, 5, codec::MAX_PACKET, codec::MAX_PACKET + 1, 60_000];

#[test]
fn fds_with_packets_of_every_length_end_their_connection_only() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let witness = Peer::greeted(&helper);
    let port = witness.open();
    let file = File::open("/dev/null").expect("a file to send");
    let mut usual = None;
    for round in 0..10 {
        for greeted in [true, false] {
            for len in LENGTHS {
                let peer = if greeted { Peer::greeted(&helper) } else { Peer::connect(&helper) };
                // More than the first one may be taken before the helper hangs up.
                let sent = (0..20).take_while(|_| {
                    peer.as_raw_fd().send_fd_with_payload(file.as_raw_fd(), &vec![3; len]).is_ok()
                });
                assert!(sent.count() > 0, "a packet of {len} bytes was sent");
                peer.wait_for_end();
            }
        }
        is_unharmed(&witness);
        wait_until("their connections are closed", || {
            helper.log().matches("hung up on a front-end").count()
                + helper.log().matches("a front-end has left").count()
                >= (round + 1) * 2 * LENGTHS.len()
        });
        // What is allocated once is not a leak.
        let now = (open_files(helper.pid()), resident_kib(helper.pid()));
        let (files, memory) = *usual.get_or_insert(now);
        wait_until("their files are closed", || open_files(helper.pid()) <= files);
        assert!(now.1 < memory + 1024, "from {memory} to {} KiB", now.1);
    }
    witness.close(port);
    drop(witness);
    helper.stop();
    lab.finish();
}

#[test]
fn a_port_comes_to_a_program_that_receives_it_by_other_means() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let peer = Peer::greeted(&helper);
    assert!(peer.say(&Request::Open { req: 1, network: 0 }));
    let raw = peer.as_raw_fd().recv_fd().expect("one fd comes with the reply");
    let tap = own(raw);
    let target = std::fs::read_link(format!("/proc/self/fd/{raw}")).expect("it is open");
    assert_eq!(target.to_str(), Some("/dev/net/tun"));
    is_unharmed(&peer);
    drop((peer, tap));
    wait_until("its port is gone", || lab.ports() == 0);
    helper.stop();
    lab.finish();
}

/// Its connection answers and its port is there.
fn is_unharmed(peer: &Peer) {
    assert!(peer.say(&Request::Stats { req: 2 }));
    let answer = peer.hear();
    assert!(matches!(answer, Some((Reply::Stats { req: 2, ports: 1, .. }, None))), "{answer:?}");
}

/// Takes ownership of an fd that the kernel has just given to this process.
#[allow(unsafe_code)]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: it came with a message that was just received, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
