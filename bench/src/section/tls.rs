//! What TLS costs the server: a guest by wss beside a guest by ws, of the same server.

use crate::flow::{self, Sample};
use crate::options::Options;
use crate::stage::{Guest, Stage};
use crate::table::{Bound, Row, Table, median, rounded};

/// Server's processor time by wss for that by ws.
const BAR: Bound = Bound::AtMost(2.2);

/// Both directions, in turns.
pub fn run(options: &Options, table: &mut Table) {
    let stage = Stage::wsnic_with_tls(&[], "");
    let guests = [Guest::join(&stage, 0, true), Guest::join_tls(&stage, 1, true)];
    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let rounds: Vec<[Sample; 2]> = (0..options.rounds)
            .map(|_| {
                guests.each_ref().map(|guest| {
                    flow::window(&stage, guest, from_guest, options.warm_up, options.window)
                })
            })
            .collect();
        let what = format!("TCP {way} guest by wss");
        add(table, &what, "Gbit/s", &rounds, |sample| sample.gigabits, None);
        let cpu = |sample: &Sample| sample.cpu_per_gigabyte;
        add(table, &format!("{what}, server's CPU"), "s/GB", &rounds, cpu, Some(BAR));
    }
    drop(guests);
    stage.end();
}

fn add(
    table: &mut Table,
    what: &str,
    unit: &'static str,
    rounds: &[[Sample; 2]],
    of: impl Fn(&Sample) -> f64,
    bar: Option<Bound>,
) {
    let middle = |at: usize| median(rounds.iter().map(|round| of(&round[at])).collect());
    let ratio = median(rounds.iter().map(|[ws, wss]| of(wss) / of(ws)).collect());
    let row = Row::of(what, unit, middle(1));
    table.add(row.ratio(format!("to {} by ws", rounded(middle(0))), ratio, bar));
}
