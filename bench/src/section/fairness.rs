//! One guest that misbehaves, and what it costs the others.
//!
//! A is the one, B and C move TCP, D asks for the round trip of a small frame all the while. Each
//! round has the same load twice, with an A that behaves and with one that does not: the ratio of
//! what B and C get is what A's misbehaviour costs them. So the load itself, which shares the
//! machine's cores with the server, is in both.

use crate::client::{Busy, Client, SINK};
use crate::flow::Flow;
use crate::options::Options;
use crate::stage::{Guest, Stage, guest_address};
use crate::table::{Bound, Row, Table, median, quantile, rounded};
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

/// A floods; A stops reading.
pub fn run(options: &Options, table: &mut Table) {
    let stage = Stage::wsnic("");
    let sink = stage.lab.srv.enter(|| UdpSocket::bind((GATEWAY, SINK))).expect("a free port");
    let [a, b, c] = [0, 1, 2].map(|number| Guest::join(&stage, number, true));
    let mut d = Client::join(&stage, 3);
    let mut window = Window { options, stage: &stage, pair: [&b, &c], pinger: &mut d };

    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let rounds = window.rounds(
            |window| {
                let _flow = Flow::between(&stage, &a, true);
                window.measure(from_guest)
            },
            |window| {
                let flooder = Client::join(&stage, 4);
                let _flood = flooder.flood(FULL);
                window.measure(from_guest)
            },
        );
        add(
            table,
            format!("TCP {way} each of 2 guests, a third floods"),
            "a third moves TCP",
            rounds,
        );
    }
    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let rounds = window.rounds(
            |window| {
                let reader = Client::join(&stage, 4);
                let _reading = reader.sink();
                let _load = load(&stage);
                window.measure(from_guest)
            },
            |window| {
                let _reader = Client::join(&stage, 4);
                let _load = load(&stage);
                window.measure(from_guest)
            },
        );
        add(
            table,
            format!("TCP {way} each of 2 guests, a third does not read"),
            "the third reads",
            rounds,
        );
    }
    drop((a, b, c, d, sink));
    stage.end();
}

/// Datagrams towards guest 4.
fn load(stage: &Stage) -> Busy {
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

fn add(table: &mut Table, what: String, beside: &str, rounds: Vec<Round>) {
    let of = |at: usize, which: usize| -> Vec<f64> {
        rounds.iter().map(|round| round[at].gigabits[which]).collect()
    };
    let mean = |sample: &Sample| (sample.gigabits[0] + sample.gigabits[1]) / 2.0;
    let misbehaving = median(rounds.iter().map(|[_, bad]| mean(bad)).collect());
    let fair = median(rounds.iter().map(|[good, _]| mean(good)).collect());
    // The worse of the two, each against what it has with an A that behaves.
    let ratio = |which: usize| {
        let pairs = of(1, which).into_iter().zip(of(0, which));
        median(pairs.map(|(bad, good)| bad / good).collect())
    };
    let row = Row::of(&what, "Gbit/s", misbehaving);
    table.add(row.ratio(
        format!("to {} while {beside}, the worse", rounded(fair)),
        ratio(0).min(ratio(1)),
        Some(Bound::AtLeast(SHARE)),
    ));
    let times = |at: usize| -> Vec<f64> {
        rounds.iter().flat_map(|round| round[at].millis.iter().copied()).collect()
    };
    let row = Row::of(
        "round trip of a fourth meanwhile, 99th percentile",
        "ms",
        quantile(times(1), 0.99),
    );
    let lost: usize = rounds.iter().map(|round| round[1].lost).sum();
    let behaved = quantile(times(0), 0.99);
    table.add(
        row.bound(Bound::AtMost(PATIENCE))
            .note(format!("{} ms while {beside}; {lost} lost", rounded(behaved))),
    );
}

struct Window<'a> {
    options: &'a Options,
    stage: &'a Stage,
    pair: [&'a Guest; 2],
    pinger: &'a mut Client,
}

impl Window<'_> {
    fn rounds(
        &mut self,
        good: impl Fn(&mut Self) -> Sample,
        bad: impl Fn(&mut Self) -> Sample,
    ) -> Vec<Round> {
        (0..self.options.rounds).map(|_| [good(self), bad(self)]).collect()
    }

    fn measure(&mut self, from_guest: bool) -> Sample {
        let flows = self.pair.map(|guest| Flow::between(self.stage, guest, from_guest));
        std::thread::sleep(self.options.warm_up);
        let (started, before) = (Instant::now(), flows.each_ref().map(Flow::received));
        let (mut millis, mut lost) = (Vec::new(), 0);
        while started.elapsed() < self.options.window {
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
