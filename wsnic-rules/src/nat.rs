//! Address translation for guests, as the table `ip wsnic_nat`.
//!
//! The family is `ip`, which every kernel with nf_tables translates in. What may pass is the guard's
//! decision alone: whatever it lets out of a bridge leaves with the host's address.

use crate::policy::{Bridge, NetworkPolicy, Policy};
use wsnic_nft::{Batch, Family, HookPoint, Rule, Table, Transport};
use wsnic_proto::Cidr;

/// Its table.
pub(crate) fn table() -> Table {
    Table::new(Family::IPV4, "wsnic_nat")
}

/// Adds chains and rules to the table, which the same batch has made.
pub(crate) fn build(batch: &mut Batch, policy: &Policy) {
    let table = table();
    batch.base_chain(&table, "prerouting", "nat", HookPoint::PreRouting, PRIORITY_DSTNAT);
    batch.base_chain(&table, "postrouting", "nat", HookPoint::PostRouting, PRIORITY_SRCNAT);
    for network in &policy.networks {
        if let Some(resolver) = network.resolver {
            for transport in Transport::BOTH {
                let question = to_gateway(network).port(transport, 53);
                batch.rule(&table, "prerouting", question.dnat(resolver));
            }
        }
        if !network.uplinks.is_empty() {
            let subnet = network.plan.subnet();
            let outward = Rule::new().source(subnet).destination_outside(subnet);
            let outward = match &network.bridge {
                Bridge::One(name) => outward.not_to(name),
                Bridge::Rooms { prefix, .. } => outward.not_to_any(prefix),
            };
            batch.rule(&table, "postrouting", outward.masquerade());
        }
    }
}

/// From a guest to its gateway; or to that of another room: the same resolver answers for all.
fn to_gateway(network: &NetworkPolicy) -> Rule {
    match network.bridge {
        Bridge::One(_) => {
            network.bridge.from().destination(Cidr::containing(network.plan.gateway(), 32))
        }
        Bridge::Rooms { prefix_len, .. } => {
            let inside = network.bridge.from().destination(network.plan.subnet());
            inside.to_first_of_block(prefix_len)
        }
    }
}

// NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC, linux/netfilter_ipv4.h
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
