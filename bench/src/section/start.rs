//! What a start costs.

use crate::options::Options;
use crate::section::arrival::CONF;
use crate::table::{Bound, Row, Table, median};
use std::time::{Duration, Instant};
use wsnic_tests::{Lab, Server};

/// From the command to the line that says where clients connect.
pub fn run(options: &Options, table: &mut Table) {
    let once = || {
        let lab = Lab::new();
        let started = Instant::now();
        let server = Server::launch(&lab, CONF, &[]);
        // Polled more often than the tests do, which costs a core for the length of a start.
        while !server.log().contains("ws://") {
            assert!(!server.has_ended(), "wsnic ended:\n{}", server.log());
            std::thread::sleep(Duration::from_micros(500));
        }
        let time = started.elapsed();
        server.stop();
        lab.finish();
        time.as_secs_f64() * 1000.0
    };
    let times = (0..options.rounds).map(|_| once()).collect();
    table.add(Row::of("start of wsnic to ready", "ms", median(times)).bound(Bound::AtMost(1000.0)));
}
