//! Who has which address, and who gets the next one.
//!
//! Called by the DHCP server; the only place that changes a binding. Does no I/O, knows no message.
//! The caller passes the time (seconds since 1970) to `tick` before anything else.
//!
//! Each address is in one of these states, and is found in each without a walk of the pool:
//! - never used: nowhere, or in `returned` when it lies below the cursor `next`;
//! - offered, leased, or ended (the memory of a MAC's address): in `bindings`;
//! - set aside after a DECLINE: in `aside` and `aside_order`.

use super::bindings::{Binding, Bindings, Holder, State};
use super::{HostName, Lease, PortKey};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use wsnic_proto::{MacAddr, Plan};

/// Live leases per port, offers included: one for a guest, some for guests inside the guest, and
/// far too few to empty a pool.
pub(super) const LEASES_PER_PORT: usize = 4;
/// Declines of a port that are believed.
const DECLINES_PER_PORT: u8 = 4;
/// Released leases of a port that are remembered: with more, a guest that goes through MACs would
/// push others' memories out.
const RELEASES_PER_PORT: u8 = 16;
/// Seconds that an offer holds an address.
pub(super) const OFFER_TIME: u64 = 60;
/// Seconds that a lease outlives its port: a client that lost its connection comes back within 10.
pub(super) const CLOSED_GRACE: u64 = 600;
/// Seconds after its port closed at which a lease may be taken when nothing else is left.
pub(super) const CLOSED_SPARED: u64 = 120;
/// Seconds that a declined address is not given out.
pub(super) const ASIDE_TIME: u64 = 600;
/// Addresses given out at most, the first of the subnet: it bounds memory and the lease file
/// (8 MiB), and is sixteen times what 1,023 ports can hold.
const SPAN_MAX: u32 = 65_536;

/// The addresses of one network.
pub(super) struct Pool {
    plan: Plan,
    span: u32,
    bindings: Bindings,
    /// What open ports have done so far.
    counts: HashMap<PortKey, Counts>,
    /// Every index below it has been used.
    next: u32,
    /// Indices below `next` that are free again and remembered for nobody.
    returned: BTreeSet<u32>,
    /// Addresses that guests on open ports use without a lease.
    statics: HashMap<u32, PortKey>,
    /// Declined addresses and when they may be given out again.
    aside: HashMap<u32, u64>,
    aside_order: BTreeSet<(u64, u32)>,
    /// Leases of an earlier run, whose ports count as closed since the first tick.
    loaded: Vec<u32>,
}

#[derive(Default)]
struct Counts {
    declines: u8,
    releases: u8,
    /// Addresses that its guest uses without a lease, the last ones.
    statics: VecDeque<u32>,
}

/// Why an address is not the client's to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an address that guests are given: another subnet, the gateway, the broadcast address.
    #[error("not an address of the pool")]
    OutsidePool,
    /// The client has another one.
    #[error("the client has another address")]
    HasAnother,
    /// It is somebody else's, or was declined.
    #[error("the address is taken")]
    Taken,
    /// The port has as many leases as it may have.
    #[error("the port has its full number of leases")]
    Quota,
}

impl Pool {
    /// The pool of `plan` with what an earlier run remembered. Of leases of one MAC or one address
    /// the later expiry counts; those outside the pool are dropped.
    pub(super) fn new(plan: Plan, mut leases: Vec<Lease>) -> Pool {
        let mut pool = Pool {
            plan,
            span: plan.pool_len().min(SPAN_MAX),
            bindings: Bindings::default(),
            counts: HashMap::new(),
            next: 0,
            returned: BTreeSet::new(),
            statics: HashMap::new(),
            aside: HashMap::new(),
            aside_order: BTreeSet::new(),
            loaded: Vec::new(),
        };
        leases.sort_by_key(|lease| lease.expiry);
        for Lease { address, mac, expiry, host_name } in leases {
            let Some(index) = pool.index(address) else { continue };
            pool.forget(index);
            if let Some(other) = pool.bindings.index_of(mac) {
                pool.forget(other);
            }
            let holder = Holder::Closed { since: 0, expiry };
            let state = State::Leased { holder, until: expiry };
            pool.put(index, Binding { mac, host_name, state });
        }
        pool.loaded = pool.bindings.indices();
        pool
    }

    /// Ends what has run out by `now`.
    pub(super) fn tick(&mut self, now: u64) {
        for index in std::mem::take(&mut self.loaded) {
            let Some(mut binding) = self.bindings.take(index) else { continue };
            if let State::Leased { holder: Holder::Closed { since, .. }, .. } = &mut binding.state {
                *since = now;
            }
            self.put(index, binding);
        }
        while let Some((until, index)) = self.bindings.next_deadline()
            && until <= now
        {
            self.lapse(index);
        }
        while let Some((until, index)) = self.aside_order.first().copied()
            && until <= now
        {
            self.give_back_aside(until, index);
        }
    }

