//! Making a TAP: the helper's only use of /dev/net/tun, and its only ioctls.
//!
//! The fd goes to the front-end, which may issue no ioctl: everything that belongs to the fd is set
//! here. What belongs to the interface (MTU, bridge, up) is set by `link`.
#![allow(unsafe_code)]

use nix::libc::{self, c_char, c_int, c_short, ifreq};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use wsnic_proto::offload::Offloads;

/// Where TAPs come from.
pub const DEVICE: &str = "/dev/net/tun";
/// Its major and minor number (Documentation/admin-guide/devices.txt).
pub const DEVICE_NUMBER: (u64, u64) = (10, 200);
/// Every ioctl that this file makes; the sandbox lets no other through.
pub const IOCTLS: [u32; 4] = [
    libc::TUNSETIFF as u32,
    libc::TUNSETOWNER as u32,
    libc::TUNSETGROUP as u32,
    libc::TUNSETOFFLOAD as u32,
];
/// IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL (linux/if_tun.h): frames without a header, and never an
/// interface that exists already.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, ifreq);
nix::ioctl_write_int_bad!(tun_set_owner, libc::TUNSETOWNER);
nix::ioctl_write_int_bad!(tun_set_group, libc::TUNSETGROUP);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

/// Makes the TAP `name`, which vanishes when the last copy of the returned fd is closed, with those of
/// the `wanted` offloads or fewer that the kernel has, which are returned; with any, each frame has a
/// virtio_net_hdr before it.
///
/// The fd is non-blocking and close-on-exec. Owner and group are 0 at once, so that no other user
/// can attach to the interface through /dev/net/tun.
///
/// # Errors
/// The device is missing or not permitted, or an interface of this name exists (`EBUSY`).
pub fn create(name: &str, wanted: Offloads) -> io::Result<(OwnedFd, Offloads)> {
    for offloads in [Offloads::ALL, Offloads::TCP].into_iter().filter(|set| set.0 & !wanted.0 == 0)
    {
        match make(name, offloads) {
            // The kernel does not know them.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            made => return Ok((made?, offloads)),
        }
    }
    Ok((make(name, Offloads::NONE)?, Offloads::NONE))
}

fn make(name: &str, offloads: Offloads) -> io::Result<OwnedFd> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    // SAFETY: ifreq is plain old data for which all zero bytes are a valid value.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let header = if offloads.has_header() { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (FLAGS | header) as c_short;
    // SAFETY: the fd is open and `request` is an ifreq that lives across the call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    // SAFETY: the fd is open and the argument is passed by value.
    unsafe { tun_set_owner(file.as_raw_fd(), 0) }?;
    // SAFETY: as above.
    unsafe { tun_set_group(file.as_raw_fd(), 0) }?;
    if offloads.has_header() {
        // SAFETY: as above.
        unsafe { tun_set_offload(file.as_raw_fd(), offloads.0.cast_signed()) }?;
    }
    Ok(file.into())
}
