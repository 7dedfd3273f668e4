//! What a start, a guest's arrival and idle guests cost, measured in the lab of the tests.
//!
//! `make bench` runs it with the release build, on a machine that should be idle otherwise. It
//! prints and judges nothing by its exit status; a run that fails panics. `--quick` goes through
//! every step with few rounds, so that the test suite knows that it works; its figures mean little.

use std::time::{Duration, Instant};
use wsnic_tests::frames::{self, Dhcp};
use wsnic_tests::{Lab, RawGuest, Server};

/// NAT on: the firewall is set up as for real guests.
const CONF: &str = "inet_iface = wan0\n";

/// How often each thing is done.
struct Rounds {
    starts: usize,
    offers: usize,
    idle_clients: usize,
    /// Connections in all, and threads that make them.
    herd: (usize, usize),
    /// Rounds with and without the sandbox, and full frames in each.
    sandbox: (usize, usize),
}

const FULL: Rounds =
    Rounds { starts: 5, offers: 50, idle_clients: 100, herd: (200, 8), sandbox: (9, 60_000) };
const QUICK: Rounds =
    Rounds { starts: 1, offers: 3, idle_clients: 3, herd: (8, 2), sandbox: (1, 500) };

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { QUICK } else { FULL };
    println!("{:<58} {:>10}   bar", "what", "measured");
    starts(&rounds);
    offers(&rounds);
    memory(&rounds);
    herd(&rounds);
    sandbox(&rounds);
}

fn starts(rounds: &Rounds) {
    let mut times: Vec<Duration> = (0..rounds.starts)
        .map(|_| {
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
            time
        })
        .collect();
    times.sort();
    let what = format!("start of wsnic to ready, median of {}", rounds.starts);
    row(&what, &millis(quantile(&times, 0.5)), "1000 ms");
}

fn offers(rounds: &Rounds) {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let mut times: Vec<Duration> = (0..rounds.offers)
        .map(|_| {
            let started = Instant::now();
            let mut guest = RawGuest::connect(&lab);
            let offer = guest.dhcp_ask(&Dhcp::new(1, guest.mac));
            let time = started.elapsed();
            assert_eq!(offer.kind, 2, "an OFFER answers a DISCOVER");
            guest.leave();
            time
        })
        .collect();
    times.sort();
    let what = format!("connect() to first DHCP OFFER, median of {}", rounds.offers);
    row(&what, &millis(quantile(&times, 0.5)), "50 ms");
    row("the same, 99th percentile", &millis(quantile(&times, 0.99)), "50 ms");
    server.stop();
    lab.finish();
}

fn memory(rounds: &Rounds) {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    row("helper, resident, no client", &kib(server.helper()), "6144 KiB");
    row("front-end, resident, no client", &kib(server.front_end()), "10240 KiB");
    let guests: Vec<RawGuest> = (0..rounds.idle_clients).map(|_| RawGuest::join(&lab)).collect();
    let clients = format!("resident, {} idle clients", guests.len());
    row(&format!("helper, {clients}"), &kib(server.helper()), "");
    row(&format!("front-end, {clients}"), &kib(server.front_end()), "");
    server.stop();
    drop(guests);
    lab.finish();
}

fn herd(rounds: &Rounds) {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let (clients, threads) = rounds.herd;
    let started = Instant::now();
    let guests: Vec<RawGuest> = std::thread::scope(|scope| {
        let connect = || (0..clients / threads).map(|_| RawGuest::connect(&lab)).collect();
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(connect)).collect::<Vec<_>>();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<RawGuest>>| {
            worker.join().expect("every client is let in")
        };
        workers.into_iter().flat_map(join).collect()
    });
    let rate = guests.len() as f64 / started.elapsed().as_secs_f64();
    let what = format!("WebSockets opened, {} by {threads} at a time", guests.len());
    row(&what, &format!("{rate:.0} /s"), "");
    server.stop();
    drop(guests);
    lab.finish();
}

/// Frames that are on their way at most, so that no queue overflows.
const WINDOW: usize = 100;
/// Bytes of a full frame.
const FRAME: usize = 1514;

/// One server, two guests, and the processor time that their frames cost the front-end.
struct Path {
    server: Server,
    sender: RawGuest,
    receiver: RawGuest,
    lab: Lab,
}

impl Path {
    fn new(level: &str) -> Path {
        let lab = Lab::new();
        let server = Server::start(&lab, &format!("sandbox = {level}\n"));
        let (sender, receiver) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
        let mut path = Path { server, sender, receiver, lab };
        // The bridge learns where the receiver is.
        path.receiver.shout("here");
        path.sender.hear("here");
        path
    }

    /// Moves frames from one guest to the other; processor seconds for each GB, in and out counted.
    fn cost(&mut self, frames: usize) -> f64 {
        let frame =
            frames::ethernet(self.receiver.mac, self.sender.mac, frames::EXPERIMENTAL, &[7; 1500]);
        let before = cpu_seconds(self.server.front_end());
        for _ in 0..frames / WINDOW {
            self.sender.send_all(std::iter::repeat_n(frame.clone(), WINDOW));
            for _ in 0..WINDOW {
                self.receiver.receive();
            }
        }
        let used = cpu_seconds(self.server.front_end()) - before;
        used / ((frames / WINDOW * WINDOW * FRAME * 2) as f64 / 1e9)
    }

    fn end(self) {
        self.server.stop();
        drop((self.sender, self.receiver));
        self.lab.finish();
    }
}

fn sandbox(rounds: &Rounds) {
    let (count, frames) = rounds.sandbox;
    let (mut with, mut without) = (Path::new("require"), Path::new("off"));
    // Both are warm before they are compared.
    with.cost(frames / 5);
    without.cost(frames / 5);
    let mut costs: Vec<(f64, f64)> =
        (0..count).map(|_| (with.cost(frames), without.cost(frames))).collect();
    costs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (inside, outside) = costs[count / 2];
    row("front-end, CPU for each GB, sandbox=require", &format!("{inside:.2} s"), "");
    row("the same, sandbox=off", &format!("{outside:.2} s"), "");
    let what = format!("sandbox to none, median of {count} pairs of rounds");
    row(&what, &format!("{:.3}", inside / outside), "1.10");
    with.end();
    without.end();
}

/// Processor time of all threads of a process so far (schedstat of proc(5)).
fn cpu_seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let nanoseconds = threads.map(|thread| {
        let path = thread.expect("a directory entry").path().join("schedstat");
        let text = std::fs::read_to_string(path).expect("the thread lives");
        text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).expect("a number")
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

fn row(what: &str, measured: &str, bar: &str) {
    println!("{what:<58} {measured:>10}   {bar}");
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The smallest of `sorted` that is not exceeded by this part of them.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.max(1) - 1]
}

/// Resident memory (VmRSS of proc(5)), program and libraries included.
fn kib(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of RSS");
    let number = line.trim().trim_end_matches(" kB").to_owned();
    format!("{number} KiB")
}
