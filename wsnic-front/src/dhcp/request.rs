//! From a guest's frame to a checked DHCP query.
//!
//! Called by the DHCP server for each frame that it is handed. Does no I/O and panics on no bytes.
//! dhcproto finds the options; their values are read here, because its decoder of whole messages
//! decodes all of them and stops, silently, at the first that it cannot read.

use super::HostName;
use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dhcproto::v4::{HType, MAGIC, MessageType, Opcode, OptionCode};
use std::net::Ipv4Addr;
use wsnic_proto::{Frame, MacAddr};

/// What a guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// DISCOVER, REQUEST and so on (option 53).
    pub(super) message_type: MessageType,
    /// Source address of the packet.
    pub(super) from: Ipv4Addr,
    /// Destination address of the packet.
    pub(super) to: Ipv4Addr,
    /// Transaction, copied into the answer.
    pub(super) xid: u32,
    /// Flags as they came, copied into the answer.
    pub(super) flags: u16,
    /// The address that the client has and answers ARP for; 0.0.0.0: none.
    pub(super) ciaddr: Ipv4Addr,
    /// The relay that passed it on; 0.0.0.0: none.
    pub(super) giaddr: Ipv4Addr,
    /// The client's hardware address (chaddr): its identity.
    pub(super) mac: MacAddr,
    /// Requested address (option 50).
    pub(super) requested: Option<Ipv4Addr>,
    /// The server that is meant (option 54).
    pub(super) server: Option<Ipv4Addr>,
    /// Client identifier (option 61), 1 to 255 bytes, copied into the answer (RFC 6842 §3).
    pub(super) client_id: Option<Box<[u8]>>,
    /// Host name (option 12), if it is one.
    pub(super) host_name: Option<HostName>,
}

/// Why a frame to the DHCP server is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// IPv4 header or total length do not fit the frame (RFC 791 §3.1).
    #[error("IPv4 lengths do not fit the frame")]
    Ip,
    /// A fragment: DHCP messages fit into one packet of 576 bytes.
    #[error("fragmented packet")]
    Fragment,
    /// The UDP length does not fit the packet (RFC 768).
    #[error("UDP length does not fit the packet")]
    Udp,
    /// Shorter than the fixed part of a message and its magic number, 240 bytes (RFC 2131 §2).
    #[error("message shorter than 240 bytes")]
    TooShort,
    /// The operation is not BOOTREQUEST.
    #[error("not a request")]
    NotARequest,
    /// Hardware type and length are not Ethernet's, or the address is multicast or zero.
    #[error("client hardware address is not one of Ethernet")]
    HardwareAddress,
    /// A REQUEST without the option or address that its state needs (RFC 2131 §4.3.2).
    #[error("message lacks an address")]
    NoAddress,
}

/// Octets of the fixed header of IPv4 (RFC 791 §3.1).
const IP_HEADER_LEN: usize = 20;
/// Octets of a UDP header (RFC 768).
const UDP_HEADER_LEN: usize = 8;
/// Octets up to and with the magic number (RFC 2131 §2, RFC 2132 §2).
const FIXED_LEN: usize = 240;

impl Query {
    /// The query in `frame`; Ok(None) for BOOTP without DHCP (RFC 951), which is not served.
    ///
    /// Checksums are not looked at: a guest whose driver leaves them to its card sends none.
    pub(super) fn parse(frame: Frame<'_>) -> Result<Option<Query>, Malformed> {
        let (from, to, message) = udp_payload(frame.payload())?;
        if message.len() < FIXED_LEN {
            return Err(Malformed::TooShort);
        }
        let header = Message::new(message).map_err(|_| Malformed::TooShort)?;
        if header.opcode() != Opcode::BootRequest {
            return Err(Malformed::NotARequest);
        }
        // The length comes first: dhcproto cuts chaddr by it without a check.
        if header.hlen() != 6 || header.htype() != HType::Eth {
            return Err(Malformed::HardwareAddress);
        }
        let mac = <[u8; 6]>::try_from(header.chaddr())
            .map(MacAddr)
            .ok()
            .filter(|mac| !mac.is_group() && *mac != MacAddr::ZERO)
            .ok_or(Malformed::HardwareAddress)?;
        let options = Options::read(message);
        let Some(message_type) = options.message_type else { return Ok(None) };
        Ok(Some(Query {
            message_type,
            from,
            to,
            xid: header.xid(),
            flags: u16::from(header.flags()),
            ciaddr: header.ciaddr(),
            giaddr: header.giaddr(),
            mac,
            requested: options.requested,
            server: options.server,
            client_id: options.client_id,
            host_name: options.host_name,
        }))
    }

