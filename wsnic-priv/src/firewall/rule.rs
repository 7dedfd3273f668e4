//! Rules of nf_tables, built expression by expression.
//!
//! Runs in the helper, called by the files beside it. A rule reads from left to right as nft shows it:
//! matches first, then what happens. No I/O, no policy.

use super::nft::{Family, NF_ACCEPT, NF_DROP, raw};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};
use std::net::Ipv4Addr;
use wsnic_proto::Cidr;
use wsnic_proto::settings::InterfaceName;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp = 6,
    Udp = 17,
}

impl Transport {
    pub(super) const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];
}

/// A rule: with no match it applies to every packet.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule(Vec<ListAttribute<ExpressionAttribute>>);

impl Rule {
    pub(super) fn new() -> Rule {
        Rule::default()
    }

    pub(super) fn into_expressions(self) -> Vec<ListAttribute<ExpressionAttribute>> {
        self.0
    }

    fn with(mut self, expression: Expressions) -> Rule {
        self.0.push(expression.into());
        self
    }

    /// Entered by this interface.
    pub(super) fn from(self, interface: &InterfaceName) -> Rule {
        self.meta(MetaKey::Iifname).cmp(Operator::Equal, padded(interface))
    }

    /// Leaves by this interface.
    pub(super) fn to(self, interface: &InterfaceName) -> Rule {
        self.meta(MetaKey::Oifname).cmp(Operator::Equal, padded(interface))
    }

    /// Leaves by any other interface.
    pub(super) fn not_to(self, interface: &InterfaceName) -> Rule {
        self.meta(MetaKey::Oifname).cmp(Operator::NotEqual, padded(interface))
    }

    /// Like [`Rule::from`], in the bytes of `iptables -i`: the name and one NUL.
    pub(super) fn iptables_from(self, interface: &InterfaceName) -> Rule {
        self.meta(MetaKey::Iifname).cmp(Operator::Equal, terminated(interface))
    }

    /// Like [`Rule::to`], in the bytes of `iptables -o`.
    pub(super) fn iptables_to(self, interface: &InterfaceName) -> Rule {
        self.meta(MetaKey::Oifname).cmp(Operator::Equal, terminated(interface))
    }

    /// Is no IPv4.
    pub(super) fn not_ipv4(self) -> Rule {
        self.meta(MetaKey::Nfproto).cmp(Operator::NotEqual, vec![u8::from(Family::IPv4)])
    }

    /// Is IPv4; nft shows it as part of the address match that follows.
    pub(super) fn ipv4(self) -> Rule {
        self.meta(MetaKey::Nfproto).cmp(Operator::Equal, vec![u8::from(Family::IPv4)])
    }

    /// Was sent to many (a broadcast or multicast frame).
    pub(super) fn not_unicast(self) -> Rule {
        self.meta(MetaKey::PacketType).cmp(Operator::NotEqual, vec![PACKET_HOST])
    }

    /// Source address inside `block`; the packet must be IPv4.
    pub(super) fn source(self, block: Cidr) -> Rule {
        self.address(IPV4_SOURCE, Operator::Equal, block)
    }

    /// Source address outside `block`; the packet must be IPv4.
    pub(super) fn source_outside(self, block: Cidr) -> Rule {
        self.address(IPV4_SOURCE, Operator::NotEqual, block)
    }

    /// Destination inside `block`; the packet must be IPv4.
    pub(super) fn destination(self, block: Cidr) -> Rule {
        self.address(IPV4_DESTINATION, Operator::Equal, block)
    }

    /// Destination outside `block`; the packet must be IPv4.
    pub(super) fn destination_outside(self, block: Cidr) -> Rule {
        self.address(IPV4_DESTINATION, Operator::NotEqual, block)
    }

    /// Goes to `port` by `transport`.
    pub(super) fn port(self, transport: Transport, port: u16) -> Rule {
        self.protocol(transport as u8)
            .payload(BASE_TRANSPORT, 2, 2)
            .cmp(Operator::Equal, port.to_be_bytes().to_vec())
    }

    /// Is TCP.
    pub(super) fn tcp(self) -> Rule {
        self.protocol(Transport::Tcp as u8)
    }

    /// Is an ICMP echo request (RFC 792).
    pub(super) fn echo_request(self) -> Rule {
        self.protocol(IPPROTO_ICMP).payload(BASE_TRANSPORT, 0, 1).cmp(Operator::Equal, vec![8])
    }

    /// Belongs or relates to a known flow, either direction.
    pub(super) fn established(self) -> Rule {
        self.ct(CT_STATE).any_bit(STATE_ESTABLISHED | STATE_RELATED)
    }

    /// Fits no flow; NAT would let it out with the guest's own address.
    pub(super) fn invalid(self) -> Rule {
        self.ct(CT_STATE).any_bit(STATE_INVALID)
    }

    /// Answers a known flow, or an ICMP error about one: never what its opener sends.
    pub(super) fn answer(self) -> Rule {
        self.established().ct(CT_DIRECTION).cmp(Operator::Equal, vec![DIRECTION_REPLY])
    }

    /// Its destination was translated.
    pub(super) fn dnat_done(self) -> Rule {
        self.ct(CT_STATUS).any_bit(STATUS_DST_NAT)
    }

