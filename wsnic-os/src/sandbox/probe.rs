//! Trying the sandbox from inside, for tests and for whoever does not believe it.
//!
//! `--sandbox-probe=syscall:NUMBER` and `--sandbox-probe=ioctl:REQUEST`, which no help mentions:
//! the program starts as ever, locks itself in, and then makes this one call instead of serving.
//! Where the sandbox is whole, the kernel ends the process (SIGSYS).
#![allow(unsafe_code)]

use crate::log::say;
use clap::{Arg, ArgMatches};
use nix::libc::{self, c_long, c_ulong};

const ARGUMENT: &str = "sandbox-probe";

/// A call to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A system call by its number, all arguments 0.
    Syscall(c_long),
    /// An ioctl on standard input, its argument 0.
    Ioctl(c_ulong),
}

/// The hidden argument.
pub fn argument() -> Arg {
    Arg::new(ARGUMENT).long(ARGUMENT).hide(true).value_name("CALL").value_parser(parse)
}

/// The call that the command line asks for.
pub fn wanted(matches: &ArgMatches) -> Option<Probe> {
    matches.get_one(ARGUMENT).copied()
}

fn parse(text: &str) -> Result<Probe, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
    match text.split_once(':') {
        Some(("syscall", text)) => number(text).map(Probe::Syscall),
        Some(("ioctl", text)) => number(text).map(|request| Probe::Ioctl(request.cast_unsigned())),
        _ => Err("give syscall:NUMBER or ioctl:REQUEST".to_owned()),
    }
}

impl Probe {
    /// Makes the call, and says so if the process is still there.
    pub fn make(self) {
        let result = match self {
            // SAFETY: null pointers and zeros, which the kernel checks; what the call may do to
            // this process, such as ending it, is what is asked for.
            Probe::Syscall(number) => unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) },
            // SAFETY: as above; standard input is open.
            Probe::Ioctl(request) => unsafe { libc::ioctl(0, request as _, 0) }.into(),
        };
        say(format_args!("{self:?} returned {result}: the sandbox lets it through"));
    }
}
