//! From an answer to the Ethernet frame that carries it.
//!
//! Called by the DHCP server. Does no I/O. dhcproto encodes the options; the fixed header and the
//! Ethernet, IPv4 and UDP headers are written here.

use super::request::Query;
use super::{Config, HostName};
use dhcproto::v4::{DhcpOption, MAGIC, MessageType, Opcode};
use dhcproto::{Encodable, Encoder};
use std::net::Ipv4Addr;
use wsnic_proto::MacAddr;

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// An address for the asking (DHCPOFFER).
    Offer(Ipv4Addr),
    /// The address is the client's (DHCPACK).
    Lease(Ipv4Addr),
    /// Parameters for a client that has this address from elsewhere (DHCPACK to DHCPINFORM).
    Parameters(Ipv4Addr),
    /// The address is not the client's (DHCPNAK).
    Refusal,
}

/// The frame that answers `query`.
///
/// None if the options cannot be encoded, which the limits of [`Config`] rule out.
pub(super) fn frame(config: &Config, query: &Query, answer: Answer) -> Option<Vec<u8>> {
    let (mac, address) = destination(query, answer);
    let message = message(config, query, answer)?;
    Some(wrap(config, mac, address, &message))
}

/// Octets of a message that every client takes: a packet of 576 without its headers of 28
/// (RFC 2131 §2). Option 57 may only allow more, which is never needed.
const MAX_MESSAGE_LEN: usize = 548;
/// Octets that BOOTP clients and relays expect at least (RFC 951 §3, RFC 1542 §2.1).
const MIN_MESSAGE_LEN: usize = 300;
/// Octets of the fixed header without the magic number (RFC 2131 §2).
const FIXED_LEN: usize = 236;
const ETHERTYPE_IPV4: u16 = 0x0800;
const IP_HEADER_LEN: u16 = 20;
const UDP_HEADER_LEN: u16 = 8;
const UDP_PROTOCOL: u8 = 17;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Where the answer goes, RFC 2131 §4.1 for messages that no relay passed on.
fn destination(query: &Query, answer: Answer) -> (MacAddr, Ipv4Addr) {
    match answer {
        Answer::Refusal => (MacAddr::BROADCAST, Ipv4Addr::BROADCAST),
        Answer::Parameters(address) => (query.mac, address),
        Answer::Offer(_) | Answer::Lease(_) if !query.ciaddr.is_unspecified() => {
            (query.mac, query.ciaddr)
        }
        Answer::Offer(_) | Answer::Lease(_) if query.wants_broadcast() => {
            (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        }
        Answer::Offer(address) | Answer::Lease(address) => (query.mac, address),
    }
}

/// The DHCP message, [`MIN_MESSAGE_LEN`] to [`MAX_MESSAGE_LEN`] bytes.
fn message(config: &Config, query: &Query, answer: Answer) -> Option<Vec<u8>> {
    let (ciaddr, yiaddr) = match answer {
        Answer::Offer(address) => (Ipv4Addr::UNSPECIFIED, address),
        Answer::Lease(address) => (query.ciaddr, address),
        Answer::Parameters(_) => (query.ciaddr, Ipv4Addr::UNSPECIFIED),
        Answer::Refusal => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
    };
    // Operation, Ethernet, six octets of address, no hops.
    let mut message = Vec::with_capacity(MAX_MESSAGE_LEN);
    message.extend([u8::from(Opcode::BootReply), 1, 6, 0]);
    message.extend(query.xid.to_be_bytes());
    message.extend([0, 0]);
    message.extend(query.flags.to_be_bytes());
    message.extend(ciaddr.octets());
    message.extend(yiaddr.octets());
    message.extend([0; 4]);
    message.extend(query.giaddr.octets());
    message.extend(query.mac.0);
    message.resize(FIXED_LEN, 0);
    message.extend(MAGIC);
    for option in options(config, query, answer) {
        let mut bytes = Vec::new();
        option.encode(&mut Encoder::new(&mut bytes)).ok()?;
        // What does not fit is left out; the order has the dispensable ones last.
        if message.len() + bytes.len() < MAX_MESSAGE_LEN {
            message.extend(bytes);
        }
    }
    message.push(255);
    message.resize(message.len().max(MIN_MESSAGE_LEN), 0);
    Some(message)
}

/// RFC 2131 §4.3.1, table 3; the most needed first.
fn options(config: &Config, query: &Query, answer: Answer) -> Vec<DhcpOption> {
    let mut options = vec![
        DhcpOption::MessageType(match answer {
            Answer::Offer(_) => MessageType::Offer,
            Answer::Lease(_) | Answer::Parameters(_) => MessageType::Ack,
            Answer::Refusal => MessageType::Nak,
        }),
        DhcpOption::ServerIdentifier(config.plan.gateway()),
    ];
    let client_id = query.client_id.as_deref().map(|id| DhcpOption::ClientIdentifier(id.to_vec()));
    if answer == Answer::Refusal {
        options.extend(client_id);
        return options;
    }
    if matches!(answer, Answer::Offer(_) | Answer::Lease(_)) {
        // T1 and T2 are half and seven eighths of the lease (RFC 2131 §4.4.5).
        let time = config.lease_time;
        options.extend([
            DhcpOption::AddressLeaseTime(time),
            DhcpOption::Renewal(time / 2),
            DhcpOption::Rebinding(time - time / 8),
        ]);
    }
    options.extend([
        DhcpOption::SubnetMask(config.plan.subnet().netmask()),
        DhcpOption::Router(vec![config.plan.gateway()]),
        DhcpOption::BroadcastAddr(config.plan.broadcast()),
        DhcpOption::InterfaceMtu(config.mtu),
    ]);
    options.extend(client_id);
    if !config.nameservers.is_empty() {
        // Resolvers use three (resolv.conf(5)); eight leave room for the rest.
        options.push(DhcpOption::DomainNameServer(
            config.nameservers.iter().copied().take(8).collect(),
        ));
    }
    let domain = config.domain_name.as_ref().filter(|name| (1..=255).contains(&name.len()));
    let host_name = query.host_name.as_ref().map(HostName::as_str);
    options.extend(domain.cloned().map(DhcpOption::DomainName));
    options.extend(host_name.map(|name| DhcpOption::Hostname(name.to_owned())));
    options
}

/// `message`, at most [`MAX_MESSAGE_LEN`] bytes, behind Ethernet, IPv4 and UDP headers.
fn wrap(config: &Config, mac: MacAddr, address: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let gateway = config.plan.gateway();
    let message_len = u16::try_from(message.len()).unwrap_or(u16::MAX - 28);
    let udp_len = UDP_HEADER_LEN + message_len;
    let mut frame = Vec::with_capacity(14 + 28 + message.len());
    frame.extend(mac.0);
    frame.extend(config.gateway_mac.0);
    frame.extend(ETHERTYPE_IPV4.to_be_bytes());

    // RFC 791 §3.1: no options, one whole packet (identification 0, don't fragment; RFC 6864 §4.1).
    let total_len = IP_HEADER_LEN + udp_len;
    let ip = |checksum: u16| -> [u8; 20] {
        let ([t0, t1], [c0, c1]) = (total_len.to_be_bytes(), checksum.to_be_bytes());
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (gateway.octets(), address.octets());
        let (flags, ttl, protocol) = (0x40, 64, UDP_PROTOCOL);
        [0x45, 0, t0, t1, 0, 0, flags, 0, ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]
    };
    frame.extend(ip(internet_checksum(&[&ip(0)])));

    let udp = |checksum: u16| -> [u8; 8] {
        let ([p0, p1], [q0, q1]) = (SERVER_PORT.to_be_bytes(), CLIENT_PORT.to_be_bytes());
        let ([l0, l1], [c0, c1]) = (udp_len.to_be_bytes(), checksum.to_be_bytes());
        [p0, p1, q0, q1, l0, l1, c0, c1]
    };
    let [l0, l1] = udp_len.to_be_bytes();
    let pseudo = [0, UDP_PROTOCOL, l0, l1];
    let parts = [&gateway.octets()[..], &address.octets(), &pseudo, &udp(0), message];
    // A computed zero is sent as all ones (RFC 768).
    frame.extend(udp(match internet_checksum(&parts) {
        0 => 0xffff,
        checksum => checksum,
    }));
    frame.extend(message);
    frame
}

/// RFC 1071; every part but the last has an even length.
fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let [high, low] = [pair.first(), pair.get(1)].map(|byte| byte.copied().unwrap_or(0));
            sum += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The loop has left 16 bits.
    !(sum as u16)
}
