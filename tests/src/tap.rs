//! A guest's network card: a TAP made by the crate tun-tap, as a file that can be waited for.
#![allow(unsafe_code)]

use crate::Netns;
use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tun_tap::{Iface, Mode};

/// A non-blocking TAP without packet information in a namespace.
pub(crate) fn open(netns: &Netns, name: &str) -> File {
    let tap =
        netns.enter(|| Iface::without_packet_info(name, Mode::Tap)).expect("a TAP can be made");
    tap.set_non_blocking().expect("a TAP can be non-blocking");
    // SAFETY: `into_raw_fd` gives up the only owner of an open fd.
    let fd = unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) };
    File::from(fd)
}

/// Registers a TAP with the runtime that is entered.
pub(crate) fn register(tap: File) -> AsyncFd<File> {
    // SAFETY: a `File` is the same open fd until it is dropped, and `AsyncFd` owns it until then.
    let registered = unsafe { AsyncFd::register(tap) };
    registered.expect("a TAP can be waited for")
}
