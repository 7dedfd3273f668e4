//! Ethernet frames as a guest's network stack makes and reads them: ARP, IPv4, ICMP, UDP, DHCP.

use std::net::{Ipv4Addr, SocketAddrV4};

/// A MAC address.
pub type Mac = [u8; 6];

/// ff:ff:ff:ff:ff:ff
pub const BROADCAST: Mac = [0xff; 6];
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPX, which no part of wsnic knows.
pub const IPX: u16 = 0x8137;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// IEEE 802 local experimental EtherType 1.
pub const EXPERIMENTAL: u16 = 0x88b5;

/// A frame.
pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// A frame's EtherType.
pub fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

/// A frame's source.
pub fn source(frame: &[u8]) -> Mac {
    frame[6..12].try_into().expect("six bytes")
}

/// A request for the MAC address of `whose`, or an announcement when `sender` is `whose` (RFC 826).
pub fn arp_request(mac: Mac, sender: Ipv4Addr, whose: Ipv4Addr) -> Vec<u8> {
    arp(BROADCAST, 1, mac, sender, [0; 6], whose)
}

/// The answer to an ARP request.
pub fn arp_reply(mac: Mac, sender: Ipv4Addr, to: Mac, whose: Ipv4Addr) -> Vec<u8> {
    arp(to, 2, mac, sender, to, whose)
}

fn arp(
    to: Mac,
    operation: u8,
    mac: Mac,
    sender: Ipv4Addr,
    target: Mac,
    whose: Ipv4Addr,
) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [&head[..], &mac, &sender.octets(), &target, &whose.octets()].concat();
    ethernet(to, mac, ARP, &payload)
}

/// What an ARP frame says: operation, sender's MAC and address, the address that is asked about.
pub fn parse_arp(frame: &[u8]) -> Option<(u8, Mac, Ipv4Addr, Ipv4Addr)> {
    (frame.len() >= 42 && ethertype(frame) == ARP).then(|| {
        let mac = frame[22..28].try_into().expect("six bytes");
        (frame[21], mac, address(&frame[28..32]), address(&frame[38..42]))
    })
}

/// An IPv4 packet without options in a frame (RFC 791).
pub fn ipv4(
    to: Mac,
    from: Mac,
    source: Ipv4Addr,
    dest: Ipv4Addr,
    protocol: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&dest.octets());
    let sum = internet_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(to, from, IPV4, &[&header[..], data].concat())
}

