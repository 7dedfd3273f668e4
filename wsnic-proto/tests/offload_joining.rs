//! Consecutive frames of a flow of TCP or UDP become one write, and nothing else does.

#[path = "support/packets.rs"]
mod packets;

use packets::{ACK, CWR, DONT_FRAGMENT, ECE, FIN, Ip, PSH, Packet, RST, SYN, Transport, URG};
use packets::{checksum, data, tcp, v4, v6, vnet};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Range;
use wsnic_proto::offload::{HEADER_LEN, Offered, Run, Segments, Write, unmask};

/// Frames in one buffer, as messages lie behind their headers.
fn lay_out(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut buffer = vec![0xee; 5];
    let lay = |frame: &Vec<u8>| {
        buffer.extend([0xdd; 8]);
        let start = buffer.len();
        buffer.extend(frame);
        start..buffer.len()
    };
    let ranges = frames.iter().map(lay).collect();
    (buffer, ranges)
}

/// What is written for these frames, and how many each write carries: the same whether they come plain
/// or masked.
fn join(frames: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let writes = join_masked(frames, None);
    let mask = frames
        .concat()
        .iter()
        .fold(0x0bad_cafe_u32, |mask, byte| mask.rotate_left(7) ^ u32::from(*byte));
    assert_eq!(writes, join_masked(frames, Some(mask)));
    writes
}

fn join_masked(frames: &[Vec<u8>], mask: Option<u32>) -> Vec<(usize, Vec<u8>)> {
    let (mut buffer, ranges) = lay_out(frames);
    let mut run = Run::new();
    run.set_takes_udp(true);
    let mut writes = Vec::new();
    let mut flush = |run: &mut Run, buffer: &mut [u8]| {
        let write = run.take(buffer).expect("something is pending");
        writes.push((write.frames, write.bytes, buffer[write.range].to_vec()));
        assert!(run.is_empty());
        assert_eq!(run.take(buffer), None);
    };
    for (range, number) in ranges.into_iter().zip(0..) {
        let mask = mask.map(|mask| mask.wrapping_add(number).to_be_bytes());
        let mut offered = Offered::Refused;
        if let Some(mask) = mask {
            unmask(&mut buffer[range.clone()], mask);
            let before = buffer.clone();
            offered = run.offer_masked(&mut buffer, range.clone(), mask);
            if offered == Offered::Refused {
                assert_eq!(buffer[range.clone()], before[range.clone()], "it is as it was");
                unmask(&mut buffer[range.clone()], mask);
            }
        }
        if offered == Offered::Refused {
            offered = run.offer(&mut buffer, range.clone());
        }
        if offered == Offered::Refused {
            flush(&mut run, &mut buffer);
            offered = run.offer(&mut buffer, range.clone());
        }
        match offered {
            Offered::Joined => assert!(!run.is_empty()),
            Offered::Complete => {
                assert_eq!(run.offer(&mut buffer, range), Offered::Refused);
                flush(&mut run, &mut buffer);
            }
            Offered::Refused => panic!("an empty run refuses a frame"),
        }
    }
    if !run.is_empty() {
        flush(&mut run, &mut buffer);
    }
    let mut rest = frames.iter();
    for (count, bytes, _) in &writes {
        assert_eq!(rest.by_ref().take(*count).map(Vec::len).sum::<usize>(), *bytes);
    }
    assert_eq!(rest.next(), None);
    writes.into_iter().map(|(frames, _, written)| (frames, written)).collect()
}

fn counts(frames: &[Vec<u8>]) -> Vec<usize> {
    join(frames).into_iter().map(|(frames, _)| frames).collect()
}

fn cut(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet).expect("what was joined can be cut");
    let mut frames = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut frame = vec![0; len];
        segments.write_next(&mut frame);
        frames.push(frame);
    }
    frames
}

