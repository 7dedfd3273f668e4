//! Sets: what rules look up, and elements that come and go while the rules stay.
//!
//! A key has one part or more; each begins a 32-bit register of its own. Elements are added and deleted
//! many to a message; the length of an attribute (16 bits) bounds how many.

use crate::attribute::{Attributes, attribute, attributes};
use crate::batch::{Batch, CREATE, Table};
use std::net::Ipv4Addr;
use std::time::Duration;
use wsnic_proto::MacAddr;

/// What a part of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// An interface, by its index.
    Interface,
    /// A MAC address.
    Mac,
    /// An IPv4 address.
    Ipv4,
}

impl Key {
    /// The number by which nft knows the type (enum datatypes, datatype.h of nftables).
    const fn datatype(self) -> u32 {
        match self {
            Key::Interface => 20,
            Key::Mac => 9,
            Key::Ipv4 => 7,
        }
    }

    /// Bytes, without what fills its last register.
    const fn len(self) -> usize {
        match self {
            Key::Interface | Key::Ipv4 => 4,
            Key::Mac => 6,
        }
    }
}

/// A part of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// An interface, by its index.
    Interface(u32),
    /// A MAC address.
    Mac(MacAddr),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
}

/// An element, part by part as the set's key has them.
pub type Element = Vec<Part>;

/// A set, as changes and questions name it; makes nothing.
#[derive(Debug, Clone)]
pub struct Set {
    /// Where it is.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub key: &'static [Key],
}

impl Set {
    /// A set's address.
    pub fn new(table: Table, name: &str, key: &'static [Key]) -> Set {
        Set { table, name: name.to_owned(), key }
    }

    pub(crate) fn attributes(&self) -> Attributes {
        Attributes::default().text(LIST_TABLE, &self.table.name).text(LIST_SET, &self.name)
    }
}

impl Batch {
    /// Makes a set.
    pub fn set(&mut self, set: &Set) {
        self.new_set(set, 0, Attributes::default());
    }

    /// Makes a set for [`crate::Rule::each_over`]: of at most `size` elements, which rules add and which
    /// go when no packet came for as long as `forget`.
    pub fn meters(&mut self, set: &Set, size: u32, forget: Duration) {
        let size = Attributes::default().number(DESC_SIZE, size);
        let forget = u64::try_from(forget.as_millis()).unwrap_or(u64::MAX);
        let attributes = Attributes::default().nest(SET_DESC, size).number64(SET_TIMEOUT, forget);
        self.new_set(set, FLAG_DYNAMIC | FLAG_TIMEOUT, attributes);
    }

    fn new_set(&mut self, set: &Set, flags: u32, attributes: Attributes) {
        // Six bits for each part (concat_subtype_add, datatype.h of nftables).
        let datatype = set.key.iter().fold(0, |all, key| all << 6 | key.datatype());
        let length: usize = set.key.iter().map(|key| key.len().next_multiple_of(4)).sum();
        // A set is found by its name; the id has to be there.
        let id = u32::try_from(self.len()).unwrap_or(u32::MAX);
        // Type, length, value: in which order nft reads a key of one part (libnftnl/udata.h).
        let order = if set.key == [Key::Interface] { HOST_ENDIAN } else { BIG_ENDIAN };
        let user = [&[USER_KEY_ORDER, 4][..], &order.to_ne_bytes()].concat();
        let attributes = attributes
            .text(SET_TABLE, &set.table.name)
            .text(SET_NAME, &set.name)
            .number(SET_FLAGS, flags)
            .number(SET_KEY_TYPE, datatype)
            .number(SET_KEY_LEN, u32::try_from(length).unwrap_or(u32::MAX))
            .number(SET_ID, id)
            .bytes(SET_USERDATA, &user);
        let what = format!("make set {} {}", set.table, set.name);
        self.push((NEW_SET, CREATE), &set.table, attributes, what);
    }

    /// Adds elements to a set; one that is there already is no error.
    pub fn add_elements(&mut self, set: &Set, elements: impl IntoIterator<Item = Element>) {
        self.elements((NEW_ELEMENT, CREATE), set, elements, "add elements to");
    }

    /// Deletes elements of a set; one that is not there is an error (ENOENT).
    pub fn delete_elements(&mut self, set: &Set, elements: impl IntoIterator<Item = Element>) {
        self.elements((DELETE_ELEMENT, 0), set, elements, "delete elements of");
    }

