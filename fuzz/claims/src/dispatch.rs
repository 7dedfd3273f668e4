//! The helper's dispatch and slots as sequences of messages of several peers, against the model in
//! `ports`. This file plays the rest of the helper: it makes TAPs, deletes them and moves the time.

use crate::ports::{NANOS_PER_TICK, Peer, Phase, Ports, Verdict};
use crate::tape::Tape;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wsnic_proto::dispatch::{Action, State};
use wsnic_proto::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use wsnic_proto::settings::Network;
use wsnic_proto::slots::ConnectionId;
use wsnic_proto::{
    ConfFile, ErrorCode, Facts, Generation, MacAddr, PortId, Reply, Request, RequestId, codec,
    conf, resolve,
};

/// Whatever peers send, in whatever order TAPs come and go: each request gets what the model says;
/// no slot is held by two, in no generation twice; hanging up gives every port back; the counts of
/// ports are right.
///
/// Input: what a restarted helper found, then steps.
pub fn dispatch(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let mut helper = Helper::start(&mut tape);
    while let Some(step) = tape.next() {
        helper.step(step, &mut tape);
        helper.check();
    }
    helper.end();
}

/// A network without locks, whose bindings the model does not know.
fn network(max: u32) -> Network {
    let text = format!("locks=no\nmax_clients={max}\n");
    let file = ConfFile::parse("", text.as_bytes()).expect("a file");
    resolve(&file, &conf::Layer::new(), &Facts::default()).expect("settings").0.network
}

struct Helper {
    state: State,
    model: Ports,
    start: Instant,
    ticks: u64,
    /// Peers so far.
    peers: u64,
    links: u32,
    /// TAPs that are being made: for whom, and where.
    making: Vec<(u64, u32)>,
    /// TAPs that are being deleted, and who is to be told.
    deleting: Vec<(u32, Option<u64>)>,
}

impl Helper {
    fn start(tape: &mut Tape<'_>) -> Helper {
        let max = tape.pick(&[1, 2, 3, 8, 80]);
        let base = tape.pick(&[0, 7, 1_000_000, u32::MAX - 3]);
        let start = Instant::now();
        let mut helper = Helper {
            state: State::new(
                vec![(network(max), MacAddr([2, 0, 0, 0, 0, 1]))],
                Generation(base),
                start,
            ),
            model: Ports::new(max),
            start,
            ticks: 0,
            peers: u64::from(tape.byte() % 3),
            links: 0,
            making: Vec::new(),
            deleting: Vec::new(),
        };
        for _ in 0..tape.byte() % 8 {
            helper.find_port(tape.byte(), tape.byte(), base);
        }
        for id in 1..=helper.peers {
            helper.state.resumed(ConnectionId(id));
            let forgiven = 2 * (max as usize + MAX_IN_FLIGHT);
            helper.model.peers.insert(id, Peer { resumed: true, forgiven, ..Peer::default() });
        }
        helper
    }

    /// A TAP of a helper that died: of a peer that is still there, or of nobody.
    fn find_port(&mut self, place: u8, whose: u8, base: u32) {
        let port = u32::from(place) % (2 * self.model.max + 1);
        let fits = port < 2 * self.model.max && !self.model.used.contains_key(&port);
        let id = u64::from(whose) % (self.peers + 1);
        self.links += 1;
        let generation = base.wrapping_sub(u32::from(whose));
        if id == 0 {
            self.state.ports.condemn(PortId(port));
            if fits {
                self.model.put(port, Phase::Closing, 0, 0);
                self.deleting.push((port, None));
            }
            return;
        }
        let adopted = self.state.ports.adopt(
            ConnectionId(id),
            PortId(port),
            Generation(generation),
            self.links,
            0,
        );
        assert_eq!(adopted, fits);
        if adopted {
            self.model.adopt(id, port, generation, self.links);
        }
    }

    fn step(&mut self, step: u8, tape: &mut Tape<'_>) {
        match step % 16 {
            0 => self.connect(),
            1..=7 => {
                let id = self.some_peer(tape);
                let request = self.request(step % 16, id, tape);
                if let Some(request) = request {
                    self.say(id, request);
                }
            }
            8 => self.made(tape.byte(), true),
            9 => self.made(tape.byte(), false),
            10 => self.deleted(tape.byte()),
            11 => self.hang_up(self.some_peer(tape)),
            12 => self.vanish(tape.byte(), tape.byte()),
            13 => self.wait(u64::from(tape.byte())),
            14 => self.churn(tape),
            _ if tape.byte() > 250 => {
                self.state.stop();
                self.model.stopping = true;
            }
            _ => self.wait(1 << (tape.byte() % 20)),
        }
    }

