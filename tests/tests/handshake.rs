//! Every WebSocket client there is gets in.

use std::time::Duration;
use wsnic_tests::frames::{self, Dhcp};
use wsnic_tests::{Door, Fragment, HANDSHAKE, Lab, RawGuest, Server, opcode};

#[test]
fn any_path_query_and_origin_upgrades() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for path in ["/", "/any/where", "/?relay=1&token=x", "/%20", "/index.html"] {
        let guest = RawGuest::connect_to(
            &lab.srv,
            Server::address(),
            path,
            &[("Origin", "https://elsewhere.example")],
        );
        let mut guest = guest.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(!guest.response.headers().contains_key("Sec-WebSocket-Protocol"));
        guest.dhcp();
    }
    server.stop();
    lab.finish();
}

#[test]
fn the_subprotocol_binary_is_echoed_when_offered() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for offer in ["binary", "base64, binary", "binary, base64"] {
        let offered = [("Sec-WebSocket-Protocol", offer)];
        let mut guest = RawGuest::connect_to(&lab.srv, Server::address(), "/", &offered)
            .unwrap_or_else(|error| panic!("{offer}: {error}"));
        let chosen = guest.response.headers().get("Sec-WebSocket-Protocol");
        assert_eq!(chosen.map(|value| value.as_bytes()), Some(&b"binary"[..]), "{offer}");
        guest.dhcp();
    }
    let mut door = Door::knock(&lab);
    door.send(format!("{HANDSHAKE}Sec-WebSocket-Protocol: chat\r\n\r\n").as_bytes());
    let response = door.response();
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("sec-websocket-protocol"), None, "{response:?}");
    drop(door);
    server.stop();
    lab.finish();
}

#[test]
fn the_accept_key_is_that_of_rfc_6455() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::knock(&lab);
    door.send(format!("{HANDSHAKE}\r\n").as_bytes());
    let response = door.response();
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.header("sec-websocket-extensions"), None, "{response:?}");
    drop(door);
    server.stop();
    lab.finish();
}

/// vpn-ws-client: no version, a 10-byte key, unmasked control fragments, one mask for all.
#[test]
fn a_vpn_ws_client_gets_in_and_its_unmasked_ping_is_answered() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::knock(&lab);
    door.send(
        b"GET / HTTP/1.1\r\nHost: wsnic\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: MTIzNDU2Nzg5MA==\r\nX-vpn-ws-MAC: 02:00:00:00:00:77\r\n\r\n",
    );
    let response = door.response();
    assert_eq!(response.status, 101, "{response:?}");
    door.send(&[0x89, 0]);
    assert_eq!(door.receive().opcode, opcode::PONG);
    let discover = Dhcp::new(1, [2, 0, 0, 0, 0, 0x77]).frame();
    door.send_fragment(&Fragment { mask: Some([0; 4]), ..Fragment::binary(&discover) });
    door.receive_until(|frame| Dhcp::parse(frame).is_some_and(|answer| answer.kind == 2));
    drop(door);
    server.stop();
    lab.finish();
}

#[test]
fn without_the_vpn_ws_header_a_version_is_required() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::knock(&lab);
    door.send(format!("{}\r\n", HANDSHAKE.replace("Sec-WebSocket-Version: 13\r\n", "")).as_bytes());
    let response = door.response();
    assert!([400, 426].contains(&response.status), "{response:?}");
    server.stop();
    lab.finish();
}

#[test]
fn a_frame_right_behind_the_handshake_is_not_lost() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::knock(&lab);
    let discover = Dhcp::new(1, [2, 0, 0, 0, 0, 1]).frame();
    let request = format!("{HANDSHAKE}\r\n");
    door.send(&[request.as_bytes(), &Fragment::binary(&discover).bytes()].concat());
    assert_eq!(door.response().status, 101);
    door.receive_until(|frame| Dhcp::parse(frame).is_some_and(|answer| answer.kind == 2));
    drop(door);
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 3.
#[test]
fn heads_split_at_every_byte_are_understood() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut other = RawGuest::connect(&lab);
    let mut door = Door::knock(&lab);
    for byte in format!("{HANDSHAKE}\r\n").as_bytes() {
        door.send(&[*byte]);
    }
    assert_eq!(door.response().status, 101);
    let mac = [2, 0, 0, 0, 0, 3];
    // Lengths in one, and in three, bytes of the fragment's head.
    for len in [60, 300] {
        let sent =
            frames::ethernet(frames::BROADCAST, mac, frames::EXPERIMENTAL, &vec![7; len - 14]);
        for byte in Fragment::binary(&sent).bytes() {
            door.send(&[byte]);
        }
        let received =
            other.receive_until(|frame| (frames::source(frame) == mac).then(|| frame.to_vec()));
        assert_eq!(received, sent);
        // Cut within the head, with a pause, and several messages in one write.
        let bytes = Fragment::binary(&sent).bytes();
        for cut in 1..9 {
            let (head, tail) = bytes.split_at(cut);
            door.send(head);
            std::thread::sleep(Duration::from_millis(5));
            door.send(&[tail, &bytes].concat());
            for _ in 0..2 {
                let received = other
                    .receive_until(|frame| (frames::source(frame) == mac).then(|| frame.to_vec()));
                assert_eq!(received, sent, "cut after {cut} bytes");
            }
        }
    }
    drop((other, door));
    server.stop();
    lab.finish();
}
