//! The hot path: frames between a client's WebSocket and its port on the bridge.
//!
//! Theory of operation. A session is one task, so its two loops share state without locks and
//! never run at the same time. Buffers belong to the thread and are used between two awaits only:
//! an idle session holds none. Towards the guest the TAP is drained into one buffer, each frame
//! behind its WebSocket header, and sent by one write. What the socket does not take is kept
//! ([`Outbox`], at most one batch), and until it is gone the TAP is left unread: the kernel drops
//! what does not fit its queue, so a client that stops reading costs nothing but its own frames.
//! Where that queue would stand for long, [`Codel`](crate::codel::Codel) has single frames dropped.
//! Towards the bridge one read of the socket is decoded and unmasked in place and each message
//! written to the TAP from where it lies; only a message that is not complete yet is kept. What the
//! kernel answers at once is read at once.
//!
//! A TAP with offloads has a header before each frame. What it gives may be a super-frame, which is
//! cut while it is copied behind WebSocket headers; what it gets may be one, joined from consecutive
//! messages ([`Run`]), whose payloads are moved behind each other while they are unmasked. Order is kept
//! always: what does not continue the run first sends it on its way.
//!
//! Where the network's framing is a stream, messages are taken by `stream_in`, and each frame for the
//! guest has its length before it. Which framing it is is known when the code is compiled: all of it
//! is there twice, once for `STREAM`, so that the usual one pays nothing.
//!
//! Nothing here allocates per frame, takes a lock, or logs.

mod from_guest;
mod stream_in;
mod to_guest;

use self::stream_in::StreamIn;
use self::to_guest::LONGEST_BATCH;
use crate::counters::Counters;
use crate::dhcp_port::DhcpPort;
use crate::end::{End, Lifetime};
use crate::framing::{self, LENGTH_LEN};
use crate::guest::{Guest, Pair};
use crate::news::News;
use crate::outbox::Outbox;
use crate::pulse::Pulse;
use crate::rate::{Limiter, Share};
use crate::stream::Stream;
use crate::ws::{self, Opcode};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use wsnic_proto::frame::FramePolicy;
use wsnic_proto::offload::{self, Offloads, Run};
use wsnic_proto::settings::Framing;

/// Bytes of the thread's buffer for what clients send: a whole message and the start of others.
const READ_BUFFER: usize = 384 * 1024;
/// Bytes of room before what clients send: see `from_guest`.
const ROOM: usize = offload::HEADER_LEN;
/// Room behind [`LONGEST_BATCH`] for the longest frame and its header, or most of what one is cut into.
pub const WRITE_BUFFER: usize = LONGEST_BATCH + 128 * 1024;
/// Bytes of the longest thing that a TAP gives: header, Ethernet header with a tag, IP packet.
const LONGEST_READ: usize = offload::HEADER_LEN + 18 + 65_535;
/// A TAP that was deleted has nothing to read; epoll says so as an error.
pub const TAP_INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; ROOM + READ_BUFFER]);
    static WRITE: RefCell<Vec<u8>> = RefCell::new(vec![0; WRITE_BUFFER]);
    static SUPER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST_READ]);
    static RUN: RefCell<Run> = RefCell::new(Run::new());
}

/// From the guest, to the guest.
pub type Limits = (Option<Limiter>, Option<Limiter>);

/// A session that is open.
pub struct Shuttle {
    stream: Stream,
    tap: AsyncFd<OwnedFd>,
    policy: FramePolicy,
    dhcp: Option<DhcpPort>,
    /// None: the network has no locks.
    guest: Option<Guest>,
    /// A frame, or none, that waits for its source to be bound, and what that is.
    held: RefCell<Option<(Vec<u8>, Pair)>>,
    /// What a DHCP server on the bridge has just given to the guest, not bound yet.
    given: Cell<Option<Pair>>,
    /// Whether something was written to the TAP since it was read.
    has_written: Cell<bool>,
    offloads: Offloads,
    limit_up: RefCell<Option<Limiter>>,
    limit_down: RefCell<Option<Limiter>>,
    /// None: a message is a frame.
    stream_in: Option<StreamIn>,
    outbox: Outbox,
    /// What whoever keeps the sessions should know.
    pub news: News,
    pulse: Pulse,
    /// What has gone through.
    pub counters: Rc<Counters>,
}

