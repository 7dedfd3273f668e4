//! A thread that closes TAP fds, because the kernel blocks the closer for some 20 ms each time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};

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
        let started = Arc::new(Barrier::new(2));
        let begun = Arc::clone(&started);
        std::thread::Builder::new().name("fd-closer".to_owned()).spawn(move || {
            begun.wait();
            for fd in receiver {
                drop(fd);
            }
        })?;
        // What a thread does before its first line is not allowed inside the sandbox.
        started.wait();
        Ok(FdCloser(sender))
    }

    /// Closes `fd` soon.
    pub fn close(&self, fd: OwnedFd) {
        // If the thread is gone the error gives the fd back, and it is closed here.
        let _ = self.0.send(fd);
    }
}
