//! The locks: what a guest may send, as the table `bridge wsnic_ports`.
//!
//! Sees each frame as it comes in by a port, before the bridge learns from it or forwards it; a
//! super-frame is one. What a port may use as its addresses are elements of sets, by the port's interface
//! index: to bind an address touches no rule. Bridge flags do what they can better (a locked port
//! takes only frames whose source is one of its static entries); this table does the rest.
//!
//! Rules let pass what is proved harmless, and the last one for each protocol drops: a packet that is
//! cut short, malformed, or a fragment in front of its ports proves nothing. Of a fragmented packet the
//! first fragment has to prove it, without which no receiver puts the others together.
//!
//! An address is held to its port, not to one of the port's MAC addresses: whose those are is locked too.
//!
//! Nearly all frames meet three rules, some 0.3 µs: by which port (its group is told five times as fast
//! as its name), to many or not, and whether one lookup finds port and source. Loads from the Ethernet
//! header cost as much as ten from that of IPv4, so there is one only.
//!
//! Networks with the same settings share their chain. The first locked network's is for all ports that
//! are in no set, so that a port which nobody has announced may do nothing.

use crate::policy::{NetworkPolicy, Policy};
use std::net::Ipv4Addr;
use std::time::Duration;
use wsnic_host::{PORT_GROUP, PORT_PREFIX};
use wsnic_nft::{Batch, Family, Field, HookPoint, Key, Rule, Set, Table};
use wsnic_proto::{Cidr, MacAddr};

/// Its table.
pub(crate) fn table() -> Table {
    Table::new(Family::BRIDGE, "wsnic_ports")
}

/// The IPv4 addresses that a port may use.
pub(crate) fn bound() -> Set {
    Set::new(table(), BOUND, &[Key::Interface, Key::Ipv4])
}

/// The MAC addresses that a port may use.
pub(crate) fn macs() -> Set {
    Set::new(table(), MACS, &[Key::Interface, Key::Mac])
}

/// The ports that go by the rules of this network.
pub(crate) fn members(network: usize) -> Set {
    Set::new(table(), &chain_of(network), &[Key::Interface])
}

/// The first network with the same rules for ports as this one, which gives them their name; None: its
/// ports are in no set.
pub(crate) fn class(policy: &Policy, network: usize) -> Option<usize> {
    let found = policy.networks.iter().position(|other| {
        policy.networks.get(network).is_some_and(|network| settings(network) == settings(other))
    });
    found.filter(|class| policy.networks.iter().position(|network| network.locks) != Some(*class))
}

/// What the rules for a network's ports depend on; None: nothing, for there are no locks.
fn settings(network: &NetworkPolicy) -> Option<(bool, u32)> {
    network.locks.then_some((network.allow_vlan, network.max_multicast))
}

/// Adds sets, chains and rules to the table, which the same batch has made; to be called if there is
/// a network with locks.
pub(crate) fn build(batch: &mut Batch, policy: &Policy, bridge_locks: bool) {
    let table = table();
    for set in [bound(), macs()] {
        batch.set(&set);
    }
    batch.meters(&Set::new(table.clone(), MANY, &[Key::Interface]), MANY_PORTS, MANY_FORGET);
    batch.chain(&table, LOCKED);
    batch.chain(&table, BY_NAME);
    batch.base_chain(&table, FRAMES, "filter", HookPoint::PreRouting, PRIORITY);
    batch.hint("is it a kernel without CONFIG_NF_TABLES_BRIDGE? locks = no does without");
    let networks = || (0..).zip(&policy.networks);
    for (number, network) in
        networks().filter(|(number, _)| class(policy, *number) == Some(*number))
    {
        batch.set(&members(number));
        let theirs = Rule::new().found(&[Field::In], &chain_of(number));
        if network.locks {
            many_chain(batch, number, network);
            batch.chain(&table, &chain_of(number));
            port_rules(batch, &chain_of(number), number, network, bridge_locks);
            batch.rule(&table, FRAMES, theirs.goto(&chain_of(number)));
        } else {
            batch.rule(&table, FRAMES, theirs.accept());
        }
    }
    if let Some((number, network)) = networks().find(|(_, network)| network.locks) {
        many_chain(batch, number, network);
        // A port is told by its name too, should somebody have given it another group.
        batch.rule(&table, FRAMES, Rule::new().not_from_group(PORT_GROUP).goto(BY_NAME));
        batch.rule(&table, BY_NAME, Rule::new().not_from_any(PORT_PREFIX).accept());
        for chain in [FRAMES, BY_NAME] {
            port_rules(batch, chain, number, network, bridge_locks);
        }
    }
    locked(batch);
}

/// What holds for frames to many of a network's ports.
fn many_chain(batch: &mut Batch, number: usize, network: &NetworkPolicy) {
    let (table, chain) = (table(), many_of(number));
    batch.chain(&table, &chain);
    batch.rule(&table, &chain, Rule::new().to_macs(RESERVED, 44).counter().drop());
    if network.max_multicast != 0 {
        let rate = network.max_multicast;
        let over = Rule::new().each_over(&[Field::In], MANY, rate.into(), rate);
        batch.rule(&table, &chain, over.counter().drop());
    }
}

