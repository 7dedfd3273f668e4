//! What is on its way to a client and was not taken by its socket yet.
//!
//! At most one batch of frames and some messages of our own, each whole and in order.

use crate::end::End;
use crate::shuttle::WRITE_BUFFER;
use crate::stream::Stream;
use crate::ws::{self, MAX_HEADER, Opcode};
use std::cell::RefCell;
use std::io;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Control messages and DHCP answers are dropped when this much waits for a client already.
const MAX_WAITING: usize = WRITE_BUFFER + 16 * 1024;

/// That of one session.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: RefCell<Vec<u8>>,
    posted: Notify,
}

impl Outbox {
    /// Keeps a control message or an answer of our own for the next flush, or drops it if too much
    /// waits already.
    pub fn post(&self, opcode: Opcode, payload: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + payload.len() + MAX_HEADER > MAX_WAITING {
            return;
        }
        let (header, len) = ws::header(opcode, payload.len());
        bytes.extend_from_slice(&header[..len]);
        bytes.extend_from_slice(payload);
        self.posted.notify_one();
    }

    /// Returns when something was posted.
    pub async fn posted(&self) {
        self.posted.notified().await;
    }

    /// Sends `batch`, keeping what the socket does not take; true if it takes all.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn send(&self, stream: &Stream, batch: &[u8]) -> Result<bool, End> {
        let mut bytes = self.bytes.borrow_mut();
        let mut sent = 0;
        // Something may have been posted since the last flush: messages stay whole and in order.
        if bytes.is_empty() {
            while sent < batch.len() {
                match stream.try_write(&batch[sent..]) {
                    Ok(len) => sent += len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return Err(End::Lost),
                }
                // What a socket does not take at once it does not take yet; TLS takes it in pieces.
                if !stream.is_tls() {
                    break;
                }
            }
        }
        bytes.extend_from_slice(&batch[sent..]);
        Ok(bytes.is_empty())
    }

    /// Waits until the socket has taken all that waits for it; returns for how long.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn flush(&self, stream: &Stream) -> Result<Duration, End> {
        let is_done = || self.bytes.borrow().is_empty() && !stream.has_unsent();
        if is_done() {
            return Ok(Duration::ZERO);
        }
        let started = Instant::now();
        while !is_done() {
            stream.writable().await.map_err(|_| End::Lost)?;
            let mut bytes = self.bytes.borrow_mut();
            match stream.try_write(&bytes) {
                Ok(sent) if sent == bytes.len() => *bytes = Vec::new(),
                Ok(sent) => drop(bytes.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Lost),
            }
        }
        Ok(started.elapsed())
    }

    /// What is still to be sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner()
    }
}
