//! The helper's protocol: what each request means in each phase of a connection.
//!
//! One exhaustive match, no system call. What the kernel has to do is returned as an [`Action`];
//! misuse is always answered by hanging up, and hanging up deletes all ports of the connection.
//!
//! All of it, the first line that fits:
//!
//! | phase | request | if | then |
//! |---|---|---|---|
//! | silent (2 s at most), resumed | Hello | no version in common | hang up |
//! | | Hello | | Welcome; greeted from now on |
//! | silent | any other | | hang up |
//! | resumed | any other | | ignored: it was for the helper that died |
//! | greeted | Hello | | hang up |
//! | | any | 64 are in flight | hang up |
//! | | Open, OpenRoom | the helper is stopping | Err, Stopping |
//! | | Open | no such network, or it has rooms | Err, NoSuchNetwork |
//! | | OpenRoom | no such network, or it has no rooms | Err, NoSuchNetwork |
//! | | OpenRoom | it is a new room, and all are in use | Err, NoRoomFree |
//! | | Open, OpenRoom | the rate is used up | Err, TooFast |
//! | | Open, OpenRoom | `max_ports` are held, no slot is free, or the room is full | Err, NoPortFree |
//! | | Open, OpenRoom | | make the TAP; in flight |
//! | | Close | its port, open or revoked, of this generation | delete the TAP; in flight |
//! | | Close | any other port, once resumed, a bounded number of times | Done: the dead helper had done it |
//! | | Close | any other port | hang up |
//! | | Bind | any other port than its own, open or revoked, of this generation | hang up |
//! | | Bind | the network has no locks, or the port has the addresses already | Done |
//! | | Bind | no guest may have the addresses | Err, NotAllowed |
//! | | Bind | another port of the LAN has one of them, and it is not an IPv4 address of this peer's that it has given anew | Err, Taken |
//! | | Bind | the port changes its addresses too often | Err, TooFast |
//! | | Bind | | let them pass; in flight |
//! | | Stats | | Stats |
//! | | Ping | | Pong |

use crate::bindings::{Bindings, Change, Pair, Rules};
use crate::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use crate::ports::{Lan, Limits, Ports};
use crate::rooms::RoomKey;
use crate::settings::{DhcpService, Network};
use crate::slots::{ConnectionId, NotYours};
use crate::{ErrorCode, Generation, MacAddr, PortId, Reply, Request, RequestId};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// What the kernel, or the peer, is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answer at once.
    Reply(Reply),
    /// Make the TAP, then send `Opened` or `Err` and call [`State::answered`].
    Open {
        /// The request to answer.
        req: RequestId,
        /// The slot that was taken for it.
        port: PortId,
        /// Its generation.
        generation: Generation,
    },
    /// Delete the TAP, then send `Done` and call [`State::answered`].
    Close {
        /// The request to answer.
        req: RequestId,
        /// The slot, now closing.
        port: PortId,
    },
    /// Let these addresses of a port pass, and no others of it, then send `Done` and call
    /// [`State::answered`].
    Bind {
        /// The request to answer.
        req: RequestId,
        /// The port.
        port: PortId,
        /// What it has from now on.
        change: Change,
    },
    /// End the connection.
    HangUp(Misuse),
    /// Do nothing.
    Ignore,
}

/// What a peer did that no correct front-end does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A request before Hello.
    #[error("it did not say hello first")]
    NoHello,
    /// A second Hello.
    #[error("it said hello twice")]
    HelloTwice,
    /// Wrong magic, or no common version.
    #[error("it does not speak version {VERSION} of the protocol")]
    Version,
    /// A port that is not its own, or an old generation of one.
    #[error("it named a port that it does not hold")]
    NotItsPort,
    /// More than 64 requests wait for their answer.
    #[error("it has more than {MAX_IN_FLIGHT} requests in flight")]
    TooManyInFlight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Silent,
    Resumed,
    Greeted,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    phase: Phase,
    in_flight: usize,
    /// Closes and binds that may name a port which is gone since the helper that died.
    forgiven: usize,
}

