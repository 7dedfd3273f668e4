//! Who may hold which address of a DHCP pool, as far as it can be seen from outside.
//!
//! What the server does without an event (an offer that is turned down, or released before it was
//! taken) is not seen. What may have gone that way is `unsure`: nothing is claimed of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wsnic_proto::{MacAddr, Plan};

/// Live leases and offers that a port may have.
const PER_PORT: usize = 4;
/// Seconds that an offer holds.
const OFFER_TIME: u64 = 60;
/// Seconds that a lease outlives its port.
const CLOSED_GRACE: u64 = 600;
/// Seconds for which a closed port's lease is safe even from a full pool.
const CLOSED_SPARED: u64 = 120;
/// Seconds that a declined address rests.
const ASIDE_TIME: u64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Port(u64),
    Closed { since: u64 },
}

#[derive(Debug, Clone)]
struct Hold {
    address: Ipv4Addr,
    mac: MacAddr,
    holder: Holder,
    until: u64,
    leased: bool,
    unsure: bool,
}

/// Offers and leases, the one heard of longest ago first, and addresses that rest.
pub(crate) struct Leases {
    plan: Plan,
    holds: Vec<Hold>,
    /// Address and until when, in the order in which they were declined.
    aside: Vec<(Ipv4Addr, u64)>,
    /// Declines and releases of open ports.
    counts: BTreeMap<u64, (u8, u8)>,
}

impl Leases {
    /// After a restart: leases of an earlier run, whose ports count as closed since `now`.
    pub(crate) fn new(plan: Plan, mut earlier: Vec<(Ipv4Addr, MacAddr, u64)>, now: u64) -> Leases {
        let mut holds: Vec<Hold> = Vec::new();
        earlier.sort_by_key(|(.., until)| *until);
        for (address, mac, until) in earlier {
            if plan.pool_index(address).is_none() {
                continue;
            }
            holds.retain(|hold| hold.address != address && hold.mac != mac);
            let holder = Holder::Closed { since: now };
            holds.push(Hold { address, mac, holder, until, leased: true, unsure: false });
        }
        Leases { plan, holds, aside: Vec::new(), counts: BTreeMap::new() }
    }

    pub(crate) fn tick(&mut self, now: u64) {
        self.holds.retain(|hold| hold.until > now);
        self.aside.retain(|(_, until)| *until > now);
    }

    /// The server said nothing to a frame of `port`: an offer of it may be gone.
    pub(crate) fn silence(&mut self, port: u64) {
        for hold in self.of_port(port).filter(|hold| !hold.leased) {
            hold.unsure = true;
        }
    }

    /// `address` is offered to `mac`.
    pub(crate) fn offered(&mut self, now: u64, port: u64, mac: MacAddr, address: Ipv4Addr) {
        self.claim(now, port, mac, address, true);
        let until = now + OFFER_TIME;
        let (leased, until) = match self.holds.iter().find(|hold| hold.address == address) {
            Some(hold) if hold.mac == mac && hold.leased => (true, until.max(hold.until)),
            _ => (false, until),
        };
        self.put(port, mac, address, until, leased);
    }

    /// `mac` leases `address` until `until`.
    pub(crate) fn leased(
        &mut self,
        now: u64,
        port: u64,
        mac: MacAddr,
        address: Ipv4Addr,
        until: u64,
    ) {
        self.claim(now, port, mac, address, false);
        self.put(port, mac, address, until, true);
    }

    /// `mac` gives `address` back.
    pub(crate) fn released(&mut self, port: u64, mac: MacAddr, address: Ipv4Addr) {
        assert!(self.is_held(port, mac, address), "{mac} released {address}, which it has not");
        self.holds.retain(|hold| hold.address != address);
    }

    /// `mac` found `address` in use.
    pub(crate) fn declined(&mut self, now: u64, port: u64, mac: MacAddr, address: Ipv4Addr) {
        assert!(self.is_held(port, mac, address), "{mac} declined {address}, which it has not");
        self.holds.retain(|hold| hold.address != address);
        let (declines, _) = self.counts.entry(port).or_default();
        *declines += 1;
        assert!(*declines <= 4, "port {port} is believed too often");
        self.aside.push((address, now + ASIDE_TIME));
        // An eighth of the pool at most.
        let most = (self.plan.pool_len() as usize / 8).max(1);
        while self.aside.len() > most {
            let (oldest, _) = (0..)
                .zip(&self.aside)
                .min_by_key(|(_, (address, until))| (*until, *address))
                .expect("it is longer than one");
            self.aside.remove(oldest);
        }
    }

