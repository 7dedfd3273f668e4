//! The bridges: one for each network, and one for each room that has a guest.
//!
//! All are made, found again and removed here. A bridge is up, with its address and forwarding as the
//! network has it, before a port can be attached; that of a room is known to the firewall before.

use crate::firewall::Firewall;
use crate::link::{Link, Links};
use crate::sysctl;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use tokio::sync::Mutex;
use wsnic_host::{BRIDGE_GROUP, bridge_mac, bridge_name, lan_of};
use wsnic_os::log::chain;
use wsnic_proto::Plan;
use wsnic_proto::notes;
use wsnic_proto::ports::Lan;
use wsnic_proto::rooms::RoomKey;
use wsnic_proto::settings::Network as Options;

/// All bridges of this machine that are ours.
pub struct Bridges {
    links: Links,
    firewall: Rc<RefCell<Firewall>>,
    networks: Vec<Options>,
    /// Index of each that stands.
    made: RefCell<BTreeMap<Lan, u32>>,
    /// Whether packets are forwarded for the guests of each network.
    forwards: Vec<Cell<bool>>,
    /// Held while one is being made or removed.
    building: Mutex<()>,
}

impl Bridges {
    /// None stands.
    pub fn new(links: Links, firewall: Rc<RefCell<Firewall>>, networks: Vec<Options>) -> Bridges {
        let forwards = networks.iter().map(|_| Cell::default()).collect();
        let (made, building) = (RefCell::default(), Mutex::default());
        Bridges { links, firewall, networks, made, forwards, building }
    }

    /// Index of a bridge; 0 if it does not stand.
    pub fn index(&self, lan: Lan) -> u32 {
        self.made.borrow().get(&lan).copied().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self, lan: Lan) -> String {
        bridge_name(lan, self.has_rooms(lan.network))
    }

    /// Whether each port of the network is in a room.
    pub fn has_rooms(&self, network: u16) -> bool {
        self.networks.get(usize::from(network)).is_some_and(|network| network.rooms.is_some())
    }

    /// Addresses and MTU of a LAN.
    pub fn plan(&self, lan: Lan) -> Option<(Plan, u16)> {
        let network = self.networks.get(usize::from(lan.network))?;
        Some((network.plan_of(lan.room)?, network.mtu))
    }

    /// Networks that have one bridge, which does not stand.
    pub fn missing(&self) -> Vec<Lan> {
        let lans = (0..).zip(&self.networks).filter(|(_, network)| network.rooms.is_none());
        let lans = lans.map(|(network, _)| Lan { network, room: 0 });
        lans.filter(|lan| self.index(*lan) == 0).collect()
    }

    /// Whether the bridges of networks are those that were made, as the kernel has them.
    pub async fn stand(&self) -> bool {
        let made: Vec<(Lan, u32)> =
            self.made.borrow().iter().map(|(lan, at)| (*lan, *at)).collect();
        for (lan, index) in made.into_iter().filter(|(lan, _)| !self.has_rooms(lan.network)) {
            let found = self.links.find(&self.name(lan)).await;
            if found.is_ok_and(|link| link.is_none_or(|link| link.index != index)) {
                return false;
            }
        }
        true
    }

    /// Makes the bridge if it does not stand; its index. `key` is the room's.
    ///
    /// # Errors
    /// What the kernel says; what was made of it is removed.
    pub async fn make(&self, lan: Lan, key: Option<RoomKey>) -> io::Result<u32> {
        let _alone = self.building.lock().await;
        if self.index(lan) != 0 {
            return Ok(self.index(lan));
        }
        let name = self.name(lan);
        // What an attempt before this one may have left.
        self.links.delete(&name).await?;
        let built = self.build(lan, &name, key).await;
        match &built {
            Ok(index) => drop(self.made.borrow_mut().insert(lan, *index)),
            // What fails here is tried again by the next attempt.
            Err(_) => drop(self.links.delete(&name).await),
        }
        built
    }

