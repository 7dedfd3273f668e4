//! The round trip of one small frame: client, server, gateway, and back.

use crate::client::Client;
use crate::core::{self, Core};
use crate::options::Options;
use crate::stage::{Kind, Stage};
use crate::table::{Bound, Row, Table, quantile};
use std::collections::BTreeMap;

/// Round trips of one server before it is the next one's turn, so that what else the machine does
/// meets all.
const IN_A_ROW: usize = 50;

/// Median and 99th percentile, where client and server share a core and where each has its own. Whoever
/// is free to choose stays by chance with one or the other, which is the larger part of the time.
pub fn run(options: &Options, table: &mut Table) {
    let cores = Core::all();
    let stages = options.all_servers();
    let mut clients: Vec<Client> = stages.iter().map(|stage| Client::join(stage, 0)).collect();
    let turns = options.count(60, 2);
    let places = [("one core", cores.first()), ("two cores", cores.get(1))];
    let places = places.into_iter().filter_map(|(name, core)| Some((name, *core?)));
    for (place, core) in places {
        cores[0].holds(0);
        stages.iter().for_each(|stage| stage.stays_on(core));
        let (mut middle, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let times = round(&stages, &mut clients, turns);
            let of = |part: f64| -> BTreeMap<Kind, f64> {
                times.iter().map(|(kind, times)| (*kind, quantile(times.clone(), part))).collect()
            };
            middle.push(of(0.5));
            slow.push(of(0.99));
        }
        let bounds =
            [(Kind::Limit, Some(Bound::AtMost(1.10))), (Kind::Naive, None), (Kind::Python, None)];
        let what = format!("round trip of a small frame, {place}, median");
        table.add(Row::compared(what, "µs", &middle, &bounds));
        table.add(Row::compared("the same, 99th percentile", "µs", &slow, &bounds));
    }
    core::hold(0, &cores);
    drop(clients);
    stages.into_iter().rev().for_each(Stage::end);
}

/// Microseconds of each server's round trips.
fn round(stages: &[Stage], clients: &mut [Client], turns: usize) -> BTreeMap<Kind, Vec<f64>> {
    let mut times: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for _ in 0..turns {
        for (stage, client) in stages.iter().zip(&mut *clients) {
            let trips = (0..IN_A_ROW).filter_map(|_| client.round_trip());
            let micros = trips.map(|time| time.as_secs_f64() * 1e6);
            times.entry(stage.kind).or_default().extend(micros);
        }
    }
    times
}
