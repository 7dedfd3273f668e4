//! MAC addresses, IPv4 CIDR blocks and the address plan of a network.
//!
//! Used by every process. Parses text once, at the edge; afterwards the types hold what was checked.

use crate::conf::quoted;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IEEE 802 MAC address, six octets in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All zero: never a valid source.
    pub const ZERO: MacAddr = MacAddr([0; 6]);
    /// All ones: every station.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Group address (multicast or broadcast): the I/G bit, IEEE 802.3 §3.2.3.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// One of 01-80-C2-00-00-00 to -0F, which no bridge forwards (IEEE 802.1Q §8.6.3).
    pub const fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f])
    }

    /// A locally administered unicast address made from `seed`, the same for the same seed.
    pub fn locally_administered(seed: &[u8]) -> MacAddr {
        // FNV-1a, 64 bit: no secret is protected by it, it only has to spread.
        let hash = seed.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
        MacAddr([(a & 0xfc) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits joined by `:` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a MAC address such as 00:22:15:0a:0b:0c", quoted(.0))]
pub struct MacError(String);

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<MacAddr, MacError> {
        let error = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(error)?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(MacAddr(octets)) }
    }
}

/// An IPv4 or IPv6 block: an address and the length of its prefix in bits (RFC 4632, RFC 4291 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpBlock {
    address: IpAddr,
    prefix_len: u8,
}

/// The text is no address, and no address and prefix with zeros behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a block such as 10.0.0.0/8 or 2001:db8::/32", quoted(.0))]
pub struct IpBlockError(String);

impl IpBlock {
    /// The block of `prefix_len` bits, at most all, that contains `address`.
    pub fn containing(address: IpAddr, prefix_len: u8) -> IpBlock {
        match address {
            IpAddr::V4(address) => {
                let block = Cidr::containing(address, prefix_len);
                IpBlock { address: block.network.into(), prefix_len: block.prefix_len }
            }
            IpAddr::V6(address) => {
                let prefix_len = prefix_len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                IpBlock { address: Ipv6Addr::from(u128::from(address) & mask).into(), prefix_len }
            }
        }
    }

    /// True if `address` is in the block; an IPv4 address that is written as an IPv6 one
    /// (RFC 4291 §2.5.5.2) counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && IpBlock::containing(address, self.prefix_len) == self
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for IpBlock {
    type Err = IpBlockError;

    fn from_str(text: &str) -> Result<IpBlock, IpBlockError> {
        let error = || IpBlockError(text.to_owned());
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len {
            None => longest,
            Some(len) if len.bytes().all(|byte| byte.is_ascii_digit()) => {
                len.parse().ok().filter(|len| *len <= longest).ok_or_else(error)?
            }
            Some(_) => return Err(error()),
        };
        let block = IpBlock::containing(address, prefix_len);
        if block.address == address { Ok(block) } else { Err(error()) }
    }
}

/// An IPv4 block: a network address and the length of its prefix, 0 to 32 bits (RFC 4632 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix_len: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `a.b.c.d/n` or `a.b.c.d`.
    #[error("{} is not an IPv4 block such as 192.168.86.0/24", quoted(.0))]
    Syntax(String),
    /// Bits behind the prefix are set.
    #[error("{given} has host bits set, the block is written {block}")]
    HostBits {
        /// What was written.
        given: String,
        /// The block that contains it.
        block: Cidr,
    },
}

impl Cidr {
    /// The block of `prefix_len` bits (at most 32, more counts as 32) that contains `address`.
    pub fn containing(address: Ipv4Addr, prefix_len: u8) -> Cidr {
        let prefix_len = prefix_len.min(32);
        Cidr { network: Ipv4Addr::from(u32::from(address) & mask(prefix_len)), prefix_len }
    }

    /// First address of the block.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Last address of the block.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !mask(self.prefix_len))
    }

    /// Bits of the prefix, 0 to 32.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The prefix as a mask, such as 255.255.255.0.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix_len))
    }

    /// True if `address` lies in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Cidr::containing(address, self.prefix_len) == self
    }

    /// True if the two blocks share an address.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (address, prefix_len) = text.split_once('/').unwrap_or((text, "32"));
        let address = address.parse().map_err(|_| syntax())?;
        let digits = prefix_len.bytes().all(|byte| byte.is_ascii_digit());
        let prefix_len: u8 =
            prefix_len.parse().ok().filter(|len| digits && *len <= 32).ok_or_else(syntax)?;
        let block = Cidr::containing(address, prefix_len);
        if block.network != address {
            return Err(CidrError::HostBits { given: text.to_owned(), block });
        }
        Ok(block)
    }
}

/// Who has which address on a network: gateway first, guests after it.
///
/// With 192.168.86.0/24: gateway .1, guests .2 to .254, broadcast .255.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    subnet: Cidr,
}

/// Why a block cannot be a guests' network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Longer than /30 leaves no room for a gateway and a guest; shorter than /8 is no subnet.
    #[error("{0} cannot be the subnet, use a prefix from /8 to /30 such as 192.168.86.0/24")]
    Prefix(Cidr),
    /// Addresses that can never be a host's (RFC 1122 §3.2.1.3, RFC 5771, RFC 3927).
    #[error("{0} is not a range for hosts, use a private one such as 192.168.86.0/24")]
    NotForHosts(Cidr),
}