/// Frames of a flow of TCP, with these payload lengths and ids that count.
fn flow(ip: Ip, lens: &[usize]) -> Vec<Packet> {
    flow_of(ip, &tcp(ACK), lens)
}

fn flow_of(ip: Ip, transport: &Transport, lens: &[usize]) -> Vec<Packet> {
    let mut at = 0;
    let packet = |(index, len): (usize, &usize)| {
        let payload = data(at + len)[at..].to_vec();
        let mut packet = Packet::new(ip.clone(), transport.clone(), payload);
        set_sequence(&mut packet, 0xffff_f000_u32.wrapping_add(at as u32));
        if let Ip::V4 { id, .. } = &mut packet.ip {
            *id = id.wrapping_add(index as u16);
        }
        at += len;
        packet
    };
    lens.iter().enumerate().map(packet).collect()
}

fn set_sequence(packet: &mut Packet, number: u32) {
    if let Transport::Tcp { sequence, .. } = &mut packet.transport {
        *sequence = number;
    }
}

fn set_flags(packet: &mut Packet, value: u8) {
    if let Transport::Tcp { flags, .. } = &mut packet.transport {
        *flags = value;
    }
}

fn all_bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

/// How two frames are written of which the second was changed, over both versions of IP.
fn second_changed(change: impl Fn(&mut Packet)) -> [Vec<usize>; 2] {
    [v4(), v6()].map(|ip| {
        let mut packets = flow(ip, &[100, 100]);
        change(&mut packets[1]);
        counts(&all_bytes(&packets))
    })
}

const JOINED: [[usize; 1]; 2] = [[2], [2]];
const APART: [[usize; 2]; 2] = [[1, 1], [1, 1]];

#[test]
fn a_flow_becomes_the_super_frame_that_would_be_cut_into_it() {
    for (ip, transport) in
        [(v4(), tcp(ACK)), (v6(), tcp(ACK)), (v4(), Transport::Udp), (v6(), Transport::Udp)]
    {
        let packets = flow_of(ip, &transport, &[1000, 1000, 1000, 7]);
        let writes = join(&all_bytes(&packets));
        let mut whole = packets[0].clone();
        whole.payload = packets.iter().flat_map(|packet| packet.payload.clone()).collect();
        assert_eq!(writes, [(4, whole.super_frame(1000))]);
    }
}

#[test]
fn datagrams_of_a_flow_are_joined_where_the_kernel_takes_that() {
    for ip in [v4(), v6()] {
        let datagrams = |lens: &[usize]| all_bytes(&flow_of(ip.clone(), &Transport::Udp, lens));
        assert_eq!(counts(&datagrams(&[1; 130])), [64, 64, 2]);
        assert_eq!(counts(&datagrams(&[18, 18, 17, 18, 19, 19])), [3, 1, 2]);
        assert_eq!(counts(&datagrams(&[0, 0, 0])), [1, 1, 1], "nothing is in them");
        let frames = datagrams(&[18, 18]);
        let (mut buffer, ranges) = lay_out(&frames);
        let mut run = Run::new();
        assert_eq!(run.offer(&mut buffer, ranges[0].clone()), Offered::Complete);
        assert_eq!(run.take(&mut buffer).map(|write| write.frames), Some(1));
    }
}

#[test]
fn a_datagram_without_a_checksum_goes_alone() {
    let mut frames = all_bytes(&flow_of(v4(), &Transport::Udp, &[18; 4]));
    frames[1][40..42].fill(0);
    assert_eq!(counts(&frames), [1, 1, 2]);
}

#[test]
fn a_datagram_that_says_another_length_than_ip_goes_alone() {
    for ip in [v4(), v6()] {
        let mut frames = all_bytes(&flow_of(ip, &Transport::Udp, &[18; 4]));
        let at = frames[1].len() - 18 - 4;
        // Right as a sum, as the length is in it twice.
        frames[1][at + 1] -= 2;
        frames[1][at + 3] = frames[1][at + 3].wrapping_add(2);
        assert_eq!(counts(&frames), [1, 1, 2]);
    }
}

