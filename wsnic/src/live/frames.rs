//! Frames as a guest sends and reads them: ARP, IPv4, ICMP echo, UDP, DHCP, DNS. No I/O.
//!
//! dhcproto and hickory-proto make and read the two that are more than a header.

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use hickory_proto::op::{
    Message as DnsMessage, MessageType as DnsKind, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::Ipv4Addr;
use wsnic_proto::{Frame, MacAddr};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const ICMP: u8 = 1;
const UDP: u8 = 17;
/// Bytes of an IPv4 header without options (RFC 791 §3.1).
pub const IP_HEADER: usize = 20;
/// Bytes of a UDP header (RFC 768), and of an ICMP echo's (RFC 792).
pub const UDP_HEADER: usize = 8;
/// IEEE 802.3 §4.2.3.3: 64 bytes with the FCS.
const MIN_FRAME: usize = 60;
/// BOOTP's shortest message (RFC 951 §3).
const MIN_DHCP: usize = 300;
/// How the guest calls itself.
const HOST_NAME: &str = "wsnic-check";

/// Who sends to whom.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The sender.
    pub from: (MacAddr, Ipv4Addr),
    /// The receiver.
    pub to: (MacAddr, Ipv4Addr),
}

/// What a frame carries, as far as this guest cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// An ARP packet.
    Arp {
        /// Whether it asks.
        is_request: bool,
        /// The sender.
        from: (MacAddr, Ipv4Addr),
        /// Whose address is asked for.
        asked: Ipv4Addr,
    },
    /// The answer to a ping: all behind the ICMP checksum.
    EchoReply(&'a [u8]),
    /// A whole UDP datagram, and the MAC address that it came from.
    Udp {
        /// Sender's MAC address.
        mac: MacAddr,
        /// Sender's address and port.
        from: (Ipv4Addr, u16),
        /// Receiver's port.
        to: u16,
        /// What it carries.
        data: &'a [u8],
    },
}

