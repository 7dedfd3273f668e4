//! What a guest, or a front-end with its voice, may send to harm others; and what it has to be let.

use super::frames::{self, ARP, BROADCAST, IPV4, IPV6, Mac, ethernet, internet_checksum};
use super::lan::{GATEWAY_MAC, Guest};
use std::net::Ipv4Addr;

/// A name and its frames, the harmful one first.
pub(super) type Attack = (&'static str, Vec<Vec<u8>>);

const RESERVED: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);
const STRANGER: Mac = [2, 0xbd, 0, 0, 0, 1];

/// By `from`, who has one MAC address and one IPv4 address, on `to`, in the name of `other`.
pub(super) fn attacks(from: &Guest, to: &Guest, other: &Guest) -> Vec<Attack> {
    let words = |mac| ethernet(to.mac, mac, frames::EXPERIMENTAL, b"not mine");
    let one = |name, frame| (name, vec![frame]);
    let mut all = vec![
        one("another guest's MAC address", words(other.mac)),
        one("a MAC address of nobody", words(STRANGER)),
        one("the gateway's MAC address", words(GATEWAY_MAC)),
        one("BPDU", ethernet(RESERVED, from.mac, 38, &[&[0x42, 0x42, 3][..], &[0; 35]].concat())),
    ];
    all.extend(arp(from, to, other));
    all.extend(ipv4(from, to, other));
    all.extend(dhcp(from));
    all.extend(ipv6(from));
    all.extend(tags(from, to, other));
    all
}

fn arp(from: &Guest, to: &Guest, other: &Guest) -> Vec<Attack> {
    let is_at = |ip, mac| frames::arp_reply(mac, ip, to.mac, to.ip);
    let by = |source: Mac, mut frame: Vec<u8>| {
        frame[6..12].copy_from_slice(&source);
        frame
    };
    let with = |at: usize, value: u8| {
        let mut frame = is_at(from.ip, from.mac);
        frame[at] = value;
        frame
    };
    let one = |name, frame| (name, vec![frame]);
    vec![
        one("ARP answer for another guest's address", is_at(other.ip, from.mac)),
        one("ARP answer for the gateway's address", is_at(GATEWAY, from.mac)),
        one(
            "ARP answer with another's MAC address inside",
            by(from.mac, is_at(from.ip, other.mac)),
        ),
        one(
            "ARP answer, all another's, but for the frame",
            by(from.mac, is_at(other.ip, other.mac)),
        ),
        one("ARP announcement of another's address", {
            frames::arp_request(from.mac, other.ip, other.ip)
        }),
        one("ARP probe with another's MAC address inside", {
            by(from.mac, frames::arp_request(other.mac, Ipv4Addr::UNSPECIFIED, from.ip))
        }),
        one("ARP of hardware that is not Ethernet", with(15, 6)),
        one("ARP of a protocol that is not IPv4", with(16, 0x86)),
        one("ARP with MAC addresses of 8 bytes", with(18, 8)),
        one("ARP with addresses of 16 bytes", with(19, 16)),
        one("ARP that is cut short", is_at(from.ip, from.mac)[..30].to_vec()),
    ]
}

