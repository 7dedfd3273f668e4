//! How a session ends, and what does not end it.

use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::{Door, Fragment, Lab, RawGuest, Server, opcode};

/// A fragment that breaks RFC 6455 ends its session with `code`, and no other.
fn ends_with(lab: &Lab, code: u16, what: &str, fragments: &[Fragment]) {
    let mut door = Door::upgraded(lab);
    for fragment in fragments {
        door.send_fragment(fragment);
    }
    assert_eq!(door.close_code(), code, "{what}");
    door.finish_sending();
    door.wait_for_end();
}

#[test]
fn breaking_the_protocol_closes_with_1002_and_harms_nobody() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let frame = frames::ethernet(BROADCAST, [2, 0, 0, 0, 0, 5], EXPERIMENTAL, b"x");
    let good = Fragment::binary(&frame);
    let part = Fragment { fin: false, ..good.clone() };
    let ping = Fragment::new(opcode::PING, b"");
    ends_with(&lab, 1002, "unmasked data", &[Fragment { mask: None, ..good.clone() }]);
    ends_with(&lab, 1002, "unmasked PING", &[Fragment { mask: None, ..ping.clone() }]);
    for reserved in [1, 2, 4] {
        ends_with(&lab, 1002, "reserved bits", &[Fragment { reserved, ..good.clone() }]);
    }
    for code in [3, 7, 11, 15] {
        ends_with(&lab, 1002, "reserved opcode", &[Fragment::new(code, &frame)]);
    }
    ends_with(&lab, 1002, "PING in fragments", &[Fragment { fin: false, ..ping.clone() }]);
    ends_with(&lab, 1002, "long PING", &[Fragment::new(opcode::PING, &[0; 126])]);
    ends_with(&lab, 1002, "nothing to continue", &[Fragment::new(opcode::CONTINUATION, &frame)]);
    ends_with(&lab, 1002, "message within a message", &[part, good]);
    ends_with(&lab, 1002, "CLOSE with half a code", &[Fragment::new(opcode::CLOSE, &[3])]);
    guest.ping_gateway(56);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_message_far_too_long_closes_with_1009() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    // The head alone announces 2^40 bytes.
    let mut door = Door::upgraded(&lab);
    door.send(&[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(door.close_code(), 1009);
    // So do fragments that never end.
    let mut door = Door::upgraded(&lab);
    let first = Fragment { fin: false, ..Fragment::binary(&[0; 60_000]) };
    let more = Fragment { opcode: opcode::CONTINUATION, ..first.clone() };
    door.send_fragment(&first);
    for _ in 0..32 {
        if !door.try_send(&more.bytes()) {
            break;
        }
    }
    guest.ping_gateway(56);
    drop((guest, door));
    server.stop();
    lab.finish();
}

#[test]
fn text_is_dropped_and_the_session_goes_on() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (mut one, mut other) = (RawGuest::join(&lab), RawGuest::connect(&lab));
    for text in ["", "hello", "a text that is longer than any Ethernet header is"] {
        one.send_message(text.into());
    }
    one.shout("bytes");
    let before = other.hear("bytes");
    assert!(!before.iter().any(|frame| frame.starts_with(b"a text")));
    one.ping_gateway(56);
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn ping_is_answered_with_its_own_bytes() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::upgraded(&lab);
    for payload in [&b""[..], b"12345678", &[0xa5; 125]] {
        door.send_fragment(&Fragment::new(opcode::PING, payload));
        let pong = loop {
            let fragment = door.receive();
            if fragment.opcode != opcode::BINARY {
                break fragment;
            }
        };
        assert_eq!((pong.opcode, &pong.payload[..], pong.fin), (opcode::PONG, payload, true));
    }
    // A PONG that nobody asked for is nothing (RFC 6455 §5.5.3).
    door.send_fragment(&Fragment::new(opcode::PONG, b"unasked"));
    door.send_fragment(&Fragment::new(opcode::PING, b"still here"));
    assert_eq!(door.receive().payload, b"still here");
    drop(door);
    server.stop();
    lab.finish();
}

#[test]
fn close_is_answered_with_close() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for (payload, code) in [(&[3, 232][..], 1000), (&[3, 233, b'b', b'y', b'e'], 1001), (&[], 1005)]
    {
        let mut door = Door::upgraded(&lab);
        door.send_fragment(&Fragment::new(opcode::CLOSE, payload));
        let answered = door.close_code();
        // "Typically echoes the status code" (RFC 6455 §5.5.1).
        assert!([code, 1000].contains(&answered), "{answered} for {code}");
        door.wait_for_end();
    }
    server.stop();
    lab.finish();
}

#[test]
fn at_shutdown_guests_are_told_1001() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guests: Vec<RawGuest> = (0..3).map(|_| RawGuest::connect(&lab)).collect();
    server.stop();
    for guest in &mut guests {
        assert_eq!(guest.close_code(), 1001);
    }
    lab.finish();
}

#[test]
fn a_guest_whose_port_an_administrator_deletes_is_told_1011() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    lab.srv.ip("link delete wstap0");
    assert_eq!(guest.close_code(), 1011);
    // The next one is served.
    let mut next = RawGuest::join(&lab);
    next.ping_gateway(56);
    drop((guest, next));
    server.stop();
    lab.finish();
}
