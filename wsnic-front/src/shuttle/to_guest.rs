//! From the bridge to a guest: what the TAP holds, cut where it is a super-frame, each frame behind its
//! WebSocket header, and sent by one write.

use super::{SUPER, Shuttle, TAP_INTEREST, WRITE, length_len, share_of, wait_of};
use crate::codel::Codel;
use crate::counters::{Dropped, add};
use crate::end::End;
use crate::framing::{self, LENGTH_LEN};
use crate::news::Item;
use crate::turn::{TURN, Turn};
use crate::ws::{self, MAX_HEADER, Opcode};
use nix::errno::Errno;
use nix::unistd;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use wsnic_proto::Frame;
use wsnic_proto::offload::{self, Segments};

/// Bytes that one write takes to a client, about: the last frame may go beyond.
const BATCH: usize = 64 * 1024;
/// The same for a client whose socket has taken all of the batches before at once: it is woken less
/// often. One whose socket has not is given less again, so that little waits for it.
pub(super) const LONGEST_BATCH: usize = 256 * 1024;
/// Frames that one write takes to a client: short ones cost a system call each, not bytes. More than
/// wait in a port (PORT_QUEUE_LEN of `wsnic-priv`), so that what is left behind them is a queue that
/// stands, as [`Codel`] understands it.
const BATCH_FRAMES: u64 = 512;

/// Bytes of a batch of answers. Where the last one was longer, the guest is sent more than it sends, and
/// what gathers while an event is waited for makes longer batches.
const FEW: usize = 4 * 1024;

/// Bytes to send at once.
#[derive(Debug, PartialEq, Eq)]
struct Batch(usize);

impl Default for Batch {
    fn default() -> Batch {
        Batch(BATCH)
    }
}

impl Batch {
    /// Takes note of one of `len` bytes: whether the socket took all of it, and how long that took.
    fn sent(&mut self, len: usize, is_taken: bool, took: Duration) {
        if !is_taken || took > TURN {
            self.0 = (self.0 / 2).max(BATCH);
        } else if len >= self.0 && took < TURN / 2 {
            self.0 = (self.0 * 2).min(LONGEST_BATCH);
        }
    }
}

impl Shuttle {
    pub(super) async fn bridge_to_guest<const STREAM: bool>(&self, hold_back: Duration) -> End {
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
        let (mut batch, mut last) = (Batch::default(), 0);
        loop {
            match self.outbox.flush(&self.stream).await {
                Ok(wait) => waited += wait,
                Err(end) => return end,
            }
            turn.pass_on().await;
            let mut guard = tokio::select! {
                biased;
                ready = self.tap.ready(TAP_INTEREST) => match ready {
                    Ok(guard) => Some(guard),
                    Err(_) => return End::PortLost,
                },
                () = self.written(), if last < FEW => None,
                () = self.outbox.posted() => continue,
            };
            self.has_written.set(false);
            let late = match waited {
                Duration::ZERO => 0,
                waited => codel.batch(waited, drained, std::time::Instant::now()),
            };
            let frames = self.counters.frames_out.get();
            turn.begin();
            let sent = WRITE.with_borrow_mut(|buffer| {
                let (len, drained) = match self.offloads.has_header() {
                    true => self.take_super_frames::<STREAM>(buffer, batch.0, late)?,
                    false => self.take_frames::<STREAM>(buffer, batch.0, late)?,
                };
                // Without a guard there is an event still to come, and it says if there is more.
                if let (true, Some(guard)) = (drained, &mut guard) {
                    guard.clear_ready();
                }
                let is_taken = self.outbox.send(&self.stream, &buffer[..len])?;
                Ok((len, drained, is_taken))
            });
            let took = turn.end();
            self.bind_given().await;
            match sent {
                Ok((len, empty, is_taken)) => {
                    (drained, last) = (empty, len);
                    batch.sent(len, is_taken, took);
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

    /// Returns when something was written to the TAP: what the kernel itself answers is there before the
    /// write returns, and is not waited for as an event. Who writes is polled before, in the same task.
    async fn written(&self) {
        poll_fn(|_| if self.has_written.get() { Poll::Ready(()) } else { Poll::Pending }).await;
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

    /// How much of `at_once` is to be taken for a guest: bytes, and up to which count of frames.
    fn batch(&self, at_once: usize) -> (usize, u64) {
        let share = share_of(&self.limit_down);
        let frames = share.frames.min(BATCH_FRAMES);
        let last = self.counters.frames_out.get().saturating_add(frames);
        (at_once.min(share.bytes), last)
    }

    /// Drains the TAP into `buffer`, each frame behind its header, but for the first frames of what
    /// it gives, of which `late` are dropped: bytes filled, and whether the TAP is empty.
    fn take_frames<const STREAM: bool>(
        &self,
        buffer: &mut [u8],
        at_once: usize,
        mut late: u32,
    ) -> Result<(usize, bool), End> {
        let mut len = 0;
        let (batch, last) = self.batch(at_once);
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
            buffer[len..len + header.1].copy_from_slice(&header.0[..header.1]);
            put_length::<STREAM>(buffer, len + header.1, size);
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
        at_once: usize,
        mut late: u32,
    ) -> Result<(usize, bool), End> {
        SUPER.with_borrow_mut(|packet| {
            let mut len = 0;
            let (batch, last) = self.batch(at_once);
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
                    // All of it, which is no call to copy so few bytes: the rest is the frame's.
                    buffer[len..len + MAX_HEADER].copy_from_slice(&header.0);
                    put_length::<STREAM>(buffer, len + header.1, size);
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

/// Writes at `at` the length that stands before a frame of `size` bytes in a stream.
#[inline]
fn put_length<const STREAM: bool>(buffer: &mut [u8], at: usize, size: usize) {
    if STREAM {
        buffer[at..at + LENGTH_LEN].copy_from_slice(&framing::length(size));
    }
}

/// Bytes of the WebSocket header of all frames but the shortest and jumbo ones.
const SHORT_HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_takes_all_at_once_is_given_more_at_once() {
        let (mut batch, soon) = (Batch::default(), TURN / 10);
        batch.sent(BATCH - 1, true, soon);
        assert_eq!(batch, Batch(BATCH), "there was not more");
        batch.sent(BATCH, true, TURN);
        assert_eq!(batch, Batch(BATCH), "others wait");
        batch.sent(BATCH, true, soon);
        assert_eq!(batch, Batch(BATCH * 2));
        for _ in 0..9 {
            batch.sent(LONGEST_BATCH, true, soon);
        }
        assert_eq!(batch, Batch(LONGEST_BATCH));
        batch.sent(LONGEST_BATCH, false, soon);
        assert_eq!(batch, Batch(LONGEST_BATCH / 2), "it did not take all");
        batch.sent(LONGEST_BATCH, true, soon);
        batch.sent(LONGEST_BATCH, true, TURN * 2);
        assert_eq!(batch, Batch(LONGEST_BATCH / 2), "it took long");
        for _ in 0..9 {
            batch.sent(BATCH, false, TURN * 2);
        }
        assert_eq!(batch, Batch(BATCH));
    }
}