    async fn build(&self, lan: Lan, name: &str, key: Option<RoomKey>) -> io::Result<u32> {
        let (plan, mtu) = self.plan(lan).ok_or(io::ErrorKind::NotFound)?;
        let subnet = plan.subnet();
        self.links.add_bridge(name, bridge_mac(lan.network), mtu).await?;
        sysctl::disable_ipv6(name);
        let found = self.links.find(name).await?;
        let index = found.ok_or(io::ErrorKind::NotFound)?.index;
        if key.is_some() {
            let known = self.firewall.borrow_mut().add_room(index, subnet);
            known.map_err(|error| io::Error::other(chain(&error)))?;
        }
        self.links.set_up(name, plan.gateway(), subnet.prefix_len()).await?;
        self.links.set_alias(name, &notes::bridge(plan, mtu, key)).await?;
        if self.forwards.get(usize::from(lan.network)).is_some_and(Cell::get) {
            self.links.set_forwarding(name, true).await?;
        }
        Ok(index)
    }

    /// What a bridge is made for; one with another note is not taken over.
    pub fn note(&self, lan: Lan, key: Option<RoomKey>) -> Option<String> {
        self.plan(lan).map(|(plan, mtu)| notes::bridge(plan, mtu, key))
    }

    /// Turns forwarding on for the guests of a network, for those of rooms to come too.
    pub async fn forward(&self, network: u16) -> io::Result<()> {
        if let Some(forwards) = self.forwards.get(usize::from(network)) {
            forwards.set(true);
        }
        let lans: Vec<Lan> = self.made.borrow().keys().copied().collect();
        for lan in lans.into_iter().filter(|lan| lan.network == network) {
            self.links.set_forwarding(&self.name(lan), true).await?;
        }
        Ok(())
    }

    /// Goes on with a bridge that a helper which died has left. None: it is not as we would make it, and
    /// is to be deleted. A room's key otherwise, if it is one.
    pub fn adopt(&self, link: &Link) -> Option<(Lan, Option<RoomKey>)> {
        let (lan, is_room) = lan_of(&link.name).filter(|_| link.group == BRIDGE_GROUP)?;
        let key = notes::read_room(&link.alias);
        let is_ours = notes::is_made_for(&link.alias, &self.note(lan, key)?);
        if is_room != self.has_rooms(lan.network) || is_room != key.is_some() || !is_ours {
            return None;
        }
        if is_room {
            let (plan, _) = self.plan(lan)?;
            self.firewall.borrow_mut().add_room(link.index, plan.subnet()).ok()?;
        }
        self.made.borrow_mut().insert(lan, link.index);
        Some((lan, key))
    }

    /// Whether this is, or was, one of them.
    pub fn has(&self, link: &Link) -> bool {
        self.made.borrow().values().any(|index| *index == link.index)
    }

    /// Indices of those that stand, as far as is known.
    pub fn indices(&self) -> Vec<u32> {
        self.made.borrow().values().copied().collect()
    }

    /// Bridges that stood and do no more; they are forgotten.
    pub fn retain(&self, is_there: impl Fn(u32) -> bool) -> Vec<Lan> {
        let mut gone = Vec::new();
        self.made.borrow_mut().retain(|lan, index| {
            let stays = is_there(*index);
            gone.extend((!stays).then_some((*lan, *index)));
            stays
        });
        gone.iter().for_each(|(lan, index)| self.forget_room(*lan, *index));
        gone.into_iter().map(|(lan, _)| lan).collect()
    }

    /// Removes a room's bridge.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove(&self, lan: Lan) -> io::Result<()> {
        let _alone = self.building.lock().await;
        let index = self.made.borrow_mut().remove(&lan);
        self.links.delete(&self.name(lan)).await?;
        if let Some(index) = index {
            self.forget_room(lan, index);
        }
        Ok(())
    }

    fn forget_room(&self, lan: Lan, index: u32) {
        if self.has_rooms(lan.network)
            && let Err(error) = self.firewall.borrow_mut().remove_rooms(&[index])
        {
            tracing::warn!("{}", chain(&error));
        }
    }
}
