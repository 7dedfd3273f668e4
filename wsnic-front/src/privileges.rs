//! Giving up root: once, after everything has been opened.

use caps::CapSet;
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid, User};

/// Who is tried, when the configuration names nobody.
const USERS: [&str; 2] = ["wsnic", "nobody"];
/// nobody and nogroup where there is no /etc/passwd, as in small containers.
const NOBODY: u32 = 65534;

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The configured user does not exist.
    #[error("there is no user \"{0}\": create it, or set the option user to another")]
    NoSuchUser(String),
    /// The configured user is root.
    #[error("the front-end does not run as \"{0}\", which is root: set the option user to another")]
    Root(String),
    /// Capabilities could not be dropped.
    #[error("cannot drop capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
    /// A system call failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: nix::Error,
    },
}

/// Becomes `user` if this process is root, and can never gain a privilege again in any case.
///
/// # Errors
/// The process must end: it may still be root.
pub fn give_up(user: Option<&str>) -> Result<(), PrivilegeError> {
    let system = |action| move |source| PrivilegeError::System { action, source };
    if Uid::effective().is_root() {
        let (uid, gid) = ids_of(user)?;
        unistd::setgroups(&[]).map_err(system("give up groups"))?;
        unistd::setresgid(gid, gid, gid).map_err(system("change the group"))?;
        unistd::setresuid(uid, uid, uid).map_err(system("change the user"))?;
    }
    // A start as another user may have come with some (AmbientCapabilities=).
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    prctl::set_no_new_privs().map_err(system("set no_new_privs"))
}

fn ids_of(user: Option<&str>) -> Result<(Uid, Gid), PrivilegeError> {
    let find = |name: &str| User::from_name(name).ok().flatten().map(|user| (user.uid, user.gid));
    match user {
        Some(name) => match find(name) {
            Some((uid, _)) if uid.is_root() => Err(PrivilegeError::Root(name.to_owned())),
            Some(ids) => Ok(ids),
            None => Err(PrivilegeError::NoSuchUser(name.to_owned())),
        },
        None => Ok(USERS
            .iter()
            .find_map(|name| find(name))
            .unwrap_or((Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)))),
    }
}
