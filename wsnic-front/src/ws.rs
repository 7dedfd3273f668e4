//! RFC 6455 framing: bytes of a client to messages, messages to bytes.
//!
//! No I/O. The decoder works in place on the caller's buffer: it finds one complete piece at a
//! time and hands out a slice, unmasked where it lies; only fragments of an unfinished message are
//! copied. A whole binary message is handed out as it is, for whoever moves it to unmask it meanwhile.
//! Frame is used here for Ethernet frames alone; RFC 6455's frames are called pieces.

use std::ops::Range;
use std::str;
use wsnic_proto::offload::unmask;

/// Bytes of the longest message that is taken: twice the longest Ethernet frame there is.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// Bytes of the longest header that this side writes: without a mask (RFC 6455 §5.2).
pub const MAX_HEADER: usize = 10;
/// Payload bytes of a control piece (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// What a piece is (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a message.
    Continuation,
    /// Text message.
    Text,
    /// Binary message.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Status codes of a close (RFC 6455 §7.4.1).
pub mod code {
    /// The client asked.
    pub const NORMAL: u16 = 1000;
    /// The server is shutting down.
    pub const GOING_AWAY: u16 = 1001;
    /// The client broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A close reason is not UTF-8.
    pub const BAD_TEXT: u16 = 1007;
    /// The client's time is over.
    pub const POLICY: u16 = 1008;
    /// A message is too long.
    pub const TOO_BIG: u16 = 1009;
    /// The guest's port was lost.
    pub const INTERNAL: u16 = 1011;
}

/// How a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// No such opcode.
    #[error("unknown opcode")]
    Opcode,
    /// Clients must mask (§5.1).
    #[error("unmasked data")]
    Unmasked,
    /// A control piece that is fragmented or longer than 125 bytes.
    #[error("bad control message")]
    Control,
    /// A continuation of nothing, or a new message within one.
    #[error("fragments out of order")]
    Fragments,
    /// A length that is negative or not written in the fewest bytes.
    #[error("bad length")]
    Length,
    /// The payload of a close is no code and reason.
    #[error("bad close code")]
    CloseCode,
    /// The reason of a close is not UTF-8.
    #[error("close reason is not UTF-8")]
    CloseReason,
    /// Longer than [`MAX_MESSAGE`].
    #[error("message longer than {MAX_MESSAGE} bytes")]
    TooBig,
}

impl Violation {
    /// The code to close with.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::TooBig => code::TOO_BIG,
            Violation::CloseReason => code::BAD_TEXT,
            _ => code::PROTOCOL,
        }
    }
}

/// Something complete that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A binary message: where it lies in the bytes that were given, and the mask that is still upon it.
    Message(Range<usize>, [u8; 4]),
    /// A binary message that came in fragments.
    Assembled(&'a [u8]),
    /// A text message of this many bytes.
    Text(usize),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// An answer, with the payload of the ping that it answers, or one that nobody asked for.
    Pong(&'a [u8]),
    /// To be answered by a close with the same code, if there was one.
    Close(Option<u16>),
}

/// What one connection's decoder remembers between pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The unfinished message: its kind and what has come of it.
    message: Option<(Opcode, Vec<u8>)>,
    /// The message handed out last, kept alive while the caller looks at it.
    finished: Vec<u8>,
    /// Whether control pieces may come unmasked (vpn-ws-client sends them so).
    unmasked_control: bool,
}

struct Header {
    last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header.
    len: usize,
    /// Bytes of the payload.
    payload: usize,
}

impl Decoder {
    /// A decoder for a new connection.
    pub fn new(unmasked_control: bool) -> Decoder {
        Decoder { unmasked_control, ..Decoder::default() }
    }

