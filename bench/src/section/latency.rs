//! The round trip of one small frame: client, server, gateway, and back.

use crate::client::Client;
use crate::core::{self, Core};
use crate::options::{Options, in_turn};
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
        let (mut middle, mut slow, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (cold, warm) = round(&stages, &mut clients, turns);
            let of = |times: &Times, part: f64| -> BTreeMap<Kind, f64> {
                times.iter().map(|(kind, times)| (*kind, quantile(times.clone(), part))).collect()
            };
            middle.push(of(&warm, 0.5));
            slow.push(of(&warm, 0.99));
            first.push(of(&cold, 0.5));
        }
        let bounds = |bar| [(Kind::Limit, bar), (Kind::Naive, None), (Kind::Python, None)];
        let bar = bounds(Some(Bound::AtMost(1.10)));
        let what = format!("round trip of a small frame, {place}, median");
        table.add(Row::compared(what, "µs", &middle, &bar));
        table.add(Row::compared("the same, 99th percentile", "µs", &slow, &bar));
        let what = "the same, the first after the others' turns, median";
        table.add(Row::compared(what, "µs", &first, &bounds(None)));
    }
    core::hold(0, &cores);
    drop(clients);
    stages.into_iter().rev().for_each(Stage::end);
}

/// Microseconds of each server's round trips.
type Times = BTreeMap<Kind, Vec<f64>>;

/// The first of each row, which finds the caches as the others have left them, and all that follow.
fn round(stages: &[Stage], clients: &mut [Client], turns: usize) -> (Times, Times) {
    let (mut cold, mut warm) = (Times::new(), Times::new());
    for turn in 0..turns {
        for (stage, client) in in_turn(turn, stages.iter().zip(&mut *clients)) {
            let trips = (0..IN_A_ROW).filter_map(|_| client.round_trip());
            let mut micros = trips.map(|time| time.as_secs_f64() * 1e6);
            cold.entry(stage.kind).or_default().extend(micros.next());
            warm.entry(stage.kind).or_default().extend(micros);
        }
    }
    (cold, warm)
}
