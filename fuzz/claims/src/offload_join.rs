//! Frames of guests, joined exactly as a slow model of the rules says.

use crate::offload_cut::cut;
use crate::packets::{ACK, Ip, Packet, Transport, checksum, data};
use crate::tape::Tape;
use wsnic_proto::offload::{HEADER_LEN, Offered, Run, unmask};

/// Frames go into one write exactly if the model joins them. A single one is unchanged; several are
/// cut again into the same, but for ids of IPv4 with DF, which count. None is lost or overtaken.
///
/// Input: for each frame a byte that says how it goes on, and what that needs.
pub fn offload_join(bytes: &[u8]) {
    let frames = compose(Tape::new(bytes));
    let mut rest = &frames[..];
    for (count, written) in join(&frames) {
        assert_eq!(count, model(rest), "{:02x?}", &rest[..count.min(3)]);
        let (own, later) = rest.split_at(count);
        rest = later;
        let (header, super_frame) = written.split_at(HEADER_LEN);
        if let [frame] = own {
            assert_eq!((header, super_frame), (&[0; HEADER_LEN][..], &frame[..]));
            continue;
        }
        assert!(super_frame.len() <= 65_535);
        let again = cut(&written).expect("what was joined can be cut");
        assert_eq!(again.len(), count);
        let first = u16::from_be_bytes([own[0][18], own[0][19]]);
        for (at, (again, frame)) in again.into_iter().zip(own).enumerate() {
            assert_eq!(plain(again), plain(with_id(frame, first.wrapping_add(at as u16))));
        }
    }
    assert!(rest.is_empty());
}

/// The frames of each write and its bytes, each frame masked by what came before it.
fn join(frames: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let mut buffer = [&[0; HEADER_LEN][..], &frames.concat()].concat();
    let (mut run, mut writes, mut start) = (Run::new(), Vec::new(), HEADER_LEN);
    run.set_takes_udp(true);
    let mut flush = |run: &mut Run, buffer: &mut [u8]| {
        let write = run.take(buffer).expect("something is pending");
        writes.push((write.frames, buffer[write.range].to_vec()));
    };
    for frame in frames {
        let range = start..start + frame.len();
        let mask = (start as u32).wrapping_mul(0x9e37_79b9).to_be_bytes();
        start = range.end;
        unmask(&mut buffer[range.clone()], mask);
        let masked = buffer[range.clone()].to_vec();
        let mut offered = run.offer_masked(&mut buffer, range.clone(), mask);
        if offered == Offered::Refused {
            assert_eq!(buffer[range.clone()], masked, "what was refused was changed");
            unmask(&mut buffer[range.clone()], mask);
            let was_empty = run.is_empty();
            offered = run.offer(&mut buffer, range.clone());
            assert!(was_empty || offered == Offered::Refused, "masked it was refused");
        }
        if offered == Offered::Refused {
            flush(&mut run, &mut buffer);
            offered = run.offer(&mut buffer, range);
        }
        match offered {
            Offered::Joined => {}
            Offered::Complete => flush(&mut run, &mut buffer),
            Offered::Refused => panic!("an empty run refuses a frame"),
        }
    }
    if !run.is_empty() {
        flush(&mut run, &mut buffer);
    }
    writes
}

/// How many of these frames go into the first write.
fn model(frames: &[Vec<u8>]) -> usize {
    let Some(first) = Fields::of(&frames[0]) else { return 1 };
    if first.pushed || first.payload < if first.is_udp { 1 } else { 8 } {
        return 1;
    }
    let (mut count, mut sum) = (1, first.payload);
    while count < 64 && first.same.len() + sum + first.payload <= 65_535 {
        let Some(next) = frames.get(count).and_then(|frame| Fields::of(frame)) else { break };
        let has_legal_id = match (first.id, next.id) {
            (Some((id, false)), Some((own, _))) => own == id.wrapping_add(count as u16),
            _ => true,
        };
        let sequence = first.sequence.wrapping_add(sum as u32);
        let follows = first.is_udp || next.sequence == sequence;
        if next.same != first.same || !follows || !has_legal_id || next.payload > first.payload {
            break;
        }
        (count, sum) = (count + 1, sum + next.payload);
        if next.pushed || next.payload < first.payload {
            break;
        }
    }
    count
}

