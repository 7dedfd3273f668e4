//! What the sandbox costs: the front-end's processor time for frames from guest to guest.

use crate::options::Options;
use crate::table::{Bound, Row, Table, median};
use wsnic_tests::{Lab, RawGuest, Server, frames};

/// Frames that are on their way at most, so that no queue overflows.
const WINDOW: usize = 100;
/// Bytes of a full frame.
const FRAME: usize = 1514;

/// `sandbox=require` against `sandbox=off`.
pub fn run(options: &Options, table: &mut Table) {
    let frames = options.count(60_000, 500);
    let (mut with, mut without) = (Path::new("require"), Path::new("off"));
    // Both are warm before they are compared.
    with.cost(frames / 5);
    without.cost(frames / 5);
    let costs: Vec<(f64, f64)> =
        (0..options.rounds).map(|_| (with.cost(frames), without.cost(frames))).collect();
    let (inside, outside): (Vec<_>, Vec<_>) = costs.iter().copied().unzip();
    let ratio = median(costs.iter().map(|(inside, outside)| inside / outside).collect());
    let row = Row::of("front-end's CPU, guest to guest, sandbox=require", "s/GB", median(inside));
    let to = format!("to {} with sandbox=off", crate::table::rounded(median(outside)));
    table.add(row.ratio(to, ratio, Some(Bound::AtMost(1.10))));
    with.end();
    without.end();
}

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
        let before = crate::cpu_seconds(self.server.front_end());
        for _ in 0..frames / WINDOW {
            self.sender.send_all(std::iter::repeat_n(frame.clone(), WINDOW));
            for _ in 0..WINDOW {
                self.receiver.receive();
            }
        }
        let used = crate::cpu_seconds(self.server.front_end()) - before;
        used / ((frames / WINDOW * WINDOW * FRAME * 2) as f64 / 1e9)
    }

    fn end(self) {
        self.server.stop();
        drop((self.sender, self.receiver));
        self.lab.finish();
    }
}
