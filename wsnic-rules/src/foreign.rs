//! `host_firewall = open`: guests' packets pass whatever other tables say.
//!
//! In netfilter an accept is final only for its own table: any other table's chain at the forward
//! hook can still drop what our guard let pass. So each of them gets two accept rules for our bridges
//! at its head, which leave again at the end. What those chains say is not looked at.

use wsnic_host::BRIDGE_PREFIX;
use wsnic_nft::{Batch, ChainInfo, Family, HookPoint, Rule, RuleInfo, Table};

/// Somebody else's chain that guests' packets pass.
pub struct Foreign {
    table: Table,
    chain: String,
    /// Handles of our rules in it.
    ours: Vec<u64>,
}

impl Foreign {
    /// Base chains of other tables that see forwarded IPv4 packets, among `chains`; `rules` gives those
    /// of a table, None if it is gone.
    ///
    /// # Errors
    /// What `rules` says.
    pub fn among<E>(
        chains: Vec<ChainInfo>,
        mut rules: impl FnMut(&Table) -> Result<Option<Vec<RuleInfo>>, E>,
    ) -> Result<Vec<Foreign>, E> {
        let mut found = Vec::new();
        for ChainInfo { table, name: chain, .. } in chains.into_iter().filter(is_foreign) {
            let Some(rules) = rules(&table)? else { continue };
            let is_ours =
                |rule: &RuleInfo| rule.chain == chain && rule.comment.as_deref() == Some(MARK);
            let ours = rules.into_iter().filter(is_ours).map(|rule| rule.handle).collect();
            found.push(Foreign { table, chain, ours });
        }
        Ok(found)
    }

    /// Family, table and chain.
    pub fn name(&self) -> String {
        format!("{} {}", self.table, self.chain)
    }

    /// True if our two rules are there.
    pub fn is_open(&self) -> bool {
        self.ours.len() == 2
    }

    /// Puts our two rules at the head; what somebody left of them goes.
    pub fn open(&self) -> Batch {
        let (mut batch, _) = self.close();
        // Each goes to the head: the last one here comes first there.
        for rule in [Rule::new().to_any(BRIDGE_PREFIX), Rule::new().from_any(BRIDGE_PREFIX)] {
            batch.insert_rule(&self.table, &self.chain, rule.counter().accept(), MARK);
        }
        batch
    }

    /// Removes our rules; how many there are.
    pub fn close(&self) -> (Batch, usize) {
        let mut batch = Batch::default();
        self.ours.iter().for_each(|rule| batch.delete_rule(&self.table, &self.chain, *rule));
        (batch, self.ours.len())
    }
}

fn is_foreign(chain: &ChainInfo) -> bool {
    chain.kind == "filter"
        && chain.hook == Some(HookPoint::Forward as u32)
        && [Family::INET, Family::IPV4].contains(&chain.table.family)
        && !crate::tables().contains(&chain.table)
}

/// The comment by which our rules in others' chains are found.
const MARK: &str = "wsnic";