fn ipv4(from: &Guest, to: &Guest, other: &Guest) -> Vec<Attack> {
    let datagram = frames::udp(4000, 4001, b"hello");
    let packet = |source| frames::ipv4(to.mac, from.mac, source, to.ip, 17, &datagram);
    let one = |name, frame| (name, vec![frame]);
    vec![
        one("IPv4 from another guest's address", packet(other.ip)),
        one("IPv4 from the gateway's address", packet(GATEWAY)),
        one("IPv4 from an address beyond", packet(Ipv4Addr::new(8, 8, 8, 8))),
        one("IPv4 from no address", packet(Ipv4Addr::UNSPECIFIED)),
        one("ICMP redirect of the gateway", {
            let redirect = [&[5, 1, 0, 0][..], &from.ip.octets(), &packet(to.ip)[14..42]].concat();
            frames::ipv4(to.mac, from.mac, GATEWAY, to.ip, 1, &redirect)
        }),
        one("IPv4 with options from another's address", {
            ip_packet(to.mac, from.mac, other.ip, to.ip, &[1, 1, 1, 0], 0, &datagram)
        }),
        one("later fragment from another's address", {
            ip_packet(to.mac, from.mac, other.ip, to.ip, &[], 185, &datagram)
        }),
        one("IPv4 of a header that is too short", {
            let mut frame = packet(from.ip);
            frame[14] = 0x44;
            frame
        }),
        one("IPv4 that is longer than its frame", {
            let mut frame = packet(from.ip);
            frame[17] = 200;
            frame
        }),
    ]
}

fn dhcp(from: &Guest) -> Vec<Attack> {
    let all = Ipv4Addr::BROADCAST;
    let offer = |ports: (u16, u16)| frames::udp(ports.0, ports.1, &[2; 300]);
    let by = |source, ports| frames::ipv4(BROADCAST, from.mac, source, all, 17, &offer(ports));
    let one = |name, frame| (name, vec![frame]);
    let bytes = offer((67, 68));
    let fragment = |at: u16, more: u16, bytes: &[u8]| {
        ip_packet(BROADCAST, from.mac, from.ip, all, &[], at | more << 13, bytes)
    };
    vec![
        one("DHCP offer", by(from.ip, (67, 68))),
        one("DHCP offer from no address", by(Ipv4Addr::UNSPECIFIED, (67, 68))),
        one("DHCP offer in the gateway's name", by(GATEWAY, (67, 68))),
        one("DHCP offer from another port", by(from.ip, (4000, 68))),
        one("DHCP relay's message", by(from.ip, (67, 67))),
        one("DHCP offer behind options of IPv4", {
            ip_packet(BROADCAST, from.mac, from.ip, all, &[1, 1, 1, 0], 0, &bytes)
        }),
        ("DHCP offer in fragments", vec![fragment(0, 1, &bytes[..8]), fragment(1, 0, &bytes[8..])]),
        one("fragment without the whole of the ports", fragment(0, 1, &bytes[..2])),
    ]
}

fn ipv6(from: &Guest) -> Vec<Attack> {
    // RFC 4861 §4.2: hop limit 64, router lifetime 1800 s.
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let redirect = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 32]].concat();
    let packet = |next, payload: &[u8]| ipv6_packet(from, next, payload);
    // Next header, length in 8 bytes more, padding.
    let options = |next: u8, more: u8| {
        let mut header = vec![next, more, 1, 4];
        header.resize(8 + usize::from(more) * 8, 0);
        header
    };
    let fragment =
        |next: u8, place: u16| [&[next, 0][..], &place.to_be_bytes(), &[0, 0, 0, 7]].concat();
    let one = |name, frame| (name, vec![frame]);
    vec![
        one("Router Advertisement", packet(ICMPV6, &advertisement)),
        one("redirect of ICMPv6", packet(ICMPV6, &redirect)),
        one("Router Advertisement behind a header", {
            packet(OPTIONS, &[&options(ICMPV6, 0)[..], &advertisement].concat())
        }),
        one("Router Advertisement behind many headers", {
            let headers = [options(OPTIONS, 3), options(OPTIONS, 0), options(ICMPV6, 9)].concat();
            packet(0, &[&headers[..], &advertisement].concat())
        }),
        one("Router Advertisement as a whole fragment", {
            packet(FRAGMENT, &[&fragment(ICMPV6, 0)[..], &advertisement].concat())
        }),
        (
            "Router Advertisement in fragments",
            vec![
                packet(FRAGMENT, &[&fragment(ICMPV6, 1)[..], &advertisement[..8]].concat()),
                packet(FRAGMENT, &[&fragment(ICMPV6, 8)[..], &advertisement[8..]].concat()),
            ],
        ),
        (
            "Router Advertisement behind a header that fills the first fragment",
            vec![
                packet(FRAGMENT, &[fragment(OPTIONS, 1), options(ICMPV6, 0)].concat()),
                packet(FRAGMENT, &[&fragment(OPTIONS, 8)[..], &advertisement].concat()),
            ],
        ),
        one("header whose end is in the next fragment", {
            packet(FRAGMENT, &[fragment(OPTIONS, 1), options(ICMPV6, 9)[..16].to_vec()].concat())
        }),
        one("ICMPv6 without a type", packet(ICMPV6, &[])),
        one("DHCPv6 answer", packet(17, &frames::udp(547, 546, &[2; 40]))),
        one("DHCPv6 answer from another port", packet(17, &frames::udp(4000, 546, &[2; 40]))),
        one("DHCPv6 answer behind a header", {
            packet(OPTIONS, &[options(17, 0), frames::udp(547, 546, &[2; 40])].concat())
        }),
    ]
}

