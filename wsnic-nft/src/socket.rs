//! The netlink socket: batches go out, answers and lists come back.
//!
//! Theory of operation. Changes go out as one batch (`BATCH_BEGIN` … `BATCH_END`), which the kernel
//! applies as a whole or not at all. It works on the batch inside `send`, so all its answers wait in
//! the socket when `send` returns: the socket is non-blocking and nothing here can hang. Errors come
//! for each failing message, an acknowledgement only for those that ask; only the last one does, so
//! a long batch cannot overrun the receive buffer with acknowledgements. What is wrong with the
//! batch as a whole (no permission, a failed commit) is answered with the number of `BATCH_BEGIN`.
//!
//! Tables with the owner flag belong to this socket: they are ours until it is closed.

use crate::attribute::{Attributes, attribute, number, text};
use crate::batch::{
    Batch, CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, COMMENT, Family,
    HOOK_NUMBER, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, TABLE_NAME,
    Table, Verdict,
};
use crate::set::{Element, GET_ELEMENT, Set, read_elements};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use std::io::{self, ErrorKind};

/// What went wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The netlink socket itself failed.
    #[error("netlink socket: cannot {operation}")]
    Socket {
        /// open, bind, send or receive.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused one message of a batch, or a question; nothing of the batch was applied.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What the message was to do.
        what: String,
        /// Its place in the batch, from 0; None when the batch as a whole was refused.
        message: Option<usize>,
        /// What the kernel said.
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
    pub fn errno(&self) -> Option<i32> {
        match self {
            NftError::Socket { source, .. } | NftError::Refused { source, .. } => {
                source.raw_os_error()
            }
            NftError::NoAnswer { .. } | NftError::Unstable => None,
        }
    }
}

/// A table, as the kernel lists it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Which it is.
    pub table: Table,
    /// Netlink port of the socket that owns it; None: nobody does.
    pub owner: Option<u32>,
}

/// A chain, as the kernel lists it.
#[derive(Debug, Clone)]
pub struct ChainInfo {
    /// Where it is.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// `filter`, `nat` or `route`; empty: only jumps reach it.
    pub kind: String,
    /// Hook number, see [`crate::HookPoint`].
    pub hook: Option<u32>,
    /// What happens to packets that reach its end.
    pub policy: Verdict,
}

/// A rule, as the kernel lists it.
#[derive(Debug, Clone)]
pub struct RuleInfo {
    /// Its chain.
    pub chain: String,
    /// Its number.
    pub handle: u64,
    /// The comment that nft and iptables show.
    pub comment: Option<String>,
    /// Its expressions, undecoded: a list of attributes.
    pub expressions: Vec<u8>,
}

/// A socket of nf_tables. Closing it ends its tables' ownership.
pub struct Netfilter {
    socket: Socket,
    port: u32,
    sequence: u32,
}

impl Netfilter {
    /// Opens the socket in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn open() -> Result<Netfilter, NftError> {
        let failed = |operation| move |source| NftError::Socket { operation, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        let port = socket.bind_auto().map_err(failed("bind"))?.port_number();
        socket.set_non_blocking(true).map_err(failed("set up"))?;
        // Error messages without a copy of the message that was wrong; only saves room.
        socket.set_cap_ack(true).map_err(failed("set up"))?;
        // A batch is one message to the socket. Refused to who may read only, whose questions are short.
        let _ = setsockopt(&socket, SndBufForce, &SEND_LEN);
        Ok(Netfilter { socket, port, sequence: 0 })
    }

    /// The number by which the kernel names the owner of this socket's tables.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Makes all changes of the batch, or none. An empty one is nothing.
    ///
    /// # Errors
    /// What the kernel refused first.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NftError> {
        let Some(last) = batch.len().checked_sub(1) else { return Ok(()) };
        let mut bytes = Vec::new();
        let none = Attributes::default();
        let begin = self.emit(&mut bytes, BATCH_BEGIN, 0, Family(0), &none);
        for (place, change) in batch.0.iter().enumerate() {
            let flags = change.flags | if place == last { ACK } else { 0 };
            let kind = SUBSYSTEM | change.message;
            self.emit(&mut bytes, kind, flags, change.family, &change.attributes);
        }
        self.emit(&mut bytes, BATCH_END, 0, Family(0), &none);
        self.send(&bytes)?;

