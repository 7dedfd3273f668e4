//! The stream of frames behind their lengths, against a model that has all of it at once.

use crate::tape::Tape;
use wsnic_front::framing::{BadLength, Deframer, Found, is_of_stream, length};

/// Bytes of the shortest and of the longest frame that there is: an Ethernet header; the largest MTU of a
/// TAP, a header and a VLAN tag.
const SHORTEST: usize = 14;
const LONGEST: usize = 65_521 + 14 + 4;

/// However a client's stream is cut into messages, the frames are those that the model finds, it ends
/// where the model ends, and all bytes before that are used. No frame is copied that lies in a message
/// as a whole. What this side writes, the model reads.
///
/// Input: a byte of flags, one from which the lengths of the messages follow, then the client's bytes
/// or, if a flag says so, what they are made of.
pub fn framing(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let flags = tape.byte();
    let seed = tape.byte();
    let sent = if flags & 1 != 0 { compose(&mut tape) } else { tape.rest().to_vec() };

    let expected = model(&sent);
    let mut step = u32::from(seed);
    let cut = deframe(&sent, || {
        step = step.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        // Some of them are empty.
        (step >> 16) as usize % (2 + usize::from(seed) + sent.len() / 64)
    });
    assert_eq!(cut, expected, "cut");
    assert_eq!(deframe(&sent, || usize::MAX), expected, "whole");
    let looks_so = match &expected {
        (frames, Ok(())) if frames.is_empty() => sent.len() == 4,
        (frames, Ok(())) => sent.len() == 4 + frames[0].len(),
        _ => false,
    };
    assert_eq!(is_of_stream(&sent), looks_so);
}

type Outcome = (Vec<Vec<u8>>, Result<(), BadLength>);

fn deframe(sent: &[u8], mut len_of_message: impl FnMut() -> usize) -> Outcome {
    let (mut deframer, mut frames, mut rest) = (Deframer::default(), Vec::new(), sent);
    while !rest.is_empty() {
        let (mut message, behind) = rest.split_at(len_of_message().min(rest.len()));
        rest = behind;
        let mut is_first = true;
        while !message.is_empty() {
            let (used, found) = match deframer.next(message) {
                Ok(next) => next,
                Err(error) => return (frames, Err(error)),
            };
            match found {
                Some(Found::Here(range)) => {
                    assert_eq!(range.end, used);
                    frames.push(message[range].to_vec());
                }
                Some(Found::Whole(frame)) => {
                    assert!(is_first, "a frame was copied that lies in a message");
                    frames.push(frame);
                }
                None => assert_eq!(used, message.len(), "bytes were left without a frame"),
            }
            is_first = false;
            message = &message[used..];
        }
    }
    (frames, Ok(()))
}

fn model(sent: &[u8]) -> Outcome {
    let (mut frames, mut rest) = (Vec::new(), sent);
    while rest.len() >= 4 {
        let len = rest[..4].iter().fold(0u64, |sum, byte| sum * 256 + u64::from(*byte));
        if len < SHORTEST as u64 || len > LONGEST as u64 {
            return (frames, Err(BadLength(len as u32)));
        }
        let end = 4 + len as usize;
        if rest.len() < end {
            break;
        }
        frames.push(rest[4..end].to_vec());
        rest = &rest[end..];
    }
    (frames, Ok(()))
}

/// Lengths that are mostly right, and frames longer than a fuzzer's input.
fn compose(tape: &mut Tape<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let (Some(kind), true) = (tape.next(), bytes.len() < 300_000) {
        let len = match kind {
            short @ 0..=200 => usize::from(short),
            201..=230 => usize::from(tape.short()),
            _ => LONGEST - 6 + usize::from(tape.byte() % 8),
        };
        bytes.extend(length(len));
        let content = tape.take(len.min(4));
        bytes.extend((0..len).map(|at| content.get(at % 5).copied().unwrap_or(at as u8)));
    }
    bytes
}
