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
    let Action::Open { port, generation, .. } = state.dispatch(peer, OPEN, Instant::now()) else {
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
