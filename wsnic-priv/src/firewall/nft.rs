//! nf_tables over netlink: transactions, dumps, and what a dump says.
//!
//! Runs in the helper, called by the files beside it. Together with `rule.rs` it is the only place
//! that knows the netlink crates. It executes no program and knows no policy.
//!
//! Theory of operation. Changes go out as one batch (`BATCH_BEGIN` … `BATCH_END`), which the kernel
//! applies as a whole or not at all. It works on the batch inside `send`, so all its answers wait in
//! the socket when `send` returns: the socket is non-blocking and nothing here can hang. Errors come
//! for each failing message, an acknowledgement only for those that ask; only the last one does, so
//! a long batch cannot overrun the receive buffer with acknowledgements. What is wrong with the
//! batch as a whole (no permission, a failed commit) is answered with the number of `BATCH_BEGIN`.
//!
//! Tables with the owner flag belong to this socket: they are ours until it is closed.
//!
//! What the kernel says is read with the bounds-checked attribute iterator instead of the crate's
//! message parsers: those fail on a whole rule for one expression of another program that they do
//! not know.

use super::rule::Rule;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NlaBuffer, NlasIterator,
};
pub(super) use netlink_packet_netfilter::NetfilterProtoFamily as Family;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenMessage, Hook, HookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};
pub(super) use netlink_packet_netfilter::nftables::{InetHookNumber as HookPoint, TableFlags};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io::{self, ErrorKind};

/// A table's family and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
}

impl Table {
    pub(super) fn new(family: Family, name: &str) -> Table {
        Table { family, name: name.to_owned() }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::Inet => write!(f, "inet {}", self.name),
            Family::IPv4 => write!(f, "ip {}", self.name),
            family => write!(f, "family {} {}", u8::from(family), self.name),
        }
    }
}

/// What went wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// The netlink socket itself failed.
    #[error("netlink socket: cannot {operation}")]
    Socket {
        /// open, bind, send or receive.
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel refused one message of a batch, or a question; nothing of the batch was applied.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What the message was to do.
        what: String,
        /// Its place in the batch, from 0; None when the batch as a whole was refused.
        message: Option<usize>,
        #[source]
        source: io::Error,
    },
    /// The kernel's answer did not come or made no sense.
    #[error("no usable answer from the kernel when asked to {what}")]
    NoAnswer {
        /// What was asked.
        what: String,
    },
    /// The rules kept changing while they were read.
    #[error("the host's rules keep changing while they are read")]
    Unstable,
}

impl NftError {
    /// The error number, where there is one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            NftError::Socket { source, .. } | NftError::Refused { source, .. } => {
                source.raw_os_error()
            }
            NftError::NoAnswer { .. } | NftError::Unstable => None,
        }
    }
}

/// Changes that the kernel makes together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<(NetfilterMessage, u16, String)>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    fn push(&mut self, family: Family, flags: u16, what: String, message: NfTablesMessage) {
        let header = NetfilterHeader::new(family, 0, 0);
        self.messages.push((NetfilterMessage::new(header, message), flags, what));
    }

    /// Deletes a table with all that is in it.
    pub(super) fn delete_table(&mut self, table: &Table) {
        let attributes = vec![TableAttribute::Name(table.name.clone())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        self.push(table.family, 0, format!("delete table {table}"), message);
    }

    /// Makes a table; one of the same name is an error (unless an earlier message deletes it).
    pub(super) fn new_table(&mut self, table: &Table, flags: TableFlags) {
        let attributes =
            vec![TableAttribute::Name(table.name.clone()), TableAttribute::Flags(flags)];
        let message = NfTablesMessage::NewTable(TableMessage { attributes });
        let what = format!("make table {table}");
        self.push(table.family, NLM_F_CREATE | NLM_F_EXCL, what, message);
    }

    /// Makes a chain that only jumps reach.
    pub(super) fn chain(&mut self, table: &Table, chain: &str) {
        self.new_chain(table, chain, vec![]);
    }

    /// Makes a chain of type `kind` that packets enter at `hook`; its policy is accept.
    pub(super) fn base_chain(
        &mut self,
        table: &Table,
        chain: &str,
        kind: &str,
        hook: HookPoint,
        priority: i32,
    ) {
        let hook = vec![
            Hook::Number(HookNumber::Inet(hook)),
            Hook::Priority(u32::from_ne_bytes(priority.to_ne_bytes())),
        ];
        let attributes = vec![
            ChainAttribute::Hook(hook),
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Policy(NF_ACCEPT),
        ];
        self.new_chain(table, chain, attributes);
    }

    fn new_chain(&mut self, table: &Table, chain: &str, mut attributes: Vec<ChainAttribute>) {
        attributes.push(ChainAttribute::Table(table.name.clone()));
        attributes.push(ChainAttribute::Name(chain.to_owned()));
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        self.push(table.family, NLM_F_CREATE, format!("make chain {table} {chain}"), message);
    }

    /// Adds a rule at a chain's end.
    pub(super) fn rule(&mut self, table: &Table, chain: &str, rule: Rule) {
        self.new_rule(table, chain, NLM_F_APPEND, rule, vec![]);
    }

    /// Adds a rule at a chain's head, with a comment of at most 253 bytes.
    pub(super) fn insert_rule(&mut self, table: &Table, chain: &str, rule: Rule, comment: &str) {
        self.new_rule(table, chain, 0, rule, encode_comment(comment));
    }

    fn new_rule(&mut self, table: &Table, chain: &str, flags: u16, rule: Rule, user: Vec<u8>) {
        let mut attributes = rule_attributes(table, chain);
        attributes.push(RuleAttribute::Expressions(rule.into_expressions()));
        if !user.is_empty() {
            attributes.push(RuleAttribute::UserData(user));
        }
        let what = format!("add a rule to {table} {chain}");
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(table.family, NLM_F_CREATE | flags, what, message);
    }

    /// Deletes one rule.
    pub(super) fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        let mut attributes = rule_attributes(table, chain);
        attributes.push(RuleAttribute::Handle(handle));
        let what = format!("delete rule {handle} of {table} {chain}");
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        self.push(table.family, 0, what, message);
    }
}

