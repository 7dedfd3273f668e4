//! Frames from a client whose messages carry a stream: what [`super`] does with a message then.
//!
//! A message may have thousands of frames, of which a step passes on some only, so that the other
//! sessions get their turn; it may also have to wait behind one of them until its source is bound.
//! What it still has is kept then, and nothing is read before that is done with.

use super::{ROOM, Shuttle};
use crate::end::End;
use crate::framing::{Deframer, Found};
use std::cell::RefCell;
use std::mem;
use std::ops::Range;
use wsnic_proto::offload::{Run, Sum};

/// Frames of one message that are passed on in one step: about as many as a turn has time for.
const AT_ONCE: usize = 128;

/// What a session keeps of its client's stream; boxed, so that others have no room for it.
#[derive(Debug, Default)]
pub struct StreamIn(Box<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    deframer: Deframer,
    /// The end of a message that was not done with; less than a message.
    rest: Vec<u8>,
}

impl StreamIn {
    /// Whether a message is not done with.
    pub fn has_rest(&self) -> bool {
        !self.0.borrow().rest.is_empty()
    }
}

impl Shuttle {
    /// Goes on with the message that was not done with, if there is one.
    pub(super) fn stream_rest(&self, stream: &StreamIn, run: &mut Run) -> Result<(), End> {
        let rest = mem::take(&mut stream.0.borrow_mut().rest);
        if rest.is_empty() { Ok(()) } else { self.stream_apart(stream, &rest, run) }
    }

    /// A message, or a part of one, that does not lie in the thread's buffer.
    pub(super) fn stream_apart(
        &self,
        stream: &StreamIn,
        message: &[u8],
        run: &mut Run,
    ) -> Result<(), End> {
        let mut bytes = [&[0; ROOM], message].concat();
        let range = ROOM..bytes.len();
        let taken = self.stream(stream, &mut bytes, range, run);
        let flushed = self.flush_run(&mut bytes, run);
        taken.and(flushed)
    }

    /// A message that lies in `bytes`.
    pub(super) fn stream(
        &self,
        stream: &StreamIn,
        bytes: &mut [u8],
        range: Range<usize>,
        run: &mut Run,
    ) -> Result<(), End> {
        let mut state = stream.0.borrow_mut();
        let (mut at, mut frames) = (range.start, 0);
        while at < range.end {
            if frames == AT_ONCE || self.held.borrow().is_some() {
                state.rest = bytes[at..range.end].to_vec();
                break;
            }
            let (used, found) = state.deframer.next(&bytes[at..range.end])?;
            match found {
                Some(Found::Here(frame)) => {
                    let frame = at + frame.start..at + frame.end;
                    let sum = Sum::of(&bytes[frame.clone()]);
                    self.message(bytes, frame, sum, run)?;
                }
                Some(Found::Whole(frame)) => {
                    self.flush_run(bytes, run)?;
                    self.apart(&frame)?;
                }
                None => {}
            }
            at += used;
            frames += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "stream_in_tests.rs"]
mod tests;