#[test]
fn datagrams_to_another_port_are_another_flow() {
    for ip in [v4(), v6()] {
        let mut frames = all_bytes(&flow_of(ip, &Transport::Udp, &[18; 4]));
        let at = frames[2].len() - 18 - 8;
        for frame in &mut frames[2..] {
            frame[at + 3] ^= 1;
            mend(frame);
        }
        assert_eq!(counts(&frames), [2, 2]);
    }
}

#[test]
fn frames_to_a_group_go_alone() {
    for transport in [tcp(ACK), Transport::Udp] {
        let mut frames = all_bytes(&flow_of(v4(), &transport, &[18; 3]));
        assert_eq!(counts(&frames), [3]);
        frames.iter_mut().for_each(|frame| frame[0] |= 1);
        assert_eq!(counts(&frames), [1, 1, 1]);
    }
}

#[test]
fn a_single_frame_is_written_unchanged() {
    for frame in [
        Packet::new(v4(), tcp(ACK), data(1000)).bytes(),
        Packet::new(v4(), tcp(ACK | PSH), data(1000)).bytes(),
        Packet::new(v4(), Transport::Udp, data(1000)).bytes(),
        vec![0x42; 14],
        vec![],
    ] {
        let written = [&[0; HEADER_LEN][..], &frame].concat();
        assert_eq!(join(&[frame]), [(1, written)]);
    }
}

#[test]
fn psh_ends_a_run_and_is_the_super_frames() {
    for ip in [v4(), v6()] {
        let mut packets = flow(ip, &[100; 5]);
        set_flags(&mut packets[2], ACK | PSH);
        let writes = join(&all_bytes(&packets));
        assert_eq!(writes.iter().map(|(frames, _)| *frames).collect::<Vec<_>>(), [3, 2]);
        let frames: Vec<Vec<u8>> = writes.iter().flat_map(|(_, write)| cut(write)).collect();
        assert_eq!(frames, all_bytes(&packets));
        set_flags(&mut packets[0], ACK | PSH);
        assert_eq!(counts(&all_bytes(&packets)), [1, 2, 2]);
    }
}

#[test]
fn a_shorter_frame_ends_a_run_and_a_longer_one_begins_the_next() {
    for ip in [v4(), v6()] {
        let frames = all_bytes(&flow(ip, &[100, 100, 99, 100, 101, 101, 101]));
        assert_eq!(counts(&frames), [3, 1, 3]);
    }
}

#[test]
fn a_run_has_at_most_64_frames() {
    assert_eq!(counts(&all_bytes(&flow(v4(), &[100; 130]))), [64, 64, 2]);
}

#[test]
fn a_run_has_at_most_65535_bytes_with_its_headers() {
    for ip in [v4(), v6()] {
        let writes = join(&all_bytes(&flow(ip, &[1448; 100])));
        assert_eq!(writes[0].0, 45);
        let frames = all_bytes(&flow(v4(), &[8000; 9]));
        let writes = join(&frames);
        assert_eq!(writes[0].0, 8);
        assert!(writes.iter().all(|(_, write)| write.len() - HEADER_LEN <= 65_535));
        // To the byte: two halves of what is behind the headers of 66 bytes.
        assert_eq!(counts(&all_bytes(&flow(v4(), &[32_734, 32_734]))), [2]);
        assert_eq!(counts(&all_bytes(&flow(v4(), &[32_735, 32_735]))), [1, 1]);
    }
}

#[test]
fn only_what_follows_is_joined() {
    assert_eq!(second_changed(|_| ()), JOINED);
    assert_eq!(second_changed(|packet| set_sequence(packet, 0xffff_f000)), APART, "again");
    assert_eq!(second_changed(|packet| set_sequence(packet, 0xffff_f065)), APART, "a gap");
    assert_eq!(second_changed(|packet| packet.payload.clear()), APART, "no payload");
}

