//! The helper's ports and their quotas, as documents and messages promise them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use wsnic_proto::dispatch::Misuse;
use wsnic_proto::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use wsnic_proto::{ErrorCode, Request};

/// Time passes in steps of 1/256 s, so that tokens of 500 a second are whole numbers of 1/64.
const TICKS_PER_SECOND: u64 = 256;
pub(crate) const NANOS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;
const OPENS_PER_SECOND: u64 = 500;
const TOKEN: u64 = 64;
const EARNED_PER_TICK: u64 = OPENS_PER_SECOND * TOKEN / TICKS_PER_SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening(u64),
    Open(u64),
    Revoked(u64),
    Closing,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Port {
    pub(crate) phase: Phase,
    pub(crate) generation: u32,
    pub(crate) link: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    /// It was there when the helper was restarted, and has not said hello since.
    pub(crate) resumed: bool,
    pub(crate) greeted: bool,
    pub(crate) in_flight: usize,
    /// Closes of unknown ports that are answered as if done.
    pub(crate) forgiven: usize,
}

/// What is to come of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    Ignore,
    HangUp(Misuse),
    Refuse(ErrorCode),
    /// The slot that is taken.
    Open(u32),
    Close(u32),
    Done,
    /// The port to bind is gone since the helper that died.
    Gone,
    /// Nothing is held to addresses.
    Bound,
    Stats(u32, u32),
    Pong,
}

/// Every port that is not free, every peer, and the tokens left.
pub(crate) struct Ports {
    pub(crate) max: u32,
    pub(crate) used: BTreeMap<u32, Port>,
    pub(crate) peers: BTreeMap<u64, Peer>,
    pub(crate) stopping: bool,
    /// Slots whose TAP could not be made, in that order; tried again after all others.
    shelf: Vec<u32>,
    /// Every generation that a slot has had.
    seen: HashSet<(u32, u32)>,
    tokens: u64,
}

impl Ports {
    pub(crate) fn new(max: u32) -> Ports {
        Ports {
            max,
            used: BTreeMap::new(),
            peers: BTreeMap::new(),
            stopping: false,
            shelf: Vec::new(),
            seen: HashSet::new(),
            tokens: (u64::from(max) + OPENS_PER_SECOND) * TOKEN,
        }
    }

    pub(crate) fn wait(&mut self, ticks: u64) {
        let full = (u64::from(self.max) + OPENS_PER_SECOND) * TOKEN;
        self.tokens = (self.tokens + ticks * EARNED_PER_TICK).min(full);
    }