/// What the rules speak of.
struct Fields {
    /// The headers without what may differ.
    same: Vec<u8>,
    is_udp: bool,
    /// Of TCP, else 0.
    sequence: u32,
    /// The id of IPv4, and whether DF is set.
    id: Option<(u16, bool)>,
    pushed: bool,
    payload: usize,
}

impl Fields {
    /// None if the frame must go alone.
    fn of(frame: &[u8]) -> Option<Fields> {
        let number = |at: usize| usize::from(frame[at]) * 256 + usize::from(frame[at + 1]);
        let is_v4 = match frame.get(12..14)? {
            [0x08, 0x00] => true,
            [0x86, 0xdd] => false,
            _ => return None,
        };
        let at = if is_v4 { 34 } else { 54 };
        let is_udp = *frame.get(if is_v4 { 23 } else { 20 })? == 17;
        let (least, checksum_at) = if is_udp { (8, at + 6) } else { (20, at + 16) };
        if frame.len() < at + least || frame[0] & 1 != 0 {
            return None;
        }
        let (end, protocol, addresses) = if is_v4 {
            (14 + number(16), frame[23], &frame[26..34])
        } else {
            (54 + number(18), frame[20], &frame[22..54])
        };
        let (fragment, df) = (number(20) & 0xbfff, number(20) & 0x4000 != 0);
        let is_ip = if is_v4 { frame[14] == 0x45 && fragment == 0 } else { frame[14] / 16 == 6 };
        if !is_ip || ![6, 17].contains(&protocol) || end != frame.len() {
            return None;
        }
        let (headers, pushed) = if is_udp {
            if number(at + 4) != end - at || number(checksum_at) == 0 {
                return None;
            }
            (at + 8, false)
        } else {
            let flags = number(at + 12) & 0x0fff;
            if flags & 0xff7 != 0x010 {
                return None;
            }
            (at + usize::from(frame[at + 12] / 16) * 4, flags & 8 != 0)
        };
        if headers < at + least || headers >= end {
            return None;
        }
        let len = ((end - at) as u16).to_be_bytes();
        let summed = [addresses, &[0, protocol], &len, &frame[at..end]].concat();
        if checksum(&summed) != 0 || (is_v4 && checksum(&frame[14..34]) != 0) {
            return None;
        }
        let mut same = frame[..headers].to_vec();
        // Length, id, checksum; sequence number or length, checksum, PSH.
        let differing = if is_v4 { [16..20, 24..26] } else { [18..20, 18..20] };
        for range in differing.into_iter().chain([at + 4..at + 8, checksum_at..checksum_at + 2]) {
            same[range].fill(0);
        }
        let mut sequence = 0;
        if !is_udp {
            same[at + 13] &= !8;
            sequence = ((number(at + 4) as u32) << 16) + number(at + 6) as u32;
        }
        Some(Fields {
            same,
            is_udp,
            sequence,
            id: is_v4.then(|| (number(18) as u16, df)),
            pushed,
            payload: end - headers,
        })
    }
}

