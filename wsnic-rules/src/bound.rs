//! What is bound: the elements of all sets, remembered, so that tables which are made anew get them back.

use crate::policy::Policy;
use crate::{guard, ports};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wsnic_nft::{Batch, Element, Part, Set};
use wsnic_proto::MacAddr;

/// A MAC address of a port; with an IPv4 address of the port, or for all but IPv4.
pub type Pair = (MacAddr, Option<Ipv4Addr>);

/// What ports and rooms have, by their interfaces' indexes.
#[derive(Debug, Default)]
pub struct Bound {
    ports: BTreeMap<u32, Port>,
    /// The bridge of each room, and its subnet's first address.
    rooms: BTreeMap<u32, Ipv4Addr>,
}

/// What a port has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The number of its network.
    pub network: u16,
    /// Its addresses.
    pub pairs: Vec<Pair>,
}

/// What an interface has from now on; None: nothing, it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A port.
    Port(u32, Option<Port>),
    /// A room's bridge, with its subnet's first address.
    Room(u32, Option<Ipv4Addr>),
}

/// Elements to delete and to add, by the name of their set.
type Changes = BTreeMap<String, (Set, Vec<Element>, Vec<Element>)>;

impl Bound {
    /// What the tables of an earlier run say, as `elements` reads it. Of networks with the same rules,
    /// ports are taken for the first one's; of a port with several MAC addresses, one has all IPv4
    /// addresses, which makes no difference to what it may send.
    ///
    /// # Errors
    /// What `elements` says.
    pub fn read<E>(
        policy: &Policy,
        mut elements: impl FnMut(&Set) -> Result<Vec<Element>, E>,
    ) -> Result<Bound, E> {
        let mut bound = Bound::default();
        for number in 0..policy.networks.len() {
            for element in elements(&ports::members(number))? {
                if let [Part::Interface(port)] = element[..] {
                    bound.port(port).network = u16::try_from(number).unwrap_or(u16::MAX);
                }
            }
        }
        for element in elements(&ports::macs())? {
            if let [Part::Interface(port), Part::Mac(mac)] = element[..] {
                bound.port(port).pairs.push((mac, None));
            }
        }
        for element in elements(&ports::bound())? {
            if let [Part::Interface(port), Part::Ipv4(address)] = element[..] {
                let pairs = &mut bound.port(port).pairs;
                let mac = pairs.first().map(|(mac, _)| *mac);
                pairs.extend(mac.map(|mac| (mac, Some(address))));
            }
        }
        for element in elements(&guard::rooms())? {
            if let [Part::Interface(bridge), Part::Ipv4(subnet)] = element[..] {
                bound.rooms.insert(bridge, subnet);
            }
        }
        Ok(bound)
    }

    fn port(&mut self, port: u32) -> &mut Port {
        self.ports.entry(port).or_insert_with(|| Port { network: 0, pairs: Vec::new() })
    }

    /// What a port has.
    pub fn of(&self, port: u32) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// The changes after which nothing has anything but these interfaces.
    pub fn all_but(&self, interfaces: &[u32]) -> Vec<Change> {
        let is_gone = |index: &&u32| !interfaces.contains(index);
        let ports = self.ports.keys().filter(is_gone).map(|port| Change::Port(*port, None));
        let rooms = self.rooms.keys().filter(is_gone).map(|room| Change::Room(*room, None));
        ports.chain(rooms).collect()
    }

    /// Remembers the changes, adds those of the tables to the batch, and gives what undoes them.
    pub fn change(
        &mut self,
        batch: &mut Batch,
        policy: &Policy,
        wanted: impl IntoIterator<Item = Change>,
    ) -> Vec<Change> {
        let mut changes = Changes::new();
        let mut undo: Vec<Change> = wanted
            .into_iter()
            .map(|change| match change {
                Change::Port(port, new) => {
                    let of = |has: Option<&Port>| {
                        has.map_or_else(Vec::new, |has| of_port(policy, port, has))
                    };
                    let added = of(new.as_ref());
                    let old = exchange(&mut self.ports, port, new);
                    note(&mut changes, of(old.as_ref()), added);
                    Change::Port(port, old)
                }
                Change::Room(bridge, new) => {
                    let of = |has: Option<Ipv4Addr>| {
                        has.map_or_else(Vec::new, |has| of_room(policy, bridge, has))
                    };
                    let added = of(new);
                    let old = exchange(&mut self.rooms, bridge, new);
                    note(&mut changes, of(old), added);
                    Change::Room(bridge, old)
                }
            })
            .collect();
        undo.reverse();
        for (set, deleted, added) in changes.into_values() {
            batch.delete_elements(&set, deleted);
            batch.add_elements(&set, added);
        }
        undo
    }

    /// Adds all elements to tables that the same batch has made.
    pub(crate) fn build(&self, batch: &mut Batch, policy: &Policy) {
        let mut changes = Changes::new();
        for (port, has) in &self.ports {
            note(&mut changes, Vec::new(), of_port(policy, *port, has));
        }
        for (bridge, subnet) in &self.rooms {
            note(&mut changes, Vec::new(), of_room(policy, *bridge, *subnet));
        }
        for (set, _, added) in changes.into_values() {
            batch.add_elements(&set, added);
        }
    }
}

fn exchange<T>(map: &mut BTreeMap<u32, T>, key: u32, new: Option<T>) -> Option<T> {
    match new {
        Some(new) => map.insert(key, new),
        None => map.remove(&key),
    }
}

/// Notes the difference.
fn note(changes: &mut Changes, old: Vec<(Set, Element)>, new: Vec<(Set, Element)>) {
    let is_in = |list: &[(Set, Element)], (set, element): &(Set, Element)| {
        list.iter().any(|(other, known)| other.name == set.name && known == element)
    };
    let kept: Vec<bool> = new.iter().map(|one| is_in(&old, one)).collect();
    for (set, element) in old.into_iter().filter(|one| !is_in(&new, one)) {
        let name = set.name.clone();
        changes.entry(name).or_insert_with(|| (set, vec![], vec![])).1.push(element);
    }
    for ((set, element), _) in new.into_iter().zip(kept).filter(|(_, kept)| !kept) {
        let name = set.name.clone();
        changes.entry(name).or_insert_with(|| (set, vec![], vec![])).2.push(element);
    }
}

/// A port's elements.
fn of_port(policy: &Policy, port: u32, has: &Port) -> Vec<(Set, Element)> {
    let network = usize::from(has.network);
    let mut elements = Vec::new();
    if !policy.has_locks() {
        return elements;
    }
    if let Some(class) = ports::class(policy, network) {
        elements.push((ports::members(class), vec![Part::Interface(port)]));
    }
    if policy.networks.get(network).is_some_and(|network| !network.locks) {
        return elements;
    }
    let index = Part::Interface(port);
    for (mac, address) in &has.pairs {
        let mac = (ports::macs(), vec![index, Part::Mac(*mac)]);
        let address = address.map(|address| (ports::bound(), vec![index, Part::Ipv4(address)]));
        for one in [Some(mac), address].into_iter().flatten() {
            if !elements.iter().any(|(_, element)| *element == one.1) {
                elements.push(one);
            }
        }
    }
    elements
}

/// A room's elements.
fn of_room(policy: &Policy, bridge: u32, subnet: Ipv4Addr) -> Vec<(Set, Element)> {
    if !policy.has_rooms() {
        return vec![];
    }
    let (room, inside) = guard::room(bridge, Part::Ipv4(subnet));
    vec![(guard::rooms(), room), (guard::inside(), inside)]
}
