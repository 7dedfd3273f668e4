//! Locking the front-end in, before the first byte of a client is read.
//!
//! Called by `startup` when everything is open: [`Closed::enter`] gives up root, files and the
//! machine's namespaces, then threads are started, then [`Closed::seal`] leaves only the system
//! calls below. Only that makes a [`Sandboxed`], without which no session can be served.

use crate::namespaces;
use nix::libc;
use nix::unistd::Uid;
use wsnic_os::sandbox::seccomp::{Allowed, Check};
use wsnic_os::sandbox::{CloseError, Parts, Role, SandboxError, landlock, process};
use wsnic_proto::Settings;

/// nobody and nogroup where there is no /etc/passwd, as in small containers.
const NOBODY: u32 = 65534;

/// The proof that this process is locked in as far as the option `sandbox` demands: only
/// [`Closed::seal`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Sandboxed(());

/// A process that may start threads, and nothing else that it will not need later.
#[derive(Debug)]
pub struct Closed {
    parts: Parts,
    files: u64,
}

impl Closed {
    /// Gives up everything but memory, threads and what is open; at most `files` fds from now on.
    ///
    /// # Errors
    /// The process must end: it may hold more than it should.
    pub fn enter(settings: &Settings, files: u64) -> Result<Closed, CloseError> {
        let mut parts = Parts::new(settings.sandbox);
        let role = Role {
            option: "user",
            configured: settings.user.as_deref(),
            users: &["wsnic", "nobody"],
            nobody: NOBODY,
        };
        let user = role.choose()?;
        if Uid::effective().is_root() {
            parts.add("a network of its own", namespaces::leave_network)?;
            parts.add("an empty root directory", namespaces::leave_files)?;
        }
        parts.give_up_root(user, &[], |_| Ok::<(), SandboxError>(()))?;
        parts.add("protection from core dumps", process::keep_secrets)?;
        parts.add("Landlock", || landlock::restrict(&[]))?;
        Ok(Closed { parts, files })
    }

    /// Leaves only the system calls that serving needs. No thread can be started any more.
    ///
    /// # Errors
    /// As [`Closed::enter`].
    pub fn seal(self) -> Result<Sandboxed, CloseError> {
        let Closed { mut parts, files } = self;
        parts.add("resource limits", || process::limit(files))?;
        parts.add("a seccomp filter", || allowed().enforce())?;
        parts.report();
        Ok(Sandboxed(()))
    }
}

/// What serving needs: no ioctl, open, socket, connect, bind, exec or clone.
fn allowed() -> Allowed {
    let option = |level: i32, name: i32| {
        [(1, Check::Is(level.cast_unsigned())), (2, Check::Is(name.cast_unsigned()))]
    };
    Allowed::base()
        // Frames, WebSockets, the helper, the supervisor. Sockets come by accept and from nowhere else.
        .calls(&[
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_recvfrom,
            libc::SYS_sendto,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_accept4,
            libc::SYS_shutdown,
        ])
        .checked(libc::SYS_setsockopt, &option(libc::IPPROTO_TCP, libc::TCP_NODELAY))
        .checked(libc::SYS_setsockopt, &option(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT))
        // The lease file, which is open.
        .calls(&[libc::SYS_pwrite64, libc::SYS_fdatasync])
}
