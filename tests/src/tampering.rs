//! What the holder of a TAP's fd can do to the TAP by ioctls, which no front-end issues.
#![allow(unsafe_code)]

use nix::libc::{self, c_int};
use std::os::fd::{AsRawFd, OwnedFd};

nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
nix::ioctl_write_int_bad!(set_owner, libc::TUNSETOWNER);
nix::ioctl_write_int_bad!(set_group, libc::TUNSETGROUP);
nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
nix::ioctl_write_ptr_bad!(set_carrier, libc::TUNSETCARRIER, c_int);
nix::ioctl_write_ptr_bad!(set_sndbuf, libc::TUNSETSNDBUF, c_int);
nix::ioctl_write_ptr_bad!(set_address, libc::SIOCSIFHWADDR, libc::ifreq);

/// An ioctl on a TAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// SIOCSIFHWADDR: another MAC address.
    Address,
    /// TUNSETPERSIST: the TAP outlives its fd.
    Persist,
    /// TUNSETOWNER: another user may attach to it.
    Owner,
    /// TUNSETGROUP: another group may.
    Group,
    /// TUNSETCARRIER: the cable is pulled out.
    Carrier,
    /// TUNSETOFFLOAD: checksums are left to the reader.
    Offload,
    /// TUNSETSNDBUF: frames that may wait on their way to the bridge.
    SendBuffer,
}

impl Tampering {
    /// Does it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn apply(self, tap: &OwnedFd) {
        const USER: c_int = 65534;
        let fd = tap.as_raw_fd();
        let outcome = match self {
            Tampering::Address => {
                // SAFETY: ifreq is plain old data for which all zero bytes are a valid value.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                let mut sa_data = [0; 14];
                sa_data[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
                let address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
                request.ifr_ifru.ifru_hwaddr = address;
                // SAFETY: the fd is open and `request` lives across the call.
                unsafe { set_address(fd, &raw const request) }
            }
            // SAFETY: the fd is open and the argument is passed by value.
            Tampering::Persist => unsafe { set_persist(fd, 1) },
            // SAFETY: as above.
            Tampering::Owner => unsafe { set_owner(fd, USER) },
            // SAFETY: as above.
            Tampering::Group => unsafe { set_group(fd, USER) },
            // SAFETY: the fd is open and the number lives across the call.
            Tampering::Carrier => unsafe { set_carrier(fd, &raw const OFF) },
            // SAFETY: the fd is open and the argument, TUN_F_CSUM, is passed by value.
            Tampering::Offload => unsafe { set_offload(fd, 1) },
            // SAFETY: the fd is open and the number lives across the call.
            Tampering::SendBuffer => unsafe { set_sndbuf(fd, &raw const BYTES) },
        };
        outcome.unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

static OFF: c_int = 0;
static BYTES: c_int = 65536;
