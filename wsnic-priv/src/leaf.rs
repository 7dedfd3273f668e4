//! Leaf bridges. A Linux bridge takes 1023 ports at most (BR_MAX_PORTS, net/bridge/br_private.h): every
//! thousand ports beyond the first has a bridge of its own, which a cable (a pair of veth interfaces)
//! joins to the network's.
//!
//! Made when the first of its ports opens, removed some seconds after the last has gone. Guests see
//! one network. To the host a leaf bridge is nothing: no address, no ARP, no IPv6, and the guard drops
//! what the kernel may still take from it.

use crate::link::{BRIDGE_GROUP, Link, Links};
use crate::sysctl;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use tokio::sync::Mutex;
use wsnic_host::LEAF_PREFIX;
use wsnic_proto::ports::{NUMBERS, network_of};
use wsnic_proto::{MacAddr, PortId};

/// Ports on one bridge; the network's own has a cable to each of the others too, 23 at most.
const PORTS: u32 = 1000;
/// The note on a leaf bridge that is whole, and with its cable joined to the network's.
const WHOLE: &str = "wsnic leaf";

/// Each network has a hundred thousand numbers, of which the first thousand are on its own bridge.
const LEAVES: u32 = NUMBERS / PORTS;

/// The leaf bridges of all networks.
pub struct Leaves {
    links: Links,
    /// Indexes of each that stands: the bridge, and its cable's end at the network's bridge.
    made: RefCell<BTreeMap<u32, [u32; 2]>>,
    /// Held while one is being made or removed.
    building: Mutex<()>,
}

impl Leaves {
    /// Goes on with those among `links` that a helper which died has left.
    pub fn new(connection: Links, links: &[Link]) -> Leaves {
        let index = |name: &str| {
            let ours = |link: &&Link| link.name == name && link.group == BRIDGE_GROUP;
            links.iter().find(ours).map(|link| link.index)
        };
        let made = links.iter().filter(|link| link.alias == WHOLE).filter_map(|link| {
            let leaf = link.name.strip_prefix(LEAF_PREFIX)?.parse().ok()?;
            let [bridge, upper, _] = names(leaf);
            Some((leaf, [index(&bridge)?, index(&upper)?]))
        });
        let made = RefCell::new(made.collect());
        Leaves { links: connection, made, building: Mutex::default() }
    }

    /// Index of the bridge that `port` belongs on; 0 if there is none at the moment. That of the
    /// network's own is `root`.
    pub fn bridge_of(&self, port: PortId, root: u32) -> u32 {
        let leaf = port.0 / PORTS;
        match root {
            0 => 0,
            root if leaf.is_multiple_of(LEAVES) => root,
            _ => self.made.borrow().get(&leaf).map_or(0, |[bridge, _]| *bridge),
        }
    }

    /// The same; makes the bridge first where there is none.
    ///
    /// # Errors
    /// What the kernel says; `ENODEV` while the network has no bridge.
    pub async fn make(&self, port: PortId, root: u32, mtu: u16, isolated: bool) -> io::Result<u32> {
        if root == 0 {
            return Err(nix::Error::ENODEV.into());
        }
        let _alone = self.building.lock().await;
        let stands = self.bridge_of(port, root);
        if stands != 0 {
            return Ok(stands);
        }
        let leaf = port.0 / PORTS;
        // What an attempt before this one may have left.
        self.delete(leaf).await?;
        let [bridge, upper, lower] = names(leaf);
        let mac = MacAddr::locally_administered(bridge.as_bytes());
        self.links.add_bridge(&bridge, mac, mtu).await?;
        sysctl::disable_ipv6(&bridge);
        let index = self.links.set_up_apart(&bridge).await?;
        let ends = [&*upper, &*lower];
        let cable = self.links.add_cable(ends, [root, index], mtu, isolated).await?;
        for end in [upper, lower] {
            sysctl::disable_ipv6(&end);
        }
        self.links.set_alias(&bridge, WHOLE).await?;
        self.made.borrow_mut().insert(leaf, [index, cable]);
        Ok(index)
    }

    /// Removes those that have no port.
    pub async fn remove_unused(&self, is_used: impl Fn(PortId) -> bool) {
        let _alone = self.building.lock().await;
        let unused = |leaf: &u32| !(leaf * PORTS..(leaf + 1) * PORTS).map(PortId).any(&is_used);
        let unused: Vec<u32> = self.made.borrow().keys().copied().filter(unused).collect();
        for leaf in unused {
            self.made.borrow_mut().remove(&leaf);
            if let Err(error) = self.delete(leaf).await {
                tracing::warn!(%error, leaf, "cannot remove a leaf bridge, which is not used");
            }
        }
    }

    /// Forgets those of a network, whose bridge is another.
    pub fn forget(&self, network: u16) {
        self.made.borrow_mut().retain(|leaf, _| network_of(PortId(leaf * PORTS)) != network);
    }

    /// Whether this is, or was, a part of one.
    pub fn has(&self, link: &Link) -> bool {
        self.made.borrow().values().any(|parts| parts.contains(&link.index))
    }

    /// Indices of all parts of those that stand, as far as is known.
    pub fn indices(&self) -> Vec<u32> {
        self.made.borrow().values().flatten().copied().collect()
    }

    /// Forgets those of which a part is gone: true if there are any.
    pub fn retain(&self, is_there: impl Fn(u32) -> bool) -> bool {
        let before = self.made.borrow().len();
        self.made.borrow_mut().retain(|_, parts| parts.iter().all(|part| is_there(*part)));
        self.made.borrow().len() < before
    }

    async fn delete(&self, leaf: u32) -> io::Result<()> {
        let [bridge, upper, _] = names(leaf);
        self.links.delete(&bridge).await?;
        self.links.delete(&upper).await
    }
}

/// Names of the bridge, of the cable's end at the network's bridge, and of the other end.
fn names(leaf: u32) -> [String; 3] {
    ["", "u", "d"].map(|end| format!("{LEAF_PREFIX}{leaf}{end}"))
}
