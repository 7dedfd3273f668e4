//! The host's own firewall: who else would drop guests' forwarded packets, and what opens it.
//!
//! Runs in the helper, called by `mod.rs`. In netfilter an accept is final only for its own table: any
//! other table's chain at the forward hook can still drop what our guard let pass. So each of those is
//! walked with two sample packets, a guest's first one out and the answer to it, and is an obstacle
//! when either is dropped for certain. A rule whose matches cannot be decided for the samples (an
//! address, a set, an unknown extension) is passed over, whichever its verdict.
//!
//! Theory of operation. A rule is a small program on registers. Of the loads only interface names,
//! protocol family and conntrack state are known; comparing anything else makes the rule undecided.
//! `iptables -m conntrack` hides its states in a binary blob, `ct state { … }` in a set: they are taken
//! to match an answer when the rule accepts (`established, related`), never when it drops (`invalid`).

use super::nft::{
    Batch, ChainInfo, Family, NF_ACCEPT, NF_DROP, Netfilter, NftError, RuleInfo, Table, attribute,
    number32, text,
};
use super::rule::{CT_STATE, Rule, STATE_ESTABLISHED, STATE_NEW, padded};
use super::{Policy, guard, nat};
use std::collections::HashMap;
use wsnic_proto::settings::InterfaceName;

/// Whose firewall it is, as far as names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Docker's chains in the iptables filter table.
    Docker,
    /// ufw's chains in the iptables filter table.
    Ufw,
    /// firewalld's own table.
    Firewalld,
    /// Anything else.
    Other,
}

/// A chain of the host that drops what guests send or get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// `ip` or `inet`.
    pub(crate) family: &'static str,
    /// The table's name.
    pub(crate) table: String,
    /// The base chain at the forward hook.
    pub(crate) chain: String,
    /// Whose it is.
    pub(crate) kind: Kind,
    /// True: the table belongs to another process's socket, nobody else can change it.
    pub(crate) owned_by_other: bool,
    /// The shell commands that open it for the bridge.
    pub(crate) remedy: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Obstacle { family, table, chain, remedy, .. } = self;
        let who = match self.kind {
            Kind::Docker => "Docker's firewall",
            Kind::Ufw => "ufw",
            Kind::Firewalld => "firewalld",
            Kind::Other => "the host's firewall",
        };
        write!(f, "{who} ({family} {table} {chain}) drops guests' packets, open it with: {remedy}")
    }
}

/// The chains that drop guests' packets on their way through the host.
///
/// # Errors
/// When tables, chains or rules cannot be read.
pub(super) fn survey(nf: &mut Netfilter, policy: &Policy) -> Result<Vec<Obstacle>, NftError> {
    let mut obstacles = Vec::new();
    if policy.uplinks.is_empty() {
        return Ok(obstacles);
    }
    let tables = nf.tables()?;
    let chains = nf.chains()?;
    for base in forward_chains(&chains) {
        let ruleset = Ruleset::new(nf.rules(&base.table)?);
        let bridge = padded(&policy.bridge);
        let dropped = policy.uplinks.iter().any(|uplink| {
            let uplink = padded(uplink);
            let request = Packet { from: &bridge, to: &uplink, state: STATE_NEW };
            let answer = Packet { from: &uplink, to: &bridge, state: STATE_ESTABLISHED };
            ruleset.drops(base, &request) || ruleset.drops(base, &answer)
        });
        if dropped {
            let owner = tables.iter().find(|info| info.table == base.table).map(|info| info.owner);
            let owned_by_other = owner.flatten().is_some_and(|owner| owner != nf.port());
            let kind = kind_of(base, &chains);
            obstacles.push(Obstacle {
                family: family_name(base.table.family),
                table: base.table.name.clone(),
                chain: base.name.clone(),
                kind,
                owned_by_other,
                remedy: remedy(kind, base, &policy.bridge),
            });
        }
    }
    Ok(obstacles)
}

/// Puts two accept rules for the bridge at the chain's head.
///
/// # Errors
/// When the kernel refuses them, as it does for a table with another owner.
pub(super) fn open(
    nf: &mut Netfilter,
    obstacle: &Obstacle,
    bridge: &InterfaceName,
) -> Result<(), NftError> {
    let family = if obstacle.family == "ip" { Family::IPv4 } else { Family::Inet };
    let table = Table::new(family, &obstacle.table);
    let mut batch = Batch::default();
    // Each goes to the head: the last one here comes first there.
    for rule in [Rule::new().iptables_to(bridge), Rule::new().iptables_from(bridge)] {
        batch.insert_rule(&table, &obstacle.chain, rule.counter().accept(), &mark(bridge));
    }
    nf.commit(batch)
}

