//! Who is in, and who was not let in: for the operator.
//!
//! A session is listed from its port to its end. What it moves is counted where it moves; nothing here
//! costs a frame anything.

use crate::counters::Counters;
use crate::networks::Network;
use crate::session::Client;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;
use wsnic_proto::MacAddr;
use wsnic_proto::rooms::RoomKey;

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
}

/// A session as an operator sees it.
#[derive(Debug, Serialize)]
pub struct Row {
    id: u64,
    client: String,
    identity: String,
    network: String,
    port: String,
    mac: Option<String>,
    seconds: u64,
    frames_in: u64,
    bytes_in: u64,
    frames_out: u64,
    bytes_out: u64,
    dropped: u64,
}

/// All that is open, and what was refused since the start.
#[derive(Default)]
pub struct Sessions {
    next: Cell<u64>,
    open: RefCell<BTreeMap<u64, Rc<Session>>>,
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
        self.sessions.open.borrow_mut().remove(&self.session.id);
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

    /// Sessions since the start.
    pub fn in_all(&self) -> u64 {
        self.next.get()
    }

    /// All that are open, the oldest first.
    pub fn rows(&self) -> Vec<Row> {
        let row = |session: &Rc<Session>| {
            let counters = &session.counters;
            Row {
                id: session.id,
                client: session.client.to_string(),
                identity: session.identity.clone(),
                network: session.place.network.options.name.to_string(),
                port: session.place.port.clone(),
                mac: counters.mac.get().map(|mac| mac.to_string()),
                seconds: session.started.elapsed().as_secs(),
                frames_in: counters.frames_in.get(),
                bytes_in: counters.bytes_in.get(),
                frames_out: counters.frames_out.get(),
                bytes_out: counters.bytes_out.get(),
                dropped: counters.dropped.get(),
            }
        };
        self.open.borrow().values().map(row).collect()
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
        let session = self.open.borrow().get(&id).map(Rc::clone)?;
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
