//! A device node for one user, where the machine's own is closed to all but root.

use crate::privileges::Identity;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::chown;
use std::fs::{Metadata, metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The user may not open the device, and cannot be given one.
#[derive(Debug, thiserror::Error)]
#[error("{0} is closed to other users (chmod 0666 {0} opens it)")]
pub struct NoDevice(String, #[source] nix::Error);

/// Makes sure that `user` can open the character device at `path`: where its mode does not let
/// everybody, this process gets a mount namespace with a node that belongs to `user`, alone in its
/// directory. A device that is missing stays so.
///
/// # Errors
/// This process has no CAP_SYS_ADMIN or CAP_MKNOD, as in most containers.
pub fn open_to(user: Identity, path: &Path, (major, minor): (u64, u64)) -> Result<(), NoDevice> {
    let is_open = |found: Metadata| found.mode() & 0o006 == 0o006;
    if metadata(path).map_or(true, is_open) {
        return Ok(());
    }
    let make = || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let options = Some("mode=0755,size=4k,nr_inodes=2");
        mount(Some("wsnic"), path.parent().unwrap_or(path), Some("tmpfs"), flags, options)?;
        mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
        chown(path, Some(user.uid), Some(user.gid))
    };
    make().map_err(|source| NoDevice(path.display().to_string(), source))
}
