//! The helper's protocol: what each request means in each phase of a connection.
//!
//! One exhaustive match, no system call. What the kernel has to do is returned as an [`Action`];
//! misuse is always answered by hanging up, and hanging up deletes all ports of the connection.
//!
//! | phase | Hello | Open, Close, BindMac, Stats, Ping |
//! |---|---|---|
//! | silent (at most 2 s) | versions agreed → greeted | hang up |
//! | resumed | versions agreed → greeted | ignored: they were for the helper that died |
//! | greeted | hang up | served, at most 64 in flight |

use crate::slots::{ConnectionId, NotYours, Slots};
use std::collections::HashMap;
use std::time::Instant;
use wsnic_proto::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use wsnic_proto::{ErrorCode, Generation, MacAddr, PortId, Reply, Request, RequestId};

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

/// What a network looks like to a front-end.
#[derive(Debug, Clone, Copy)]
pub struct Welcome {
    /// MTU in bytes.
    pub mtu: u16,
    /// The bridge's IPv4 address.
    pub gateway: [u8; 4],
    /// The bridge's MAC address.
    pub gateway_mac: MacAddr,
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
    welcome: Welcome,
    connections: HashMap<ConnectionId, Connection>,
    stopping: bool,
}

impl State {
    /// No connections; see [`Slots::new`].
    pub fn new(slots: Slots, welcome: Welcome) -> State {
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
                let Welcome { mtu, gateway, gateway_mac } = self.welcome;
                let max_ports = self.slots.max_ports();
                Action::Reply(Reply::Welcome {
                    proto: VERSION,
                    max_ports,
                    mtu,
                    gateway,
                    gateway_mac,
                })
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

    const PEER: ConnectionId = ConnectionId(1);
    const HELLO: Request = Request::Hello { magic: MAGIC, min: 1, max: 3 };

    fn state() -> State {
        let welcome = Welcome { mtu: 1500, gateway: [10, 0, 0, 1], gateway_mac: MacAddr([2; 6]) };
        let slots = Slots::new(200, Generation(0), Instant::now());
        let mut state = State::new(slots, welcome);
        state.connected(PEER);
        state
    }

    fn say(state: &mut State, request: Request) -> Action {
        state.dispatch(PEER, request, Instant::now())
    }

    #[test]
    fn open_port_before_hello_is_refused() {
        let action = say(&mut state(), Request::Open { req: 1, network: 0 });
        assert_eq!(action, Action::HangUp(Misuse::NoHello));
    }

    #[test]
    fn hello_is_said_once() {
        let mut state = state();
        assert!(matches!(say(&mut state, HELLO), Action::Reply(Reply::Welcome { proto: 1, .. })));
        assert_eq!(say(&mut state, HELLO), Action::HangUp(Misuse::HelloTwice));
    }

    #[test]
    fn a_peer_without_a_common_version_is_refused() {
        for (magic, min, max) in [(MAGIC, 2, 9), (MAGIC, 0, 0), (MAGIC, 1, 0), (7, 1, 1)] {
            let action = say(&mut state(), Request::Hello { magic, min, max });
            assert_eq!(action, Action::HangUp(Misuse::Version));
        }
    }

    #[test]
    fn a_stale_generation_ends_the_connection() {
        let mut state = state();
        say(&mut state, HELLO);
        let Action::Open { port, generation, .. } =
            say(&mut state, Request::Open { req: 1, network: 0 })
        else {
            panic!("a free slot opens");
        };
        state.slots.opened(port, 9);
        let stale = Generation(generation.0.wrapping_sub(1));
        let action = say(&mut state, Request::Close { req: 2, port, generation: stale });
        assert_eq!(action, Action::HangUp(Misuse::NotItsPort));
        let mac = MacAddr([2; 6]);
        let action = say(&mut state, Request::BindMac { req: 3, port, generation: stale, mac });
        assert_eq!(action, Action::HangUp(Misuse::NotItsPort));
        assert_eq!(state.disconnected(PEER), vec![port]);
    }

    #[test]
    fn the_65th_request_in_flight_ends_the_connection() {
        let mut state = state();
        say(&mut state, HELLO);
        for req in 0..64 {
            assert!(matches!(
                say(&mut state, Request::Open { req, network: 0 }),
                Action::Open { .. }
            ));
        }
        assert_eq!(
            say(&mut state, Request::Ping { req: 64 }),
            Action::HangUp(Misuse::TooManyInFlight)
        );
        state.answered(PEER);
        assert_eq!(
            say(&mut state, Request::Ping { req: 64 }),
            Action::Reply(Reply::Pong { req: 64 })
        );
    }

    #[test]
    fn after_a_restart_everything_before_a_new_hello_is_ignored() {
        let mut state = state();
        state.resumed(PEER);
        assert!(state.slots.adopt(PEER, PortId(3), Generation(7), 9));
        let close = Request::Close { req: 1, port: PortId(3), generation: Generation(7) };
        assert_eq!(say(&mut state, close), Action::Ignore, "it was for the helper that died");
        assert!(matches!(say(&mut state, HELLO), Action::Reply(Reply::Welcome { .. })));
        assert_eq!(say(&mut state, close), Action::Close { req: 1, port: PortId(3) });
        assert_eq!(say(&mut state, HELLO), Action::HangUp(Misuse::HelloTwice));
    }

    #[test]
    fn closes_that_the_dead_helper_had_done_are_forgiven_a_bounded_number_of_times() {
        let mut state = state();
        state.resumed(PEER);
        say(&mut state, HELLO);
        let close = Request::Close { req: 1, port: PortId(3), generation: Generation(7) };
        for _ in 0..200 + MAX_IN_FLIGHT {
            assert_eq!(say(&mut state, close), Action::Reply(Reply::Done { req: 1 }));
        }
        assert_eq!(say(&mut state, close), Action::HangUp(Misuse::NotItsPort));
    }

    #[test]
    fn an_unknown_network_and_a_stopping_helper_open_nothing() {
        let mut state = state();
        say(&mut state, HELLO);
        let action = say(&mut state, Request::Open { req: 1, network: 1 });
        assert_eq!(action, refuse(1, ErrorCode::NoSuchNetwork));
        state.stop();
        let action = say(&mut state, Request::Open { req: 2, network: 0 });
        assert_eq!(action, refuse(2, ErrorCode::Stopping));
    }
}
