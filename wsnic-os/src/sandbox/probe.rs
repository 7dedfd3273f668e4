//! Trying the sandbox from inside, for tests and for whoever does not believe it.
//!
//! `--sandbox-probe=NUMBER,ARGUMENT,…`, which no help mentions: the program starts as ever, locks
//! itself in, and then makes this one system call instead of serving; arguments that are not given
//! are 0. Where the sandbox forbids the call, the kernel ends the process (SIGSYS).
#![allow(unsafe_code)]

use crate::log::say;
use clap::{Arg, ArgMatches};
use nix::libc::{self, c_long};
use std::io;

const ARGUMENT: &str = "sandbox-probe";

/// A system call to try: its number and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe([c_long; 7]);

/// The hidden argument.
pub fn argument() -> Arg {
    Arg::new(ARGUMENT).long(ARGUMENT).hide(true).value_name("CALL").value_parser(parse)
}

/// The call that the command line asks for.
pub fn wanted(matches: &ArgMatches) -> Option<Probe> {
    matches.get_one(ARGUMENT).copied()
}

fn parse(text: &str) -> Result<Probe, String> {
    let mut call = [0; 7];
    let mut room = call.iter_mut();
    for word in text.split(',') {
        let number = word.parse().map_err(|_| format!("{word} is no number"))?;
        *room.next().ok_or("a system call has six arguments at most")? = number;
    }
    Ok(Probe(call))
}

impl Probe {
    /// Makes the call, and says so if the process is still there.
    pub fn make(self) {
        let Probe([number, a, b, c, d, e, f]) = self;
        // SAFETY: what the call may do to this process, such as ending it, is what is asked for; it
        // ends right after it.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        let error = io::Error::last_os_error();
        say(format_args!("the sandbox lets {number} through, which returned {result} ({error})"));
    }
}