/// Everything that the helper knows of its peers.
pub struct State {
    /// The ports.
    pub ports: Ports,
    bindings: Bindings,
    networks: Vec<(Network, MacAddr)>,
    /// Networks whose bridge is missing or down.
    broken: BTreeSet<u16>,
    welcome: Reply,
    connections: HashMap<ConnectionId, Connection>,
    stopping: bool,
    /// Whether somebody listens at this address.
    is_served: Box<dyn Fn(SocketAddrV4) -> bool>,
}

impl State {
    /// No connections. The networks are in the order of their numbers, each with the MAC address of its
    /// bridges; `base` is below all generations.
    pub fn new(networks: Vec<(Network, MacAddr)>, base: Generation, now: Instant) -> State {
        let limits = networks.iter().map(|(network, _)| Limits {
            ports: network.max_clients,
            rooms: network.rooms.map(|rooms| rooms.max),
        });
        let ports = Ports::new(limits, base, now);
        let default = networks.first();
        let welcome = Reply::Welcome {
            proto: VERSION,
            max_ports: ports.max_ports(),
            mtu: default.map_or(0, |(network, _)| network.mtu),
            gateway: default.map_or([0; 4], |(network, _)| network.plan.gateway().octets()),
            gateway_mac: default.map_or(MacAddr::ZERO, |(_, mac)| *mac),
        };
        State {
            ports,
            bindings: Bindings::default(),
            networks,
            broken: BTreeSet::new(),
            welcome,
            connections: HashMap::new(),
            stopping: false,
            is_served: Box::new(|_| true),
        }
    }

    /// With a way to find out whether somebody listens for TCP at an address.
    #[must_use]
    pub fn with_services(mut self, is_served: impl Fn(SocketAddrV4) -> bool + 'static) -> State {
        self.is_served = Box::new(is_served);
        self
    }

    /// Networks whose dnsmasq does not serve.
    fn silent(&self) -> u32 {
        let options = self.networks.iter().map(|(options, _)| options);
        let by_dnsmasq = options.filter(|options| options.dhcp.service == DhcpService::Dnsmasq);
        let questions = |options: &Network| SocketAddrV4::new(options.plan.gateway(), 53);
        by_dnsmasq.filter(|options| !(self.is_served)(questions(options))).count() as u32
    }

    /// A peer has connected and has not spoken.
    pub fn connected(&mut self, id: ConnectionId) {
        let connection = Connection { phase: Phase::Silent, in_flight: 0, forgiven: 0 };
        self.connections.insert(id, connection);
    }

    /// A peer of the helper that died is still there.
    pub fn resumed(&mut self, id: ConnectionId) {
        // A bind and a close for every port that it may have had, and for each that may have been asked
        // twice.
        let forgiven = 2 * (self.ports.max_ports() as usize + MAX_IN_FLIGHT);
        let connection = Connection { phase: Phase::Resumed, in_flight: 0, forgiven };
        self.connections.insert(id, connection);
    }

