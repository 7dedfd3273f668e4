//! Frames straight into an interface's queue, past the kernel's IP stack (packet(7)): the cheapest
//! sender there is, so that the server is what is measured.
#![allow(unsafe_code)]

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Opens a socket on an interface of the thread's namespace. What it sends leaves by the interface at
/// once, or is lost.
pub fn open(interface: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    // SAFETY: socket() has no preconditions.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this fd, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let yes: libc::c_int = 1;
    let len = size_of_val(&yes) as libc::socklen_t;
    // SAFETY: the option's value is an int that lives across the call.
    let set = unsafe {
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const yes).cast(), len)
    };
    // SAFETY: sockaddr_ll is plain old data for which all zero bytes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of that length and lives across the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if set < 0 || bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
