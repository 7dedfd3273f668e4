//! A guest that floods the network, or stops reading, costs the others nothing but their share of
//! the machine: every ping is answered, every transfer whole. How fast that is, benchmarks say.

use std::sync::atomic::{AtomicBool, Ordering};
use wsnic_tests::address::{GATEWAY, WEB};
use wsnic_tests::frames::{self, EXPERIMENTAL, Mac};
use wsnic_tests::services::blob;
use wsnic_tests::{
    Door, Fragment, Lab, NativeGuest, RawGuest, Server, opcode, resident_kib, wait_until,
};

const INET: &str = "inet_iface = wan0\n";
/// Bytes of a transfer.
const LEN: usize = 2_000_000;
/// What the front-end may hold in debug builds, whatever guests do. Its own buffers are half a MiB.
const MEMORY_KIB: usize = 48 << 10;

/// Another guest finds the network as it should be.
fn is_served(guest: &NativeGuest) {
    let pings = guest.netns.run(&format!("ping -n -c 40 -i 0.02 -W 10 {GATEWAY}"));
    assert!(pings.contains(" 0% packet loss"), "{pings}");
    guest.uploads(WEB, &blob(LEN));
    assert!(guest.downloads(WEB, &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
}

/// Sends the same bytes for as long as it may.
fn flood(door: &mut Door, bytes: &[u8], goes_on: &AtomicBool) {
    while goes_on.load(Ordering::Relaxed) {
        assert!(door.try_send(bytes), "the server closed a guest that only sends much");
    }
}

fn messages(to: Mac, from: Mac, len: usize) -> Vec<u8> {
    let frame = frames::ethernet(to, from, EXPERIMENTAL, &vec![0x5a; len - 14]);
    Fragment::new(opcode::BINARY, &frame).bytes().repeat(200_000 / len)
}

#[test]
fn guests_that_flood_cost_the_others_nothing() {
    for conf in ["", "offloads = no\n"] {
        let lab = Lab::new();
        let server = Server::start(&lab, &format!("{INET}{conf}"));
        let guest = NativeGuest::join(&lab);
        let gateway = RawGuest::join(&lab).resolve(GATEWAY);
        let goes_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for (number, len) in [(8, 64), (9, 1514)] {
                let mut door = Door::upgraded(&lab);
                let bytes = messages(gateway, [2, 0, 0, 0, 0, number], len);
                let goes_on = &goes_on;
                scope.spawn(move || flood(&mut door, &bytes, goes_on));
            }
            // A failure must not leave the others waiting.
            let stop = StopsOnDrop(&goes_on);
            is_served(&guest);
            let memory = resident_kib(server.front_end());
            assert!(memory < MEMORY_KIB, "the front-end holds {memory} KiB");
            drop(stop);
        });
        drop(guest);
        server.stop();
        lab.finish();
    }
}

struct StopsOnDrop<'a>(&'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Bytes that the kernel holds for each client and has not sent, by the port of the client.
fn not_sent(lab: &Lab) -> Vec<(u16, usize)> {
    let text = lab.srv.run("ss -HtniO state established sport = :8086");
    let clients = text.lines().map(|line| {
        let client = line.split_whitespace().nth(3).and_then(|address| address.rsplit(':').next());
        let held = line.split_whitespace().find_map(|word| word.strip_prefix("notsent:"));
        let held = held.map_or(0, |number| number.parse().expect("a number of bytes"));
        (client.and_then(|port| port.parse().ok()).expect("a client's port"), held)
    });
    clients.collect()
}

#[test]
fn guests_that_stop_reading_cost_the_others_nothing_and_little_is_held_for_them() {
    for conf in ["", "offloads = no\n"] {
        let lab = Lab::new();
        let server = Server::start(&lab, &format!("{INET}{conf}"));
        let (guest, mut sender) = (NativeGuest::join(&lab), Door::upgraded(&lab));
        let own = [2, 0, 0, 0, 0, 9];
        // Each says once where it is, then reads no more.
        let stuck: Vec<Door> = (0..8)
            .map(|number| {
                let mut door = Door::upgraded(&lab);
                let hello = frames::ethernet([0xff; 6], [2, 0, 0, 0, 1, number], EXPERIMENTAL, b"");
                door.send_fragment(&Fragment::new(opcode::BINARY, &hello));
                door.send_fragment(&Fragment::new(opcode::PING, b""));
                while door.receive().opcode != opcode::PONG {}
                door
            })
            .collect();
        let bytes: Vec<u8> =
            (0..8).flat_map(|number| messages([2, 0, 0, 0, 1, number], own, 1514)).collect();
        let goes_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| flood(&mut sender, &bytes, &goes_on));
            let stop = StopsOnDrop(&goes_on);
            wait_until("every guest that does not read has a full socket", || {
                not_sent(&lab).iter().filter(|(_, held)| *held > 0).count() >= stuck.len()
            });
            is_served(&guest);
            for (client, held) in not_sent(&lab) {
                // TCP_NOTSENT_LOWAT, and the write that went beyond it.
                assert!(held <= 256 << 10, "{held} bytes wait for the client at port {client}");
            }
            let memory = resident_kib(server.front_end());
            assert!(memory < MEMORY_KIB, "the front-end holds {memory} KiB");
            drop(stop);
        });
        drop((guest, sender, stuck));
        server.stop();
        lab.finish();
    }
}