fn tags(from: &Guest, to: &Guest, other: &Guest) -> Vec<Attack> {
    let claim = frames::arp_reply(from.mac, other.ip, to.mac, to.ip);
    let tagged = |kind: u16, vlan: u16, frame: &[u8]| {
        let tag = [kind.to_be_bytes(), vlan.to_be_bytes()].concat();
        [&frame[..12], &tag, &frame[12..]].concat()
    };
    let snap = |kind: u16| {
        let payload = &claim[14..];
        let head = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind.to_be_bytes()].concat();
        let length = (head.len() + payload.len()) as u16;
        ethernet(to.mac, from.mac, length, &[&head[..], payload].concat())
    };
    let one = |name, frame| (name, vec![frame]);
    vec![
        one("a frame of a VLAN", tagged(0x8100, 5, &from.words(to.mac, "tagged"))),
        one("a frame of a provider's VLAN", tagged(0x88a8, 5, &from.words(to.mac, "tagged"))),
        one("ARP of VLAN 0, which is none", tagged(0x8100, 0, &claim)),
        one("ARP of VLAN 0 with a priority", tagged(0x8100, 0xe000, &claim)),
        one("ARP of VLAN 0 of a provider", tagged(0x88a8, 0, &claim)),
        one("ARP behind two tags", tagged(0x88a8, 0, &tagged(0x8100, 0, &claim))),
        one("ARP behind SNAP", snap(ARP)),
        one("IPv4 behind SNAP", snap(IPV4)),
    ]
}

