//! Who is in, and who was not let in: for the operator.
//!
//! A session is listed from its port to its end. What it moves is counted where it moves; nothing here
//! costs a frame anything. With thousands of sessions a look at all of them takes milliseconds, so
//! whoever takes one lets the sessions work after every few.

use crate::counters::Counters;
use crate::networks::Network;
use crate::session::Client;
use serde::{Serialize, Serializer};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::AddAssign;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::yield_now;
use wsnic_proto::MacAddr;
use wsnic_proto::rooms::RoomKey;

/// Sessions that are looked at before others work: some 30 µs, as long as a frame's round trip.
const AT_ONCE: usize = 16;

/// Why somebody is not let in, each in one word: what is counted from the start on.
pub const REFUSALS: [&str; 11] = [
    "bad_request",
    "banned",
    "busy",
    "forbidden",
    "handshake",
    "handshake_rate",
    "not_found",
    "not_websocket",
    "timeout",
    "too_many",
    "unavailable",
];

/// A session.
pub struct Session {
    /// Its number, given once.
    pub id: u64,
    client: Client,
    identity: String,
    place: Place,
    started: Instant,
    counters: Rc<Counters>,
    /// Told when an operator ends it.
    kicked: Notify,
    /// Told when another one wants its guest's address.
    challenged: Notify,
}

/// Where a session's guest is.
pub struct Place {
    /// The network.
    pub network: Rc<Network>,
    /// The room, if there are rooms.
    pub room: Option<RoomKey>,
    /// The TAP's name.
    pub port: String,
}

impl Place {
    /// Whether frames can pass from one to the other.
    fn meets(&self, other: &Place) -> bool {
        Rc::ptr_eq(&self.network, &other.network) && self.room == other.room
    }
}

impl Session {
    /// Returns when an operator ends the session.
    pub async fn kicked(&self) {
        self.kicked.notified().await;
    }

    /// Returns when another one wants the address of its guest.
    pub async fn challenged(&self) {
        self.challenged.notified().await;
    }

    /// What it moves.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// As an operator sees it.
    pub fn row(&self, now: Instant) -> Row<'_> {
        let counters = &self.counters;
        let rtt = counters.rtt.last(now);
        Row {
            id: self.id,
            client: self.client,
            identity: &self.identity,
            network: self.place.network.options.name.as_str(),
            port: &self.place.port,
            mac: counters.mac.get(),
            addresses: counters.addresses().collect(),
            seconds: now.saturating_duration_since(self.started).as_secs(),
            rtt_us: rtt.map(|(took, _)| took.as_micros() as u64),
            rtt_seconds_ago: rtt.map(|(_, ago)| ago.as_secs()),
            frames_in: counters.frames_in.get(),
            bytes_in: counters.bytes_in.get(),
            frames_out: counters.frames_out.get(),
            bytes_out: counters.bytes_out.get(),
            dropped: counters.dropped.get(),
            late: counters.late.get(),
        }
    }
}

/// A session as an operator sees it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: u64,
    #[serde(serialize_with = "as_text")]
    client: Client,
    identity: &'a str,
    network: &'a str,
    port: &'a str,
    #[serde(serialize_with = "as_text_if_any")]
    mac: Option<MacAddr>,
    addresses: Vec<Ipv4Addr>,
    seconds: u64,
    rtt_us: Option<u64>,
    rtt_seconds_ago: Option<u64>,
    frames_in: u64,
    bytes_in: u64,
    frames_out: u64,
    bytes_out: u64,
    dropped: u64,
    late: u64,
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_text_if_any<S: Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// What the sessions of a network have moved since the start; never less than before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Sessions that are open.
    #[serde(rename = "sessions")]
    pub open: u64,
    /// Sessions that were begun.
    #[serde(rename = "sessions_in_all")]
    pub begun: u64,
    /// Frames from guests.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames to guests.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames to guests that were dropped to keep queues short.
    pub late: u64,
    /// Text messages.
    pub texts: u64,
}

impl AddAssign<&Counters> for Totals {
    fn add_assign(&mut self, counters: &Counters) {
        self.frames_in += counters.frames_in.get();
        self.bytes_in += counters.bytes_in.get();
        self.frames_out += counters.frames_out.get();
        self.bytes_out += counters.bytes_out.get();
        self.late += counters.late.get();
        self.texts += counters.texts.get();
    }
}

/// All that is open, and what was refused since the start.
#[derive(Default)]
pub struct Sessions {
    next: Cell<u64>,
    arrived: Cell<u64>,
    open: RefCell<BTreeMap<u64, Rc<Session>>>,
    /// By the network's number: all that were begun, and what those moved that have ended.
    ended: RefCell<BTreeMap<u16, Totals>>,
    refused: RefCell<BTreeMap<&'static str, u64>>,
}

