//! Changes that the kernel makes together or not at all.

use crate::attribute::Attributes;
use crate::rule::Rule;
use std::fmt;

/// Which packets a table sees (`NFPROTO_…`, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family(pub u8);

impl Family {
    /// IPv4 and IPv6.
    pub const INET: Family = Family(1);
    /// IPv4.
    pub const IPV4: Family = Family(2);
    /// Frames that a bridge forwards.
    pub const BRIDGE: Family = Family(7);
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Family::INET => f.write_str("inet"),
            Family::IPV4 => f.write_str("ip"),
            Family::BRIDGE => f.write_str("bridge"),
            Family(number) => write!(f, "family {number}"),
        }
    }
}

/// A table's family and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl Table {
    /// A table's address; makes nothing.
    pub fn new(family: Family, name: &str) -> Table {
        Table { family, name: name.to_owned() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Whom a table belongs to (`NFT_TABLE_F_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFlags(pub u32);

impl TableFlags {
    /// Everybody may change it.
    pub const NONE: TableFlags = TableFlags(0);
    /// The socket that made it alone may change it, and takes it along at its end; from Linux 5.12.
    pub const OWNER: TableFlags = TableFlags(2);
    /// The same, but it stays without an owner when the socket ends; from Linux 6.9.
    pub const OWNER_PERSIST: TableFlags = TableFlags(2 | 4);
}

/// Where a base chain meets packets (`NF_INET_…`; `NF_BR_…` has the same numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    PreRouting = 0,
    /// To this host.
    LocalIn = 1,
    /// Through this host.
    Forward = 2,
    /// On their way out.
    PostRouting = 4,
}

/// What a rule or a policy says in the end (linux/netfilter.h, linux/netfilter/nf_tables.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub u32);

impl Verdict {
    /// The packet ends here.
    pub const DROP: Verdict = Verdict(0);
    /// The packet passes this table.
    pub const ACCEPT: Verdict = Verdict(1);
    /// Another chain, and back.
    pub const JUMP: Verdict = Verdict(-3_i32 as u32);
    /// Another chain.
    pub const GOTO: Verdict = Verdict(-4_i32 as u32);
    /// Back to where the chain was jumped from.
    pub const RETURN: Verdict = Verdict(-5_i32 as u32);
}

/// One message of a batch.
pub(crate) struct Change {
    pub(crate) message: u16,
    pub(crate) flags: u16,
    pub(crate) family: Family,
    pub(crate) attributes: Attributes,
    /// What it is to do, for error messages.
    pub(crate) what: String,
}

/// Changes that the kernel makes together or not at all.
#[derive(Default)]
pub struct Batch(pub(crate) Vec<Change>);

impl Batch {
    /// Number of changes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(
        &mut self,
        kind: (u16, u16),
        table: &Table,
        attributes: Attributes,
        what: String,
    ) {
        let (message, flags) = kind;
        self.0.push(Change { message, flags, family: table.family, attributes, what });
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: &Table) {
        let name = Attributes::default().text(TABLE_NAME, &table.name);
        self.push((DELETE_TABLE, 0), table, name, format!("delete table {table}"));
    }

    /// Makes a table; one of the same name is an error (unless an earlier message deletes it).
    pub fn new_table(&mut self, table: &Table, flags: TableFlags) {
        let attributes =
            Attributes::default().text(TABLE_NAME, &table.name).number(TABLE_FLAGS, flags.0);
        self.push((NEW_TABLE, CREATE | EXCL), table, attributes, format!("make table {table}"));
    }

    /// Makes a chain that only jumps reach.
    pub fn chain(&mut self, table: &Table, chain: &str) {
        self.new_chain(table, chain, Attributes::default());
    }

    /// Makes a chain of type `kind` that packets enter at `hook`; its policy is accept.
    pub fn base_chain(
        &mut self,
        table: &Table,
        chain: &str,
        kind: &str,
        hook: HookPoint,
        priority: i32,
    ) {
        let hook = Attributes::default()
            .number(HOOK_NUMBER, hook as u32)
            .number(HOOK_PRIORITY, priority.cast_unsigned());
        let attributes = Attributes::default()
            .nest(CHAIN_HOOK, hook)
            .text(CHAIN_TYPE, kind)
            .number(CHAIN_POLICY, Verdict::ACCEPT.0);
        self.new_chain(table, chain, attributes);
    }

    fn new_chain(&mut self, table: &Table, chain: &str, attributes: Attributes) {
        let attributes = attributes.text(CHAIN_TABLE, &table.name).text(CHAIN_NAME, chain);
        self.push((NEW_CHAIN, CREATE), table, attributes, format!("make chain {table} {chain}"));
    }

    /// Says with a refusal of the last change what it may mean.
    pub fn hint(&mut self, hint: &str) {
        if let Some(last) = self.0.last_mut() {
            last.what = format!("{} ({hint})", last.what);
        }
    }

    /// Adds a rule at a chain's end.
    pub fn rule(&mut self, table: &Table, chain: &str, rule: Rule) {
        self.add_rule(CREATE | APPEND, table, chain, of_chain(table, chain), rule);
    }

    /// The same, with a comment of at most 127 bytes.
    pub fn commented_rule(&mut self, table: &Table, chain: &str, rule: Rule, comment: &str) {
        let attributes = of_chain(table, chain).bytes(RULE_USERDATA, &user_data(comment));
        self.add_rule(CREATE | APPEND, table, chain, attributes, rule);
    }

    /// Adds a rule at a chain's head, with a comment.
    pub fn insert_rule(&mut self, table: &Table, chain: &str, rule: Rule, comment: &str) {
        let attributes = of_chain(table, chain).bytes(RULE_USERDATA, &user_data(comment));
        self.add_rule(CREATE, table, chain, attributes, rule);
    }

    fn add_rule(&mut self, flags: u16, table: &Table, chain: &str, to: Attributes, rule: Rule) {
        let attributes = to.nest(RULE_EXPRESSIONS, rule.0);
        let what = format!("add a rule to {table} {chain}");
        self.push((NEW_RULE, flags), table, attributes, what);
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        let attributes = of_chain(table, chain).number64(RULE_HANDLE, handle);
        let what = format!("delete rule {handle} of {table} {chain}");
        self.push((DELETE_RULE, 0), table, attributes, what);
    }
}

/// A comment as nft and iptables write and show it: type, length with the NUL, text
/// (libnftnl/udata.h).
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(0);
    [&[COMMENT, length], comment.as_bytes(), &[0]].concat()
}

fn of_chain(table: &Table, chain: &str) -> Attributes {
    Attributes::default().text(RULE_TABLE, &table.name).text(RULE_CHAIN, chain)
}

// Flags of a message, linux/netlink.h
const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
// NFT_MSG_…, linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
// NFTA_…, the same file
pub(crate) const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
pub(crate) const CHAIN_TABLE: u16 = 1;
pub(crate) const CHAIN_NAME: u16 = 3;
pub(crate) const CHAIN_HOOK: u16 = 4;
pub(crate) const CHAIN_POLICY: u16 = 5;
pub(crate) const CHAIN_TYPE: u16 = 7;
pub(crate) const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(crate) const RULE_TABLE: u16 = 1;
pub(crate) const RULE_CHAIN: u16 = 2;
pub(crate) const RULE_HANDLE: u16 = 3;
pub(crate) const RULE_EXPRESSIONS: u16 = 4;
pub(crate) const RULE_USERDATA: u16 = 7;
/// NFTNL_UDATA_RULE_COMMENT, libnftnl/udata.h
pub(crate) const COMMENT: u8 = 0;
