//! The guard: what guests may reach, as the table `inet wsnic_guard`.
//!
//! Only packets that enter or leave by a guests' bridge are judged, questions that others ask a name
//! server on the gateway's address, and what comes in by an interface
//! that forwards only because of guests (`closed`) goes nowhere else; nothing is taken from ports and
//! leaf bridges themselves: the kernel gives the host a frame to 01-80-C2-00-00-0x from the port that it
//! came in by, past the bridge, and all frames of a port that was taken off the bridge. All other
//! traffic falls through with the policy accept. The rules name interfaces, not indexes, so the table
//! may stand before a bridge does and outlives it.
//!
//! Order of a guest's forwarded packet, first match wins:
//! between guests of one bridge → passes, unless they are isolated; to another network → dropped;
//! no IPv4, foreign source, own subnet by another way → dropped;
//! the gateway's DNS (translated) → passes; `deny` → refused; flows already let through → pass, what
//! fits no flow → dropped; announced name servers and `allow` → pass; mail and the ranges that
//! `guest_access` forbids → refused; the rest leaves by the uplinks only (`lan` and `all`: by any interface).
//!
//! `deny` stands before known flows, so that it cuts those too. What is refused is answered, so that a
//! guest's program fails at once instead of after minutes; a rate bounds the answers, and frames to
//! many are never answered.
//!
//! A network with rooms has rules as any other has. What tells its rooms apart are elements of two sets,
//! one of each for a room: which subnet belongs to which bridge, and that a bridge is the same as itself.

use crate::policy::{Bridge, NetworkPolicy, Policy};
use wsnic_host::{BRIDGE_PREFIX, LEAF_PREFIX, PORT_PREFIX};
use wsnic_nft::{Batch, Element, Family, Field, HookPoint, Key, Part, Rule, Set, Table, Transport};
use wsnic_proto::Cidr;
use wsnic_proto::settings::GuestAccess;

/// Its table.
pub(crate) fn table() -> Table {
    Table::new(Family::INET, "wsnic_guard")
}

/// The bridge of each room and its subnet.
pub(crate) fn rooms() -> Set {
    Set::new(table(), ROOMS, &[Key::Interface, Key::Ipv4])
}

/// The bridge of each room, twice: into and out of which a packet goes that stays in its room.
pub(crate) fn inside() -> Set {
    Set::new(table(), INSIDE, &[Key::Interface, Key::Interface])
}

/// A room's element of each set.
pub(crate) fn room(bridge: u32, subnet: Part) -> (Element, Element) {
    let bridge = Part::Interface(bridge);
    (vec![bridge, subnet], vec![bridge, bridge])
}

