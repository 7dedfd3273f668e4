//! What the kernel left whole comes out as the frames that it would have made.

#[path = "support/packets.rs"]
mod packets;

use packets::{ACK, CWR, FIN, Ip, PSH, Packet, Transport, data, tcp, v4, v6, vnet};
use proptest::collection::vec;
use proptest::prelude::*;
use wsnic_proto::offload::{HEADER_LEN, Malformed, Segments};

fn cut(packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut segments = Segments::new(packet)?;
    let mut frames = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut frame = vec![0; len];
        assert_eq!(segments.write_next(&mut frame), len);
        frames.push(frame);
    }
    assert_eq!(segments.write_next(&mut [0; 100]), 0);
    Ok(frames)
}

fn all_bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

/// What a super-frame of this packet must become.
fn assert_cut(packet: &Packet, size: u16) {
    assert_eq!(cut(&packet.super_frame(size)), Ok(all_bytes(&packet.cut(size.into()))));
}

/// The error for a packet whose bytes were changed.
fn refusal(packet: &Packet, change: impl FnOnce(&mut Vec<u8>)) -> Option<Malformed> {
    let mut bytes = packet.super_frame(1000);
    change(&mut bytes);
    Segments::new(&bytes).err()
}

#[test]
fn a_frame_with_nothing_to_do_passes_unchanged() {
    let frame = Packet::new(v4(), tcp(ACK), data(99)).bytes();
    assert_eq!(cut(&[&[0; 10][..], &frame].concat()), Ok(vec![frame.clone()]));
    // "The checksum was verified" (DATA_VALID) and numbers that mean nothing here.
    let header = vnet(2, 0, [9, 9, 0xffff, 0xffff]);
    assert_eq!(cut(&[&header[..], &frame].concat()), Ok(vec![frame]));
    let no_ip = [[0x11; 14], [0x22; 14]].concat();
    assert_eq!(cut(&[&[0; 10][..], &no_ip].concat()), Ok(vec![no_ip]));
}

#[test]
fn an_unfinished_checksum_is_finished() {
    for ip in [v4(), v6()] {
        for transport in [tcp(ACK | PSH), Transport::Udp] {
            for len in [0, 1, 2, 63, 64, 65, 1447] {
                let packet = Packet::new(ip.clone(), transport.clone(), data(len));
                assert_eq!(cut(&packet.unfinished()), Ok(vec![packet.bytes()]), "{packet:?}");
            }
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    let zero = |packet: &Packet| packet.bytes()[packet.transport_at()..][6..8] == [0xff, 0xff];
    let packet = |payload: u16| {
        Packet::new(v4(), Transport::Udp, [&payload.to_be_bytes()[..], &[0; 98]].concat())
    };
    let found = (0..=u16::MAX).map(packet).find(zero).unwrap();
    assert_eq!(cut(&found.unfinished()), Ok(vec![found.bytes()]));
    assert_cut(&found, 50);
    assert_cut(&found, 100);
}

#[test]
fn tcp_is_cut_with_numbers_that_go_on_and_wrap() {
    for ip in [
        Ip::V4 { tos: 0xb8, id: 0xfffe, fragment: 0, ttl: 3, options: vec![1; 8] },
        v4(),
        v6(),
        Ip::V6 {
            class_and_flow: 0x0ff0_0001,
            hop_limit: 1,
            extensions: vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![1; 15])],
        },
    ] {
        let transport = Transport::Tcp {
            sequence: u32::MAX - 1500,
            acknowledged: u32::MAX,
            flags: ACK,
            window: u16::MAX,
            urgent: 3,
            options: vec![],
        };
        assert_cut(&Packet::new(ip.clone(), transport, data(4321)), 1000);
        assert_cut(&Packet::new(ip, tcp(ACK), data(65_000)), 1448);
    }
}

#[test]
fn fin_and_psh_are_the_last_ones_and_cwr_is_the_first_ones() {
    let packet = Packet::new(v4(), tcp(ACK | FIN | PSH | CWR), data(2500));
    let frames = cut(&packet.super_frame(1000)).unwrap();
    let flags: Vec<u8> = frames.iter().map(|frame| frame[14 + 20 + 13]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | FIN | PSH]);
    assert_cut(&packet, 1000);
    assert_cut(&packet, 2500);
}

#[test]
fn udp_is_cut_into_datagrams() {
    for ip in [v4(), v6()] {
        let packet = Packet::new(ip, Transport::Udp, data(4000));
        assert_cut(&packet, 1200);
        assert_cut(&packet, 1000);
        assert_cut(&packet, 4000);
    }
}

#[test]
fn a_super_frame_behind_a_vlan_tag_is_cut_and_behind_two_refused() {
    for tag in [[0x81, 0, 0, 5], [0x88, 0xa8, 0xff, 0xff]] {
        let mut packet = Packet::new(v4(), tcp(ACK), data(2500));
        packet.tags = tag.to_vec();
        assert_cut(&packet, 1000);
        packet.tags = [tag, tag].concat();
        assert_eq!(refusal(&packet, |_| ()), Some(Malformed::Headers));
    }
}

