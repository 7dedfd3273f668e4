//! Rules that look something up in a set, or keep count in one.

use crate::attribute::Attributes;
use crate::rule::{
    ARP_SENDER, ARP_SENDER_MAC, BASE_LINK, BASE_NETWORK, ETHER_SOURCE, IPV4_DESTINATION,
    IPV4_SOURCE, META_IIF, META_OIF, Rule,
};
use wsnic_proto::Cidr;

/// What of a packet is one part of a set's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The interface that it came in by.
    In,
    /// The interface that it leaves by.
    Out,
    /// The frame's source.
    EtherSource,
    /// The sender's MAC address in an ARP message.
    ArpSenderMac,
    /// The sender's IPv4 address in an ARP message.
    ArpSender,
    /// The source of an IPv4 packet, and how many bits of it count.
    Source(u8),
    /// The destination of an IPv4 packet, and how many bits of it count.
    Destination(u8),
}

impl Rule {
    /// These are an element of the set.
    pub fn found(self, fields: &[Field], set: &str) -> Rule {
        self.lookup(fields, set, 0)
    }

    /// These are no element of the set.
    pub fn not_found(self, fields: &[Field], set: &str) -> Rule {
        self.lookup(fields, set, LOOKUP_INVERTED)
    }

    fn lookup(self, fields: &[Field], set: &str, flags: u32) -> Rule {
        // NFTA_LOOKUP_SET, SREG, FLAGS
        let lookup = Attributes::default().text(1, set).number(2, FIRST_WORD).number(5, flags);
        self.load(fields).with("lookup", lookup)
    }

    /// Is one of more than `rate` packets a second, after a burst of `burst`, which have these fields.
    pub fn each_over(self, fields: &[Field], set: &str, rate: u64, burst: u32) -> Rule {
        let limit = Attributes::default().text(1, "limit").nest(2, limit(rate, burst, LIMIT_OVER));
        // NFTA_DYNSET_SET_NAME, OP, SREG_KEY, EXPR
        let update = Attributes::default().text(1, set).number(3, DYNSET_UPDATE);
        self.load(fields).with("dynset", update.number(4, FIRST_WORD).nest(7, limit))
    }

    /// Loads fields behind each other, each at the beginning of a register of 32 bits.
    fn load(self, fields: &[Field]) -> Rule {
        let load = |(rule, register): (Rule, u32), field: &Field| match *field {
            Field::In => (rule.meta_into(register, META_IIF), register + 1),
            Field::Out => (rule.meta_into(register, META_OIF), register + 1),
            Field::EtherSource => {
                (rule.payload_into(register, BASE_LINK, ETHER_SOURCE, 6), register + 2)
            }
            Field::ArpSenderMac => {
                (rule.payload_into(register, BASE_NETWORK, ARP_SENDER_MAC, 6), register + 2)
            }
            Field::ArpSender => {
                (rule.payload_into(register, BASE_NETWORK, ARP_SENDER, 4), register + 1)
            }
            Field::Source(bits) => (rule.network(register, IPV4_SOURCE, bits), register + 1),
            Field::Destination(bits) => {
                (rule.network(register, IPV4_DESTINATION, bits), register + 1)
            }
        };
        fields.iter().fold((self, FIRST_WORD), load).0
    }

    fn network(self, register: u32, offset: u32, bits: u8) -> Rule {
        let loaded = self.payload_into(register, BASE_NETWORK, offset, 4);
        let mask = Cidr::containing([0, 0, 0, 0].into(), bits).netmask().octets();
        if bits < 32 { loaded.and_in(register, &mask) } else { loaded }
    }
}

/// NFTA_LIMIT_…: rate, its unit in seconds, burst, NFT_LIMIT_PKTS, flags.
pub(crate) fn limit(rate: u64, burst: u32, flags: u32) -> Attributes {
    let limit = Attributes::default().number64(1, rate).number64(2, 1).number(3, burst);
    limit.number(4, 0).number(5, flags)
}

/// NFT_REG32_00: the registers of 32 bits, of which there are sixteen.
const FIRST_WORD: u32 = 8;
/// NFT_LOOKUP_F_INV
const LOOKUP_INVERTED: u32 = 1;
/// NFT_LIMIT_F_INV
const LIMIT_OVER: u32 = 1;
/// NFT_DYNSET_OP_UPDATE
const DYNSET_UPDATE: u32 = 1;
