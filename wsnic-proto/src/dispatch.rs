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
mod tests {
    use super::*;
    use crate::conf::Layer;
    use crate::{ConfFile, Facts, resolve};

    const PEER: ConnectionId = ConnectionId(1);
    const OTHER: ConnectionId = ConnectionId(2);
    const HELLO: Request = Request::Hello { magic: MAGIC, min: 1, max: 3 };
    const OPEN: Request = Request::Open { req: 1, network: 0 };
    const GATEWAY_MAC: MacAddr = MacAddr([2; 6]);

    /// Two peers that have not spoken, and `max_ports` free slots.
    fn silent(max_ports: u32) -> State {
        silent_with(&format!("max_clients={max_ports}"))
    }

    fn silent_with(conf: &str) -> State {
        let file = ConfFile::parse("", conf.as_bytes()).unwrap();
        let (settings, _) = resolve(&file, &Layer::new(), &Facts::default()).unwrap();
        let networks = settings.networks().map(|network| (network.clone(), GATEWAY_MAC)).collect();
        let mut state = State::new(networks, Generation(0), Instant::now());
        state.connected(PEER);
        state.connected(OTHER);
        state
    }

    fn greeted(max_ports: u32) -> State {
        greeted_with(&format!("max_clients={max_ports}"))
    }

    fn greeted_with(conf: &str) -> State {
        let mut state = silent_with(conf);
        for peer in [PEER, OTHER] {
            let action = state.dispatch(peer, HELLO, Instant::now());
            assert!(matches!(action, Action::Reply(Reply::Welcome { .. })));
        }
        state
    }

    fn say(state: &mut State, request: Request) -> Action {
        state.dispatch(PEER, request, Instant::now())
    }

    /// An open port of `peer`.
    fn open(state: &mut State, peer: ConnectionId) -> (PortId, Generation) {
        let Action::Open { port, generation, .. } = state.dispatch(peer, OPEN, Instant::now())
        else {
            panic!("a free slot opens");
        };
        state.ports.opened(port, 9);
        state.answered(peer);
        (port, generation)
    }

    fn close((port, generation): (PortId, Generation)) -> Request {
        Request::Close { req: 2, port, generation }
    }

    fn bind(port: (PortId, Generation)) -> Request {
        bind_to(port, 7, [0; 4])
    }

    fn bind_to((port, generation): (PortId, Generation), mac: u8, address: [u8; 4]) -> Request {
        let mac = MacAddr([2, 0, 0, 0, 0, mac]);
        Request::Bind { req: 2, port, generation, mac, address, given: false }
    }

    const DONE: Action = Action::Reply(Reply::Done { req: 2 });

    fn stale((port, generation): (PortId, Generation)) -> (PortId, Generation) {
        (port, Generation(generation.0.wrapping_sub(1)))
    }

    /// One of each but Hello.
    fn requests() -> [Request; 6] {
        let port = (PortId(0), Generation(1));
        let room = Request::OpenRoom { req: 1, network: 0, room: [0; 16] };
        [OPEN, room, close(port), bind(port), Request::Stats { req: 1 }, Request::Ping { req: 1 }]
    }

    #[test]
    fn a_peer_without_a_common_version_is_refused_in_every_phase_before_the_greeting() {
        for (magic, min, max) in [(MAGIC, 2, 9), (MAGIC, 0, 0), (MAGIC, 1, 0), (7, 1, 1)] {
            let mut state = silent(1);
            let hello = Request::Hello { magic, min, max };
            assert_eq!(say(&mut state, hello), Action::HangUp(Misuse::Version));
            state.resumed(PEER);
            assert_eq!(say(&mut state, hello), Action::HangUp(Misuse::Version));
        }
    }

    #[test]
    fn a_hello_is_answered_by_a_welcome() {
        let mut state = silent(200);
        assert!(state.is_silent(PEER));
        let welcome = Reply::Welcome {
            proto: VERSION,
            max_ports: 200,
            mtu: 1500,
            gateway: [192, 168, 86, 1],
            gateway_mac: GATEWAY_MAC,
        };
        assert_eq!(say(&mut state, HELLO), Action::Reply(welcome));
        assert!(!state.is_silent(PEER) && state.is_silent(OTHER));
    }

    #[test]
    fn every_request_before_hello_is_misuse() {
        for request in requests() {
            assert_eq!(say(&mut silent(1), request), Action::HangUp(Misuse::NoHello));
        }
    }

