//! The table of ports: who holds which slot, in which generation, and the quotas.
//!
//! Pure state of the helper, without clock or system call. A slot goes
//! Free → Opening → Open → (Revoked →) Closing → Free; only its holder can move it. Generations
//! There are more slots than ports that may be held at a time, so that the TAPs that the kernel still
//! deletes for those who have left are in nobody's way: all clients of a front-end that has died may
//! be back before their ports are gone. Generations begin at a number of the caller's, so that a restarted helper does not repeat old ones.

use crate::{ErrorCode, Generation, PortId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ports opened per second in the long run; a herd of `max_ports` at once is always served.
const OPENS_PER_SECOND: u32 = 500;
/// Slots at most: a thousand on each of the bridges that a bridge can be joined to, and on itself.
pub const MAX_SLOTS: u32 = 24_000;

/// Names a connection for the life of the helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    /// The TAP is being made.
    Opening(ConnectionId),
    /// The holder has the fd.
    Open(ConnectionId),
    /// The interface is gone, the holder knows and has not closed yet.
    Revoked(ConnectionId),
    /// The interface is being deleted for the holder, or for nobody when it has left.
    Closing,
}

impl Phase {
    /// Who may close the port.
    fn holder(self) -> Option<ConnectionId> {
        match self {
            Phase::Open(holder) | Phase::Revoked(holder) => Some(holder),
            Phase::Free | Phase::Opening(_) | Phase::Closing => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: Generation,
    phase: Phase,
    /// Index of the interface, while open: tells its end from that of one before it.
    link: u32,
}

/// All slots of one network, with the bucket of opens.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    max_ports: u32,
    /// Ports that somebody holds or is about to.
    held: u32,
    /// Slots that are free, the lowest last, so that names stay low.
    free: Vec<u32>,
    /// Free slots whose TAP could not be made, the one that failed longest ago first.
    shelved: VecDeque<u32>,
    tokens: f64,
    refilled: Instant,
}

/// The peer named a port that is not its own, or not in this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYours;

impl Slots {
    /// No port is held, of `max_ports`; generations are above `base`.
    pub fn new(max_ports: u32, base: Generation, now: Instant) -> Slots {
        let slot = Slot { generation: base, phase: Phase::Free, link: 0 };
        let slots = max_ports.max(max_ports.saturating_mul(2).min(MAX_SLOTS));
        Slots {
            slots: vec![slot; slots as usize],
            max_ports,
            held: 0,
            free: (0..slots).rev().collect(),
            shelved: VecDeque::new(),
            tokens: Slots::bucket(max_ports),
            refilled: now,
        }
    }

    fn bucket(max_ports: u32) -> f64 {
        f64::from(max_ports) + f64::from(OPENS_PER_SECOND)
    }

    /// Ports that may be held at a time.
    pub fn max_ports(&self) -> u32 {
        self.max_ports
    }

    /// Takes a free slot for `holder`; it must be told of the outcome by [`Slots::opened`] or [`Slots::freed`].
    ///
    /// # Errors
    /// All ports are held, no slot is free, or ports are being opened too fast.
    pub fn open(
        &mut self,
        holder: ConnectionId,
        now: Instant,
    ) -> Result<(PortId, Generation), ErrorCode> {
        let elapsed = now.saturating_duration_since(self.refilled).min(Duration::from_secs(3600));
        let earned = elapsed.as_secs_f64() * f64::from(OPENS_PER_SECOND);
        self.tokens = (self.tokens + earned).min(Slots::bucket(self.max_ports()));
        self.refilled = now;
        if self.tokens < 1.0 {
            return Err(ErrorCode::TooFast);
        }
        if self.held >= self.max_ports {
            return Err(ErrorCode::NoPortFree);
        }
        let index = self.free.pop().or_else(|| self.shelved.pop_front());
        let index = index.ok_or(ErrorCode::NoPortFree)?;
        self.tokens -= 1.0;
        self.held += 1;
        let slot = &mut self.slots[index as usize];
        slot.generation = Generation(slot.generation.0.wrapping_add(1));
        slot.phase = Phase::Opening(holder);
        Ok((PortId(index), slot.generation))
    }

