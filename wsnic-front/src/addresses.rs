//! What is known of the addresses that clients come from: how fast, how many, how often wrongly.
//!
//! Runs in the front-end, called by `listen` and `session`. Pure: the time is an argument.
//!
//! Theory of operation: an address is an IPv4 address or an IPv6 /64, of which one customer has at
//! least one (RFC 6177). All state of an address is one entry; there are never more than 65,536, in
//! four queues, in each the one that was touched longest ago first:
//!
//! - plain: came, and nothing else is known;
//! - failing: showed a wrong proof lately;
//! - banned: each attempt moves it to the end, so that the first is the one whose ban ends first;
//! - inside: has clients; never given up, of which there are fewer than entries.
//!
//! When all entries are taken, the first of plain is given up, then of failing, then of banned.
//! Whoever floods the door from millions of addresses makes plain entries, which push out each other
//! and no ban: for each ban that is to be forgotten he has to be banned himself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use wsnic_proto::settings::Door;

/// Entries, all in all: some 8 MB. More than sessions (24,000) and handshakes at the same time.
pub const MAX_ENTRIES: usize = 65_536;
/// What may come at once, as the time in which the rate brings it.
const BURST: Duration = Duration::from_secs(5);
/// Bans that are over and are looked at in one call; each call makes at most one.
const CLEANED: usize = 2;

/// Somebody may not come in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// His ban has just begun anew.
    #[error("the address is banned for wrong proofs (ban_after, ban_time)")]
    Banned,
    /// He has to wait.
    #[error("the address begins connections too fast (handshake_rate)")]
    TooFast,
}

/// As many clients of this address are in as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address has as many clients as it may have (max_clients_per_address)")]
pub struct TooMany;

/// Everything that is known of addresses. Loopback addresses are not known, and may do all.
#[derive(Debug)]
pub struct Addresses(RefCell<State>);

/// A client that is in, until it is dropped.
#[derive(Debug)]
pub struct Entered {
    addresses: Rc<Addresses>,
    /// None for a loopback address.
    slot: Option<usize>,
}

impl Addresses {
    /// Nothing is known.
    pub fn new(door: &Door) -> Addresses {
        Addresses::with_room(door, MAX_ENTRIES)
    }

    /// As [`Addresses::new`], with another number of entries, at least 1: for tests.
    pub fn with_room(door: &Door, room: usize) -> Addresses {
        Addresses(RefCell::new(State {
            limits: Limits::new(door),
            room: room.max(1),
            slots: HashMap::new(),
            entries: Vec::new(),
            queues: [Queue::EMPTY; 4],
        }))
    }

    /// Other limits from now on. What is known stays; bans that have begun last as long as they did.
    pub fn reload(&self, door: &Door) {
        self.0.borrow_mut().limits = Limits::new(door);
    }

    /// Somebody connects.
    ///
    /// # Errors
    /// He is to be turned away, as cheaply as possible.
    pub fn arrives(&self, ip: IpAddr, now: Instant) -> Result<(), Turned> {
        let Some(key) = key(ip) else { return Ok(()) };
        self.0.borrow_mut().arrives(key, now)
    }

    /// Somebody has shown a wrong proof. True if he is banned for it now and was not before.
    pub fn failed(&self, ip: IpAddr, now: Instant) -> bool {
        let Some(key) = key(ip) else { return false };
        self.0.borrow_mut().failed(key, now)
    }

    /// An operator bans an address. False for a loopback address, and when there is no room.
    pub fn ban(&self, ip: IpAddr, time: Duration, now: Instant) -> bool {
        key(ip).is_some_and(|key| self.0.borrow_mut().ban(key, time, now))
    }

    /// Somebody comes in.
    ///
    /// # Errors
    /// `max_clients_per_address` are in.
    pub fn enters(self: &Rc<Addresses>, ip: IpAddr) -> Result<Entered, TooMany> {
        let slot = match key(ip) {
            Some(key) => Some(self.0.borrow_mut().enters(key)?),
            None => None,
        };
        Ok(Entered { addresses: Rc::clone(self), slot })
    }

    /// Clients of an address that are in; 0 for loopback addresses.
    pub fn clients(&self, ip: IpAddr) -> u32 {
        let state = self.0.borrow();
        let slot = key(ip).and_then(|key| state.slots.get(&key));
        slot.map_or(0, |slot| state.entries[*slot].clients)
    }

