//! Which MAC is bound to which address of the pool, found by either, by port and by time.
//!
//! Called by `pool` only, which decides; this keeps the books. A binding changes only by
//! [`Bindings::take`], which unlinks it everywhere, and [`Bindings::put`], which links it again.
//! Addresses are indices into the pool, times are seconds since 1970.

use super::{HostName, PortKey};
use std::collections::{BTreeSet, HashMap};
use wsnic_proto::MacAddr;

/// One binding per address and per MAC.
#[derive(Default)]
pub(super) struct Bindings {
    by_index: HashMap<u32, Binding>,
    by_mac: HashMap<MacAddr, u32>,
    /// Offers and leases of open ports, the one heard of longest ago first.
    by_port: HashMap<PortKey, Vec<u32>>,
    /// When offers and leases end.
    deadlines: BTreeSet<(u64, u32)>,
    /// Leases whose port has closed, by when it did.
    orphans: BTreeSet<(u64, u32)>,
    /// Bindings that have ended, by when they did.
    ended: BTreeSet<(u64, u32)>,
}

/// A MAC and where it stands with its address.
pub(super) struct Binding {
    pub(super) mac: MacAddr,
    pub(super) host_name: Option<HostName>,
    pub(super) state: State,
}

#[derive(Clone, Copy)]
pub(super) enum State {
    /// `before`: when the MAC's earlier lease of this address ended.
    Offered { port: PortKey, until: u64, before: Option<u64> },
    /// Acknowledged.
    Leased { holder: Holder, until: u64 },
    /// The memory of a lease.
    Ended { at: u64 },
}

/// Whose a lease is.
#[derive(Clone, Copy)]
pub(super) enum Holder {
    Port(PortKey),
    /// Its port has closed; the client knows of this expiry.
    Closed {
        since: u64,
        expiry: u64,
    },
}

impl Bindings {
    pub(super) fn get(&self, index: u32) -> Option<&Binding> {
        self.by_index.get(&index)
    }

    pub(super) fn index_of(&self, mac: MacAddr) -> Option<u32> {
        self.by_mac.get(&mac).copied()
    }

    /// Offers and leases.
    pub(super) fn count_live(&self) -> usize {
        self.deadlines.len()
    }

    /// Every bound address, in no order.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.by_index.keys().copied().collect()
    }

    /// Offers and leases of `port`, the one heard of longest ago first.
    pub(super) fn of_port(&self, port: PortKey) -> &[u32] {
        self.by_port.get(&port).map(Vec::as_slice).unwrap_or_default()
    }

    /// When the next offer or lease ends, and which.
    pub(super) fn next_deadline(&self) -> Option<(u64, u32)> {
        self.deadlines.first().copied()
    }

    /// When the lease ended that ended longest ago, and which.
    pub(super) fn longest_ended(&self) -> Option<(u64, u32)> {
        self.ended.first().copied()
    }

    /// Since when the port is closed that closed longest ago, and one of its leases.
    pub(super) fn longest_orphaned(&self) -> Option<(u64, u32)> {
        self.orphans.first().copied()
    }

    /// Binds `index`, which neither it nor the MAC may be yet.
    pub(super) fn put(&mut self, index: u32, binding: Binding) {
        match binding.state {
            State::Offered { port, until, .. }
            | State::Leased { holder: Holder::Port(port), until } => {
                self.deadlines.insert((until, index));
                self.by_port.entry(port).or_default().push(index);
            }
            State::Leased { holder: Holder::Closed { since, .. }, until } => {
                self.deadlines.insert((until, index));
                self.orphans.insert((since, index));
            }
            State::Ended { at } => {
                self.ended.insert((at, index));
            }
        }
        self.by_mac.insert(binding.mac, index);
        self.by_index.insert(index, binding);
    }

    /// Unbinds `index`; None if it is not bound.
    pub(super) fn take(&mut self, index: u32) -> Option<Binding> {
        let binding = self.by_index.remove(&index)?;
        self.by_mac.remove(&binding.mac);
        match binding.state {
            State::Offered { port, until, .. }
            | State::Leased { holder: Holder::Port(port), until } => {
                self.deadlines.remove(&(until, index));
                self.unlink(port, index);
            }
            State::Leased { holder: Holder::Closed { since, .. }, until } => {
                self.deadlines.remove(&(until, index));
                self.orphans.remove(&(since, index));
            }
            State::Ended { at } => {
                self.ended.remove(&(at, index));
            }
        }
        Some(binding)
    }

    fn unlink(&mut self, port: PortKey, index: u32) {
        if let Some(leases) = self.by_port.get_mut(&port) {
            leases.retain(|other| *other != index);
            if leases.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }
}

/// What tests look at.
#[cfg(test)]
impl Bindings {
    /// Index, MAC, port if it is open, and end of each lease and offer.
    pub(super) fn live(&self) -> Vec<(u32, MacAddr, Option<PortKey>, u64)> {
        let live = self.by_index.iter().filter_map(|(index, binding)| {
            let (port, until) = match binding.state {
                State::Offered { port, until, .. } => (Some(port), until),
                State::Leased { holder: Holder::Port(port), until } => (Some(port), until),
                State::Leased { until, .. } => (None, until),
                State::Ended { .. } => return None,
            };
            Some((*index, binding.mac, port, until))
        });
        live.collect()
    }

    /// Panics unless every index agrees with the bindings and no port has more than `most`.
    pub(super) fn check(&self, most: usize) {
        let mut in_ports: Vec<u32> = self.by_port.values().flatten().copied().collect();
        in_ports.sort_unstable();
        assert!(in_ports.windows(2).all(|pair| pair[0] != pair[1]), "in two ports");
        assert!(self.by_port.values().all(|leases| (1..=most).contains(&leases.len())));
        assert_eq!(self.by_mac.len(), self.by_index.len());
        assert_eq!(self.by_index.len(), self.ended.len() + self.deadlines.len());
        assert_eq!(self.deadlines.len(), in_ports.len() + self.orphans.len());
        for (index, binding) in &self.by_index {
            assert_eq!(self.by_mac.get(&binding.mac), Some(index));
        }
    }
}
