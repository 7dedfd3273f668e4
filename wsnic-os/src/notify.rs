//! Telling the supervisor (systemd or `wsnic run`) how the process is: sd_notify(3).
//!
//! The socket is opened at start-up and kept, because a sandboxed process opens none. systemd names
//! one in `$NOTIFY_SOCKET`; `wsnic run` passes each child its own, which nobody else can reach.

use nix::sys::socket::{self, ControlMessage, MsgFlags};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The name under which `wsnic run` passes the socket; see [`crate::inherited`].
pub const INHERITED_NAME: &str = "notify";

/// A line to the supervisor; does nothing where nobody supervises.
#[derive(Debug)]
pub struct Notifier(Option<OwnedFd>);

impl Notifier {
    /// Takes the `inherited` socket, or connects to `$NOTIFY_SOCKET` if that is set.
    ///
    /// # Errors
    /// The variable is set and no socket answers there.
    pub fn new(inherited: Option<OwnedFd>) -> io::Result<Notifier> {
        if inherited.is_some() {
            return Ok(Notifier(inherited));
        }
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Notifier(None)) };
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Notifier(Some(socket.into())))
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

    /// The process is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1", &[]);
    }

    fn send(&self, text: &str, fds: &[RawFd]) {
        let Some(socket) = &self.0 else { return };
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

/// The value of `name` in what a child has said, if it was said.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}