/// What an ordinary guest sends to another, to all, and before it has an address.
pub(super) fn ordinary(from: &Guest, to: &Guest) -> Vec<Attack> {
    let one = |name, frame| (name, vec![frame]);
    let hello = frames::udp(4000, 4001, &[7; 64]);
    let bytes = frames::udp(4000, 4001, &[7; 1200]);
    let fragment = |at: u16, more: u16, bytes: &[u8]| {
        ip_packet(to.mac, from.mac, from.ip, to.ip, &[], at | more << 13, bytes)
    };
    let v6 = |next, payload: &[u8]| ipv6_packet(from, next, payload);
    let part = |place: u16, bytes: &[u8]| {
        let header = [&[17, 0][..], &place.to_be_bytes(), &[0, 0, 0, 9]].concat();
        v6(FRAGMENT, &[&header[..], bytes].concat())
    };
    vec![
        one("ARP question", frames::arp_request(from.mac, from.ip, to.ip)),
        one("ARP answer", frames::arp_reply(from.mac, from.ip, to.mac, to.ip)),
        one("ARP announcement", frames::arp_request(from.mac, from.ip, from.ip)),
        one("ARP probe", frames::arp_request(from.mac, Ipv4Addr::UNSPECIFIED, from.ip)),
        one("ARP with padding", {
            [frames::arp_reply(from.mac, from.ip, to.mac, to.ip), vec![0; 18]].concat()
        }),
        one("UDP", from.udp(to.mac, to.ip, (4000, 4001), b"hello")),
        one("TCP", frames::ipv4(to.mac, from.mac, from.ip, to.ip, 6, &[1; 20])),
        one("ping", {
            let ping = frames::echo_request(1, b"hello");
            frames::ipv4(to.mac, from.mac, from.ip, to.ip, 1, &ping)
        }),
        one("IGMP", {
            let group = Ipv4Addr::new(224, 0, 0, 22);
            ip_packet(GROUP, from.mac, from.ip, group, &[0x94, 4, 0, 0], 0x4000, &[2; 16])
        }),
        one("UDP behind options", {
            ip_packet(to.mac, from.mac, from.ip, to.ip, &[1, 1, 1, 0], 0, &hello)
        }),
        ("UDP in fragments", vec![fragment(0, 1, &bytes[..600]), fragment(75, 0, &bytes[600..])]),
        one("UDP without data", from.udp(to.mac, to.ip, (4000, 4001), b"")),
        one("mDNS", from.udp(GROUP, Ipv4Addr::new(224, 0, 0, 251), (5353, 5353), &[0; 12])),
        one("DHCP discovery", frames::Dhcp::new(1, from.mac).frame()),
        one("DHCP renewal", from.udp(to.mac, to.ip, (68, 67), &[1; 300])),
        one("IPv6 neighbour solicitation", v6(ICMPV6, &[135; 24])),
        one("IPv6 neighbour advertisement", v6(ICMPV6, &[136; 24])),
        one("IPv6 router solicitation", v6(ICMPV6, &[133; 8])),
        one("IPv6 ping", v6(ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1])),
        one(
            "MLD behind an option",
            v6(0, &[&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &[143; 8]].concat()),
        ),
        one("IPv6 UDP", v6(17, &hello)),
        one("DHCPv6 question", v6(17, &frames::udp(546, 547, &[1; 40]))),
        one("IPv6 TCP", v6(6, &[1; 20])),
        ("IPv6 UDP in fragments", vec![part(1, &bytes[..600]), part(600, &bytes[600..])]),
        one("IPX", ethernet(BROADCAST, from.mac, frames::IPX, &[0xff; 30])),
        one("IPX of Novell", ethernet(BROADCAST, from.mac, 30, &[0xff; 30])),
        one("NetBEUI", ethernet(to.mac, from.mac, 30, &[0xf0; 30])),
        one("AppleTalk", {
            let head = [0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b];
            ethernet(to.mac, from.mac, 38, &[&head[..], &[0; 30]].concat())
        }),
        one("no protocol", from.words(to.mac, "hello")),
        one("no protocol, to all", from.words(BROADCAST, "hello all")),
    ]
}

/// A packet with options (a multiple of 4 bytes) and what says which fragment it is, in a frame.
pub(super) fn ip_packet(
    to: Mac,
    from: Mac,
    source: Ipv4Addr,
    dest: Ipv4Addr,
    options: &[u8],
    fragment: u16,
    data: &[u8],
) -> Vec<u8> {
    let mut frame = frames::ipv4(to, from, source, dest, 17, data);
    if options.first() == Some(&0x94) {
        frame[23] = 2;
    }
    frame[14] += (options.len() / 4) as u8;
    let length = (20 + options.len() + data.len()) as u16;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[20..22].copy_from_slice(&fragment.to_be_bytes());
    frame.splice(34..34, options.iter().copied());
    frame[24..26].fill(0);
    let sum = internet_checksum(&frame[14..34 + options.len()]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn ipv6_packet(from: &Guest, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0xad]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(payload);
    ethernet([0x33, 0x33, 0, 0, 0, 1], from.mac, IPV6, &packet)
}

const GROUP: Mac = [1, 0, 0x5e, 0, 0, 0xfb];
const ICMPV6: u8 = 58;
const OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
