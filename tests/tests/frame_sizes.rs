//! One message is one frame, from 14 bytes to MTU+18; everything else is dropped and harms nobody.

use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::{Door, Fragment, Lab, RawGuest, Server, opcode};

/// A broadcast frame of exactly `len` bytes.
fn frame(from: frames::Mac, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len.saturating_sub(14)).map(|at| (at * 7 + len) as u8).collect();
    let mut frame = frames::ethernet(BROADCAST, from, EXPERIMENTAL, &payload);
    frame.truncate(len);
    frame
}

fn passes(one: &mut RawGuest, other: &mut RawGuest, len: usize) {
    let sent = frame(one.mac, len);
    one.send(&sent);
    let received =
        other.receive_until(|frame| (frame.starts_with(&sent[..14])).then(|| frame.to_vec()));
    assert_eq!(received, sent, "a frame of {len} bytes");
}

fn is_dropped(one: &mut RawGuest, other: &mut RawGuest, len: usize) {
    one.send(&frame(one.mac, len));
    one.shout("after it");
    let before = other.hear("after it");
    assert!(
        !before.iter().any(|frame| frames::source(frame) == one.mac),
        "a frame of {len} bytes passed"
    );
}

#[test]
fn frames_from_14_bytes_to_the_mtu_and_a_vlan_tag_pass_unchanged() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    for len in [14, 15, 42, 59, 60, 61, 64, 125, 126, 127, 128, 512, 1513, 1514] {
        passes(&mut one, &mut other, len);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn a_full_frame_with_a_vlan_tag_passes_where_vlan_is_allowed() {
    let lab = Lab::new();
    let server = Server::start(&lab, "allow_vlan = yes\n");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    let mut payload = vec![0, 7, 0x88, 0xb5];
    payload.resize(1504, 0x5a);
    let tagged = frames::ethernet(BROADCAST, one.mac, 0x8100, &payload);
    assert_eq!(tagged.len(), 1518);
    one.send(&tagged);
    let received =
        other.receive_until(|frame| (frames::ethertype(frame) == 0x8100).then(|| frame.to_vec()));
    assert_eq!(received, tagged);
    drop((one, other));
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 1.
#[test]
fn a_message_of_1_to_13_bytes_is_dropped_and_harms_nobody() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    for len in 0..14 {
        is_dropped(&mut one, &mut other, len);
    }
    passes(&mut one, &mut other, 14);
    passes(&mut other, &mut one, 60);
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn a_frame_longer_than_the_mtu_allows_is_dropped_and_the_session_goes_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    for len in [1519, 1520, 4000, 9000] {
        is_dropped(&mut one, &mut other, len);
    }
    passes(&mut one, &mut other, 1514);
    drop((one, other));
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 7, first half.
#[test]
fn jumbo_frames_beyond_16_kib_pass_when_the_mtu_says_so() {
    let lab = Lab::new();
    let server = Server::start(&lab, "mtu = 65521\n");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    for len in [60, 1514, 9014, 16_384, 16_385, 32_768, 65_535, 65_535] {
        passes(&mut one, &mut other, len);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 7, second half.
#[test]
fn a_message_in_fragments_is_joined_to_one_frame() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut other = RawGuest::connect(&lab);
    let mut door = Door::upgraded(&lab);
    let mac = [2, 0, 0, 0, 0, 9];
    let sent = frame(mac, 1000);
    for sizes in [&[500, 500][..], &[1, 999], &[13, 1, 986], &[0, 1000, 0], &[300, 300, 300, 100]] {
        let mut rest = &sent[..];
        for (at, size) in sizes.iter().enumerate() {
            let (piece, tail) = rest.split_at(*size);
            let kind = if at == 0 { opcode::BINARY } else { opcode::CONTINUATION };
            let fin = at + 1 == sizes.len();
            door.send_fragment(&Fragment { fin, ..Fragment::new(kind, piece) });
            // A control message may stand between fragments (RFC 6455 §5.4).
            door.send_fragment(&Fragment::new(opcode::PING, b"between"));
            rest = tail;
        }
        let received =
            other.receive_until(|frame| (frames::source(frame) == mac).then(|| frame.to_vec()));
        assert_eq!(received, sent, "fragments of {sizes:?} bytes");
    }
    drop((other, door));
    server.stop();
    lab.finish();
}

#[test]
fn a_thousand_frames_arrive_in_order() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    // A learned address, and few enough at a time that no queue on the way overflows.
    other.shout("here");
    one.hear("here");
    for round in 0..20_u16 {
        let numbers = round * 50..(round + 1) * 50;
        let numbered = numbers.clone().map(|number| {
            frames::ethernet(other.mac, one.mac, EXPERIMENTAL, &number.to_be_bytes())
        });
        one.send_all(numbered.collect::<Vec<_>>());
        for number in numbers {
            let from = one.mac;
            let received = other.receive_until(|frame| {
                (frames::source(frame) == from).then(|| frame[14..16].to_vec())
            });
            assert_eq!(received, number.to_be_bytes());
        }
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn forged_and_reserved_addresses_do_not_reach_the_bridge() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::connect(&lab));
    let gateway = one.resolve(wsnic_tests::address::GATEWAY);
    let bad = [
        frames::ethernet(BROADCAST, gateway, EXPERIMENTAL, b"bad"),
        frames::ethernet(BROADCAST, [0; 6], EXPERIMENTAL, b"bad"),
        frames::ethernet(BROADCAST, [0xff; 6], EXPERIMENTAL, b"bad"),
        frames::ethernet(BROADCAST, [1, 0, 0x5e, 0, 0, 1], EXPERIMENTAL, b"bad"),
        frames::ethernet([1, 0x80, 0xc2, 0, 0, 0], one.mac, EXPERIMENTAL, b"bad"),
        frames::ethernet([1, 0x80, 0xc2, 0, 0, 14], one.mac, EXPERIMENTAL, b"bad"),
        frames::ethernet(BROADCAST, one.mac, 0x8100, b"\x00\x01\x88\xb5bad"),
    ];
    one.send_all(bad);
    one.shout("good");
    let before = other.hear("good");
    assert!(!before.iter().any(|frame| frame.ends_with(b"bad")), "{before:02x?}");
    one.ping_gateway(56);
    drop((one, other));
    server.stop();
    lab.finish();
}