/// Removes the rules of [`open`] wherever they stand, also those of an earlier run. Gives how many,
/// and each failure; the other rules are removed all the same.
pub(super) fn close(nf: &mut Netfilter, bridge: &InterfaceName) -> (usize, Vec<NftError>) {
    let mut removed = 0;
    let mut errors = Vec::new();
    let chains = nf.chains().unwrap_or_else(|error| {
        errors.push(error);
        vec![]
    });
    for base in forward_chains(&chains) {
        let rules = nf.rules(&base.table).unwrap_or_else(|error| {
            errors.push(error);
            vec![]
        });
        let ours = rules.into_iter().filter(|rule| rule.comment.as_ref() == Some(&mark(bridge)));
        for rule in ours.filter(|rule| rule.chain == base.name) {
            let mut batch = Batch::default();
            batch.delete_rule(&base.table, &rule.chain, rule.handle);
            match nf.commit(batch) {
                Ok(()) => removed += 1,
                Err(error) if error.errno() == Some(ENOENT) => {}
                Err(error) => errors.push(error),
            }
        }
    }
    (removed, errors)
}

/// True if the iptables of the old kernel interface have a filter table here; nothing can read it
/// but iptables-legacy itself.
pub(super) fn has_legacy_filter() -> bool {
    // "/proc/net" would be the main thread's namespace.
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// The comment by which our rules in others' chains are found.
fn mark(bridge: &InterfaceName) -> String {
    format!("wsnic {bridge}")
}

/// Base chains of other tables that see forwarded IPv4 packets.
fn forward_chains(chains: &[ChainInfo]) -> impl Iterator<Item = &ChainInfo> {
    chains.iter().filter(|chain| {
        chain.hook == Some(HOOK_FORWARD)
            && matches!(chain.table.family, Family::Inet | Family::IPv4)
            && ![guard::table(), nat::table()].contains(&chain.table)
    })
}

fn family_name(family: Family) -> &'static str {
    if family == Family::IPv4 { "ip" } else { "inet" }
}

fn is_iptables(base: &ChainInfo) -> bool {
    base.table == Table::new(Family::IPv4, "filter") && base.name == "FORWARD"
}

fn kind_of(base: &ChainInfo, chains: &[ChainInfo]) -> Kind {
    let has = |wanted: fn(&str) -> bool| {
        chains.iter().any(|chain| chain.table == base.table && wanted(&chain.name))
    };
    if base.table == Table::new(Family::Inet, "firewalld") {
        Kind::Firewalld
    } else if is_iptables(base) && has(|name| name == "DOCKER-USER") {
        // Before ufw: Docker's jump stands at the head, and what it accepts ufw does not see.
        Kind::Docker
    } else if is_iptables(base) && has(|name| name.starts_with("ufw-")) {
        Kind::Ufw
    } else {
        Kind::Other
    }
}

fn remedy(kind: Kind, base: &ChainInfo, bridge: &InterfaceName) -> String {
    let iptables = |chain| {
        format!(
            "iptables -I {chain} -i {bridge} -j ACCEPT && iptables -I {chain} -o {bridge} -j ACCEPT"
        )
    };
    match kind {
        Kind::Docker => iptables("DOCKER-USER"),
        // Answers are let through by ufw itself.
        Kind::Ufw => format!("ufw route allow in on {bridge}"),
        Kind::Firewalld => format!("firewall-cmd --zone=trusted --add-interface={bridge}"),
        Kind::Other if is_iptables(base) => iptables("FORWARD"),
        Kind::Other => {
            let (family, table, chain) =
                (family_name(base.table.family), &base.table.name, &base.name);
            format!(
                "nft insert rule {family} {table} {chain} iifname {bridge} accept && \
                 nft insert rule {family} {table} {chain} oifname {bridge} accept"
            )
        }
    }
}

/// A sample packet: 16-byte names of the interfaces it passes, and its conntrack state.
struct Packet<'a> {
    from: &'a [u8],
    to: &'a [u8],
    state: u32,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

/// A table's rules by chain.
struct Ruleset(HashMap<String, Vec<RuleInfo>>);

impl Ruleset {
    fn new(rules: Vec<RuleInfo>) -> Ruleset {
        let mut chains: HashMap<String, Vec<RuleInfo>> = HashMap::new();
        for rule in rules {
            chains.entry(rule.chain.clone()).or_default().push(rule);
        }
        Ruleset(chains)
    }

    /// True if `packet`, entering at the base chain, is dropped for certain.
    fn drops(&self, base: &ChainInfo, packet: &Packet<'_>) -> bool {
        let mut steps = MAX_STEPS;
        match self.walk(&base.name, packet, 0, &mut steps) {
            Some(accepted) => !accepted,
            None => base.policy_drop,
        }
    }

    /// Some(true): accepted, Some(false): dropped, None: goes on behind the chain.
    fn walk(
        &self,
        chain: &str,
        packet: &Packet<'_>,
        depth: usize,
        steps: &mut u32,
    ) -> Option<bool> {
        if depth > MAX_DEPTH {
            return None;
        }
        for rule in self.0.get(chain).into_iter().flatten() {
            *steps = steps.checked_sub(1)?;
            match verdict(rule, packet) {
                Some(Verdict::Accept) => return Some(true),
                Some(Verdict::Drop) => return Some(false),
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(chain)) => return self.walk(&chain, packet, depth + 1, steps),
                Some(Verdict::Jump(chain)) => {
                    if let Some(end) = self.walk(&chain, packet, depth + 1, steps) {
                        return Some(end);
                    }
                }
                None => {}
            }
        }
        None
    }
}

