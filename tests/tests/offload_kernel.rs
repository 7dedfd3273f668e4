//! What wsnic does for TAP offloads is what the kernel does, byte for byte.
//!
//! On a bridge are three TAPs: what is written to the first, the kernel cuts for the second, which
//! is plain, and hands uncut to the third, which has offloads. A write returns when the frames are
//! in the queues of the others, and behind each a mark is sent: nothing here waits.

#[path = "../../wsnic-proto/tests/support/packets.rs"]
mod packets;

use packets::{ACK, CWR, DONT_FRAGMENT, FIN, Ip, PSH, Packet, Transport, URG, data, tcp, v4, v6};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use wsnic_proto::offload::{HEADER_LEN, Offered, Run, Segments};
use wsnic_tests::{Netns, frames, offloaded_tap, plain_tap, wait_until};

/// A bridge without addresses, on which nobody speaks but the test.
struct Bridge {
    _netns: Netns,
    writer: File,
    plain: File,
    offloaded: File,
    takes_udp: bool,
}

impl Bridge {
    fn new() -> Bridge {
        let netns = Netns::new();
        for which in ["all", "default"] {
            netns.set_sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        netns.ip("link add bridge0 type bridge mcast_snooping 0");
        let (writer, takes_udp) = offloaded_tap(&netns, "writer");
        let plain = plain_tap(&netns, "plain");
        let (offloaded, _) = offloaded_tap(&netns, "offloaded");
        for name in ["writer", "plain", "offloaded"] {
            netns.ip(&format!("link set {name} master bridge0 up"));
        }
        netns.ip("link set bridge0 up");
        wait_until("all ports forward", || {
            netns.run("bridge link show").matches("state forwarding").count() == 3
        });
        Bridge { _netns: netns, writer, plain, offloaded, takes_udp }
    }

    /// Writes this, and returns what comes out of the plain TAP and of the one with offloads.
    fn pass(&mut self, written: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let accepted = self.writer.write(written).expect("the kernel takes what was joined");
        assert_eq!(accepted, written.len());
        let mark = frames::ethernet(frames::BROADCAST, [2; 6], frames::EXPERIMENTAL, &[0; 46]);
        let with_header = [&[0; HEADER_LEN][..], &mark].concat();
        self.writer.write_all(&with_header).expect("the kernel takes a frame");
        (read_until(&mut self.plain, &mark), read_until(&mut self.offloaded, &with_header))
    }
}

/// All frames before `mark`.
fn read_until(tap: &mut File, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut read = Vec::new();
    let mut buffer = vec![0; 70_000];
    wait_until("the mark comes", || {
        loop {
            match tap.read(&mut buffer) {
                Ok(len) if buffer[..len] == *mark => return true,
                Ok(len) => read.push(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("reading a TAP: {error}"),
            }
        }
    });
    read
}

fn cut(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet).expect("a super-frame that can be cut");
    let mut frames = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut frame = vec![0; len];
        segments.write_next(&mut frame);
        frames.push(frame);
    }
    frames
}

/// IP headers of all kinds that the kernel segments.
fn headers_of_ip() -> Vec<Ip> {
    let v4_with = |tos, id, fragment, options| Ip::V4 { tos, id, fragment, ttl: 7, options };
    let v6_with = |extensions| Ip::V6 { class_and_flow: 0x0b8f_edcb, hop_limit: 1, extensions };
    vec![
        v4(),
        v4_with(0xb9, 0xfffe, 0, vec![]),
        v4_with(2, 0, DONT_FRAGMENT, vec![1; 12]),
        v6(),
        v6_with(vec![(60, vec![0, 1, 4, 0, 0, 0, 0])]),
        v6_with(vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, [&[1, 1, 12][..], &[0; 12]].concat())]),
    ]
}

/// The kernel cuts what it reads as wsnic cuts the same bytes, and what it hands on uncut.
fn assert_same(bridge: &mut Bridge, packet: &Packet, written: &[u8]) {
    let ours = cut(written);
    let (by_kernel, uncut) = bridge.pass(written);
    let lens = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lens(&ours), lens(&by_kernel), "{packet:?}");
    for (ours, by_kernel) in ours.iter().zip(&by_kernel) {
        assert_eq!(ours, by_kernel, "{packet:?}");
    }
    let read: Vec<Vec<u8>> = uncut.iter().flat_map(|read| cut(read)).collect();
    assert_eq!(read, by_kernel, "{packet:?}");
}