    fn connect(&mut self) {
        if self.model.peers.len() < 8 {
            self.peers += 1;
            self.state.connected(ConnectionId(self.peers));
            self.model.peers.insert(self.peers, Peer::default());
        }
    }

    /// One that is there, or rarely one that is not.
    fn some_peer(&self, tape: &mut Tape<'_>) -> u64 {
        let pick = usize::from(tape.byte());
        let ids: Vec<u64> = self.model.peers.keys().copied().collect();
        if pick == 255 || ids.is_empty() { self.peers + 1 } else { ids[pick % ids.len()] }
    }

    fn request(&self, kind: u8, id: u64, tape: &mut Tape<'_>) -> Option<Request> {
        let req = u32::from(tape.byte());
        Some(match kind {
            1 => Request::Hello { magic: MAGIC, min: VERSION, max: VERSION + 1 },
            2 => Request::Open { req, network: 0 },
            3 => {
                let (port, generation) = self.some_port(id, tape);
                Request::Close { req, port, generation }
            }
            4 => {
                let (port, generation) = self.some_port(id, tape);
                Request::Bind {
                    req,
                    port,
                    generation,
                    mac: MacAddr([2; 6]),
                    address: [0; 4],
                    given: false,
                }
            }
            5 => Request::Stats { req },
            6 => Request::Ping { req },
            // Any packet; what is none ends the connection before it comes here.
            _ => return codec::decode_request(tape.take(27)).ok(),
        })
    }

    /// A port of the peer, of any peer, of an earlier generation, or none.
    fn some_port(&self, id: u64, tape: &mut Tape<'_>) -> (PortId, Generation) {
        let (pick, off) = (usize::from(tape.byte()), u32::from(tape.byte()));
        let held = |phase| [Phase::Open(id), Phase::Revoked(id)].contains(&phase);
        let own: Vec<_> = self.model.used.iter().filter(|(_, port)| held(port.phase)).collect();
        let any: Vec<_> = self.model.used.iter().collect();
        let ports = if pick < 200 { own } else { any };
        let off = if off < 240 { 0 } else { 240_u32.wrapping_sub(off) };
        match ports.get(pick % ports.len().max(1)) {
            Some((port, held)) => (PortId(**port), Generation(held.generation.wrapping_add(off))),
            None => (PortId(pick as u32), Generation(off)),
        }
    }

    fn say(&mut self, id: u64, request: Request) {
        let expected = self.model.judge(id, &request);
        let now = self.start + Duration::from_nanos(NANOS_PER_TICK * self.ticks);
        let action = self.state.dispatch(ConnectionId(id), request, now);
        let req = id_of(&request);
        match (expected, action.clone()) {
            (Verdict::Open(port), Action::Open { port: PortId(taken), generation, .. }) => {
                assert_eq!(taken, port, "another slot was taken");
                assert_eq!(action, Action::Open { req, port: PortId(port), generation });
                self.model.open(id, port, generation.0);
                self.making.push((id, port));
                self.peer(id, |peer| peer.in_flight += 1);
            }
            (Verdict::Close(port), action) => {
                assert_eq!(action, Action::Close { req, port: PortId(port) });
                if let Some(port) = self.model.used.get_mut(&port) {
                    port.phase = Phase::Closing;
                }
                self.deleting.push((port, Some(id)));
                self.peer(id, |peer| peer.in_flight += 1);
            }
            (Verdict::HangUp(misuse), action) => {
                assert_eq!(action, Action::HangUp(misuse));
                self.hang_up(id);
            }
            (Verdict::Ignore, action) => assert_eq!(action, Action::Ignore),
            (expected, action) => {
                assert_eq!(action, Action::Reply(self.reply(&expected, req)));
                match expected {
                    Verdict::Welcome => self.peer(id, |peer| peer.greeted = true),
                    Verdict::Done | Verdict::Gone => self.peer(id, |peer| peer.forgiven -= 1),
                    _ => {}
                }
            }
        }
    }

    fn reply(&self, verdict: &Verdict, req: RequestId) -> Reply {
        match *verdict {
            Verdict::Welcome => Reply::Welcome {
                proto: VERSION,
                max_ports: self.model.max,
                mtu: 1500,
                gateway: [192, 168, 86, 1],
                gateway_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            },
            Verdict::Refuse(code) => Reply::Err { req, code },
            Verdict::Gone => Reply::Err { req, code: ErrorCode::NotAllowed },
            Verdict::Done | Verdict::Bound => Reply::Done { req },
            Verdict::Stats(ports, ports_in_all) => {
                Reply::Stats { req, ports, ports_in_all, broken: 0, silent: 0 }
            }
            Verdict::Pong => Reply::Pong { req },
            _ => Reply::Err { req, code: ErrorCode::Kernel },
        }
    }

    fn peer(&mut self, id: u64, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.model.peers.get_mut(&id) {
            change(peer);
        }
    }

