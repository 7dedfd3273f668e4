//! Carries frames between a TAP and a TCP connection, as fast as one thread can.
//!
//! It is the guest's end of every measurement, whatever the server, and with offloads and length
//! prefixes it is the limit: what a server could do if WebSocket, policy and sandbox cost nothing.
//! The TAP is drained into one buffer and sent by one write; one read of the socket is taken apart
//! where it lies. While the socket takes nothing the TAP is left unread.

use crate::line::Line;
use crate::offload::{self, MAX_JOINED, Run, VNET};
use crate::wire::{Arrival, MAX_HEADER, PONG_MESSAGE, Wire};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;

/// Bytes that one write takes, about.
const BATCH: usize = 64 * 1024;
/// Bytes that one read of the socket takes.
const READ: usize = 256 * 1024;
/// Bytes of the longest that a TAP gives, and room.
const LONGEST: usize = 68 * 1024;

/// One TAP, one connection.
pub struct Pump {
    tap: File,
    socket: Line,
    wire: Wire,
    offloads: bool,
    taken: Vec<u8>,
    out: Vec<u8>,
    out_from: usize,
    out_to: usize,
    inbox: Vec<u8>,
    inbox_len: usize,
    run: Run,
    key: u32,
}

/// The connection is gone, or the TAP.
struct Ended;

impl Pump {
    /// `offloads` is what the TAP was made with.
    pub fn new(tap: File, socket: Line, wire: Wire, offloads: bool) -> Pump {
        socket.socket().set_nonblocking(true).expect("a socket can be non-blocking");
        socket.socket().set_nodelay(true).expect("a TCP socket");
        Pump {
            tap,
            socket,
            wire,
            offloads,
            taken: vec![0; LONGEST],
            // A super-frame in small pieces has more headers than bytes of its own.
            out: vec![0; BATCH + 4 * LONGEST],
            out_from: 0,
            out_to: 0,
            inbox: vec![0; READ + LONGEST],
            inbox_len: 0,
            run: Run::new(),
            key: 0x9e37_79b9,
        }
    }

    /// Runs until the connection ends.
    pub fn run(mut self) {
        while self.turn().is_ok() {}
    }

    fn turn(&mut self) -> Result<(), Ended> {
        let waiting = self.out_from < self.out_to || self.socket.has_unsent();
        let (socket, tap) = if waiting {
            (PollFlags::POLLIN | PollFlags::POLLOUT, PollFlags::empty())
        } else {
            (PollFlags::POLLIN, PollFlags::POLLIN)
        };
        let mut fds =
            [PollFd::new(self.socket.as_fd(), socket), PollFd::new(self.tap.as_fd(), tap)];
        let unread = self.socket.has_unread();
        match poll(&mut fds, if unread { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Err(Errno::EINTR) => return Ok(()),
            other => other.map_err(|_| Ended)?,
        };
        let [socket, tap] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let readable = PollFlags::POLLIN | PollFlags::POLLERR | PollFlags::POLLHUP;
        if unread || socket.intersects(readable) {
            self.socket_to_tap()?;
        }
        if socket.contains(PollFlags::POLLOUT) {
            self.flush()?;
        }
        if self.out_to == 0 && !self.socket.has_unsent() && !tap.is_empty() {
            self.tap_to_socket()?;
        }
        Ok(())
    }

    fn tap_to_socket(&mut self) -> Result<(), Ended> {
        while self.out_to < BATCH {
            let more = if self.offloads { self.take_super_frame()? } else { self.take_frame()? };
            if !more {
                break;
            }
        }
        self.flush()
    }

    fn take_frame(&mut self) -> Result<bool, Ended> {
        // Most frames have the long header; a short one moves.
        let header = self.wire.header_len(1514);
        let at = self.out_to + header;
        let Some(len) = read_tap(&self.tap, &mut self.out[at..])? else { return Ok(false) };
        let wanted = self.wire.header_len(len);
        if wanted != header {
            self.out.copy_within(at..at + len, self.out_to + wanted);
        }
        let end = self.out_to + wanted + len;
        let key = next_key(&mut self.key);
        self.wire.seal(&mut self.out[self.out_to..end], key);
        self.out_to = end;
        Ok(true)
    }

    fn take_super_frame(&mut self) -> Result<bool, Ended> {
        let Some(len) = read_tap(&self.tap, &mut self.taken)? else { return Ok(false) };
        let (wire, out, at, key) = (self.wire, &mut self.out, &mut self.out_to, &mut self.key);
        offload::cut(&mut self.taken[..len], |len, fill| {
            let header = wire.header_len(len);
            let end = *at + header + len;
            fill(&mut out[*at + header..end]);
            wire.seal(&mut out[*at..end], next_key(key));
            *at = end;
        });
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Ended> {
        while self.out_from < self.out_to {
            match self.socket.write(&self.out[self.out_from..self.out_to]) {
                Ok(sent) => self.out_from += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Ended),
            }
        }
        (self.out_from, self.out_to) = (0, 0);
        match self.socket.send() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(Ended),
            _ => Ok(()),
        }
    }

    fn socket_to_tap(&mut self) -> Result<(), Ended> {
        match self.socket.read(&mut self.inbox[self.inbox_len..]) {
            Ok(0) => return Err(Ended),
            Ok(len) => self.inbox_len += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Ended),
        }
        let mut at = 0;
        while let Some(arrival) = self.wire.next(&self.inbox[at..self.inbox_len]) {
            at += match arrival {
                Arrival::Frame { header, len } => {
                    self.deliver(at + header, len);
                    header + len
                }
                Arrival::Ping { len } => {
                    // A ping comes to the idle, so there is room.
                    if self.out_to + PONG_MESSAGE.len() + MAX_HEADER < self.out.len() {
                        self.out[self.out_to..][..PONG_MESSAGE.len()]
                            .copy_from_slice(&PONG_MESSAGE);
                        self.out_to += PONG_MESSAGE.len();
                    }
                    len
                }
                Arrival::Other { len } => len,
                Arrival::Close => return Err(Ended),
            };
        }
        self.write_run();
        self.inbox.copy_within(at..self.inbox_len, 0);
        self.inbox_len -= at;
        self.flush()
    }

    /// A TAP that takes no frame loses it, as a card does.
    fn deliver(&mut self, at: usize, len: usize) {
        if !self.offloads {
            let _ = (&self.tap).write(&self.inbox[at..at + len]);
        } else if !self.run.add(&self.inbox, at, len) {
            self.write_run();
            self.run.add(&self.inbox, at, len);
        }
    }

    fn write_run(&mut self) {
        if !self.run.is_empty() {
            let mut parts = [IoSlice::new(&[]); MAX_JOINED + 1];
            let mut count = 0;
            self.run.take(&self.inbox, |part| {
                parts[count] = IoSlice::new(part);
                count += 1;
            });
            let _ = (&self.tap).write_vectored(&parts[..count]);
        }
    }
}

/// None when the TAP is empty, or down.
fn read_tap(mut tap: &File, into: &mut [u8]) -> Result<Option<usize>, Ended> {
    match tap.read(into) {
        Ok(0) => Err(Ended),
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(None),
        Err(_) => Err(Ended),
    }
}

/// Another key for each message, as the standard wants it; nobody has to be kept from guessing it.
fn next_key(state: &mut u32) -> [u8; 4] {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    state.to_ne_bytes()
}

// The vnet header is part of what a TAP gives at once.
const _: () = assert!(LONGEST > 65_535 + 14 + VNET);
