//! The file that keeps leases across restarts.
//!
//! [`LeaseFile::open`] runs before the sandbox closes: it reads the file by its path and writes it
//! anew. Afterwards only the open descriptor is used (pwrite, fdatasync). The only file of the DHCP
//! server that does I/O.
//!
//! Each address has its own record of [`RECORD_LEN`] bytes, and each change is one write of one
//! record, so a crash at any moment spoils that record at most. A record that cannot be read is
//! skipped with a warning. The lines are dnsmasq's, padded with spaces: dnsmasq's files are read,
//! and dnsmasq reads these.

use super::Lease;
use super::lease_line::{Line, RECORD_LEN, format, parse};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use wsnic_proto::{MacAddr, Plan};

/// The open lease file.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    file: File,
    /// Which record is whose.
    records: HashMap<Ipv4Addr, u64>,
}

/// What was found at start.
#[derive(Debug)]
pub(crate) struct OpenedLeases {
    /// The file, for [`LeaseFile::store`].
    pub(crate) file: LeaseFile,
    /// For [`super::Server::new`]; those that have ended are memories of who had which address.
    pub(crate) leases: Vec<Lease>,
    /// For the log, at most one per line.
    pub(crate) warnings: Vec<LeaseWarning>,
}

/// A line of the file that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseWarning {
    /// Torn or foreign.
    #[error("{path}:{line}: not a lease, line skipped", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Not an address of this network's guests.
    #[error("{path}:{line}: {address} is not in the pool of {subnet}, lease dropped", path = path.display())]
    OutsidePool {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The address.
        address: Ipv4Addr,
        /// The network.
        subnet: wsnic_proto::Cidr,
    },
}

/// Why leases cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseFileError {
    /// It is there and cannot be read.
    #[error("cannot read the lease file {path}, make it readable for this user or change dhcp_lease_file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its directory is missing.
    #[error("cannot make the lease file {path} because its directory is missing, create it or change dhcp_lease_file", path = path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, or too large.
    #[error("{path} is not a lease file but {what}, change dhcp_lease_file", path = path.display())]
    NotALeaseFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Neither the file nor its directory can be written.
    #[error("cannot write the lease file {path}, make it writable for this user or change dhcp_lease_file", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Bytes of the largest file that is read: four times the records of the largest pool.
const MAX_FILE_LEN: u64 = 32 << 20;

impl LeaseFile {
    /// Opens the file at `path`, makes it if it is missing, and writes it anew with one record for
    /// each address of `plan` that it names: of two leases of an address or a MAC the later expiry
    /// counts.
    ///
    /// # Errors
    /// The path is not a lease file, or cannot be read or written. The file is then as it was.
    pub(crate) fn open(path: &Path, plan: Plan) -> Result<OpenedLeases, LeaseFileError> {
        // A link stays a link: what is replaced is the file that it points to.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let bytes = read(path)?;
        let (leases, warnings) = leases_in(&bytes, path, plan)?;
        let new: Vec<u8> = leases.iter().flat_map(format).collect();
        let failed = |source| LeaseFileError::Write { path: path.clone(), source };
        let file = replace(path, &new).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Err(LeaseFileError::NoDirectory { path: path.clone() }),
            // The directory is somebody else's, the file may still be ours.
            _ if path.exists() => rewrite(path, &new).map_err(failed),
            _ => Err(failed(error)),
        })?;
        let records = leases.iter().map(|lease| lease.address).zip(0..).collect();
        Ok(OpenedLeases { file: LeaseFile { file, records }, leases, warnings })
    }

    /// Writes `lease` over the record of its address. It survives the end of this process at once
    /// and a power cut after [`LeaseFile::sync`].
    ///
    /// # Errors
    /// The write fails, such as on a full disk. The lease is good nevertheless; only its memory is not.
    pub(crate) fn store(&mut self, lease: &Lease) -> io::Result<()> {
        let end = self.records.len() as u64;
        let record = self.records.get(&lease.address).copied().unwrap_or(end);
        self.file.write_all_at(&format(lease), record * RECORD_LEN as u64)?;
        self.records.insert(lease.address, record);
        Ok(())
    }

    /// Waits until what was stored is on the disk; may take tens of milliseconds.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What is in the file; nothing if there is none.
