//! What goes through a session, counted where it goes: for the log and the operator.

use std::cell::Cell;
use wsnic_proto::MacAddr;

/// What has gone through a session.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from the guest that went to the bridge.
    pub frames_in: Cell<u64>,
    /// Their bytes.
    pub bytes_in: Cell<u64>,
    /// Frames from the bridge that were sent to the guest.
    pub frames_out: Cell<u64>,
    /// Their bytes.
    pub bytes_out: Cell<u64>,
    /// Frames from the bridge that were dropped so that a slow client's queue stays short.
    pub late: Cell<u64>,
    /// Messages of the client that were not fit for the bridge.
    pub dropped: Cell<u64>,
    /// The guest's address, by its last frame that was looked at.
    pub mac: Cell<Option<MacAddr>>,
    /// Text messages, ignored.
    pub texts: Cell<u64>,
}

/// Counts so many more.
pub fn add(counter: &Cell<u64>, amount: usize) {
    counter.set(counter.get() + amount as u64);
}
