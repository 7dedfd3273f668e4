//! The relays that wsnic is compared with, as processes: this program under another argument.

use crate::{limit, naive};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

/// The bridge of a relay, as wsnic names its own.
pub const BRIDGE: &str = "wsbr0";
/// Frames that wait in a port, as many as in wsnic's.
const QUEUE_LEN: u32 = 500;

/// Runs the relay `name` until standard input ends.
///
/// # Panics
/// When it cannot serve.
pub fn run(name: &str, address: SocketAddr) {
    // Whoever started it may be killed: its end of the pipe goes with it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let listener = TcpListener::bind(address).expect("the address is free");
    match name {
        "naive" => naive::serve(listener, attach),
        "limit" => limit::serve(&listener, attach),
        other => panic!("no relay is called {other}"),
    }
}

fn attach(tap: &str) {
    let length = QUEUE_LEN.to_string();
    let line = ["link", "set", tap, "txqueuelen", &length, "master", BRIDGE, "up"];
    let status = Command::new("ip").args(line).status().expect("ip runs");
    assert!(status.success(), "ip {line:?}");
}
