//! What the locks cost: one server with all of them beside one with none, in turns.

use super::small;
use crate::client::Client;
use crate::flow;
use crate::options::{Options, in_turn};
use crate::stage::{Guest, Stage};
use crate::table::{Bound, Row, Table, median, rounded};
use wsnic_tests::wait_until;

/// Server's processor time with locks for that without.
const BAR: Bound = Bound::AtMost(1.10);

/// TCP in super-frames, and small frames one by one.
pub fn run(options: &Options, table: &mut Table) {
    let stages = ["", "locks = no\n"].map(Stage::wsnic);
    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let guests = stages.each_ref().map(|stage| Guest::join(stage, 0, true));
        let rounds: Vec<[f64; 2]> = (0..options.rounds)
            .map(|round| {
                let mut costs = [0.0; 2];
                for at in in_turn(round, [0, 1]) {
                    let (stage, guest) = (&stages[at], &guests[at]);
                    let sample =
                        flow::window(stage, guest, from_guest, options.warm_up, options.window);
                    costs[at] = sample.cpu_per_gigabyte;
                }
                costs
            })
            .collect();
        add(table, &format!("TCP {way} guest with locks, server's CPU"), "s/GB", &rounds);
    }
    // Each is to have one port only.
    for stage in &stages {
        wait_until("the guests' ports are gone", || stage.lab.ports() == 0);
    }
    let clients = stages.each_ref().map(|stage| Client::join(stage, 0));
    let sinks = stages.each_ref().map(small::sink);
    for way in ["from", "to"] {
        let rounds: Vec<[f64; 2]> = (0..options.rounds)
            .map(|round| {
                let mut costs = [0.0; 2];
                for at in in_turn(round, [0, 1]) {
                    costs[at] = small::one(way, options, &stages[at], &clients[at]).1;
                }
                costs
            })
            .collect();
        add(table, &format!("64-byte UDP frames {way} guest with locks, CPU"), "s/M", &rounds);
    }
    drop((sinks, clients));
    stages.into_iter().rev().for_each(Stage::end);
}

fn add(table: &mut Table, what: &str, unit: &'static str, rounds: &[[f64; 2]]) {
    let middle = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
    let ratio = median(rounds.iter().map(|[with, without]| with / without).collect());
    let to = format!("to {} with locks=no", rounded(middle(1)));
    table.add(Row::of(what, unit, middle(0)).ratio(to, ratio, Some(BAR)));
}