    /// `mac` was told that there is none.
    pub(crate) fn exhausted(&self, now: u64, mac: MacAddr, port: u64) {
        assert!(self.certain().all(|hold| hold.mac != mac), "{mac} has one");
        let own = self.certain().filter(|hold| hold.holder == Holder::Port(port));
        assert!(own.count() < PER_PORT, "a full port gets its own oldest");
        for index in 0..self.plan.pool_len() {
            let address = self.plan.pool_address(index).expect("it is in the pool");
            let held = self.holds.iter().any(|hold| {
                hold.address == address
                    && match hold.holder {
                        Holder::Closed { since } => since + CLOSED_SPARED >= now,
                        Holder::Port(_) => true,
                    }
            });
            assert!(held || self.rests(address), "{address} is free and was not offered");
        }
    }

    pub(crate) fn port_closed(&mut self, now: u64, port: u64) {
        self.holds.retain(|hold| hold.leased || hold.holder != Holder::Port(port));
        for hold in self.of_port(port) {
            hold.holder = Holder::Closed { since: now };
            hold.until = hold.until.min(now + CLOSED_GRACE);
        }
        self.counts.remove(&port);
    }

    /// An address that `mac` or, failing that, anybody holds.
    pub(crate) fn some(&self, mac: MacAddr, pick: u8) -> Option<Ipv4Addr> {
        let own = self.holds.iter().find(|hold| hold.mac == mac && pick < 192);
        let any = || self.holds.get(usize::from(pick) % self.holds.len().max(1));
        own.or_else(any).map(|hold| hold.address)
    }

    /// Panics unless `mac` on `port` may get `address`.
    fn claim(&self, now: u64, port: u64, mac: MacAddr, address: Ipv4Addr, offer: bool) {
        assert!(self.plan.pool_index(address).is_some(), "{address} is not in the pool");
        assert!(!self.rests(address), "{address} was declined");
        let two = self.certain().find(|hold| hold.mac == mac && hold.address != address);
        assert!(two.is_none(), "{mac} gets {address} and has {two:?}");
        let Some(at) =
            self.holds.iter().position(|hold| hold.address == address && hold.mac != mac)
        else {
            return;
        };
        let taken = &self.holds[at];
        if taken.unsure {
            return;
        }
        let own = |hold: &&Hold| hold.holder == Holder::Port(port);
        let lawful = match taken.holder {
            // The port's oldest, when it has its full number.
            Holder::Port(other) => {
                other == port
                    && self.holds.iter().filter(own).count() >= PER_PORT
                    && self.holds[..at].iter().filter(own).all(|hold| hold.unsure)
            }
            Holder::Closed { since } => since + CLOSED_SPARED < now,
        };
        assert!(offer && lawful, "{mac} on {port} gets {address} at {now}, which is {taken:?}");
    }

    fn put(&mut self, port: u64, mac: MacAddr, address: Ipv4Addr, until: u64, leased: bool) {
        // What nobody was sure of is gone, or goes now.
        self.holds.retain(|hold| hold.address != address && hold.mac != mac);
        let holder = Holder::Port(port);
        let count = self.of_port(port).count();
        if count >= PER_PORT && self.of_port(port).any(|hold| hold.unsure) {
            // Which of them made room cannot be seen.
            self.of_port(port).for_each(|hold| hold.unsure = true);
        } else if count >= PER_PORT {
            let oldest = self.holds.iter().position(|hold| hold.holder == holder);
            oldest.map(|oldest| self.holds.remove(oldest));
        }
        self.holds.push(Hold { address, mac, holder, until, leased, unsure: false });
        let sure = self.certain().filter(|hold| hold.holder == holder).count();
        assert!(sure <= PER_PORT, "port {port} has {sure}");
    }

    fn is_held(&self, port: u64, mac: MacAddr, address: Ipv4Addr) -> bool {
        self.holds.iter().any(|hold| {
            hold.address == address && hold.mac == mac && hold.holder == Holder::Port(port)
        })
    }

    fn rests(&self, address: Ipv4Addr) -> bool {
        self.aside.iter().any(|(aside, _)| *aside == address)
    }

    fn certain(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| !hold.unsure)
    }

    fn of_port(&mut self, port: u64) -> impl Iterator<Item = &mut Hold> {
        self.holds.iter_mut().filter(move |hold| hold.holder == Holder::Port(port))
    }
}
