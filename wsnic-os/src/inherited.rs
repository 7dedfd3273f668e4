//! Sockets that the process was started with: sd_listen_fds(3).
#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::parent_id;

/// Sockets with their names.
pub type Inherited = Vec<(String, OwnedFd)>;

/// The first inherited fd (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// The inherited sockets with their names, in order. Everything else that was open is closed: what a
/// careless parent has left open must not get into a sandbox.
///
/// To be called once, before threads are started and before this process opens anything for good, the
/// log included.
pub fn take() -> Inherited {
    let variable = |name| env::var(name).ok();
    let names_us = |name, pid: u32| variable(name).and_then(|text| text.parse().ok()) == Some(pid);
    // `wsnic run` cannot know a child's pid before it starts it, and names itself instead.
    // A child that is the first of a PID namespace sees no parent.
    let unseen = std::process::id() == 1 && parent_id() == 0 && variable("LISTEN_PPID").is_some();
    let for_us = names_us("LISTEN_PID", std::process::id())
        || names_us("LISTEN_PPID", parent_id())
        || unseen;
    let count: RawFd = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    let count = if for_us { count.max(0) } else { 0 };
    let others = FIRST.saturating_add(count).cast_unsigned();
    // By its number, because not every C library has a name for it.
    // SAFETY: by the promise above no object of this process owns one of these fds. A kernel before
    // 5.9 does not know the call, and they stay.
    unsafe { libc::syscall(libc::SYS_close_range, others, libc::c_uint::MAX, 0) };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    (FIRST..FIRST.saturating_add(count))
        .map_while(|raw| {
            // SAFETY: only borrowed for the call that asks whether the fd is open at all.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
            // SAFETY: it is open, and by the protocol it was passed to this process to own.
            let fd = unsafe { OwnedFd::from_raw_fd(raw) };
            Some((names.next().unwrap_or_default(), fd))
        })
        .collect()
}
