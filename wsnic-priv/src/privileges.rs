//! Giving up every privilege but CAP_NET_ADMIN, once, at start.
//!
//! Should: leave what netlink, nf_tables and /dev/net/tun need. Must not leave: any other
//! capability in any set, or a way to gain one.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use std::io;

/// Gives up everything else.
///
/// # Errors
/// The process must end: it may hold more than it should.
pub fn give_up() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    drop_capabilities().map_err(io::Error::other)
}

fn drop_capabilities() -> Result<(), CapsError> {
    let keep = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
    // The bounding set can be cut by whoever holds CAP_SETPCAP; without it there is nothing in it
    // that this process could come by.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let left: CapsHashSet = held.intersection(&keep).copied().collect();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)
}
