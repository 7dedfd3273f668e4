//! Ending together with the process that started this one.

use clap::{Arg, ArgMatches};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use std::io;

const ARGUMENT: &str = "with-parent";

/// The argument by which `wsnic run` asks for it.
pub fn argument() -> Arg {
    Arg::new(ARGUMENT)
        .long(ARGUMENT)
        .value_name("PID")
        .value_parser(clap::value_parser!(i32))
        .help("End when the process that started this one, PID, ends")
}

/// Does what the command line asks for. To be called after the last change of user, which takes
/// the wish back (prctl(2)).
///
/// # Errors
/// The parent has ended already, or the kernel refuses.
pub fn heed(matches: &ArgMatches) -> io::Result<()> {
    matches.get_one(ARGUMENT).map_or(Ok(()), |parent| end_with(*parent))
}

fn end_with(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // The first process of a PID namespace does not see its parent; there the helper's end is heard.
    let first = std::process::id() == 1 && getppid() == Pid::from_raw(0);
    if getppid() == Pid::from_raw(parent) || first {
        Ok(())
    } else {
        Err(io::Error::other("the process that started this one has ended"))
    }
}
