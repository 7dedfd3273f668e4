//! Address translation for guests, as the table `ip wsnic_nat`.
//!
//! Runs in the helper, called by `mod.rs`. The family is `ip`, which every kernel with nf_tables
//! translates in. What may pass is the guard's decision alone: whatever it lets out of the bridge
//! leaves with the host's address.

use super::Policy;
use wsnic_nft::{Batch, Family, HookPoint, Rule, Table, Transport};
use wsnic_proto::Cidr;

/// Its table.
pub(super) fn table() -> Table {
    Table::new(Family::IPV4, "wsnic_nat")
}

/// Adds chains and rules to the table, which the same batch has made.
pub(super) fn build(batch: &mut Batch, policy: &Policy) {
    let table = table();
    let bridge = &policy.bridge;
    let subnet = policy.plan.subnet();
    let gateway = Cidr::containing(policy.plan.gateway(), 32);
    batch.base_chain(&table, "prerouting", "nat", HookPoint::PreRouting, PRIORITY_DSTNAT);
    batch.base_chain(&table, "postrouting", "nat", HookPoint::PostRouting, PRIORITY_SRCNAT);
    if let Some(resolver) = policy.resolver {
        for transport in Transport::BOTH {
            let question = Rule::new().from(bridge).destination(gateway).port(transport, 53);
            batch.rule(&table, "prerouting", question.dnat(resolver));
        }
    }
    if !policy.uplinks.is_empty() {
        let outward = Rule::new().source(subnet).destination_outside(subnet).not_to(bridge);
        batch.rule(&table, "postrouting", outward.masquerade());
    }
}

// NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC, linux/netfilter_ipv4.h
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