/// The frame with another id, if it has one.
fn with_id(frame: &[u8], id: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12] == 0x08 {
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The frame with one of the two ways to write a checksum of zero.
fn plain(mut frame: Vec<u8>) -> Vec<u8> {
    let (at, protocol) = if frame[12] == 0x08 { (34, frame[23]) } else { (54, frame[20]) };
    let at = at + if protocol == 17 { 6 } else { 16 };
    if frame[at..at + 2] == [0xff, 0xff] {
        frame[at..at + 2].fill(0);
    }
    frame
}

/// A flow that goes on, is left, returns, and has faults.
fn compose(mut tape: Tape<'_>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let (mut packet, mut size) = begin(&mut tape);
    // Twice as many as go into one run, and no more bytes than into some.
    let mut room = 300_000usize;
    while let (Some(step), true) = (tape.next(), frames.len() < 150 && room > 0) {
        let repeat = match step % 8 {
            0 => usize::from(tape.byte() % 80),
            _ => 1,
        };
        match step % 8 {
            1 => (packet, size) = begin(&mut tape),
            2 => size = usize::from(tape.byte()),
            3 => change(&mut packet, &mut tape),
            _ => {}
        }
        for _ in 0..repeat.min(150 - frames.len()) {
            packet.payload = data(size);
            let mut frame = packet.bytes();
            match step % 8 {
                4 => {
                    // Mostly in the headers.
                    let at = usize::from(tape.byte()) % frame.len();
                    frame[at] ^= tape.byte();
                }
                5 => frame.resize(60.max(frame.len() + usize::from(step / 128)), step),
                6 => frame.truncate(usize::from(tape.byte())),
                7 if step >= 128 => frame = tape.take(usize::from(step)).to_vec(),
                _ => {}
            }
            room = room.saturating_sub(frame.len());
            frames.push(frame);
            advance(&mut packet, size);
        }
    }
    frames
}

fn begin(tape: &mut Tape<'_>) -> (Packet, usize) {
    let shape = tape.byte();
    let ip = if shape & 1 == 0 {
        let fragment = if shape & 2 == 0 { 0x4000 } else { 0 };
        Ip::V4 { tos: 0, id: tape.short(), fragment, ttl: 64, options: vec![] }
    } else {
        Ip::V6 { class_and_flow: u32::from(shape), hop_limit: 64, extensions: vec![] }
    };
    let tcp = Transport::Tcp {
        sequence: tape.word(),
        acknowledged: 1,
        flags: ACK,
        window: 2,
        urgent: 0,
        options: vec![1; usize::from(shape / 8 % 11) * 4],
    };
    let transport = if shape >= 192 { Transport::Udp } else { tcp };
    let size = usize::from(tape.short());
    let size = if shape & 4 == 0 { size % 300 } else { size % 60_000 };
    (Packet { tags: vec![], ip, transport, payload: vec![] }, size)
}

/// Another value in one field.
fn change(packet: &mut Packet, tape: &mut Tape<'_>) {
    let (field, value) = (tape.byte(), tape.byte());
    match &mut packet.ip {
        Ip::V4 { tos, id, fragment, ttl, options } => match field % 16 {
            0 => *tos = value,
            1 => *id = id.wrapping_add(u16::from(value)),
            2 => *fragment = u16::from(value) << 8,
            3 => *ttl = value,
            4 => *options = vec![1; usize::from(value % 3) * 4],
            _ => {}
        },
        Ip::V6 { class_and_flow, hop_limit, extensions } => match field % 16 {
            0 => *class_and_flow = u32::from(value) << 20,
            1 => *class_and_flow = u32::from(value),
            2 => *hop_limit = value,
            3 => *extensions = vec![(60, vec![0; 7]); usize::from(value % 2)],
            _ => {}
        },
    }
    if let Transport::Tcp { sequence, acknowledged, flags, window, urgent, options } =
        &mut packet.transport
    {
        match field % 16 {
            5 => *sequence = sequence.wrapping_add(u32::from(value)),
            6 => *acknowledged = u32::from(value),
            7 => *flags = value,
            8 => *window = u16::from(value),
            9 => *urgent = u16::from(value),
            10 => *options = vec![value; usize::from(value % 11) * 4],
            11 => packet.transport = Transport::Udp,
            12 => packet.tags = vec![0x81, 0, 0, value],
            13 => *flags ^= 8,
            _ => {}
        }
    }
}

fn advance(packet: &mut Packet, by: usize) {
    if let Ip::V4 { id, .. } = &mut packet.ip {
        *id = id.wrapping_add(1);
    }
    if let Transport::Tcp { sequence, .. } = &mut packet.transport {
        *sequence = sequence.wrapping_add(by as u32);
    }
}