    #[test]
    fn after_a_restart_everything_before_a_new_hello_is_ignored() {
        let mut state = silent(1);
        state.resumed(PEER);
        assert!(state.ports.adopt(PEER, PortId(0), Generation(1), 9, 0));
        for request in requests() {
            assert_eq!(say(&mut state, request), Action::Ignore);
        }
        assert!(!state.is_silent(PEER), "its time is not limited");
        assert!(matches!(say(&mut state, HELLO), Action::Reply(Reply::Welcome { .. })));
        let adopted = (PortId(0), Generation(1));
        assert_eq!(say(&mut state, close(adopted)), Action::Close { req: 2, port: PortId(0) });
    }

    #[test]
    fn a_second_hello_is_misuse() {
        assert_eq!(say(&mut greeted(1), HELLO), Action::HangUp(Misuse::HelloTwice));
    }

    #[test]
    fn a_peer_that_is_not_there_is_not_served() {
        for request in requests().into_iter().chain([HELLO]) {
            let mut state = greeted(1);
            state.disconnected(PEER);
            assert_eq!(say(&mut state, request), Action::HangUp(Misuse::NoHello));
        }
    }

    #[test]
    fn the_65th_request_in_flight_is_misuse_whichever_it_is() {
        for request in requests() {
            let mut state = greeted(200);
            for _ in 0..MAX_IN_FLIGHT {
                assert!(matches!(say(&mut state, OPEN), Action::Open { .. }));
            }
            assert_eq!(say(&mut state, request), Action::HangUp(Misuse::TooManyInFlight));
            let other = state.dispatch(OTHER, OPEN, Instant::now());
            assert!(matches!(other, Action::Open { .. }), "each peer has its own count");
            state.answered(PEER);
            assert_ne!(say(&mut state, request), Action::HangUp(Misuse::TooManyInFlight));
        }
    }

    #[test]
    fn closes_are_in_flight_until_they_are_answered() {
        let mut state = greeted(200);
        let ports: Vec<_> = (0..=MAX_IN_FLIGHT).map(|_| open(&mut state, PEER)).collect();
        for port in &ports[..MAX_IN_FLIGHT] {
            assert!(matches!(say(&mut state, close(*port)), Action::Close { .. }));
        }
        let last = say(&mut state, close(ports[MAX_IN_FLIGHT]));
        assert_eq!(last, Action::HangUp(Misuse::TooManyInFlight));
    }

    #[test]
    fn a_stopping_helper_opens_nothing() {
        let mut state = greeted(1);
        state.stop();
        assert_eq!(say(&mut state, OPEN), refuse(1, ErrorCode::Stopping));
        let room = Request::OpenRoom { req: 1, network: 0, room: [0; 16] };
        assert_eq!(say(&mut state, room), refuse(1, ErrorCode::Stopping));
    }

    #[test]
    fn a_stopping_helper_serves_everything_else() {
        let mut state = greeted(1);
        let port = open(&mut state, PEER);
        state.stop();
        assert!(matches!(say(&mut state, bind(port)), Action::Bind { .. }));
        let ping = say(&mut state, Request::Ping { req: 3 });
        assert_eq!(ping, Action::Reply(Reply::Pong { req: 3 }));
        let stats = say(&mut state, Request::Stats { req: 3 });
        assert!(matches!(stats, Action::Reply(Reply::Stats { .. })));
        assert_eq!(say(&mut state, close(port)), Action::Close { req: 2, port: port.0 });
    }

    #[test]
    fn an_unknown_network_is_refused() {
        for network in [1, u16::MAX] {
            let action = say(&mut greeted(1), Request::Open { req: 1, network });
            assert_eq!(action, refuse(1, ErrorCode::NoSuchNetwork));
        }
    }

    #[test]
    fn opens_beyond_the_rate_are_refused() {
        let mut state = greeted(1);
        let now = Instant::now();
        let refused = loop {
            match state.dispatch(PEER, OPEN, now) {
                Action::Open { port, .. } => state.ports.freed(port),
                other => break other,
            }
            state.answered(PEER);
        };
        assert_eq!(refused, refuse(1, ErrorCode::TooFast));
    }

    #[test]
    fn without_a_free_slot_an_open_is_refused() {
        let mut state = greeted(1);
        open(&mut state, OTHER);
        assert_eq!(say(&mut state, OPEN), refuse(1, ErrorCode::NoPortFree));
    }

    #[test]
    fn an_open_takes_a_free_slot() {
        let (port, generation) = (PortId(0), Generation(1));
        assert_eq!(say(&mut greeted(1), OPEN), Action::Open { req: 1, port, generation });
    }

