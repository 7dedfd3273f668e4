//! Closing the file system: landlock(7).
//!
//! To be called before any thread is started: older kernels bind the calling thread only, and new
//! threads inherit it.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::Path;

/// The newest version whose rights and scopes are asked for; a kernel with less gives what it has,
/// and seccomp forbids the rest in any case.
const NEWEST: ABI = ABI::V6;

/// What stays possible with a file, or beneath a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Reading files.
    Read,
    /// Reading and writing files that are there.
    Write,
    /// Removing files of a directory, and nothing else.
    Remove,
    /// Reading and writing files that are there, and ioctls of a device.
    Device,
}

impl Use {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Use::Read => AccessFs::ReadFile.into(),
            Use::Remove => AccessFs::RemoveFile.into(),
            Use::Write => AccessFs::ReadFile | AccessFs::WriteFile,
            Use::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        }
    }
}

/// Why it stays open.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel was built or started without it.
    #[error("this kernel has no Landlock (Linux 5.13 with landlock in its list of LSMs)")]
    Unsupported,
    /// The kernel refused.
    #[error(transparent)]
    Refused(#[from] RulesetError),
}

/// From now on nothing of the file system can be opened but `exceptions`; nothing can be bound or
/// connected over TCP, and no abstract socket or signal reaches a process outside. What does not
/// exist is no exception.
///
/// # Errors
/// The file system is as open as before.
pub fn restrict(exceptions: &[(&Path, Use)]) -> Result<(), LandlockError> {
    let all = AccessFs::from_all(NEWEST);
    let mut ruleset = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (path, allowed) in exceptions {
        // What is no directory takes fewer rights, which the crate sees to.
        if let Ok(fd) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, allowed.rights()))?;
        }
    }
    match ruleset.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(LandlockError::Unsupported),
        RulesetStatus::PartiallyEnforced => {
            tracing::debug!("this kernel has an older Landlock; seccomp covers the rest");
            Ok(())
        }
        RulesetStatus::FullyEnforced => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;

    /// Runs `test` in a thread, which alone is bound.
    fn bound(exceptions: &[(&Path, Use)], test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                restrict(exceptions).unwrap();
                test();
            });
            inside.join().unwrap();
        });
    }

    #[test]
    fn nothing_can_be_opened_made_or_reached_inside() {
        bound(&[], || {
            let denied = ErrorKind::PermissionDenied;
            assert_eq!(fs::read("/etc/passwd").unwrap_err().kind(), denied);
            assert_eq!(fs::read_dir("/").unwrap_err().kind(), denied);
            assert_eq!(fs::write("/tmp/wsnic-landlock", "").unwrap_err().kind(), denied);
            assert_eq!(std::net::TcpListener::bind("127.0.0.1:0").unwrap_err().kind(), denied);
        });
    }

    #[test]
    fn what_is_excepted_can_be_used_as_said_and_no_further() {
        bound(&[(Path::new("/etc"), Use::Read), (Path::new("/nowhere"), Use::Write)], || {
            assert!(fs::read("/etc/passwd").is_ok());
            let append = fs::OpenOptions::new().append(true).open("/etc/passwd");
            assert_eq!(append.unwrap_err().kind(), ErrorKind::PermissionDenied);
        });
    }
}
