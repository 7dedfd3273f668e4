//! What guests may send and reach, as rules of nf_tables: from a policy to batches.
//!
//! For the helper, which hands the batches to the kernel. Nothing here makes a system call or reads a
//! packet: what it says about guests can be read, and tested, as text.
//!
//! | table | sees | says |
//! |---|---|---|
//! | `inet wsnic_guard` | packets that enter or leave by a guests' bridge | what guests reach |
//! | `ip wsnic_nat` | new connections of guests | with which address they leave, who resolves names |
//! | `bridge wsnic_ports` | frames as they come in by a port | what a guest may send; with locks only |
#![forbid(unsafe_code)]

mod bound;
mod foreign;
mod guard;
mod nat;
mod policy;
mod ports;

pub use bound::{Bound, Change, Pair, Port};
pub use foreign::Foreign;
pub use policy::{Bridge, NetworkPolicy, Policy};

use wsnic_nft::{Batch, Table, TableFlags};

/// The three tables, the one with locks first; not each is always there.
pub fn tables() -> [Table; 3] {
    [ports::table(), guard::table(), nat::table()]
}

/// What the kernel can do.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Who owns what contains guests, which had better outlive the helper.
    pub guard: TableFlags,
    /// Who owns address translation.
    pub nat: TableFlags,
    /// Whether its bridge knows locked ports (Linux 5.18): else rules hold ports to their MAC
    /// addresses.
    pub bridge_locks: bool,
}

/// Makes all tables that the policy needs, with what is bound; gives how many.
pub fn build(batch: &mut Batch, policy: &Policy, bound: &Bound, kernel: Kernel) -> usize {
    batch.new_table(&guard::table(), kernel.guard);
    guard::build(batch, policy);
    batch.new_table(&nat::table(), kernel.nat);
    nat::build(batch, policy);
    let locks = policy.has_locks();
    if locks {
        batch.new_table(&ports::table(), kernel.guard);
        ports::build(batch, policy, kernel.bridge_locks);
    }
    bound.build(batch, policy);
    if locks { 3 } else { 2 }
}
