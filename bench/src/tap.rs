//! Making TAPs for relays and guests, with offloads where they are wanted.
#![allow(unsafe_code)]

use nix::libc::{self, c_int, c_short};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use tokio::io::unix::AsyncFd;

/// TUN_F_CSUM | TUN_F_TSO4 (linux/if_tun.h): the reader finishes checksums and cuts TCP over IPv4.
/// That is all that is measured here, so nothing else needs to be cut.
const OFFLOADS: c_int = 0x01 | 0x02;

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);

/// A non-blocking TAP without packet information; with `offloads`, each frame stands behind a
/// virtio_net_hdr of 10 bytes.
pub fn create(name: &str, offloads: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun")?;
    // SAFETY: ifreq is plain old data for which all zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "an interface's name is short");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let header = if offloads { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as c_short;
    // SAFETY: the fd is open and `request` is an ifreq that lives across the call.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
    if offloads {
        // SAFETY: the fd is open and the argument is passed by value.
        unsafe { set_offload(file.as_raw_fd(), OFFLOADS) }?;
    }
    Ok(file)
}

/// Registers a TAP with the runtime that is entered.
pub fn register(tap: File) -> AsyncFd<File> {
    // SAFETY: a `File` is the same open fd until it is dropped, and `AsyncFd` owns it until then.
    let registered = unsafe { AsyncFd::register(tap) };
    registered.expect("a TAP can be waited for")
}
