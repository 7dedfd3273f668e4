//! Small frames: datagrams of 18 bytes, which are Ethernet frames of 64 bytes with their FCS.

use crate::client::{Busy, Client, SINK};
use crate::flow;
use crate::options::{Options, in_turn};
use crate::packets;
use crate::stage::{Kind, Stage, guest_address, guest_mac};
use crate::table::{Bound, Row, Table};
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames;

/// Bytes of a datagram's payload.
const PAYLOAD: usize = 18;
/// Bytes of its frame, without FCS.
const FRAME: usize = 14 + 20 + 8 + PAYLOAD;
/// Bytes of the header before such a frame: a short WebSocket message and the limit's have the same.
const HEADER: usize = 2;
/// Datagrams of one system call.
const AT_ONCE: usize = 64;

/// Frames per second through each server, in both directions, and what they cost it.
pub fn run(options: &Options, table: &mut Table) {
    let stages = options.robust_servers();
    let clients: Vec<Client> = stages.iter().map(|stage| Client::join(stage, 0)).collect();
    let sinks: Vec<UdpSocket> = stages.iter().map(sink).collect();
    for (way, faster) in [("from", 1.15), ("to", 5.0)] {
        let mut frames = Vec::new();
        let mut costs = Vec::new();
        for round in 0..options.rounds {
            let samples: Vec<(Kind, f64, f64)> = in_turn(round, stages.iter().zip(&clients))
                .into_iter()
                .map(|(stage, client)| {
                    let (frames, cpu) = one(way, options, stage, client);
                    (stage.kind, frames, cpu)
                })
                .collect();
            let column = |of: fn(&(Kind, f64, f64)) -> f64| {
                samples.iter().map(|sample| (sample.0, of(sample))).collect::<BTreeMap<_, _>>()
            };
            frames.push(column(|sample| sample.1));
            costs.push(column(|sample| sample.2));
        }
        let others = [(Kind::Limit, None)];
        let bounds = [&[(Kind::Naive, Some(Bound::AtLeast(faster)))], &others[..]].concat();
        let what = format!("64-byte UDP frames {way} guest");
        table.add(Row::compared(&what, "M/s", &frames, &bounds));
        let bounds = [&[(Kind::Naive, None)], &others[..]].concat();
        table.add(Row::compared(format!("{what}, server's CPU"), "s/M", &costs, &bounds));
    }
    drop(sinks);
    drop(clients);
    stages.into_iter().rev().for_each(Stage::end);
}

/// Where datagrams from guests end.
pub fn sink(stage: &Stage) -> UdpSocket {
    stage.lab.srv.enter(|| UdpSocket::bind((GATEWAY, SINK))).expect("a free port")
}

/// Million frames per second "from" a guest or "to" it, and processor seconds for a million.
pub fn one(way: &str, options: &Options, stage: &Stage, client: &Client) -> (f64, f64) {
    match way {
        "from" => from_guest(options, stage, client),
        _ => to_guest(options, stage, client),
    }
}

fn from_guest(options: &Options, stage: &Stage, client: &Client) -> (f64, f64) {
    let flood = client.flood(PAYLOAD);
    let measured = measure(options, stage, || stage.datagrams_from_guests() as f64 / 1e6);
    drop(flood);
    settle();
    measured
}

fn to_guest(options: &Options, stage: &Stage, client: &Client) -> (f64, f64) {
    let source = stage.lab.srv.enter(|| packets::open(&stage.port())).expect("the port is there");
    let (to, from) = (guest_mac(0), stage.gateway_mac());
    let (own, sink) = (SocketAddrV4::new(GATEWAY, 7), SocketAddrV4::new(guest_address(0), SINK));
    let frame = frames::datagram(to, from, own, sink, &[0x5a; PAYLOAD]);
    let sink = client.sink();
    let flood = Busy::start(move |stop, _| {
        let pieces = [[IoSlice::new(&frame)]; AT_ONCE];
        let to: [Option<()>; AT_ONCE] = [None; AT_ONCE];
        let mut headers = MultiHeaders::preallocate(AT_ONCE, None);
        while !stop.load(Ordering::Relaxed) {
            // What does not fit the port's queue is lost: what arrives is counted at the other end.
            let fd = source.as_raw_fd();
            let _ = sendmmsg(fd, &mut headers, &pieces, to, [], MsgFlags::empty());
        }
    });
    let bytes = (HEADER + FRAME) as f64 * 1e6;
    let measured = measure(options, stage, || sink.count() as f64 / bytes);
    drop(flood);
    settle();
    measured
}

fn measure(options: &Options, stage: &Stage, million: impl Fn() -> f64) -> (f64, f64) {
    std::thread::sleep(options.warm_up);
    let (frames, cpu, started) = (million(), stage.cpu(), Instant::now());
    flow::wait(options.window, || million() > frames);
    let frames = million() - frames;
    let (cpu, seconds) = (stage.cpu() - cpu, started.elapsed().as_secs_f64());
    assert!(frames > 0.0, "no frame comes through {}", stage.kind.name());
    (frames / seconds, cpu / frames)
}

/// What is still on its way is not the next one's.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}
