//! WebSocket framing against a model of RFC 6455 §5, and against tungstenite where the two promise
//! the same.

use crate::tape::Tape;
use std::io::{self, Read, Write};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};
use wsnic_front::ws::{Decoder, Event, MAX_MESSAGE, Opcode, Violation, header};
use wsnic_proto::offload::{Sum, unmask};

/// However a client's bytes are cut into reads, the decoder finds what the model finds, refuses
/// what the model refuses, and leaves what is not complete as it was. tungstenite finds the same
/// messages. What this side writes, the model reads.
///
/// Input: a byte of flags, one from which the lengths of the reads follow, then the client's bytes
/// or, if a flag says so, what they are made of.
pub fn websocket(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let flags = tape.byte();
    let seed = tape.byte();
    let unmasked_control = flags & 1 != 0;
    let sent = if flags & 2 != 0 { compose(&mut tape) } else { tape.rest().to_vec() };

    let expected = model(&sent, unmasked_control);
    let mut step = u32::from(seed);
    let cut = decode(&sent, unmasked_control, || {
        step = step.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        // Up to some hundred reads of long inputs.
        1 + (step >> 16) as usize % (1 + usize::from(seed) + sent.len() / 64)
    });
    assert_eq!(cut, expected, "cut");
    assert_eq!(decode(&sent, unmasked_control, || usize::MAX), expected, "whole");
    if !unmasked_control {
        compare_with_tungstenite(&sent, &expected);
    }
    read_own_header(sent.len() * usize::from(seed));
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    Text(usize),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// What was found, how it ended, and how many bytes were not used.
#[derive(Debug)]
struct Outcome {
    seen: Vec<Seen>,
    violation: Option<Violation>,
    left: usize,
    /// Whether a text message began; the model alone says so.
    texts: bool,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Outcome) -> bool {
        let key = |outcome: &Outcome| (outcome.violation, outcome.left);
        key(self) == key(other) && self.seen == other.seen
    }
}

/// What the decoder finds, asked as the shuttle asks.
fn decode(sent: &[u8], unmasked: bool, mut len_of_read: impl FnMut() -> usize) -> Outcome {
    let mut decoder = Decoder::new(unmasked);
    let mut outcome = Outcome { seen: Vec::new(), violation: None, left: 0, texts: false };
    let (mut partial, mut read) = (Vec::new(), 0);
    while read < sent.len() {
        let until = read.saturating_add(len_of_read()).min(sent.len());
        partial.extend_from_slice(&sent[read..until]);
        read = until;
        let mut at = 0;
        loop {
            let (used, event) = match decoder.next(&mut partial[at..]) {
                Ok(next) => next,
                Err(violation) => {
                    outcome.violation = Some(violation);
                    return Outcome { left: 0, ..outcome };
                }
            };
            assert!(used > 0 || event.is_none());
            let mut whole = None;
            outcome.seen.extend(event.and_then(|event| {
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
            }));
            if let Some((range, mask)) = whole {
                assert_eq!(range.end, used);
                let message = &mut partial[at + range.start..at + range.end];
                assert_eq!(unmask(message, mask), Sum::of(message));
                outcome.seen.push(Seen::Message(message.to_vec()));
            }
            at += used;
            if used == 0 {
                break;
            }
        }
        partial.drain(..at);
        assert_eq!(partial, sent[read - partial.len()..read], "what is not complete was changed");
    }
    Outcome { left: partial.len(), ..outcome }
}

/// RFC 6455 §5, with the limits that ws.rs adds, over all bytes at once.
fn model(sent: &[u8], unmasked_control: bool) -> Outcome {
    let mut outcome = Outcome { seen: Vec::new(), violation: None, left: 0, texts: false };
    // Kind and content of a message that goes on.
    let mut open: Option<(u8, Vec<u8>)> = None;
    let mut rest = sent;
    while let Some(piece) = piece(rest, unmasked_control, open.as_ref()).transpose() {
        let (opcode, last, payload, used) = match piece {
            Ok(piece) => piece,
            Err(violation) => return Outcome { violation: Some(violation), ..outcome },
        };
        rest = &rest[used..];
        match opcode {
            8 => match close_code(&payload) {
                Ok(code) => outcome.seen.push(Seen::Close(code)),
                Err(violation) => return Outcome { violation: Some(violation), ..outcome },
            },
            9 => outcome.seen.push(Seen::Ping(payload)),
            10 => outcome.seen.push(Seen::Pong(payload)),
            _ => {
                outcome.texts |= opcode == 1;
                let (kind, mut content) = open.take().unwrap_or((opcode, Vec::new()));
                content.extend(payload);
                match (last, kind) {
                    (false, _) => open = Some((kind, content)),
                    (true, 1) => outcome.seen.push(Seen::Text(content.len())),
                    (true, _) => outcome.seen.push(Seen::Message(content)),
                }
            }
        }
    }
    Outcome { left: rest.len(), ..outcome }
}

type Piece = (u8, bool, Vec<u8>, usize);

