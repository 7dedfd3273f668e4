//! Watching an fd that this process owns: the one place that hands fds to the runtime.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime watch `fd`, which must be non-blocking.
///
/// # Errors
/// The kernel's epoll does not take it.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open file until it is dropped, and it is never handed out
    // mutably again, so what is registered is what is read and what is taken back at the end.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
