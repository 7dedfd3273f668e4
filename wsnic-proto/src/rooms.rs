//! The table of a network's rooms: which secret has which number, and how many guests are in it.
//!
//! Pure state of the helper. A room goes Free → Used → Closing → Free: it is taken for its first guest,
//! and offered for removal when its last one has gone; its number is free again when its bridge is.

use crate::ErrorCode;

/// Names a room to the helper: nothing that can be guessed, made from what its guests share.
pub type RoomKey = [u8; 16];

/// Ports of one room: what a bridge takes (BR_PORT_BITS of the kernel's br_private.h: 1,024), with some
/// of them left for others.
pub const MAX_GUESTS: u32 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    Used { key: RoomKey, guests: u32 },
    Closing,
}

/// The rooms of one network.
#[derive(Debug)]
pub struct Rooms(Vec<Room>);

impl Rooms {
    /// No room is used, of `max`.
    pub fn new(max: u32) -> Rooms {
        Rooms(vec![Room::Free; max as usize])
    }

    /// One more guest is in the room of this key; its number.
    ///
    /// # Errors
    /// It is full, or it is new and all rooms are in use.
    pub fn enter(&mut self, key: RoomKey) -> Result<u32, ErrorCode> {
        let is_it = |room: &Room| matches!(room, Room::Used { key: known, .. } if *known == key);
        let found = self.0.iter().position(is_it);
        let free = || self.0.iter().position(|room| *room == Room::Free);
        let number = found.or_else(free).ok_or(ErrorCode::NoRoomFree)?;
        let guests = match self.0[number] {
            Room::Used { guests, .. } if guests >= MAX_GUESTS => return Err(ErrorCode::NoPortFree),
            Room::Used { guests, .. } => guests,
            Room::Free | Room::Closing => 0,
        };
        self.0[number] = Room::Used { key, guests: guests + 1 };
        Ok(number as u32)
    }

    /// One guest less.
    pub fn leave(&mut self, number: u32) {
        if let Some(Room::Used { guests, .. }) = self.0.get_mut(number as usize) {
            *guests = guests.saturating_sub(1);
        }
    }

    /// A room of an earlier run of the helper, without guests until they are adopted. False: delete it.
    pub fn adopt(&mut self, number: u32, key: RoomKey) -> bool {
        match self.0.get_mut(number as usize) {
            Some(room @ Room::Free) => {
                *room = Room::Used { key, guests: 0 };
                true
            }
            _ => false,
        }
    }

    /// A guest of an earlier run, in a room that was adopted.
    pub fn adopt_guest(&mut self, number: u32) -> bool {
        match self.0.get_mut(number as usize) {
            Some(Room::Used { guests, .. }) => {
                *guests += 1;
                true
            }
            _ => false,
        }
    }

    /// The key of a room that is used.
    pub fn key(&self, number: u32) -> Option<RoomKey> {
        match self.0.get(number as usize) {
            Some(Room::Used { key, .. }) => Some(*key),
            _ => None,
        }
    }

    /// Rooms whose last guest has gone: nobody gets in any more, they are to be removed, and then
    /// [`Rooms::removed`].
    pub fn take_empty(&mut self) -> Vec<u32> {
        let mut empty = Vec::new();
        for (number, room) in (0..).zip(&mut self.0) {
            if matches!(room, Room::Used { guests: 0, .. }) {
                *room = Room::Closing;
                empty.push(number);
            }
        }
        empty
    }

    /// Its bridge is gone: the number can be taken again.
    pub fn removed(&mut self, number: u32) {
        if let Some(room @ Room::Closing) = self.0.get_mut(number as usize) {
            *room = Room::Free;
        }
    }

    /// Rooms that are not free.
    pub fn len(&self) -> usize {
        self.0.iter().filter(|room| **room != Room::Free).count()
    }

    /// True if all are free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RoomKey = [1; 16];
    const B: RoomKey = [2; 16];

    #[test]
    fn guests_with_one_key_meet_and_others_do_not() {
        let mut rooms = Rooms::new(3);
        assert_eq!((rooms.enter(A), rooms.enter(B), rooms.enter(A)), (Ok(0), Ok(1), Ok(0)));
        assert_eq!(rooms.len(), 2);
    }

    #[test]
    fn a_room_is_removed_after_its_last_guest_and_its_number_is_free_after_its_bridge() {
        let mut rooms = Rooms::new(1);
        rooms.enter(A).unwrap();
        rooms.enter(A).unwrap();
        rooms.leave(0);
        assert_eq!(rooms.take_empty(), []);
        rooms.leave(0);
        assert_eq!(rooms.take_empty(), [0]);
        assert_eq!(rooms.take_empty(), [], "once only");
        assert_eq!(rooms.enter(A), Err(ErrorCode::NoRoomFree), "its bridge is still there");
        rooms.removed(0);
        assert_eq!(rooms.enter(B), Ok(0));
    }

    #[test]
    fn a_guest_who_comes_back_before_the_removal_finds_his_room() {
        let mut rooms = Rooms::new(2);
        rooms.enter(B).unwrap();
        rooms.enter(A).unwrap();
        rooms.leave(1);
        assert_eq!(rooms.enter(A), Ok(1));
        assert_eq!(rooms.take_empty(), []);
    }

    #[test]
    fn a_room_has_no_more_guests_than_a_bridge_has_ports() {
        let mut rooms = Rooms::new(2);
        for _ in 0..MAX_GUESTS {
            assert_eq!(rooms.enter(A), Ok(0));
        }
        assert_eq!(rooms.enter(A), Err(ErrorCode::NoPortFree));
        assert_eq!(rooms.enter(B), Ok(1));
    }

    #[test]
    fn rooms_of_an_earlier_run_go_on_with_their_guests() {
        let mut rooms = Rooms::new(2);
        assert!(rooms.adopt(1, A) && !rooms.adopt(1, B) && !rooms.adopt(2, B));
        assert!(rooms.adopt_guest(1) && !rooms.adopt_guest(0) && !rooms.adopt_guest(7));
        assert_eq!((rooms.enter(A), rooms.key(1), rooms.key(0)), (Ok(1), Some(A), None));
        rooms.leave(1);
        rooms.leave(1);
        assert_eq!(rooms.take_empty(), [1]);
    }
}
