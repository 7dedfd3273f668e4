//! What goes through a session, counted where it goes: for the log and the operator.

use crate::rtt::Rtt;
use crate::watchers::Watchers;
use std::cell::Cell;
use std::net::Ipv4Addr;
use wsnic_proto::MacAddr;
use wsnic_proto::frame::FrameError;

/// IPv4 addresses of a guest that are remembered.
const MAX_ADDRESSES: usize = 4;

/// What has gone through a session, and what is known of its guest.
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
    /// Messages of the client that were not fit for the bridge, and frames that one of both sides did
    /// not take.
    pub dropped: Cell<u64>,
    /// The guest's address, by its last frame that was looked at.
    pub mac: Cell<Option<MacAddr>>,
    /// Those that it was given by DHCP or named itself in ARP, as numbers, the last one first; then 0.
    addresses: Cell<[u32; MAX_ADDRESSES]>,
    /// Text messages, ignored.
    pub texts: Cell<u64>,
    /// The round trip to the client.
    pub rtt: Rtt,
    /// Who looks at the frames that never reach the bridge.
    pub watchers: Watchers,
}

impl Counters {
    /// The guest uses this address; an unspecified one is none.
    pub fn note_address(&self, address: Ipv4Addr) {
        if address.is_unspecified() {
            return;
        }
        let (mut known, address) = (self.addresses.get(), address.to_bits());
        let at = known.iter().position(|other| *other == address).unwrap_or(MAX_ADDRESSES - 1);
        known[..=at].rotate_right(1);
        known[0] = address;
        self.addresses.set(known);
    }

    /// The addresses that the guest uses, the last one first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let known = self.addresses.get().into_iter();
        known.take_while(|bits| *bits != 0).map(Ipv4Addr::from_bits)
    }

    /// Counts frames that were dropped.
    pub fn dropped(&self, why: Dropped, frames: usize) {
        add(&self.dropped, frames);
        DROPPED.with(|counts| add(&counts[why as usize], frames));
    }
}

/// Counts so many more.
pub fn add(counter: &Cell<u64>, amount: usize) {
    counter.set(counter.get() + amount as u64);
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// See [`FrameError`].
    TooShort,
    /// See [`FrameError`].
    TooLong,
    /// See [`FrameError`].
    BadSource,
    /// See [`FrameError`].
    GatewaySource,
    /// See [`FrameError`].
    BridgeProtocol,
    /// See [`FrameError`].
    Vlan,
    /// A guest plays DHCP server.
    DhcpAnswer,
    /// The guest may not use the address that it comes from.
    Address,
    /// The port did not take it.
    Port,
    /// The kernel has handed over something that cannot be cut into frames.
    Malformed,
}

impl Dropped {
    /// All reasons, in order, each in one word.
    pub const WORDS: [&str; 10] = [
        "too_short",
        "too_long",
        "bad_source",
        "gateway_source",
        "bridge_protocol",
        "vlan",
        "dhcp_answer",
        "address",
        "port",
        "malformed",
    ];
}

impl From<FrameError> for Dropped {
    fn from(error: FrameError) -> Dropped {
        match error {
            FrameError::TooShort => Dropped::TooShort,
            FrameError::TooLong => Dropped::TooLong,
            FrameError::BadSource => Dropped::BadSource,
            FrameError::GatewaySource => Dropped::GatewaySource,
            FrameError::BridgeProtocol => Dropped::BridgeProtocol,
            FrameError::Vlan => Dropped::Vlan,
        }
    }
}

thread_local! {
    /// Of all sessions since the start: one thread moves all frames, and no session pays for them.
    static DROPPED: [Cell<u64>; Dropped::WORDS.len()] = const { [const { Cell::new(0) }; _] };
}

/// What this thread has dropped since the start, by the reason.
pub fn dropped_in_all() -> impl Iterator<Item = (&'static str, u64)> {
    let counts = DROPPED.with(|counts| counts.each_ref().map(Cell::get));
    Dropped::WORDS.into_iter().zip(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_addresses_are_known_each_once() {
        let counters = Counters::default();
        assert_eq!(counters.addresses().count(), 0);
        let address = |last: u8| Ipv4Addr::new(192, 168, 86, last);
        for last in [2, 3, 2, 2, 4, 3] {
            counters.note_address(address(last));
        }
        assert_eq!(counters.addresses().collect::<Vec<_>>(), [3, 4, 2].map(address));
        for last in 5..20 {
            counters.note_address(address(last));
        }
        assert_eq!(counters.addresses().collect::<Vec<_>>(), [19, 18, 17, 16].map(address));
    }

    #[test]
    fn what_is_dropped_is_counted_by_its_reason_and_by_its_session() {
        let counters = [Counters::default(), Counters::default()];
        counters[0].dropped(FrameError::Vlan.into(), 1);
        counters[1].dropped(Dropped::Vlan, 2);
        counters[1].dropped(Dropped::Malformed, 3);
        assert_eq!(counters.map(|counters| counters.dropped.get()), [1, 5]);
        let counted: Vec<_> = dropped_in_all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("vlan", 3), ("malformed", 3)]);
    }
}
