//! Ports as the kernel has them: made, bound to their guest's addresses, put back on a bridge that was
//! made again, watched, deleted.
//!
//! What a port is to its front-end is decided by [`wsnic_proto::dispatch`]; here it is done.

use crate::bridge::Bridges;
use crate::closer::Deletion;
use crate::firewall::{Firewall, FirewallError, Note};
use crate::leaf::Leaves;
use crate::link::{Link, Links, PORT_GROUP, PortFlags, port_name, port_of};
use crate::network::Networks;
use crate::{sysctl, tap};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use wsnic_host::{BRIDGE_GROUP, bridge_mac, tripwire};
use wsnic_os::log::chain;
use wsnic_os::notify::Notifier;
use wsnic_os::packet::PacketSocket;
use wsnic_proto::bindings::Change;
use wsnic_proto::codec;
use wsnic_proto::dispatch::State;
use wsnic_proto::notes;
use wsnic_proto::offload::Offloads;
use wsnic_proto::ports::{Lan, network_of};
use wsnic_proto::rooms::RoomKey;
use wsnic_proto::settings::Network as Options;
use wsnic_proto::slots::ConnectionId;
use wsnic_proto::{Generation, PortId, Reply, RequestId, RevokeReason};

/// How often and how long a bridge that wakes up is waited for: 100 ms at most.
const WAKE_TRIES: u32 = 50;
const WAKE_PAUSE: Duration = Duration::from_millis(2);

/// The helper at work.
pub struct Helper {
    /// What it knows of its peers.
    pub state: RefCell<State>,
    /// Their connections.
    pub sockets: RefCell<HashMap<ConnectionId, Rc<PacketSocket>>>,
    /// Keeps a copy of each connection with the supervisor, so that it outlives this process.
    pub notifier: Notifier,
    /// The bridges of networks and rooms.
    pub bridges: Rc<Bridges>,
    networks: Vec<Options>,
    /// Each port's TAP as it was made, or as a helper that died left it.
    taps: RefCell<HashMap<PortId, Tap>>,
    links: Links,
    firewall: Rc<RefCell<Firewall>>,
    /// The bridges behind the networks' own.
    leaves: Leaves,
    /// Those that TAPs are made with: all, or what the kernel has.
    offloads: Cell<Offloads>,
    closer: UnboundedSender<Deletion>,
    /// A bridge could not be made again, which the log knows.
    is_broken: Cell<bool>,
}

/// A TAP, and the index of the bridge that it was put on.
struct Tap {
    link: Link,
    bridge: u32,
}

/// Sends without waiting.
///
/// # Errors
/// The peer does not read, or has left.
pub fn send(socket: &PacketSocket, reply: &Reply) -> io::Result<()> {
    socket.send(codec::encode_reply(reply).as_bytes(), None)
}

impl Helper {
    /// A helper without ports; with it, all interfaces as they are.
    ///
    /// # Errors
    /// The kernel gives no socket or no answer.
    pub async fn new(
        networks: &Networks,
        state: State,
        closer: UnboundedSender<Deletion>,
        notifier: Notifier,
        offloads: bool,
    ) -> io::Result<(Rc<Helper>, Vec<Link>)> {
        let links = Links::connect()?;
        let all = links.all().await?;
        let leaves = Leaves::new(links.clone(), &all);
        let helper = Helper {
            state: RefCell::new(state),
            sockets: RefCell::default(),
            notifier,
            bridges: Rc::clone(networks.bridges()),
            networks: networks.options().to_vec(),
            taps: RefCell::default(),
            links,
            firewall: Rc::clone(networks.firewall()),
            leaves,
            offloads: Cell::new(if offloads { Offloads::ALL } else { Offloads::NONE }),
            closer,
            is_broken: Cell::default(),
        };
        Ok((Rc::new(helper), all))
    }