    /// Who is banned, an IPv6 /64 by its first address, and for how long if he keeps away.
    pub fn bans(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        let state = self.0.borrow();
        // Who is banned and has clients is in the queue of those.
        let banned = state.entries.iter().filter_map(|entry| {
            let left = entry.banned?.saturating_duration_since(now);
            (!left.is_zero()).then_some((entry.key, left))
        });
        banned.collect()
    }

    /// Forgets wrong proofs and ban of an address. True if it was banned.
    pub fn pardon(&self, ip: IpAddr, now: Instant) -> bool {
        let Some(key) = key(ip) else { return false };
        self.0.borrow_mut().pardon(key, now)
    }

    /// Addresses of which something is known.
    pub fn known(&self) -> usize {
        self.0.borrow().entries.len()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.addresses.0.borrow_mut().leaves(slot);
        }
    }
}

/// The address under which something is known; None for loopback addresses.
fn key(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    match ip {
        _ if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_clients: u32,
    /// What one connection costs; zero: nothing.
    price: Duration,
    ban_after: u32,
    /// Zero: nobody is banned.
    ban_time: Duration,
}

impl Limits {
    fn new(door: &Door) -> Limits {
        Limits {
            max_clients: door.max_clients_per_address,
            price: Duration::from_secs(1).checked_div(door.handshake_rate).unwrap_or_default(),
            ban_after: door.ban_after.max(1),
            ban_time: Duration::from_secs(door.ban_time.into()),
        }
    }
}

#[derive(Debug)]
struct State {
    limits: Limits,
    room: usize,
    slots: HashMap<IpAddr, usize>,
    entries: Vec<Entry>,
    queues: [Queue; 4],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: IpAddr,
    clients: u32,
    /// When what has come is paid off at the rate (as in `rate.rs`).
    paid: Option<Instant>,
    /// Wrong proofs since the first one that counts, and when that was.
    failures: Option<(Instant, u32)>,
    /// Until when, unless it comes again.
    banned: Option<Instant>,
    class: Class,
    before: usize,
    behind: usize,
}

/// In which queue an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Failing,
    Banned,
    Inside,
}

/// The order in which entries are given up.
const GIVEN_UP: [Class; 3] = [Class::Plain, Class::Failing, Class::Banned];

#[derive(Debug, Clone, Copy)]
struct Queue {
    first: usize,
    last: usize,
}

impl Queue {
    const EMPTY: Queue = Queue { first: NONE, last: NONE };
}

/// No entry.
const NONE: usize = usize::MAX;

impl State {
    fn arrives(&mut self, key: IpAddr, now: Instant) -> Result<(), Turned> {
        self.clean(now);
        let Limits { price, ban_time, .. } = self.limits;
        let known = self.slots.get(&key).copied();
        if let Some(slot) = known {
            let entry = &mut self.entries[slot];
            if entry.banned.is_some_and(|until| until > now) {
                // The remaining time never gets shorter by coming.
                entry.banned = entry.banned.max(now.checked_add(ban_time));
                self.touch(slot);
                return Err(Turned::Banned);
            }
        }
        if price.is_zero() {
            return Ok(());
        }
        // Nothing can be known of one more if all others have clients.
        let Some(slot) = known.or_else(|| self.make(key)) else { return Ok(()) };
        let entry = &mut self.entries[slot];
        let paid = entry.paid.map_or(now, |paid| paid.max(now)) + price;
        let too_fast = paid.saturating_duration_since(now) > BURST.max(price);
        if !too_fast {
            entry.paid = Some(paid);
        }
        self.touch(slot);
        if too_fast { Err(Turned::TooFast) } else { Ok(()) }
    }

    fn failed(&mut self, key: IpAddr, now: Instant) -> bool {
        self.clean(now);
        let Limits { ban_after, ban_time, .. } = self.limits;
        if ban_time.is_zero() {
            return false;
        }
        let Some(slot) = self.slots.get(&key).copied().or_else(|| self.make(key)) else {
            return false;
        };
        let entry = &mut self.entries[slot];
        let (since, count) = match entry.failures {
            Some((since, count)) if now.saturating_duration_since(since) < ban_time => {
                (since, count.saturating_add(1))
            }
            _ => (now, 1),
        };
        entry.failures = Some((since, count));
        let mut begins = false;
        if count >= ban_after || entry.banned.is_some_and(|until| until > now) {
            begins = entry.banned.is_none_or(|until| until <= now);
            entry.banned = entry.banned.max(now.checked_add(ban_time));
            entry.failures = None;
        }
        self.touch(slot);
        begins
    }

