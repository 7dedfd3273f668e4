//! A socket's file is removed by who may: a process that does nothing else.
//!
//! Whoever binds a socket as root in /run and then gives root up cannot remove it. So a child that
//! is forked before that waits for its parent's end, removes this one file, and ends. It hears
//! nobody, and can neither open, write nor run anything.
#![allow(unsafe_code)]

use crate::privileges;
use crate::sandbox::landlock::{self, Use};
use crate::sandbox::seccomp::Allowed;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2, setpgid, write};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Removes the file when it is dropped, and when this process dies.
#[derive(Debug)]
pub struct Janitor {
    /// None once the janitor was told.
    alive: Option<OwnedFd>,
    pid: Pid,
}

impl Janitor {
    /// Forks one for the file at `path` that `make` makes. To be called while this process has one
    /// thread, and before it opens what the child should not have.
    ///
    /// # Errors
    /// The system gives no process, or what `make` says.
    pub fn hire<T>(path: &Path, make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Janitor)> {
        let (told, alive) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: this process has one thread, as the caller promises, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let janitor = Janitor { alive: Some(alive), pid: child };
                let made = make()?;
                // Without this nothing is removed.
                let identity = identity(path)?;
                janitor.alive.as_ref().map_or(Ok(0), |alive| write(alive, &identity))?;
                Ok((made, janitor))
            }
            ForkResult::Child => {
                drop(alive);
                wait_and_remove(File::from(told), path);
                // SAFETY: ends the child without what its parent wants done at its own end.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.alive.take());
        // An error means that there is nobody to wait for.
        let _ = waitpid(self.pid, None);
    }
}

/// Tells a file from another that comes in its place, even with the same number: inode, time of the
/// last change of its content, which sockets do not have.
fn identity(path: &Path) -> io::Result<[u8; 24]> {
    let found = fs::symlink_metadata(path)?;
    let mut identity = [0; 24];
    identity[..8].copy_from_slice(&found.ino().to_ne_bytes());
    identity[8..16].copy_from_slice(&found.mtime().to_ne_bytes());
    identity[16..].copy_from_slice(&found.mtime_nsec().to_ne_bytes());
    Ok(identity)
}

/// In the child: reads the file's identity, then waits for the end. Whatever cannot be had of the
/// sandbox, the file has to go.
fn wait_and_remove(mut told: File, path: &Path) {
    let _ = prctl::set_name(c"janitor");
    // Ctrl-C is for the parent, whose end is awaited.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = privileges::keep(&[]);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let _ = landlock::restrict(&[(directory, Use::Remove)]);
    let calls = [
        libc::SYS_unlinkat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
    ];
    let _ = Allowed::base().looking().calls(&calls).enforce();
    let mut told_identity = [0; 24];
    if told.read_exact(&mut told_identity).is_err() {
        return;
    }
    // Nothing more is ever written: this returns when the parent has gone.
    let _ = told.read_exact(&mut [0]);
    // Another that has come in its place is not ours.
    if identity(path).is_ok_and(|found| found == told_identity) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_with_its_janitor_and_not_if_another_has_come_in_its_place() {
        let directory = std::env::temp_dir().join(format!("wsnic-janitor-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (path, other) = (directory.join("a"), directory.join("b"));
        let make = || fs::write(&path, "");
        drop(Janitor::hire(&path, make).unwrap());
        assert!(!path.exists());

        fs::write(&other, "").unwrap();
        let (_, janitor) = Janitor::hire(&path, make).unwrap();
        fs::rename(&other, &path).unwrap();
        drop(janitor);
        assert!(path.exists());

        let failing = || -> io::Result<()> { Err(io::ErrorKind::AddrInUse.into()) };
        assert!(Janitor::hire(&path, failing).is_err());
        assert!(path.exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