/// What holds for a network's ports, first what most frames meet.
fn port_rules(
    batch: &mut Batch,
    chain: &str,
    number: usize,
    network: &NetworkPolicy,
    bridge_locks: bool,
) {
    let table = table();
    batch.rule(&table, chain, Rule::new().to_many().jump(&many_of(number)));
    if !bridge_locks {
        let foreign = Rule::new().not_found(&[Field::In, Field::EtherSource], MACS);
        batch.rule(&table, chain, foreign.counter().drop());
    }
    // Of protocols without ports whatever is in their place counts: what it stops is looked at again.
    let most = Rule::new().ethertype(IPV4).source_port(false, 67).destination_port(false, 68);
    batch.commented_rule(&table, chain, own(most).accept(), "from its own addresses");
    if network.allow_vlan {
        for tag in TAGS {
            batch.rule(&table, chain, Rule::new().ethertype(tag).in_vlan().accept());
        }
    }
    batch.rule(&table, chain, Rule::new().goto(LOCKED));
}

/// What every locked port is held to: for each protocol a chain, and what is in none.
fn locked(batch: &mut Batch) {
    let table = table();
    let chains = [("of_ipv4", IPV4, ipv4()), ("of_arp", ARP, arp()), ("of_ipv6", IPV6, ipv6())];
    for (chain, ethertype, rules) in chains {
        batch.chain(&table, chain);
        batch.rule(&table, LOCKED, Rule::new().ethertype(ethertype).goto(chain));
        for (rule, comment) in rules {
            batch.commented_rule(&table, chain, rule, comment);
        }
    }
    for tag in TAGS {
        batch.rule(&table, LOCKED, Rule::new().ethertype(tag).counter().drop());
    }
    // IPv4, ARP and IPv6 as some systems still take them (RFC 1042).
    let snap = Rule::new().length_and(SNAP).counter().drop();
    batch.commented_rule(&table, LOCKED, snap, "IP behind SNAP");
}

/// A rule and its comment. Each names the EtherType once more, by which nft shows what it is about.
type Commented = (Rule, &'static str);

/// Clients of DHCP take answers by their destination, some whatever port they come from: what a guest
/// sends to theirs, or from the server's, ends here.
fn ipv4() -> Vec<Commented> {
    let ipv4 = || Rule::new().ethertype(IPV4);
    let nobody = Cidr::containing(Ipv4Addr::UNSPECIFIED, 32);
    // Who has no address yet asks for one (RFC 2131 §4.1).
    let question =
        ipv4().source(nobody).protocol(UDP).source_port(true, 68).destination_port(true, 67);
    vec![
        (own(ipv4().not_protocol(UDP)).accept(), "from its own addresses"),
        (own(ipv4().later_fragment()).accept(), "later fragments"),
        (question.accept(), "questions for DHCP"),
        (ipv4().counter().drop(), "foreign sources, answers of DHCP"),
    ]
}

/// The source is one of the port's own; the frame must be IPv4.
fn own(rule: Rule) -> Rule {
    rule.found(&[Field::In, Field::Source(32)], BOUND)
}

fn arp() -> Vec<Commented> {
    let arp = || {
        let arp = Rule::new().ethertype(ARP).arp_for_ipv4();
        arp.found(&[Field::In, Field::ArpSenderMac], MACS)
    };
    let own = arp().found(&[Field::In, Field::ArpSender], BOUND);
    // Who is not sure of an address asks whether anybody has it (RFC 5227 §2.1.1).
    let probe = arp().arp_sender(Ipv4Addr::UNSPECIFIED);
    vec![
        (own.accept(), "about its own addresses"),
        (probe.accept(), "probes"),
        (Rule::new().ethertype(ARP).counter().drop(), "about addresses of others"),
    ]
}

fn ipv6() -> Vec<Commented> {
    let ipv6 = || Rule::new().ethertype(IPV6);
    // Router Advertisement and Redirect (RFC 4861 §4.2, §4.5).
    let of_hosts = ipv6().protocol(ICMPV6).not_icmp_type(134).not_icmp_type(137);
    // From servers and relays of DHCPv6, and to clients (RFC 8415 §7.2).
    let udp = ipv6().protocol(UDP).source_port(false, 547).destination_port(false, 546);
    vec![
        (ipv6().not_protocol(ICMPV6).not_protocol(UDP).accept(), "other protocols"),
        (ipv6().later_fragment_v6().accept(), "later fragments"),
        (of_hosts.accept(), "ICMPv6 of hosts"),
        (udp.accept(), "no DHCPv6 of servers"),
        (ipv6().counter().drop(), "of routers, answers of DHCPv6"),
    ]
}

fn chain_of(network: usize) -> String {
    format!("ports_{network}")
}

fn many_of(network: usize) -> String {
    format!("many_{network}")
}

/// Before other programs' chains translate (-300), filter (-200) or br_netfilter (0) sees the frame.
const PRIORITY: i32 = -310;
const FRAMES: &str = "frames";
const BY_NAME: &str = "by_name";
const LOCKED: &str = "locked";
const BOUND: &str = "bound";
const MACS: &str = "macs";
const MANY: &str = "many";
/// Ports whose frames to many are counted, of those that sent any a moment ago; a table of 1 MiB.
const MANY_PORTS: u32 = 1 << 16;
/// A port that sent none for so long has its whole burst again, whatever the limit.
const MANY_FORGET: Duration = Duration::from_secs(10);
/// 01-80-C2-00-00-00 to -0F, which no bridge forwards (IEEE 802.1Q §8.6.3).
const RESERVED: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
// EtherTypes: IEEE 802.1Q and 802.1ad tags, and what stands behind none
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// LLC and OUI of an encapsulated EtherType (RFC 1042).
const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];
// linux/in.h
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