#[test]
fn super_frames_of_tcp_are_cut_as_the_kernel_cuts_them() {
    let mut bridge = Bridge::new();
    for ip in headers_of_ip() {
        for flags in [ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | CWR | FIN | PSH | URG] {
            for options in [0, 12, 40] {
                for (payload, size) in [(3000, 1448), (1001, 1000), (4321, 333), (2896, 1448)] {
                    let transport = Transport::Tcp {
                        sequence: u32::MAX - 1800,
                        acknowledged: 0x89ab_cdef,
                        flags,
                        window: 0xfedc,
                        urgent: if flags & URG == 0 { 0 } else { 5 },
                        options: vec![1; options],
                    };
                    let packet = Packet::new(ip.clone(), transport, data(payload));
                    let mut written = packet.super_frame(size);
                    assert_same(&mut bridge, &packet, &written);
                    // CWR without the bit for it.
                    written[1] &= 0x7f;
                    assert_same(&mut bridge, &packet, &written);
                }
            }
        }
        let packet = Packet::new(ip, tcp(ACK), data(65_000));
        assert_same(&mut bridge, &packet, &packet.super_frame(1448));
        assert_same(&mut bridge, &packet, &packet.super_frame(89));
    }
}

#[test]
fn super_frames_of_udp_are_cut_as_the_kernel_cuts_them() {
    let mut bridge = Bridge::new();
    if !bridge.takes_udp {
        eprintln!("SKIPPED: this kernel takes no super-frames of UDP");
        return;
    }
    for ip in headers_of_ip() {
        for (payload, size) in [(3000, 1472), (1001, 1000), (4321, 333), (2944, 1472), (127, 1)] {
            let packet = Packet::new(ip.clone(), Transport::Udp, data(payload));
            assert_same(&mut bridge, &packet, &packet.super_frame(size));
        }
    }
    // A checksum of 0 that is not to be taken for none.
    let datagram = |number: u16| {
        let payload = [&number.to_be_bytes()[..], &data(98)].concat().repeat(2);
        Packet::new(v4(), Transport::Udp, payload)
    };
    let zero = (0..=u16::MAX).map(datagram).find(|packet| {
        let frame = packet.cut(100)[1].bytes();
        frame[40..42] == [0xff, 0xff]
    });
    let zero = zero.expect("some datagram has a checksum of 0");
    assert_same(&mut bridge, &zero, &zero.super_frame(100));
}

#[test]
fn super_frames_behind_a_vlan_tag_are_cut_as_the_kernel_cuts_them() {
    let mut bridge = Bridge::new();
    for ip in headers_of_ip() {
        let mut packet = Packet::new(ip, tcp(ACK | PSH), data(4000));
        packet.tags = vec![0x81, 0x00, 0x60, 0x05];
        assert_same(&mut bridge, &packet, &packet.super_frame(1448));
        packet.payload.truncate(1000);
        assert_same(&mut bridge, &packet, &packet.unfinished());
    }
}

#[test]
fn checksums_are_finished_as_the_kernel_finishes_them() {
    let mut bridge = Bridge::new();
    for ip in headers_of_ip() {
        for transport in [tcp(ACK | PSH), Transport::Udp] {
            for payload in [0, 1, 2, 777, 1400] {
                let packet = Packet::new(ip.clone(), transport.clone(), data(payload));
                assert_same(&mut bridge, &packet, &packet.unfinished());
            }
        }
    }
    for transport in [tcp(ACK), Transport::Udp] {
        let packet = |number: u16| {
            let payload = [&number.to_be_bytes()[..], &data(30)].concat();
            Packet::new(v4(), transport.clone(), payload)
        };
        let sums_to_zero = |packet: &Packet| {
            let at = if packet.transport == Transport::Udp { 40 } else { 50 };
            [[0, 0], [0xff, 0xff]].contains(&[packet.bytes()[at], packet.bytes()[at + 1]])
        };
        let zero = (0..=u16::MAX).map(packet).find(sums_to_zero);
        let zero = zero.expect("some packet has a checksum of 0");
        assert_same(&mut bridge, &zero, &zero.unfinished());
    }
}