impl Shuttle {
    /// A session between `stream`, whose handshake is done, and `tap`, which has `offloads`.
    pub fn new(
        stream: Stream,
        tap: AsyncFd<OwnedFd>,
        offloads: Offloads,
        policy: FramePolicy,
        (dhcp, guest): (Option<DhcpPort>, Option<Guest>),
        (limit_up, limit_down): Limits,
        lifetime: Lifetime,
    ) -> Shuttle {
        Shuttle {
            stream,
            tap,
            policy,
            dhcp,
            guest,
            held: RefCell::default(),
            given: Cell::default(),
            has_written: Cell::default(),
            offloads,
            limit_up: RefCell::new(limit_up),
            limit_down: RefCell::new(limit_down),
            stream_in: None,
            outbox: Outbox::default(),
            news: News::default(),
            pulse: Pulse::new(lifetime, Instant::now()),
            counters: Rc::default(),
        }
    }

    /// The same session, whose client sends frames so.
    pub fn with_framing(self, framing: Framing) -> Shuttle {
        let stream_in = (framing == Framing::Stream).then(StreamIn::default);
        Shuttle { stream_in, ..self }
    }

    /// Moves frames until the session ends. `early` is what came behind the handshake.
    pub async fn run(&self, early: Vec<u8>, decoder: ws::Decoder, hold_back: Duration) -> End {
        if !hold_back.is_zero() {
            // That is a vpn-ws-client, which takes a ping for an error and leaves.
            self.pulse.ask_nothing();
        }
        match self.stream_in {
            None => self.run_with::<false>(early, decoder, hold_back).await,
            // Boxed: the others have no room for it.
            Some(_) => Box::pin(self.run_with::<true>(early, decoder, hold_back)).await,
        }
    }

    async fn run_with<const STREAM: bool>(
        &self,
        early: Vec<u8>,
        decoder: ws::Decoder,
        hold_back: Duration,
    ) -> End {
        tokio::select! {
            // Who writes to the TAP comes before who reads it: see `Shuttle::written`.
            biased;
            end = self.guest_to_bridge::<STREAM>(early, decoder) => end,
            end = self.bridge_to_guest::<STREAM>(hold_back) => end,
            end = self.pulse.watch_silence(&self.outbox, &self.counters.rtt) => end,
            end = self.pulse.watch_lifetime() => end,
        }
    }

    /// Whether the client answers, for a moment.
    pub async fn is_there(&self) -> bool {
        self.pulse.is_there(&self.outbox, &self.counters.rtt).await
    }

    /// Gives the parts back when the session has ended: what is still to be sent, and the TAP.
    pub fn into_parts(self) -> (Stream, Vec<u8>, OwnedFd) {
        (self.stream, self.outbox.into_bytes(), self.tap.into_inner())
    }

    /// Gives the guest a frame of our own.
    fn post(&self, frame: &[u8]) {
        match self.stream_in {
            None => self.outbox.post(Opcode::Binary, frame),
            Some(_) => {
                let message = [&framing::length(frame.len())[..], frame].concat();
                self.outbox.post(Opcode::Binary, &message);
            }
        }
    }
}

/// How long a limit, if there is one, lets nothing pass after this.
fn wait_of(limit: &RefCell<Option<Limiter>>, bytes: usize, frames: u64) -> Duration {
    let now = std::time::Instant::now;
    let wait = limit.borrow_mut().as_mut().map(|limit| limit.passed(bytes as u64, frames, now()));
    wait.unwrap_or_default()
}

/// How much a limit, if there is one, wants to be taken at once.
fn share_of(limit: &RefCell<Option<Limiter>>) -> Share {
    limit.borrow().as_ref().map_or(Share::ALL, Limiter::share)
}

/// Bytes of the length before each frame for a guest.
const fn length_len<const STREAM: bool>() -> usize {
    if STREAM { LENGTH_LEN } else { 0 }
}

#[cfg(test)]
#[path = "shuttle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "shuttle_allocation_tests.rs"]
mod allocation_tests;