    /// The next complete thing in `bytes`, and how many bytes it used.
    ///
    /// `(0, None)`: the piece at the start is not complete; call again with more behind the same
    /// bytes. `(n, None)` with n > 0: a fragment was kept, go on behind it.
    ///
    /// # Errors
    /// The connection is to be closed with [`Violation::close_code`].
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
    ) -> Result<(usize, Option<Event<'a>>), Violation> {
        self.finished = Vec::new();
        let Some(header) = self.header(bytes)? else { return Ok((0, None)) };
        let used = header.len + header.payload;
        let Some(payload) = bytes.get_mut(header.len..used) else { return Ok((0, None)) };
        if header.opcode == Opcode::Binary && header.last {
            return Ok((used, Some(Event::Message(header.len..used, header.mask))));
        }
        unmask(payload, header.mask);
        let payload = &*payload;
        let event = match header.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong(payload)),
            Opcode::Close => Some(Event::Close(close_code(payload)?)),
            Opcode::Text if header.last => Some(Event::Text(payload.len())),
            opcode => {
                let (_, message) = self.message.get_or_insert_with(|| (opcode, Vec::new()));
                message.extend_from_slice(payload);
                if header.last { self.finish() } else { None }
            }
        };
        Ok((used, event))
    }

    fn finish(&mut self) -> Option<Event<'_>> {
        let (opcode, message) = self.message.take()?;
        self.finished = message;
        Some(match opcode {
            Opcode::Text => Event::Text(self.finished.len()),
            _ => Event::Assembled(&self.finished),
        })
    }

    /// The header at the start of `bytes`; None if it is not complete.
    #[inline]
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Opcode)?;
        let (last, masked) = (first & 0x80 != 0, second & 0x80 != 0);
        let may_be_bare = opcode.is_control() && self.unmasked_control;
        if !masked && !may_be_bare {
            return Err(Violation::Unmasked);
        }
        let (payload, length_bytes) = match second & 0x7f {
            126 => {
                let Some(length) = rest.first_chunk() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                if length < 126 {
                    return Err(Violation::Length);
                }
                (length, 2)
            }
            127 => {
                let Some(length) = rest.first_chunk() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                if length <= 0xffff || length >> 63 != 0 {
                    return Err(Violation::Length);
                }
                (length, 8)
            }
            short => (u64::from(short), 0),
        };
        if opcode.is_control() && (!last || payload > MAX_CONTROL as u64) {
            return Err(Violation::Control);
        }
        let pending = match (&self.message, opcode) {
            (_, Opcode::Close | Opcode::Ping | Opcode::Pong) => 0,
            (Some((_, message)), Opcode::Continuation) => message.len(),
            (None, Opcode::Text | Opcode::Binary) => 0,
            _ => return Err(Violation::Fragments),
        };
        let payload = usize::try_from(payload)
            .ok()
            .filter(|payload| payload.saturating_add(pending) <= MAX_MESSAGE)
            .ok_or(Violation::TooBig)?;
        let mask = if masked {
            let Some(mask) = rest.get(length_bytes..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            *mask
        } else {
            [0; 4]
        };
        let len = 2 + length_bytes + if masked { 4 } else { 0 };
        Ok(Some(Header { last, opcode, mask, len, payload }))
    }
}

/// RFC 6455 §5.5.1 and §7.4: no payload, or a code that may be sent and a UTF-8 reason.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::CloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    str::from_utf8(reason).map_or(Err(Violation::CloseReason), |_| Ok(Some(code)))
}

