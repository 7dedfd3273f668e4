//! Namespaces of its own for a front-end that is started as root: empty network, empty root.
//!
//! Should leave: the sockets and files that are open. Must not leave: an interface, a path, a System
//! V object or a host name of the machine. Where systemd starts the front-end its unit does this.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, pivot_root, sethostname};

/// Any directory that every machine and container has; what is in it is hidden for a moment.
const MOUNT_POINT: &str = "/proc";
/// An empty directory that the image has.
const EMPTY: &str = "/var/empty";

/// Leaves the machine's network, IPC and UTS namespaces.
///
/// # Errors
/// This process has no CAP_SYS_ADMIN, as in most containers.
pub fn leave_network() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    sethostname("wsnic")
}

/// Makes an empty directory that cannot be written the root of this process, and lets go of
/// everything else. Where there may be no mount namespace, as in most containers, the root is
/// changed only: nobody gets back without a capability or an open directory, and it keeps neither.
///
/// # Errors
/// This process has neither CAP_SYS_ADMIN nor CAP_SYS_CHROOT and [`EMPTY`]. The root may have changed;
/// nothing that was reachable before is needed.
pub fn leave_files() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match unshare(CloneFlags::CLONE_NEWNS) {
        // What is missing is the namespace, whatever the second attempt says.
        Err(Errno::EPERM) => return chroot(EMPTY).and_then(|()| chdir("/")).or(Err(Errno::EPERM)),
        unshared => unshared?,
    }
    // So that nothing of this is seen outside.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let options = Some("mode=0555,size=4k,nr_inodes=2");
    mount(Some("wsnic"), MOUNT_POINT, Some("tmpfs"), flags, options)?;
    chdir(MOUNT_POINT)?;
    // The old root comes to lie over the new one, and is taken off (pivot_root(2)).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>)
}