    fn ban(&mut self, key: IpAddr, time: Duration, now: Instant) -> bool {
        let Some(slot) = self.slots.get(&key).copied().or_else(|| self.make(key)) else {
            return false;
        };
        let entry = &mut self.entries[slot];
        entry.banned = entry.banned.max(now.checked_add(time));
        self.touch(slot);
        true
    }

    fn enters(&mut self, key: IpAddr) -> Result<usize, TooMany> {
        let known = self.slots.get(&key).copied();
        let clients = known.map_or(0, |slot| self.entries[slot].clients);
        if self.limits.max_clients > 0 && clients >= self.limits.max_clients {
            return Err(TooMany);
        }
        let slot = known.or_else(|| self.make(key)).ok_or(TooMany)?;
        self.entries[slot].clients += 1;
        self.touch(slot);
        Ok(slot)
    }

    fn leaves(&mut self, slot: usize) {
        // Entries with clients are never moved or given up: `slot` is still the one of `enters`.
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.clients = entry.clients.saturating_sub(1);
            self.touch(slot);
        }
    }

    fn pardon(&mut self, key: IpAddr, now: Instant) -> bool {
        let Some(slot) = self.slots.get(&key).copied() else { return false };
        let entry = &mut self.entries[slot];
        let banned = entry.banned.take().is_some_and(|until| until > now);
        entry.failures = None;
        self.touch(slot);
        banned
    }

    /// Makes bans that are over plain, from the first on, so that they do not outlive others.
    fn clean(&mut self, now: Instant) {
        for _ in 0..CLEANED {
            let first = self.queues[Class::Banned as usize].first;
            match self.entries.get_mut(first) {
                Some(entry) if entry.banned.is_none_or(|until| until <= now) => {
                    entry.banned = None;
                    self.touch(first);
                }
                _ => return,
            }
        }
    }

    /// A new entry of nothing, which is in the queue of plain ones; None if all have clients.
    fn make(&mut self, key: IpAddr) -> Option<usize> {
        let slot = if self.entries.len() < self.room {
            self.entries.len()
        } else {
            let first = |class: Class| self.queues[class as usize].first;
            let slot = GIVEN_UP.into_iter().map(first).find(|slot| *slot != NONE)?;
            self.unlink(slot);
            self.slots.remove(&self.entries[slot].key);
            slot
        };
        let entry = Entry {
            key,
            clients: 0,
            paid: None,
            failures: None,
            banned: None,
            class: Class::Plain,
            before: NONE,
            behind: NONE,
        };
        match self.entries.get_mut(slot) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        self.slots.insert(key, slot);
        self.append(slot, Class::Plain);
        Some(slot)
    }

    /// Puts an entry to the end of the queue where it belongs now.
    fn touch(&mut self, slot: usize) {
        let entry = &self.entries[slot];
        let class = match entry {
            Entry { clients: 1.., .. } => Class::Inside,
            Entry { banned: Some(_), .. } => Class::Banned,
            Entry { failures: Some(_), .. } => Class::Failing,
            _ => Class::Plain,
        };
        self.unlink(slot);
        self.append(slot, class);
    }

    fn unlink(&mut self, slot: usize) {
        let Entry { class, before, behind, .. } = self.entries[slot];
        let queue = &mut self.queues[class as usize];
        match self.entries.get_mut(before) {
            Some(entry) => entry.behind = behind,
            None => queue.first = behind,
        }
        match self.entries.get_mut(behind) {
            Some(entry) => entry.before = before,
            None => queue.last = before,
        }
    }

    fn append(&mut self, slot: usize, class: Class) {
        let queue = &mut self.queues[class as usize];
        let before = std::mem::replace(&mut queue.last, slot);
        match self.entries.get_mut(before) {
            Some(entry) => entry.behind = slot,
            None => queue.first = slot,
        }
        let entry = &mut self.entries[slot];
        (entry.class, entry.before, entry.behind) = (class, before, NONE);
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