        let mut acknowledged = false;
        let mut refused = None;
        // A lost answer can only be one of many errors: a batch that succeeds has a single answer.
        while let Some(datagram) = self.receive()? {
            for message in messages(&datagram) {
                let place = message.sequence.wrapping_sub(begin) as usize;
                if message.kind != ERROR || place > batch.len() {
                    continue;
                }
                let message_of_batch = place.checked_sub(1);
                match error_number(message.payload) {
                    0 => acknowledged |= message_of_batch == Some(last),
                    // The first counts; the kernel has looked at the rest all the same.
                    errno => refused = refused.or(Some((message_of_batch, errno))),
                }
            }
        }
        let what = "change nf_tables".to_owned();
        match refused {
            Some((message, errno)) => {
                let change = message.and_then(|place| batch.0.into_iter().nth(place));
                let what = change.map_or(what, |change| change.what);
                let source = io::Error::from_raw_os_error(errno);
                Err(NftError::Refused { what, message, source })
            }
            None if acknowledged => Ok(()),
            None => Err(NftError::NoAnswer { what }),
        }
    }

    /// A number that changes with every change anybody makes to nf_tables in this namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        let what = "tell the generation of nf_tables";
        let answers = self.ask(GET_GENERATION, 0, Family(0), &Attributes::default(), what)?;
        let id = answers.first().and_then(|(_, payload)| number(payload, GENERATION_ID));
        id.ok_or_else(|| NftError::NoAnswer { what: what.to_owned() })
    }

    /// All tables.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>, NftError> {
        let answers =
            self.ask(GET_TABLE, DUMP, Family(0), &Attributes::default(), "list tables")?;
        let tables = answers.iter().map(|(family, payload)| TableInfo {
            table: Table { family: *family, name: text(payload, TABLE_NAME) },
            owner: number(payload, TABLE_OWNER),
        });
        Ok(tables.collect())
    }

    /// All chains.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn chains(&mut self) -> Result<Vec<ChainInfo>, NftError> {
        let answers =
            self.ask(GET_CHAIN, DUMP, Family(0), &Attributes::default(), "list chains")?;
        let chains = answers.iter().map(|(family, payload)| ChainInfo {
            table: Table { family: *family, name: text(payload, CHAIN_TABLE) },
            name: text(payload, CHAIN_NAME),
            kind: text(payload, CHAIN_TYPE),
            hook: attribute(payload, CHAIN_HOOK).and_then(|hook| number(hook, HOOK_NUMBER)),
            policy: number(payload, CHAIN_POLICY).map_or(Verdict::ACCEPT, Verdict),
        });
        Ok(chains.collect())
    }

    /// The rules of a table; those of one chain stand in their order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rules(&mut self, table: &Table) -> Result<Vec<RuleInfo>, NftError> {
        let of_table = Attributes::default().text(RULE_TABLE, &table.name);
        let what = format!("list the rules of {table}");
        let answers = self.ask(GET_RULE, DUMP, table.family, &of_table, &what)?;
        let rules = answers.iter().map(|(_, payload)| RuleInfo {
            chain: text(payload, RULE_CHAIN),
            handle: attribute(payload, RULE_HANDLE)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |value| u64::from_be_bytes(*value)),
            comment: attribute(payload, RULE_USERDATA).and_then(comment),
            expressions: attribute(payload, RULE_EXPRESSIONS).unwrap_or_default().to_vec(),
        });
        Ok(rules.collect())
    }

    /// The elements of a set, in no order; none if there is no such set.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn elements(&mut self, set: &Set) -> Result<Vec<Element>, NftError> {
        let what = format!("list the elements of {} {}", set.table, set.name);
        match self.ask(GET_ELEMENT, DUMP, set.table.family, &set.attributes(), &what) {
            Err(error) if error.errno() == Some(ENOENT) => Ok(vec![]),
            answers => {
                Ok(answers?.iter().flat_map(|(_, answer)| read_elements(answer, set.key)).collect())
            }
        }
    }

    /// Puts a question and gives each answer's family and attributes. A dump that was interrupted
    /// by a change starts again.
    fn ask(
        &mut self,
        question: u16,
        flags: u16,
        family: Family,
        attributes: &Attributes,
        what: &str,
    ) -> Result<Vec<(Family, Vec<u8>)>, NftError> {
        'attempt: for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            let sequence = self.emit(&mut bytes, SUBSYSTEM | question, flags, family, attributes);
            self.send(&bytes)?;
            let mut answers = Vec::new();
            let mut interrupted = false;
            while let Some(datagram) = self.receive()? {
                for message in messages(&datagram).filter(|message| message.sequence == sequence) {
                    interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                    match (message.kind, message.payload) {
                        (DONE, _) if interrupted => continue 'attempt,
                        (DONE, _) => return Ok(answers),
                        (ERROR, payload) => {
                            let source = io::Error::from_raw_os_error(error_number(payload));
                            if source.kind() == ErrorKind::Interrupted {
                                continue 'attempt;
                            }
                            let what = what.to_owned();
                            return Err(NftError::Refused { what, message: None, source });
                        }
                        (_, [family, _, _, _, attributes @ ..]) => {
                            answers.push((Family(*family), attributes.to_vec()));
                            if flags & DUMP == 0 {
                                return Ok(answers);
                            }
                        }
                        _ => {}
                    }
                }
            }
            return Err(NftError::NoAnswer { what: what.to_owned() });
        }
        Err(NftError::Unstable)
    }

    /// Appends one message to `bytes`: struct nlmsghdr, struct nfgenmsg, attributes. Gives its
    /// sequence number.
    fn emit(
        &mut self,
        bytes: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        family: Family,
        attributes: &Attributes,
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(attributes.0.len() + 20).expect("no rule of ours has 4 GiB");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family.0, 0]);
        // Batches name the subsystem that they are for here.
        bytes.extend(if kind < SUBSYSTEM { (SUBSYSTEM >> 8).to_be_bytes() } else { [0; 2] });
        bytes.extend(&attributes.0);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NftError> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0);
        sent.map(|_| ()).map_err(|source| {
            // The whole batch has to fit into the send buffer.
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

/// A message of the kernel's.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of a datagram; ends at the first that is cut or malformed.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let half = |at: usize| Some(u16::from_ne_bytes(*datagram.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_ne_bytes(*datagram.get(at..)?.first_chunk()?));
        let length = usize::try_from(word(0)?).ok()?;
        let (kind, flags, sequence) = (half(4)?, half(6)?, word(8)?);
        let payload = datagram.get(16..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, payload })
    })
}