impl Plan {
    /// The plan of `subnet`.
    ///
    /// # Errors
    /// A prefix outside 8 to 30, or a block that overlaps 0/8, 127/8, 169.254/16 or 224/3.
    pub fn new(subnet: Cidr) -> Result<Plan, PlanError> {
        if !(8..=30).contains(&subnet.prefix_len()) {
            return Err(PlanError::Prefix(subnet));
        }
        let reserved = [
            Cidr::containing(Ipv4Addr::new(0, 0, 0, 0), 8),
            Cidr::containing(Ipv4Addr::new(127, 0, 0, 0), 8),
            Cidr::containing(Ipv4Addr::new(169, 254, 0, 0), 16),
            Cidr::containing(Ipv4Addr::new(224, 0, 0, 0), 3),
        ];
        if reserved.iter().any(|block| block.overlaps(subnet)) {
            return Err(PlanError::NotForHosts(subnet));
        }
        Ok(Plan { subnet })
    }

    /// The whole block.
    pub fn subnet(self) -> Cidr {
        self.subnet
    }

    /// The bridge's own address: the first host address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// The last address of the block (RFC 919).
    pub fn broadcast(self) -> Ipv4Addr {
        self.subnet.last()
    }

    /// Guest addresses: how many, 1 to 16,777,213.
    pub fn pool_len(self) -> u32 {
        u32::from(self.subnet.last()) - u32::from(self.subnet.network()) - 2
    }

    /// The guest address with `index` 0 to `pool_len() - 1`, in ascending order.
    pub fn pool_address(self, index: u32) -> Option<Ipv4Addr> {
        (index < self.pool_len())
            .then(|| Ipv4Addr::from(u32::from(self.subnet.network()) + 2 + index))
    }

    /// The index of a guest address; None for any other.
    pub fn pool_index(self, address: Ipv4Addr) -> Option<u32> {
        u32::from(address)
            .checked_sub(u32::from(self.subnet.network()) + 2)
            .filter(|index| *index < self.pool_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_either_family_holds_its_own_addresses_only() {
        let holds = |block: &str, address: &str| {
            block.parse::<IpBlock>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"), "as a dual-stack socket names it");
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001::1"));
        assert!(holds("0.0.0.0/0", "9.9.9.9") && !holds("0.0.0.0/0", "2001::1"));
        assert!(holds("::/0", "2001::1") && holds("::1", "::1") && !holds("::1", "::2"));
        for wrong in ["10.0.0.1/8", "::1/64", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "x", ""] {
            assert!(wrong.parse::<IpBlock>().is_err(), "{wrong}");
        }
    }
    use proptest::prelude::*;

    fn plan(text: &str) -> Plan {
        Plan::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn default_subnet_has_the_plan_of_the_manual() {
        let plan = plan("192.168.86.0/24");
        assert_eq!(plan.gateway(), Ipv4Addr::new(192, 168, 86, 1));
        assert_eq!(plan.broadcast(), Ipv4Addr::new(192, 168, 86, 255));
        assert_eq!(plan.pool_len(), 253);
        assert_eq!(plan.pool_address(0), Some(Ipv4Addr::new(192, 168, 86, 2)));
        assert_eq!(plan.pool_address(252), Some(Ipv4Addr::new(192, 168, 86, 254)));
        assert_eq!(plan.pool_address(253), None);
        assert_eq!(plan.pool_index(Ipv4Addr::new(192, 168, 86, 1)), None);
        assert_eq!(plan.pool_index(Ipv4Addr::new(192, 168, 86, 255)), None);
    }

    #[test]
    fn smallest_subnet_has_one_guest() {
        assert_eq!(plan("10.0.0.0/30").pool_len(), 1);
        assert!(Plan::new("10.0.0.0/31".parse().unwrap()).is_err());
    }

    #[test]
    fn blocks_that_hold_no_hosts_are_refused() {
        for text in ["127.0.0.0/24", "169.254.0.0/16", "224.0.0.0/24", "240.0.0.0/24", "0.0.0.0/8"]
        {
            assert!(Plan::new(text.parse().unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn host_bits_are_named_with_the_block_that_is_meant() {
        let error = "192.168.86.1/24".parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(
            error,
            "192.168.86.1/24 has host bits set, the block is written 192.168.86.0/24"
        );
    }

    #[test]
    fn a_single_address_is_a_block_of_one() {
        assert_eq!("10.1.2.3".parse::<Cidr>().unwrap().to_string(), "10.1.2.3/32");
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(Ipv4Addr::new(8, 8, 8, 8)));
    }

    #[test]
    fn made_addresses_are_local_unicast_and_stable() {
        let mac = MacAddr::locally_administered(b"wsbr0");
        assert_eq!(mac, MacAddr::locally_administered(b"wsbr0"));
        assert!(!mac.is_group());
        assert_eq!(mac.0[0] & 2, 2);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,40}") {
            let _ = text.parse::<MacAddr>();
            let _ = text.parse::<Cidr>();
        }

        #[test]
        fn addresses_survive_their_own_text(octets: [u8; 6], address: u32, len in 0u8..=32) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
            let block = Cidr::containing(Ipv4Addr::from(address), len);
            prop_assert_eq!(block.to_string().parse::<Cidr>().unwrap(), block);
            prop_assert!(block.contains(Ipv4Addr::from(address)));
        }

        #[test]
        fn pool_index_and_address_are_inverse(address: u32, len in 8u8..=30, pick: u32) {
            if let Ok(plan) = Plan::new(Cidr::containing(Ipv4Addr::from(address), len)) {
                let index = pick % plan.pool_len();
                let guest = plan.pool_address(index).unwrap();
                prop_assert_eq!(plan.pool_index(guest), Some(index));
                prop_assert!(plan.subnet().contains(guest));
                prop_assert!(guest != plan.gateway() && guest != plan.broadcast());
            }
        }
    }
}
