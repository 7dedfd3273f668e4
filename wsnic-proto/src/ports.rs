//! The ports of all networks, and the rooms of those that have them.
//!
//! Pure state of the helper: [`Slots`] for each network, whose numbers are told apart by the network's
//! in front: slot 7 of network 2 is port 200007.

use crate::rooms::{RoomKey, Rooms};
use crate::slots::{ConnectionId, NotYours, Slots};
use crate::{ErrorCode, Generation, PortId};
use std::collections::HashMap;
use std::time::Instant;

/// Numbers of each network: more than [`crate::slots::MAX_SLOTS`], and easily read.
pub const NUMBERS: u32 = 100_000;

/// The network that a port's number belongs to.
pub fn network_of(port: PortId) -> u16 {
    u16::try_from(port.0 / NUMBERS).unwrap_or(u16::MAX)
}

/// The LAN of a port: its network, and its room there (0 where there are none). Frames never pass from
/// one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lan {
    /// Number of the network.
    pub network: u16,
    /// Number of the room.
    pub room: u32,
}

struct Network {
    slots: Slots,
    rooms: Option<Rooms>,
}

/// How many ports, and rooms, a network may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Ports at a time.
    pub ports: u32,
    /// Rooms at a time; None: it has none.
    pub rooms: Option<u32>,
}

/// All ports.
pub struct Ports {
    networks: Vec<Network>,
    /// Rooms of the ports that are in one.
    rooms: HashMap<PortId, u32>,
}

impl Ports {
    /// No port is held; generations are above `base`. The networks are in the order of their numbers.
    pub fn new(
        networks: impl IntoIterator<Item = Limits>,
        base: Generation,
        now: Instant,
    ) -> Ports {
        let network = |limits: Limits| Network {
            slots: Slots::new(limits.ports, base, now),
            rooms: limits.rooms.map(Rooms::new),
        };
        Ports { networks: networks.into_iter().map(network).collect(), rooms: HashMap::new() }
    }

    /// Ports that may be held at a time, in all networks.
    pub fn max_ports(&self) -> u32 {
        self.networks.iter().map(|network| network.slots.max_ports()).sum()
    }

    /// Takes a free slot of a network for `holder`; see [`Slots::open`].
    ///
    /// # Errors
    /// There is no such network, it has rooms and no room is named or the other way round, or there is
    /// no port or no room to be had.
    pub fn open(
        &mut self,
        number: u16,
        room: Option<RoomKey>,
        holder: ConnectionId,
        now: Instant,
    ) -> Result<(PortId, Generation), ErrorCode> {
        let network = self.networks.get_mut(usize::from(number)).ok_or(ErrorCode::NoSuchNetwork)?;
        let room = match (&mut network.rooms, room) {
            (None, None) => None,
            (Some(rooms), Some(key)) => Some((rooms.enter(key)?, rooms)),
            _ => return Err(ErrorCode::NoSuchNetwork),
        };
        match network.slots.open(holder, now) {
            Ok((slot, generation)) => {
                let port = PortId(u32::from(number) * NUMBERS + slot.0);
                if let Some((room, _)) = room {
                    self.rooms.insert(port, room);
                }
                Ok((port, generation))
            }
            Err(code) => {
                if let Some((room, rooms)) = room {
                    rooms.leave(room);
                }
                Err(code)
            }
        }
    }

    /// Where a port is, or was last.
    pub fn lan_of(&self, port: PortId) -> Lan {
        let room = self.rooms.get(&port).copied().unwrap_or_default();
        Lan { network: network_of(port), room }
    }

    /// See [`Slots::opened`].
    pub fn opened(&mut self, port: PortId, link: u32) -> bool {
        self.slots(port).is_some_and(|(slots, slot)| slots.opened(slot, link))
    }

    /// A room of an earlier run; see [`Rooms::adopt`].
    pub fn adopt_room(&mut self, lan: Lan, key: RoomKey) -> bool {
        self.rooms_of(lan.network).is_some_and(|rooms| rooms.adopt(lan.room, key))
    }

    /// See [`Slots::adopt`]; where there are rooms, the port's must have been adopted.
    pub fn adopt(
        &mut self,
        holder: ConnectionId,
        port: PortId,
        generation: Generation,
        link: u32,
        room: u32,
    ) -> bool {
        let number = network_of(port);
        let has_rooms = self.rooms_of(number).is_some();
        if has_rooms && !self.rooms_of(number).is_some_and(|rooms| rooms.adopt_guest(room)) {
            return false;
        }
        let adopted = self
            .slots(port)
            .is_some_and(|(slots, slot)| slots.adopt(holder, slot, generation, link));
        match adopted {
            true if has_rooms => {
                self.rooms.insert(port, room);
            }
            false if has_rooms => {
                if let Some(rooms) = self.rooms_of(number) {
                    rooms.leave(room);
                }
            }
            _ => {}
        }
        adopted
    }

