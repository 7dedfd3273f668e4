//! Connection storms: 200 clients a second, each until its port is up and it has its 101.

use crate::options::Options;
use crate::stage::Stage;
use crate::table::{Bound, Row, Table, quantile};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Clients that come in a second.
const RATE: u32 = 200;
/// Threads that connect: one that waits does not hold up the others.
const THREADS: usize = 8;
/// How many stay in the second storm: who comes sends the oldest away.
const GUESTS: usize = 200;

/// Clients that stay, and clients that come and go.
pub fn run(options: &Options, table: &mut Table) {
    storm(options, table, "200 connects/s, all stay", options.count(800, 8), usize::MAX);
    storm(options, table, "200 connects/s, come and go", options.count(3000, 8), GUESTS);
}

fn storm(options: &Options, table: &mut Table, what: &str, count: usize, guests: usize) {
    let (mut middle, mut slow, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.rounds.min(3) {
        let stage = Stage::wsnic("max_clients = 1000\n");
        let storm = Storm::default();
        storm.rage(&stage, count, guests);
        let held = storm.held.into_inner().expect("no thread has failed");
        let up = stage.lab.srv.ip("-o link show up type tun").lines().count();
        assert!(up >= held.len(), "{} clients have {up} ports that are up", held.len());
        let times: Vec<f64> = storm.times.into_inner().expect("no thread has failed");
        middle.push(quantile(times.clone(), 0.5));
        slow.push(quantile(times, 0.99));
        refused += storm.refused.into_inner();
        drop(held);
        stage.end();
    }
    table.add(Row::of(format!("{what}, median"), "ms", quantile(middle, 0.5)));
    let row = Row::of(format!("{what}, 99th percentile"), "ms", quantile(slow, 0.5));
    table.add(row.bound(Bound::AtMost(10.0)));
    let row = Row::of(format!("{what}, refused"), "clients", refused as f64);
    table.add(row.bound(Bound::AtMost(0.0)));
}

#[derive(Default)]
struct Storm {
    held: Mutex<VecDeque<TcpStream>>,
    times: Mutex<Vec<f64>>,
    refused: AtomicUsize,
}

impl Storm {
    fn rage(&self, stage: &Stage, count: usize, guests: usize) {
        let (next, started) = (AtomicUsize::new(0), Instant::now());
        let work = || {
            stage.lab.lan.enter(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let due = started + Duration::from_secs(1) * number as u32 / RATE;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    self.one(stage, guests);
                }
            });
        };
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(work)));
        });
    }

    fn one(&self, stage: &Stage, guests: usize) {
        let begun = Instant::now();
        let Ok(stream) = stage.try_connect() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let time = begun.elapsed().as_secs_f64() * 1000.0;
        self.times.lock().expect("no thread has failed").push(time);
        let mut held = self.held.lock().expect("no thread has failed");
        held.push_back(stream);
        let oldest = if held.len() > guests { held.pop_front() } else { None };
        drop(held);
        drop(oldest);
    }
}
