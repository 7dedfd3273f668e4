//! Where the lines go: standard error, or the syslog daemon's socket.
//!
//! The socket is opened once, before the process locks itself in, and needs no call that serving
//! does not need anyway: send(2). It is never waited for and never opened again, which the sandbox
//! would not allow: a line that the daemon does not take goes to standard error.

use nix::sys::stat::fstat;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use tracing_subscriber::fmt::MakeWriter;

/// Where syslog daemons listen.
pub const SYSLOG: &str = "/dev/log";

/// What a line begins with depends on who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A person or a file.
    Plain,
    /// The journal.
    Journal,
    /// The syslog daemon.
    Syslog,
}

/// The end of all lines.
pub struct Sink {
    syslog: Option<UnixDatagram>,
    is_journal: bool,
}

impl Sink {
    /// Opens what is wanted, or says why it is standard error instead.
    pub fn open(use_syslog: bool) -> (Sink, Option<io::Error>) {
        let is_journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref());
        match use_syslog.then(connect).transpose() {
            Ok(syslog) => (Sink { syslog, is_journal }, None),
            Err(error) => (Sink { syslog: None, is_journal }, Some(error)),
        }
    }

    /// Who reads the lines.
    pub fn way(&self) -> Way {
        match &self.syslog {
            Some(_) => Way::Syslog,
            None if self.is_journal => Way::Journal,
            None => Way::Plain,
        }
    }
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSLOG)?;
    // Guests do not wait for a daemon that sleeps.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether standard error is what systemd says the journal is (systemd.exec(5)): the variable is
/// inherited by programs whose standard error is something else.
fn is_journal(stream: Option<&str>) -> bool {
    let Ok(stat) = fstat(io::stderr()) else { return false };
    stream == Some(format!("{}:{}", stat.st_dev, stat.st_ino).as_str())
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Sink;

    fn make_writer(&'a self) -> &'a Sink {
        self
    }
}

impl Write for &Sink {
    /// One line, whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(syslog) = &self.syslog else { return io::stderr().write(line) };
        if syslog.send(line.trim_ascii_end()).is_err() {
            // Without the priority, which is for the daemon.
            let end = line.iter().position(|byte| *byte == b'>').map_or(0, |at| at + 1);
            io::stderr().write_all(line.get(end..).unwrap_or(line))?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
