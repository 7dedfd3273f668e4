//! Notes on interfaces (IFLA_IFALIAS), by which a restarted helper knows what it finds.
//!
//! | on | note |
//! |---|---|
//! | a port | `wsnic CONNECTION GENERATION ROOM` |
//! | a network's bridge | `wsnic SUBNET MTU` and the interfaces that forward because of guests |
//! | a room's bridge | `wsnic SUBNET MTU room KEY` |

use crate::message::Generation;
use crate::rooms::RoomKey;
use crate::settings::InterfaceName;
use crate::slots::ConnectionId;
use crate::{Cidr, Plan};

/// Begins each.
const OURS: &str = "wsnic";

/// On a port.
pub fn port(id: ConnectionId, generation: Generation, room: u32) -> String {
    format!("{OURS} {} {} {room}", id.0, generation.0)
}

/// Whose port it is, in which generation and room; None: the note is not ours.
pub fn read_port(note: &str) -> Option<(ConnectionId, Generation, u32)> {
    let mut numbers = note.strip_prefix(OURS)?.strip_prefix(' ')?.split(' ');
    let id = ConnectionId(numbers.next()?.parse().ok()?);
    let read = (id, Generation(numbers.next()?.parse().ok()?), numbers.next()?.parse().ok()?);
    numbers.next().is_none().then_some(read)
}

/// On a bridge: what it was made for.
pub fn bridge(plan: Plan, mtu: u16, room: Option<RoomKey>) -> String {
    let subnet: Cidr = plan.subnet();
    match room {
        None => format!("{OURS} {subnet} {mtu}"),
        Some(key) => format!("{OURS} {subnet} {mtu} room {:032x}", u128::from_be_bytes(key)),
    }
}

/// True if a bridge with this note was made for what `wanted` says, whatever else stands behind it.
pub fn is_made_for(note: &str, wanted: &str) -> bool {
    note.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The key of the room whose bridge it is.
pub fn read_room(note: &str) -> Option<RoomKey> {
    let digits = note.split_once(" room ")?.1;
    let key = u128::from_str_radix(digits, 16).ok()?;
    (digits.len() == 32).then(|| key.to_be_bytes())
}

/// The interfaces that forward because of guests: behind what the bridge is made for.
pub fn read_forwarding(note: &str) -> Vec<InterfaceName> {
    note.split_ascii_whitespace().skip(3).filter_map(InterfaceName::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> Plan {
        Plan::new("10.3.1.0/24".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_port_is_known_by_its_note() {
        let note = port(ConnectionId(7), Generation(9), 3);
        assert_eq!(note, "wsnic 7 9 3");
        assert_eq!(read_port(&note), Some((ConnectionId(7), Generation(9), 3)));
        for other in ["", "wsnic", "wsnic 7 9", "wsnic 7 9 3 4", "wsnicx 7 9 3", "wsnic 7 -9 3"] {
            assert_eq!(read_port(other), None, "{other}");
        }
    }

    #[test]
    fn a_bridge_is_known_by_what_it_was_made_for() {
        let note = bridge(plan(), 1500, None);
        assert_eq!(note, "wsnic 10.3.1.0/24 1500");
        assert!(is_made_for(&note, &note) && is_made_for(&format!("{note} eth0"), &note));
        assert!(!is_made_for("wsnic 10.3.1.0/24 15000", &note) && !is_made_for("", &note));
        assert_eq!(read_forwarding(&format!("{note} eth0 wan1 a/b")).len(), 2);
        assert!(read_forwarding(&note).is_empty());
    }

    #[test]
    fn a_room_is_known_by_its_key() {
        let note = bridge(plan(), 1500, Some([0xab; 16]));
        assert_eq!(read_room(&note), Some([0xab; 16]));
        assert_eq!(read_room(&bridge(plan(), 1500, None)), None);
        assert_eq!(read_room("wsnic 10.3.1.0/24 1500 room ab"), None, "cut short");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}|wsnic [0-9 room]{0,60}") {
            let _ = (read_port(&text), read_room(&text), read_forwarding(&text));
        }
    }
}
