//! Rules about frames: what a bridge's tables match beyond packets of IPv4.
//!
//! A match that reads beyond a frame's end does not match, whether it asks for `==` or for `!=`: rules
//! that let pass what is proved harmless cannot be fooled by what is cut short.

use crate::attribute::Attributes;
use crate::rule::{
    ARP_SENDER, BASE_LINK, BASE_NETWORK, BASE_TRANSPORT, EQUAL, META_L4PROTO, META_PKTTYPE,
    NOT_EQUAL, PACKET_HOST, REGISTER, Rule,
};
use std::net::Ipv4Addr;
use wsnic_proto::MacAddr;

impl Rule {
    /// Was sent to many (a broadcast or multicast frame); on a bridge, where other stations' frames
    /// come by too.
    pub fn to_many(self) -> Rule {
        self.meta(META_PKTTYPE).differs(&[PACKET_HOST]).meta(META_PKTTYPE).differs(&[PACKET_OTHER])
    }

    /// Goes to an address that begins with the first `bits` bits, a multiple of four, of this one.
    pub fn to_macs(self, first: MacAddr, bits: usize) -> Rule {
        let mask: Vec<u8> = (0..6)
            .map(|at| match bits.saturating_sub(at * 8) {
                0 => 0,
                4 => 0xf0,
                _ => 0xff,
            })
            .collect();
        self.payload(BASE_LINK, 0, 6).and(&mask).equals(&first.0)
    }

    /// Has this EtherType, which is that of the first tag where there is one.
    pub fn ethertype(self, ethertype: u16) -> Rule {
        self.payload(BASE_LINK, ETHERTYPE, 2).equals(&ethertype.to_be_bytes())
    }

    /// Has a length in place of the EtherType (IEEE 802.3 §3.2.6), and begins with these six bytes.
    pub fn length_and(self, head: [u8; 6]) -> Rule {
        let typed = self.payload(BASE_LINK, ETHERTYPE, 2).compare(LESS, &FIRST_TYPE.to_be_bytes());
        typed.payload(BASE_NETWORK, 0, 6).equals(&head)
    }

    /// Is in a VLAN; the frame must be tagged. Number 0 is no VLAN: such frames count as untagged.
    pub fn in_vlan(self) -> Rule {
        self.payload(BASE_LINK, VLAN, 2).and(&[0x0f, 0xff]).differs(&[0; 2])
    }

    /// Is ARP about Ethernet and IPv4, whose lengths are what all that reads ARP expects (RFC 826).
    pub fn arp_for_ipv4(self) -> Rule {
        let kinds = self.payload(BASE_NETWORK, 0, 4).equals(&[0, 1, 8, 0]);
        kinds.payload(BASE_NETWORK, 4, 2).equals(&[6, 4])
    }

    /// Has this sender's address; the frame must be [`Rule::arp_for_ipv4`].
    pub fn arp_sender(self, address: Ipv4Addr) -> Rule {
        self.payload(BASE_NETWORK, ARP_SENDER, 4).equals(&address.octets())
    }

    /// Is not of this protocol, and a well-formed packet of IPv4 or IPv6: of any other nothing is known.
    pub fn not_protocol(self, number: u8) -> Rule {
        self.meta(META_L4PROTO).differs(&[number])
    }

    /// Comes from a port or does not; of protocols with ports.
    pub fn source_port(self, is: bool, port: u16) -> Rule {
        let operator = if is { EQUAL } else { NOT_EQUAL };
        self.payload(BASE_TRANSPORT, 0, 2).compare(operator, &port.to_be_bytes())
    }

    /// Goes to a port or does not; of protocols with ports.
    pub fn destination_port(self, is: bool, port: u16) -> Rule {
        let operator = if is { EQUAL } else { NOT_EQUAL };
        self.payload(BASE_TRANSPORT, 2, 2).compare(operator, &port.to_be_bytes())
    }

    /// Is a message of ICMP or ICMPv6 of another type.
    pub fn not_icmp_type(self, kind: u8) -> Rule {
        self.payload(BASE_TRANSPORT, 0, 1).differs(&[kind])
    }

    /// Is a fragment of IPv4 but the first, without what tells its ports (RFC 791 §3.1).
    pub fn later_fragment(self) -> Rule {
        self.payload(BASE_NETWORK, 6, 2).and(&[0x1f, 0xff]).differs(&[0; 2])
    }

    /// Is a fragment of IPv6 but the first (RFC 8200 §4.5).
    pub fn later_fragment_v6(self) -> Rule {
        // NFTA_EXTHDR_DREG, TYPE, OFFSET, LEN
        let load = Attributes::default().number(1, REGISTER).bytes(2, &[FRAGMENT]);
        let loaded = self.with("exthdr", load.number(3, 2).number(4, 2));
        loaded.and(&[0xff, 0xf8]).differs(&[0; 2])
    }
}

/// NFT_CMP_LT
const LESS: u32 = 2;
/// The least EtherType that is no length (IEEE 802.3 §3.2.6).
const FIRST_TYPE: u16 = 0x0600;
/// linux/if_packet.h
const PACKET_OTHER: u8 = 3;
/// IPPROTO_FRAGMENT
const FRAGMENT: u8 = 44;
// Offsets in the Ethernet header; the kernel shows a tag where it was
const ETHERTYPE: u32 = 12;
const VLAN: u32 = 14;