fn rule_attributes(table: &Table, chain: &str) -> Vec<RuleAttribute> {
    vec![RuleAttribute::Table(table.name.clone()), RuleAttribute::Chain(chain.to_owned())]
}

/// A table, as the kernel lists it.
#[derive(Debug, Clone)]
pub(super) struct TableInfo {
    pub(super) table: Table,
    /// Netlink port of the socket that owns it; None: nobody does.
    pub(super) owner: Option<u32>,
}

/// A chain, as the kernel lists it.
#[derive(Debug, Clone)]
pub(super) struct ChainInfo {
    pub(super) table: Table,
    pub(super) name: String,
    /// Hook number (`NF_INET_…`); None: only jumps reach it.
    pub(super) hook: Option<u32>,
    /// False: what reaches its end passes.
    pub(super) policy_drop: bool,
}

/// A rule, as the kernel lists it.
#[derive(Debug, Clone)]
pub(super) struct RuleInfo {
    pub(super) chain: String,
    pub(super) handle: u64,
    /// Each expression's name and its data, undecoded.
    pub(super) expressions: Vec<(String, Vec<u8>)>,
    /// The comment that nft and iptables show.
    pub(super) comment: Option<String>,
}

/// The helper's nf_tables socket. Closing it ends its tables' ownership.
pub(super) struct Netfilter {
    socket: Socket,
    port: u32,
    sequence: u32,
}

