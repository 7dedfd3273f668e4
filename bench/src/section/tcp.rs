//! TCP through each server, in both directions.

use crate::flow::{self, Sample};
use crate::options::{Options, in_turn};
use crate::stage::{Guest, Kind, Stage};
use crate::table::{Bound, Row, Table};
use std::collections::BTreeMap;

/// Throughput, and what it costs the server.
pub fn run(options: &Options, table: &mut Table) {
    for offloads in [false, true] {
        let stages = options.all_servers();
        let guests: Vec<Guest> =
            stages.iter().map(|stage| Guest::join(stage, 0, offloads)).collect();
        let who = if offloads { "guest with offloads" } else { "guest" };
        for from_guest in [true, false] {
            let way = if from_guest { "from" } else { "to" };
            let (throughput, cpu) = bounds(from_guest, offloads);
            let mut rounds = Vec::new();
            for round in 0..options.rounds {
                let samples = in_turn(round, stages.iter().zip(&guests))
                    .into_iter()
                    .map(|(stage, guest)| (stage.kind, measure(options, stage, guest, from_guest)));
                rounds.push(samples.collect::<BTreeMap<_, _>>());
            }
            let figures = |of: fn(&Sample) -> f64| -> Vec<BTreeMap<Kind, f64>> {
                let round = |round: &BTreeMap<Kind, Sample>| {
                    round.iter().map(|(kind, sample)| (*kind, of(sample))).collect()
                };
                rounds.iter().map(round).collect()
            };
            table.add(Row::compared(
                format!("TCP {way} {who}"),
                "Gbit/s",
                &figures(|sample| sample.gigabits),
                &throughput,
            ));
            table.add(Row::compared(
                format!("TCP {way} {who}, server's CPU"),
                "s/GB",
                &figures(|sample| sample.cpu_per_gigabyte),
                &cpu,
            ));
        }
        drop(guests);
        stages.into_iter().rev().for_each(Stage::end);
    }
}

type Bounds = [(Kind, Option<Bound>); 3];

/// The bars are for a guest with offloads: there the server is what is measured. A guest without
/// them is slower than the fastest servers.
fn bounds(from_guest: bool, offloads: bool) -> (Bounds, Bounds) {
    let (faster, cheaper) = if from_guest { (2.0, 0.30) } else { (3.5, 0.12) };
    let bounds = |naive, limit| {
        let bar = |bound| offloads.then_some(bound);
        [(Kind::Naive, bar(naive)), (Kind::Limit, bar(limit)), (Kind::Python, None)]
    };
    (
        bounds(Bound::AtLeast(faster), Bound::AtLeast(0.95)),
        bounds(Bound::AtMost(cheaper), Bound::AtMost(1.10)),
    )
}

fn measure(options: &Options, stage: &Stage, guest: &Guest, from_guest: bool) -> Sample {
    flow::window(stage, guest, from_guest, options.warm_up, options.window)
}