    /// Goes on with the ports of front-ends that are still there, in the networks and rooms that were
    /// taken over; deletes all others.
    pub async fn adopt(
        &self,
        ids: &[ConnectionId],
        lans: &[(Lan, Option<RoomKey>)],
        links: Vec<Link>,
    ) {
        for (lan, key) in lans {
            if let Some(key) = key
                && !self.state.borrow_mut().ports.adopt_room(*lan, *key)
                && let Err(error) = self.bridges.remove(*lan).await
            {
                tracing::warn!(%error, bridge = self.bridges.name(*lan), "cannot remove a room");
            }
        }
        for link in links.into_iter().filter(|link| link.group == PORT_GROUP) {
            let Some(port) = port_of(&link.name) else { continue };
            let network = network_of(port);
            let whose = notes::read_port(&link.alias).filter(|(id, _, room)| {
                ids.contains(id) && lans.iter().any(|(lan, _)| *lan == Lan { network, room: *room })
            });
            let adopted = whose.is_some_and(|(id, generation, room)| {
                self.state.borrow_mut().ports.adopt(id, port, generation, link.index, room)
            });
            if adopted {
                let firewall = self.firewall.borrow();
                let bound = firewall.bound(link.index).map_or(&[][..], |bound| &bound.pairs);
                self.state.borrow_mut().adopt_bound(port, bound, Instant::now());
                let bridge = self.bridge_of(port, self.state.borrow().ports.lan_of(port));
                self.taps.borrow_mut().insert(port, Tap { link, bridge });
            } else {
                self.state.borrow_mut().ports.condemn(port);
                self.delete(port, None);
            }
        }
        let mut all: Vec<u32> = self.taps.borrow().values().map(|tap| tap.link.index).collect();
        all.extend(lans.iter().map(|(lan, _)| self.bridges.index(*lan)));
        if let Err(error) = self.firewall.borrow_mut().retain(&all) {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// Makes the TAP of an opening slot; with it, the answer to its request.
    ///
    /// # Errors
    /// What the kernel says, which has been logged; nothing of the TAP is left.
    pub async fn open(
        &self,
        id: ConnectionId,
        (req, port, generation): (RequestId, PortId, Generation),
    ) -> io::Result<(OwnedFd, Reply)> {
        let lan = self.state.borrow().ports.lan_of(port);
        let made = self.make(port, lan, &notes::port(id, generation, lan.room)).await;
        let mut state = self.state.borrow_mut();
        match made {
            Ok((fd, tap)) => {
                state.ports.opened(port, tap.link.index);
                self.taps.borrow_mut().insert(port, tap);
                let (plan, mtu) = self.bridges.plan(lan).ok_or(io::ErrorKind::NotFound)?;
                let gateway = plan.gateway().octets();
                let (offloads, gateway_mac) = (self.offloads.get().0, bridge_mac(lan.network));
                let opened =
                    Reply::Opened { req, port, generation, mtu, offloads, gateway, gateway_mac };
                Ok((fd, opened))
            }
            Err(error) => {
                tracing::error!(%error, port = port_name(port), "cannot make a TAP");
                // Its fd is closed by now, and with it the TAP has gone.
                state.ports.shelve(port);
                Err(error)
            }
        }
    }

    async fn make(&self, port: PortId, lan: Lan, note: &str) -> io::Result<(OwnedFd, Tap)> {
        let name = port_name(port);
        let (fd, offloads) = tap::create(&name, self.offloads.get())?;
        if self.offloads.replace(offloads) != offloads {
            tracing::info!(?offloads, "this kernel has not all TAP offloads, going on without");
        }
        let has_ipv6 = !sysctl::disable_ipv6(&name);
        loop {
            let tap = self.attach(port, lan, note, has_ipv6).await?;
            self.announce(&tap.link, lan)?;
            if !self.state.borrow().ports.any_open(lan) {
                self.wait_for_bridge(lan).await?;
            }
            // Another one may have been made meanwhile; this port is not among those it was given.
            if self.bridge_of(port, lan) == tap.bridge {
                return Ok((fd, tap));
            }
        }
    }

    /// Puts a TAP on its bridge, which is made if it does not stand.
    async fn attach(&self, port: PortId, lan: Lan, note: &str, has_ipv6: bool) -> io::Result<Tap> {
        let network = self.network(lan).ok_or(io::ErrorKind::NotFound)?;
        let key = self.state.borrow().ports.room_key(lan);
        let bridge = match key {
            Some(key) => self.bridges.make(lan, Some(key)).await?,
            None => {
                let root = self.bridges.index(lan);
                self.leaves.make(port, root, network.mtu, network.isolation).await?
            }
        };
        let flags = PortFlags { locked: network.locks, isolated: network.isolation };
        let (name, mtu) = (port_name(port), network.mtu);
        let link = self.links.attach_port(&name, bridge, mtu, note, has_ipv6, flags).await?;
        Ok(Tap { link, bridge })
    }

    /// Has the rules of its network hold a port, which may use no address yet.
    fn announce(&self, link: &Link, lan: Lan) -> io::Result<()> {
        let mut firewall = self.firewall.borrow_mut();
        let failed = |error: FirewallError| io::Error::other(chain(&error));
        if self.network(lan).is_some_and(|network| network.locks) && link.locked.is_none() {
            firewall.do_without_bridge_locks().map_err(failed)?.iter().for_each(Note::tell);
        }
        firewall.bind(link.index, lan.network, &[]).map_err(failed)
    }

    /// Index of the bridge that a port belongs on; 0 if it does not stand.
    fn bridge_of(&self, port: PortId, lan: Lan) -> u32 {
        let bridge = self.bridges.index(lan);
        if self.bridges.has_rooms(lan.network) {
            bridge
        } else {
            self.leaves.bridge_of(port, bridge)
        }
    }

    fn network(&self, lan: Lan) -> Option<&Options> {
        self.networks.get(usize::from(lan.network))
    }

    /// The first port wakes the bridge, which drops the host's own packets for a moment more.
    async fn wait_for_bridge(&self, lan: Lan) -> io::Result<()> {
        let name = self.bridges.name(lan);
        for _ in 0..WAKE_TRIES {
            if self.links.find(&name).await?.is_none_or(|bridge| bridge.running) {
                break;
            }
            tokio::time::sleep(WAKE_PAUSE).await;
        }
        Ok(())
    }

    /// Lets these addresses of a port pass, and no others of it; false if the kernel does not, which ends
    /// its session: what is held to be bound would not pass.
    pub async fn bind(&self, port: PortId, change: &Change) -> bool {
        let bound = self.try_bind(port, change).await;
        if let Err(error) = &bound {
            tracing::error!(%error, port = port_name(port), "cannot bind a guest's addresses");
            let index = self.taps.borrow().get(&port).map(|tap| tap.link.index);
            index.map(|index| self.revoke(port, index));
        }
        bound.is_ok()
    }

    async fn try_bind(&self, port: PortId, change: &Change) -> io::Result<()> {
        let network = network_of(port);
        let index = |port| self.taps.borrow().get(&port).map(|tap| tap.link.index);
        let own = index(port).ok_or(io::ErrorKind::NotFound)?;
        // The rules last: a helper that starts anew takes what they have for bound. What goes goes first:
        // at no moment has a port more than it may.
        if let Some(gone) = change.gone {
            self.links.remove_mac(own, gone).await?;
        }
        if let Some(new) = change.new {
            self.links.add_mac(own, new).await?;
        }
        // Either may have gone meanwhile, and its rules with it.
        index(port).filter(|index| *index == own).ok_or(io::ErrorKind::NotFound)?;
        let loser = change.loser.as_ref().and_then(|(loser, left)| Some((index(*loser)?, left)));
        for (index, pairs) in loser.into_iter().chain([(own, &change.pairs)]) {
            let bound = self.firewall.borrow_mut().bind(index, network, pairs);
            bound.map_err(|error| io::Error::other(chain(&error)))?;
        }
        Ok(())
    }

    /// Has a port's TAP deleted, and says so to whom it concerns.
    pub fn delete(&self, port: PortId, answer: Option<(ConnectionId, RequestId)>) {
        if self.closer.send(Deletion { port, answer }).is_err() {
            tracing::error!(port = port_name(port), "no thread deletes TAPs");
        }
    }

    /// These TAPs are gone.
    pub fn deleted(&self, gone: &mut Vec<Deletion>) {
        let taps = gone.iter().filter_map(|gone| self.taps.borrow_mut().remove(&gone.port));
        let links: Vec<u32> = taps.map(|tap| tap.link.index).collect();
        if let Err(error) = self.firewall.borrow_mut().unbind(&links) {
            tracing::warn!("{}", chain(&error));
        }
        for Deletion { port, answer } in gone.drain(..) {
            let mut state = self.state.borrow_mut();
            state.release(port);
            state.ports.freed(port);
            let Some((id, req)) = answer else { continue };
            state.answered(id);
            drop(state);
            self.tell(id, &Reply::Done { req });
        }
    }

    /// An interface is gone, whoever did it. True if bridges were made again.
    pub async fn gone(&self, link: &Link) -> bool {
        self.state.borrow_mut().bridge_is(link.network(), false);
        self.vanished(link);
        (self.bridges.has(link) || self.leaves.has(link)) && self.look_again().await
    }

    /// Makes the bridges again that are missing, with the ports that are open. True if any was.
    pub async fn repair(&self) -> bool {
        let mut made = false;
        for lan in self.bridges.missing() {
            match self.bridges.make(lan, None).await {
                Ok(_) => {
                    tracing::info!("the bridge {} is back", self.bridges.name(lan));
                    made = true;
                }
                Err(error) => {
                    if !self.is_broken.replace(true) {
                        tracing::error!(%error, "guests have no network, trying again");
                    }
                }
            }
        }
        self.is_broken.set(!self.bridges.missing().is_empty());
        if made {
            self.reattach().await;
        }
        made
    }

    /// Finds out what has happened where the kernel could not tell. True if bridges were made again.
    pub async fn look_again(&self) -> bool {
        // What is made while the kernel lists them need not be in the list.
        let bridges = [self.bridges.indices(), self.leaves.indices()].concat();
        let taps: Vec<Link> = self.taps.borrow().values().map(|tap| tap.link.clone()).collect();
        let failed = |error: &io::Error| tracing::error!(%error, "cannot look at the interfaces");
        let Ok(links) = self.links.all().await.inspect_err(failed) else { return false };
        let listed = |index| links.iter().any(|link: &Link| link.index == index);
        let is_there = |index| !bridges.contains(&index) || listed(index);
        let lost = self.bridges.retain(is_there);
        for lan in &lost {
            let name = self.bridges.name(*lan);
            tracing::error!("somebody deleted the bridge {name}, making it again");
            self.leaves.forget(lan.network);
        }
        let made = !lost.is_empty() && self.repair().await;
        if self.leaves.retain(is_there) {
            tracing::error!("somebody deleted a leaf bridge, making it again");
            self.reattach().await;
        }
        let is_gone = |tap: &&Link| !listed(tap.index);
        taps.iter().filter(is_gone).for_each(|tap| self.vanished(tap));
        links.iter().for_each(|link| self.changed(link));
        made
    }

    /// Puts open ports whose bridge is another now on that one. Those that are being opened see it
    /// themselves.
    async fn reattach(&self) {
        let open = self.state.borrow().ports.open_ports();
        for (port, id, generation) in open {
            let lan = self.state.borrow().ports.lan_of(port);
            let now = self.bridge_of(port, lan);
            let is_there = |tap: &Tap| now != 0 && tap.bridge == now;
            if self.taps.borrow().get(&port).is_none_or(is_there) {
                continue;
            }
            let attached =
                self.attach(port, lan, &notes::port(id, generation, lan.room), true).await;
            let attached = match attached {
                Ok(tap) => self.lock_again(port, tap).await,
                Err(error) => Err(error),
            };
            if let Err(error) = attached {
                tracing::warn!(%error, port = port_name(port), "cannot attach the port again");
            }
        }
    }

    /// A port has left its bridge and has come to another, which does not know its guest's addresses.
    async fn lock_again(&self, port: PortId, tap: Tap) -> io::Result<()> {
        let index = tap.link.index;
        self.taps.borrow_mut().insert(port, tap);
        let pairs = self.state.borrow().bound(port).to_vec();
        for (mac, _) in pairs.into_iter().filter(|(_, address)| address.is_none()) {
            self.links.add_mac(index, mac).await?;
        }
        Ok(())
    }

    /// Removes what no port needs: leaf bridges, and rooms whose last guest has gone.
    pub async fn remove_unused(&self) {
        self.leaves.remove_unused(|port| self.state.borrow().ports.is_used(port)).await;
        let empty = self.state.borrow_mut().ports.take_empty_rooms();
        for lan in empty {
            if let Err(error) = self.bridges.remove(lan).await {
                tracing::warn!(%error, bridge = self.bridges.name(lan), "cannot remove a room");
            }
            self.state.borrow_mut().ports.room_removed(lan);
        }
    }

    fn vanished(&self, link: &Link) {
        let Some(port) = port_of(&link.name) else { return };
        if self.revoke(port, link.index) {
            tracing::warn!(port = link.name, "somebody deleted a TAP, its session ends");
        }
    }

    /// Has the front-end end the session of an open port; false if it is not open.
    fn revoke(&self, port: PortId, index: u32) -> bool {
        let revoked = self.state.borrow_mut().ports.vanished(port, index);
        let Some((id, generation)) = revoked else { return false };
        self.tell(id, &Reply::Revoked { port, generation, reason: RevokeReason::Deleted });
        true
    }

    /// Hangs up on a front-end that changes a TAP of its own, which the real one cannot.
    pub fn changed(&self, link: &Link) {
        self.state.borrow_mut().bridge_is(link.network(), link.up && link.group == BRIDGE_GROUP);
        // Our mark is set when all that is compared stands: earlier messages show a TAP being made.
        let Some(port) = port_of(&link.name).filter(|_| link.group == PORT_GROUP) else { return };
        let changed =
            self.taps.borrow().get(&port).and_then(|tap| tripwire::changed(&tap.link, link));
        let holder = self.state.borrow().ports.holder(port);
        let (Some(changed), Some(holder)) = (changed, holder) else { return };
        let port = &link.name;
        tracing::error!(port, changed, "a front-end has tampered with its TAP, hanging up on it");
        if let Some(socket) = self.sockets.borrow().get(&holder) {
            socket.shut_down();
        }
    }

    pub fn drain(&self) {
        self.state.borrow_mut().stop();
        let ids: Vec<ConnectionId> = self.sockets.borrow().keys().copied().collect();
        for id in ids {
            self.tell(id, &Reply::Drain);
        }
    }

    /// Sends outside of the connection's own task. A peer that does not read is dropped by that
    /// task's next receive: shutting the socket down ends it.
    fn tell(&self, id: ConnectionId, reply: &Reply) {
        let socket = self.sockets.borrow().get(&id).map(Rc::clone);
        if let Some(socket) = socket
            && let Err(error) = send(&socket, reply)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::error!(%error, "a front-end does not take its replies");
            socket.shut_down();
        }
    }
}