    /// See [`Slots::condemn`].
    pub fn condemn(&mut self, port: PortId) {
        if let Some((slots, slot)) = self.slots(port) {
            slots.condemn(slot);
        }
    }

    /// See [`Slots::close`].
    ///
    /// # Errors
    /// The port is not open, not `holder`'s, or not in this generation.
    pub fn close(
        &mut self,
        holder: ConnectionId,
        port: PortId,
        generation: Generation,
    ) -> Result<(), NotYours> {
        let (slots, slot) = self.slots(port).ok_or(NotYours)?;
        slots.close(holder, slot, generation)
    }

    /// See [`Slots::is_held`].
    pub fn is_held(&self, holder: ConnectionId, port: PortId, generation: Generation) -> bool {
        self.see(port).is_some_and(|(slots, slot)| slots.is_held(holder, slot, generation))
    }

    /// See [`Slots::holder`].
    pub fn holder(&self, port: PortId) -> Option<ConnectionId> {
        self.see(port).and_then(|(slots, slot)| slots.holder(slot))
    }

    /// See [`Slots::vanished`].
    pub fn vanished(&mut self, port: PortId, link: u32) -> Option<(ConnectionId, Generation)> {
        self.slots(port).and_then(|(slots, slot)| slots.vanished(slot, link))
    }

    /// See [`Slots::is_used`].
    pub fn is_used(&self, port: PortId) -> bool {
        self.see(port).is_some_and(|(slots, slot)| slots.is_used(slot))
    }

    /// True if a TAP of this LAN is on its bridge.
    pub fn any_open(&self, lan: Lan) -> bool {
        let Some(network) = self.networks.get(usize::from(lan.network)) else { return false };
        match network.rooms {
            None => network.slots.any_open(),
            Some(_) => self.open_ports().iter().any(|(port, ..)| self.lan_of(*port) == lan),
        }
    }

    /// The ports whose TAP is on a bridge, with their holders.
    pub fn open_ports(&self) -> Vec<(PortId, ConnectionId, Generation)> {
        let mut open = Vec::new();
        for (number, network) in (0..).zip(&self.networks) {
            let global = |slot: PortId| PortId(number * NUMBERS + slot.0);
            let ports = network.slots.open_ports().into_iter();
            open.extend(ports.map(|(slot, holder, generation)| (global(slot), holder, generation)));
        }
        open
    }

    /// See [`Slots::freed`].
    pub fn freed(&mut self, port: PortId) {
        self.left(port);
        if let Some((slots, slot)) = self.slots(port) {
            slots.freed(slot);
        }
    }

    /// See [`Slots::shelve`].
    pub fn shelve(&mut self, port: PortId) {
        self.left(port);
        if let Some((slots, slot)) = self.slots(port) {
            slots.shelve(slot);
        }
    }

    /// See [`Slots::abandon`].
    pub fn abandon(&mut self, holder: ConnectionId) -> Vec<PortId> {
        let mut abandoned = Vec::new();
        for (number, network) in (0..).zip(&mut self.networks) {
            let slots = network.slots.abandon(holder).into_iter();
            abandoned.extend(slots.map(|slot| PortId(number * NUMBERS + slot.0)));
        }
        abandoned
    }

    /// Ports in use by `holder`, and in all.
    pub fn count(&self, holder: ConnectionId) -> (u32, u32) {
        let counts = self.networks.iter().map(|network| network.slots.count(holder));
        counts.fold((0, 0), |(own, all), (more, others)| (own + more, all + others))
    }

    /// Rooms whose last guest has gone: to be removed, and then [`Ports::room_removed`].
    pub fn take_empty_rooms(&mut self) -> Vec<Lan> {
        let mut empty = Vec::new();
        for (network, one) in (0..).zip(&mut self.networks) {
            let rooms = one.rooms.as_mut().map(Rooms::take_empty).unwrap_or_default();
            empty.extend(rooms.into_iter().map(|room| Lan { network, room }));
        }
        empty
    }

    /// See [`Rooms::removed`].
    pub fn room_removed(&mut self, lan: Lan) {
        if let Some(rooms) = self.rooms_of(lan.network) {
            rooms.removed(lan.room);
        }
    }

    /// The key of a room that is used.
    pub fn room_key(&self, lan: Lan) -> Option<RoomKey> {
        self.networks.get(usize::from(lan.network))?.rooms.as_ref()?.key(lan.room)
    }

    fn left(&mut self, port: PortId) {
        if let Some(room) = self.rooms.remove(&port)
            && let Some(rooms) = self.rooms_of(network_of(port))
        {
            rooms.leave(room);
        }
    }

    fn rooms_of(&mut self, number: u16) -> Option<&mut Rooms> {
        self.networks.get_mut(usize::from(number))?.rooms.as_mut()
    }

