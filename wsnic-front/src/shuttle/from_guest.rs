//! From a guest to the bridge: its client's messages, taken apart in the thread's buffer, checked, and
//! written to the TAP, joined where they may be.

use super::stream_in::StreamIn;
use super::{READ, READ_BUFFER, ROOM, RUN, Shuttle, share_of, wait_of};
use crate::counters::{Dropped, add};
use crate::end::End;
use crate::framing::{self, LENGTH_LEN};
use crate::guest::{Guest, Pair, Passage};
use crate::news::Item;
use crate::pulse::PING_AFTER;
use crate::rate::Limiter;
use crate::turn::{TURN, Turn};
use crate::ws::{self, Event, Opcode};
use nix::errno::Errno;
use nix::sys::uio;
use nix::unistd;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::ops::Range;
use tokio::time::Instant;
use wsnic_proto::offload::{self, Offered, Run, Sum};

/// Bytes of the shortest frame as a message: header, mask, and a frame of a header only.
const SHORTEST_MESSAGE: usize = 2 + 4 + 14;
/// The same of one that does not stand alone in its message.
const SHORTEST_IN_STREAM: usize = LENGTH_LEN + 14;
/// Bytes that are read from a client in any case, however low a limit is.
const LEAST_READ: usize = 256;
/// The same, however long it takes to pass them on.
const LEAST_IN_TURN: usize = 4 * 1024;

impl Shuttle {
    pub(super) async fn guest_to_bridge<const STREAM: bool>(
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
                Some(Event::Message(range, mask)) => {
                    let range = at + range.start..at + range.end;
                    match stream_in {
                        None => self.masked(bytes, range, mask, run)?,
                        Some(stream) => {
                            offload::unmask(&mut bytes[range.clone()], mask);
                            self.stream(stream, bytes, range, run)?;
                        }
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

    /// A frame that is still masked.
    fn masked(
        &self,
        bytes: &mut [u8],
        range: Range<usize>,
        mask: [u8; 4],
        run: &mut Run,
    ) -> Result<(), End> {
        // What goes on with a flow has the addresses of its first frame, which has been let pass.
        match run.offer_masked(bytes, range.clone(), mask) {
            Offered::Joined => Ok(()),
            Offered::Complete => self.flush_run(bytes, run),
            Offered::Refused => {
                let sum = offload::unmask(&mut bytes[range.clone()], mask);
                self.message(bytes, range, sum, run)
            }
        }
    }

    /// A frame that lies in `bytes` as a whole.
    pub(super) fn message(
        &self,
        bytes: &mut [u8],
        range: Range<usize>,
        sum: Sum,
        run: &mut Run,
    ) -> Result<(), End> {
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
        let offered = match run.offer_summed(bytes, range.clone(), sum) {
            Offered::Refused => {
                self.flush_run(bytes, run)?;
                run.offer_summed(bytes, range, sum)
            }
            offered => offered,
        };
        match offered {
            Offered::Joined => Ok(()),
            Offered::Complete | Offered::Refused => self.flush_run(bytes, run),
        }
    }

    /// A frame that lies elsewhere.
    pub(super) fn apart(&self, frame: &[u8]) -> Result<(), End> {
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

    /// Writes what is pending: it lies in one piece, which costs the kernel less than several.
    pub(super) fn flush_run(&self, bytes: &mut [u8], run: &mut Run) -> Result<(), End> {
        let Some(write) = run.take(bytes) else { return Ok(()) };
        let written = unistd::write(self.tap.get_ref(), &bytes[write.range]);
        self.wrote(write.frames, write.bytes, written)
    }

    fn wrote(&self, frames: usize, len: usize, written: nix::Result<usize>) -> Result<(), End> {
        match written {
            Ok(_) => {
                self.has_written.set(true);
                add(&self.counters.frames_in, frames);
                add(&self.counters.bytes_in, len);
            }
            Err(Errno::EBADFD) => return Err(End::PortLost),
            // Interface down, queue full, refused by the kernel: these frames' loss.
            Err(_) => self.counters.dropped(Dropped::Port, frames),
        }
        Ok(())
    }
}

/// Bytes that may be read from a client at once: so many frames of the shortest are in them at most.
fn read_at_once<const STREAM: bool>(limit: &RefCell<Option<Limiter>>) -> usize {
    let share = share_of(limit);
    let frames = usize::try_from(share.frames).unwrap_or(usize::MAX);
    let shortest = if STREAM { SHORTEST_IN_STREAM } else { SHORTEST_MESSAGE };
    share.bytes.min(frames.saturating_mul(shortest)).max(LEAST_READ)
}

/// Moves what was kept to the thread's buffer, behind [`ROOM`], and frees it; returns where it ends.
fn refill(buffer: &mut [u8], partial: &mut Vec<u8>) -> usize {
    let end = ROOM + partial.len();
    buffer[ROOM..end].copy_from_slice(partial);
    *partial = Vec::new();
    end
}
