//! Rules of nf_tables, built expression by expression.
//!
//! A rule reads from left to right as nft shows it: matches first, then what happens. Numbers without
//! a name are attributes of the expression beside them (`NFTA_…`, linux/netfilter/nf_tables.h).

use crate::attribute::Attributes;
use crate::batch::{Family, Verdict};
use crate::lookup::limit;
use std::net::Ipv4Addr;
use wsnic_proto::Cidr;
use wsnic_proto::settings::InterfaceName;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

impl Transport {
    /// Both, as DNS needs them.
    pub const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];
}

/// A rule: with no match it applies to every packet.
#[derive(Debug, Clone, Default)]
pub struct Rule(pub(crate) Attributes);

impl Rule {
    /// The rule that does nothing to all packets.
    pub fn new() -> Rule {
        Rule::default()
    }

    /// Entered by this interface.
    pub fn from(self, interface: &InterfaceName) -> Rule {
        self.meta(META_IIFNAME).equals(&terminated(interface))
    }

    /// Entered by an interface whose name begins so.
    pub fn from_any(self, prefix: &str) -> Rule {
        self.meta(META_IIFNAME).equals(prefix.as_bytes())
    }

    /// Entered by an interface whose name begins otherwise.
    pub fn not_from_any(self, prefix: &str) -> Rule {
        self.meta(META_IIFNAME).differs(prefix.as_bytes())
    }

    /// Entered by an interface of another group (IFLA_GROUP); costs a fifth of what a name does.
    pub fn not_from_group(self, group: u32) -> Rule {
        self.meta(META_IIFGROUP).differs(&group.to_ne_bytes())
    }

    /// Leaves by this interface.
    pub fn to(self, interface: &InterfaceName) -> Rule {
        self.meta(META_OIFNAME).equals(&terminated(interface))
    }

    /// Leaves by an interface whose name begins so.
    pub fn to_any(self, prefix: &str) -> Rule {
        self.meta(META_OIFNAME).equals(prefix.as_bytes())
    }

    /// Leaves by any other interface.
    pub fn not_to(self, interface: &InterfaceName) -> Rule {
        self.meta(META_OIFNAME).differs(&terminated(interface))
    }

    /// Leaves by an interface whose name begins otherwise.
    pub fn not_to_any(self, prefix: &str) -> Rule {
        self.meta(META_OIFNAME).differs(prefix.as_bytes())
    }

    /// Is no IPv4.
    pub fn not_ipv4(self) -> Rule {
        self.meta(META_NFPROTO).differs(&[Family::IPV4.0])
    }

    /// Is IPv4; nft shows it as part of the address match that follows.
    pub fn ipv4(self) -> Rule {
        self.meta(META_NFPROTO).equals(&[Family::IPV4.0])
    }

    /// Was sent to many (a broadcast or multicast frame).
    pub fn not_unicast(self) -> Rule {
        self.meta(META_PKTTYPE).differs(&[PACKET_HOST])
    }

    /// Source address inside `block`; the packet must be IPv4.
    pub fn source(self, block: Cidr) -> Rule {
        self.address(IPV4_SOURCE, EQUAL, block)
    }

    /// Source address outside `block`; the packet must be IPv4.
    pub fn source_outside(self, block: Cidr) -> Rule {
        self.address(IPV4_SOURCE, NOT_EQUAL, block)
    }

    /// Destination inside `block`; the packet must be IPv4.
    pub fn destination(self, block: Cidr) -> Rule {
        self.address(IPV4_DESTINATION, EQUAL, block)
    }

    /// Destination outside `block`; the packet must be IPv4.
    pub fn destination_outside(self, block: Cidr) -> Rule {
        self.address(IPV4_DESTINATION, NOT_EQUAL, block)
    }

    /// Goes to the first host address of a block with a prefix of this length; the packet must be IPv4.
    pub fn to_first_of_block(self, prefix_len: u8) -> Rule {
        let mask = Cidr::containing([0, 0, 0, 0].into(), prefix_len).netmask().octets();
        let loaded = self.payload(BASE_NETWORK, IPV4_DESTINATION, 4);
        loaded.and(&mask.map(|byte| !byte)).equals(&[0, 0, 0, 1])
    }

    /// Goes to `port` by `transport`.
    pub fn port(self, transport: Transport, port: u16) -> Rule {
        self.protocol(transport as u8).payload(BASE_TRANSPORT, 2, 2).equals(&port.to_be_bytes())
    }

    /// Is TCP.
    pub fn tcp(self) -> Rule {
        self.protocol(Transport::Tcp as u8)
    }