    fn elements(
        &mut self,
        kind: (u16, u16),
        set: &Set,
        elements: impl IntoIterator<Item = Element>,
        verb: &str,
    ) {
        let mut list = Attributes::default();
        let mut flush = |list: Attributes| {
            let attributes = set.attributes().nest(LIST_ELEMENTS, list);
            let what = format!("{verb} set {} {}", set.table, set.name);
            self.push(kind, &set.table, attributes, what);
        };
        for element in elements {
            let key = Attributes::default().bytes(DATA_VALUE, &bytes(&element));
            list = list.nest(LIST_ELEMENT, Attributes::default().nest(ELEMENT_KEY, key));
            if list.0.len() > LIST_LEN {
                flush(std::mem::take(&mut list));
            }
        }
        if !list.0.is_empty() {
            flush(list);
        }
    }
}

/// An element as registers hold it.
fn bytes(element: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in element {
        match part {
            Part::Interface(index) => bytes.extend(index.to_ne_bytes()),
            Part::Mac(mac) => bytes.extend(mac.0),
            Part::Ipv4(address) => bytes.extend(address.octets()),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The elements in an answer of the kernel; one that does not fit the key is left out.
pub(crate) fn read_elements(answer: &[u8], key: &[Key]) -> Vec<Element> {
    let list = attribute(answer, LIST_ELEMENTS).unwrap_or_default();
    let value = |element| attribute(attribute(element, ELEMENT_KEY)?, DATA_VALUE);
    attributes(list).filter_map(|(_, element)| read(value(element)?, key)).collect()
}

fn read(mut bytes: &[u8], key: &[Key]) -> Option<Element> {
    let part = |key: &Key| {
        let (value, rest) = bytes.split_at_checked(key.len().next_multiple_of(4))?;
        bytes = rest;
        Some(match key {
            Key::Interface => Part::Interface(u32::from_ne_bytes(*value.first_chunk()?)),
            Key::Mac => Part::Mac(MacAddr(*value.first_chunk()?)),
            Key::Ipv4 => Part::Ipv4(value.first_chunk::<4>().copied()?.into()),
        })
    };
    key.iter().map(part).collect()
}

/// Bytes of elements in one message, at most one more element: below the 64 KiB of an attribute.
const LIST_LEN: usize = 60_000;
// NFT_MSG_… and NFTA_…, linux/netfilter/nf_tables.h
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
pub(crate) const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_TIMEOUT: u16 = 11;
const SET_USERDATA: u16 = 13;
const DESC_SIZE: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
// enum nft_set_flags
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_DYNAMIC: u32 = 0x20;
// NFTNL_UDATA_SET_KEYBYTEORDER, libnftnl/udata.h; enum byteorder, datatype.h of nftables
const USER_KEY_ORDER: u8 = 0;
const HOST_ENDIAN: u32 = 1;
const BIG_ENDIAN: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Family;

    const KEY: &[Key] = &[Key::Interface, Key::Mac, Key::Ipv4];

    fn element(number: u32) -> Element {
        let mac = MacAddr::locally_administered(&number.to_be_bytes());
        vec![Part::Interface(number), Part::Mac(mac), Part::Ipv4(number.into())]
    }

    #[test]
    fn what_is_written_is_read_however_many_messages_it_takes() {
        let set = Set::new(Table::new(Family::BRIDGE, "t"), "s", KEY);
        let all: Vec<Element> = (0..5000).map(element).collect();
        let mut batch = Batch::default();
        batch.add_elements(&set, all.clone());
        assert!(batch.len() > 1);
        let read: Vec<Element> =
            batch.0.iter().flat_map(|change| read_elements(&change.attributes.0, KEY)).collect();
        assert_eq!(read, all);
        let mut none = Batch::default();
        none.delete_elements(&set, []);
        assert!(none.is_empty(), "no message for no element");
    }

    #[test]
    fn malformed_kernel_text_is_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 3, 4, 5, 16, 0x7f, 0xff] {
                let bytes = vec![fill; length];
                assert!(read_elements(&bytes, KEY).is_empty());
                assert_eq!(read(&bytes, KEY).is_some(), length >= 16);
            }
        }
    }
}
