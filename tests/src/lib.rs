//! Support for the end-to-end tests: a small world of network namespaces around one wsnic, and
//! guests that join it through WebSocket code which is not wsnic's.
//!
//! A test makes a [`Lab`], starts a [`Server`] in it, lets a [`RawGuest`] (frames in the test's
//! own hands), a [`NativeGuest`] (a Linux network stack on a TAP) or a [`Door`] (bare bytes on TCP)
//! connect, stops the server, and calls [`Lab::finish`], which compares everything that a run
//! could leave behind with how it was before. Needs root; fails without.

// This is test code: a broken assumption fails the test, with the place where it broke.
#![allow(clippy::missing_panics_doc)]

pub mod autobahn;
mod bed;
pub mod browser;
pub mod clients;
mod container;
mod door;
mod former;
pub mod frames;
pub mod inspect;
mod keeper;
mod lab;
mod manual;
mod native_guest;
mod netns;
mod peer;
pub mod programs;
mod raw_guest;
mod refusal;
mod server;
pub mod services;
mod snapshot;
pub mod soak;
mod tampering;
mod tap;
mod trust;
pub mod v86;
mod wired;

pub use bed::{Bed, UNITS, install, printed};
pub use container::{Container, Engine};
pub use door::{Door, Fragment, HANDSHAKE, Response, opcode};
pub use former::{Former, Generation, Home};
pub use keeper::Keeper;
pub use lab::{Lab, address};
pub use manual::{Instead, NOT_RUN, commands_of, configurations_of, documents, is_run};
pub use native_guest::NativeGuest;
pub use netns::Netns;
pub use peer::{HeldPort, Helper, Peer};
pub use programs::{debian_architecture, source_dir, target_dir, wsnic};
pub use raw_guest::RawGuest;
pub use server::{Server, open_files, resident_kib, run_wsnic};
pub use snapshot::{Snapshot, processes};
pub use tampering::Tampering;
pub use tap::{open as plain_tap, open_offloaded as offloaded_tap};
pub use trust::{Authority, Identity, Trust};
pub use wired::{BRIDGE, WiredHost, WiredPort};

use std::time::{Duration, Instant};

/// How long anything may take that must happen at all. Far more than it needs: tests have no
/// opinion on speed.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`LIMIT`]; `what` says what was waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