    /// The TAP of an opening slot is ready, interface index `link`.
    ///
    /// False if its holder has left meanwhile: delete the TAP.
    pub fn opened(&mut self, port: PortId, link: u32) -> bool {
        let Some(slot) = self.slot(port) else { return false };
        let Phase::Opening(holder) = slot.phase else { return false };
        slot.phase = Phase::Open(holder);
        slot.link = link;
        true
    }

    /// A port of an earlier run of the helper, open for `holder`. False if it cannot be: delete it.
    pub fn adopt(
        &mut self,
        holder: ConnectionId,
        port: PortId,
        generation: Generation,
        link: u32,
    ) -> bool {
        let Some(slot) = self.slot(port).filter(|slot| slot.phase == Phase::Free) else {
            return false;
        };
        *slot = Slot { generation, phase: Phase::Open(holder), link };
        self.held += 1;
        self.take(port);
        true
    }

    /// A TAP that nobody holds occupies this slot until it is deleted and [`Slots::freed`].
    pub fn condemn(&mut self, port: PortId) {
        if let Some(slot) = self.slot(port).filter(|slot| slot.phase == Phase::Free) {
            slot.phase = Phase::Closing;
            self.take(port);
        }
    }

    /// The holder gives the port back; its TAP is to be deleted and then [`Slots::freed`].
    ///
    /// # Errors
    /// The port is not open, not `holder`'s, or not in this generation.
    pub fn close(
        &mut self,
        holder: ConnectionId,
        port: PortId,
        generation: Generation,
    ) -> Result<(), NotYours> {
        if !self.is_held(holder, port, generation) {
            return Err(NotYours);
        }
        self.slots[port.0 as usize].phase = Phase::Closing;
        self.held -= 1;
        Ok(())
    }

    /// True if the port is open, `holder`'s, and in this generation.
    pub fn is_held(&self, holder: ConnectionId, port: PortId, generation: Generation) -> bool {
        let slot = self.slots.get(port.0 as usize);
        slot.is_some_and(|slot| {
            slot.generation == generation && slot.phase.holder() == Some(holder)
        })
    }

    /// Who has the port open.
    pub fn holder(&self, port: PortId) -> Option<ConnectionId> {
        self.slots.get(port.0 as usize).and_then(|slot| slot.phase.holder())
    }

    /// An interface vanished: its holder, to be told. None if that was our doing or an older one.
    pub fn vanished(&mut self, port: PortId, link: u32) -> Option<(ConnectionId, Generation)> {
        let slot = self.slot(port).filter(|slot| slot.link == link)?;
        let Phase::Open(holder) = slot.phase else { return None };
        slot.phase = Phase::Revoked(holder);
        Some((holder, slot.generation))
    }

    /// True for a slot that is not free: its TAP exists, or will in a moment.
    pub fn is_used(&self, port: PortId) -> bool {
        self.slots.get(port.0 as usize).is_some_and(|slot| slot.phase != Phase::Free)
    }