    fn slots(&mut self, port: PortId) -> Option<(&mut Slots, PortId)> {
        let network = self.networks.get_mut((port.0 / NUMBERS) as usize)?;
        Some((&mut network.slots, PortId(port.0 % NUMBERS)))
    }

    fn see(&self, port: PortId) -> Option<(&Slots, PortId)> {
        let network = self.networks.get((port.0 / NUMBERS) as usize)?;
        Some((&network.slots, PortId(port.0 % NUMBERS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const PLAIN: Limits = Limits { ports: 2, rooms: None };
    const ROOMS: Limits = Limits { ports: 4, rooms: Some(2) };

    fn ports(networks: &[Limits]) -> Ports {
        Ports::new(networks.iter().copied(), Generation(0), Instant::now())
    }

    #[test]
    fn each_network_has_its_own_ports_with_numbers_of_its_own() {
        let (mut ports, now) = (ports(&[PLAIN, PLAIN]), Instant::now());
        let opened: Vec<u32> =
            [0, 1, 1].map(|network| ports.open(network, None, A, now).unwrap().0.0).to_vec();
        assert_eq!(opened, [0, 100_000, 100_001]);
        assert_eq!(ports.open(1, None, A, now), Err(ErrorCode::NoPortFree));
        assert!(ports.open(0, None, A, now).is_ok());
        assert_eq!(ports.open(2, None, A, now), Err(ErrorCode::NoSuchNetwork));
        assert_eq!((ports.max_ports(), ports.count(A)), (4, (4, 4)));
        assert!(ports.opened(PortId(100_001), 9));
        assert_eq!(ports.abandon(A), [PortId(100_001)]);
    }

    #[test]
    fn rooms_are_where_the_network_has_them_and_nowhere_else() {
        let (mut ports, now) = (ports(&[PLAIN, ROOMS]), Instant::now());
        let missing = Err(ErrorCode::NoSuchNetwork);
        assert_eq!(ports.open(0, Some([1; 16]), A, now), missing);
        assert_eq!(ports.open(1, None, A, now), missing);
        let (first, _) = ports.open(1, Some([1; 16]), A, now).unwrap();
        let (second, _) = ports.open(1, Some([2; 16]), A, now).unwrap();
        assert_eq!(ports.open(1, Some([3; 16]), A, now), Err(ErrorCode::NoRoomFree));
        assert_eq!(ports.lan_of(first), Lan { network: 1, room: 0 });
        assert_eq!(ports.lan_of(second), Lan { network: 1, room: 1 });
        assert_eq!(ports.room_key(ports.lan_of(second)), Some([2; 16]));
    }

    #[test]
    fn an_open_that_fails_leaves_no_guest_in_a_room() {
        let (mut ports, now) = (ports(&[Limits { ports: 1, rooms: Some(2) }]), Instant::now());
        let (port, _) = ports.open(0, Some([1; 16]), A, now).unwrap();
        assert_eq!(ports.open(0, Some([2; 16]), A, now), Err(ErrorCode::NoPortFree));
        assert_eq!(ports.take_empty_rooms(), [Lan { network: 0, room: 1 }]);
        ports.freed(port);
        assert_eq!(ports.take_empty_rooms(), [Lan { network: 0, room: 0 }]);
    }

    #[test]
    fn ports_of_an_earlier_run_are_adopted_into_their_rooms_only() {
        let mut ports = ports(&[PLAIN, ROOMS]);
        let lan = Lan { network: 1, room: 1 };
        assert!(ports.adopt_room(lan, [7; 16]) && !ports.adopt_room(lan, [7; 16]));
        assert!(!ports.adopt_room(Lan { network: 0, room: 0 }, [7; 16]));
        let port = PortId(100_003);
        assert!(!ports.adopt(A, port, Generation(5), 9, 0), "no such room");
        assert!(ports.adopt(A, port, Generation(5), 9, 1));
        assert!(!ports.adopt(A, port, Generation(5), 9, 1), "only once");
        assert_eq!(ports.lan_of(port), lan);
        ports.close(A, port, Generation(5)).unwrap();
        ports.freed(port);
        assert_eq!(ports.take_empty_rooms(), [lan]);
        assert!(ports.adopt(A, PortId(1), Generation(5), 9, 0));
    }

    #[test]
    fn numbers_of_no_network_are_nobodys() {
        let mut ports = ports(&[PLAIN]);
        let foreign = PortId(100_000);
        assert!(!ports.opened(foreign, 1) && !ports.is_used(foreign));
        assert_eq!(ports.close(A, foreign, Generation(0)), Err(NotYours));
        assert_eq!(ports.holder(PortId(u32::MAX)), None);
        ports.freed(foreign);
        ports.condemn(foreign);
        assert!(!ports.adopt(A, foreign, Generation(1), 1, 0));
    }
}