    /// An address to offer to `mac`, held for [`OFFER_TIME`]; `requested` is its wish.
    ///
    /// Its own before any other, then its wish if nobody ever had that, the next that nobody ever
    /// had, the one given up longest ago, and last one whose port closed. A full port gets its
    /// own oldest. None: all are in use.
    pub(super) fn offer(
        &mut self,
        now: u64,
        port: PortKey,
        mac: MacAddr,
        requested: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        self.own_up(port, requested);
        let until = now.saturating_add(OFFER_TIME);
        if let Some(index) = self.bindings.index_of(mac)
            && let Some(mut binding) = self.bindings.take(index)
        {
            self.make_room(port);
            binding.state = match binding.state {
                State::Offered { before, .. } => State::Offered { port, until, before },
                State::Leased { until: end, .. } => {
                    State::Leased { holder: Holder::Port(port), until: end.max(until) }
                }
                State::Ended { at } => State::Offered { port, until, before: Some(at) },
            };
            self.put(index, binding);
            return self.address(index);
        }
        let index = match self.oldest_of_full(port) {
            Some(oldest) => oldest,
            None => self.choose(now, requested)?,
        };
        self.forget(index);
        let state = State::Offered { port, until, before: None };
        self.put(index, Binding { mac, host_name: None, state });
        self.address(index)
    }

    /// Leases `address` to `mac` until `until`: offered, its own already, or never used by anybody
    /// (a client that outlived the memory of its lease keeps its address).
    pub(super) fn claim(
        &mut self,
        port: PortKey,
        mac: MacAddr,
        address: Ipv4Addr,
        until: u64,
        host_name: Option<HostName>,
    ) -> Result<Lease, Refusal> {
        let index = self.index(address).ok_or(Refusal::OutsidePool)?;
        self.own_up(port, Some(address));
        let mut host_name = host_name;
        match self.bindings.index_of(mac) {
            Some(own) if own == index => {
                let known = self.bindings.take(index).and_then(|binding| binding.host_name);
                host_name = host_name.or(known);
                self.make_room(port);
            }
            Some(_) => return Err(Refusal::HasAnother),
            None if !self.is_fresh(index) => return Err(Refusal::Taken),
            None if self.oldest_of_full(port).is_some() => return Err(Refusal::Quota),
            None => {}
        }
        let lease = Lease { address, mac, expiry: until, host_name: host_name.clone() };
        let state = State::Leased { holder: Holder::Port(port), until };
        self.put(index, Binding { mac, host_name, state });
        Ok(lease)
    }

    /// Whether `mac` may use `address` without asking: if nobody else has it whose port is open.
    pub(super) fn may_use(&self, port: PortKey, mac: MacAddr, address: Ipv4Addr) -> bool {
        let Some(index) = self.index(address) else { return true };
        match self.bindings.get(index) {
            Some(binding) if binding.mac == mac => true,
            Some(Binding {
                state:
                    State::Offered { port: owner, .. }
                    | State::Leased { holder: Holder::Port(owner), .. },
                ..
            }) if *owner != port => false,
            _ => self.statics.get(&index).is_none_or(|owner| *owner == port),
        }
    }

    /// `mac` uses `address`, which it may: its lease goes on if it has one. Without, nobody else is given
    /// the address until the port closes.
    pub(super) fn used(&mut self, port: PortKey, mac: MacAddr, address: Ipv4Addr) {
        if !self.may_use(port, mac, address) {
            return;
        }
        let Some(index) = self.index(address) else { return };
        match self.bindings.get(index).map(|binding| (binding.mac == mac, binding.state)) {
            Some((true, State::Leased { holder, until })) => {
                return self.take_over(index, port, holder, until);
            }
            Some((true, State::Offered { .. })) => return,
            Some(_) => self.forget(index),
            None => {}
        }
        if self.statics.insert(index, port).is_some() {
            return;
        }
        self.returned.remove(&index);
        let own = &mut self.counts.entry(port).or_default().statics;
        own.push_back(index);
        if own.len() > LEASES_PER_PORT
            && let Some(oldest) = own.pop_front()
        {
            self.unused(oldest);
        }
    }