/// The header of an unfragmented piece from the server: its bytes and how many of them count.
#[inline]
pub fn header(opcode: Opcode, payload: usize) -> ([u8; MAX_HEADER], usize) {
    let mut bytes = [0; MAX_HEADER];
    bytes[0] = 0x80 | opcode.bits();
    let len = match payload {
        0..126 => {
            bytes[1] = payload as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (bytes, len)
}

/// A whole close message.
pub fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Message(Vec<u8>),
        Text(usize),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>),
    }

    /// Feeds `bytes` in steps of `step`, as a socket would.
    fn decode(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Result<Vec<Seen>, Violation> {
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            let mut at = 0;
            loop {
                let (used, event) = decoder.next(&mut buffer[at..])?;
                let mut whole = None;
                let event = event.and_then(|event| {
                    Some(match event {
                        Event::Message(range, mask) => {
                            whole = Some((range, mask));
                            return None;
                        }
                        Event::Assembled(bytes) => Seen::Message(bytes.to_vec()),
                        Event::Text(len) => Seen::Text(len),
                        Event::Ping(bytes) => Seen::Ping(bytes.to_vec()),
                        Event::Pong(bytes) => Seen::Pong(bytes.to_vec()),
                        Event::Close(code) => Seen::Close(code),
                    })
                });
                seen.extend(event);
                if let Some((range, mask)) = whole {
                    assert_eq!(range.end, used);
                    let message = &mut buffer[at + range.start..at + range.end];
                    unmask(message, mask);
                    seen.push(Seen::Message(message.to_vec()));
                }
                at += used;
                if used == 0 {
                    break;
                }
            }
            buffer.drain(..at);
        }
        Ok(seen)
    }

    fn piece(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let (mut head, len) = header(Opcode::Binary, payload.len());
        head[0] = first;
        head[1] |= 0x80;
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [&head[..len], &mask].concat().into_iter().chain(masked).collect()
    }

    fn refused(bytes: &[u8]) -> Violation {
        decode(&mut Decoder::new(false), bytes, 1000).unwrap_err()
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 6455 §5.7: a masked text message "Hello".
        let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode(&mut Decoder::new(false), &bytes, 1), Ok(vec![Seen::Text(5)]));
    }

    #[test]
    fn broken_pieces_are_refused() {
        let mask = [1, 2, 3, 4];
        assert_eq!(refused(&piece(0xc2, b"x", mask)), Violation::ReservedBits);
        assert_eq!(refused(&piece(0x83, b"x", mask)), Violation::Opcode);
        assert_eq!(refused(&[0x82, 1, 0]), Violation::Unmasked);
        assert_eq!(refused(&piece(0x09, b"", mask)), Violation::Control);
        assert_eq!(refused(&piece(0x89, &[0; 126], mask)), Violation::Control);
        assert_eq!(refused(&piece(0x80, b"x", mask)), Violation::Fragments);
        assert_eq!(refused(&[0x82, 0xfe, 0, 125]), Violation::Length);
        assert_eq!(refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Violation::Length);
        assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 2, 0, 1]), Violation::TooBig);
        let two_starts = [piece(0x02, b"a", mask), piece(0x82, b"b", mask)].concat();
        assert_eq!(refused(&two_starts), Violation::Fragments);
    }

    #[test]
    fn a_message_that_grows_too_long_in_fragments_is_refused() {
        let start = piece(0x02, &vec![0; MAX_MESSAGE], [0; 4]);
        let more = piece(0x80, b"x", [0; 4]);
        assert_eq!(refused(&[start, more].concat()), Violation::TooBig);
        assert_eq!(Violation::TooBig.close_code(), 1009);
    }

    #[test]
    fn close_codes_are_checked() {
        for code in [1000u16, 1001, 1011, 3000, 4999] {
            let bytes = piece(0x88, &code.to_be_bytes(), [9; 4]);
            assert_eq!(
                decode(&mut Decoder::new(false), &bytes, 3),
                Ok(vec![Seen::Close(Some(code))]),
                "{code}"
            );
        }
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(refused(&piece(0x88, &code.to_be_bytes(), [9; 4])), Violation::CloseCode);
        }
        assert_eq!(refused(&piece(0x88, &[3], [9; 4])), Violation::CloseCode);
        assert_eq!(refused(&piece(0x88, &[3, 232, 0xff], [9; 4])), Violation::CloseReason);
    }

    #[test]
    fn unmasked_control_is_taken_only_where_it_is_expected() {
        assert_eq!(decode(&mut Decoder::new(true), &[0x89, 0], 1), Ok(vec![Seen::Ping(vec![])]));
        assert_eq!(refused(&[0x89, 0]), Violation::Unmasked);
        assert_eq!(decode(&mut Decoder::new(true), &[0x82, 1, 0], 9), Err(Violation::Unmasked));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_and_any_fragments(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            cuts in proptest::collection::vec(0usize..70_000, 0..4),
            mask: [u8; 4], step in 1usize..5000,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= payload.len()).collect();
            cuts.extend([0, payload.len()]);
            cuts.sort_unstable();
            let last = cuts.len() - 2;
            let mut bytes = Vec::new();
            for (index, pair) in cuts.windows(2).enumerate() {
                let opcode = if index == 0 { 2 } else { 0 };
                let end = if index == last { 0x80 } else { 0 };
                bytes.extend(piece(opcode | end, &payload[pair[0]..pair[1]], mask));
                bytes.extend(piece(0x89, b"between", mask));
            }
            let mut seen = decode(&mut Decoder::new(false), &bytes, step).unwrap();
            seen.retain(|event| *event != Seen::Ping(b"between".to_vec()));
            prop_assert_eq!(seen, vec![Seen::Message(payload)]);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            let _ = decode(&mut Decoder::new(true), &bytes, step);
        }
    }
}
