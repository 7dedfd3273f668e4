//! Frames in a stream of bytes, each behind its length: `framing=stream`.
//!
//! The length is that of the frame alone, four bytes with the highest first, as in QEMU's socket and
//! stream back ends and thus in container2wasm. Binary messages carry the bytes; where one message
//! ends and the next begins means nothing.
//!
//! Runs in the front-end, called by `shuttle` for sessions of networks with that framing. No I/O. At
//! most one frame is kept; what lies in a message as a whole is not copied.

use std::mem;
use std::ops::Range;
use wsnic_proto::frame::{HEADER_LEN, max_frame_len};

/// Bytes of a length.
pub const LENGTH_LEN: usize = 4;
/// Bytes of the longest frame on any network, whose MTU is at most 65521 (the option `mtu`).
pub const MAX_FRAME: usize = max_frame_len(65_521);

/// Cuts a client's stream into frames.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The beginning of a frame and its length, or of the length.
    kept: Vec<u8>,
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It lies here in the bytes.
    Here(Range<usize>),
    /// It began in earlier ones.
    Whole(Vec<u8>),
}

/// A length that no frame has; nothing behind it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the length of a frame is {0}, not {HEADER_LEN} to {MAX_FRAME}")]
pub struct BadLength(pub u32);

impl Deframer {
    /// The next frame, and how many of the bytes were used; without a frame all were.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), BadLength> {
        if self.kept.is_empty()
            && let Some(length) = bytes.first_chunk()
        {
            let end = LENGTH_LEN + frame_len(*length)?;
            if end <= bytes.len() {
                return Ok((end, Some(Found::Here(LENGTH_LEN..end))));
            }
        }
        let mut used = self.keep(LENGTH_LEN, bytes);
        let Some(length) = self.kept.first_chunk() else { return Ok((used, None)) };
        let end = LENGTH_LEN + frame_len(*length)?;
        used += self.keep(end, &bytes[used..]);
        if self.kept.len() < end {
            return Ok((used, None));
        }
        let mut frame = mem::take(&mut self.kept);
        frame.drain(..LENGTH_LEN);
        Ok((used, Some(Found::Whole(frame))))
    }

    /// Keeps bytes until there are `wanted`; how many it has taken.
    fn keep(&mut self, wanted: usize, bytes: &[u8]) -> usize {
        let missing = wanted.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..missing]);
        missing
    }
}

fn frame_len(length: [u8; LENGTH_LEN]) -> Result<usize, BadLength> {
    let length = u32::from_be_bytes(length);
    let len = usize::try_from(length).ok().filter(|len| (HEADER_LEN..=MAX_FRAME).contains(len));
    len.ok_or(BadLength(length))
}

/// What stands before a frame of this many bytes.
pub fn length(frame: usize) -> [u8; LENGTH_LEN] {
    // No frame has 4 GiB.
    (frame as u32).to_be_bytes()
}

/// Whether a message that is no good frame looks like a part of a stream: a length, alone or with as
/// many bytes behind it.
pub fn is_of_stream(message: &[u8]) -> bool {
    message.split_first_chunk().is_some_and(|(length, rest)| {
        frame_len(*length).is_ok_and(|len| rest.is_empty() || rest.len() == len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The frames of `bytes` that come in messages of these lengths, and the end.
    fn frames(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<(), BadLength>) {
        let (mut deframer, mut frames, mut rest) = (Deframer::default(), Vec::new(), bytes);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (mut message, behind) = rest.split_at(cut.min(rest.len()));
            rest = behind;
            while !message.is_empty() {
                let (used, found) = match deframer.next(message) {
                    Ok(next) => next,
                    Err(error) => return (frames, Err(error)),
                };
                assert!(found.is_some() || used == message.len());
                assert!(deframer.kept.len() < LENGTH_LEN + MAX_FRAME, "more than a frame is kept");
                frames.extend(found.map(|found| match found {
                    Found::Here(range) => message[range].to_vec(),
                    Found::Whole(frame) => frame,
                }));
                message = &message[used..];
            }
        }
        (frames, Ok(()))
    }

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&length(frame.len())[..], frame].concat()).collect()
    }

    #[test]
    fn a_length_has_its_highest_byte_first_and_does_not_count_itself() {
        let frame = vec![7; 0x0102];
        let bytes = [vec![0, 0, 1, 2], frame.clone()].concat();
        assert_eq!(frames(&bytes, &[]), (vec![frame.clone()], Ok(())));
        assert_eq!(stream(&[frame]), bytes);
    }

    #[test]
    fn frames_that_lie_in_a_message_as_a_whole_are_not_copied() {
        let bytes = stream(&[vec![1; 60], vec![2; 1514]]);
        let mut deframer = Deframer::default();
        assert_eq!(deframer.next(&bytes), Ok((64, Some(Found::Here(4..64)))));
        assert_eq!(deframer.next(&bytes[64..]), Ok((1518, Some(Found::Here(4..1518)))));
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_stream_behind_the_frames_before_it() {
        for wrong in [0, 13, MAX_FRAME as u32 + 1, u32::MAX] {
            let bytes = [stream(&[vec![1; 60]]), wrong.to_be_bytes().to_vec()].concat();
            for cuts in [vec![], vec![1; 100]] {
                assert_eq!(frames(&bytes, &cuts), (vec![vec![1; 60]], Err(BadLength(wrong))));
            }
        }
        for right in [14, MAX_FRAME] {
            assert_eq!(frames(&stream(&[vec![1; right]]), &[2]), (vec![vec![1; right]], Ok(())));
        }
    }

    #[test]
    fn a_frame_that_came_without_its_length_is_refused_by_its_first_bytes() {
        for destination in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 0x16], [0x52, 0x54, 0, 1, 2, 3]] {
            let frame = [&destination[..], &[0x55; 54]].concat();
            let (found, end) = frames(&frame, &[]);
            assert!(found.is_empty() && end.is_err(), "{frame:02x?}");
        }
    }

    #[test]
    fn what_is_of_a_stream_is_told_from_frames() {
        assert!(is_of_stream(&stream(&[vec![0xff; 342]])));
        assert!(is_of_stream(&length(342)));
        for other in [vec![], vec![0; 4], vec![0xff; 4], vec![0xff; 342], vec![0; 60]] {
            assert!(!is_of_stream(&other), "{other:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_into_messages_gives_the_same_frames(
            lens in proptest::collection::vec(prop_oneof![14..100usize, 14..1515usize, 14..MAX_FRAME + 1], 0..8),
            cuts in proptest::collection::vec(prop_oneof![0..6usize, 0..2000usize, 0..100_000usize], 0..40),
        ) {
            let sent: Vec<Vec<u8>> = (0u8..).zip(&lens).map(|(at, len)| vec![at; *len]).collect();
            prop_assert_eq!(frames(&stream(&sent), &cuts), (sent, Ok(())));
        }

        #[test]
        fn any_bytes_mean_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(0), 0u8..40, any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0usize..20, 0..60),
        ) {
            prop_assert_eq!(frames(&bytes, &cuts), frames(&bytes, &[]));
        }
    }
}
