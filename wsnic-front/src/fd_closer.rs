//! A thread that closes TAP fds, because the kernel blocks the closer for some 20 ms each time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use wsnic_os::thread;

/// Where to drop TAP fds.
#[derive(Debug, Clone)]
pub struct FdCloser(Sender<OwnedFd>);

impl FdCloser {
    /// Starts the thread, which ends with the last clone.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> io::Result<FdCloser> {
        let (sender, receiver) = channel::<OwnedFd>();
        thread::start("fd-closer", move || receiver.into_iter().for_each(drop))?;
        Ok(FdCloser(sender))
    }

    /// Closes `fd` soon.
    pub fn close(&self, fd: OwnedFd) {
        // If the thread is gone the error gives the fd back, and it is closed here.
        let _ = self.0.send(fd);
    }
}
