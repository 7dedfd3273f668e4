//! An operator who looks at thousands of sessions: how long he waits, and what guests notice.

use crate::client::Client;
use crate::options::Options;
use crate::section::idle::connect;
use crate::stage::Stage;
use crate::table::{Bound, Row, Table, median, quantile};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wsnic_tests::run_wsnic;

const ADMIN: &str = "/run/wsnic-admin.sock";
/// Time from one question to the next, while a guest's round trips are measured.
const PAUSE: Duration = Duration::from_millis(100);
/// What they have sent has been dealt with by then.
const SETTLED: Duration = Duration::from_millis(500);
/// Clients that connect before those that are there say something again.
const IN_A_ROW: usize = 1000;
/// Guests that do something.
const BUSY: usize = 1;
/// What an operator does not notice, in milliseconds.
const BAR: Bound = Bound::AtMost(100.0);

/// Waits of the operator, and round trips of a guest with him and without.
pub fn run(options: &Options, table: &mut Table) {
    let stage = Stage::wsnic(&format!("max_clients = {}\n", options.clients + BUSY));
    let mut idle: Vec<Client> = Vec::new();
    while idle.len() < options.clients {
        // They answer no ping, and are not to be taken for dead.
        idle.iter_mut().for_each(Client::live);
        let some = IN_A_ROW.min(options.clients - idle.len());
        idle.extend(connect(&stage, some, BUSY + idle.len()));
    }
    let mut guest = Client::join(&stage, 0);
    let count = idle.len() + BUSY;
    let (mut asked, mut commands) = (Vec::new(), Vec::new());
    let (mut middle, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        idle.iter_mut().for_each(Client::live);
        std::thread::sleep(SETTLED);
        let alone = round_trips(&mut guest, options.window);
        let stop = AtomicBool::new(false);
        let watched = std::thread::scope(|scope| {
            let operator = scope.spawn(|| stage.lab.srv.enter(|| ask(count, &stop)));
            let trips = round_trips(&mut guest, options.window);
            stop.store(true, Ordering::Relaxed);
            asked.extend(operator.join().expect("the admin socket answers"));
            trips
        });
        let pair = |part: f64| [&watched, &alone].map(|trips| quantile(trips.clone(), part));
        middle.push(pair(0.5));
        slow.push(pair(0.99));
        commands.extend((0..5).map(|_| command(&stage, count)));
    }
    let what = format!("GET /sessions, {count} sessions, median");
    table.add(Row::of(what, "ms", median(asked.clone())));
    table.add(Row::of("the same, 99th percentile", "ms", quantile(asked, 0.99)).bound(BAR));
    let what = format!("the command wsnic sessions, {count} sessions, median");
    table.add(Row::of(what, "ms", median(commands)).bound(BAR));
    let row = |what: &str, rounds: &[[f64; 2]], bound: Option<Bound>| {
        let ratio = median(rounds.iter().map(|[watched, alone]| watched / alone).collect());
        let watched = median(rounds.iter().map(|[watched, _]| *watched).collect());
        Row::of(what, "µs", watched).ratio("to without", ratio, bound)
    };
    let bound = Some(Bound::AtMost(1.1));
    table.add(row("round trip of a guest, asked 10 times/s, median", &middle, bound));
    table.add(row("the same, 99th percentile", &slow, None));
    drop((guest, idle));
    stage.end();
}

/// Microseconds of each round trip for this long.
fn round_trips(guest: &mut Client, time: Duration) -> Vec<f64> {
    let (end, mut trips) = (Instant::now() + time, Vec::new());
    while Instant::now() < end || trips.is_empty() {
        trips.extend(guest.round_trip().map(|time| time.as_secs_f64() * 1e6));
    }
    trips
}

/// Asks for all sessions until it is enough; milliseconds until each answer was there.
fn ask(count: usize, stop: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) || times.is_empty() {
        let started = Instant::now();
        let mut answer = String::new();
        let mut stream = UnixStream::connect(ADMIN).expect("the admin socket is there");
        stream.write_all(b"GET /sessions HTTP/1.1\r\n\r\n").expect("it takes an order");
        stream.read_to_string(&mut answer).expect("it answers");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!(answer.matches("\"id\":").count(), count, "sessions");
        std::thread::sleep(PAUSE);
    }
    times
}

/// Milliseconds that `wsnic sessions` takes, from its start to its end.
fn command(stage: &Stage, count: usize) -> f64 {
    let conf = stage.lab.file("wsnic.conf");
    let arguments = ["sessions", "-c", conf.to_str().expect("a path")];
    let started = Instant::now();
    let (status, text) = run_wsnic(&stage.lab.srv, &arguments);
    let time = started.elapsed().as_secs_f64() * 1e3;
    assert!(status.success() && text.lines().count() == count + 1, "sessions and a heading");
    time
}