    /// True while a new peer has not said hello.
    pub fn is_silent(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.phase == Phase::Silent)
    }

    /// The connection is gone; these ports are to be deleted.
    pub fn disconnected(&mut self, id: ConnectionId) -> Vec<PortId> {
        self.connections.remove(&id);
        self.ports.abandon(id)
    }

    /// An Open or Close has been answered.
    pub fn answered(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.in_flight = connection.in_flight.saturating_sub(1);
        }
    }

    /// The bridge of a network, if it is one's, is there and up, or not.
    pub fn bridge_is(&mut self, network: Option<u16>, up: bool) {
        let Some(network) = network.filter(|number| usize::from(*number) < self.networks.len())
        else {
            return;
        };
        match up {
            true => drop(self.broken.remove(&network)),
            false => drop(self.broken.insert(network)),
        }
    }

    /// From now on no port is opened.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// What to do about `request`.
    pub fn dispatch(&mut self, id: ConnectionId, request: Request, now: Instant) -> Action {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Action::HangUp(Misuse::NoHello);
        };
        match request {
            Request::Hello { .. } if connection.phase == Phase::Greeted => {
                Action::HangUp(Misuse::HelloTwice)
            }
            Request::Hello { magic, min, max } => {
                if magic != MAGIC || !(min..=max).contains(&VERSION) {
                    return Action::HangUp(Misuse::Version);
                }
                connection.phase = Phase::Greeted;
                Action::Reply(self.welcome)
            }
            _ if connection.phase == Phase::Resumed => Action::Ignore,
            _ if connection.phase == Phase::Silent => Action::HangUp(Misuse::NoHello),
            _ if connection.in_flight >= MAX_IN_FLIGHT => Action::HangUp(Misuse::TooManyInFlight),
            Request::Open { req, .. } | Request::OpenRoom { req, .. } if self.stopping => {
                refuse(req, ErrorCode::Stopping)
            }
            Request::Open { req, network } => self.open(id, req, network, None, now),
            Request::OpenRoom { req, network, room } => {
                self.open(id, req, network, Some(room), now)
            }
            Request::Close { req, port, generation } => {
                match self.ports.close(id, port, generation) {
                    Ok(()) => {
                        connection.in_flight += 1;
                        Action::Close { req, port }
                    }
                    Err(NotYours) if connection.forgiven > 0 => {
                        connection.forgiven -= 1;
                        Action::Reply(Reply::Done { req })
                    }
                    Err(NotYours) => Action::HangUp(Misuse::NotItsPort),
                }
            }
            Request::Bind { req, port, generation, .. }
                if !self.ports.is_held(id, port, generation) =>
            {
                match connection.forgiven {
                    0 => Action::HangUp(Misuse::NotItsPort),
                    _ => {
                        connection.forgiven -= 1;
                        refuse(req, ErrorCode::NotAllowed)
                    }
                }
            }
            Request::Bind { req, port, mac, address, given, .. } => {
                self.bind(id, req, port, (mac, address.into()), given, now)
            }
            Request::Stats { req } => {
                let (ports, ports_in_all) = self.ports.count(id);
                let broken = self.broken.len() as u32;
                let silent = self.silent();
                Action::Reply(Reply::Stats { req, ports, ports_in_all, broken, silent })
            }
            Request::Ping { req } => Action::Reply(Reply::Pong { req }),
        }
    }
}

impl State {
    fn open(
        &mut self,
        id: ConnectionId,
        req: RequestId,
        network: u16,
        room: Option<RoomKey>,
        now: Instant,
    ) -> Action {
        match self.ports.open(network, room, id, now) {
            Ok((port, generation)) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.in_flight += 1;
                }
                Action::Open { req, port, generation }
            }
            Err(code) => refuse(req, code),
        }
    }

    fn bind(
        &mut self,
        id: ConnectionId,
        req: RequestId,
        port: PortId,
        (mac, address): (MacAddr, Ipv4Addr),
        given: bool,
        now: Instant,
    ) -> Action {
        let lan = self.ports.lan_of(port);
        let Some(rules) = self.rules(lan) else { return Action::Reply(Reply::Done { req }) };
        let pair = (mac, Some(address).filter(|address| !address.is_unspecified()));
        let ports = &self.ports;
        let may_take = |owner| given && ports.holder(owner) == Some(id);
        match self.bindings.bind(port, lan, rules, pair, may_take, now) {
            Ok(Some(change)) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.in_flight += 1;
                }
                Action::Bind { req, port, change }
            }
            Ok(None) => Action::Reply(Reply::Done { req }),
            Err(code) => refuse(req, code),
        }
    }

    /// What the ports of a LAN are held to; None: to nothing.
    fn rules(&self, lan: Lan) -> Option<Rules> {
        let (network, gateway_mac) = self.networks.get(usize::from(lan.network))?;
        let plan = network.plan_of(lan.room)?;
        let max_macs = network.max_macs as usize;
        network.locks.then_some(Rules { plan, gateway_mac: *gateway_mac, max_macs })
    }

    /// A port of an earlier run is bound to this.
    pub fn adopt_bound(&mut self, port: PortId, pairs: &[Pair], now: Instant) {
        let lan = self.ports.lan_of(port);
        let Some(rules) = self.rules(lan) else { return };
        for pair in pairs {
            // What does not fit any more is asked for again by its guest.
            let _ = self.bindings.bind(port, lan, rules, *pair, |_| false, now);
        }
    }

    /// What a port is bound to.
    pub fn bound(&self, port: PortId) -> &[Pair] {
        self.bindings.of(port)
    }

    /// A port's TAP is gone: its addresses are free.
    pub fn release(&mut self, port: PortId) {
        self.bindings.release(port);
    }
}

fn refuse(req: RequestId, code: ErrorCode) -> Action {
    Action::Reply(Reply::Err { req, code })
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