    /// The client of a lease is behind another port than before: its connection was lost, and it has
    /// not noticed.
    fn take_over(&mut self, index: u32, port: PortKey, holder: Holder, until: u64) {
        let until = match holder {
            Holder::Port(holder) if holder == port => return,
            Holder::Port(_) => until,
            Holder::Closed { expiry, .. } => expiry,
        };
        self.make_room(port);
        let Some(mut binding) = self.bindings.take(index) else { return };
        binding.state = State::Leased { holder: Holder::Port(port), until };
        self.put(index, binding);
    }

    /// No guest uses the address without a lease any more.
    fn unused(&mut self, index: u32) {
        self.statics.remove(&index);
        if self.is_fresh(index) {
            self.give_back(index);
        }
    }

    /// The guest on `port` asks for an address that it uses already.
    fn own_up(&mut self, port: PortKey, address: Option<Ipv4Addr>) {
        let index = address.and_then(|address| self.index(address));
        if let Some(index) = index.filter(|index| self.statics.get(index) == Some(&port)) {
            if let Some(counts) = self.counts.get_mut(&port) {
                counts.statics.retain(|own| *own != index);
            }
            self.unused(index);
        }
    }

    /// Takes back an offer that the client turned down.
    pub(super) fn withdraw(&mut self, port: PortKey, mac: MacAddr) {
        if let Some(index) = self.bindings.index_of(mac)
            && let Some(Binding { state: State::Offered { port: owner, .. }, .. }) =
                self.bindings.get(index)
            && *owner == port
        {
            self.lapse(index);
        }
    }

    /// Ends the lease that `mac` has of `address` on `port` and remembers it for a while; None if it
    /// has none.
    pub(super) fn release(
        &mut self,
        now: u64,
        port: PortKey,
        mac: MacAddr,
        address: Ipv4Addr,
    ) -> Option<Lease> {
        let index = self.held(port, mac, address)?;
        if let State::Offered { .. } = self.bindings.get(index)?.state {
            self.lapse(index);
            return None;
        }
        let mut binding = self.bindings.take(index)?;
        let host_name = binding.host_name.clone();
        let counts = self.counts.entry(port).or_default();
        if counts.releases < RELEASES_PER_PORT {
            counts.releases += 1;
            binding.state = State::Ended { at: now };
            self.put(index, binding);
        } else {
            self.give_back(index);
        }
        Some(Lease { address, mac, expiry: now, host_name })
    }

    /// Sets `address`, which `mac` holds on `port`, aside for [`ASIDE_TIME`]; None if it does not
    /// hold it or its port has declined too often.
    pub(super) fn decline(
        &mut self,
        now: u64,
        port: PortKey,
        mac: MacAddr,
        address: Ipv4Addr,
    ) -> Option<Lease> {
        let index = self.held(port, mac, address)?;
        let counts = self.counts.entry(port).or_default();
        if counts.declines >= DECLINES_PER_PORT {
            return None;
        }
        counts.declines += 1;
        let host_name = self.bindings.get(index).and_then(|binding| binding.host_name.clone());
        self.forget(index);
        self.returned.remove(&index);
        let until = now.saturating_add(ASIDE_TIME);
        self.aside.insert(index, until);
        self.aside_order.insert((until, index));
        // Sessions that come, decline and go must not set the whole pool aside.
        let most = usize::try_from(self.span / 8).unwrap_or(usize::MAX).max(1);
        while self.aside.len() > most
            && let Some((until, index)) = self.aside_order.first().copied()
        {
            self.give_back_aside(until, index);
        }
        Some(Lease { address, mac, expiry: now, host_name })
    }

    /// Withdraws the port's offers; its leases end [`CLOSED_GRACE`] later, or in time if that is
    /// earlier.
    pub(super) fn close_port(&mut self, now: u64, port: PortKey) {
        for index in self.bindings.of_port(port).to_vec() {
            let Some(mut binding) = self.bindings.take(index) else { continue };
            if let State::Leased { until, .. } = binding.state {
                let holder = Holder::Closed { since: now, expiry: until };
                let until = until.min(now.saturating_add(CLOSED_GRACE));
                binding.state = State::Leased { holder, until };
            }
            let offered = matches!(binding.state, State::Offered { .. });
            self.put(index, binding);
            if offered {
                self.lapse(index);
            }
        }
        let statics = self.counts.remove(&port).map(|counts| counts.statics).unwrap_or_default();
        statics.into_iter().for_each(|index| self.unused(index));
    }

    /// Addresses that are leased or offered, and addresses that there are.
    pub(super) fn count(&self) -> (usize, u32) {
        (self.bindings.count_live(), self.span)
    }

