//! Locking the helper in, before it touches the network or hears its peer.
//!
//! Should leave: netlink, /dev/net/tun, settings below /proc/sys/net, reading configuration. Must not
//! leave: root, another capability, another program, any other file to write.

use crate::tap::{DEVICE, DEVICE_NUMBER, IOCTLS};
use caps::Capability::CAP_NET_ADMIN;
use nix::libc;
use std::path::Path;
use wsnic_os::sandbox::landlock::Use;
use wsnic_os::sandbox::seccomp::{Allowed, Check};
use wsnic_os::sandbox::{CloseError, Parts, Role, device, landlock, process};
use wsnic_proto::Settings;

/// A number that neither Debian nor systemd gives to anybody (Debian policy 9.2.2: 65000 to 65533
/// reserved; systemd UIDS-GIDS: 65520 to 65533 unused), and not the front-end's.
const NOBODY: u32 = 65523;
/// Fds: eight front-ends, netlink, a TAP on its way, and room.
const MAX_FDS: u64 = 256;

/// A helper that may still start threads.
pub struct Closed(Parts);

impl Closed {
    /// Becomes an ordinary user with CAP_NET_ADMIN alone, who can open few files; `config` is one.
    ///
    /// # Errors
    /// The process must end: it may hold more than it should.
    pub fn enter(settings: &Settings, config: Option<&Path>) -> Result<Closed, CloseError> {
        let mut parts = Parts::new(settings.sandbox);
        let role = Role {
            option: "helper_user",
            configured: settings.helper_user.as_deref(),
            users: &["wsnic-priv"],
            nobody: NOBODY,
        };
        let open_device = |user| device::open_to(user, Path::new(DEVICE), DEVICE_NUMBER);
        parts.give_up_root(role.choose()?, &[CAP_NET_ADMIN], open_device)?;
        parts.add("protection from core dumps", process::keep_secrets)?;
        let named =
            [Some(Path::new("/etc/resolv.conf")), config].map(|file| file?.canonicalize().ok());
        // What /etc/resolv.conf is a link to, what stands behind a stub, and the configuration.
        let read = named.iter().flatten().filter_map(|file| file.parent());
        let read = read.chain([Path::new("/etc"), Path::new("/run")]).map(|dir| (dir, Use::Read));
        let mut files: Vec<(&Path, Use)> = read.collect();
        files.push((Path::new(DEVICE), Use::Device));
        files.push((Path::new("/proc/sys/net"), Use::Write));
        parts.add("Landlock", || landlock::restrict(&files))?;
        Ok(Closed(parts))
    }

    /// Leaves only the system calls that serving needs. No thread can be started any more.
    ///
    /// # Errors
    /// As [`Closed::enter`].
    pub fn seal(self) -> Result<(), CloseError> {
        let Closed(mut parts) = self;
        parts.add("resource limits", || process::limit(MAX_FDS))?;
        parts.add("a seccomp filter", || allowed().enforce())?;
        parts.report();
        Ok(())
    }
}

/// What serving needs: netlink and the front-end's socket, TAPs, reading files. No exec, clone or
/// connect, no socket of another family, no new file.
fn allowed() -> Allowed {
    let is = |value: i32| Check::Is(value.cast_unsigned());
    let ioctls = IOCTLS.iter().fold(Allowed::base(), |allowed, request| {
        allowed.checked(libc::SYS_ioctl, &[(1, Check::Is(*request))])
    });
    ioctls
        // netlink-sys makes its sockets non-blocking by it.
        .checked(libc::SYS_ioctl, &[(1, Check::Is(libc::FIONBIO as u32))])
        .checked(libc::SYS_socket, &[(0, is(libc::AF_NETLINK))])
        .looking()
        .opening()
        .calls(&[
            libc::SYS_bind,
            libc::SYS_getsockname,
            libc::SYS_setsockopt,
            libc::SYS_getsockopt,
            libc::SYS_accept4,
            libc::SYS_shutdown,
            libc::SYS_recvfrom,
            libc::SYS_sendto,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_lseek,
            libc::SYS_fcntl,
            libc::SYS_capget,
            // The janitor of a socket that this process has made.
            libc::SYS_wait4,
        ])
}