#[test]
fn only_ack_and_psh_are_joined() {
    for flags in [ACK | FIN, ACK | RST, ACK | SYN, ACK | URG, ACK | ECE, ACK | CWR, 0, PSH] {
        assert_eq!(second_changed(|packet| set_flags(packet, flags)), APART, "{flags:#x}");
        let mut packets = flow(v4(), &[100, 100]);
        set_flags(&mut packets[0], flags);
        assert_eq!(counts(&all_bytes(&packets)), [1, 1], "{flags:#x}");
    }
}

#[test]
fn pure_acknowledgements_go_alone() {
    let acknowledgement = Packet::new(v4(), tcp(ACK), vec![]).bytes();
    assert_eq!(counts(&vec![acknowledgement; 3]), [1, 1, 1]);
}

#[test]
fn every_other_field_must_be_the_same() {
    let changes: [fn(&mut Transport); 5] = [
        |tcp| {
            if let Transport::Tcp { acknowledged, .. } = tcp {
                *acknowledged += 1
            }
        },
        |tcp| {
            if let Transport::Tcp { window, .. } = tcp {
                *window += 1
            }
        },
        |tcp| {
            if let Transport::Tcp { urgent, .. } = tcp {
                *urgent += 1
            }
        },
        |tcp| {
            if let Transport::Tcp { options, .. } = tcp {
                options[7] += 1
            }
        },
        |tcp| {
            if let Transport::Tcp { options, .. } = tcp {
                options.clear()
            }
        },
    ];
    for change in changes {
        assert_eq!(second_changed(|packet| change(&mut packet.transport)), APART);
    }
    let ip = second_changed(|packet| match &mut packet.ip {
        Ip::V4 { ttl, .. } => *ttl -= 1,
        Ip::V6 { hop_limit, .. } => *hop_limit -= 1,
    });
    assert_eq!(ip, APART);
    let ip = second_changed(|packet| match &mut packet.ip {
        Ip::V4 { tos, .. } => *tos = 3,
        Ip::V6 { class_and_flow, .. } => *class_and_flow += 1,
    });
    assert_eq!(ip, APART);
    // Addresses and ports, with checksums that are right.
    for ip in [v4(), v6()] {
        let frames = all_bytes(&flow(ip, &[100, 100]));
        let transport_at = frames[0].len() - 100 - 32;
        for at in [0, 5, 6, 11, transport_at - 8, transport_at - 1, transport_at, transport_at + 2]
        {
            let mut frames = frames.clone();
            frames[1][at] ^= 1;
            mend(&mut frames[1]);
            assert_eq!(counts(&frames), [1, 1], "{at}");
        }
    }
}

/// Makes the checksums of an untagged frame right, whatever it says.
fn mend(frame: &mut [u8]) {
    let (transport_at, addresses_at) = if frame[12] == 8 { (34, 26) } else { (54, 22) };
    let protocol = if frame[12] == 8 { frame[23] } else { frame[20] };
    let checksum_at = transport_at + if protocol == 17 { 6 } else { 16 };
    if frame[12] == 8 {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
    }
    frame[checksum_at..checksum_at + 2].fill(0);
    let len = ((frame.len() - transport_at) as u16).to_be_bytes();
    let summed = [&frame[addresses_at..], &[0; 1][..frame.len() % 2], &[0, protocol], &len];
    let sum = checksum(&summed.concat()).to_be_bytes();
    frame[checksum_at..checksum_at + 2].copy_from_slice(&sum);
}