/// Source, destination, protocol and payload of the IPv4 packet in a frame.
pub fn parse_ipv4(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u8, &[u8])> {
    if frame.len() < 34 || ethertype(frame) != IPV4 {
        return None;
    }
    let header = usize::from(frame[14] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let payload = frame.get(14 + header..14 + total)?;
    Some((address(&frame[26..30]), address(&frame[30..34]), frame[23], payload))
}

/// An ICMP echo request's message (RFC 792).
pub fn echo_request(identifier: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend([0, 1]);
    message.extend(data);
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A UDP datagram without checksum (RFC 768).
pub fn udp(from_port: u16, to_port: u16, data: &[u8]) -> Vec<u8> {
    let len = 8 + data.len() as u16;
    let header = [from_port, to_port, len, 0].map(u16::to_be_bytes).concat();
    [&header[..], data].concat()
}

/// A UDP datagram in a frame as Linux sends it: with a checksum and DF.
pub fn datagram(
    to: Mac,
    from: Mac,
    source: SocketAddrV4,
    dest: SocketAddrV4,
    data: &[u8],
) -> Vec<u8> {
    let mut udp = udp(source.port(), dest.port(), data);
    let addresses = [source.ip().octets(), dest.ip().octets()].concat();
    let len = (udp.len() as u16).to_be_bytes();
    let sum = internet_checksum(&[&addresses[..], &[0, 17], &len, &udp].concat());
    let sum = if sum == 0 { 0xffff } else { sum };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ipv4(to, from, *source.ip(), *dest.ip(), 17, &udp);
    frame[20] = 0x40;
    frame[24..26].fill(0);
    let sum = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Ports and data of a UDP datagram.
pub fn parse_udp(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let head = datagram.first_chunk::<8>()?;
    let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    Some((port(0), port(2), &datagram[8..]))
}

/// A DHCP message from server or client (RFC 2131 §2).
#[derive(Debug, Clone)]
pub struct Dhcp {
    /// Option 53: 1 DISCOVER, 2 OFFER, 3 REQUEST, 4 DECLINE, 5 ACK, 6 NAK, 7 RELEASE, 8 INFORM.
    pub kind: u8,
    /// The client's address, as it says.
    pub ciaddr: Ipv4Addr,
    /// The address that is offered.
    pub yiaddr: Ipv4Addr,
    /// The client's MAC address.
    pub chaddr: Mac,
    /// The client's identifier of this exchange.
    pub xid: u32,
    /// Options but 53, in order.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Dhcp {
    /// A client's message without options.
    pub fn new(kind: u8, mac: Mac) -> Dhcp {
        let none = Ipv4Addr::UNSPECIFIED;
        Dhcp {
            kind,
            ciaddr: none,
            yiaddr: none,
            chaddr: mac,
            xid: 0x1234_5678,
            options: Vec::new(),
        }
    }

    /// The same with one more option.
    pub fn with(mut self, option: u8, value: &[u8]) -> Dhcp {
        self.options.push((option, value.to_vec()));
        self
    }

    /// The frame in which a client without an address sends it.
    pub fn frame(&self) -> Vec<u8> {
        let mut message = vec![1, 1, 6, 0];
        message.extend(self.xid.to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.ciaddr.octets());
        message.extend(self.yiaddr.octets());
        message.extend([0; 8]);
        message.extend(self.chaddr);
        message.extend([0; 10 + 64 + 128]);
        message.extend([99, 130, 83, 99, 53, 1, self.kind]);
        for (option, value) in &self.options {
            message.extend([*option, value.len() as u8]);
            message.extend(value);
        }
        message.push(255);
        // BOOTP's shortest message is 300 bytes (RFC 951 §3).
        message.resize(message.len().max(300), 0);
        let datagram = udp(68, 67, &message);
        ipv4(BROADCAST, self.chaddr, self.ciaddr, Ipv4Addr::BROADCAST, 17, &datagram)
    }

    /// The server's message in a frame, if there is one.
    pub fn parse(frame: &[u8]) -> Option<Dhcp> {
        let (.., 17, datagram) = parse_ipv4(frame)? else { return None };
        let (67, 68, message) = parse_udp(datagram)? else { return None };
        let mut dhcp = Dhcp {
            kind: 0,
            ciaddr: address(message.get(12..16)?),
            yiaddr: address(message.get(16..20)?),
            chaddr: message.get(28..34)?.try_into().ok()?,
            xid: u32::from_be_bytes(message.get(4..8)?.try_into().ok()?),
            options: Vec::new(),
        };
        let mut rest = message.get(240..)?;
        while let [option, tail @ ..] = rest {
            match option {
                0 => rest = tail,
                255 => break,
                _ => {
                    let len = usize::from(*tail.first()?);
                    let value = tail.get(1..1 + len)?.to_vec();
                    rest = &tail[1 + len..];
                    match option {
                        53 => dhcp.kind = *value.first()?,
                        _ => dhcp.options.push((*option, value)),
                    }
                }
            }
        }
        Some(dhcp)
    }

    /// The value of an option.
    pub fn option(&self, wanted: u8) -> Option<&[u8]> {
        self.options.iter().find(|(option, _)| *option == wanted).map(|(_, value)| &value[..])
    }
}

/// Four bytes as an address.
pub fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(<[u8; 4]>::try_from(bytes).expect("four bytes"))
}

/// RFC 1071; 0 for bytes whose checksum is among them and right.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
