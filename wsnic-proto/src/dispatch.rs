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
//! | | Open | the helper is stopping | Err, Stopping |
//! | | Open | no such network | Err, NoSuchNetwork |
//! | | Open | the rate is used up | Err, TooFast |
//! | | Open | `max_ports` are held, or no slot is free | Err, NoPortFree |
//! | | Open | | make the TAP; in flight |
//! | | Close | its port, open or revoked, of this generation | delete the TAP; in flight |
//! | | Close | any other port, once resumed, a bounded number of times | Done: the dead helper had done it |
//! | | Close | any other port | hang up |
//! | | BindMac | its port, open or revoked, of this generation | Err, Unsupported |
//! | | BindMac | any other port | hang up |
//! | | Stats | | Stats |
//! | | Ping | | Pong |

use crate::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use crate::slots::{ConnectionId, NotYours, Slots};
use crate::{ErrorCode, Generation, PortId, Reply, Request, RequestId};
use std::collections::HashMap;
use std::time::Instant;

/// What the kernel, or the peer, is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Closes that may name a port which is gone since the helper that died.
    forgiven: usize,
}

/// Everything that the helper knows of its peers.
#[derive(Debug)]
pub struct State {
    /// The ports.
    pub slots: Slots,
    welcome: Reply,
    connections: HashMap<ConnectionId, Connection>,
    stopping: bool,
}

impl State {
    /// No connections; `welcome` answers each Hello.
    pub fn new(slots: Slots, welcome: Reply) -> State {
        State { slots, welcome, connections: HashMap::new(), stopping: false }
    }

    /// A peer has connected and has not spoken.
    pub fn connected(&mut self, id: ConnectionId) {
        let connection = Connection { phase: Phase::Silent, in_flight: 0, forgiven: 0 };
        self.connections.insert(id, connection);
    }

    /// A peer of the helper that died is still there.
    pub fn resumed(&mut self, id: ConnectionId) {
        // Every port that it may have had, and one for each close that may have been asked twice.
        let forgiven = self.slots.max_ports() as usize + MAX_IN_FLIGHT;
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
        self.slots.abandon(id)
    }

    /// An Open or Close has been answered.
    pub fn answered(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.in_flight = connection.in_flight.saturating_sub(1);
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
            Request::Open { req, .. } if self.stopping => refuse(req, ErrorCode::Stopping),
            Request::Open { req, network: 1.. } => refuse(req, ErrorCode::NoSuchNetwork),
            Request::Open { req, network: 0 } => match self.slots.open(id, now) {
                Ok((port, generation)) => {
                    connection.in_flight += 1;
                    Action::Open { req, port, generation }
                }
                Err(code) => refuse(req, code),
            },
            Request::Close { req, port, generation } => {
                match self.slots.close(id, port, generation) {
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
            Request::BindMac { req, port, generation, .. } => {
                if self.slots.is_held(id, port, generation) {
                    refuse(req, ErrorCode::Unsupported)
                } else {
                    Action::HangUp(Misuse::NotItsPort)
                }
            }
            Request::Stats { req } => {
                let (ports, ports_in_all) = self.slots.count(id);
                Action::Reply(Reply::Stats { req, ports, ports_in_all })
            }
            Request::Ping { req } => Action::Reply(Reply::Pong { req }),
        }
    }
}

fn refuse(req: RequestId, code: ErrorCode) -> Action {
    Action::Reply(Reply::Err { req, code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MacAddr;

    const PEER: ConnectionId = ConnectionId(1);
    const OTHER: ConnectionId = ConnectionId(2);
    const HELLO: Request = Request::Hello { magic: MAGIC, min: 1, max: 3 };
    const OPEN: Request = Request::Open { req: 1, network: 0 };
    const WELCOME: Reply = Reply::Welcome {
        proto: VERSION,
        max_ports: 200,
        mtu: 1500,
        gateway: [10, 0, 0, 1],
        gateway_mac: MacAddr([2; 6]),
    };

    /// Two peers that have not spoken, and `max_ports` free slots.
    fn silent(max_ports: u32) -> State {
        let slots = Slots::new(max_ports, Generation(0), Instant::now());
        let mut state = State::new(slots, WELCOME);
        state.connected(PEER);
        state.connected(OTHER);
        state
    }

    fn greeted(max_ports: u32) -> State {
        let mut state = silent(max_ports);
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
        state.slots.opened(port, 9);
        state.answered(peer);
        (port, generation)
    }

    fn close((port, generation): (PortId, Generation)) -> Request {
        Request::Close { req: 2, port, generation }
    }

    fn bind((port, generation): (PortId, Generation)) -> Request {
        Request::BindMac { req: 2, port, generation, mac: MacAddr([2; 6]) }
    }

    fn stale((port, generation): (PortId, Generation)) -> (PortId, Generation) {
        (port, Generation(generation.0.wrapping_sub(1)))
    }

    /// One of each but Hello.
    fn requests() -> [Request; 5] {
        let port = (PortId(0), Generation(1));
        [OPEN, close(port), bind(port), Request::Stats { req: 1 }, Request::Ping { req: 1 }]
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
        assert_eq!(say(&mut state, HELLO), Action::Reply(WELCOME));
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
        assert!(state.slots.adopt(PEER, PortId(0), Generation(1), 9));
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
    }

    #[test]
    fn a_stopping_helper_serves_everything_else() {
        let mut state = greeted(1);
        let port = open(&mut state, PEER);
        state.stop();
        assert_eq!(say(&mut state, bind(port)), refuse(2, ErrorCode::Unsupported));
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
                Action::Open { port, .. } => state.slots.freed(port),
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
        assert!(state.slots.vanished(revoked.0, 9).is_some());
        assert_eq!(say(&mut state, close(port)), Action::Close { req: 2, port: port.0 });
        assert_eq!(say(&mut state, close(revoked)), Action::Close { req: 2, port: revoked.0 });
    }

    #[test]
    fn closes_that_the_dead_helper_had_done_are_forgiven_a_bounded_number_of_times() {
        let mut state = silent(200);
        state.resumed(PEER);
        say(&mut state, HELLO);
        let gone = close((PortId(3), Generation(7)));
        for _ in 0..200 + MAX_IN_FLIGHT {
            assert_eq!(say(&mut state, gone), Action::Reply(Reply::Done { req: 2 }));
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
    fn nothing_but_a_close_is_forgiven_after_a_restart() {
        let mut state = silent(2);
        state.resumed(PEER);
        say(&mut state, HELLO);
        let action = say(&mut state, bind((PortId(0), Generation(7))));
        assert_eq!(action, Action::HangUp(Misuse::NotItsPort));
    }

    #[test]
    fn binding_an_address_is_not_supported_yet() {
        let mut state = greeted(1);
        let port = open(&mut state, PEER);
        assert_eq!(say(&mut state, bind(port)), refuse(2, ErrorCode::Unsupported));
    }

    #[test]
    fn stats_count_the_peers_ports_and_all() {
        let mut state = greeted(3);
        open(&mut state, PEER);
        open(&mut state, OTHER);
        let stats = Reply::Stats { req: 5, ports: 1, ports_in_all: 2 };
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
