//! What programs that are handed sockets do first, in the one order in which it works.

use crate::config::{self, LoadError, Loaded};
use crate::inherited::{self, Inherited};
use crate::log::{self, Style};
use crate::sandbox::process;
use clap::Command;
use std::ffi::OsString;

/// Takes the inherited sockets (which closes whatever else is open), reads the configuration, and only
/// then opens the log, which may be a socket of its own.
///
/// # Errors
/// With what is wrong in the configuration; the log is open then too, on standard error.
pub fn start(
    program: &'static str,
    command: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Loaded, Inherited), LoadError> {
    let inherited = inherited::take();
    let loaded = config::load(command, arguments);
    log::init(program, loaded.as_ref().map_or_else(|_| Style::default(), Loaded::log));
    process::one_line_for_panics();
    Ok((loaded?, inherited))
}
