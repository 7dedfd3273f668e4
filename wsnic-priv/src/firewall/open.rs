//! `host_firewall = open`: guests' packets pass whatever other tables say.
//!
//! In netfilter an accept is final only for its own table: any other table's chain at the forward
//! hook can still drop what our guard let pass. So each of them gets two accept rules for the bridge
//! at its head, which leave again at the end. What those chains say is not looked at.

use super::{guard, nat};
use nix::libc::ENOENT;
use wsnic_nft::{Batch, ChainInfo, Family, HookPoint, Netfilter, NftError, Rule, Table};
use wsnic_proto::settings::InterfaceName;

/// Somebody else's chain that guests' packets pass.
pub(super) struct Foreign {
    table: Table,
    chain: String,
    /// Handles of our rules in it.
    ours: Vec<u64>,
}

impl Foreign {
    /// Family, table and chain.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.table, self.chain)
    }

    pub(super) fn is_open(&self) -> bool {
        self.ours.len() == 2
    }

    /// Puts our two rules at the head; what somebody left of them goes.
    ///
    /// # Errors
    /// The kernel refuses, as it does for a table with another owner.
    pub(super) fn open(&self, nf: &mut Netfilter, bridge: &InterfaceName) -> Result<(), NftError> {
        let mut batch = Batch::default();
        self.ours.iter().for_each(|rule| batch.delete_rule(&self.table, &self.chain, *rule));
        // Each goes to the head: the last one here comes first there.
        for rule in [Rule::new().to(bridge), Rule::new().from(bridge)] {
            batch.insert_rule(&self.table, &self.chain, rule.counter().accept(), &mark(bridge));
        }
        nf.commit(batch)
    }
}

/// Base chains of other tables that see forwarded IPv4 packets.
///
/// # Errors
/// They cannot be read.
pub(super) fn chains(nf: &mut Netfilter, bridge: &InterfaceName) -> Result<Vec<Foreign>, NftError> {
    let mut found = Vec::new();
    for ChainInfo { table, name: chain, .. } in nf.chains()?.into_iter().filter(is_foreign) {
        let ours = match nf.rules(&table) {
            Ok(rules) => {
                let ours = rules.into_iter().filter(|rule| {
                    rule.chain == chain && rule.comment.as_ref() == Some(&mark(bridge))
                });
                ours.map(|rule| rule.handle).collect()
            }
            Err(error) if error.errno() == Some(ENOENT) => continue,
            Err(error) => return Err(error),
        };
        found.push(Foreign { table, chain, ours });
    }
    Ok(found)
}

/// Removes the rules of [`Foreign::open`] wherever they stand, also those of an earlier run. Gives
/// how many, and each failure; other chains are closed all the same.
pub(super) fn close(nf: &mut Netfilter, bridge: &InterfaceName) -> (usize, Vec<NftError>) {
    let (mut removed, mut errors) = (0, Vec::new());
    let found = chains(nf, bridge).unwrap_or_else(|error| {
        errors.push(error);
        vec![]
    });
    for Foreign { table, chain, ours } in found {
        let mut batch = Batch::default();
        ours.iter().for_each(|rule| batch.delete_rule(&table, &chain, *rule));
        match nf.commit(batch) {
            Ok(()) => removed += ours.len(),
            Err(error) => errors.push(error),
        }
    }
    (removed, errors)
}

fn is_foreign(chain: &ChainInfo) -> bool {
    chain.kind == "filter"
        && chain.hook == Some(HookPoint::Forward as u32)
        && [Family::INET, Family::IPV4].contains(&chain.table.family)
        && ![guard::table(), nat::table()].contains(&chain.table)
}

/// The comment by which our rules in others' chains are found.
fn mark(bridge: &InterfaceName) -> String {
    format!("wsnic {bridge}")
}