/// Takes a session off the list when it is dropped.
pub struct Listed {
    sessions: Rc<Sessions>,
    /// The session.
    pub session: Rc<Session>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let session = &self.session;
        self.sessions.open.borrow_mut().remove(&session.id);
        let mut ended = self.sessions.ended.borrow_mut();
        *ended.entry(session.place.network.number).or_default() += &session.counters;
    }
}

impl Sessions {
    /// Lists a session.
    pub fn list(
        self: &Rc<Sessions>,
        client: Client,
        identity: String,
        place: Place,
        counters: Rc<Counters>,
    ) -> Listed {
        let id = self.next.get() + 1;
        self.next.set(id);
        self.ended.borrow_mut().entry(place.network.number).or_default().begun += 1;
        let session = Rc::new(Session {
            id,
            client,
            identity,
            place,
            started: Instant::now(),
            counters,
            kicked: Notify::new(),
            challenged: Notify::new(),
        });
        self.open.borrow_mut().insert(id, Rc::clone(&session));
        Listed { sessions: Rc::clone(self), session }
    }

    /// Sessions that are open.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// A connection is looked at.
    pub fn arrived(&self) {
        self.arrived.set(self.arrived.get() + 1);
    }

    /// Connections since the start.
    pub fn connections(&self) -> u64 {
        self.arrived.get()
    }

    /// Sessions since the start.
    pub fn in_all(&self) -> u64 {
        self.next.get()
    }

    /// The session of this number, if it is open.
    pub fn get(&self, id: u64) -> Option<Rc<Session>> {
        self.open.borrow().get(&id).map(Rc::clone)
    }