    /// Matches up to `rate` packets a second after a burst of `burst`, all that reach it together.
    pub(super) fn limit(self, rate: u64, burst: u32) -> Rule {
        self.other(
            "limit",
            &[
                (1, &rate.to_be_bytes()),  // NFTA_LIMIT_RATE
                (2, &1u64.to_be_bytes()),  // NFTA_LIMIT_UNIT: a second
                (3, &burst.to_be_bytes()), // NFTA_LIMIT_BURST
                (4, &0u32.to_be_bytes()),  // NFTA_LIMIT_TYPE: NFT_LIMIT_PKTS
                (5, &0u32.to_be_bytes()),  // NFTA_LIMIT_FLAGS
            ],
        )
    }

    /// Counts what comes here.
    pub(super) fn counter(self) -> Rule {
        // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
        self.other("counter", &[(1, &0u64.to_be_bytes()), (2, &0u64.to_be_bytes())])
    }

    pub(super) fn accept(self) -> Rule {
        self.verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))])
    }

    pub(super) fn drop(self) -> Rule {
        self.verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
    }

    /// Continues in `chain` and does not come back.
    pub(super) fn goto(self, chain: &str) -> Rule {
        self.verdict(vec![
            VerdictAttribute::Code(Verdict::Goto),
            VerdictAttribute::Chain(chain.to_owned()),
        ])
    }

    /// Answers with a TCP reset; other protocols are only dropped.
    pub(super) fn reject_with_reset(self) -> Rule {
        // NFTA_REJECT_TYPE: NFT_REJECT_TCP_RST
        self.other("reject", &[(1, &1u32.to_be_bytes()), (2, &[0])])
    }

    /// Answers with ICMP "administratively prohibited" (RFC 1812 §5.2.7.1, code 13); for tables of
    /// the family inet.
    pub(super) fn reject_as_prohibited(self) -> Rule {
        // NFTA_REJECT_TYPE: NFT_REJECT_ICMPX_UNREACH; NFTA_REJECT_ICMP_CODE: ADMIN_PROHIBITED
        self.other("reject", &[(1, &2u32.to_be_bytes()), (2, &[3])])
    }

    /// Takes the address of the interface it leaves by.
    pub(super) fn masquerade(self) -> Rule {
        self.other("masq", &[])
    }

    /// Goes to `address` instead, the port stays.
    pub(super) fn dnat(self, address: Ipv4Addr) -> Rule {
        self.with(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(address.octets().to_vec())),
        ]))
        .other(
            "nat",
            &[
                (1, &1u32.to_be_bytes()), // NFTA_NAT_TYPE: NFT_NAT_DNAT
                (2, &u32::from(u8::from(Family::IPv4)).to_be_bytes()), // NFTA_NAT_FAMILY
                (3, &u32::from(Register::Reg1).to_be_bytes()), // NFTA_NAT_REG_ADDR_MIN
            ],
        )
    }

    fn address(self, offset: u32, operator: Operator, block: Cidr) -> Rule {
        let loaded = self.payload(BASE_NETWORK, offset, 4);
        let masked = match block.prefix_len() {
            32 => loaded,
            _ => loaded.and(block.netmask().octets()),
        };
        masked.cmp(operator, block.network().octets().to_vec())
    }

    fn protocol(self, number: u8) -> Rule {
        self.meta(MetaKey::L4Proto).cmp(Operator::Equal, vec![number])
    }

    fn meta(self, key: MetaKey) -> Rule {
        self.with(Expressions::Meta(vec![
            Meta::Key(key),
            Meta::DestinationRegister(Register::Reg1),
        ]))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Rule {
        self.with(Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ]))
    }

    fn ct(self, key: u32) -> Rule {
        let register = u32::from(Register::Reg1).to_be_bytes();
        // NFTA_CT_DREG, NFTA_CT_KEY
        self.other("ct", &[(1, &register), (2, &key.to_be_bytes())])
    }

    fn cmp(self, operator: Operator, data: Vec<u8>) -> Rule {
        self.with(Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(operator),
            Cmp::Data(DataAttribute::Value(data)),
        ]))
    }

    fn and(self, mask: [u8; 4]) -> Rule {
        self.with(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(4),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
        ]))
    }

    /// One of `bits` is set; conntrack's numbers are in host order.
    fn any_bit(self, bits: u32) -> Rule {
        self.and(bits.to_ne_bytes()).cmp(Operator::NotEqual, vec![0; 4])
    }

    fn verdict(self, attributes: Vec<VerdictAttribute>) -> Rule {
        self.with(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(attributes)),
        ]))
    }

    /// An expression that the crate has no type for.
    fn other(self, name: &str, attributes: &[(u16, &[u8])]) -> Rule {
        self.with(Expressions::Other {
            expression_type: name.to_owned(),
            attributes: attributes.iter().map(|(kind, value)| raw(*kind, value)).collect(),
        })
    }
}

/// The name in the 16 bytes (IFNAMSIZ) that a register holds, as nft writes it.
pub(super) fn padded(interface: &InterfaceName) -> Vec<u8> {
    let mut name = interface.as_str().as_bytes().to_vec();
    name.resize(16, 0);
    name
}

fn terminated(interface: &InterfaceName) -> Vec<u8> {
    let mut name = interface.as_str().as_bytes().to_vec();
    name.push(0);
    name
}

/// linux/if_packet.h
const PACKET_HOST: u8 = 0;
/// linux/in.h
const IPPROTO_ICMP: u8 = 1;
// enum nft_payload_bases; offsets in the IPv4 header, RFC 791 §3.1
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
// enum nft_ct_keys; bits of linux/netfilter/nf_conntrack_common.h
pub(super) const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const STATE_INVALID: u32 = 1 << 0;
pub(super) const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
pub(super) const STATE_NEW: u32 = 1 << 3;
const STATUS_DST_NAT: u32 = 1 << 5;
const DIRECTION_REPLY: u8 = 1;