    /// True if a TAP is on the bridge.
    pub fn any_open(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.phase, Phase::Open(_)))
    }

    /// The ports whose TAP is on the bridge, with their holders.
    pub fn open_ports(&self) -> Vec<(PortId, ConnectionId, Generation)> {
        let open = |(index, slot): (u32, &Slot)| match slot.phase {
            Phase::Open(holder) => Some((PortId(index), holder, slot.generation)),
            _ => None,
        };
        (0..).zip(&self.slots).filter_map(open).collect()
    }

    /// The slot's TAP does not exist (any more).
    pub fn freed(&mut self, port: PortId) {
        let Some(slot) = self.slot(port) else { return };
        let before = std::mem::replace(&mut slot.phase, Phase::Free);
        if before != Phase::Free {
            self.held -= u32::from(before != Phase::Closing);
            let at = self.free.partition_point(|other| *other > port.0);
            self.free.insert(at, port.0);
        }
    }

    /// The slot's TAP could not be made: the slot is taken again only after all others, because
    /// somebody else may have an interface of its name.
    pub fn shelve(&mut self, port: PortId) {
        self.freed(port);
        if self.slot(port).is_some() {
            self.take(port);
            self.shelved.push_back(port.0);
        }
    }

    /// A connection is gone: its ports, now closing, to be deleted and then [`Slots::freed`].
    pub fn abandon(&mut self, holder: ConnectionId) -> Vec<PortId> {
        let mut ports = Vec::new();
        for (index, slot) in (0..).zip(&mut self.slots) {
            if slot.phase.holder() == Some(holder) {
                ports.push(PortId(index));
            } else if slot.phase != Phase::Opening(holder) {
                continue;
            }
            // Whoever is making one finds out by `opened` and deletes it.
            slot.phase = Phase::Closing;
            self.held -= 1;
        }
        ports
    }

    /// Ports in use by `holder`, and in all.
    pub fn count(&self, holder: ConnectionId) -> (u32, u32) {
        let held = self.slots.iter().filter(|slot| {
            slot.phase.holder() == Some(holder) || slot.phase == Phase::Opening(holder)
        });
        let in_all = self.slots.len() - self.free.len() - self.shelved.len();
        (u32::try_from(held.count()).unwrap_or(u32::MAX), u32::try_from(in_all).unwrap_or(u32::MAX))
    }

    /// The slot is not to be given out.
    fn take(&mut self, port: PortId) {
        self.free.retain(|free| *free != port.0);
        self.shelved.retain(|shelved| *shelved != port.0);
    }

    fn slot(&mut self, port: PortId) -> Option<&mut Slot> {
        self.slots.get_mut(port.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    #[test]
    fn the_lowest_free_slot_is_taken_and_generations_count() {
        let now = Instant::now();
        let mut slots = Slots::new(3, Generation(0), now);
        let (first, generation) = slots.open(A, now).unwrap();
        let (second, _) = slots.open(A, now).unwrap();
        assert_eq!((first, second), (PortId(0), PortId(1)));
        assert!(slots.opened(first, 9) && slots.opened(second, 9));
        slots.close(A, first, generation).unwrap();
        slots.freed(first);
        assert_eq!(slots.open(A, now).unwrap(), (PortId(0), Generation(2)));
    }

    #[test]
    fn a_port_of_another_connection_or_generation_cannot_be_closed() {
        let now = Instant::now();
        let mut slots = Slots::new(1, Generation(0), now);
        let (port, generation) = slots.open(A, now).unwrap();
        assert_eq!(slots.close(A, port, generation), Err(NotYours), "not open yet");
        slots.opened(port, 9);
        assert_eq!(slots.close(B, port, generation), Err(NotYours));
        assert_eq!(slots.close(A, port, Generation(7)), Err(NotYours));
        assert_eq!(slots.close(A, PortId(9), generation), Err(NotYours));
        assert_eq!(slots.close(A, port, generation), Ok(()));
        assert_eq!(slots.close(A, port, generation), Err(NotYours), "already closing");
        let (other, generation) = slots.open(A, now).unwrap();
        assert_eq!(other, PortId(1), "the TAP of the first is not gone");
        slots.opened(other, 9);
        slots.close(A, other, generation).unwrap();
        assert_eq!(slots.open(A, now), Err(ErrorCode::NoPortFree), "until one of the two is gone");
    }

    #[test]
    fn opens_beyond_the_rate_are_refused_and_a_herd_is_not() {
        let now = Instant::now();
        let mut slots = Slots::new(10, Generation(0), now);
        for _ in 0..10 + OPENS_PER_SECOND {
            let (port, _) = slots.open(A, now).unwrap();
            slots.freed(port);
        }
        assert_eq!(slots.open(A, now), Err(ErrorCode::TooFast));
        assert!(slots.open(A, now + Duration::from_millis(10)).is_ok());
    }

    #[test]
    fn a_connection_that_leaves_while_its_port_is_being_made_leaves_nothing() {
        let now = Instant::now();
        let mut slots = Slots::new(2, Generation(0), now);
        let (opening, _) = slots.open(A, now).unwrap();
        let (open, _) = slots.open(A, now).unwrap();
        slots.opened(open, 9);
        assert_eq!(slots.abandon(A), vec![open]);
        assert!(!slots.opened(opening, 9), "its maker deletes it");
        slots.freed(opening);
        slots.freed(open);
        slots.freed(open);
        assert_eq!(slots.count(A), (0, 0));
        assert_eq!(slots.open(B, now).unwrap().0, PortId(0));
        assert_eq!(slots.open(B, now).unwrap().0, PortId(1));
    }

    #[test]
    fn an_adopted_port_is_its_holders_and_its_slot_is_taken() {
        let now = Instant::now();
        let mut slots = Slots::new(2, Generation(100), now);
        assert!(slots.adopt(A, PortId(0), Generation(7), 3));
        assert!(!slots.adopt(A, PortId(0), Generation(7), 3), "only once");
        assert!(!slots.adopt(A, PortId(4), Generation(7), 3), "beyond all slots");
        assert_eq!(slots.open(B, now), Ok((PortId(1), Generation(101))));
        assert_eq!(slots.open(B, now), Err(ErrorCode::NoPortFree));
        assert_eq!(slots.close(A, PortId(0), Generation(7)), Ok(()));
    }

    #[test]
    fn a_condemned_slot_is_not_opened_before_it_is_freed() {
        let now = Instant::now();
        let mut slots = Slots::new(2, Generation(0), now);
        for port in [0, 2, 3, 4] {
            slots.condemn(PortId(port));
        }
        assert_eq!(slots.open(A, now), Ok((PortId(1), Generation(1))));
        slots.condemn(PortId(1));
        assert_eq!(slots.open(A, now), Err(ErrorCode::NoPortFree));
        slots.freed(PortId(0));
        assert_eq!(slots.open(A, now), Ok((PortId(0), Generation(1))));
        assert_eq!(slots.close(A, PortId(1), Generation(1)), Err(NotYours), "it is opening");
        assert_eq!(slots.count(A), (2, 4), "a port in use is not condemned");
    }

    #[test]
    fn a_slot_that_could_not_be_opened_is_tried_again_last() {
        let now = Instant::now();
        let mut slots = Slots::new(2, Generation(0), now);
        let (taken, _) = slots.open(A, now).unwrap();
        slots.shelve(taken);
        assert_eq!(next_after_each_other(&mut slots, 4), [1, 2, 3, 0]);
    }

    #[test]
    fn slots_freed_after_a_failure_are_all_tried_before_the_failed_ones() {
        let now = Instant::now();
        let mut slots = Slots::new(4, Generation(0), now);
        assert_eq!(next_after_each_other(&mut slots, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        slots.shelve(PortId(1));
        slots.shelve(PortId(0));
        for index in [2, 7, 4, 3, 6, 5] {
            slots.freed(PortId(index));
        }
        assert_eq!(slots.count(A), (0, 0));
        assert_eq!(next_after_each_other(&mut slots, 8), [2, 3, 4, 5, 6, 7, 1, 0]);
    }

    #[test]
    fn ports_that_are_being_deleted_are_in_nobodys_way() {
        let now = Instant::now();
        let mut slots = Slots::new(3, Generation(0), now);
        let first: Vec<u32> = (0..3).map(|_| slots.open(A, now).unwrap().0.0).collect();
        first.iter().for_each(|port| assert!(slots.opened(PortId(*port), 9)));
        assert_eq!(slots.open(B, now), Err(ErrorCode::NoPortFree));
        assert_eq!(slots.abandon(A).len(), 3);
        let second: Vec<u32> = (0..3).map(|_| slots.open(B, now).unwrap().0.0).collect();
        assert_eq!((first, second), (vec![0, 1, 2], vec![3, 4, 5]));
        slots.freed(PortId(1));
        assert_eq!(slots.open(B, now), Err(ErrorCode::NoPortFree), "three are held");
        slots.freed(PortId(4));
        assert_eq!(slots.open(B, now).unwrap().0, PortId(1));
    }

    /// Slots that are given out when each port is closed at once and its TAP stays.
    fn next_after_each_other(slots: &mut Slots, count: usize) -> Vec<u32> {
        let now = Instant::now();
        let open_and_close = |_| {
            let (port, generation) = slots.open(A, now).unwrap();
            slots.opened(port, 9);
            slots.close(A, port, generation).unwrap();
            port.0
        };
        (0..count).map(open_and_close).collect()
    }

    #[test]
    fn a_vanished_port_stays_its_holders_until_it_closes() {
        let now = Instant::now();
        let mut slots = Slots::new(1, Generation(0), now);
        let (port, generation) = slots.open(A, now).unwrap();
        slots.opened(port, 9);
        assert_eq!(slots.vanished(port, 8), None, "the end of an earlier interface");
        assert_eq!(slots.vanished(port, 9), Some((A, generation)));
        assert_eq!(slots.vanished(port, 9), None);
        assert_eq!(slots.close(A, port, generation), Ok(()), "the close that crossed the event");
    }
}