    /// All that are open, the oldest first, as JSON.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn json(&self) -> Vec<u8> {
        let (mut text, mut last, now) = (vec![b'['], 0, Instant::now());
        loop {
            let before = last;
            for (id, session) in self.open.borrow().range(last + 1..).take(AT_ONCE) {
                if text.len() > 1 {
                    text.push(b',');
                }
                // Numbers and texts are always JSON, and memory takes all.
                let _ = serde_json::to_writer(&mut text, &session.row(now));
                last = *id;
            }
            if last == before {
                break;
            }
            yield_now().await;
        }
        text.push(b']');
        text
    }

    /// What was moved since the start, by the network's number.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn totals(&self) -> BTreeMap<u16, Totals> {
        // Both at the same moment: a session that ends meanwhile counts once, as one that is open.
        let all: Vec<_> = self.open.borrow().values().map(Rc::clone).collect();
        let mut totals = self.ended.borrow().clone();
        for some in all.chunks(AT_ONCE) {
            for session in some {
                let totals = totals.entry(session.place.network.number).or_default();
                totals.open += 1;
                *totals += &session.counters;
            }
            yield_now().await;
        }
        totals
    }

    /// Rooms that somebody is in, by the network's number.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn rooms(&self) -> BTreeMap<u16, usize> {
        let place = |session: &Rc<Session>| {
            session.place.room.map(|room| (session.place.network.number, room))
        };
        let all: Vec<_> = self.open.borrow().values().map(Rc::clone).collect();
        let mut rooms = BTreeSet::new();
        for some in all.chunks(AT_ONCE) {
            rooms.extend(some.iter().filter_map(place));
            yield_now().await;
        }
        let mut counts = BTreeMap::new();
        rooms.into_iter().for_each(|(network, _)| *counts.entry(network).or_default() += 1);
        counts
    }

    /// Asks those who have this address, where `own` is, whether they are still there.
    pub fn challenge(&self, own: &Rc<Session>, mac: MacAddr) {
        let open = self.open.borrow();
        let has_it = |other: &&Rc<Session>| {
            other.counters.mac.get() == Some(mac)
                && !Rc::ptr_eq(own, other)
                && own.place.meets(&other.place)
        };
        open.values().filter(has_it).for_each(|other| other.challenged.notify_one());
    }

    /// Ends a session; the address that it came from. None: there is no such session.
    pub fn kick(&self, id: u64) -> Option<Option<IpAddr>> {
        let session = self.get(id)?;
        session.kicked.notify_one();
        Some(session.client.ip())
    }

    /// Counts one who was not let in.
    pub fn refused(&self, why: &'static str) {
        *self.refused.borrow_mut().entry(why).or_default() += 1;
    }

    /// How many were not let in, and why.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::add;
    use crate::http::Refusal;
    use crate::networks::Networks;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    use wsnic_proto::conf::Layer;
    use wsnic_proto::{ConfFile, Facts, resolve};

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let Poll::Ready(value) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return value;
            }
        }
    }

    /// The networks `default` and `lab`.
    fn networks() -> [Rc<Network>; 2] {
        let file = ConfFile::parse("", b"[network lab]\nsubnet=10.1.0.0/24\n").unwrap();
        let (settings, _) = resolve(&file, &Layer::new(), &Facts::default()).unwrap();
        let networks = Networks::open(&settings).unwrap();
        let mut networks = networks.iter().map(Rc::clone);
        [(); 2].map(|()| networks.next().unwrap())
    }

    fn list(sessions: &Rc<Sessions>, network: &Rc<Network>) -> (Listed, Rc<Counters>) {
        let (client, counters) = (Client::of_nobody(), Rc::<Counters>::default());
        let place = Place { network: Rc::clone(network), room: None, port: "wstap7".to_owned() };
        let listed = sessions.list(client, "anyone".to_owned(), place, Rc::clone(&counters));
        (listed, counters)
    }

    #[test]
    fn every_refusal_is_counted_from_the_start_on() {
        let refusals = [
            Refusal::NotWebSocket { head_only: false },
            Refusal::BadRequest(""),
            Refusal::Method,
            Refusal::Version,
            Refusal::HeadTooLarge,
            Refusal::Timeout,
            Refusal::Forbidden,
            Refusal::TooMany,
            Refusal::NotFound,
            Refusal::Unavailable,
        ];
        for kind in refusals.map(Refusal::kind) {
            assert!(REFUSALS.contains(&kind), "{kind}");
        }
    }

    #[test]
    fn totals_do_not_go_back_when_sessions_end() {
        let (sessions, [default, lab]) = (Rc::<Sessions>::default(), networks());
        let (one, counted) = list(&sessions, &default);
        let (other, _) = list(&sessions, &lab);
        add(&counted.frames_in, 3);
        add(&counted.bytes_out, 500);
        let before = now(sessions.totals());
        let expected =
            Totals { open: 1, begun: 1, frames_in: 3, bytes_out: 500, ..Totals::default() };
        assert_eq!(before[&0], expected);
        drop(one);
        let after = now(sessions.totals());
        assert_eq!(after[&0], Totals { open: 0, ..expected });
        assert_eq!((after[&1].open, after[&1].begun), (1, 1));
        drop(other);
        assert_eq!((sessions.len(), sessions.in_all()), (0, 2));
    }

    #[test]
    fn sessions_that_end_while_totals_are_taken_count_once() {
        const MANY: usize = 1000;
        let (sessions, [default, _]) = (Rc::<Sessions>::default(), networks());
        let mut open: Vec<_> = (0..MANY).map(|_| list(&sessions, &default)).collect();
        open.iter().for_each(|(_, counters)| add(&counters.bytes_in, 1));
        let mut taking = std::pin::pin!(sessions.totals());
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        let totals = loop {
            match taking.as_mut().poll(&mut context) {
                Poll::Ready(totals) => break totals,
                Poll::Pending => turns += 1,
            }
            // From both ends: some that were looked at, and some that were not.
            open.drain(..open.len().min(10));
            open.truncate(open.len().saturating_sub(10));
        };
        assert!(turns > 0, "others get their turn");
        assert_eq!(totals[&0].bytes_in, MANY as u64);
        assert!(open.len() < MANY && sessions.len() == open.len());
        assert_eq!(now(sessions.totals())[&0].bytes_in, MANY as u64);
    }

    #[test]
    fn sessions_are_json_with_what_is_known_of_them() {
        let (sessions, [default, lab]) = (Rc::<Sessions>::default(), networks());
        assert_eq!(now(sessions.json()), b"[]");
        let (_one, counters) = list(&sessions, &default);
        let (_other, _) = list(&sessions, &lab);
        counters.note_address(Ipv4Addr::new(192, 168, 86, 2));
        counters.mac.set(Some(MacAddr([2, 0, 0, 0, 0, 1])));
        let start = Instant::now();
        let ping = counters.rtt.ask(start);
        counters.rtt.heard(&ping, start + std::time::Duration::from_micros(1500));
        let json: serde_json::Value = serde_json::from_slice(&now(sessions.json())).unwrap();
        let (one, other) = (&json[0], &json[1]);
        assert_eq!(one["addresses"], serde_json::json!(["192.168.86.2"]));
        assert_eq!((&one["mac"], &one["rtt_us"]), (&"02:00:00:00:00:01".into(), &1500.into()));
        assert_eq!((&other["network"], &other["id"]), (&"lab".into(), &2.into()));
        assert!(other["mac"].is_null() && other["rtt_us"].is_null(), "{other}");
    }
}