    #[test]
    fn a_peer_closes_its_own_port_also_when_it_was_revoked() {
        let mut state = greeted(2);
        let (port, revoked) = (open(&mut state, PEER), open(&mut state, PEER));
        assert!(state.ports.vanished(revoked.0, 9).is_some());
        assert_eq!(say(&mut state, close(port)), Action::Close { req: 2, port: port.0 });
        assert_eq!(say(&mut state, close(revoked)), Action::Close { req: 2, port: revoked.0 });
    }

    #[test]
    fn closes_and_binds_of_ports_that_are_gone_are_forgiven_a_bounded_number_of_times_after_a_restart()
     {
        let mut state = silent(200);
        state.resumed(PEER);
        say(&mut state, HELLO);
        let gone = close((PortId(3), Generation(7)));
        for _ in 0..200 + MAX_IN_FLIGHT {
            assert_eq!(say(&mut state, gone), Action::Reply(Reply::Done { req: 2 }));
            let late = say(&mut state, bind((PortId(3), Generation(7))));
            assert_eq!(late, refuse(2, ErrorCode::NotAllowed));
        }
        assert_eq!(say(&mut state, gone), Action::HangUp(Misuse::NotItsPort));
    }

    /// Ports that a peer has no business to name.
    fn not_its_ports() -> Vec<(State, (PortId, Generation))> {
        let with = |make: fn(&mut State) -> (PortId, Generation)| {
            let mut state = greeted(2);
            let named = make(&mut state);
            (state, named)
        };
        vec![
            with(|state| open(state, OTHER)),
            with(|state| stale(open(state, PEER))),
            with(|_| (PortId(0), Generation(0))),
            with(|_| (PortId(u32::MAX), Generation(0))),
            with(|state| {
                say(state, OPEN);
                (PortId(0), Generation(1))
            }),
            with(|state| {
                let port = open(state, PEER);
                say(state, close(port));
                port
            }),
        ]
    }

    #[test]
    fn closing_a_foreign_stale_free_impossible_opening_or_closing_port_is_misuse() {
        for (mut state, named) in not_its_ports() {
            let action = say(&mut state, close(named));
            assert_eq!(action, Action::HangUp(Misuse::NotItsPort), "{named:?}");
        }
    }

    #[test]
    fn binding_a_foreign_stale_free_impossible_opening_or_closing_port_is_misuse() {
        for (mut state, named) in not_its_ports() {
            let action = say(&mut state, bind(named));
            assert_eq!(action, Action::HangUp(Misuse::NotItsPort), "{named:?}");
        }
    }

    #[test]
    fn a_port_may_use_the_addresses_that_it_is_bound_to_until_it_is_released() {
        let mut state = greeted(2);
        let (own, other) = (open(&mut state, PEER), open(&mut state, OTHER));
        let Action::Bind { req: 2, port, change } = say(&mut state, bind(own)) else {
            panic!("it is bound");
        };
        assert_eq!((port, change.pairs.len(), change.gone), (own.0, 1, None));
        assert_eq!(say(&mut state, bind(own)), DONE, "it has it");
        let stolen = state.dispatch(OTHER, bind(other), Instant::now());
        assert_eq!(stolen, refuse(2, ErrorCode::Taken));
        state.release(own.0);
        let free = state.dispatch(OTHER, bind(other), Instant::now());
        assert!(matches!(free, Action::Bind { .. }));
    }

    #[test]
    fn no_port_is_bound_to_an_address_of_the_gateway_or_of_another_network() {
        let mut state = greeted_with("subnet=10.0.0.0/24");
        let port = open(&mut state, PEER);
        for address in [[10, 0, 0, 1], [10, 0, 0, 255], [192, 168, 86, 5]] {
            let action = say(&mut state, bind_to(port, 7, address));
            assert_eq!(action, refuse(2, ErrorCode::NotAllowed), "{address:?}");
        }
        let gateway = Request::Bind {
            req: 2,
            port: port.0,
            generation: port.1,
            mac: GATEWAY_MAC,
            address: [0; 4],
            given: true,
        };
        assert_eq!(say(&mut state, gateway), refuse(2, ErrorCode::NotAllowed));
    }

    #[test]
    fn an_address_that_is_given_anew_moves_between_ports_of_one_peer_only() {
        let mut state = greeted(3);
        let [own, next] = [open(&mut state, PEER), open(&mut state, PEER)];
        let foreign = open(&mut state, OTHER);
        let address = [192, 168, 86, 5];
        let given = |(port, generation), mac| Request::Bind {
            req: 2,
            port,
            generation,
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            address,
            given: true,
        };
        assert!(matches!(say(&mut state, given(own, 1)), Action::Bind { .. }));
        assert_eq!(say(&mut state, bind_to(next, 2, address)), refuse(2, ErrorCode::Taken));
        let Action::Bind { change, .. } = say(&mut state, given(next, 2)) else {
            panic!("it moves");
        };
        assert_eq!(change.loser.map(|(port, pairs)| (port, pairs.len())), Some((own.0, 1)));
        let stolen = state.dispatch(OTHER, given(foreign, 3), Instant::now());
        assert_eq!(stolen, refuse(2, ErrorCode::Taken));
    }

