//! Locking the helper in, before it touches the network or hears its peer.
//!
//! Should leave: netlink, /dev/net/tun, settings below /proc/sys/net, reading configuration. Must not
//! leave: root, another capability, another program, any other file to write.

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Uid, chown};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wsnic_os::privileges::{self, Identity, PrivilegeError};
use wsnic_os::sandbox::landlock::Use;
use wsnic_os::sandbox::seccomp::{Allowed, Check};
use wsnic_os::sandbox::{Parts, SandboxError, landlock, process};
use wsnic_proto::Settings;
use wsnic_proto::settings::Sandbox as Level;

use crate::tap::{DEVICE, DEVICE_NUMBER, IOCTLS};
use caps::Capability::CAP_NET_ADMIN;

/// Who is tried, when the configuration names nobody.
const USERS: [&str; 1] = ["wsnic-priv"];
/// A number that neither Debian nor systemd gives to anybody (Debian policy 9.2.2: 65000 to 65533
/// reserved; systemd UIDS-GIDS: 65520 to 65533 unused), and not the front-end's.
const NOBODY: u32 = 65523;
/// Fds: eight front-ends, netlink, a TAP on its way, and room.
const MAX_FDS: u64 = 256;

/// Why the helper could not be locked in.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Root could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// A part is missing and required.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// The user may not open /dev/net/tun, and cannot be given one.
#[derive(Debug, thiserror::Error)]
#[error("{DEVICE} is closed to other users (chmod 0666 {DEVICE} opens it)")]
struct NoDevice(#[source] nix::Error);

/// A helper that may still start threads.
pub struct Closed(Parts);

impl Closed {
    /// Becomes an ordinary user with CAP_NET_ADMIN alone, who can open few files; `config` is one.
    ///
    /// # Errors
    /// The process must end: it may hold more than it should.
    pub fn enter(settings: &Settings, config: Option<&Path>) -> Result<Closed, CloseError> {
        let mut parts = Parts::new(settings.sandbox);
        if Uid::effective().is_root() {
            let user =
                Identity::choose("helper_user", settings.helper_user.as_deref(), &USERS, NOBODY)?;
            let device = match settings.sandbox {
                Level::Off => None,
                _ => parts.add("a user other than root", || open_device_to(user))?,
            };
            privileges::bound(&[CAP_NET_ADMIN])?;
            if device.is_some() {
                parts.add("a user other than root", || user.assume())?;
            }
        }
        privileges::keep(&[CAP_NET_ADMIN])?;
        parts.add("protection from core dumps", process::keep_secrets)?;
        let mut files: Vec<(PathBuf, Use)> = vec![
            (DEVICE.into(), Use::Device),
            ("/proc/sys/net".into(), Use::Write),
            // resolv.conf and what stands behind a stub, and the configuration.
            ("/etc".into(), Use::Read),
            ("/run".into(), Use::Read),
        ];
        for file in [Some(Path::new("/etc/resolv.conf")), config].into_iter().flatten() {
            let file = file.canonicalize().ok();
            files.extend(
                file.iter().filter_map(|file| file.parent()).map(|dir| (dir.into(), Use::Read)),
            );
        }
        let files: Vec<_> =
            files.iter().map(|(path, allowed)| (path.as_path(), *allowed)).collect();
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

/// Where others than root may not open the device, `user` gets a node of its own, which nobody
/// else sees.
fn open_device_to(user: Identity) -> Result<(), NoDevice> {
    let is_open = |meta: std::fs::Metadata| meta.mode() & 0o006 == 0o006;
    // What is missing is found out, and said, by who looks at the machine.
    if std::fs::metadata(DEVICE).map_or(true, is_open) {
        return Ok(());
    }
    let make = || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("wsnic"),
            "/dev/net",
            Some("tmpfs"),
            flags,
            Some("mode=0755,size=4k,nr_inodes=2"),
        )?;
        let (major, minor) = DEVICE_NUMBER;
        mknod(DEVICE, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
        chown(DEVICE, Some(user.uid), Some(user.gid))
    };
    make().map_err(NoDevice)
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
        .checked(libc::SYS_openat, &[(2, Check::Lacks(libc::O_CREAT.cast_unsigned()))])
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
            libc::SYS_statx,
            libc::SYS_fstat,
            libc::SYS_newfstatat,
            libc::SYS_lseek,
            libc::SYS_fcntl,
            libc::SYS_capget,
            // The janitor of a socket that this process has made.
            libc::SYS_wait4,
        ])
}
