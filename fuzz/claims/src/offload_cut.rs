//! Super-frames of the kernel, against the slow model of the tests and what holds for any bytes.

use crate::packets::{Ip, Packet, Transport, checksum, data};
use crate::tape::Tape;
use wsnic_proto::offload::{HEADER_LEN, Segments};

/// A super-frame is cut as the model cuts it; any bytes become frames that are no longer than they,
/// have all the payload in order and right checksums, or are refused; what needs nothing passes
/// unchanged; a buffer that is too small changes nothing.
///
/// Input: a byte for the kind, then a packet's bytes, or decisions that make one, and changes to it.
pub fn offload_cut(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    match tape.byte() % 3 {
        0 => any(tape.rest()),
        kind => {
            let packet = compose(&mut tape);
            let size = tape.short();
            let mut read = packet.super_frame(size);
            let is_sensible = match packet.transport {
                Transport::Tcp { .. } => size >= 8,
                Transport::Udp => size > 0 && packet.payload.len().div_ceil(size.into()) <= 128,
            };
            if kind == 1 && is_sensible {
                let expected: Vec<Vec<u8>> =
                    packet.cut(size.into()).iter().map(Packet::bytes).collect();
                assert_eq!(cut(&read).as_ref(), Some(&expected));
            }
            while let Some(at) = tape.next() {
                let at = usize::from(at) % read.len();
                read[at] ^= tape.byte();
            }
            any(&read);
        }
    }
}

/// The frames; None if they are refused.
pub(crate) fn cut(packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut segments = Segments::new(packet).ok()?;
    let mut frames = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut frame = vec![0; len + 1];
        assert_eq!(segments.write_next(&mut frame[..len - 1]), 0);
        assert_eq!(segments.write_next(&mut frame), len);
        assert_eq!(frame.pop(), Some(0), "one byte too many was written");
        frames.push(frame);
    }
    Some(frames)
}

fn any(packet: &[u8]) {
    let Some(frames) = cut(packet) else { return };
    let (header, frame) = packet.split_at(HEADER_LEN);
    let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (needs_checksum, kind, size) = (header[0] % 2 == 1, header[1], number(4));
    if kind == 0 {
        let mut expected = frame.to_vec();
        if needs_checksum {
            let (start, at) = (number(6), number(6) + number(8));
            let sum = match checksum(&frame[start..]) {
                0 => 0xffff,
                sum => sum,
            };
            expected[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(frames, [expected]);
        return;
    }
    let (transport_at, protocol) = walk(frame);
    let headers = match protocol {
        6 => transport_at + usize::from(frame[transport_at + 12] / 16) * 4,
        _ => transport_at + 8,
    };
    assert_eq!(frames.len(), (frame.len() - headers).div_ceil(size).max(1));
    assert!(frames.len() <= 8192);
    let payload: Vec<u8> = frames.iter().flat_map(|own| own[headers..].to_vec()).collect();
    assert_eq!(payload, &frame[headers..]);
    for own in &frames {
        assert!(own.len() <= headers + size);
        assert_eq!(walk(own), (transport_at, protocol));
        assert!(!needs_checksum || number(6) == transport_at);
        assert_right(own, transport_at, protocol, !needs_checksum);
    }
}

/// Where the transport header begins, and the protocol, of a packet that was cut.
fn walk(frame: &[u8]) -> (usize, u8) {
    let tagged = [[0x81, 0], [0x88, 0xa8]].contains(&[frame[12], frame[13]]);
    let ip_at = if tagged { 18 } else { 14 };
    if frame[ip_at] / 16 == 4 {
        return (ip_at + usize::from(frame[ip_at] % 16) * 4, frame[ip_at + 9]);
    }
    let (mut next, mut at) = (frame[ip_at + 6], ip_at + 40);
    while [0, 43, 60].contains(&next) {
        (next, at) = (frame[at], at + (usize::from(frame[at + 1]) + 1) * 8);
    }
    (at, next)
}

/// Lengths and checksums are right. That of the transport is, if the kernel's sum was not needed.
fn assert_right(frame: &[u8], transport_at: usize, protocol: u8, with_transport: bool) {
    let ip_at = if [0x81, 0x88].contains(&frame[12]) { 18 } else { 14 };
    let number = |at: usize| usize::from(frame[at]) * 256 + usize::from(frame[at + 1]);
    let addresses = if frame[ip_at] / 16 == 4 {
        assert_eq!(number(ip_at + 2), frame.len() - ip_at);
        assert_eq!(checksum(&frame[ip_at..transport_at]), 0);
        &frame[ip_at + 12..ip_at + 20]
    } else {
        assert_eq!(number(ip_at + 4), frame.len() - ip_at - 40);
        &frame[ip_at + 8..ip_at + 40]
    };
    let transport = &frame[transport_at..];
    assert!(protocol == 6 || number(transport_at + 4) == transport.len());
    if with_transport {
        let len = (transport.len() as u16).to_be_bytes();
        assert_eq!(checksum(&[addresses, &[0, protocol], &len, transport].concat()), 0);
    }
}

/// A packet with payload.
fn compose(tape: &mut Tape<'_>) -> Packet {
    let shape = tape.byte();
    let ip = if shape & 1 == 0 {
        let options = vec![1; usize::from(tape.byte() % 11) * 4];
        let fragment = if shape & 2 == 0 { 0x4000 } else { 0 };
        Ip::V4 { tos: tape.byte(), id: tape.short(), fragment, ttl: tape.byte(), options }
    } else {
        let extensions = (0..shape / 64).map(|_| {
            let len = tape.byte() % 4;
            (tape.pick(&[0, 43, 60]), [&[len][..], &vec![0; usize::from(len) * 8 + 6]].concat())
        });
        let extensions = extensions.collect();
        let class_and_flow = tape.word() >> 4;
        Ip::V6 { class_and_flow, hop_limit: tape.byte(), extensions }
    };
    let transport = if shape & 4 == 0 {
        Transport::Tcp {
            sequence: tape.word(),
            acknowledged: tape.word(),
            flags: tape.byte(),
            window: tape.short(),
            urgent: tape.short(),
            options: data(usize::from(tape.byte() % 11) * 4),
        }
    } else {
        Transport::Udp
    };
    // No longer than what IP can hold, whatever the headers.
    let len = usize::from(tape.short() % 5000) + 1;
    let mut payload = data(len);
    let own = tape.take(len.min(8));
    payload[..own.len()].copy_from_slice(own);
    let tags = if shape & 8 == 0 { vec![] } else { vec![0x81, 0, 0, shape] };
    Packet { tags, ip, transport, payload }
}