    #[test]
    fn where_there_are_no_locks_binding_does_nothing() {
        let mut state = greeted_with("locks=no");
        let port = open(&mut state, PEER);
        assert_eq!(say(&mut state, bind(port)), DONE);
    }

    #[test]
    fn a_port_changes_its_addresses_at_a_bounded_rate() {
        let mut state = greeted(1);
        let (port, now) = (open(&mut state, PEER), Instant::now());
        let refused = (0..=255).find_map(|mac| {
            let action = state.dispatch(PEER, bind_to(port, mac, [0; 4]), now);
            state.answered(PEER);
            (!matches!(action, Action::Bind { .. })).then_some(action)
        });
        assert_eq!(refused, Some(refuse(2, ErrorCode::TooFast)));
    }

    #[test]
    fn networks_and_their_rooms_have_ports_of_their_own() {
        let mut state = greeted_with(
            "max_clients=1\n[network lab]\nsubnet=10.1.0.0/24\nmax_clients=1\n\
             [network rooms]\nrooms=yes\nsubnet=10.2.0.0/16\nmax_rooms=1\n",
        );
        let open = |network| Request::Open { req: 1, network };
        let room = |network, key| Request::OpenRoom { req: 1, network, room: [key; 16] };
        for (request, number) in [(open(0), 0), (open(1), 100_000), (room(2, 7), 200_000)] {
            let Action::Open { port, .. } = say(&mut state, request) else { panic!("{request:?}") };
            assert_eq!(port, PortId(number));
        }
        let missing = refuse(1, ErrorCode::NoSuchNetwork);
        for request in [open(2), open(3), room(0, 1), room(1, 1), room(3, 1)] {
            assert_eq!(say(&mut state, request), missing, "{request:?}");
        }
        assert_eq!(say(&mut state, open(1)), refuse(1, ErrorCode::NoPortFree));
        assert_eq!(say(&mut state, room(2, 8)), refuse(1, ErrorCode::NoRoomFree));
        assert!(matches!(say(&mut state, room(2, 7)), Action::Open { .. }));
    }

    #[test]
    fn stats_count_the_peers_ports_and_all() {
        let mut state = greeted(3);
        open(&mut state, PEER);
        open(&mut state, OTHER);
        state.bridge_is(Some(0), false);
        state.bridge_is(Some(0), false);
        state.bridge_is(Some(4711), false);
        state.bridge_is(None, false);
        let stats = Reply::Stats { req: 5, ports: 1, ports_in_all: 2, broken: 1, silent: 0 };
        assert_eq!(say(&mut state, Request::Stats { req: 5 }), Action::Reply(stats));
        state.bridge_is(Some(0), true);
        let stats = Reply::Stats { req: 5, ports: 1, ports_in_all: 2, broken: 0, silent: 0 };
        assert_eq!(say(&mut state, Request::Stats { req: 5 }), Action::Reply(stats));
    }

    #[test]
    fn stats_count_networks_whose_dnsmasq_does_not_serve() {
        let text = "dhcp_service=dnsmasq\n[network quiet]\nsubnet=10.1.0.0/24\ndhcp_service=dnsmasq\n\
                    [network own]\nsubnet=10.2.0.0/24\n";
        let served = Ipv4Addr::new(192, 168, 86, 1);
        let mut state = greeted_with(text).with_services(move |address| *address.ip() == served);
        let stats = Reply::Stats { req: 5, ports: 0, ports_in_all: 0, broken: 0, silent: 1 };
        assert_eq!(say(&mut state, Request::Stats { req: 5 }), Action::Reply(stats));
    }

    #[test]
    fn a_ping_is_answered() {
        let pong = Action::Reply(Reply::Pong { req: 5 });
        assert_eq!(say(&mut greeted(1), Request::Ping { req: 5 }), pong);
    }

    #[test]
    fn a_peer_that_leaves_gives_back_its_ports_and_no_others() {
        let mut state = greeted(3);
        let (first, _) = open(&mut state, PEER);
        open(&mut state, OTHER);
        let (second, _) = open(&mut state, PEER);
        assert_eq!(state.disconnected(PEER), [first, second]);
    }
}
