//! The hot path: frames between a client's WebSocket and its port on the bridge.
//!
//! Theory of operation. A session is one task, so its two loops share state without locks and
//! never run at the same time. Buffers belong to the thread and are used between two awaits only:
//! an idle session holds none. Towards the guest the TAP is drained into one buffer, each frame
//! behind its WebSocket header, and sent by one write. What the socket does not take is kept
//! ([`Outbox`], at most one batch), and until it is gone the TAP is left unread: the kernel drops
//! what does not fit its queue, so a client that stops reading costs nothing but its own frames.
//! Towards the bridge one read of the socket is decoded and unmasked in place and each message
//! written to the TAP from where it lies; only a message that is not complete yet is kept.
//!
//! Nothing here allocates per frame, takes a lock, or logs.

use crate::dhcp_port::DhcpPort;
use crate::ws::{self, Event, MAX_HEADER, Opcode, Violation};
use nix::errno::Errno;
use nix::unistd;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use wsnic_proto::Frame;
use wsnic_proto::frame::FramePolicy;

/// Bytes of the thread's buffer for what clients send: a whole message and the start of others.
const READ_BUFFER: usize = 256 * 1024;
/// Bytes that one write takes to a client, about: the last frame may go beyond.
const BATCH: usize = 64 * 1024;
/// Bytes that one session may move before others get their turn.
const TURN: usize = 1024 * 1024;
/// What a frame costs besides its bytes, in bytes: a system call.
const FRAME_COST: usize = 1024;
/// Room behind [`BATCH`] for the longest frame and its header.
const WRITE_BUFFER: usize = BATCH + 66 * 1024;
/// Control messages and DHCP answers are dropped when this much waits for a client already.
const MAX_WAITING: usize = WRITE_BUFFER + 16 * 1024;
/// A client that is silent for this long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(30);
/// A client that is silent for this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(100);

/// A TAP that was deleted has nothing to read; epoll says so as an error.
pub const TAP_INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BUFFER]);
    static WRITE: RefCell<Vec<u8>> = RefCell::new(vec![0; WRITE_BUFFER]);
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client sent a close message, with this code.
    #[error("the client closed the session")]
    Closed(Option<u16>),
    /// The connection ended without one.
    #[error("the connection was lost")]
    Lost,
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// Nothing came from the client for [`DEAD_AFTER`].
    #[error("the client is silent")]
    Silent,
    /// The TAP is gone.
    #[error("the port was deleted")]
    PortLost,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Shutdown,
}

impl End {
    /// The code for the close message; None when nobody would read it.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            End::Closed(code) => Some(code.unwrap_or(ws::code::NORMAL)),
            End::Lost => None,
            End::Violation(violation) => Some(violation.close_code()),
            End::Silent | End::Shutdown => Some(ws::code::GOING_AWAY),
            End::PortLost => Some(ws::code::INTERNAL),
        }
    }
}

/// What has gone through a session.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from the guest that went to the bridge.
    pub frames_in: Cell<u64>,
    /// Their bytes.
    pub bytes_in: Cell<u64>,
    /// Frames from the bridge that were sent to the guest.
    pub frames_out: Cell<u64>,
    /// Their bytes.
    pub bytes_out: Cell<u64>,
    /// Messages of the client that were not fit for the bridge.
    pub dropped: Cell<u64>,
    /// Text messages, ignored.
    pub texts: Cell<u64>,
}

fn cost(frames: u64) -> usize {
    usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(FRAME_COST)
}

fn add(counter: &Cell<u64>, amount: usize) {
    counter.set(counter.get() + amount as u64);
}

/// A session that is open.
pub struct Shuttle {
    stream: TcpStream,
    tap: AsyncFd<OwnedFd>,
    policy: FramePolicy,
    dhcp: Option<DhcpPort>,
    outbox: RefCell<Vec<u8>>,
    outbox_filled: Notify,
    text_came: Notify,
    last_heard: Cell<Instant>,
    /// What has gone through.
    pub counters: Counters,
}

impl Shuttle {
    /// A session between `stream`, whose handshake is done, and `tap`.
    pub fn new(
        stream: TcpStream,
        tap: AsyncFd<OwnedFd>,
        policy: FramePolicy,
        dhcp: Option<DhcpPort>,
    ) -> Shuttle {
        Shuttle {
            stream,
            tap,
            policy,
            dhcp,
            outbox: RefCell::default(),
            outbox_filled: Notify::new(),
            text_came: Notify::new(),
            last_heard: Cell::new(Instant::now()),
            counters: Counters::default(),
        }
    }

