//! The helper socket: SOCK_SEQPACKET packets, with TAP fds travelling beside replies.
//!
//! Both ends use this file: the helper receives without a control buffer, so that fds smuggled in
//! are discarded by the kernel (unix(7)); the front-end takes exactly one fd and closes any other.
#![allow(unsafe_code)]

use crate::watch::watch;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag,
    SockType, UnixAddr, UnixCredentials,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use wsnic_proto::codec::MAX_PACKET;

/// The most fds that one message can carry (SCM_MAX_FD, net/scm.h).
const MAX_FDS: usize = 253;
/// Connections that may wait for accept; one front-end makes one.
const BACKLOG: i32 = 8;

/// A received packet.
#[derive(Debug)]
pub struct Received {
    /// The packet's bytes.
    pub bytes: [u8; MAX_PACKET],
    /// How many of them are the packet.
    pub len: usize,
    /// The fd that came with it.
    pub fd: Option<OwnedFd>,
}

impl Received {
    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// One end of a connection between front-end and helper. Never blocks.
#[derive(Debug)]
pub struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// Takes a connected SEQPACKET socket.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(fd: OwnedFd) -> io::Result<PacketSocket> {
        set_nonblocking(fd.as_fd())?;
        Ok(PacketSocket(watch(fd, Interest::READABLE)?))
    }

    /// Sends one packet, with an fd if there is one.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read: nothing was sent.
    pub fn send(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let socket = self.0.get_ref().as_raw_fd();
        loop {
            match socket::sendmsg::<()>(socket, &[IoSlice::new(packet)], control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The socket itself, to be kept by the supervisor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Ends the connection: every receive from now on says that the peer has closed.
    pub fn shut_down(&self) {
        // An error means that it has ended already.
        let _ = socket::shutdown(self.0.get_ref().as_raw_fd(), socket::Shutdown::Both);
    }

    /// Throws away what has come and was not received, `limit` packets at most.
    ///
    /// # Errors
    /// The socket failed.
    pub fn discard(&self, limit: usize) -> io::Result<()> {
        for _ in 0..limit {
            // Nothing is taken out of the packet: its bytes and fds go with it.
            match socket::recv(self.0.get_ref().as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) | Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The helper's receive: no control buffer, so any fd that came along is discarded.
    ///
    /// `None`: the peer closed, or sent an empty packet, which is treated the same.
    ///
    /// # Errors
    /// The packet was longer than [`MAX_PACKET`], or the socket failed.
    ///
    /// # Cancel safety
    /// A packet is taken only when it is returned.
    pub async fn receive_without_fd(&self) -> io::Result<Option<Received>> {
        self.receive(|socket| {
            let mut bytes = [0; MAX_PACKET];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = socket::recvmsg::<()>(socket, &mut parts, None, flags)?;
            // MSG_CTRUNC is what tells that fds came and were thrown away: misuse, like a long packet.
            let misuse = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
            let (len, refused) = (message.bytes, message.flags.intersects(misuse));
            Ok((Received { bytes, len, fd: None }, refused))
        })
        .await
    }

    /// The front-end's receive: takes one fd, close-on-exec, closes all others.
    ///
    /// `None`: the peer closed. A packet whose fd this process had no room for comes without it.
    ///
    /// # Errors
    /// The packet was longer than [`MAX_PACKET`], or the socket failed.
    ///
    /// # Cancel safety
    /// A packet is taken only when it is returned.
    pub async fn receive_with_fd(&self) -> io::Result<Option<Received>> {
        self.receive(|socket| {
            let mut bytes = [0; MAX_PACKET];
            let mut control = cmsg_space!([RawFd; MAX_FDS]);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = socket::recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
            let mut fds = Vec::new();
            // An error is MSG_CTRUNC: there is room for as many fds as can come, so it was this
            // process that could take no more, and the kernel has closed them.
            for part in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmRights(rights) = part {
                    fds.extend(rights.into_iter().map(own));
                }
            }
            let refused = message.flags.contains(MsgFlags::MSG_TRUNC);
            let (len, fd) = (message.bytes, fds.into_iter().next());
            Ok((Received { bytes, len, fd }, refused))
        })
        .await
    }

    async fn receive(
        &self,
        receive: impl Fn(RawFd) -> nix::Result<(Received, bool)>,
    ) -> io::Result<Option<Received>> {
        loop {
            let mut guard = self.0.readable().await?;
            match receive(self.0.get_ref().as_raw_fd()) {
                Ok((_, true)) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "packet too long, or with fds",
                    ));
                }
                Ok((received, false)) if received.len == 0 => return Ok(None),
                Ok((received, false)) => return Ok(Some(received)),
                Err(Errno::EAGAIN) => guard.clear_ready_matching(Ready::READABLE),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A listening SEQPACKET socket.
#[derive(Debug)]
pub struct PacketListener(AsyncFd<OwnedFd>);

impl PacketListener {
    /// Takes a listening socket, such as one made by [`listen`] or inherited.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(fd: OwnedFd) -> io::Result<PacketListener> {
        set_nonblocking(fd.as_fd())?;
        Ok(PacketListener(watch(fd, Interest::READABLE)?))
    }

    /// The next connection and who made it (SO_PEERCRED: as it was at connect).
    ///
    /// # Errors
    /// The kernel refuses, such as for want of fds.
    ///
    /// # Cancel safety
    /// A connection is taken only when it is returned.
    pub async fn accept(&self) -> io::Result<(PacketSocket, UnixCredentials)> {
        loop {
            let mut guard = self.0.readable().await?;
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            match socket::accept4(self.0.get_ref().as_raw_fd(), flags) {
                Ok(raw) => {
                    let fd = own(raw);
                    let peer = socket::getsockopt(&fd, socket::sockopt::PeerCredentials)?;
                    return Ok((PacketSocket::new(fd)?, peer));
                }
                Err(Errno::EAGAIN) => guard.clear_ready_matching(Ready::READABLE),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Makes a socket that listens at `path`, replacing a dead one of an earlier run.
///
/// # Errors
/// `AddrInUse` if somebody listens there; `AlreadyExists` if what is there is no socket; else what
/// the kernel says of the folder.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket"));
        }
        Ok(_) => match connect(path) {
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another helper listens there",
                ));
            }
            Err(_) => match std::fs::remove_file(path) {
                // Whoever was to remove it has done so just now.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        },
        Err(_) => {}
    }
    let fd = seqpacket()?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Between bind and chmod nobody can connect: the socket does not listen yet.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// Two sockets that are connected to each other.
///
/// # Errors
/// The system gives none.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Connects to the helper at `path`.
///
/// # Errors
/// Nobody listens there, or the socket is not for this user.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = seqpacket()?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

fn seqpacket() -> nix::Result<OwnedFd> {
    socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Takes ownership of an fd that the kernel has just given to this process.
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel returned `raw` as a new fd in the call just before; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