impl Netfilter {
    /// Opens the socket in this thread's network namespace.
    pub(super) fn open() -> Result<Netfilter, NftError> {
        let failed = |operation| move |source| NftError::Socket { operation, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        let port = socket.bind_auto().map_err(failed("bind"))?.port_number();
        socket.set_non_blocking(true).map_err(failed("set up"))?;
        // Error messages without a copy of the message that was wrong; only saves room.
        socket.set_cap_ack(true).map_err(failed("set up"))?;
        Ok(Netfilter { socket, port, sequence: 0 })
    }

    /// The number by which the kernel names the owner of this socket's tables.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Makes all changes of the batch, or none. An empty one is nothing.
    pub(super) fn commit(&mut self, batch: Batch) -> Result<(), NftError> {
        let Some(last) = batch.messages.len().checked_sub(1) else { return Ok(()) };
        let control = |message| {
            let header = NetfilterHeader::new(Family::Unspec, 0, SUBSYSTEM_NFTABLES);
            NetfilterMessage::new(header, message)
        };
        let mut bytes = Vec::new();
        let begin = self.emit(&mut bytes, control(ControlMessage::BatchBegin), 0);
        let mut names = Vec::with_capacity(batch.messages.len());
        for (place, (message, flags, what)) in batch.messages.into_iter().enumerate() {
            let ack = if place == last { NLM_F_ACK } else { 0 };
            self.emit(&mut bytes, message, flags | ack);
            names.push(what);
        }
        self.emit(&mut bytes, control(ControlMessage::BatchEnd), 0);
        self.send(&bytes)?;

        let mut acknowledged = false;
        let mut refused = None;
        // A lost answer can only be one of many errors: a batch that succeeds has a single answer.
        while let Some(datagram) = self.receive()? {
            for (header, payload) in messages(&datagram) {
                let place = header.sequence_number.wrapping_sub(begin) as usize;
                if header.message_type != NLMSG_ERROR || place > names.len() {
                    continue;
                }
                let message = place.checked_sub(1);
                match error_number(payload) {
                    0 => acknowledged |= message == Some(last),
                    errno if refused.is_none() => {
                        let what = message.and_then(|place| names.get(place).cloned());
                        refused = Some(NftError::Refused {
                            what: what.unwrap_or_else(|| "change nf_tables".to_owned()),
                            message,
                            source: io::Error::from_raw_os_error(errno),
                        });
                    }
                    _ => {}
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(NftError::NoAnswer { what: "change nf_tables".to_owned() }),
        }
    }

    /// A number that changes with every change anybody makes to nf_tables in this namespace.
    pub(super) fn generation(&mut self) -> Result<u32, NftError> {
        let get = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        let answers = self.ask(Family::Unspec, get, 0, "tell the generation of nf_tables")?;
        let id = answers.first().and_then(|(_, payload)| number32(attribute(payload, GEN_ID)?));
        id.ok_or_else(|| NftError::NoAnswer { what: "tell the generation of nf_tables".into() })
    }

    /// All tables.
    pub(super) fn tables(&mut self) -> Result<Vec<TableInfo>, NftError> {
        let get = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
        let answers = self.ask(Family::Unspec, get, NLM_F_DUMP, "list tables")?;
        let tables = answers.iter().map(|(family, payload)| TableInfo {
            table: Table { family: *family, name: text(attribute(payload, TABLE_NAME)) },
            owner: attribute(payload, TABLE_OWNER).and_then(number32),
        });
        Ok(tables.collect())
    }

    /// All chains.
    pub(super) fn chains(&mut self) -> Result<Vec<ChainInfo>, NftError> {
        let get = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
        let answers = self.ask(Family::Unspec, get, NLM_F_DUMP, "list chains")?;
        let chains = answers.iter().map(|(family, payload)| {
            let hook = attribute(payload, CHAIN_HOOK);
            let policy = attribute(payload, CHAIN_POLICY).and_then(number32);
            ChainInfo {
                table: Table { family: *family, name: text(attribute(payload, CHAIN_TABLE)) },
                name: text(attribute(payload, CHAIN_NAME)),
                hook: hook.and_then(|hook| number32(attribute(hook, HOOK_NUMBER)?)),
                policy_drop: policy == Some(NF_DROP),
            }
        });
        Ok(chains.collect())
    }

    /// The rules of a table; those of one chain stand in their order.
    pub(super) fn rules(&mut self, table: &Table) -> Result<Vec<RuleInfo>, NftError> {
        let attributes = vec![RuleAttribute::Table(table.name.clone())];
        let get = NfTablesMessage::GetRule(RuleMessage { attributes });
        let what = format!("list the rules of {table}");
        let answers = self.ask(table.family, get, NLM_F_DUMP, &what)?;
        let rules = answers.iter().map(|(_, payload)| {
            let list = attribute(payload, RULE_EXPRESSIONS).unwrap_or_default();
            let expressions = attributes_of(list).map(|(_, expression)| {
                let data = attribute(expression, EXPRESSION_DATA).unwrap_or_default();
                (text(attribute(expression, EXPRESSION_NAME)), data.to_vec())
            });
            RuleInfo {
                chain: text(attribute(payload, RULE_CHAIN)),
                handle: attribute(payload, RULE_HANDLE).and_then(number64).unwrap_or(0),
                expressions: expressions.collect(),
                comment: attribute(payload, RULE_USERDATA).and_then(decode_comment),
            }
        });
        Ok(rules.collect())
    }

    /// Puts a question and gives each answer's family and attributes. A dump that was interrupted
    /// by a change (NLM_F_DUMP_INTR) starts again.
    fn ask(
        &mut self,
        family: Family,
        question: NfTablesMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<(Family, Vec<u8>)>, NftError> {
        let question = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), question);
        'attempt: for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            let sequence = self.emit(&mut bytes, question.clone(), flags);
            self.send(&bytes)?;
            let mut answers = Vec::new();
            let (mut ended, mut interrupted) = (false, false);
            while !ended {
                let Some(datagram) = self.receive()? else { break };
                for (header, payload) in messages(&datagram) {
                    if header.sequence_number != sequence {
                        continue;
                    }
                    interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                    match header.message_type {
                        NLMSG_DONE => ended = true,
                        NLMSG_ERROR => {
                            let source = io::Error::from_raw_os_error(error_number(payload));
                            if source.kind() == ErrorKind::Interrupted {
                                continue 'attempt;
                            }
                            let what = what.to_owned();
                            return Err(NftError::Refused { what, message: None, source });
                        }
                        _ => {
                            if let Some((header, attributes)) = payload.split_at_checked(4) {
                                answers.push((header[0].into(), attributes.to_vec()));
                            }
                            ended |= flags & NLM_F_DUMP == 0;
                        }
                    }
                }
            }
            match (ended, interrupted) {
                (true, false) => return Ok(answers),
                (true, true) => {}
                (false, _) => return Err(NftError::NoAnswer { what: what.to_owned() }),
            }
        }
        Err(NftError::Unstable)
    }

    /// Appends one message to `bytes`; gives its sequence number.
    fn emit(&mut self, bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NftError> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0);
        sent.map(|_| ()).map_err(|source| {
            // The whole batch has to fit into the send buffer, by default 208 KiB: some 500 blocks.
            let too_long = source.raw_os_error() == Some(EMSGSIZE);
            let long = "send so many rules at once, shorten the lists of allow and deny";
            NftError::Socket { operation: if too_long { long } else { "send" }, source }
        })
    }

