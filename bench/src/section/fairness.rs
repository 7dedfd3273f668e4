//! One guest that misbehaves, and what it costs the others.
//!
//! A is the one, B and C move TCP, D asks for the round trip of a small frame all the while. Each
//! round has the same load twice, with an A that behaves and with one that does not: the ratio of
//! what B and C get is what A's misbehaviour costs them. So the load itself, which shares the
//! machine's cores with the server, is in both.

use crate::client::{Busy, Client, SINK};
use crate::flow::Flow;
use crate::options::Options;
use crate::stage::{Guest, Kind, Stage, guest_address};
use crate::table::{Bound, Row, Table, median, quantile, rounded};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wsnic_tests::address::GATEWAY;

/// Datagrams for a guest that reads or not: one in each of so many microseconds, 120 Mbit/s.
const PACE: Duration = Duration::from_micros(800);
/// Datagrams at a time.
const BURST: usize = 8;
/// Between two round trips.
const PAUSE: Duration = Duration::from_millis(2);
/// Payload of a full frame.
const FULL: usize = 1472;
/// The share of its fair part that each has to get.
const SHARE: f64 = 0.9;
/// Milliseconds.
const PATIENCE: f64 = 5.0;

/// What A does: as it should, and not.
#[derive(Clone, Copy)]
enum Load {
    /// TCP, or a flood of datagrams.
    Sending,
    /// Datagrams come to it; it reads them, or not.
    Reading,
}

/// A floods; A stops reading. The limit, a thread for each guest, shows what the machine's scheduler
/// makes of the same load.
pub fn run(options: &Options, table: &mut Table) {
    let wsnic = Stage::wsnic("locks = no\n");
    let stages = [Stage::relay(Kind::Limit, &wsnic), wsnic];
    let mut tables = stages.each_ref().map(Players::join);
    for (load, does) in [(Load::Sending, "floods"), (Load::Reading, "does not read")] {
        for (from_guest, way) in [(true, "from"), (false, "to")] {
            let mut rounds = tables.each_ref().map(|_| Vec::new());
            for _ in 0..options.rounds {
                for (players, rounds) in tables.iter_mut().zip(&mut rounds) {
                    let round =
                        [true, false].map(|good| players.under(load, good, options, from_guest));
                    rounds.push(round);
                }
            }
            add(table, &format!("TCP {way} each of 2 guests, a third {does}"), load, &rounds);
        }
    }
    drop(tables);
    stages.into_iter().rev().for_each(Stage::end);
}

/// Datagrams towards guest 4.
fn datagrams(stage: &Stage) -> Busy {
    let socket = stage.lab.srv.enter(|| UdpSocket::bind((GATEWAY, 0))).expect("a free port");
    Busy::start(move |stop, _| {
        let payload = [0x5a; FULL];
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                let _ = socket.send_to(&payload, (guest_address(4), SINK));
            }
            std::thread::sleep(PACE);
        }
    })
}

/// What B and C got, and how long D waited.
struct Sample {
    gigabits: [f64; 2],
    millis: Vec<f64>,
    lost: usize,
}

/// The same, with an A that behaves and with one that does not.
type Round = [Sample; 2];

/// `limit` and `wsnic` in this order.
fn add(table: &mut Table, what: &str, load: Load, [limit, wsnic]: &[Vec<Round>; 2]) {
    let beside = match load {
        Load::Sending => "a third moves TCP",
        Load::Reading => "the third reads",
    };
    let both = |of: fn(&[Round], usize) -> f64, at: usize| {
        BTreeMap::from([(Kind::Wsnic, of(wsnic, at)), (Kind::Limit, of(limit, at))])
    };
    let (bad, good) = (both(throughput, 1), both(throughput, 0));
    let row = Row::compared(what, "Gbit/s", &[bad], &[]);
    table.add(row.ratio(
        format!("to {} while {beside}, the worse", rounded(good[&Kind::Wsnic])),
        share(wsnic),
        Some(Bound::AtLeast(SHARE)),
    ));
    let (bad, good) = (both(slowest, 1), both(slowest, 0));
    let row = Row::compared("round trip of a fourth meanwhile, 99th percentile", "ms", &[bad], &[]);
    let lost: usize = wsnic.iter().map(|round| round[1].lost).sum();
    table.add(
        row.bound(Bound::AtMost(PATIENCE))
            .note(format!("{} ms while {beside}; {lost} lost", rounded(good[&Kind::Wsnic]))),
    );
}

/// Of the two guests, in the middle.
fn throughput(rounds: &[Round], at: usize) -> f64 {
    median(rounds.iter().map(|round| round[at].gigabits.iter().sum::<f64>() / 2.0).collect())
}

/// What the worse of the two has with an A that does not behave, against what it has with one that does.
fn share(rounds: &[Round]) -> f64 {
    let ratio = |which: usize| {
        let ratios = rounds.iter().map(|[good, bad]| bad.gigabits[which] / good.gigabits[which]);
        median(ratios.collect())
    };
    ratio(0).min(ratio(1))
}

fn slowest(rounds: &[Round], at: usize) -> f64 {
    let times = rounds.iter().flat_map(|round| round[at].millis.iter().copied());
    quantile(times.collect(), 0.99)
}

/// A as a guest that behaves, B and C, and D.
struct Players<'a> {
    stage: &'a Stage,
    behaved: Guest,
    pair: [Guest; 2],
    pinger: Client,
    _sink: UdpSocket,
}

impl<'a> Players<'a> {
    fn join(stage: &'a Stage) -> Players<'a> {
        let sink = stage.lab.srv.enter(|| UdpSocket::bind((GATEWAY, SINK)));
        Players {
            stage,
            behaved: Guest::join(stage, 0, true),
            pair: [1, 2].map(|number| Guest::join(stage, number, true)),
            pinger: Client::join(stage, 3),
            _sink: sink.expect("a free port"),
        }
    }

    fn under(&mut self, load: Load, good: bool, options: &Options, from_guest: bool) -> Sample {
        let stage = self.stage;
        match (load, good) {
            (Load::Sending, true) => {
                let _flow = Flow::between(stage, &self.behaved, true);
                self.measure(options, from_guest)
            }
            (Load::Sending, false) => {
                let flooder = Client::join(stage, 4);
                let _flood = flooder.flood(FULL);
                self.measure(options, from_guest)
            }
            (Load::Reading, _) => {
                let reader = Client::join(stage, 4);
                let _reading = good.then(|| reader.sink());
                let _datagrams = datagrams(stage);
                self.measure(options, from_guest)
            }
        }
    }

    fn measure(&mut self, options: &Options, from_guest: bool) -> Sample {
        let pair = self.pair.each_ref();
        let flows = pair.map(|guest| Flow::between(self.stage, guest, from_guest));
        std::thread::sleep(options.warm_up);
        let (started, before) = (Instant::now(), flows.each_ref().map(Flow::received));
        let (mut millis, mut lost) = (Vec::new(), 0);
        while started.elapsed() < options.window {
            match self.pinger.round_trip() {
                Some(time) => millis.push(time.as_secs_f64() * 1000.0),
                None => lost += 1,
            }
            std::thread::sleep(PAUSE);
        }
        let seconds = started.elapsed().as_secs_f64();
        let after = flows.each_ref().map(Flow::received);
        let gigabits = [0, 1].map(|at| (after[at] - before[at]) as f64 * 8.0 / seconds / 1e9);
        drop(flows);
        std::thread::sleep(Duration::from_millis(50));
        // A wait without end is one of the longest.
        millis.extend(std::iter::repeat_n(1000.0, lost));
        Sample { gigabits, millis, lost }
    }
}
