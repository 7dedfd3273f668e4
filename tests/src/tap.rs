//! TAPs of the tests as files: a guest's network card, made by the crate tun-tap, and one with
//! offloads, as a program beside the bridge has it.
#![allow(unsafe_code)]

use crate::Netns;
use nix::libc::{self, c_char, c_uint};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use tokio::io::unix::AsyncFd;
use tun_tap::{Iface, Mode};

/// A non-blocking TAP without packet information in a namespace.
///
/// # Panics
/// When it cannot be made: without root, or if there is one of this name.
pub fn open(netns: &Netns, name: &str) -> File {
    let tap =
        netns.enter(|| Iface::without_packet_info(name, Mode::Tap)).expect("a TAP can be made");
    tap.set_non_blocking().expect("a TAP can be non-blocking");
    // SAFETY: `into_raw_fd` gives up the only owner of an open fd.
    let fd = unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) };
    File::from(fd)
}

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);

/// A non-blocking TAP with a header before each frame (linux/virtio_net.h), which takes frames of
/// TCP that are not cut yet, and whether it takes those of UDP: Linux does since 6.2.
///
/// # Panics
/// As [`open`].
pub fn open_offloaded(netns: &Netns, name: &str) -> (File, bool) {
    let tap = netns.enter(|| attach(name));
    let set = |flags: c_uint| {
        // SAFETY: the fd is open and the argument is passed by value.
        unsafe { set_offload(tap.as_raw_fd(), flags as i32) }.is_ok()
    };
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let takes_udp = set(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6);
    assert!(takes_udp || set(tcp), "offloads of TCP can be set");
    (tap, takes_udp)
}

fn attach(name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let tap = options.open("/dev/net/tun").expect("/dev/net/tun can be opened");
    // SAFETY: ifreq is plain old data for which all zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the fd is open and the request lives across the call.
    let attached = unsafe { set_interface(tap.as_raw_fd(), &raw const request) };
    attached.expect("a TAP with offloads can be made");
    tap
}

/// Registers a TAP with the runtime that is entered.
pub(crate) fn register(tap: File) -> AsyncFd<File> {
    // SAFETY: a `File` is the same open fd until it is dropped, and `AsyncFd` owns it until then.
    let registered = unsafe { AsyncFd::register(tap) };
    registered.expect("a TAP can be waited for")
}