#[test]
fn a_frame_with_a_wrong_checksum_goes_alone_and_unchanged() {
    for ip in [v4(), v6()] {
        let frames = all_bytes(&flow(ip, &[100; 5]));
        let places = [frames[0].len() - 1, frames[0].len() - 116];
        let header = if frames[0][12] == 8 { Some(24) } else { None };
        for at in places.into_iter().chain(header) {
            let mut frames = frames.clone();
            frames[2][at] ^= 0x10;
            let writes = join(&frames);
            assert_eq!(writes.iter().map(|write| write.0).collect::<Vec<_>>(), [2, 1, 2], "{at}");
            assert_eq!(writes[1].1, [&[0; HEADER_LEN][..], &frames[2]].concat());
            frames[0][at] ^= 0x10;
            assert_eq!(counts(&frames), [1, 1, 1, 2], "{at}");
        }
    }
}

#[test]
fn a_padded_frame_goes_alone_and_keeps_its_padding() {
    let mut packets = flow(v4(), &[40, 40, 2]);
    for packet in &mut packets {
        if let Transport::Tcp { options, .. } = &mut packet.transport {
            options.clear();
        }
    }
    let mut frames = all_bytes(&packets);
    assert_eq!(counts(&frames), [3]);
    assert_eq!(frames[2].len(), 56);
    frames[2].resize(60, 0);
    assert_eq!(counts(&frames), [2, 1]);
    frames[1].push(0);
    assert_eq!(counts(&frames), [1, 1, 1]);
}

#[test]
fn a_frame_that_says_that_it_is_longer_than_it_is_goes_alone() {
    for ip in [v4(), v6()] {
        let mut frames = all_bytes(&flow(ip, &[100; 3]));
        frames[1].pop();
        assert_eq!(counts(&frames), [1, 1, 1]);
    }
}

#[test]
fn options_of_ip_and_fragments_and_extensions_go_alone() {
    let plain = |fragment, options| Ip::V4 { tos: 0, id: 7, fragment, ttl: 64, options };
    for ip in [
        plain(DONT_FRAGMENT, vec![1; 4]),
        plain(0x2000, vec![]),
        plain(0x0001, vec![]),
        plain(0x8000, vec![]),
        Ip::V6 { class_and_flow: 0, hop_limit: 9, extensions: vec![(60, vec![1; 7])] },
    ] {
        assert_eq!(counts(&all_bytes(&flow(ip, &[100, 100]))), [1, 1]);
    }
    let mut packets = flow(v4(), &[100, 100]);
    packets.iter_mut().for_each(|packet| packet.tags = vec![0x81, 0, 0, 5]);
    assert_eq!(counts(&all_bytes(&packets)), [1, 1]);
}

#[test]
fn ids_need_not_count_if_nobody_may_fragment() {
    let with = |fragment: u16, ids: [u16; 3]| {
        let mut packets = flow(v4(), &[100; 3]);
        for (packet, own) in packets.iter_mut().zip(ids) {
            packet.ip = Ip::V4 { tos: 0, id: own, fragment, ttl: 64, options: vec![] };
        }
        join(&all_bytes(&packets))
    };
    let counts = |writes: &[(usize, Vec<u8>)]| writes.iter().map(|write| write.0).sum::<usize>();
    for ids in [[0, 0, 0], [5, 9, 2], [0xffff, 0, 1]] {
        let writes = with(DONT_FRAGMENT, ids);
        assert_eq!((writes.len(), counts(&writes)), (1, 3));
        let given =
            cut(&writes[0].1).iter().map(|frame| [frame[18], frame[19]]).collect::<Vec<_>>();
        let expected = [0, 1, 2].map(|more| ids[0].wrapping_add(more).to_be_bytes());
        assert_eq!(given, expected);
    }
    assert_eq!(with(0, [0xffff, 0, 1]).len(), 1);
    assert_eq!(with(0, [0, 0, 0]).len(), 3);
    assert_eq!(with(0, [5, 6, 8]).len(), 2);
}

#[test]
fn frames_of_few_bytes_begin_no_run() {
    assert_eq!(counts(&all_bytes(&flow(v4(), &[7, 7, 8, 8, 7]))), [1, 1, 3]);
}

