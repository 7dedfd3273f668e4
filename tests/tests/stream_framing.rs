//! `framing=stream`: guests whose messages carry a stream of frames, as those of container2wasm do.

use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::services::{WEB_NAME, blob};
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server, address, run_wsnic, wait_until};

const CONF: &str = "\
    inet_iface = wan0\n\
    [network c2w]\nsubnet = 10.1.0.0/24\nframing = stream\ninet_iface = wan0\n";
const TRANSFER: usize = 2_000_000;

/// Each behind its length.
fn in_stream(frames: &[Vec<u8>]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat())
        .collect()
}

fn shout(guest: &RawGuest, text: &str) -> Vec<u8> {
    frames::ethernet(BROADCAST, guest.mac, EXPERIMENTAL, text.as_bytes())
}

#[test]
fn linux_gets_on_the_internet_by_a_stream_and_reaches_its_neighbour() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let one = NativeGuest::join_in_stream(&lab, "/c2w");
    let other = NativeGuest::join_in_stream(&lab, "/c2w");
    let elsewhere = NativeGuest::join(&lab);
    for guest in [&one, &other, &elsewhere] {
        assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
        let download = guest.downloads(address::WEB, &format!("/blob/{TRANSFER}"));
        assert!(download == blob(TRANSFER), "{} bytes came", download.len());
        guest.uploads(address::WEB, &blob(TRANSFER));
    }
    assert!(one.pings(other.ip()) && other.pings(one.ip()));
    assert!(!one.pings(elsewhere.ip()));
    drop((one, other, elsewhere));
    server.stop();
    lab.finish();
}

#[test]
fn frames_of_one_message_stay_in_order_while_the_address_of_the_first_is_bound() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let offered = [("sec-websocket-protocol", "binary")];
    let connect = || {
        RawGuest::connect_to(&lab.srv, Server::address(), "/c2w", &offered).expect("it may join")
    };
    let (mut speaker, mut listener) = (connect(), connect());
    assert_eq!(speaker.response.headers()["sec-websocket-protocol"], "binary");
    let shouts: Vec<_> = (0..300).map(|at| shout(&speaker, &format!("{at:03}"))).collect();
    speaker.send(&in_stream(&shouts));
    for expected in shouts {
        let message = loop {
            let message = listener.receive();
            if frames::ethertype(&message[4..]) == EXPERIMENTAL {
                break message;
            }
        };
        assert_eq!(message, in_stream(&[expected]));
    }
    speaker.leave();
    listener.leave();
    server.stop();
    lab.finish();
}

#[test]
fn who_sends_the_other_framing_is_named_in_the_log_with_what_to_do() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut plain = RawGuest::try_at(&lab, "/c2w").expect("it may join");
    plain.shout("a frame without its length");
    assert_eq!(plain.close_code(), 1002);
    server.wait_for_log("set framing=messages for this network");

    let url = format!("ws://{}/c2w", Server::address());
    let (status, text) = run_wsnic(&lab.srv, &["check", "--live", &url]);
    assert!(!status.success() && text.contains("the network has framing=stream"), "{text}");

    let mut framed = RawGuest::try_at(&lab, "/").expect("it may join");
    let stream = in_stream(&[shout(&framed, "a frame behind its length")]);
    framed.send(&stream);
    framed.send(&stream);
    server.wait_for_log("set framing=stream for its network");
    framed.dhcp();
    framed.ping_gateway(56);
    framed.leave();
    wait_until("all have left", || lab.ports() == 0);
    let log = server.stop();
    // The test of `check` is a client of the first kind too.
    for (said, times) in
        [("framing=messages", 2), ("framing=stream", 1), ("the length of a frame is 4294967295", 2)]
    {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
        let named = lines.iter().filter(|line| line.contains("client=127.0.0.1:")).count();
        assert_eq!((lines.len(), named), (times, times), "{said}: {lines:?}");
    }
    lab.finish();
}
