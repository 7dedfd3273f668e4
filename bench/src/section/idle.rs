//! Clients that do nothing: the memory that they take, and what they cost the busy one.

use crate::client::Client;
use crate::flow;
use crate::options::Options;
use crate::stage::{Guest, Stage};
use crate::table::{Bound, Row, Table, median, rounded};
use std::net::Ipv4Addr;
use std::time::Duration;
use wsnic_tests::resident_kib;

/// Idle clients beside the busy one.
const OTHERS: usize = 1000;
/// Those that come before memory is looked at, so that every thread has its buffers.
const FIRST: usize = 10;

/// Resident memory per idle client.
pub fn memory(options: &Options, table: &mut Table) {
    let stage = Stage::wsnic(&format!("max_clients = {}\n", options.clients + FIRST));
    let first = connect(&stage, FIRST, 0);
    let guest = Guest::join(&stage, 0, true);
    for from_guest in [true, false] {
        let _ = flow::window(&stage, &guest, from_guest, options.warm_up, options.warm_up);
    }
    drop(guest);
    let resident = || [stage.pid(), stage.helper()].map(|pid| resident_kib(pid) as f64);
    let before = resident();
    let clients = connect(&stage, options.clients, FIRST);
    let after = resident();
    let each = |at: usize| (after[at] - before[at]) / clients.len() as f64;
    let what = format!("front-end's memory per idle client, {} clients", clients.len());
    table.add(Row::of(what, "KiB", each(0)).bound(Bound::AtMost(8.0)));
    table.add(Row::of("helper's memory per idle client", "KiB", each(1)));
    drop((first, clients));
    stage.end();
}

/// Throughput of one guest with others and alone.
pub fn others(options: &Options, table: &mut Table) {
    let count = options.count(OTHERS.min(options.clients), options.clients);
    let stages = [Stage::wsnic(""), Stage::wsnic(&format!("max_clients = {}\n", count + FIRST))];
    let guests = stages.each_ref().map(|stage| Guest::join(stage, 0, true));
    let idle = connect(&stages[1], count, FIRST);
    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let measure = |at: usize| {
            let (stage, guest) = (&stages[at], &guests[at]);
            flow::window(stage, guest, from_guest, options.warm_up, options.window).gigabits
        };
        // Whoever is first has another machine than who comes second: by turns.
        let round = |number: usize| {
            if number.is_multiple_of(2) {
                [measure(0), measure(1)]
            } else {
                let beside = measure(1);
                [measure(0), beside]
            }
        };
        let rounds: Vec<[f64; 2]> = (0..options.rounds).map(round).collect();
        let column = |at: usize| rounds.iter().map(|round| round[at]).collect::<Vec<_>>();
        let ratio = median(rounds.iter().map(|[alone, beside]| beside / alone).collect());
        let what = format!("TCP {way} guest, {count} idle others");
        let row = Row::of(what, "Gbit/s", median(column(1)));
        let to = format!("to {} alone", rounded(median(column(0))));
        table.add(row.ratio(to, ratio, Some(Bound::AtLeast(0.97))));
    }
    drop(idle);
    drop(guests);
    stages.into_iter().rev().for_each(Stage::end);
}

/// Clients that have moved one frame each.
pub fn connect(stage: &Stage, count: usize, from: usize) -> Vec<Client> {
    let clients: Vec<Client> = (from..from + count)
        .map(|number| {
            let [.., a, b] = (number as u32).to_be_bytes();
            let mac = [2, 0x86, 1, 0, a, b];
            let mut client = Client::connect(stage, mac, Ipv4Addr::UNSPECIFIED);
            client.greet();
            client
        })
        .collect();
    // The last of the frames is on its way, and what the bridge tells its new ports.
    std::thread::sleep(Duration::from_secs(1));
    clients
}
