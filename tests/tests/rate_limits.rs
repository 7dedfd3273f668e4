//! rate_limit_*: what a guest gets through in a time, and that nobody else pays for it.
//!
//! A limit says how long something takes at least; no test wants it to be fast.

use std::time::{Duration, Instant};
use wsnic_tests::address::WEB;
use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::services::blob;
use wsnic_tests::{Door, Fragment, Lab, NativeGuest, RawGuest, Server, WiredPort, opcode};

const INET: &str = "inet_iface = wan0\n";
/// Bytes of a transfer.
const LEN: usize = 600_000;

fn numbered(from: frames::Mac, number: u32, len: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(len - 14, 0x5a);
    frames::ethernet(BROADCAST, from, EXPERIMENTAL, &payload)
}

/// A frame's number and length.
fn number_of(frame: &[u8], from: frames::Mac) -> Option<(u32, usize)> {
    let is_ours = frames::source(frame) == from && frames::ethertype(frame) == EXPERIMENTAL;
    let number = frame.get(14..18).filter(|_| is_ours)?;
    Some((u32::from_be_bytes(number.try_into().expect("four bytes")), frame.len()))
}

/// Lets a client send `count` frames of `len` bytes as fast as it can. Each must arrive, in order,
/// and at no time may more of them have arrived than `allowed` says.
fn is_held_up(lab: &Lab, count: u32, len: usize, allowed: impl Fn(Duration) -> f64) {
    let mac = [2, 0, 0, 0, 0, 9];
    let mut port = WiredPort::plug(lab);
    let mut door = Door::upgraded(lab);
    let bytes: Vec<u8> = (0..count)
        .flat_map(|number| Fragment::new(opcode::BINARY, &numbered(mac, number, len)).bytes())
        .collect();
    let started = Instant::now();
    let sender = std::thread::spawn(move || {
        door.send(&bytes);
        door
    });
    for number in 0..count {
        let came = port.receive_until(|frame| number_of(frame, mac));
        assert_eq!(came, (number, len));
        let (arrived, time) = (f64::from(number + 1), started.elapsed());
        assert!(arrived <= allowed(time), "{arrived} frames after {time:?}");
    }
    drop(sender.join().expect("the client sends everything"));
}

#[test]
fn bytes_from_a_guest_wait_for_their_time_and_none_is_lost() {
    let lab = Lab::new();
    let server = Server::start(&lab, "rate_limit_up_bytes = 300000\nrate_limit_burst = 200\n");
    // 1514 bytes have a header of 8 in the WebSocket, so the frames alone are a bit slower.
    is_held_up(&lab, 400, 1514, |time| (300_000.0 * time.as_secs_f64() + 60_000.0) / 1514.0);
    server.stop();
    lab.finish();
}

#[test]
fn frames_from_a_guest_wait_for_their_time_and_none_is_lost() {
    let lab = Lab::new();
    let server = Server::start(&lab, "rate_limit_up_frames = 500\nrate_limit_burst = 100\n");
    is_held_up(&lab, 800, 60, |time| 500.0 * time.as_secs_f64() + 50.0);
    server.stop();
    lab.finish();
}

/// Sends broadcasts for two seconds, more than one guest may get. What comes is in order, and at no
/// time more of it than `allowed` says.
fn is_cut_short(lab: &Lab, len: usize, allowed: impl Fn(Duration) -> f64) {
    let mac = [2, 0, 0, 0, 0, 9];
    let mut port = WiredPort::plug(lab);
    let mut guest = RawGuest::connect(lab);
    // What it gets from now on, it gets after this moment.
    let started = Instant::now();
    let sender = std::thread::spawn(move || {
        let mut number = 0;
        while started.elapsed() < Duration::from_secs(2) {
            for _ in 0..10 {
                port.send(&numbered(mac, number, len));
                number += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        port.send(&numbered(mac, u32::MAX, len));
        (port, number)
    });
    let (mut arrived, mut last) = (0.0, None);
    while started.elapsed() < Duration::from_secs(2) {
        let (number, _) = guest.receive_until(|frame| number_of(frame, mac));
        assert!(last.is_none_or(|last| number > last), "{number} behind {last:?}");
        last = Some(number);
        arrived += 1.0;
        let time = started.elapsed();
        assert!(arrived <= allowed(time), "{arrived} frames after {time:?}");
    }
    let (_port, sent) = sender.join().expect("the bridge takes everything");
    assert!(arrived > 10.0 && arrived < f64::from(sent), "{arrived} of {sent}");
}

#[test]
fn a_guest_gets_no_more_bytes_than_it_may() {
    let lab = Lab::new();
    let server = Server::start(&lab, "rate_limit_down_bytes = 300000\nrate_limit_burst = 200\n");
    // The last frame may go beyond.
    is_cut_short(&lab, 1514, |time| (300_000.0 * time.as_secs_f64() + 60_000.0) / 1514.0 + 2.0);
    server.stop();
    lab.finish();
}

#[test]
fn a_guest_gets_no_more_frames_than_it_may() {
    let lab = Lab::new();
    let server = Server::start(&lab, "rate_limit_down_frames = 500\n");
    is_cut_short(&lab, 60, |time| 500.0 * time.as_secs_f64() + 50.0);
    server.stop();
    lab.finish();
}

#[test]
fn transfers_under_limits_are_whole_and_take_their_time() {
    let lab = Lab::new();
    let limits = "rate_limit_up_bytes = 400000\nrate_limit_down_bytes = 400000\n";
    let server = Server::start(&lab, &format!("{INET}{limits}"));
    let guest = NativeGuest::join(&lab);
    // The burst, and half of a super-frame's length more each time is none at the end.
    let least = Duration::from_secs_f64((LEN - 40_000 - 70_000) as f64 / 400_000.0);
    let started = Instant::now();
    guest.uploads(WEB, &blob(LEN));
    assert!(started.elapsed() >= least, "{:?} for an upload", started.elapsed());
    let started = Instant::now();
    assert!(guest.downloads(WEB, &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
    assert!(started.elapsed() >= least, "{:?} for a download", started.elapsed());
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn one_guest_at_its_limit_costs_another_nothing() {
    let lab = Lab::new();
    let limits = "rate_limit_up_frames = 1000\nrate_limit_down_frames = 1000\n";
    let server = Server::start(&lab, &format!("{INET}{limits}"));
    let mut door = Door::upgraded(&lab);
    let gateway = RawGuest::join(&lab).resolve(wsnic_tests::address::GATEWAY);
    let flood = frames::ethernet(gateway, [2, 0, 0, 0, 0, 9], EXPERIMENTAL, &[0; 46]);
    let flood = Fragment::new(opcode::BINARY, &flood).bytes().repeat(10_000);
    let flooder = std::thread::spawn(move || {
        // Until the server is gone.
        while door.try_send(&flood) {}
    });
    let guest = NativeGuest::join(&lab);
    let line = format!("ping -n -c 40 -i 0.05 -W 5 {}", wsnic_tests::address::GATEWAY);
    let pings = guest.netns.run(&line);
    assert!(pings.contains(" 0% packet loss"), "{pings}");
    guest.uploads(WEB, &blob(LEN));
    assert!(guest.downloads(WEB, &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
    drop(guest);
    server.stop();
    flooder.join().expect("the flooder ends");
    lab.finish();
}
