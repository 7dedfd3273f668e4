//! v86 itself: its network adapter on a fake bus, and a whole Linux in it.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc;
use wsnic_tests::frames::{self, Dhcp};
use wsnic_tests::services::{WEB_NAME, blob, checksum};
use wsnic_tests::{LIMIT, Lab, RawGuest, Server, address, v86};

const URL: &str = "ws://127.0.0.1:8086/";
const TRANSFER: usize = 2_000_000;

/// The adapter queues what a guest sends before the connection is there, connects at the first
/// frame, and takes every message for a frame.
#[test]
fn v86s_network_adapter_gets_an_address_and_talks_to_another_guest() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let mut peer = RawGuest::join(&lab);
    let mut command = v86::node("adapter.mjs");
    command.arg(URL).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = lab.srv.spawn(&mut command);
    let mut input = node.stdin.take().expect("a pipe");
    let output = BufReader::new(node.stdout.take().expect("a pipe"));
    let (sender, frames) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = sender.send(unhex(&line));
        }
    });
    let mut send = |frame: &[u8]| {
        let line: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(input, "{line}").expect("the adapter runs");
    };
    let receive = || frames.recv_timeout(LIMIT).expect("a frame comes out of the adapter");
    let mac = [0, 0x22, 0x15, 1, 2, 3];

    send(&Dhcp::new(1, mac).frame());
    let offer = loop {
        if let Some(offer) = Dhcp::parse(&receive()) {
            break offer;
        }
    };
    assert_eq!((offer.kind, offer.chaddr), (2, mac), "{offer:?}");
    send(&frames::ethernet(peer.mac, mac, frames::IPX, &[9; 50]));
    let received = peer
        .receive_until(|frame| (frames::ethertype(frame) == frames::IPX).then(|| frame.to_vec()));
    assert_eq!(frames::source(&received), mac);
    let answer = frames::ethernet(mac, peer.mac, frames::IPX, &[8; 1500]);
    peer.send(&answer);
    while receive() != answer {}

    drop(input);
    let status = node.wait().expect("the adapter ends with its input");
    assert!(status.success());
    reader.join().expect("the reader does not panic");
    drop(peer);
    server.stop();
    lab.finish();
}

fn linux_in_v86_gets_on_the_internet(card: &str) {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let sum = checksum(&blob(TRANSFER));
    v86::boot(
        &lab.srv,
        URL,
        card,
        &[
            "dhcp emulated".to_owned(),
            format!("ping {}", address::GATEWAY),
            format!("ping {} 1400", address::WEB),
            format!("dns {WEB_NAME} {}", address::WEB),
            format!("download http://{WEB_NAME}/blob/{TRANSFER} {sum}"),
            format!("upload http://{WEB_NAME}/upload {TRANSFER}"),
        ],
    );
    server.stop();
    lab.finish();
}

#[test]
fn linux_in_v86_gets_on_the_internet_through_its_ne2000() {
    linux_in_v86_gets_on_the_internet("ne2k");
}

#[test]
fn linux_in_v86_gets_on_the_internet_through_virtio() {
    linux_in_v86_gets_on_the_internet("virtio");
}

/// What two tabs do that restore one saved machine, and what a machine does that takes a new address.
#[test]
fn machines_restored_from_one_state_work_with_a_changed_mac_and_one_at_a_time_with_a_cloned_one() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut command = v86::node("restored.mjs");
    command.args([URL, &address::GATEWAY.to_string()]);
    let output = lab.srv.output(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}\n{}", server.log());
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.log().contains("a guest may not use its address"), "{}", server.log());
    server.stop();
    lab.finish();
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}