    /// Whether a MAC that nobody knows would get no address.
    pub(super) fn is_exhausted(&mut self, now: u64) -> bool {
        self.choose(now, None).is_none()
    }

    /// Whether `mac` is offered or leases `address` on `port`.
    fn held(&self, port: PortKey, mac: MacAddr, address: Ipv4Addr) -> Option<u32> {
        let index =
            self.index(address).filter(|index| self.bindings.index_of(mac) == Some(*index))?;
        self.bindings.of_port(port).contains(&index).then_some(index)
    }

    fn choose(&mut self, now: u64, requested: Option<Ipv4Addr>) -> Option<u32> {
        requested
            .and_then(|address| self.index(address))
            .filter(|index| self.is_fresh(*index))
            .or_else(|| self.next_fresh())
            .or_else(|| self.bindings.longest_ended().map(|(_, index)| index))
            .or_else(|| {
                let (since, index) = self.bindings.longest_orphaned()?;
                (since.saturating_add(CLOSED_SPARED) < now).then_some(index)
            })
    }

    /// The lowest index that nobody ever had. Each index is stepped over once in the pool's life.
    fn next_fresh(&mut self) -> Option<u32> {
        if let Some(index) = self.returned.first() {
            return Some(*index);
        }
        while self.next < self.span {
            if self.is_fresh(self.next) {
                return Some(self.next);
            }
            self.next += 1;
        }
        None
    }

    fn is_fresh(&self, index: u32) -> bool {
        self.bindings.get(index).is_none()
            && !self.aside.contains_key(&index)
            && !self.statics.contains_key(&index)
    }

    fn oldest_of_full(&self, port: PortKey) -> Option<u32> {
        let leases = self.bindings.of_port(port);
        leases.first().copied().filter(|_| leases.len() >= LEASES_PER_PORT)
    }

    /// Forgets the port's oldest until it may have one more. Forgotten, not remembered: a guest
    /// that goes through MACs would otherwise fill the pool with its memories.
    fn make_room(&mut self, port: PortKey) {
        while let Some(oldest) = self.oldest_of_full(port) {
            self.forget(oldest);
        }
    }

    /// Ends an offer or a lease and keeps the memory of a lease.
    fn lapse(&mut self, index: u32) {
        let Some(mut binding) = self.bindings.take(index) else { return };
        let at = match binding.state {
            State::Offered { before, .. } => before,
            State::Leased { until, .. } => Some(until),
            State::Ended { at } => Some(at),
        };
        match at {
            Some(at) => {
                binding.state = State::Ended { at };
                self.put(index, binding);
            }
            None => self.give_back(index),
        }
    }

    fn forget(&mut self, index: u32) {
        if self.bindings.take(index).is_some() {
            self.give_back(index);
        }
    }

    fn give_back_aside(&mut self, until: u64, index: u32) {
        self.aside_order.remove(&(until, index));
        self.aside.remove(&index);
        self.give_back(index);
    }

    fn give_back(&mut self, index: u32) {
        if index < self.next && !self.statics.contains_key(&index) {
            self.returned.insert(index);
        }
    }

    fn put(&mut self, index: u32, binding: Binding) {
        self.returned.remove(&index);
        self.bindings.put(index, binding);
    }

    fn index(&self, address: Ipv4Addr) -> Option<u32> {
        self.plan.pool_index(address).filter(|index| *index < self.span)
    }

    fn address(&self, index: u32) -> Option<Ipv4Addr> {
        self.plan.pool_address(index)
    }
}

/// What tests look at.
#[cfg(test)]
impl Pool {
    /// Address, MAC, port if it is open, and end of each lease and offer.
    pub(super) fn live(&self) -> Vec<(Ipv4Addr, MacAddr, Option<PortKey>, u64)> {
        let live = self.bindings.live().into_iter();
        live.map(|(index, mac, port, until)| (self.address(index).unwrap(), mac, port, until))
            .collect()
    }

    /// Panics unless the books agree with each other.
    pub(super) fn check(&self) {
        self.bindings.check(LEASES_PER_PORT);
        assert_eq!(self.aside.len(), self.aside_order.len());
        for index in self.bindings.indices() {
            assert!(index < self.span);
            assert!(!self.aside.contains_key(&index) && !self.returned.contains(&index));
        }
        for index in 0..self.next {
            let known = self.returned.contains(&index) || !self.is_fresh(index);
            assert!(known, "index {index} is lost");
        }
        let counted: usize = self.counts.values().map(|counts| counts.statics.len()).sum();
        assert_eq!(counted, self.statics.len());
        for index in self.statics.keys() {
            assert!(!self.returned.contains(index), "a used address would be given out");
        }
    }
}
