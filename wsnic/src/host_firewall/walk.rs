//! What a ruleset of nf_tables does with a sample packet, as far as that is certain.
//!
//! A rule is a small program on registers. Of the loads only interface names, protocol family and
//! conntrack state are known; a rule whose matches cannot be decided by them (an address, a set, an
//! unknown extension) is passed over, whichever its verdict. `iptables -m conntrack` hides its states
//! in a binary blob, `ct state { … }` in a set: they are taken to match an answer when the rule
//! accepts (`established, related`), never when it drops (`invalid`).

use std::collections::HashMap;
use wsnic_nft::{
    CT_STATE, ChainInfo, Family, META_IIFNAME, META_NFPROTO, META_OIFNAME, RuleInfo,
    STATE_ESTABLISHED, STATE_NEW, Verdict, attribute, attributes, number, text,
};

/// A sample packet: the interfaces that it passes, as registers hold their names, and its
/// conntrack state.
pub struct Packet {
    from: [u8; 16],
    to: [u8; 16],
    state: u32,
}

impl Packet {
    /// The first of a flow.
    pub fn first(from: &str, to: &str) -> Packet {
        Packet { from: padded(from), to: padded(to), state: STATE_NEW }
    }

    /// One that answers.
    pub fn answer(from: &str, to: &str) -> Packet {
        Packet { from: padded(from), to: padded(to), state: STATE_ESTABLISHED }
    }
}

/// An interface's name in 16 bytes (IFNAMSIZ).
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

#[derive(Debug, PartialEq)]
enum End {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

/// A table's rules by chain.
pub struct Ruleset(HashMap<String, Vec<RuleInfo>>);

impl Ruleset {
    /// Sorts them.
    pub fn new(rules: Vec<RuleInfo>) -> Ruleset {
        let mut chains: HashMap<String, Vec<RuleInfo>> = HashMap::new();
        for rule in rules {
            chains.entry(rule.chain.clone()).or_default().push(rule);
        }
        Ruleset(chains)
    }

    /// True if `packet`, entering at the base chain, is dropped for certain.
    pub fn drops(&self, base: &ChainInfo, packet: &Packet) -> bool {
        let mut steps = MAX_STEPS;
        match self.walk(&base.name, packet, 0, &mut steps) {
            Some(accepted) => !accepted,
            None => base.policy == Verdict::DROP,
        }
    }

    /// Some(true): accepted, Some(false): dropped, None: goes on behind the chain.
    fn walk(&self, chain: &str, packet: &Packet, depth: usize, steps: &mut u32) -> Option<bool> {
        if depth > MAX_DEPTH {
            return None;
        }
        for rule in self.0.get(chain).into_iter().flatten() {
            *steps = steps.checked_sub(1)?;
            match verdict(rule, packet) {
                Some(End::Accept) => return Some(true),
                Some(End::Drop) => return Some(false),
                Some(End::Return) => return None,
                Some(End::Goto(chain)) => return self.walk(&chain, packet, depth + 1, steps),
                Some(End::Jump(chain)) => {
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
fn verdict(rule: &RuleInfo, packet: &Packet) -> Option<End> {
    // What is known of each register; one that is missing holds something unknown.
    let mut registers: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut hidden_states = false;
    for (_, expression) in attributes(&rule.expressions) {
        let name = text(expression, EXPRESSION_NAME);
        let data = attribute(expression, EXPRESSION_DATA).unwrap_or_default();
        let field = |kind| attribute(data, kind);
        let number = |kind| number(data, kind);
        // Attribute numbers: linux/netfilter/nf_tables.h, NFTA_<expression>_…
        match name.as_str() {
            "meta" => {
                let known = match number(2)? {
                    META_IIFNAME => Some(packet.from.to_vec()),
                    META_OIFNAME => Some(packet.to.to_vec()),
                    META_NFPROTO => Some(vec![Family::IPV4.0]),
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
                    Some(REGISTER_VERDICT) => return Some(End::Accept),
                    Some(_) => return None,
                }
            }
            "match" => match text(data, 1).as_str() {
                "comment" => {}
                "conntrack" | "state" if packet.state == STATE_ESTABLISHED => hidden_states = true,
                _ => return None,
            },
            "immediate" => {
                let data = field(2)?;
                match attribute(data, DATA_VERDICT) {
                    Some(verdict) => {
                        let verdict = decode_verdict(verdict)?;
                        return (!hidden_states || verdict == End::Accept).then_some(verdict);
                    }
                    None => {
                        let value = attribute(data, DATA_VALUE).map(<[u8]>::to_vec);
                        set(&mut registers, number(1), value);
                    }
                }
            }
            "reject" => return (!hidden_states).then_some(End::Drop),
            "target" if text(data, 1) == "REJECT" => {
                return (!hidden_states).then_some(End::Drop);
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

fn decode_verdict(verdict: &[u8]) -> Option<End> {
    let chain = || text(verdict, 2);
    match Verdict(number(verdict, 1)?) {
        Verdict::ACCEPT => Some(End::Accept),
        Verdict::DROP => Some(End::Drop),
        Verdict::JUMP => Some(End::Jump(chain())),
        Verdict::GOTO => Some(End::Goto(chain())),
        Verdict::RETURN => Some(End::Return),
        _ => None,
    }
}

/// NFT_JUMP_STACK_SIZE: the kernel refuses deeper rulesets.
const MAX_DEPTH: usize = 16;
/// Rules that one sample is led through, so that nested jumps cannot hold anybody up.
const MAX_STEPS: u32 = 100_000;
// linux/netfilter/nf_tables.h
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
