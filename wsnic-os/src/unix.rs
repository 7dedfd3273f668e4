//! Unix stream sockets that listen at a path.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as start, socket,
};
use nix::unistd::{Gid, Uid};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Connections that may wait for accept: as many as net.core.somaxconn says.
const BACKLOG: Backlog = Backlog::MAXALLOWABLE;

/// Listens at `path`, in place of a socket there that nobody listens at any more.
///
/// # Errors
/// Somebody listens there, it is no socket, or what the system says.
pub fn listen(path: &Path, mode: u32, owner: Option<(Uid, Gid)>) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
        }
        std::fs::remove_file(path)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Between bind and these nobody can connect: the socket does not listen yet.
    if let Some((uid, gid)) = owner {
        nix::unistd::chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    start(&fd, BACKLOG)?;
    Ok(fd.into())
}