#[test]
fn without_a_sum_from_the_kernel_the_addresses_give_it() {
    for ip in [v4(), v6()] {
        let packet = Packet::new(ip, tcp(ACK), data(2500));
        let mut bytes = packet.super_frame(1000);
        bytes[0] = 0;
        let checksum_at = HEADER_LEN + packet.transport_at() + 16;
        bytes[checksum_at..checksum_at + 2].fill(0x55);
        assert_eq!(cut(&bytes).unwrap(), all_bytes(&packet.cut(1000)));
    }
}

#[test]
fn too_little_room_loses_nothing() {
    let packet = Packet::new(v4(), tcp(ACK), data(2500));
    let bytes = packet.super_frame(1000);
    let mut segments = Segments::new(&bytes).unwrap();
    let len = segments.next_len().unwrap();
    let mut out = vec![7; len + 3];
    assert_eq!(segments.write_next(&mut out[..len - 1]), 0);
    assert_eq!(segments.next_len(), Some(len));
    assert_eq!(segments.write_next(&mut out), len);
    assert_eq!(&out[..len], packet.cut(1000)[0].bytes());
    assert_eq!(&out[len..], [7; 3]);
}

#[test]
fn what_is_shorter_than_its_headers_is_refused() {
    let packet = Packet::new(v4(), tcp(ACK), data(2500));
    let bytes = packet.super_frame(1000);
    for len in 0..HEADER_LEN + 14 {
        assert_eq!(Segments::new(&bytes[..len]).err(), Some(Malformed::TooShort));
        assert_eq!(Segments::new(&vec![0; len]).err(), Some(Malformed::TooShort));
    }
    for len in HEADER_LEN + 14..HEADER_LEN + packet.transport_at() + 32 {
        assert_eq!(Segments::new(&bytes[..len]).err(), Some(Malformed::Headers), "{len}");
    }
}

#[test]
fn a_checksum_outside_the_frame_is_refused() {
    let frame = Packet::new(v4(), Transport::Udp, data(2)).bytes();
    let outcome = |start, offset| {
        let bytes = [vnet(1, 0, [0, 0, start, offset]), frame.clone()].concat();
        Segments::new(&bytes).err()
    };
    let end = frame.len() as u16;
    assert_eq!(outcome(34, end - 34 - 2), None);
    assert_eq!(outcome(34, end - 34 - 1), Some(Malformed::ChecksumPlace));
    assert_eq!(outcome(13, 20), Some(Malformed::ChecksumPlace), "in the Ethernet header");
    assert_eq!(outcome(u16::MAX, u16::MAX), Some(Malformed::ChecksumPlace));
    // Of a super-frame it is where TCP has it, and nowhere else.
    let packet = Packet::new(v4(), tcp(ACK), data(2500));
    let place = Some(Malformed::ChecksumPlace);
    assert_eq!(refusal(&packet, |bytes| bytes[6..8].copy_from_slice(&38u16.to_ne_bytes())), place);
    assert_eq!(refusal(&packet, |bytes| bytes[8..10].copy_from_slice(&6u16.to_ne_bytes())), place);
}

#[test]
fn kinds_that_nobody_asked_for_are_refused() {
    let packet = Packet::new(v4(), tcp(ACK), data(2500));
    // UFO, the ECN bit alone, a tunnel, and ECN on UDP.
    for kind in [2, 3, 0x80, 0x21, 0x85, 0xff] {
        assert_eq!(refusal(&packet, |bytes| bytes[1] = kind), Some(Malformed::Type(kind)));
    }
}

#[test]
fn a_kind_that_is_not_the_frames_is_refused() {
    let headers = Some(Malformed::Headers);
    let (over_v4, over_v6) =
        (Packet::new(v4(), tcp(ACK), data(2500)), Packet::new(v6(), tcp(ACK), data(2500)));
    assert_eq!(refusal(&over_v4, |bytes| bytes[1] = 4), headers);
    assert_eq!(refusal(&over_v6, |bytes| bytes[1] = 1), headers);
    assert_eq!(refusal(&over_v4, |bytes| bytes[1] = 5), headers);
    let ip_at = HEADER_LEN + 14;
    assert_eq!(refusal(&over_v4, |bytes| bytes[ip_at] = 0x65), headers, "version");
    assert_eq!(refusal(&over_v4, |bytes| bytes[ip_at] = 0x44), headers, "header length");
    assert_eq!(refusal(&over_v4, |bytes| bytes[ip_at + 6] = 0x20), headers, "first fragment");
    assert_eq!(refusal(&over_v4, |bytes| bytes[ip_at + 7] = 1), headers, "later fragment");
    assert_eq!(refusal(&over_v4, |bytes| bytes[ip_at + 20 + 12] = 0x40), headers, "TCP length");
    assert_eq!(refusal(&over_v6, |bytes| bytes[ip_at] = 0x45), headers, "version");
    assert_eq!(refusal(&over_v6, |bytes| bytes[ip_at + 6] = 44), headers, "fragment header");
    let endless = vec![(0, vec![0, 1, 4, 0, 0, 0, 0]); 40];
    let ip = Ip::V6 { class_and_flow: 0, hop_limit: 64, extensions: endless };
    assert_eq!(refusal(&Packet::new(ip, tcp(ACK), data(2500)), |_| ()), headers);
}

