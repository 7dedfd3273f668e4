//! The hot path: frames between a client's WebSocket and its port on the bridge.
//!
//! Theory of operation. A session is one task, so its two loops share state without locks and
//! never run at the same time. Buffers belong to the thread and are used between two awaits only:
//! an idle session holds none. Towards the guest the TAP is drained into one buffer, each frame
//! behind its WebSocket header, and sent by one write. What the socket does not take is kept
//! ([`Outbox`], at most one batch), and until it is gone the TAP is left unread: the kernel drops
//! what does not fit its queue, so a client that stops reading costs nothing but its own frames.
//! Where that queue would stand for long, [`Codel`] has single frames dropped.
//! Towards the bridge one read of the socket is decoded and unmasked in place and each message
//! written to the TAP from where it lies; only a message that is not complete yet is kept.
//!
//! A TAP with offloads has a header before each frame. What it gives may be a super-frame, which is
//! cut while it is copied behind WebSocket headers; what it gets may be one, joined from messages
//! that lie behind each other ([`Run`]) and written from where they lie. Order is kept always: what
//! does not continue the run first sends it on its way.
//!
//! Where the network's framing is a stream, messages are taken by `stream_in`, and each frame for the
//! guest has its length before it. Which framing it is is known when the code is compiled: all of it
//! is there twice, once for `STREAM`, so that the usual one pays nothing.
//!
//! Nothing here allocates per frame, takes a lock, or logs.

mod stream_in;

use self::stream_in::StreamIn;
use crate::codel::Codel;
use crate::counters::{Counters, Dropped, add};
use crate::dhcp_port::DhcpPort;
use crate::end::{End, Lifetime};
use crate::framing::{self, LENGTH_LEN};
use crate::guest::{Guest, Pair, Passage};
use crate::news::{Item, News};
use crate::outbox::Outbox;
use crate::pulse::{PING_AFTER, Pulse};
use crate::rate::{Limiter, Share};
use crate::stream::Stream;
use crate::turn::{TURN, Turn};
use crate::ws::{self, Event, MAX_HEADER, Opcode};
use nix::errno::Errno;
use nix::sys::uio;
use nix::unistd;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use wsnic_proto::Frame;
use wsnic_proto::frame::FramePolicy;
use wsnic_proto::offload::{self, Offered, Offloads, Run, Segments};
use wsnic_proto::settings::Framing;

