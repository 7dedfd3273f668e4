//! Telling the supervisor (systemd or `wsnic run`) how the process is: sd_notify(3).
//!
//! The socket is opened at start-up and kept, because a sandboxed process opens none. systemd names
//! one in `$NOTIFY_SOCKET`; `wsnic run` passes each child its own, which nobody else can reach.

use nix::sys::socket::{self, ControlMessage, MsgFlags};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The name under which `wsnic run` passes the socket; see [`crate::inherited`].
pub const INHERITED_NAME: &str = "notify";

/// A line to the supervisor; does nothing where nobody supervises.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<OwnedFd>,
    /// How often the supervisor wants to hear that the process lives; None: never.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Takes the `inherited` socket, or connects to `$NOTIFY_SOCKET` if that is set.
    ///
    /// # Errors
    /// The variable is set and no socket answers there.
    pub fn new(inherited: Option<OwnedFd>) -> io::Result<Notifier> {
        if inherited.is_some() {
            return Ok(Notifier { socket: inherited, watchdog: None });
        }
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Ok(Notifier { socket: None, watchdog: None });
        };
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Notifier { socket: Some(socket.into()), watchdog: watchdog() })
    }

    /// The process serves.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"), &[]);
    }

    /// Gives the supervisor a copy of a socket, to be passed back at the next start under `name`.
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) {
        self.send(&format!("FDSTORE=1\nFDNAME={name}"), &[fd.as_raw_fd()]);
    }

    /// The supervisor need not keep the socket `name` any more.
    pub fn remove(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    /// Tells the supervisor that this task still gets its turn (sd_watchdog_enabled(3)), for ever.
    pub async fn keep_alive(&self) -> Infallible {
        let Some(pause) = self.watchdog else { return std::future::pending().await };
        loop {
            self.send("WATCHDOG=1", &[]);
            tokio::time::sleep(pause).await;
        }
    }

    /// The process is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1", &[]);
    }

    fn send(&self, text: &str, fds: &[RawFd]) {
        let Some(socket) = &self.socket else { return };
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [io::IoSlice::new(text.as_bytes())];
        if let Err(error) = socket::sendmsg::<()>(socket.as_raw_fd(), &parts, control, flags, None)
        {
            tracing::warn!(%error, "cannot notify the supervisor");
        }
    }
}

/// Half of the time after which the supervisor would kill this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC")
        .filter(|usec| for_us && *usec > 0)
        .map(|usec| Duration::from_micros(usec / 2))
}

/// The value of `name` in what a child has said, if it was said.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}
