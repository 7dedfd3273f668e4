//! What is left of a process besides files and system calls: dumps, limits, last words.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

/// A panic is one line of the log. Without this it would look for symbols in files, which ends a
/// process that may open none before a word is said.
pub fn one_line_for_panics(program: &'static str) {
    // SAFETY: called at start, before any thread that could read the environment.
    unsafe { std::env::remove_var("RUST_BACKTRACE") };
    // SAFETY: as above.
    unsafe { std::env::remove_var("RUST_LIB_BACKTRACE") };
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let what = info.payload_as_str().unwrap_or("no reason given");
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        let line = format!("ERROR {program}: this is a bug: {what}{place}\n");
        // There is nobody left to tell of an error.
        let _ = io::stderr().write_all(line.as_bytes());
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

/// Has the scheduler give this thread its share of a core in pieces of `slice` (0.1 to 100 ms), not of
/// some milliseconds: it gets no more, but waits less long for it. It needs no privilege.
///
/// # Errors
/// The kernel's. Before Linux 6.12 nothing happens.
pub fn work_in_slices(slice: Duration) -> io::Result<()> {
    // SAFETY: sched_attr is plain old data for which all zero bytes are a valid value.
    let mut own: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&own);
    // What else there is, such as a nice value, stays as it is.
    // SAFETY: the kernel writes at most `size` bytes to `own`, which lives across the call.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, size, 0) };
    Errno::result(got)?;
    own.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: `own` is a sched_attr that says how long it is, and lives across the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const own, 0) };
    Errno::result(set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_set_and_set_again() {
        for micros in [200, 1000] {
            work_in_slices(Duration::from_micros(micros)).expect("no privilege is needed");
        }
    }
}
