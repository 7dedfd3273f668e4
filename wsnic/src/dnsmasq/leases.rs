//! Where dnsmasq writes its leases: a file that is opened for it, so that it need see no folder.
//!
//! Without `dhcp_lease_file` it is memory, which outlives dnsmasq with whoever started this process
//! (sd_pid_notify_with_fds(3)), and nothing else.

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use wsnic_os::notify::Notifier;
use wsnic_proto::settings::Network;

/// The name under which it is kept.
pub const STORED: &str = "leases";

/// Why leases cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// It cannot be opened or made.
    #[error(
        "cannot write the lease file {}, change dhcp_lease_file (under systemd it has to be in \
         /var/lib/wsnic-dnsmasq)", path.display()
    )]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a device, or one file under two names.
    #[error("{} is no ordinary file with one name, change dhcp_lease_file", .0.display())]
    NotAFile(PathBuf),
    /// No memory for it.
    #[error("cannot keep leases in memory")]
    Memory(#[source] io::Error),
}

/// The file of this network's leases; `kept` is the one that an earlier dnsmasq has written in memory.
///
/// # Errors
/// It cannot be had.
pub fn open(
    network: &Network,
    kept: Option<OwnedFd>,
    notifier: &Notifier,
) -> Result<File, LeaseFileError> {
    if let Some(path) = &network.dhcp.lease_file {
        return open_file(path);
    }
    if let Some(kept) = kept {
        return Ok(kept.into());
    }
    let memory = memfd_create(c"wsnic leases", MFdFlags::MFD_CLOEXEC)
        .map_err(|error| LeaseFileError::Memory(error.into()))?;
    notifier.store(STORED, memory.as_fd());
    Ok(memory.into())
}

/// This process is root: no link leads it elsewhere.
fn open_file(path: &Path) -> Result<File, LeaseFileError> {
    let failed = |source| LeaseFileError::Open { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(LeaseFileError::NotAFile(path.to_owned()));
    }
    // dnsmasq opens it again, as root that may not pass over the rights of others.
    if metadata.uid() != 0 {
        fchown(&file, Some(0), Some(0)).map_err(failed)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_folders_are_no_lease_files() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, other) =
            (dir.path().join("file"), dir.path().join("link"), dir.path().join("other"));
        assert!(open_file(&file).is_ok(), "made if it is not there");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(open_file(&link), Err(LeaseFileError::Open { .. })));
        assert!(matches!(open_file(dir.path()), Err(LeaseFileError::Open { .. })));
        std::fs::hard_link(&file, &other).unwrap();
        assert!(matches!(open_file(&file), Err(LeaseFileError::NotAFile(_))));
    }
}
