//! An Ethernet frame as bytes, and what makes one unfit for the bridge.
//!
//! Used by the front-end on every frame: the functions look at a few fixed offsets, allocate
//! nothing and copy nothing.

use crate::address::MacAddr;
use std::net::Ipv4Addr;

/// Bytes of the shortest frame that is taken: destination, source and EtherType (IEEE 802.3 §3.1.1).
/// Padding to 60 bytes is the wire's business, virtio guests send less.
pub const HEADER_LEN: usize = 14;
/// Bytes of one 802.1Q tag.
pub const VLAN_TAG_LEN: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const IP_PROTOCOL_UDP: u8 = 17;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;

/// Bytes of the longest frame on a network with this `mtu`: header and one VLAN tag, without FCS.
pub const fn max_frame_len(mtu: u16) -> usize {
    mtu as usize + HEADER_LEN + VLAN_TAG_LEN
}

/// A frame of at least [`HEADER_LEN`] bytes, without FCS.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_LEN],
}

/// Why a frame of a guest does not go to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than an Ethernet header.
    #[error("frame shorter than 14 bytes")]
    TooShort,
    /// Longer than the network's MTU allows.
    #[error("frame longer than the network's MTU allows")]
    TooLong,
    /// Multicast, broadcast or zero source address.
    #[error("source address is multicast or zero")]
    BadSource,
    /// The source is the bridge's own address.
    #[error("source address is the gateway's")]
    GatewaySource,
    /// Destination 01-80-C2-00-00-0x: a bridge protocol.
    #[error("destination is reserved for bridges")]
    BridgeProtocol,
    /// An 802.1Q or 802.1ad tag.
    #[error("VLAN tags are not allowed on this network")]
    Vlan,
}

/// What a network takes from a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePolicy {
    /// Bytes of the longest frame, see [`max_frame_len`].
    pub max_len: usize,
    /// The bridge's address, which no guest may use.
    pub gateway_mac: MacAddr,
    /// Whether VLAN-tagged frames pass.
    pub allow_vlan: bool,
}

impl FramePolicy {
    /// The frame in `bytes`, if it may go to the bridge.
    ///
    /// # Errors
    /// The first rule that it breaks.
    #[inline]
    pub fn check<'a>(&self, bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let frame = Frame::new(bytes).ok_or(FrameError::TooShort)?;
        if bytes.len() > self.max_len {
            return Err(FrameError::TooLong);
        }
        let source = frame.source();
        if source.is_group() || source == MacAddr::ZERO {
            return Err(FrameError::BadSource);
        }
        if source == self.gateway_mac {
            return Err(FrameError::GatewaySource);
        }
        if frame.destination().is_link_local() {
            return Err(FrameError::BridgeProtocol);
        }
        if !self.allow_vlan && matches!(frame.ethertype(), ETHERTYPE_VLAN | ETHERTYPE_QINQ) {
            return Err(FrameError::Vlan);
        }
        Ok(frame)
    }
}