/// Adds sets, chains and rules to the table, which the same batch has made.
pub(crate) fn build(batch: &mut Batch, policy: &Policy) {
    let table = table();
    if policy.has_rooms() {
        batch.set(&rooms());
        batch.set(&inside());
    }
    let networks = || (0..).zip(&policy.networks);
    batch.chain(&table, REFUSE);
    batch.chain(&table, TO_GUESTS);
    for (number, _) in networks() {
        batch.chain(&table, &from_guests(number));
        batch.chain(&table, &to_host(number));
    }
    batch.base_chain(&table, INPUT, "filter", HookPoint::LocalIn, PRIORITY);
    batch.base_chain(&table, FORWARD, "filter", HookPoint::Forward, PRIORITY);

    for (number, network) in networks() {
        batch.rule(&table, INPUT, network.bridge.from().goto(&to_host(number)));
        batch.rule(&table, FORWARD, network.bridge.from().goto(&from_guests(number)));
    }
    // With br_netfilter, frames between guests come here too.
    let between = Rule::new().from_any(LEAF_PREFIX).to_any(LEAF_PREFIX);
    batch.rule(&table, FORWARD, between.accept());
    // A bridge of no network is one of a network that is gone.
    for prefix in [BRIDGE_PREFIX, PORT_PREFIX, LEAF_PREFIX] {
        for chain in [INPUT, FORWARD] {
            batch.rule(&table, chain, Rule::new().from_any(prefix).counter().drop());
        }
    }
    // The gateway's name server is for guests: the kernel takes packets to an address of this host by
    // any interface.
    for network in policy.networks.iter().filter(|network| network.dns_on_host) {
        let elsewhere = || Rule::new().not_from_any(BRIDGE_PREFIX).not_from_any(LOOPBACK);
        for by in Transport::BOTH {
            let gateway = Cidr::containing(network.plan.gateway(), 32);
            let question = elsewhere().ipv4().destination(gateway).port(by, 53);
            batch.rule(&table, INPUT, question.counter().drop());
        }
    }
    batch.rule(&table, FORWARD, Rule::new().to_any(BRIDGE_PREFIX).goto(TO_GUESTS));
    for interface in &policy.closed {
        batch.rule(&table, FORWARD, Rule::new().from(interface).counter().drop());
    }

    for (number, network) in networks() {
        for rule in rules_to_host(network) {
            batch.rule(&table, &to_host(number), rule);
        }
        for rule in rules_from_guests(network) {
            batch.rule(&table, &from_guests(number), rule);
        }
    }
    batch.rule(&table, TO_GUESTS, Rule::new().not_ipv4().drop());
    batch.rule(&table, TO_GUESTS, Rule::new().answer().accept());
    batch.rule(&table, TO_GUESTS, Rule::new().counter().drop());

    let (rate, burst) = REFUSALS;
    batch.rule(&table, REFUSE, Rule::new().not_unicast().drop());
    batch.rule(&table, REFUSE, Rule::new().tcp().limit(rate, burst).counter().reject_with_reset());
    batch.rule(&table, REFUSE, Rule::new().limit(rate, burst).counter().reject_as_prohibited());
    batch.rule(&table, REFUSE, Rule::new().counter().drop());
}

/// From a guest to the host itself, by whichever of its addresses.
fn rules_to_host(network: &NetworkPolicy) -> Vec<Rule> {
    let mut rules = vec![Rule::new().not_ipv4().drop()];
    if network.dhcp_on_host {
        rules.push(Rule::new().port(Transport::Udp, 67).accept());
    }
    // Locked ports have no other source, but their room may not have been announced.
    if !network.locks || network.bridge.has_rooms() {
        rules.push(foreign_source(network).counter().drop());
    }
    // Only answers: packets of a flow that the guest opened, such as its next pings, are judged again.
    rules.push(Rule::new().answer().accept());
    rules.extend(resolver(network));
    if network.dns_on_host {
        rules.extend(Transport::BOTH.map(|by| to_gateway(network).port(by, 53).accept()));
    }
    if network.access == GuestAccess::All {
        rules.extend(
            network.deny.iter().map(|block| Rule::new().ipv4().destination(*block).goto(REFUSE)),
        );
        rules.push(Rule::new().accept());
    } else {
        let (rate, burst) = PINGS;
        rules.push(to_gateway(network).echo_request().limit(rate, burst).accept());
        rules.push(Rule::new().goto(REFUSE));
    }
    rules
}

