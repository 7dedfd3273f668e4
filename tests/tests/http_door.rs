//! What the server says to those who do not, or not properly, ask for a WebSocket.

use wsnic_tests::{Door, HANDSHAKE, Lab, RawGuest, Response, Server};

fn answer(lab: &Lab, request: &[u8]) -> Response {
    let mut door = Door::knock(lab);
    door.send(request);
    let response = door.response();
    door.wait_for_end();
    response
}

#[test]
fn who_opens_the_address_sees_a_page_if_it_asks_for_html_and_a_short_text_otherwise() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let html = b"GET / HTTP/1.1\r\nHost: wsnic\r\nAccept: text/html\r\n\r\n";
    let plain = b"GET / HTTP/1.1\r\nHost: wsnic\r\nAccept: */*\r\n\r\n";
    for (request, status, upgrade) in [(&html[..], 200, None), (plain, 426, Some("websocket"))] {
        let response = answer(&lab, request);
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.header("upgrade"), upgrade, "{response:?}");
        assert_eq!(response.header("connection"), Some("close"), "{response:?}");
        assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        assert!(response.body.contains("WebSocket"), "{response:?}");
    }
    let head = lab.srv.run("curl -sSI -H Accept:text/html http://127.0.0.1:8086/any/path");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    server.stop();
    lab.finish();
}

#[test]
fn nonsense_is_answered_with_400() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for request in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
    ] {
        let response = answer(&lab, request);
        assert_eq!(response.status, 400, "{:?}: {response:?}", String::from_utf8_lossy(request));
    }
    server.stop();
    lab.finish();
}

#[test]
fn a_broken_handshake_is_answered_with_400_or_426() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let without_key = HANDSHAKE.replace("Sec-WebSocket-Key", "X-Key");
    assert_eq!(answer(&lab, format!("{without_key}\r\n").as_bytes()).status, 400);
    // Another version is told which one there is (RFC 6455 §4.2.2).
    let version_8 = HANDSHAKE.replace("Version: 13", "Version: 8");
    let response = answer(&lab, format!("{version_8}\r\n").as_bytes());
    assert!([400, 426].contains(&response.status), "{response:?}");
    assert_eq!(response.header("sec-websocket-version"), Some("13"), "{response:?}");
    server.stop();
    lab.finish();
}

#[test]
fn other_methods_are_answered_with_405() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: wsnic\r\nContent-Length: 0\r\n\r\n");
        let response = answer(&lab, request.as_bytes());
        assert_eq!(response.status, 405, "{method}: {response:?}");
        assert!(
            response.header("allow").is_some_and(|allow| allow.contains("GET")),
            "{response:?}"
        );
    }
    server.stop();
    lab.finish();
}

/// docs/old-faults.md, fault 6.
#[test]
fn a_head_beyond_8_kib_is_refused_with_431_and_not_read() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let long = format!("{HANDSHAKE}X-Long: {}\r\n\r\n", "x".repeat(8192));
    assert_eq!(answer(&lab, long.as_bytes()).status, 431);
    // 8.5 MB of header: the server stops reading long before the end.
    let mut door = Door::knock(&lab);
    door.send(HANDSHAKE.as_bytes());
    let line = format!("X-More: {}\r\n", "y".repeat(1015));
    let taken = (0..8500).take_while(|_| door.try_send(line.as_bytes())).count();
    assert!(taken < 8500, "the server took all of it");
    RawGuest::connect(&lab);
    server.stop();
    lab.finish();
}

#[test]
fn a_head_with_more_than_64_headers_is_refused_with_431() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let many: String = (0..61).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(answer(&lab, format!("{HANDSHAKE}{many}\r\n").as_bytes()).status, 431);
    let mut door = Door::knock(&lab);
    let few: String = (0..59).map(|number| format!("X-{number}: 1\r\n")).collect();
    door.send(format!("{HANDSHAKE}{few}\r\n").as_bytes());
    assert_eq!(door.response().status, 101);
    drop(door);
    server.stop();
    lab.finish();
}

#[test]
fn who_says_nothing_is_shown_out() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut silent = Door::knock(&lab);
    let mut slow = Door::knock(&lab);
    slow.send(&HANDSHAKE.as_bytes()[..40]);
    silent.wait_for_end();
    slow.wait_for_end();
    server.stop();
    lab.finish();
}

#[test]
fn when_every_place_is_taken_the_next_is_told_503() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 2\n");
    let (one, two) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    let response = answer(&lab, format!("{HANDSHAKE}\r\n").as_bytes());
    assert_eq!(response.status, 503, "{response:?}");
    one.leave();
    // The place is free a moment after its guest has left.
    wsnic_tests::wait_until("the place is free", || {
        let mut door = Door::knock(&lab);
        door.send(format!("{HANDSHAKE}\r\n").as_bytes());
        door.response().status == 101
    });
    drop(two);
    server.stop();
    lab.finish();
}

#[test]
fn many_who_never_finish_their_request_keep_nobody_out() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let idle: Vec<Door> = (0..200).map(|_| Door::knock(&lab)).collect();
    let guest = RawGuest::join(&lab);
    drop((idle, guest));
    server.stop();
    lab.finish();
}