impl<'a> Frame<'a> {
    /// None if `bytes` is shorter than a header.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Frame<'a>> {
        Some(Frame { bytes, header: bytes.first_chunk()? })
    }

    /// The whole frame.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Destination address.
    pub fn destination(self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.header;
        MacAddr([a, b, c, d, e, f])
    }

    /// Source address.
    pub fn source(self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = *self.header;
        MacAddr([a, b, c, d, e, f])
    }

    /// EtherType, or length of an 802.3 frame if below 1536.
    pub fn ethertype(self) -> u16 {
        let [.., high, low] = *self.header;
        u16::from_be_bytes([high, low])
    }

    /// What stands behind the header.
    pub fn payload(self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The IPv4 address that an untagged ARP frame says is its sender's (RFC 826); none in a probe
    /// (RFC 5227 §2.1.1), and in ARP for anything else than IPv4 on Ethernet.
    #[inline]
    pub fn arp_sender(self) -> Option<Ipv4Addr> {
        if self.ethertype() != ETHERTYPE_ARP {
            return None;
        }
        let [hardware @ .., _, _, _, _, _, _, _, _, a, b, c, d] =
            *self.payload().first_chunk::<18>()?;
        let sender = Ipv4Addr::new(a, b, c, d);
        (hardware == [0, 1, 8, 0, 6, 4] && !sender.is_unspecified()).then_some(sender)
    }

    /// True for a UDP datagram (or its first fragment) to port 67: it is the DHCP server's.
    #[inline]
    pub fn is_to_dhcp_server(self) -> bool {
        self.udp_ports().is_some_and(|(_, to)| to == DHCP_SERVER_PORT)
    }

    /// True for a UDP datagram (or its first fragment) to port 68: it poses as a DHCP answer.
    #[inline]
    pub fn is_to_dhcp_client(self) -> bool {
        self.udp_ports().is_some_and(|(_, to)| to == DHCP_CLIENT_PORT)
    }

    /// Source and destination port, if the frame starts an untagged UDP datagram over IPv4.
    #[inline]
    fn udp_ports(self) -> Option<(u16, u16)> {
        // Offsets of RFC 791 §3.1; the fragment offset is the low 13 bits of octets 6 and 7.
        let [version_ihl, _, _, _, _, _, fragment_high, fragment_low, _, protocol, ..] =
            *self.payload().first_chunk::<20>()?;
        let first = fragment_high & 0x1f == 0 && fragment_low == 0;
        if self.ethertype() != ETHERTYPE_IPV4
            || protocol != IP_PROTOCOL_UDP
            || version_ihl >> 4 != 4
            || !first
        {
            return None;
        }
        let udp = self.payload().get(usize::from(version_ihl & 0x0f) * 4..)?;
        let [a, b, c, d] = *udp.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: FramePolicy = FramePolicy {
        max_len: max_frame_len(1500),
        gateway_mac: MacAddr([2, 1, 2, 3, 4, 5]),
        allow_vlan: false,
    };

    fn frame(destination: [u8; 6], source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
    }

    fn check(bytes: &[u8]) -> Result<(), FrameError> {
        POLICY.check(bytes).map(drop)
    }

    #[test]
    fn sizes_from_header_to_tagged_mtu_are_taken() {
        let longest = frame([0xff; 6], [2; 6], 0x8137, &[0; 1504]);
        assert_eq!(longest.len(), 1518);
        assert_eq!(check(&longest[..13]), Err(FrameError::TooShort));
        assert_eq!(check(&longest[..14]), Ok(()));
        assert_eq!(check(&longest), Ok(()));
        assert_eq!(check(&[&longest[..], &[0]].concat()), Err(FrameError::TooLong));
        assert_eq!(check(&[]), Err(FrameError::TooShort));
    }

    #[test]
    fn forged_sources_are_refused() {
        assert_eq!(check(&frame([2; 6], [0xff; 6], 0x0800, &[])), Err(FrameError::BadSource));
        assert_eq!(
            check(&frame([2; 6], [1, 0, 0x5e, 0, 0, 1], 0x0800, &[])),
            Err(FrameError::BadSource)
        );
        assert_eq!(check(&frame([2; 6], [0; 6], 0x0800, &[])), Err(FrameError::BadSource));
        assert_eq!(
            check(&frame([2; 6], POLICY.gateway_mac.0, 0x0800, &[])),
            Err(FrameError::GatewaySource)
        );
    }

    #[test]
    fn bridge_protocols_and_vlan_tags_are_refused() {
        let bpdu = frame([1, 0x80, 0xc2, 0, 0, 0], [2; 6], 38, &[0x42; 38]);
        assert_eq!(check(&bpdu), Err(FrameError::BridgeProtocol));
        let tagged = frame([0xff; 6], [2; 6], 0x8100, &[0, 1, 8, 0]);
        assert_eq!(check(&tagged), Err(FrameError::Vlan));
        let allowed = FramePolicy { allow_vlan: true, ..POLICY };
        assert!(allowed.check(&tagged).is_ok());
    }

    #[test]
    fn dhcp_is_recognised_behind_ip_options_and_in_first_fragments_only() {
        let mut packet = [0u8; 36];
        packet[0] = 0x46;
        packet[9] = 17;
        packet[24..28].copy_from_slice(&[0, 68, 0, 67]);
        let bytes = frame([0xff; 6], [2; 6], 0x0800, &packet);
        assert!(Frame::new(&bytes).unwrap().is_to_dhcp_server());
        packet[6] = 0x20;
        let bytes = frame([0xff; 6], [2; 6], 0x0800, &packet);
        assert!(Frame::new(&bytes).unwrap().is_to_dhcp_server(), "first of several fragments");
        packet[7] = 1;
        let bytes = frame([0xff; 6], [2; 6], 0x0800, &packet);
        assert!(!Frame::new(&bytes).unwrap().is_to_dhcp_server(), "later fragment");
        packet[7] = 0;
        packet[24..28].copy_from_slice(&[0, 67, 0, 68]);
        let bytes = frame([0xff; 6], [2; 6], 0x0800, &packet);
        assert!(Frame::new(&bytes).unwrap().is_to_dhcp_client());
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(frame) = POLICY.check(&bytes) {
                let _ = (frame.is_to_dhcp_server(), frame.is_to_dhcp_client(), frame.payload());
                prop_assert!(!frame.source().is_group());
            }
        }
    }
}