    /// The next datagram; None when no more wait. A receive buffer that overran (ENOBUFS) means that
    /// some were lost: those that are left are still read, and the one missed is noticed by that.
    fn receive(&self) -> Result<Option<Vec<u8>>, NftError> {
        loop {
            let mut buffer = Vec::with_capacity(RECEIVE_LEN);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => return Ok(Some(buffer)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(source) => return Err(NftError::Socket { operation: "receive", source }),
            }
        }
    }
}

/// The messages of a datagram; ends at the first that is cut or malformed.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        header.flags = message.flags();
        header.sequence_number = message.sequence_number();
        let length = message.length() as usize;
        let payload = datagram.get(16..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    })
}

/// The positive error number of an NLMSG_ERROR; 0: an acknowledgement.
fn error_number(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().map_or(-EBADMSG, |code| i32::from_ne_bytes(*code));
    code.saturating_neg()
}

/// The attributes in `bytes` as type and value; ends at the first that is malformed.
pub(super) fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|nla: NlaBuffer<&[u8]>| {
        let length = usize::from(nla.length());
        Some((nla.kind(), nla.into_inner().get(4..length)?))
    })
}

/// The value of the first attribute of type `kind`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes_of(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A 32-bit number in network order, as nf_tables writes them.
pub(super) fn number32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|value| u32::from_be_bytes(*value))
}

fn number64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|value| u64::from_be_bytes(*value))
}

/// Text up to its NUL; empty when there is none.
pub(super) fn text(value: Option<&[u8]>) -> String {
    let value = value.unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// A rule's user data with one comment: type, length with the NUL, text (libnftnl udata.h; what nft
/// and iptables write and show).
fn encode_comment(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(0);
    let mut user = vec![USERDATA_COMMENT, length];
    user.extend_from_slice(comment.as_bytes());
    user.push(0);
    user
}

fn decode_comment(mut user: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = user {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            return Some(text(Some(value)));
        }
        user = rest;
    }
    None
}

/// An attribute of type `kind` that the crate has no name for.
pub(super) fn raw(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

/// Dumps that are begun again before we give up: each needs another change in the middle of it.
const DUMP_ATTEMPTS: usize = 20;
/// More than the kernel puts into a datagram of a dump (32 KiB, af_netlink.c) and than a rule takes.
const RECEIVE_LEN: usize = 128 * 1024;

// asm-generic/errno.h
const ENOBUFS: i32 = 105;
const EBADMSG: i32 = 74;
const EMSGSIZE: i32 = 90;
/// NFNL_SUBSYS_NFTABLES, linux/netfilter/nfnetlink.h
const SUBSYSTEM_NFTABLES: u16 = 10;
// linux/netfilter.h
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
// linux/netfilter/nf_tables.h, attributes that are read
const GEN_ID: u16 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_OWNER: u16 = 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// NFTNL_UDATA_RULE_COMMENT, libnftnl/udata.h
const USERDATA_COMMENT: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_kernel_text_is_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 4, 5, 16, 0x7f, 0xff] {
                let bytes = vec![fill; length];
                assert!(messages(&bytes).count() <= 4);
                assert!(attributes_of(&bytes).count() <= 16);
                let _ = (text(Some(&bytes)), number32(&bytes), error_number(&bytes));
                let _ = decode_comment(&bytes);
            }
        }
    }

    #[test]
    fn comments_survive_their_encoding() {
        assert_eq!(decode_comment(&encode_comment("wsnic wsbr0")).unwrap(), "wsnic wsbr0");
    }
}