/// From a guest to anywhere else.
fn rules_from_guests(network: &NetworkPolicy) -> Vec<Rule> {
    let refused = |block: &Cidr| Rule::new().ipv4().destination(*block).goto(REFUSE);
    let mut rules = Vec::new();
    if !network.isolation {
        rules.push(match &network.bridge {
            Bridge::One(name) => Rule::new().to(name).accept(),
            Bridge::Rooms { .. } => Rule::new().found(&[Field::In, Field::Out], INSIDE).accept(),
        });
    }
    rules.extend([
        Rule::new().to_any(BRIDGE_PREFIX).counter().drop(),
        Rule::new().not_ipv4().drop(),
        foreign_source(network).counter().drop(),
        Rule::new().ipv4().destination(network.plan.subnet()).counter().drop(),
    ]);
    if network.uplinks.is_empty() {
        rules.push(Rule::new().goto(REFUSE));
        return rules;
    }
    rules.extend(resolver(network));
    rules.extend(network.deny.iter().map(refused));
    rules.push(Rule::new().established().accept());
    rules.push(Rule::new().invalid().drop());
    for server in &network.nameservers {
        let server = Cidr::containing(*server, 32);
        let ask = |transport| Rule::new().ipv4().destination(server).port(transport, 53).accept();
        rules.extend(Transport::BOTH.map(ask));
    }
    rules.extend(network.allow.iter().map(|block| Rule::new().ipv4().destination(*block).accept()));
    let mail = Rule::new().port(Transport::Tcp, 25).goto(REFUSE);
    match network.access {
        GuestAccess::Internet => {
            rules.push(mail);
            rules.extend(blocks(NOT_INTERNET).map(|block| refused(&block)));
            rules.extend(network.uplinks.iter().map(|uplink| Rule::new().to(uplink).accept()));
            rules.push(Rule::new().goto(REFUSE));
        }
        GuestAccess::Lan => {
            rules.push(mail);
            rules.extend(blocks(NOT_LAN).map(|block| refused(&block)));
            rules.push(Rule::new().accept());
        }
        GuestAccess::All => rules.push(Rule::new().accept()),
    }
    rules
}

/// The source is no guest's of this bridge.
fn foreign_source(network: &NetworkPolicy) -> Rule {
    match network.bridge {
        Bridge::One(_) => Rule::new().ipv4().source_outside(network.plan.subnet()),
        Bridge::Rooms { prefix_len, .. } => {
            Rule::new().ipv4().not_found(&[Field::In, Field::Source(prefix_len)], ROOMS)
        }
    }
}

/// The destination is the address of the bridge that the packet came in by.
fn to_gateway(network: &NetworkPolicy) -> Rule {
    match network.bridge {
        Bridge::One(_) => {
            Rule::new().ipv4().destination(Cidr::containing(network.plan.gateway(), 32))
        }
        Bridge::Rooms { prefix_len, .. } => {
            let own = Rule::new().ipv4().to_first_of_block(prefix_len);
            own.found(&[Field::In, Field::Destination(prefix_len)], ROOMS)
        }
    }
}

/// Questions to the gateway's port 53, which the NAT table has sent on to the resolver.
fn resolver(network: &NetworkPolicy) -> Vec<Rule> {
    let ask = |resolver, transport| {
        let resolver = Cidr::containing(resolver, 32);
        Rule::new().ipv4().dnat_done().destination(resolver).port(transport, 53).accept()
    };
    let resolver = network.resolver.iter();
    resolver.flat_map(|resolver| Transport::BOTH.map(|by| ask(*resolver, by))).collect()
}

/// The blocks of a list of this file.
fn blocks(list: &str) -> impl Iterator<Item = Cidr> {
    list.split_whitespace().map(|block| block.parse().expect("every block below is one"))
}

fn from_guests(network: usize) -> String {
    format!("from_guests_{network}")
}

fn to_host(network: usize) -> String {
    format!("to_host_{network}")
}

/// Before the chains of other programs, which mostly sit at 0.
const PRIORITY: i32 = -10;
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const REFUSE: &str = "refuse";
const TO_GUESTS: &str = "to_guests";
const ROOMS: &str = "rooms";
/// The whole name, to its end.
const LOOPBACK: &str = "lo\0";
const INSIDE: &str = "inside";
/// Packets a second and burst, all guests of a network together: enough to see whether it is there.
const PINGS: (u64, u32) = (20, 40);
/// Resets and ICMP errors a second and burst, all guests together: far from a load for the host.
const REFUSALS: (u64, u32) = (100, 200);

/// IPv4 blocks that are no public unicast addresses (RFC 6890, RFC 5771, RFC 1112 §4).
const NOT_INTERNET: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 \
    172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 \
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4";
/// Blocks that are nobody's on a LAN either: this host, loopback, link-local with cloud metadata
/// services, multicast, reserved with limited broadcast.
const NOT_LAN: &str = "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4";