    /// Whether the client wants its answer broadcast (RFC 2131 §4.1).
    pub(super) fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

/// Source, destination and UDP payload of an IPv4 packet with padding behind it.
fn udp_payload(packet: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, &[u8]), Malformed> {
    let header = packet.first_chunk::<IP_HEADER_LEN>().ok_or(Malformed::Ip)?;
    let [version_ihl, _, t0, t1, _, _, f0, f1, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *header;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([t0, t1]));
    if version_ihl >> 4 != 4 || header_len < IP_HEADER_LEN {
        return Err(Malformed::Ip);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return Err(Malformed::Fragment);
    }
    let datagram = packet.get(header_len..total_len).ok_or(Malformed::Ip)?;
    let [_, _, _, _, l0, l1, _, _] =
        *datagram.first_chunk::<UDP_HEADER_LEN>().ok_or(Malformed::Udp)?;
    let udp_len = usize::from(u16::from_be_bytes([l0, l1]));
    let payload = datagram.get(UDP_HEADER_LEN..udp_len).ok_or(Malformed::Udp)?;
    Ok((Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3), payload))
}

/// The options that the server looks at. Of an option that comes twice the first counts.
#[derive(Default)]
struct Options {
    message_type: Option<MessageType>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client_id: Option<Box<[u8]>>,
    host_name: Option<HostName>,
    overload: u8,
}

impl Options {
    /// `message` has at least [`FIXED_LEN`] bytes.
    fn read(message: &[u8]) -> Options {
        let mut options = Options::default();
        let part = |range: std::ops::Range<usize>| message.get(range).unwrap_or_default();
        if part(236..FIXED_LEN) != MAGIC {
            return options;
        }
        options.read_part(part(FIXED_LEN..message.len()));
        // Options may go on in `file` and `sname`, in that order (RFC 2132 §9.3, RFC 3396 §5).
        let overload = options.overload;
        if overload & 1 != 0 {
            options.read_part(part(108..236));
        }
        if overload & 2 != 0 {
            options.read_part(part(44..108));
        }
        options
    }

    fn read_part(&mut self, bytes: &[u8]) {
        for option in DhcpOptionIterator::new(bytes) {
            let data = option.data();
            match option.code() {
                OptionCode::MessageType => {
                    let [number] = *data else { continue };
                    self.message_type.get_or_insert(MessageType::from(number));
                }
                OptionCode::RequestedIpAddress => set_address(&mut self.requested, data),
                OptionCode::ServerIdentifier => set_address(&mut self.server, data),
                OptionCode::ClientIdentifier if (1..=255).contains(&data.len()) => {
                    self.client_id.get_or_insert_with(|| data.into());
                }
                OptionCode::Hostname => {
                    self.host_name = self.host_name.take().or_else(|| HostName::new(data));
                }
                OptionCode::OptionOverload => {
                    let [overload] = *data else { continue };
                    self.overload = overload;
                }
                _ => {}
            }
        }
    }
}

fn set_address(place: &mut Option<Ipv4Addr>, data: &[u8]) {
    if let (None, Ok(octets)) = (&place, <[u8; 4]>::try_from(data)) {
        *place = Some(Ipv4Addr::from(octets));
    }
}