/// Looks at a frame; None: it is of no interest, or wrong.
pub fn parse(bytes: &[u8]) -> Option<Seen<'_>> {
    let frame = Frame::new(bytes)?;
    let body = frame.payload();
    match frame.ethertype() {
        ARP => {
            let mac = MacAddr(*body.get(8..)?.first_chunk()?);
            Some(Seen::Arp {
                is_request: *body.get(7)? == 1,
                from: (mac, address(body, 14)?),
                asked: address(body, 24)?,
            })
        }
        IPV4 => {
            let header = usize::from(body.first()? & 15) * 4;
            let total = usize::from(number(body, 2)?);
            // A fragment is no answer to anything that is asked here.
            let is_fragment = number(body, 6)? & 0x3fff != 0;
            let data = body.get(header..total).filter(|_| !is_fragment)?;
            match *body.get(9)? {
                ICMP if data.first() == Some(&0) => Some(Seen::EchoReply(data.get(4..)?)),
                UDP => Some(Seen::Udp {
                    mac: frame.source(),
                    from: (address(body, 12)?, number(data, 0)?),
                    to: number(data, 2)?,
                    data: data.get(UDP_HEADER..)?,
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Asks who has an address (RFC 826).
pub fn arp_request(from: (MacAddr, Ipv4Addr), whose: Ipv4Addr) -> Vec<u8> {
    arp(1, from, (MacAddr::BROADCAST, MacAddr::ZERO, whose))
}

/// Says that the sender has its address.
pub fn arp_reply(way: Way) -> Vec<u8> {
    arp(2, way.from, (way.to.0, way.to.0, way.to.1))
}

fn arp(operation: u8, from: (MacAddr, Ipv4Addr), to: (MacAddr, MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(from.0.0);
    packet.extend(from.1.octets());
    packet.extend(to.1.0);
    packet.extend(to.2.octets());
    ethernet(from.0, to.0, ARP, &packet)
}

/// A ping that may not be fragmented; `len` bytes of packet, at least 36, of which `mark` is the
/// beginning of what comes back.
pub fn ping(way: Way, mark: u32, len: usize) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0];
    message.extend(mark.to_be_bytes());
    message.resize(len.saturating_sub(IP_HEADER).max(16), b'w');
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    ipv4(way, ICMP, &message)
}

/// A UDP datagram.
pub fn udp(way: Way, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(UDP_HEADER + data.len()).unwrap_or(u16::MAX);
    let mut datagram = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    datagram.extend(data);
    let pseudo = [0, UDP, len.to_be_bytes()[0], len.to_be_bytes()[1]];
    let sum = checksum(&[&way.from.1.octets(), &way.to.1.octets(), &pseudo, &datagram]);
    // A computed zero is sent as all ones (RFC 768).
    datagram[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
    ipv4(way, UDP, &datagram)
}

fn ipv4(way: Way, protocol: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(IP_HEADER + data.len()).unwrap_or(u16::MAX).to_be_bytes();
    // No fragment, and not to be made one.
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(way.from.1.octets());
    packet.extend(way.to.1.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(data);
    ethernet(way.from.0, way.to.0, IPV4, &packet)
}

fn ethernet(from: MacAddr, to: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(MIN_FRAME), 0);
    frame
}

/// RFC 1071; every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u64;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The loop has left 16 bits.
    (!(sum as u16)).to_be_bytes()
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
}

/// What DHCP gave.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The network's mask.
    pub mask: Ipv4Addr,
    /// The way out.
    pub gateway: Ipv4Addr,
    /// Who gave it, and from which MAC address.
    pub server: (MacAddr, Ipv4Addr),
    /// The network's MTU in bytes.
    pub mtu: u16,
    /// Who resolves names.
    pub name_server: Option<Ipv4Addr>,
    /// Seconds.
    pub time: u32,
}

/// DISCOVER, or REQUEST of what `offer` offers (RFC 2131 §4.4.1). None: it cannot be encoded.
pub fn dhcp_ask(mac: MacAddr, xid: u32, offer: Option<&Lease>) -> Option<Vec<u8>> {
    let mut message = dhcp_message(mac, xid);
    let options = message.opts_mut();
    match offer {
        None => drop(options.insert(DhcpOption::MessageType(MessageType::Discover))),
        Some(offer) => {
            options.insert(DhcpOption::MessageType(MessageType::Request));
            options.insert(DhcpOption::RequestedIpAddress(offer.address));
            options.insert(DhcpOption::ServerIdentifier(offer.server.1));
        }
    }
    options.insert(DhcpOption::Hostname(HOST_NAME.to_owned()));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::InterfaceMtu,
        OptionCode::AddressLeaseTime,
    ]));
    let to = (MacAddr::BROADCAST, Ipv4Addr::BROADCAST);
    dhcp_frame(Way { from: (mac, Ipv4Addr::UNSPECIFIED), to }, &message)
}

/// RELEASE (RFC 2131 §4.4.6).
pub fn dhcp_release(mac: MacAddr, xid: u32, lease: &Lease) -> Option<Vec<u8>> {
    let mut message = dhcp_message(mac, xid);
    message.set_ciaddr(lease.address);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Release));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(lease.server.1));
    dhcp_frame(Way { from: (mac, lease.address), to: lease.server }, &message)
}

fn dhcp_message(mac: MacAddr, xid: u32) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    Message::new_with_id(xid, none, none, none, none, &mac.0)
}

fn dhcp_frame(way: Way, message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).ok()?;
    bytes.resize(bytes.len().max(MIN_DHCP), 0);
    Some(udp(way, (68, 67), &bytes))
}

/// The answer to a question with this identifier: OFFER, ACK or NAK, and what it gives.
pub fn dhcp_answer(seen: &Seen<'_>, xid: u32) -> Option<(MessageType, Lease)> {
    let Seen::Udp { mac, from: (source, 67), to: 68, data } = seen else { return None };
    let message = Message::decode(&mut Decoder::new(data)).ok()?;
    if message.xid() != xid {
        return None;
    }
    let options = message.opts();
    let mut lease = Lease {
        address: message.yiaddr(),
        mask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: *source,
        server: (*mac, *source),
        mtu: 1500,
        name_server: None,
        time: 0,
    };
    for (_, option) in options.iter() {
        match option {
            DhcpOption::SubnetMask(mask) => lease.mask = *mask,
            DhcpOption::ServerIdentifier(server) => lease.server.1 = *server,
            DhcpOption::InterfaceMtu(mtu) => lease.mtu = *mtu,
            DhcpOption::AddressLeaseTime(time) => lease.time = *time,
            DhcpOption::DomainNameServer(servers) => lease.name_server = servers.first().copied(),
            DhcpOption::Router(routers) => {
                lease.gateway = routers.first().copied().unwrap_or(lease.gateway);
            }
            _ => {}
        }
    }
    Some((options.msg_type()?, lease))
}