/// Opcode, FIN, payload and length of the piece at the start; None if it is not complete.
fn piece(
    bytes: &[u8],
    unmasked_control: bool,
    open: Option<&(u8, Vec<u8>)>,
) -> Result<Option<Piece>, Violation> {
    if bytes.len() < 2 {
        return Ok(None);
    }
    let (last, reserved, opcode) = (bytes[0] >= 0x80, bytes[0] / 16 % 8, bytes[0] % 16);
    let (masked, short) = (bytes[1] >= 0x80, usize::from(bytes[1] % 128));
    let is_control = opcode >= 8;
    if reserved != 0 {
        return Err(Violation::ReservedBits);
    }
    if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
        return Err(Violation::Opcode);
    }
    let may_be_bare = is_control && unmasked_control;
    if !masked && !may_be_bare {
        return Err(Violation::Unmasked);
    }
    let extra = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if bytes.len() < 2 + extra {
        return Ok(None);
    }
    let long = bytes[2..2 + extra].iter().fold(0u128, |sum, byte| sum * 256 + u128::from(*byte));
    let len = if extra == 0 { short as u128 } else { long };
    let least = [(2, 126), (8, 65536)].iter().find(|(size, _)| *size == extra);
    if least.is_some_and(|(_, least)| len < *least) || len >= 1 << 63 {
        return Err(Violation::Length);
    }
    if is_control && (!last || len > 125) {
        return Err(Violation::Control);
    }
    if !is_control && open.is_some() != (opcode == 0) {
        return Err(Violation::Fragments);
    }
    let so_far = if is_control { 0 } else { open.map_or(0, |(_, content)| content.len()) };
    if len + so_far as u128 > MAX_MESSAGE as u128 {
        return Err(Violation::TooBig);
    }
    let begin = 2 + extra + if masked { 4 } else { 0 };
    let end = begin + len as usize;
    if bytes.len() < end {
        return Ok(None);
    }
    let mask = &bytes[2 + extra..begin];
    let payload = (begin..end).map(|at| match mask {
        [] => bytes[at],
        mask => bytes[at] ^ mask[(at - begin) % 4],
    });
    Ok(Some((opcode, last, payload.collect(), end)))
}

/// RFC 6455 §7.4, and the registry of codes that it opens for 1012 to 1014.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    if payload.len() == 1 {
        return Err(Violation::CloseCode);
    }
    let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
    let never_sent = [1004, 1005, 1006, 1015].contains(&code);
    if never_sent || !((1000..1016).contains(&code) || (3000..5000).contains(&code)) {
        return Err(Violation::CloseCode);
    }
    match String::from_utf8(payload[2..].to_vec()) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::CloseReason),
    }
}

/// Pieces with headers that are mostly right and payloads longer than a fuzzer's input.
fn compose(tape: &mut Tape<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Room for one message that is too long, and for some around it.
    while let (Some(first), true) = (tape.next(), bytes.len() < 300_000) {
        let len = match tape.byte() {
            short @ 0..=125 => usize::from(short),
            126..=190 => usize::from(tape.short()),
            191..=220 => 65_536 + usize::from(tape.short()),
            _ => MAX_MESSAGE - 2 + usize::from(tape.byte() % 4),
        };
        let mask = tape.word().to_be_bytes();
        let (mut head, head_len) = header(Opcode::Binary, len);
        head[0] = first;
        head[1] |= 0x80;
        bytes.extend(&head[..head_len]);
        bytes.extend(mask);
        let content = tape.take(len.min(4));
        bytes.extend((0..len).map(|at| content.get(at % 5).copied().unwrap_or(at as u8)));
    }
    bytes
}

fn read_own_header(len: usize) {
    for (opcode, bits) in [
        (Opcode::Continuation, 0),
        (Opcode::Text, 1),
        (Opcode::Binary, 2),
        (Opcode::Close, 8),
        (Opcode::Ping, 9),
        (Opcode::Pong, 10),
    ] {
        let (bytes, used) = header(opcode, len);
        assert_eq!(bytes[0], 0x80 | bits);
        let long = bytes[2..used].iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte));
        let expected = match len {
            0..=125 => (len as u8, 2, 0),
            126..=65535 => (126, 4, len),
            _ => (127, 10, len),
        };
        assert_eq!((bytes[1], used, long), expected);
    }
}

/// tungstenite finds the same messages up to the first close or violation, and none behind it.
///
/// Left out is what the two promise differently: text, into which wsnic does not look, and lengths
/// that are not written in the fewest bytes, which only wsnic refuses.
fn compare_with_tungstenite(sent: &[u8], expected: &Outcome) {
    if expected.texts || expected.violation == Some(Violation::Length) {
        return;
    }
    let ours = expected.seen.iter().take_while(|seen| !matches!(seen, Seen::Close(_)));
    let ours: Vec<Seen> = ours.cloned().collect();
    assert_eq!(tungstenite(sent), ours, "tungstenite sees it otherwise");
}

/// Messages that tungstenite finds before a close or an error.
fn tungstenite(sent: &[u8]) -> Vec<Seen> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocket::from_raw_socket(Client(sent), Role::Server, Some(config));
    let mut seen = Vec::new();
    while let Ok(message) = socket.read() {
        seen.push(match message {
            Message::Binary(bytes) => Seen::Message(bytes.to_vec()),
            Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Seen::Pong(bytes.to_vec()),
            Message::Text(text) => Seen::Text(text.len()),
            Message::Close(_) | Message::Frame(_) => break,
        });
    }
    seen
}

/// A client that has sent its bytes and reads whatever comes.
struct Client<'a>(&'a [u8]);

impl Read for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