#[test]
fn segments_that_are_too_small_or_too_many_are_refused() {
    let outcome = |transport, size| {
        Segments::new(&Packet::new(v4(), transport, data(2560)).super_frame(size)).err()
    };
    assert_eq!(outcome(tcp(ACK), 0), Some(Malformed::Size(0)));
    assert_eq!(outcome(tcp(ACK), 7), Some(Malformed::Size(7)));
    assert_eq!(outcome(tcp(ACK), 8), None);
    assert_eq!(outcome(Transport::Udp, 0), Some(Malformed::Size(0)));
    assert_eq!(outcome(Transport::Udp, 19), Some(Malformed::Size(19)));
    assert_eq!(outcome(Transport::Udp, 20), None);
}

#[test]
fn what_is_longer_than_ip_allows_is_refused() {
    for ip in [v4(), v6()] {
        let mut bytes = Packet::new(ip, tcp(ACK), data(60_000)).super_frame(1448);
        bytes.resize(HEADER_LEN + 14 + 65_535, 0);
        assert_eq!(Segments::new(&bytes).err(), None);
        bytes.push(0);
        assert_eq!(Segments::new(&bytes).err(), Some(Malformed::TooLong));
    }
}

/// Packets as a kernel may hand them over, of all kinds that there are.
fn any_packet() -> impl Strategy<Value = Packet> {
    let v4 =
        (any::<(u8, u16, bool, u8)>(), 0usize..=10).prop_map(|((tos, id, df, ttl), options)| {
            let fragment = if df { 0x4000 } else { 0 };
            Ip::V4 { tos, id, fragment, ttl, options: vec![1; options * 4] }
        });
    let extension = (prop_oneof![Just(0), Just(43), Just(60)], 0usize..3);
    let v6 = (0u32..1 << 28, any::<u8>(), vec(extension, 0..3)).prop_map(|(flow, hops, kinds)| {
        let extension =
            |(kind, len): (u8, usize)| (kind, [&[len as u8][..], &vec![1; len * 8 + 6]].concat());
        let extensions = kinds.into_iter().map(extension).collect();
        Ip::V6 { class_and_flow: flow, hop_limit: hops, extensions }
    });
    let tcp = (any::<(u32, u32, u8, u16, u16)>(), 0usize..=10).prop_map(|(fields, options)| {
        let (sequence, acknowledged, flags, window, urgent) = fields;
        let options = data(options * 4);
        Transport::Tcp { sequence, acknowledged, flags, window, urgent, options }
    });
    let tags =
        prop_oneof![Just(vec![]), any::<[u8; 2]>().prop_map(|tci| [&[0x81, 0], &tci[..]].concat())];
    let ip = prop_oneof![v4, v6];
    let transport = prop_oneof![3 => tcp, 1 => Just(Transport::Udp)];
    (tags, ip, transport, vec(any::<u8>(), 0..5000))
        .prop_map(|(tags, ip, transport, payload)| Packet { tags, ip, transport, payload })
}

proptest! {
    #[test]
    fn any_super_frame_is_cut_as_the_reference_cuts_it(packet in any_packet(), size in 40u16..3000) {
        assert_cut(&packet, size);
    }

    #[test]
    fn any_checksum_is_finished_as_the_reference_has_it(packet in any_packet()) {
        let mut expected = packet.bytes();
        let at = packet.transport_at() + if packet.transport == Transport::Udp { 6 } else { 16 };
        if expected[at..at + 2] == [0, 0] {
            // Both are right, and the kernel prefers this one here.
            expected[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(cut(&packet.unfinished()), Ok(vec![expected]));
    }

    #[test]
    fn any_bytes_are_cut_without_panic_into_no_more_than_there_is(
        packet in any_packet(),
        size: u16,
        changes in vec(any::<(u16, u8)>(), 0..6),
        len in 0usize..6000,
    ) {
        let mut bytes = packet.super_frame(size);
        for (at, value) in changes {
            // Mostly in the headers.
            let at = usize::from(at) % bytes.len().min(120);
            bytes[at] = value;
        }
        bytes.truncate(len);
        let frame = bytes.get(HEADER_LEN..).unwrap_or_default();
        if let Ok(frames) = cut(&bytes) {
            prop_assert!(frames.len() <= 8192);
            prop_assert!(frames.iter().all(|own| own.len() <= frame.len() && own.len() >= 14));
            let headers = frames.iter().map(Vec::len).sum::<usize>().saturating_sub(frame.len());
            prop_assert!(frames.len() == 1 || headers % (frames.len() - 1) == 0);
        }
    }
}