/// A name that can be looked up.
///
/// # Errors
/// It is none, in words.
pub fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| error.to_string())?;
    if name.num_labels() == 0 {
        return Err("give a name such as example.com".to_owned());
    }
    // Absolute: nothing is to be appended.
    name.set_fqdn(true);
    Ok(name)
}

/// The question for a name's IPv4 addresses (RFC 1035 §4).
pub fn dns_question(id: u16, name: &Name) -> Option<Vec<u8>> {
    let mut message = DnsMessage::new(id, DnsKind::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), RecordType::A));
    message.to_vec().ok()
}

/// The answer to question `id`, sent from `server` to `port`: the code and the addresses.
pub fn dns_answer(
    seen: &Seen<'_>,
    (server, port): (Ipv4Addr, u16),
    id: u16,
) -> Option<(ResponseCode, Vec<Ipv4Addr>)> {
    let Seen::Udp { from, to, data, .. } = seen else { return None };
    if *from != (server, 53) || *to != port {
        return None;
    }
    let message = DnsMessage::from_vec(data).ok()?;
    let metadata = &message.metadata;
    if metadata.id != id || metadata.message_type != DnsKind::Response {
        return None;
    }
    let addresses = message.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    });
    Some((metadata.response_code, addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsnic_proto::frame::HEADER_LEN;

    const ONE: (MacAddr, Ipv4Addr) = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: (MacAddr, Ipv4Addr) = (MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2));
    const WAY: Way = Way { from: ONE, to: OTHER };

    #[test]
    fn arp_is_read_as_it_is_written() {
        let request = arp_request(ONE, OTHER.1);
        let seen = Seen::Arp { is_request: true, from: ONE, asked: OTHER.1 };
        assert_eq!(parse(&request), Some(seen));
        let reply = arp_reply(WAY);
        let seen = Seen::Arp { is_request: false, from: ONE, asked: OTHER.1 };
        assert_eq!(parse(&reply), Some(seen));
    }

    #[test]
    fn udp_is_read_as_it_is_written_and_its_checksums_are_right() {
        let frame = udp(WAY, (1000, 53), b"odd");
        let seen = Seen::Udp { mac: ONE.0, from: (ONE.1, 1000), to: 53, data: b"odd" };
        assert_eq!(parse(&frame), Some(seen));
        assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
        let pseudo = [0, UDP, 0, 11];
        assert_eq!(
            checksum(&[&ONE.1.octets(), &OTHER.1.octets(), &pseudo, &frame[34..45]]),
            [0, 0]
        );
    }

    #[test]
    fn a_pings_packet_has_the_length_that_was_asked_for() {
        for len in [36, 84, 1500] {
            let frame = ping(WAY, 7, len);
            assert_eq!((frame.len() - HEADER_LEN, frame[20]), (len.max(46), 0x40), "{len}");
            assert_eq!(checksum(&[&frame[34..HEADER_LEN + len]]), [0, 0]);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let frames = [arp_reply(WAY), udp(WAY, (67, 68), &[0; 300]), ping(WAY, 1, 84)];
        for mut frame in frames {
            for at in 0..frame.len() {
                let seen = parse(&frame[..at]);
                assert!(seen.is_none() || at >= 42, "{at}");
            }
            for at in 0..frame.len() {
                let was = std::mem::replace(&mut frame[at], 0xff);
                if let Some(seen) = parse(&frame) {
                    // Whatever it is, it answers nothing.
                    assert!(dhcp_answer(&seen, 1).is_none());
                    assert!(dns_answer(&seen, (ONE.1, 1000), 1).is_none());
                }
                frame[at] = was;
            }
        }
    }

    #[test]
    fn a_name_is_a_name() {
        assert_eq!(name("example.com").map(|name| name.to_string()), Ok("example.com.".to_owned()));
        for wrong in ["", ".", "a..b", &"x".repeat(64)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