/// What the rule does with the packet; None: nothing, or nothing that is certain.
fn verdict(rule: &RuleInfo, packet: &Packet<'_>) -> Option<Verdict> {
    // What is known of each register; one that is missing holds something unknown.
    let mut registers: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut hidden_states = false;
    for (name, data) in &rule.expressions {
        let field = |kind| attribute(data, kind);
        let number = |kind| field(kind).and_then(number32);
        // Attribute numbers: linux/netfilter/nf_tables.h, NFTA_<expression>_…
        match name.as_str() {
            "meta" => {
                let known = match number(2)? {
                    META_IIFNAME => Some(packet.from.to_vec()),
                    META_OIFNAME => Some(packet.to.to_vec()),
                    META_NFPROTO => Some(vec![u8::from(Family::IPv4)]),
                    _ => None,
                };
                set(&mut registers, number(1), known);
            }
            "ct" => {
                let known = (number(2)? == CT_STATE).then(|| packet.state.to_ne_bytes().to_vec());
                set(&mut registers, number(1), known);
            }
            "bitwise" => {
                let value = |kind| field(kind).and_then(|data| attribute(data, DATA_VALUE));
                let known = registers.get(&number(1)?).cloned();
                let known = known.zip(value(4)).zip(value(5)).map(|((from, mask), xor)| {
                    let bits = from.iter().zip(mask).zip(xor);
                    bits.map(|((from, mask), xor)| (from & mask) ^ xor).collect()
                });
                set(&mut registers, number(2), known);
            }
            "cmp" => {
                let wanted = field(3).and_then(|data| attribute(data, DATA_VALUE))?;
                let found = registers.get(&number(1)?)?.get(..wanted.len())?;
                match number(2)? {
                    CMP_EQ if found == wanted => {}
                    CMP_NEQ if found != wanted => {}
                    _ => return None,
                }
            }
            "lookup" => {
                let state = packet.state.to_ne_bytes();
                let of_state = registers.get(&number(2)?).is_some_and(|value| *value == state);
                // NFTA_LOOKUP_FLAGS: NFT_LOOKUP_F_INV
                if !of_state || packet.state != STATE_ESTABLISHED || number(5).unwrap_or(0) != 0 {
                    return None;
                }
                match number(3) {
                    None => hidden_states = true,
                    Some(REGISTER_VERDICT) => return Some(Verdict::Accept),
                    Some(_) => return None,
                }
            }
            "match" => match text(field(1)).as_str() {
                "comment" => {}
                "conntrack" | "state" if packet.state == STATE_ESTABLISHED => hidden_states = true,
                _ => return None,
            },
            "immediate" => {
                let data = field(2)?;
                match attribute(data, DATA_VERDICT) {
                    Some(verdict) => {
                        let verdict = decode_verdict(verdict)?;
                        return (!hidden_states || verdict == Verdict::Accept).then_some(verdict);
                    }
                    None => {
                        let value = attribute(data, DATA_VALUE).map(<[u8]>::to_vec);
                        set(&mut registers, number(1), value);
                    }
                }
            }
            "reject" => return (!hidden_states).then_some(Verdict::Drop),
            "target" if text(field(1)) == "REJECT" => {
                return (!hidden_states).then_some(Verdict::Drop);
            }
            "counter" | "log" | "target" => {}
            _ => return None,
        }
    }
    None
}

fn set(registers: &mut HashMap<u32, Vec<u8>>, register: Option<u32>, value: Option<Vec<u8>>) {
    let Some(register) = register else { return };
    match value {
        Some(value) => registers.insert(register, value),
        None => registers.remove(&register),
    };
}

fn decode_verdict(verdict: &[u8]) -> Option<Verdict> {
    let chain = || text(attribute(verdict, 2));
    match attribute(verdict, 1).and_then(number32)? {
        NF_ACCEPT => Some(Verdict::Accept),
        NF_DROP => Some(Verdict::Drop),
        NFT_JUMP => Some(Verdict::Jump(chain())),
        NFT_GOTO => Some(Verdict::Goto(chain())),
        NFT_RETURN => Some(Verdict::Return),
        _ => None,
    }
}

/// NFT_JUMP_STACK_SIZE: the kernel refuses deeper rulesets.
const MAX_DEPTH: usize = 16;
/// Rules that one sample is led through, so that nested jumps cannot hold the helper up.
const MAX_STEPS: u32 = 100_000;
// linux/netfilter.h, linux/netfilter/nf_tables.h, asm-generic/errno-base.h
const HOOK_FORWARD: u32 = 2;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NFT_JUMP: u32 = -3_i32 as u32;
const NFT_GOTO: u32 = -4_i32 as u32;
const NFT_RETURN: u32 = -5_i32 as u32;
const ENOENT: i32 = 2;
