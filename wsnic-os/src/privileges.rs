//! Giving up root: once, after what needs it has been done.
//!
//! Should leave: an ordinary user with the capabilities that the process keeps. Must not leave: any
//! other capability in any set, or a way to gain one.
#![allow(unsafe_code)]

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid, User};
use std::io;

/// Root gains nothing, a change of user changes no capability, nothing becomes ambient, and none of
/// it can be taken back (linux/securebits.h): each bit with its lock, and the lock of KEEP_CAPS.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

/// An ordinary user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: Uid,
    /// Its group; the others are given up.
    pub gid: Gid,
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The configured user does not exist.
    #[error("there is no user \"{name}\": create it, or set the option {option} to another")]
    NoSuchUser {
        /// Who.
        name: String,
        /// The option that names it.
        option: &'static str,
    },
    /// The configured user is root.
    #[error("wsnic does not run as \"{name}\", which is root: set the option {option} to another")]
    Root {
        /// Who.
        name: String,
        /// The option that names it.
        option: &'static str,
    },
    /// Capabilities could not be dropped.
    #[error("cannot drop capabilities")]
    Capabilities(#[from] CapsError),
    /// A system call failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: nix::Error,
    },
}

fn system(action: &'static str) -> impl Fn(nix::Error) -> PrivilegeError {
    move |source| PrivilegeError::System { action, source }
}

impl Identity {
    /// The user `configured` by `option`, or the first of `candidates` that exists, or the number
    /// `nobody` as user and group.
    ///
    /// # Errors
    /// The configured user is root or does not exist.
    pub fn choose(
        option: &'static str,
        configured: Option<&str>,
        candidates: &[&str],
        nobody: u32,
    ) -> Result<Identity, PrivilegeError> {
        let find = |name: &str| {
            let user = User::from_name(name).ok().flatten();
            user.map(|user| Identity { uid: user.uid, gid: user.gid })
        };
        match configured.map(|name| (name.to_owned(), find(name))) {
            Some((name, Some(id))) if id.uid.is_root() => {
                Err(PrivilegeError::Root { name, option })
            }
            Some((_, Some(id))) => Ok(id),
            Some((name, None)) => Err(PrivilegeError::NoSuchUser { name, option }),
            None => Ok(candidates
                .iter()
                .find_map(|name| find(name))
                .unwrap_or(Identity { uid: Uid::from_raw(nobody), gid: Gid::from_raw(nobody) })),
        }
    }

    /// Becomes this user, for good. Capabilities stay as they are until [`keep`] is called.
    ///
    /// # Errors
    /// This process has no right to (a container may withhold CAP_SETUID); it is then who it was.
    pub fn assume(self) -> Result<(), PrivilegeError> {
        unistd::setgroups(&[]).map_err(system("give up groups"))?;
        unistd::setresgid(self.gid, self.gid, self.gid).map_err(system("change the group"))?;
        unistd::setresuid(self.uid, self.uid, self.uid).map_err(system("change the user"))
    }
}

/// The first of two steps, to be taken as root before [`Identity::assume`]: no capability but
/// `wanted` can come back, and none is lost by a change of user.
///
/// # Errors
/// The kernel's. Without CAP_SETPCAP the bounds stay: then root has little, and a unit or container
/// has set them.
pub fn bound(wanted: &[Capability]) -> Result<(), PrivilegeError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return prctl::set_keepcaps(true).map_err(system("keep capabilities"));
    }
    narrow(wanted)?;
    // SAFETY: takes and changes numbers of this process only.
    let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) };
    if result == 0 {
        return Ok(());
    }
    let source = nix::Error::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    Err(system("lock the securebits")(source))
}

/// No program that this process starts has any capability but `wanted`.
///
/// # Errors
/// The kernel's. Without CAP_SETPCAP nothing is done, see [`bound`].
pub fn narrow(wanted: &[Capability]) -> Result<(), PrivilegeError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    let wanted: CapsHashSet = wanted.iter().copied().collect();
    for capability in caps::read(None, CapSet::Bounding)?.difference(&wanted) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    Ok(())
}

/// No program that this process starts gains anything by what its file says (no_new_privs).
///
/// # Errors
/// The kernel's.
pub fn gain_nothing() -> Result<(), PrivilegeError> {
    prctl::set_no_new_privs().map_err(system("set no_new_privs"))
}

/// The second step, after the change of user: gives up every capability but `wanted`, in all sets,
/// and can never gain one again.
///
/// # Errors
/// The process must end: it may hold more than it should.
pub fn keep(wanted: &[Capability]) -> Result<(), PrivilegeError> {
    let wanted: CapsHashSet = wanted.iter().copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let left: CapsHashSet = held.intersection(&wanted).copied().collect();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)?;
    prctl::set_no_new_privs().map_err(system("set no_new_privs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `test` in a thread, which alone loses its privileges.
    fn in_a_thread(test: impl FnOnce() + Send) {
        assert!(Uid::effective().is_root(), "this test gives up root: run it as root");
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    #[test]
    fn nothing_but_what_is_kept_can_come_back() {
        in_a_thread(|| {
            let kept = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
            bound(&[Capability::CAP_NET_ADMIN]).unwrap();
            keep(&[Capability::CAP_NET_ADMIN]).unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
                assert_eq!(caps::read(None, set).unwrap(), kept, "{set:?}");
            }
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                assert_eq!(caps::read(None, set).unwrap(), CapsHashSet::new(), "{set:?}");
            }
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
        });
    }

    #[test]
    fn the_securebits_are_set_and_locked() {
        in_a_thread(|| {
            bound(&[Capability::CAP_NET_ADMIN]).unwrap();
            // SAFETY: takes and returns numbers only.
            let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
            assert_eq!(bits, 0b1110_1111);
            // SAFETY: as above.
            let cleared = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 0, 0, 0, 0) };
            assert_eq!(cleared, -1, "the locks hold");
        });
    }

    #[test]
    fn root_and_strangers_are_no_users_to_become() {
        let choose = |name| Identity::choose("user", name, &["nobody"], 7);
        assert!(matches!(choose(Some("root")), Err(PrivilegeError::Root { .. })));
        assert!(matches!(choose(Some("no-such-user")), Err(PrivilegeError::NoSuchUser { .. })));
        assert_eq!(choose(None).unwrap().uid.as_raw(), 65534);
        assert_eq!(Identity::choose("user", None, &["no-such-user"], 7).unwrap().uid.as_raw(), 7);
    }
}
