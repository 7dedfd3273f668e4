//! The guard: what guests may reach, as the table `inet wsnic_guard`.
//!
//! Runs in the helper, called by `mod.rs`. Only packets that enter or leave by the bridge are judged,
//! and what comes in by an interface that forwards only because of guests (`closed`) goes nowhere
//! else; nothing is taken from ports and leaf bridges themselves: the kernel gives the host a frame to
//! 01-80-C2-00-00-0x from the port that it came in by, past the bridge, and all frames of a port that
//! was taken off the bridge. All other traffic falls through with the policy accept. The rules name interfaces, not indexes, so
//! the table may stand before the bridge does and outlives it.
//!
//! Order of a guest's forwarded packet, first match wins:
//! between guests → passes; no IPv4, foreign source, own subnet by another way → dropped;
//! the gateway's DNS (translated) → passes; `deny` → refused; flows already let through → pass, what
//! fits no flow → dropped; announced name servers and `allow` → pass; mail and the ranges that
//! `guest_access` forbids → refused; the rest leaves by the uplinks only (`lan` and `all`: by any interface).
//!
//! `deny` stands before known flows, so that it cuts those too. What is refused is answered, so that a
//! guest's program fails at once instead of after minutes; a rate bounds the answers, and frames to
//! many are never answered.

use super::Policy;
use wsnic_host::{LEAF_PREFIX, PORT_PREFIX};
use wsnic_nft::{Batch, Family, HookPoint, Rule, Table, Transport};
use wsnic_proto::Cidr;
use wsnic_proto::settings::GuestAccess;

/// Its table.
pub(super) fn table() -> Table {
    Table::new(Family::INET, "wsnic_guard")
}

/// Adds chains and rules to the table, which the same batch has made.
pub(super) fn build(batch: &mut Batch, policy: &Policy) {
    let table = table();
    let bridge = &policy.bridge;
    for chain in [REFUSE, FROM_GUESTS, TO_GUESTS, TO_HOST] {
        batch.chain(&table, chain);
    }
    batch.base_chain(&table, "input", "filter", HookPoint::LocalIn, PRIORITY);
    batch.base_chain(&table, "forward", "filter", HookPoint::Forward, PRIORITY);

    batch.rule(&table, "input", Rule::new().from(bridge).goto(TO_HOST));
    // With br_netfilter, frames between guests come here too.
    batch.rule(&table, "forward", Rule::new().from(bridge).to(bridge).accept());
    let between = Rule::new().from_any(LEAF_PREFIX).to_any(LEAF_PREFIX);
    batch.rule(&table, "forward", between.accept());
    for prefix in [PORT_PREFIX, LEAF_PREFIX] {
        for chain in ["input", "forward"] {
            batch.rule(&table, chain, Rule::new().from_any(prefix).counter().drop());
        }
    }
    batch.rule(&table, "forward", Rule::new().from(bridge).goto(FROM_GUESTS));
    batch.rule(&table, "forward", Rule::new().to(bridge).goto(TO_GUESTS));
    for interface in &policy.closed {
        batch.rule(&table, "forward", Rule::new().from(interface).counter().drop());
    }

    for rule in to_host(policy) {
        batch.rule(&table, TO_HOST, rule);
    }
    for rule in from_guests(policy) {
        batch.rule(&table, FROM_GUESTS, rule);
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
fn to_host(policy: &Policy) -> Vec<Rule> {
    let mut rules = vec![Rule::new().not_ipv4().drop()];
    // Only answers: packets of a flow that the guest opened, such as its next pings, are judged again.
    rules.push(Rule::new().answer().accept());
    rules.extend(resolver(policy));
    if policy.dhcp_on_host {
        rules.push(Rule::new().port(Transport::Udp, 67).accept());
    }
    if policy.access == GuestAccess::All {
        rules.extend(
            policy.deny.iter().map(|block| Rule::new().ipv4().destination(*block).goto(REFUSE)),
        );
        rules.push(Rule::new().accept());
    } else {
        let (rate, burst) = PINGS;
        let gateway = Cidr::containing(policy.plan.gateway(), 32);
        let pings =
            Rule::new().ipv4().source(policy.plan.subnet()).destination(gateway).echo_request();
        rules.push(pings.limit(rate, burst).accept());
        rules.push(Rule::new().goto(REFUSE));
    }
    rules
}

/// From a guest to anywhere else.
fn from_guests(policy: &Policy) -> Vec<Rule> {
    let subnet = policy.plan.subnet();
    let refused = |block: &Cidr| Rule::new().ipv4().destination(*block).goto(REFUSE);
    let mut rules = vec![
        Rule::new().not_ipv4().drop(),
        Rule::new().ipv4().source_outside(subnet).counter().drop(),
        Rule::new().ipv4().destination(subnet).counter().drop(),
    ];
    if policy.uplinks.is_empty() {
        rules.push(Rule::new().goto(REFUSE));
        return rules;
    }
    rules.extend(resolver(policy));
    rules.extend(policy.deny.iter().map(refused));
    rules.push(Rule::new().established().accept());
    rules.push(Rule::new().invalid().drop());
    for server in &policy.nameservers {
        let server = Cidr::containing(*server, 32);
        let ask = |transport| Rule::new().ipv4().destination(server).port(transport, 53).accept();
        rules.extend(Transport::BOTH.map(ask));
    }
    rules.extend(policy.allow.iter().map(|block| Rule::new().ipv4().destination(*block).accept()));
    let mail = Rule::new().port(Transport::Tcp, 25).goto(REFUSE);
    match policy.access {
        GuestAccess::Internet => {
            rules.push(mail);
            rules.extend(blocks(NOT_INTERNET).map(|block| refused(&block)));
            rules.extend(policy.uplinks.iter().map(|uplink| Rule::new().to(uplink).accept()));
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

/// Questions to the gateway's port 53, which the NAT table has sent on to the resolver.
fn resolver(policy: &Policy) -> Vec<Rule> {
    let ask = |resolver, transport| {
        let resolver = Cidr::containing(resolver, 32);
        Rule::new().ipv4().dnat_done().destination(resolver).port(transport, 53).accept()
    };
    let resolver = policy.resolver.iter();
    resolver.flat_map(|resolver| Transport::BOTH.map(|by| ask(*resolver, by))).collect()
}

/// The blocks of a list of this file.
fn blocks(list: &str) -> impl Iterator<Item = Cidr> {
    list.split_whitespace().map(|block| block.parse().expect("every block below is one"))
}

/// Before the chains of other programs, which mostly sit at 0.
const PRIORITY: i32 = -10;
const REFUSE: &str = "refuse";
const FROM_GUESTS: &str = "from_guests";
const TO_GUESTS: &str = "to_guests";
const TO_HOST: &str = "to_host";
/// Packets a second and burst, all guests together: enough to see whether the network is there.
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