#[test]
fn another_flow_between_keeps_its_place() {
    let first = all_bytes(&flow(v4(), &[100; 4]));
    let other = all_bytes(&flow(v6(), &[100; 2]));
    let frames = [&first[..2], &other, &first[2..]].concat();
    let writes = join(&frames);
    assert_eq!(writes.iter().map(|write| write.0).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(writes.iter().flat_map(|(_, write)| cut(write)).collect::<Vec<_>>(), frames);
}

#[test]
fn a_write_is_of_one_piece_behind_what_came_before() {
    let frames: Vec<Vec<u8>> =
        Packet::new(v4(), tcp(ACK), data(3000)).cut(1448).iter().map(Packet::bytes).collect();
    let (mut buffer, ranges) = lay_out(&frames);
    let mut run = Run::new();
    assert_eq!(run.take(&mut buffer), None);
    let first = Write {
        frames: 1,
        bytes: ranges[0].len(),
        range: ranges[0].start - HEADER_LEN..ranges[0].end,
    };
    assert_ne!(run.offer(&mut buffer, ranges[0].clone()), Offered::Refused);
    assert_eq!(run.take(&mut buffer), Some(first));
    for range in &ranges[..2] {
        assert_eq!(run.offer(&mut buffer, range.clone()), Offered::Joined);
    }
    let both = Write {
        frames: 2,
        bytes: ranges[0].len() + ranges[1].len(),
        range: ranges[0].start - HEADER_LEN..ranges[0].end + 1448,
    };
    assert_eq!(run.take(&mut buffer), Some(both));
}

#[test]
fn nothing_is_written_from_outside_the_buffer() {
    let mut run = Run::new();
    let frame = Packet::new(v4(), tcp(ACK), data(100)).bytes();
    let mut buffer = [&[0; HEADER_LEN][..], &frame].concat();
    let whole = HEADER_LEN..buffer.len();
    assert_eq!(run.offer(&mut buffer, 20..whole.end + 1), Offered::Complete, "an empty frame");
    assert_eq!(run.take(&mut buffer).map(|write| (write.bytes, write.range)), Some((0, 10..20)));
    assert_eq!(run.offer(&mut buffer, whole.clone()), Offered::Joined);
    assert_eq!(run.offer_masked(&mut buffer, 20..whole.end + 1, [0; 4]), Offered::Refused);
    // Not the buffer that was offered.
    assert_eq!(run.take(&mut []), None);
    let mut buffer = frame.clone();
    assert_eq!(run.offer(&mut buffer, 0..frame.len()), Offered::Joined, "no room before it");
    assert_eq!(run.take(&mut buffer), None);
    assert!(run.is_empty());
}

/// Flows one after the other, of frames that mostly go on, some of them spoilt.
fn any_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let ip = prop_oneof![
        (any::<u16>(), any::<bool>(), any::<u8>()).prop_map(|(id, df, tos)| {
            let fragment = if df { DONT_FRAGMENT } else { 0 };
            Ip::V4 { tos, id, fragment, ttl: 64, options: vec![] }
        }),
        (0u32..1 << 28).prop_map(|class_and_flow| {
            Ip::V6 { class_and_flow, hop_limit: 64, extensions: vec![] }
        })
    ];
    let lens = (1usize..300, 0usize..70, 0usize..300).prop_map(|(size, count, last)| {
        let mut lens = vec![size; count];
        lens.push(last.min(size));
        lens
    });
    let spoil = prop_oneof![
        2 => Just(None),
        1 => any::<(u8, u8, u16)>().prop_map(Some),
    ];
    let some =
        (ip, lens, spoil, any::<(u8, u8)>()).prop_map(|(ip, lens, spoil, (pushed, shape))| {
            let transport = if shape & 64 == 0 { tcp(ACK) } else { Transport::Udp };
            let mut packets = flow_of(ip, &transport, &lens);
            let pushed = usize::from(pushed) % packets.len();
            set_flags(&mut packets[pushed], ACK | PSH);
            if shape % 2 == 0 {
                for packet in &mut packets {
                    if let Transport::Tcp { options, .. } = &mut packet.transport {
                        *options = data(usize::from(shape % 11) * 4);
                    }
                }
            }
            if let (Some((_, which, change)), true) = (spoil, shape % 3 == 0) {
                let at = usize::from(which) % packets.len();
                if let Ip::V4 { id, .. } = &mut packets[at].ip {
                    *id ^= change;
                }
            }
            let mut frames = all_bytes(&packets);
            if let (Some((bit, which, at)), false) = (spoil, shape % 3 == 0) {
                let frame = usize::from(which) % frames.len();
                // Mostly in the headers.
                let at = usize::from(at) % frames[frame].len().min(90);
                frames[frame][at] ^= 1 << (bit % 8);
                if bit >= 128 && frames[frame].len() > 80 && [8, 0x86].contains(&frames[frame][12])
                {
                    mend(&mut frames[frame]);
                }
            }
            frames
        });
    vec(some, 1..4).prop_map(|flows| flows.concat())
}