    /// Is an ICMP echo request (RFC 792).
    pub fn echo_request(self) -> Rule {
        self.protocol(IPPROTO_ICMP).payload(BASE_TRANSPORT, 0, 1).equals(&[8])
    }

    /// Belongs or relates to a known flow, either direction.
    pub fn established(self) -> Rule {
        self.ct(CT_STATE).any_bit(STATE_ESTABLISHED | STATE_RELATED)
    }

    /// Fits no flow; NAT would let it out with the guest's own address.
    pub fn invalid(self) -> Rule {
        self.ct(CT_STATE).any_bit(STATE_INVALID)
    }

    /// Answers a known flow, or an ICMP error about one: never what its opener sends.
    pub fn answer(self) -> Rule {
        self.established().ct(CT_DIRECTION).equals(&[DIRECTION_REPLY])
    }

    /// Its destination was translated.
    pub fn dnat_done(self) -> Rule {
        self.ct(CT_STATUS).any_bit(STATUS_DST_NAT)
    }

    /// Matches up to `rate` packets a second after a burst of `burst`, all that reach it together.
    pub fn limit(self, rate: u64, burst: u32) -> Rule {
        self.with("limit", limit(rate, burst, 0))
    }

    /// Counts what comes here.
    pub fn counter(self) -> Rule {
        self.with("counter", Attributes::default().number64(1, 0).number64(2, 0))
    }

    /// The packet passes this table.
    pub fn accept(self) -> Rule {
        self.verdict(Attributes::default().number(VERDICT_CODE, Verdict::ACCEPT.0))
    }

    /// The packet ends here.
    pub fn drop(self) -> Rule {
        self.verdict(Attributes::default().number(VERDICT_CODE, Verdict::DROP.0))
    }

    /// Continues in `chain` and does not come back.
    pub fn goto(self, chain: &str) -> Rule {
        let verdict = Attributes::default().number(VERDICT_CODE, Verdict::GOTO.0);
        self.verdict(verdict.text(VERDICT_CHAIN, chain))
    }

    /// Continues in `chain`, and behind this rule if nothing there decides.
    pub fn jump(self, chain: &str) -> Rule {
        let verdict = Attributes::default().number(VERDICT_CODE, Verdict::JUMP.0);
        self.verdict(verdict.text(VERDICT_CHAIN, chain))
    }

    /// Answers with a TCP reset; other protocols are only dropped.
    pub fn reject_with_reset(self) -> Rule {
        // NFT_REJECT_TCP_RST
        self.with("reject", Attributes::default().number(1, 1).bytes(2, &[0]))
    }

    /// Answers with ICMP "administratively prohibited" (RFC 1812 §5.2.7.1, code 13); for tables of
    /// the family inet.
    pub fn reject_as_prohibited(self) -> Rule {
        // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
        self.with("reject", Attributes::default().number(1, 2).bytes(2, &[3]))
    }

    /// Takes the address of the interface it leaves by.
    pub fn masquerade(self) -> Rule {
        self.with("masq", Attributes::default())
    }

    /// Goes to `address` instead, the port stays.
    pub fn dnat(self, address: Ipv4Addr) -> Rule {
        let address = Attributes::default().bytes(DATA_VALUE, &address.octets());
        let loaded =
            self.with("immediate", Attributes::default().number(1, REGISTER).nest(2, address));
        // NFT_NAT_DNAT, family, the register with the address.
        let nat = Attributes::default().number(1, 1).number(2, u32::from(Family::IPV4.0));
        loaded.with("nat", nat.number(3, REGISTER))
    }

    fn address(self, offset: u32, operator: u32, block: Cidr) -> Rule {
        let loaded = self.payload(BASE_NETWORK, offset, 4);
        let masked = match block.prefix_len() {
            32 => loaded,
            _ => loaded.and(&block.netmask().octets()),
        };
        masked.compare(operator, &block.network().octets())
    }

    /// Is of this protocol.
    pub fn protocol(self, number: u8) -> Rule {
        self.meta(META_L4PROTO).equals(&[number])
    }

    pub(crate) fn meta(self, key: u32) -> Rule {
        self.meta_into(REGISTER, key)
    }

    pub(crate) fn meta_into(self, register: u32, key: u32) -> Rule {
        self.with("meta", Attributes::default().number(1, register).number(2, key))
    }

    fn ct(self, key: u32) -> Rule {
        self.with("ct", Attributes::default().number(1, REGISTER).number(2, key))
    }

    pub(crate) fn payload(self, base: u32, offset: u32, length: u32) -> Rule {
        self.payload_into(REGISTER, base, offset, length)
    }