/// Bytes of the thread's buffer for what clients send: a whole message and the start of others.
const READ_BUFFER: usize = 256 * 1024;
/// Bytes that one write takes to a client, about: the last frame may go beyond.
const BATCH: usize = 64 * 1024;
/// Frames that one write takes to a client: short ones cost a system call each, not bytes. More than
/// wait in a port (PORT_QUEUE_LEN of `wsnic-priv`), so that what is left behind them is a queue that
/// stands, as [`Codel`] understands it.
const BATCH_FRAMES: u64 = 512;
/// Bytes of room before what clients send: see [`Shuttle::write_in_place`].
const ROOM: usize = offload::HEADER_LEN;
/// Room behind [`BATCH`] for the longest frame and its header, or most of what one is cut into.
pub const WRITE_BUFFER: usize = BATCH + 128 * 1024;
/// Bytes of the longest thing that a TAP gives: header, Ethernet header with a tag, IP packet.
const LONGEST_READ: usize = offload::HEADER_LEN + 18 + 65_535;
/// Bytes of the shortest frame as a message: header, mask, and a frame of a header only.
const SHORTEST_MESSAGE: usize = 2 + 4 + 14;
/// The same of one that does not stand alone in its message.
const SHORTEST_IN_STREAM: usize = LENGTH_LEN + 14;
/// Bytes that are read from a client in any case, however low a limit is.
const LEAST_READ: usize = 256;
/// The same, however long it takes to pass them on.
const LEAST_IN_TURN: usize = 4 * 1024;
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

    async fn guest_to_bridge<const STREAM: bool>(
        &self,
        early: Vec<u8>,
        mut decoder: ws::Decoder,
    ) -> End {
        // What is not complete yet.
        let mut partial = early;
        if let Err(end) = READ.with_borrow_mut(|buffer| {
            let end = refill(buffer, &mut partial);
            self.take_messages::<STREAM>(&mut buffer[..end], &mut decoder, &mut partial)
        }) {
            return end;
        }
        if let Err(end) = self.settle::<STREAM>(&mut decoder, &mut partial).await {
            return end;
        }
        let mut turn = Turn::default();
        // Bytes to read at once.
        let mut at_once = READ_BUFFER / 4;
        loop {
            if self.stream.readable().await.is_err() {
                return End::Lost;
            }
            let before = self.counters.frames_in.get();
            loop {
                let frames = self.counters.frames_in.get();
                turn.begin();
                let step = READ.with_borrow_mut(|buffer| {
                    let kept = refill(buffer, &mut partial);
                    let most = at_once.min(read_at_once::<STREAM>(&self.limit_up));
                    let end = kept.saturating_add(most).min(buffer.len());
                    match self.stream.try_read(&mut buffer[kept..end]) {
                        Ok(0) => Err(End::Lost),
                        Ok(len) => {
                            self.take_messages::<STREAM>(
                                &mut buffer[..kept + len],
                                &mut decoder,
                                &mut partial,
                            )?;
                            Ok(Some((len, kept + len == end)))
                        }
                        Err(error) => {
                            partial.extend_from_slice(&buffer[ROOM..kept]);
                            match error.kind() {
                                io::ErrorKind::WouldBlock => Ok(None),
                                _ => Err(End::Lost),
                            }
                        }
                    }
                });
                let took = turn.end();
                if let Err(end) = self.settle::<STREAM>(&mut decoder, &mut partial).await {
                    return end;
                }
                let (len, more) = match step {
                    Ok(Some(step)) => step,
                    Ok(None) => break,
                    Err(end) => return end,
                };
                if took > TURN {
                    at_once = (at_once / 2).max(LEAST_IN_TURN);
                } else if more && took < TURN / 2 {
                    at_once = (at_once * 2).min(READ_BUFFER);
                }
                self.hold_up(len, self.counters.frames_in.get() - frames).await;
                if !more || turn.is_over() {
                    break;
                }
            }
            self.pulse.heard(turn.at, self.counters.frames_in.get() != before);
            turn.pass_on().await;
        }
    }

    /// Waits for as long as the limit upwards wants it. A client that is held up is not silent.
    async fn hold_up(&self, bytes: usize, frames: u64) {
        let wait = wait_of(&self.limit_up, bytes, frames);
        if wait.is_zero() {
            return;
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + PING_AFTER)).await;
            self.pulse.heard(Instant::now(), false);
        }
    }

    /// Has the source of a frame that was held back bound, and goes on behind it; also behind a part of
    /// a message with many frames.
    async fn settle<const STREAM: bool>(
        &self,
        decoder: &mut ws::Decoder,
        partial: &mut Vec<u8>,
    ) -> Result<(), End> {
        loop {
            let held = self.held.borrow_mut().take();
            match (held, &self.guest) {
                (Some((frame, pair)), Some(guest)) => self.bind(guest, frame, pair).await?,
                _ if STREAM && self.has_rest() => {}
                _ => return Ok(()),
            }
            // Not each needs the helper, and there may be many.
            tokio::task::yield_now().await;
            READ.with_borrow_mut(|buffer| {
                let end = refill(buffer, partial);
                self.take_messages::<STREAM>(&mut buffer[..end], decoder, partial)
            })?;
        }
    }

    /// Has the source of a frame bound, and passes the frame on.
    async fn bind(&self, guest: &Guest, frame: Vec<u8>, pair: Pair) -> Result<(), End> {
        let challenge = |mac| self.news.tell(Item::Wanted(mac));
        // No frame waits: DHCP has given it.
        let given = frame.is_empty();
        match guest.bind(pair, given, self.dhcp.as_ref(), challenge).await {
            Ok(()) => {
                self.counters.note_address(pair.1);
                self.counters.mac.set(Some(pair.0));
                if !frame.is_empty() {
                    self.write_alone(&frame)?;
                }
            }
            Err(error) => {
                self.counters.dropped(Dropped::Address, usize::from(!frame.is_empty()));
                self.news.tell(Item::Refused(pair, error));
            }
        }
        Ok(())
    }

    /// Whether a message of a stream is not done with.
    fn has_rest(&self) -> bool {
        self.stream_in.as_ref().is_some_and(StreamIn::has_rest)
    }

    /// Handles every complete message in `bytes` behind [`ROOM`], keeps the rest in `partial`; up to the
    /// first that has to wait, which is then held back.
    fn take_messages<const STREAM: bool>(
        &self,
        bytes: &mut [u8],
        decoder: &mut ws::Decoder,
        partial: &mut Vec<u8>,
    ) -> Result<(), End> {
        RUN.with_borrow_mut(|run| {
            run.set_takes_udp(self.offloads.takes_udp());
            let taken = self.join_messages::<STREAM>(bytes, decoder, partial, run);
            // What came before the end counts, and the next session must find nothing of this one.
            let flushed = self.flush_run(bytes, run);
            taken.and(flushed)
        })
    }

    /// Does the work of [`Shuttle::take_messages`], but for what `run` still has then.
    fn join_messages<const STREAM: bool>(
        &self,
        bytes: &mut [u8],
        decoder: &mut ws::Decoder,
        partial: &mut Vec<u8>,
        run: &mut Run,
    ) -> Result<(), End> {
        let stream_in = self.stream_in.as_ref().filter(|_| STREAM);
        if let Some(stream) = stream_in {
            self.stream_rest(stream, run)?;
            if self.waits::<STREAM>() {
                partial.extend_from_slice(&bytes[ROOM..]);
                return Ok(());
            }
        }
        let mut at = ROOM;
        loop {
            let (used, event) = decoder.next(&mut bytes[at..])?;
            let end = at + used;
            match event {
                Some(Event::Message(message)) => {
                    let range = end - message.len()..end;
                    match stream_in {
                        None => self.message(bytes, range, run)?,
                        Some(stream) => self.stream(stream, bytes, range, run)?,
                    }
                }
                Some(Event::Assembled(message)) => {
                    // Fragments are rare; what came before them goes first.
                    let message = message.to_vec();
                    self.flush_run(bytes, run)?;
                    match stream_in {
                        None => self.apart(&message)?,
                        Some(stream) => self.stream_apart(stream, &message, run)?,
                    }
                }
                Some(Event::Text(_)) => {
                    add(&self.counters.texts, 1);
                    self.news.tell(Item::Text);
                }
                Some(Event::Ping(payload)) => self.outbox.post(Opcode::Pong, payload),
                Some(Event::Close(code)) => return Err(End::Closed(code)),
                Some(Event::Pong(payload)) => {
                    self.counters.rtt.heard(payload, std::time::Instant::now());
                }
                None => {}
            }
            if used == 0 || self.waits::<STREAM>() {
                partial.extend_from_slice(&bytes[at + used..]);
                return Ok(());
            }
            at = end;
        }
    }

    /// Whether nothing more is to be taken before [`Shuttle::settle`].
    fn waits<const STREAM: bool>(&self) -> bool {
        self.held.borrow().is_some() || STREAM && self.has_rest()
    }

    /// A frame that lies in `bytes` as a whole.
    fn message(&self, bytes: &mut [u8], range: Range<usize>, run: &mut Run) -> Result<(), End> {
        let message = &bytes[range.clone()];
        match self.passage(message) {
            Passage::Free => {}
            Passage::Refused => return Ok(()),
            Passage::Unbound(pair) => {
                self.hold(message, pair);
                return self.flush_run(bytes, run);
            }
        }
        if !self.offloads.has_header() {
            return self.write_alone(message);
        }
        let offered = match run.offer(bytes, range.clone()) {
            Offered::Refused => {
                self.flush_run(bytes, run)?;
                run.offer(bytes, range)
            }
            offered => offered,
        };
        match offered {
            Offered::Joined => Ok(()),
            Offered::Complete | Offered::Refused => self.flush_run(bytes, run),
        }
    }

    /// A frame that lies elsewhere.
    fn apart(&self, frame: &[u8]) -> Result<(), End> {
        match self.passage(frame) {
            Passage::Free => self.write_alone(frame)?,
            Passage::Refused => {}
            Passage::Unbound(pair) => self.hold(frame, pair),
        }
        Ok(())
    }

    /// Keeps a frame until its source is bound.
    #[cold]
    fn hold(&self, frame: &[u8], pair: Pair) {
        *self.held.borrow_mut() = Some((frame.to_vec(), pair));
    }

    /// Whether the bridge is to have a frame; what is for the DHCP server is answered here.
    fn passage(&self, message: &[u8]) -> Passage {
        if message.is_empty() {
            return Passage::Refused;
        }
        let refused = |why: Dropped| {
            self.counters.dropped(why, 1);
            Passage::Refused
        };
        let frame = match self.policy.check(message) {
            Ok(frame) => frame,
            Err(error) => {
                if self.stream_in.is_none() && framing::is_of_stream(message) {
                    self.news.tell(Item::Stream);
                }
                return refused(error.into());
            }
        };
        if let Some(dhcp) = &self.dhcp {
            if frame.is_to_dhcp_server() {
                if self.counters.mac.get().is_none() {
                    self.counters.mac.set(Some(frame.source()));
                }
                self.counters.watchers.show(true, message);
                let (answer, leased) = dhcp.answer(message);
                if let Some(answer) = answer {
                    self.counters.watchers.show(false, &answer);
                    self.post(&answer);
                }
                if let Some((_, address)) = leased {
                    self.counters.note_address(address);
                }
                // Bound before the guest uses it.
                if let (Some(pair), true) = (leased, self.guest.is_some()) {
                    self.hold(&[], pair);
                }
                return Passage::Refused;
            }
            if frame.is_to_dhcp_client() {
                return refused(Dropped::DhcpAnswer);
            }
        }
        match self.guest.as_ref().map_or(Passage::Free, |guest| guest.passage(frame)) {
            Passage::Refused => return refused(Dropped::Address),
            Passage::Unbound(pair) => return Passage::Unbound(pair),
            Passage::Free => self.counters.mac.set(Some(frame.source())),
        }
        if let Some(address) = frame.arp_sender() {
            self.counters.note_address(address);
        }
        Passage::Free
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

    fn write_alone(&self, frame: &[u8]) -> Result<(), End> {
        let written = match self.offloads.has_header() {
            true => {
                let header = IoSlice::new(&[0; offload::HEADER_LEN]);
                uio::writev(self.tap.get_ref(), &[header, IoSlice::new(frame)])
            }
            false => unistd::write(self.tap.get_ref(), frame),
        };
        self.wrote(1, frame.len(), written)
    }

    fn flush_run(&self, bytes: &mut [u8], run: &mut Run) -> Result<(), End> {
        if let Some(frame) = run.take_single() {
            return self.write_in_place(bytes, frame);
        }
        let write = |pieces: &[IoSlice<'_>]| uio::writev(self.tap.get_ref(), pieces);
        match run.flush(bytes, write) {
            Some((frames, len, written)) => self.wrote(frames, len, written),
            None => Ok(()),
        }
    }

    /// Writes a frame behind the TAP's header, which takes the place of what stands before it: its
    /// WebSocket header, and the end of a message that is done with. One piece costs the kernel less
    /// than two.
    fn write_in_place(&self, bytes: &mut [u8], frame: Range<usize>) -> Result<(), End> {
        let start = frame.start - offload::HEADER_LEN;
        bytes[start..frame.start].fill(0);
        let written = unistd::write(self.tap.get_ref(), &bytes[start..frame.end]);
        self.wrote(1, frame.len(), written)
    }

    fn wrote(&self, frames: usize, len: usize, written: nix::Result<usize>) -> Result<(), End> {
        match written {
            Ok(_) => {
                add(&self.counters.frames_in, frames);
                add(&self.counters.bytes_in, len);
            }
            Err(Errno::EBADFD) => return Err(End::PortLost),
            // Interface down, queue full, refused by the kernel: these frames' loss.
            Err(_) => self.counters.dropped(Dropped::Port, frames),
        }
        Ok(())
    }

    async fn bridge_to_guest<const STREAM: bool>(&self, hold_back: Duration) -> End {
        if !hold_back.is_zero() {
            // Until the client's first frame, or this long.
            let until = Instant::now() + hold_back;
            while self.counters.frames_in.get() == 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let mut turn = Turn::default();
        let mut codel = Codel::default();
        // How long the last batch was held up, and whether the TAP was empty behind it.
        let (mut waited, mut drained) = (Duration::ZERO, true);
        loop {
            match self.outbox.flush(&self.stream).await {
                Ok(wait) => waited += wait,
                Err(end) => return end,
            }
            turn.pass_on().await;
            let mut guard = tokio::select! {
                ready = self.tap.ready(TAP_INTEREST) => match ready {
                    Ok(guard) => guard,
                    Err(_) => return End::PortLost,
                },
                () = self.outbox.posted() => continue,
            };
            let late = match waited {
                Duration::ZERO => 0,
                waited => codel.batch(waited, drained, std::time::Instant::now()),
            };
            let frames = self.counters.frames_out.get();
            turn.begin();
            let sent = WRITE.with_borrow_mut(|buffer| {
                let (len, drained) = match self.offloads.has_header() {
                    true => self.take_super_frames::<STREAM>(buffer, late)?,
                    false => self.take_frames::<STREAM>(buffer, late)?,
                };
                if drained {
                    guard.clear_ready();
                }
                self.outbox.send(&self.stream, &buffer[..len])?;
                Ok((len, drained))
            });
            turn.end();
            self.bind_given().await;
            match sent {
                Ok((len, empty)) => {
                    drained = empty;
                    let frames = self.counters.frames_out.get() - frames;
                    waited = wait_of(&self.limit_down, len, frames);
                    if !waited.is_zero() {
                        tokio::time::sleep(waited).await;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Whether the guest is to have a frame of the bridge: what is for DHCP clients comes from the
    /// front-end alone if that is the server, and is looked at otherwise.
    fn is_wanted(&self, frame: Frame<'_>) -> bool {
        if !frame.is_to_dhcp_client() {
            return true;
        }
        if self.dhcp.is_some() {
            return false;
        }
        if let Some(pair) = self.guest.as_ref().and_then(|guest| guest.given(frame)) {
            self.given.set(Some(pair));
        }
        true
    }

    /// Has the guest's new address bound, from whoever uses it without having been given it.
    async fn bind_given(&self) {
        let (Some(pair), Some(guest)) = (self.given.take(), &self.guest) else { return };
        let challenge = |mac| self.news.tell(Item::Wanted(mac));
        if let Err(error) = guest.bind(pair, true, self.dhcp.as_ref(), challenge).await {
            self.news.tell(Item::Refused(pair, error));
        }
    }

    /// How much is to be taken for a guest at once: bytes, and up to which count of frames.
    fn batch(&self) -> (usize, u64) {
        let share = share_of(&self.limit_down);
        let frames = share.frames.min(BATCH_FRAMES);
        let last = self.counters.frames_out.get().saturating_add(frames);
        (BATCH.min(share.bytes), last)
    }

    /// Drains the TAP into `buffer`, each frame behind its header, but for the first frames of what
    /// it gives, of which `late` are dropped: bytes filled, and whether the TAP is empty.
    fn take_frames<const STREAM: bool>(
        &self,
        buffer: &mut [u8],
        mut late: u32,
    ) -> Result<(usize, bool), End> {
        let mut len = 0;
        let (batch, last) = self.batch();
        while len < batch && self.counters.frames_out.get() < last {
            // The header's length depends on the frame's: read behind the longest one, then close
            // the gap, which moves short frames only (longer ones have a header of 4 bytes).
            let at = len + SHORT_HEADER + length_len::<STREAM>();
            let size = match unistd::read(self.tap.get_ref(), &mut buffer[at..]) {
                Ok(0) => return Err(End::PortLost),
                Ok(size) => size,
                Err(Errno::EAGAIN) => return Ok((len, true)),
                Err(Errno::EINTR) => continue,
                Err(_) => return Err(End::PortLost),
            };
            let wanted =
                Frame::new(&buffer[at..at + size]).is_some_and(|frame| self.is_wanted(frame));
            if !wanted || self.is_late(&mut late) {
                continue;
            }
            let header = ws::header(Opcode::Binary, length_len::<STREAM>() + size);
            let frame = len + header.1 + length_len::<STREAM>();
            if frame != at {
                buffer.copy_within(at..at + size, frame);
            }
            put_header::<STREAM>(buffer, len, header, size);
            len = frame + size;
            add(&self.counters.frames_out, 1);
            add(&self.counters.bytes_out, size);
        }
        Ok((len, false))
    }

    /// Like [`Shuttle::take_frames`], from a TAP with offloads. Where a super-frame becomes longer than
    /// there is room, what is there is sent in between.
    fn take_super_frames<const STREAM: bool>(
        &self,
        buffer: &mut [u8],
        mut late: u32,
    ) -> Result<(usize, bool), End> {
        SUPER.with_borrow_mut(|packet| {
            let mut len = 0;
            let (batch, last) = self.batch();
            while len < batch && self.counters.frames_out.get() < last {
                let size = match unistd::read(self.tap.get_ref(), packet) {
                    Ok(0) => return Err(End::PortLost),
                    Ok(size) => size,
                    Err(Errno::EAGAIN) => return Ok((len, true)),
                    Err(Errno::EINTR) => continue,
                    Err(_) => return Err(End::PortLost),
                };
                let packet = &packet[..size];
                let unwanted = packet
                    .get(offload::HEADER_LEN..)
                    .and_then(Frame::new)
                    .is_some_and(|frame| !self.is_wanted(frame));
                let Ok(mut frames) = Segments::new(packet) else {
                    self.counters.dropped(Dropped::Malformed, 1);
                    continue;
                };
                // One of them is enough for a sender of TCP to notice.
                if !unwanted && self.is_late(&mut late) {
                    frames.write_next(&mut buffer[len..]);
                }
                while let Some(size) = frames.next_len().filter(|_| !unwanted) {
                    if len + MAX_HEADER + length_len::<STREAM>() + size > buffer.len() {
                        self.outbox.send(&self.stream, &buffer[..len])?;
                        len = 0;
                    }
                    let header = ws::header(Opcode::Binary, length_len::<STREAM>() + size);
                    put_header::<STREAM>(buffer, len, header, size);
                    len += header.1 + length_len::<STREAM>();
                    frames.write_next(&mut buffer[len..len + size]);
                    len += size;
                    add(&self.counters.frames_out, 1);
                    add(&self.counters.bytes_out, size);
                }
            }
            Ok((len, false))
        })
    }

    /// Whether a frame is to be dropped, while some are.
    fn is_late(&self, late: &mut u32) -> bool {
        let is_late = *late > 0;
        if is_late {
            *late -= 1;
            add(&self.counters.late, 1);
        }
        is_late
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

/// Bytes that may be read from a client at once: so many frames of the shortest are in them at most.
fn read_at_once<const STREAM: bool>(limit: &RefCell<Option<Limiter>>) -> usize {
    let share = share_of(limit);
    let frames = usize::try_from(share.frames).unwrap_or(usize::MAX);
    let shortest = if STREAM { SHORTEST_IN_STREAM } else { SHORTEST_MESSAGE };
    share.bytes.min(frames.saturating_mul(shortest)).max(LEAST_READ)
}

/// Bytes of the length before each frame for a guest.
const fn length_len<const STREAM: bool>() -> usize {
    if STREAM { LENGTH_LEN } else { 0 }
}

/// Writes a WebSocket header, and what else stands before a frame of `size` bytes, from `at` on.
#[inline]
fn put_header<const STREAM: bool>(
    buffer: &mut [u8],
    at: usize,
    (header, len): ([u8; MAX_HEADER], usize),
    size: usize,
) {
    buffer[at..at + len].copy_from_slice(&header[..len]);
    if STREAM {
        buffer[at + len..at + len + LENGTH_LEN].copy_from_slice(&framing::length(size));
    }
}

/// Bytes of the WebSocket header of all frames but the shortest and jumbo ones.
const SHORT_HEADER: usize = 4;

/// Moves what was kept to the thread's buffer, behind [`ROOM`], and frees it; returns where it ends.
fn refill(buffer: &mut [u8], partial: &mut Vec<u8>) -> usize {
    let end = ROOM + partial.len();
    buffer[ROOM..end].copy_from_slice(partial);
    *partial = Vec::new();
    end
}

#[cfg(test)]
#[path = "shuttle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "shuttle_allocation_tests.rs"]
mod allocation_tests;