    /// Moves frames until the session ends. `early` is what came behind the handshake.
    pub async fn run(&self, early: Vec<u8>, decoder: ws::Decoder, hold_back: Duration) -> End {
        tokio::select! {
            end = self.guest_to_bridge(early, decoder) => end,
            end = self.bridge_to_guest(hold_back) => end,
            end = self.watch_silence() => end,
        }
    }

    /// Returns when text messages have come that nobody was told of.
    pub async fn text_came(&self) {
        self.text_came.notified().await;
    }

    /// Gives the parts back when the session has ended: what is still to be sent, and the TAP.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>, OwnedFd) {
        (self.stream, self.outbox.into_inner(), self.tap.into_inner())
    }

    async fn guest_to_bridge(&self, early: Vec<u8>, mut decoder: ws::Decoder) -> End {
        // What is not complete yet.
        let mut partial = early;
        if let Err(end) = READ.with_borrow_mut(|buffer| {
            let len = refill(buffer, &mut partial);
            self.take_messages(&mut buffer[..len], &mut decoder, &mut partial)
        }) {
            return end;
        }
        loop {
            if self.stream.readable().await.is_err() {
                return End::Lost;
            }
            let mut turn = 0;
            while turn < TURN {
                let frames = self.counters.frames_in.get();
                let step = READ.with_borrow_mut(|buffer| {
                    let kept = refill(buffer, &mut partial);
                    match self.stream.try_read(&mut buffer[kept..]) {
                        Ok(0) => Err(End::Lost),
                        Ok(len) => {
                            self.take_messages(
                                &mut buffer[..kept + len],
                                &mut decoder,
                                &mut partial,
                            )?;
                            Ok(len)
                        }
                        Err(error) => {
                            partial.extend_from_slice(&buffer[..kept]);
                            match error.kind() {
                                io::ErrorKind::WouldBlock => Ok(0),
                                _ => Err(End::Lost),
                            }
                        }
                    }
                });
                match step {
                    Ok(0) => break,
                    Ok(len) => turn += len + cost(self.counters.frames_in.get() - frames),
                    Err(end) => return end,
                }
            }
            self.last_heard.set(Instant::now());
            if turn >= TURN {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Handles every complete message in `bytes`, keeps the rest in `partial`.
    fn take_messages(
        &self,
        mut bytes: &mut [u8],
        decoder: &mut ws::Decoder,
        partial: &mut Vec<u8>,
    ) -> Result<(), End> {
        loop {
            let (used, event) = decoder.next(bytes)?;
            match event {
                Some(Event::Message([])) | Some(Event::Pong) | None => {}
                Some(Event::Message(message)) => self.frame_from_guest(message)?,
                Some(Event::Text(_)) => {
                    add(&self.counters.texts, 1);
                    self.text_came.notify_one();
                }
                Some(Event::Ping(payload)) => self.post(Opcode::Pong, payload),
                Some(Event::Close(code)) => return Err(End::Closed(code)),
            }
            if used == 0 {
                partial.extend_from_slice(bytes);
                return Ok(());
            }
            bytes = &mut bytes[used..];
        }
    }

    fn frame_from_guest(&self, message: &[u8]) -> Result<(), End> {
        let Ok(frame) = self.policy.check(message) else {
            add(&self.counters.dropped, 1);
            return Ok(());
        };
        if let Some(dhcp) = &self.dhcp {
            if frame.is_to_dhcp_server() {
                if let Some(answer) = dhcp.answer(message) {
                    self.post(Opcode::Binary, &answer);
                }
                return Ok(());
            }
            if frame.is_to_dhcp_client() {
                add(&self.counters.dropped, 1);
                return Ok(());
            }
        }
        match unistd::write(self.tap.get_ref(), message) {
            Ok(_) => {
                add(&self.counters.frames_in, 1);
                add(&self.counters.bytes_in, message.len());
            }
            Err(Errno::EBADFD) => return Err(End::PortLost),
            // Interface down, queue full, refused by the kernel: this frame's loss.
            Err(_) => add(&self.counters.dropped, 1),
        }
        Ok(())
    }

    async fn bridge_to_guest(&self, hold_back: Duration) -> End {
        if !hold_back.is_zero() {
            // Until the client's first frame, or this long.
            let until = Instant::now() + hold_back;
            while self.counters.frames_in.get() == 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let mut turn = 0;
        loop {
            if let Err(end) = self.flush().await {
                return end;
            }
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
            let mut guard = tokio::select! {
                ready = self.tap.ready(TAP_INTEREST) => match ready {
                    Ok(guard) => guard,
                    Err(_) => return End::PortLost,
                },
                () = self.outbox_filled.notified() => continue,
            };
            let frames = self.counters.frames_out.get();
            let sent = WRITE.with_borrow_mut(|buffer| {
                let (len, drained) = self.take_frames(buffer)?;
                if drained {
                    guard.clear_ready();
                }
                self.send(&buffer[..len])?;
                Ok(len)
            });
            match sent {
                Ok(len) => turn += len + cost(self.counters.frames_out.get() - frames),
                Err(end) => return end,
            }
        }
    }

    /// Drains the TAP into `buffer`, each frame behind its header: bytes filled, and whether the
    /// TAP is empty.
    fn take_frames(&self, buffer: &mut [u8]) -> Result<(usize, bool), End> {
        let mut len = 0;
        while len < BATCH {
            // The header's length depends on the frame's: read behind the longest one, then close
            // the gap, which moves short frames only (longer ones have a header of 4 bytes).
            let at = len + SHORT_HEADER;
            let size = match unistd::read(self.tap.get_ref(), &mut buffer[at..]) {
                Ok(0) => return Err(End::PortLost),
                Ok(size) => size,
                Err(Errno::EAGAIN) => return Ok((len, true)),
                Err(Errno::EINTR) => continue,
                Err(_) => return Err(End::PortLost),
            };
            let wanted = Frame::new(&buffer[at..at + size])
                .is_some_and(|frame| self.dhcp.is_none() || !frame.is_to_dhcp_client());
            if !wanted {
                continue;
            }
            let (header, header_len) = ws::header(Opcode::Binary, size);
            if header_len != SHORT_HEADER {
                buffer.copy_within(at..at + size, len + header_len);
            }
            buffer[len..len + header_len].copy_from_slice(&header[..header_len]);
            len += header_len + size;
            add(&self.counters.frames_out, 1);
            add(&self.counters.bytes_out, size);
        }
        Ok((len, false))
    }

    /// Sends a control message or an answer of our own, or drops it if too much waits already.
    fn post(&self, opcode: Opcode, payload: &[u8]) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.len() + payload.len() + MAX_HEADER > MAX_WAITING {
            return;
        }
        let (header, len) = ws::header(opcode, payload.len());
        outbox.extend_from_slice(&header[..len]);
        outbox.extend_from_slice(payload);
        self.outbox_filled.notify_one();
    }

    /// Sends `bytes`, keeping in the outbox what the socket does not take.
    fn send(&self, bytes: &[u8]) -> Result<(), End> {
        let mut outbox = self.outbox.borrow_mut();
        let mut sent = 0;
        // Something may have been posted since the last flush: messages stay whole and in order.
        if outbox.is_empty() {
            sent = match self.stream.try_write(bytes) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Err(End::Lost),
            };
        }
        outbox.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Waits until the socket has taken all that waits for it.
    async fn flush(&self) -> Result<(), End> {
        while !self.outbox.borrow().is_empty() {
            self.stream.writable().await.map_err(|_| End::Lost)?;
            let mut outbox = self.outbox.borrow_mut();
            match self.stream.try_write(&outbox) {
                Ok(sent) if sent == outbox.len() => *outbox = Vec::new(),
                Ok(sent) => drop(outbox.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Lost),
            }
        }
        Ok(())
    }

    async fn watch_silence(&self) -> End {
        let mut wake = self.last_heard.get() + PING_AFTER;
        loop {
            tokio::time::sleep_until(wake).await;
            let (now, heard) = (Instant::now(), self.last_heard.get());
            if now >= heard + DEAD_AFTER {
                return End::Silent;
            }
            if now >= heard + PING_AFTER {
                self.post(Opcode::Ping, &[]);
                wake = (now + PING_AFTER).min(heard + DEAD_AFTER);
            } else {
                wake = heard + PING_AFTER;
            }
        }
    }
}

/// Bytes of the header of all frames but the shortest and jumbo ones.
const SHORT_HEADER: usize = 4;

/// Moves what was kept to the start of the thread's buffer and frees it; returns its length.
fn refill(buffer: &mut [u8], partial: &mut Vec<u8>) -> usize {
    let len = partial.len();
    buffer[..len].copy_from_slice(partial);
    *partial = Vec::new();
    len
}

#[cfg(test)]
#[path = "shuttle_tests.rs"]
mod tests;