    /// What `request` of `peer` deserves. Changes nothing.
    pub(crate) fn judge(&self, peer: u64, request: &Request) -> Verdict {
        let Some(state) = self.peers.get(&peer) else { return Verdict::HangUp(Misuse::NoHello) };
        if let Request::Hello { magic, min, max } = *request {
            return match state.greeted {
                true => Verdict::HangUp(Misuse::HelloTwice),
                false if magic == MAGIC && min <= VERSION && VERSION <= max => Verdict::Welcome,
                false => Verdict::HangUp(Misuse::Version),
            };
        }
        if !state.greeted {
            return match state.resumed {
                true => Verdict::Ignore,
                false => Verdict::HangUp(Misuse::NoHello),
            };
        }
        if state.in_flight >= MAX_IN_FLIGHT {
            return Verdict::HangUp(Misuse::TooManyInFlight);
        }
        let holds = |port: u32, generation: u32| {
            let held = |held: &&Port| {
                held.generation == generation
                    && [Phase::Open(peer), Phase::Revoked(peer)].contains(&held.phase)
            };
            self.used.get(&port).filter(held).is_some()
        };
        match *request {
            Request::Hello { .. } => unreachable!("it is dealt with above"),
            Request::Open { .. } | Request::OpenRoom { .. } if self.stopping => {
                Verdict::Refuse(ErrorCode::Stopping)
            }
            // The one network has no rooms.
            Request::OpenRoom { .. } => Verdict::Refuse(ErrorCode::NoSuchNetwork),
            Request::Open { network, .. } if network != 0 => {
                Verdict::Refuse(ErrorCode::NoSuchNetwork)
            }
            Request::Open { .. } if self.tokens < TOKEN => Verdict::Refuse(ErrorCode::TooFast),
            Request::Open { .. } if self.held() >= self.max => {
                Verdict::Refuse(ErrorCode::NoPortFree)
            }
            Request::Open { .. } => match self.next_free() {
                Some(port) => Verdict::Open(port),
                None => Verdict::Refuse(ErrorCode::NoPortFree),
            },
            Request::Close { port, generation, .. } if holds(port.0, generation.0) => {
                Verdict::Close(port.0)
            }
            Request::Close { .. } if state.forgiven > 0 => Verdict::Done,
            // The one network has no locks.
            Request::Bind { port, generation, .. } if holds(port.0, generation.0) => Verdict::Bound,
            Request::Bind { .. } if state.forgiven > 0 => Verdict::Gone,
            Request::Close { .. } | Request::Bind { .. } => Verdict::HangUp(Misuse::NotItsPort),
            Request::Stats { .. } => {
                let (held, in_all) = self.count(peer);
                Verdict::Stats(held, in_all)
            }
            Request::Ping { .. } => Verdict::Pong,
        }
    }

    /// The lowest slot of those that have not failed, else the one that failed longest ago.
    fn next_free(&self) -> Option<u32> {
        let free = |port: &u32| !self.used.contains_key(port);
        let unspoilt = (0..2 * self.max).find(|port| free(port) && !self.shelf.contains(port));
        unspoilt.or_else(|| self.shelf.iter().copied().find(free))
    }

    fn held(&self) -> u32 {
        self.used.values().filter(|port| port.phase != Phase::Closing).count() as u32
    }

    /// `port` is taken for `peer`, in a generation that it never had.
    pub(crate) fn open(&mut self, peer: u64, port: u32, generation: u32) {
        assert!(self.seen.insert((port, generation)), "generation {generation} came twice");
        self.tokens -= TOKEN;
        self.shelf.retain(|other| *other != port);
        self.put(port, Phase::Opening(peer), generation, 0);
    }

    /// A port that was there before the helper.
    pub(crate) fn adopt(&mut self, peer: u64, port: u32, generation: u32, link: u32) {
        self.seen.insert((port, generation));
        self.put(port, Phase::Open(peer), generation, link);
    }

    pub(crate) fn put(&mut self, port: u32, phase: Phase, generation: u32, link: u32) {
        let before = self.used.insert(port, Port { phase, generation, link });
        assert!(before.is_none(), "slot {port} is held already");
    }

    pub(crate) fn free(&mut self, port: u32, failed: bool) {
        self.used.remove(&port);
        if failed {
            self.shelf.push(port);
        }
    }

    /// `peer` is gone: the ports that are to be deleted.
    pub(crate) fn hang_up(&mut self, peer: u64) -> BTreeSet<u32> {
        self.peers.remove(&peer);
        let mut orphans = BTreeSet::new();
        for (index, port) in &mut self.used {
            match port.phase {
                Phase::Open(holder) | Phase::Revoked(holder) if holder == peer => {
                    orphans.insert(*index);
                    port.phase = Phase::Closing;
                }
                Phase::Opening(holder) if holder == peer => port.phase = Phase::Closing,
                _ => {}
            }
        }
        orphans
    }

    /// Ports of `peer`, and of all with those that are being deleted.
    pub(crate) fn count(&self, peer: u64) -> (u32, u32) {
        let held = self.used.values().filter(|port| {
            [Phase::Opening(peer), Phase::Open(peer), Phase::Revoked(peer)].contains(&port.phase)
        });
        (held.count() as u32, self.used.len() as u32)
    }
}
