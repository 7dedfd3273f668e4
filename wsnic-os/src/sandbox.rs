//! What helper and front-end have in common when they lock themselves in.
//!
//! Each process puts up its parts in its own order, by [`Parts`]: what this kernel or container
//! refuses is either an error or said once, as the option `sandbox` wants it. [`landlock`] closes the
//! file system, [`seccomp`] the system calls, [`process`] the rest; [`device`] and [`probe`] help.

pub mod device;
pub mod landlock;
pub mod probe;
pub mod process;
pub mod seccomp;

use crate::privileges::{self, Identity, PrivilegeError};
use caps::Capability;
use nix::unistd::Uid;
use wsnic_proto::settings::Sandbox as Level;

/// A part of the sandbox cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process cannot have {part}, which sandbox=require demands (sandbox=prefer goes on without)"
)]
pub struct SandboxError {
    part: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a process could not be locked in.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Root could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// A part is missing and required.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Who a process becomes that is started as root.
#[derive(Debug)]
pub struct Role<'a> {
    /// The option that names the user.
    pub option: &'static str,
    /// The user that it names.
    pub configured: Option<&'a str>,
    /// Who is tried otherwise.
    pub users: &'a [&'a str],
    /// The number of user and group if there is none of them.
    pub nobody: u32,
}

impl Role<'_> {
    /// The user, if this process is root: to be asked while /etc/passwd can be read.
    ///
    /// # Errors
    /// The configured user is root or does not exist.
    pub fn choose(&self) -> Result<Option<Identity>, PrivilegeError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        Identity::choose(self.option, self.configured, self.users, self.nobody).map(Some)
    }
}

/// The parts of one process's sandbox, one after the other.
#[derive(Debug)]
pub struct Parts {
    level: Level,
    missing: Vec<String>,
}

impl Parts {
    /// None yet.
    pub fn new(level: Level) -> Parts {
        Parts { level, missing: Vec::new() }
    }

    /// Puts one up; None if it cannot be had, or is not wanted.
    ///
    /// # Errors
    /// It is required and cannot be had.
    pub fn add<T, E>(
        &mut self,
        part: &'static str,
        attempt: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, SandboxError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.level == Level::Off { Ok(None) } else { self.note(part, attempt()) }
    }

    /// Becomes `user`, if there is one to become, after `prepare`, with the capabilities `keep` and no
    /// other, for good.
    ///
    /// Where that is refused (a container may withhold CAP_SETUID), or `prepare` fails, root is a
    /// name without other capabilities; the part is missing.
    ///
    /// # Errors
    /// The process must end: it may hold more than it should.
    pub fn give_up_root<E>(
        &mut self,
        user: Option<Identity>,
        keep: &[Capability],
        prepare: impl FnOnce(Identity) -> Result<(), E>,
    ) -> Result<(), CloseError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(user) = user {
            let prepared = prepare(user).map_err(Into::into);
            privileges::bound(keep)?;
            let became = prepared.and_then(|()| Ok(user.assume()?));
            self.note("a user other than root", became)?;
        }
        Ok(privileges::keep(keep)?)
    }

    fn note<T, E>(
        &mut self,
        part: &'static str,
        result: Result<T, E>,
    ) -> Result<Option<T>, SandboxError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match result.map_err(Into::into) {
            Ok(result) => Ok(Some(result)),
            Err(source) if self.level == Level::Require => Err(SandboxError { part, source }),
            Err(_) if self.level == Level::Off => Ok(None),
            Err(source) => {
                self.missing.push(format!("{part} ({})", crate::log::chain(&*source)));
                Ok(None)
            }
        }
    }

    /// Says what is missing, once.
    pub fn report(self) {
        if self.level == Level::Off {
            tracing::warn!("sandbox=off: this process is not locked in, for debugging only");
        } else if self.missing.is_empty() {
            tracing::debug!("the sandbox is complete");
        } else {
            tracing::warn!("the sandbox lacks: {}", self.missing.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn refused() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[test]
    fn a_missing_part_is_an_error_only_where_it_is_required() {
        assert!(Parts::new(Level::Require).add("x", refused).is_err());
        let mut parts = Parts::new(Level::Prefer);
        assert!(matches!(parts.add("x", refused), Ok(None)));
        assert_eq!(parts.missing, ["x (unsupported)"]);
        assert!(matches!(parts.add("y", || io::Result::Ok(7)), Ok(Some(7))));
    }

    #[test]
    fn nothing_is_tried_when_it_is_off() {
        let mut parts = Parts::new(Level::Off);
        let attempt = || -> io::Result<()> { panic!("tried") };
        assert!(matches!(parts.add("x", attempt), Ok(None)));
    }
}
