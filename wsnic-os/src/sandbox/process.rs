//! What is left of a process besides files and system calls: dumps, limits, last words.
#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::panic::{self, PanicHookInfo};

/// A panic is one line of the log. Without this it would look for symbols in files, which ends a
/// process that may open none before a word is said.
pub fn one_line_for_panics() {
    // SAFETY: called at start, before any thread that could read the environment.
    unsafe { std::env::remove_var("RUST_BACKTRACE") };
    // SAFETY: as above.
    unsafe { std::env::remove_var("RUST_LIB_BACKTRACE") };
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let what = info.payload_as_str().unwrap_or("no reason given");
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        tracing::error!("this is a bug: {what}{place}");
    }));
}

/// No core file, and no other process of the same user may look into this one.
///
/// # Errors
/// The kernel's.
pub fn keep_secrets() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// No new thread or process, no locked memory, no message queue, no more than `files` open files, or
/// than there may be already.
///
/// # Errors
/// The kernel's.
pub fn limit(files: u64) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files.min(most), files.min(most))?;
    Ok(())
}
