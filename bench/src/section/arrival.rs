//! What a guest's arrival costs, what programs hold without guests, and a herd of guests.

use crate::options::Options;
use crate::table::{Bound, Row, Table, quantile};
use std::time::Instant;
use wsnic_tests::frames::Dhcp;
use wsnic_tests::{Lab, RawGuest, Server, resident_kib};

/// NAT on: the firewall is set up as for real guests.
pub const CONF: &str = "inet_iface = wan0\n";
/// Those of a herd that connect at the same time.
const THREADS: usize = 8;

/// One after the other, then all at once.
pub fn run(options: &Options, table: &mut Table) {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    for (what, pid, bound) in
        [("helper", server.helper(), 6144.0), ("front-end", server.front_end(), 10_240.0)]
    {
        let row =
            Row::of(format!("{what}'s memory without clients"), "KiB", resident_kib(pid) as f64);
        table.add(row.bound(Bound::AtMost(bound)));
    }
    let times: Vec<f64> = (0..options.count(50, 3)).map(|_| offer(&lab)).collect();
    for (what, part) in
        [("connect to the first DHCP OFFER, median", 0.5), ("the same, 99th percentile", 0.99)]
    {
        let row = Row::of(what, "ms", quantile(times.clone(), part));
        table.add(row.bound(Bound::AtMost(50.0)));
    }
    table.add(herd(&lab, options.count(200, 8)));
    server.stop();
    lab.finish();
}

/// Milliseconds.
fn offer(lab: &Lab) -> f64 {
    let started = Instant::now();
    let mut guest = RawGuest::connect(lab);
    let offer = guest.dhcp_ask(&Dhcp::new(1, guest.mac));
    let time = started.elapsed();
    assert_eq!(offer.kind, 2, "an OFFER answers a DISCOVER");
    guest.leave();
    time.as_secs_f64() * 1000.0
}

fn herd(lab: &Lab, clients: usize) -> Row {
    let started = Instant::now();
    let guests: Vec<RawGuest> = std::thread::scope(|scope| {
        let connect = || (0..clients / THREADS).map(|_| RawGuest::connect(lab)).collect();
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect::<Vec<_>>();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<RawGuest>>| {
            worker.join().expect("every client is let in")
        };
        workers.into_iter().flat_map(join).collect()
    });
    let rate = guests.len() as f64 / started.elapsed().as_secs_f64();
    Row::of(format!("WebSockets opened, {} by {THREADS} at a time", guests.len()), "1/s", rate)
}
