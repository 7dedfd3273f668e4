//! Starting a thread that may be locked in with its process right after.

use std::io;
use std::sync::{Arc, Barrier};

/// Starts a thread and returns when it runs `work`: what the C library does before that (rseq,
/// set_robust_list, prctl) is not allowed inside a sandbox.
///
/// # Errors
/// The system gives no thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let started = Arc::new(Barrier::new(2));
    let begun = Arc::clone(&started);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        begun.wait();
        work();
    })?;
    started.wait();
    Ok(())
}