    /// A TAP was made, or could not be.
    fn made(&mut self, pick: u8, well: bool) {
        if self.making.is_empty() {
            return;
        }
        let (id, port) = self.making.remove(usize::from(pick) % self.making.len());
        self.state.answered(ConnectionId(id));
        self.peer(id, |peer| peer.in_flight -= 1);
        if !well {
            self.state.ports.shelve(PortId(port));
            return self.model.free(port, true);
        }
        self.links += 1;
        let wanted = self.state.ports.opened(PortId(port), self.links);
        let held = self.model.used.get_mut(&port).expect("it is being made");
        assert_eq!(wanted, held.phase == Phase::Opening(id));
        if wanted {
            (held.phase, held.link) = (Phase::Open(id), self.links);
        } else {
            self.deleting.push((port, None));
        }
    }

    fn deleted(&mut self, pick: u8) {
        if self.deleting.is_empty() {
            return;
        }
        let (port, told) = self.deleting.remove(usize::from(pick) % self.deleting.len());
        self.state.ports.freed(PortId(port));
        self.model.free(port, false);
        if let Some(id) = told {
            self.state.answered(ConnectionId(id));
            self.peer(id, |peer| peer.in_flight -= 1);
        }
    }

    fn hang_up(&mut self, id: u64) {
        let orphans = self.state.disconnected(ConnectionId(id));
        assert!(orphans.iter().is_sorted_by(|one, other| one < other), "a port twice");
        let orphans: BTreeSet<u32> = orphans.into_iter().map(|port| port.0).collect();
        assert_eq!(orphans, self.model.hang_up(id));
        self.deleting.extend(orphans.into_iter().map(|port| (port, None)));
    }

    /// Somebody deleted an interface; maybe one that the slot had before.
    fn vanish(&mut self, place: u8, link: u8) {
        let port = u32::from(place) % (2 * self.model.max + 1);
        let held = self.model.used.get_mut(&port);
        let link = match &held {
            Some(held) if link < 200 => held.link,
            _ => u32::from(link),
        };
        let expected = held.and_then(|held| match held.phase {
            Phase::Open(id) if held.link == link => {
                held.phase = Phase::Revoked(id);
                Some((ConnectionId(id), Generation(held.generation)))
            }
            _ => None,
        });
        assert_eq!(self.state.ports.vanished(PortId(port), link), expected);
    }

    fn wait(&mut self, ticks: u64) {
        self.ticks += ticks;
        self.model.wait(ticks);
    }

    /// Opens and closes many times, as fast as it can.
    fn churn(&mut self, tape: &mut Tape<'_>) {
        let (id, times, well) = (self.some_peer(tape), tape.byte(), tape.byte() & 1 == 0);
        for req in 0..u32::from(times) {
            self.say(id, Request::Open { req, network: 0 });
            let Some((_, port)) = self.making.last().copied() else { return };
            self.made((self.making.len() - 1).min(255) as u8, well);
            let Some(held) = self.model.used.get(&port).copied() else { continue };
            let (port, generation) = (PortId(port), Generation(held.generation));
            self.say(id, Request::Close { req, port, generation });
            self.deleted(self.deleting.len().saturating_sub(1).min(255) as u8);
        }
    }

    fn check(&self) {
        let mut open: Vec<_> = self.state.ports.open_ports();
        open.sort_unstable();
        let expected = self.model.used.iter().filter_map(|(port, held)| match held.phase {
            Phase::Open(id) => Some((PortId(*port), ConnectionId(id), Generation(held.generation))),
            _ => None,
        });
        assert_eq!(open, expected.collect::<Vec<_>>());
        for (id, peer) in &self.model.peers {
            let id = ConnectionId(*id);
            assert_eq!(self.state.ports.count(id), self.model.count(id.0));
            assert_eq!(self.state.is_silent(id), !peer.greeted && !peer.resumed);
            assert!(peer.in_flight <= MAX_IN_FLIGHT);
        }
    }

    /// When all have left and all TAPs are gone, every slot is free.
    fn end(&mut self) {
        for id in 1..=self.peers {
            self.hang_up(id);
        }
        while !self.making.is_empty() {
            self.made(0, true);
        }
        while !self.deleting.is_empty() {
            self.deleted(0);
        }
        self.check();
        assert_eq!(self.state.ports.count(ConnectionId(0)), (0, 0));
        assert!(self.model.used.is_empty());
    }
}

fn id_of(request: &Request) -> RequestId {
    match *request {
        Request::Hello { .. } => 0,
        Request::Open { req, .. }
        | Request::Close { req, .. }
        | Request::Bind { req, .. }
        | Request::OpenRoom { req, .. }
        | Request::Stats { req }
        | Request::Ping { req } => req,
    }
}