/// The positive error number of an NLMSG_ERROR; 0: an acknowledgement.
fn error_number(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().map_or(-EBADMSG, |code| i32::from_ne_bytes(*code));
    code.saturating_neg()
}

/// The comment in a rule's user data, see [`Batch::insert_rule`].
fn comment(mut user: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = user {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            let value = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        user = rest;
    }
    None
}

/// Bytes of a batch at most (the kernel doubles it), a limit and no memory: a port takes some 100, a
/// block 300.
const SEND_LEN: usize = 8 << 20;
/// Dumps that are begun again before we give up: each needs another change in the middle of it.
const DUMP_ATTEMPTS: usize = 20;
/// More than the kernel puts into a datagram of a dump (32 KiB, af_netlink.c) and than a rule takes.
const RECEIVE_LEN: usize = 128 * 1024;

// asm-generic/errno.h
const ENOENT: i32 = 2;
const ENOBUFS: i32 = 105;
const EBADMSG: i32 = 74;
const EMSGSIZE: i32 = 90;
// Types and flags of messages, linux/netlink.h
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP_INTERRUPTED: u16 = 0x10;
const DUMP: u16 = 0x300;
// NFNL_MSG_BATCH_…, and NFNL_SUBSYS_NFTABLES where the type has it, linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10 << 8;
// NFT_MSG_… and what else of NFTA_… is read, linux/netfilter/nf_tables.h
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_GENERATION: u16 = 16;
const GENERATION_ID: u16 = 1;
const TABLE_OWNER: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_kernel_text_is_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 4, 5, 16, 0x7f, 0xff] {
                let bytes = vec![fill; length];
                assert!(messages(&bytes).count() <= 4);
                let _ = (comment(&bytes), error_number(&bytes));
            }
        }
    }

    #[test]
    fn a_comment_is_found_behind_other_user_data() {
        assert_eq!(comment(b"\x01\x02ab\x00\x03hi\0").as_deref(), Some("hi"));
    }
}