fn read(path: &Path) -> Result<Vec<u8>, LeaseFileError> {
    let not = |what| LeaseFileError::NotALeaseFile { path: path.to_owned(), what };
    let failed = |source| LeaseFileError::Read { path: path.to_owned(), source };
    // Asked before it is opened, since opening a pipe would wait.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    if metadata.is_dir() {
        return Err(not("a directory"));
    }
    if !metadata.is_file() {
        return Err(not("a device or a socket"));
    }
    if metadata.len() > MAX_FILE_LEN {
        return Err(not("larger than 32 MiB"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_LEN).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The leases that count, in the order of their addresses' first mention, and what does not.
pub(super) fn leases_in(
    bytes: &[u8],
    path: &Path,
    plan: Plan,
) -> Result<(Vec<Lease>, Vec<LeaseWarning>), LeaseFileError> {
    let mut kept = Kept::default();
    let mut warnings = Vec::new();
    let mut known = 0_usize;
    let mut offset = 0;
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let mut parsed = vec![parse(line)];
        // Records whose newline was lost: each begins where it would have begun.
        if parsed == [Line::Bad] && line.len() >= RECORD_LEN && offset % RECORD_LEN == 0 {
            parsed = line.chunks(RECORD_LEN).map(|record| parse(strip_last(record))).collect();
        }
        offset += line.len() + 1;
        for line in parsed {
            known += usize::from(line != Line::Bad);
            let path = path.to_owned();
            match line {
                Line::Lease(lease) if plan.pool_index(lease.address).is_some() => kept.add(lease),
                Line::Lease(Lease { address, .. }) => {
                    let subnet = plan.subnet();
                    warnings.push(LeaseWarning::OutsidePool {
                        path,
                        line: number,
                        address,
                        subnet,
                    });
                }
                Line::Other => {}
                Line::Bad => warnings.push(LeaseWarning::Unreadable { path, line: number }),
            }
        }
    }
    // Somebody's text file, named by mistake, must not be overwritten. What follows its last
    // newline counts as an empty line.
    let empty_end = usize::from(bytes.ends_with(b"\n"));
    if known == empty_end && warnings.len() > 1 {
        let what = "a file without any lease in it";
        return Err(LeaseFileError::NotALeaseFile { path: path.to_owned(), what });
    }
    Ok((kept.leases.into_iter().flatten().collect(), warnings))
}

/// A record cut from a line that lost newlines has some other byte in place of its newline.
fn strip_last(record: &[u8]) -> &[u8] {
    record.get(..RECORD_LEN - 1).unwrap_or(record)
}

/// One lease for each address and each MAC, the one with the later expiry.
#[derive(Default)]
struct Kept {
    leases: Vec<Option<Lease>>,
    by_address: HashMap<Ipv4Addr, usize>,
    by_mac: HashMap<MacAddr, usize>,
}

impl Kept {
    fn add(&mut self, lease: Lease) {
        let rivals = [self.by_address.get(&lease.address), self.by_mac.get(&lease.mac)];
        let rivals = rivals.map(|place| place.copied());
        let later = |place: usize| {
            self.leases.get(place).into_iter().flatten().any(|other| other.expiry > lease.expiry)
        };
        if rivals.into_iter().flatten().any(later) {
            return;
        }
        for place in rivals.into_iter().flatten() {
            if let Some(other) = self.leases.get_mut(place).and_then(Option::take) {
                self.by_address.remove(&other.address);
                self.by_mac.remove(&other.mac);
            }
        }
        self.by_address.insert(lease.address, self.leases.len());
        self.by_mac.insert(lease.mac, self.leases.len());
        self.leases.push(Some(lease));
    }
}

/// Puts a new file in the place of the old one: after a crash either is there, whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    let beside = directory.join(name);
    // What an earlier start left when it was killed here.
    let _ = fs::remove_file(&beside);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&beside)?;
    let moved = (|| {
        if let Ok(metadata) = fs::metadata(path) {
            // Only root may give files away; whoever is not root owned it before.
            let _ = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
            file.set_permissions(metadata.permissions())?;
        }
        (&file).write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(error) = moved {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    // Some file systems cannot sync a directory; the file itself is whole.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(file)
}

/// Writes over the file where no other can be put in its place.
fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    Ok(file)
}