/// The frames of a guest's flow that is cut from one packet.
fn flow(ip: &Ip, flags: u8, payload: usize, size: usize) -> Vec<Vec<u8>> {
    flow_of(ip, tcp(flags), payload, size)
}

fn flow_of(ip: &Ip, transport: Transport, payload: usize, size: usize) -> Vec<Vec<u8>> {
    let packet = Packet::new(ip.clone(), transport, data(payload));
    packet.cut(size).iter().map(Packet::bytes).collect()
}

/// What is written for frames that all go into one run.
fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut buffer = [&[0; HEADER_LEN][..], &frames.concat()].concat();
    let mut run = Run::new();
    run.set_takes_udp(true);
    let mut start = HEADER_LEN;
    for frame in frames {
        assert_ne!(run.offer(&mut buffer, start..start + frame.len()), Offered::Refused);
        start += frame.len();
    }
    let write = run.take(&mut buffer).expect("something is pending");
    assert_eq!((write.frames, write.bytes), (frames.len(), start - HEADER_LEN));
    buffer[write.range].to_vec()
}

#[test]
fn what_was_joined_crosses_the_bridge_whole_and_is_cut_into_the_same_frames() {
    let mut bridge = Bridge::new();
    let with_id = |id, fragment| Ip::V4 { tos: 0, id, fragment, ttl: 64, options: vec![] };
    for ip in [v4(), with_id(0xfffe, 0), with_id(0xffff, DONT_FRAGMENT), v6()] {
        for flags in [ACK, ACK | PSH] {
            for (payload, size) in
                [(3000, 1448), (2896, 1448), (1001, 1000), (900, 15), (65_000, 1448)]
            {
                let frames = flow(&ip, flags, payload, size);
                let (by_kernel, uncut) = bridge.pass(&join(&frames));
                assert_eq!(by_kernel, frames);
                assert_eq!(uncut.len(), 1);
                assert_eq!(cut(&uncut[0]), frames);
            }
        }
    }
}

#[test]
fn joined_datagrams_cross_the_bridge_whole_and_are_cut_into_the_same_ones() {
    let mut bridge = Bridge::new();
    if !bridge.takes_udp {
        eprintln!("SKIPPED: this kernel takes no super-frames of UDP");
        return;
    }
    let with_id = |id, fragment| Ip::V4 { tos: 0, id, fragment, ttl: 64, options: vec![] };
    for ip in [v4(), with_id(0xfffe, 0), with_id(0xffff, DONT_FRAGMENT), v6()] {
        for (payload, size) in
            [(3000, 1472), (2944, 1472), (1001, 1000), (64 * 18, 18), (2, 1), (64_768, 1472)]
        {
            let frames = flow_of(&ip, Transport::Udp, payload, size);
            let (by_kernel, uncut) = bridge.pass(&join(&frames));
            assert_eq!(by_kernel, frames);
            assert_eq!(uncut.len(), 1);
            assert_eq!(cut(&uncut[0]), frames);
        }
    }
}

#[test]
fn ids_that_do_not_count_are_made_to_by_the_kernel() {
    let mut bridge = Bridge::new();
    let mut packets = Packet::new(v4(), tcp(ACK), data(5000)).cut(1448);
    let expected: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
    for packet in &mut packets[1..] {
        packet.ip = Ip::V4 { tos: 0, id: 0, fragment: DONT_FRAGMENT, ttl: 64, options: vec![] };
    }
    let frames: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
    assert_ne!(frames, expected);
    let (by_kernel, _) = bridge.pass(&join(&frames));
    assert_eq!(by_kernel, expected);
}

#[test]
fn frames_that_were_not_joined_cross_the_bridge_unchanged() {
    let mut bridge = Bridge::new();
    let mut broken = flow(&v4(), ACK, 500, 1000).remove(0);
    broken[60] ^= 1;
    let acknowledgement = flow(&v6(), ACK, 0, 1000).remove(0);
    for frame in [broken, acknowledgement, flow(&v4(), ACK, 1400, 1448).remove(0)] {
        let (by_kernel, uncut) = bridge.pass(&join(std::slice::from_ref(&frame)));
        assert_eq!(by_kernel, std::slice::from_ref(&frame));
        assert_eq!(uncut, [[&[0; HEADER_LEN][..], &frame].concat()]);
    }
}
