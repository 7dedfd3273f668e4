//! nf_tables over netlink: changes in one transaction, and what is there.
//!
//! For the helper, which makes its own tables, and for the command `wsnic`, which reads those of
//! others. Knows no policy, executes no program, and trusts no length that it reads.
#![forbid(unsafe_code)]

mod attribute;
mod batch;
mod frame;
mod lookup;
mod rule;
mod set;
mod socket;

pub use attribute::{attribute, attributes, number, text};
pub use batch::{Batch, Family, HookPoint, Table, TableFlags, Verdict};
pub use lookup::Field;
pub use rule::{
    CT_STATE, META_IIFNAME, META_NFPROTO, META_OIFNAME, Rule, STATE_ESTABLISHED, STATE_NEW,
    Transport,
};
pub use set::{Element, Key, Part, Set};
pub use socket::{ChainInfo, Netfilter, NftError, RuleInfo, TableInfo};