/// A frame whose id is of no meaning has none, and no checksum over it.
fn without_idle_id(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.get(12..15) == Some(&[8, 0, 0x45])
        && frame.get(20).is_some_and(|flags| flags & 0x40 != 0)
    {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

proptest! {
    #[test]
    fn what_was_joined_is_cut_into_the_same_frames(frames in any_frames()) {
        let mut rest = frames.iter();
        for (count, write) in join(&frames) {
            let own: Vec<Vec<u8>> = rest.by_ref().take(count).cloned().collect();
            prop_assert!(count <= 64 && write.len() <= HEADER_LEN + 65_535);
            if count == 1 {
                prop_assert_eq!(write, [&[0; HEADER_LEN][..], &own[0]].concat());
                continue;
            }
            let again: Vec<Vec<u8>> = cut(&write).into_iter().map(without_idle_id).collect();
            prop_assert_eq!(again, own.into_iter().map(without_idle_id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn flows_with_ids_that_count_come_back_byte_for_byte_in_the_fewest_writes(
        size in 8usize..300, count in 1usize..140, last in 1usize..300, is_ipv6: bool, df: bool,
        is_udp: bool,
    ) {
        let transport = if is_udp { Transport::Udp } else { tcp(ACK) };
        let lens = [vec![size; count], vec![last.min(size)]].concat();
        let fragment = if df { DONT_FRAGMENT } else { 0 };
        let v4 = Ip::V4 { tos: 2, id: 0xffe0, fragment, ttl: 255, options: vec![] };
        let frames = all_bytes(&flow_of(if is_ipv6 { v6() } else { v4 }, &transport, &lens));
        let writes = join(&frames);
        let headers = frames[0].len() - size;
        let most = ((65_535 - headers) / size).min(64);
        prop_assert_eq!(writes.len(), frames.len().div_ceil(most));
        let again: Vec<Vec<u8>> = writes.iter().flat_map(|(_, write)| cut(write)).collect();
        prop_assert_eq!(again, frames);
    }

    #[test]
    fn any_bytes_go_through_unchanged_and_in_order(frames in vec(vec(any::<u8>(), 0..200), 0..9)) {
        let writes = join(&frames);
        prop_assert_eq!(writes.len(), frames.len());
        for ((_, write), frame) in writes.iter().zip(&frames) {
            prop_assert_eq!(&write[HEADER_LEN..], frame);
        }
    }
}

#[test]
fn the_kernels_header_says_where_to_cut() {
    let (count, write) = join(&all_bytes(&flow(v6(), &[500, 500]))).remove(0);
    assert_eq!(count, 2);
    assert_eq!(write[..HEADER_LEN], vnet(1, 4, [86, 500, 54, 16]));
}