    pub(crate) fn payload_into(self, register: u32, base: u32, offset: u32, length: u32) -> Rule {
        let load = Attributes::default().number(1, register).number(2, base);
        self.with("payload", load.number(3, offset).number(4, length))
    }

    pub(crate) fn equals(self, value: &[u8]) -> Rule {
        self.compare(EQUAL, value)
    }

    pub(crate) fn differs(self, value: &[u8]) -> Rule {
        self.compare(NOT_EQUAL, value)
    }

    pub(crate) fn compare(self, operator: u32, value: &[u8]) -> Rule {
        let value = Attributes::default().bytes(DATA_VALUE, value);
        let compare = Attributes::default().number(1, REGISTER).number(2, operator);
        self.with("cmp", compare.nest(3, value))
    }

    pub(crate) fn and(self, mask: &[u8]) -> Rule {
        self.and_in(REGISTER, mask)
    }

    pub(crate) fn and_in(self, register: u32, mask: &[u8]) -> Rule {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let xor = Attributes::default().bytes(DATA_VALUE, &vec![0; mask.len()]);
        let mask = Attributes::default().bytes(DATA_VALUE, mask);
        let bits = Attributes::default().number(1, register).number(2, register);
        self.with("bitwise", bits.number(3, length).nest(4, mask).nest(5, xor))
    }

    /// One of `bits` is set; conntrack's numbers are in host order.
    fn any_bit(self, bits: u32) -> Rule {
        self.and(&bits.to_ne_bytes()).differs(&[0; 4])
    }

    fn verdict(self, verdict: Attributes) -> Rule {
        let data = Attributes::default().nest(DATA_VERDICT, verdict);
        self.with("immediate", Attributes::default().number(1, REGISTER_VERDICT).nest(2, data))
    }

    pub(crate) fn with(self, name: &str, data: Attributes) -> Rule {
        // NFTA_EXPR_NAME, NFTA_EXPR_DATA in NFTA_LIST_ELEM
        Rule(self.0.nest(1, Attributes::default().text(1, name).nest(2, data)))
    }
}

/// The name and its NUL, as iptables writes it: it then understands the rules that it finds.
fn terminated(interface: &InterfaceName) -> Vec<u8> {
    [interface.as_str().as_bytes(), &[0]].concat()
}

/// NFT_REG_1, which what compares works on.
pub(crate) const REGISTER: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
// enum nft_cmp_ops
pub(crate) const EQUAL: u32 = 0;
pub(crate) const NOT_EQUAL: u32 = 1;
/// Key of `meta`: the index of the interface that a packet came in by (enum nft_meta_keys).
pub(crate) const META_IIF: u32 = 4;
/// Key of `meta`: the index of the interface that it leaves by.
pub(crate) const META_OIF: u32 = 5;
/// Key of `meta`: the interface that a packet came in by (enum nft_meta_keys).
pub const META_IIFNAME: u32 = 6;
/// Key of `meta`: the interface that it leaves by.
pub const META_OIFNAME: u32 = 7;
/// Key of `meta`: its family.
pub const META_NFPROTO: u32 = 15;
pub(crate) const META_L4PROTO: u32 = 16;
pub(crate) const META_PKTTYPE: u32 = 19;
const META_IIFGROUP: u32 = 21;
/// linux/if_packet.h
pub(crate) const PACKET_HOST: u8 = 0;
/// linux/in.h
const IPPROTO_ICMP: u8 = 1;
// enum nft_payload_bases; offsets in the headers of Ethernet, ARP (RFC 826) and IPv4 (RFC 791 §3.1)
pub(crate) const BASE_LINK: u32 = 0;
pub(crate) const BASE_NETWORK: u32 = 1;
pub(crate) const BASE_TRANSPORT: u32 = 2;
pub(crate) const ETHER_SOURCE: u32 = 6;
pub(crate) const ARP_SENDER_MAC: u32 = 8;
pub(crate) const ARP_SENDER: u32 = 14;
pub(crate) const IPV4_SOURCE: u32 = 12;
pub(crate) const IPV4_DESTINATION: u32 = 16;
/// Key of `ct`: the flow's state (enum nft_ct_keys).
pub const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
// Bits of the state and the status, linux/netfilter/nf_conntrack_common.h
const STATE_INVALID: u32 = 1 << 0;
/// State of a packet that belongs to a flow which has seen both directions.
pub const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
/// State of a flow's first packet.
pub const STATE_NEW: u32 = 1 << 3;
const STATUS_DST_NAT: u32 = 1 << 5;
const DIRECTION_REPLY: u8 = 1;
