//! The lease file on a real file system.

use super::*;
use crate::dhcp::HostName;
use crate::dhcp::lease_file::{LeaseFile, LeaseFileError, LeaseWarning, OpenedLeases, leases_in};
use crate::dhcp::lease_line::RECORD_LEN;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases");
    (directory, path)
}

fn open(path: &Path) -> OpenedLeases {
    LeaseFile::open(path, plan("192.168.86.0/24")).unwrap()
}

fn some(number: u32, last: u8, expiry: u64) -> Lease {
    let host_name = HostName::new(format!("guest-{number}").as_bytes());
    Lease { address: address(last), mac: mac(number), expiry, host_name }
}

#[test]
fn a_mac_keeps_its_address_across_a_restart() {
    let (_directory, path) = place();
    let mut opened = open(&path);
    assert_eq!(opened.leases, []);
    let mut first = Server::new(config("192.168.86.0/24"), opened.leases);
    for number in 1..=3 {
        offered(&mut first, 0, number.into(), number);
        let last = u8::try_from(number + 1).unwrap();
        let outcome = tell(&mut first, 0, number.into(), &Ask::selecting(number, address(last)));
        opened.file.store(&outcome.lease.unwrap()).unwrap();
    }
    let released = tell(&mut first, 10, 2, &Ask::release(2, address(3))).lease.unwrap();
    opened.file.store(&released).unwrap();
    opened.file.sync().unwrap();

    let opened = open(&path);
    assert_eq!(opened.warnings, []);
    let mut second = Server::new(config("192.168.86.0/24"), opened.leases);
    assert_eq!(lease(&mut second, 20, 13, 3), address(4));
    assert_eq!(lease(&mut second, 20, 14, 4), address(5), "live and remembered ones are spared");
    assert_eq!(lease(&mut second, 20, 12, 2), address(3));
}

#[test]
fn records_have_one_length_and_are_written_in_place() {
    let (_directory, path) = place();
    let mut file = open(&path).file;
    file.store(&some(1, 2, NOW)).unwrap();
    file.store(&some(2, 3, NOW)).unwrap();
    file.store(&some(9, 2, NOW + 5)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), 2 * RECORD_LEN);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "1764000005 02:22:00:00:00:09 192.168.86.2 guest-9 *",
            "1764000000 02:22:00:00:00:02 192.168.86.3 guest-2 *"
        ]
    );
}

#[test]
fn a_file_of_dnsmasq_is_read_and_made_ours() {
    let (_directory, path) = place();
    let long_id = "01:".repeat(60) + "ff";
    let text = format!(
        "1764000000 00:22:15:00:00:01 192.168.86.20 {} {long_id}\n\
         1764000001 00:22:15:00:00:02 192.168.86.21 bad_name *\n\
         duid 00:01:00:01:2c:aa\n\
         1764000000 353108 fd00::20 * 00:01:00:01\n\
         1764000000 00:22:15:00:00:03 10.0.0.5 * *\n\
         garbage\n\
         1764000009 00:22:15:00:00:02 192.168.86.22 * *\n",
        "h".repeat(63),
    );
    fs::write(&path, text).unwrap();
    let opened = open(&path);
    let known: Vec<_> = opened.leases.iter().map(|lease| (lease.address, lease.mac.0[5])).collect();
    assert_eq!(known, [(address(20), 1), (address(22), 2)]);
    let warnings: Vec<_> = opened.warnings.iter().map(LeaseWarning::to_string).collect();
    let path_text = fs::canonicalize(&path).unwrap().display().to_string();
    assert_eq!(
        warnings,
        [
            format!("{path_text}:5: 10.0.0.5 is not in the pool of 192.168.86.0/24, lease dropped"),
            format!("{path_text}:6: not a lease, line skipped"),
        ]
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * RECORD_LEN as u64);
}

#[test]
fn a_crash_at_any_byte_of_the_last_record_spares_the_others() {
    let (_directory, path) = place();
    let mut file = open(&path).file;
    let leases = [some(1, 20, NOW), some(2, 21, NOW + 1), some(3, 22, NOW + 2)];
    for lease in &leases {
        file.store(lease).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 3 * RECORD_LEN);
    for offset in 2 * RECORD_LEN..whole.len() {
        let mut torn = vec![whole[..offset].to_vec()];
        for byte in [0, b'X', b'\n', b' ', 0xff] {
            let mut changed = whole.clone();
            changed[offset] = byte;
            torn.push(changed);
            let mut rest = whole[..offset].to_vec();
            rest.resize(whole.len(), byte);
            torn.push(rest);
        }
        for bytes in torn {
            // What `open` reads; all of it, with its waits for the disk, at some offsets only.
            let (found, _) = leases_in(&bytes, &path, plan("192.168.86.0/24")).unwrap();
            if offset % 31 == 0 {
                fs::write(&path, &bytes).unwrap();
                assert_eq!(open(&path).leases, found);
            }
            assert_eq!(found[..2], leases[..2], "offset {offset}");
            assert!(found.len() <= 3);
            if let Some(third) = found.get(2) {
                assert_eq!(third.address.octets()[..3], [192, 168, 86], "offset {offset}");
            }
        }
    }
}

#[test]
fn a_record_in_the_middle_that_is_lost_spares_its_neighbours() {
    let (_directory, path) = place();
    let mut file = open(&path).file;
    let leases = [some(1, 20, NOW), some(2, 21, NOW + 1), some(3, 22, NOW + 2)];
    for lease in &leases {
        file.store(lease).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    for (start, end) in [(0, RECORD_LEN), (RECORD_LEN / 2, RECORD_LEN), (127, 128), (0, 130)] {
        for byte in [0, b'X', 0xff] {
            let mut bytes = whole.clone();
            bytes[RECORD_LEN..][start..end.min(RECORD_LEN)].fill(byte);
            fs::write(&path, &bytes).unwrap();
            let opened = open(&path);
            assert!(opened.leases.contains(&leases[0]) && opened.leases.contains(&leases[2]));
        }
    }
}

#[test]
fn of_two_leases_of_an_address_or_a_mac_the_later_end_counts() {
    let (_directory, path) = place();
    let text = "300 02:00:00:00:00:01 192.168.86.2 * *\n\
                200 02:00:00:00:00:02 192.168.86.2 * *\n\
                400 02:00:00:00:00:01 192.168.86.3 * *\n\
                100 02:00:00:00:00:01 192.168.86.4 * *\n";
    fs::write(&path, text).unwrap();
    let leases = open(&path).leases;
    assert_eq!(leases.len(), 1);
    assert_eq!((leases[0].address, leases[0].expiry), (address(3), 400));
}

#[test]
fn permissions_and_links_survive_and_leftovers_do_not() {
    let (directory, path) = place();
    fs::write(&path, "1764000000 02:00:00:00:00:01 192.168.86.2 * *\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.path().join(".leases.new"), "left by a kill").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(open(&link).leases.len(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn what_is_no_lease_file_is_refused_and_left_alone() {
    let (directory, path) = place();
    let text = "root:x:0:0:root:/root:/bin/sh\nnobody:x:1:1::/:/bin/false\n";
    fs::write(&path, text).unwrap();
    let open = |path: &Path| LeaseFile::open(path, plan("192.168.86.0/24")).unwrap_err();
    let error = open(&path);
    assert!(matches!(error, LeaseFileError::NotALeaseFile { .. }), "{error}");
    assert!(error.to_string().contains("leases is not a lease file but"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(matches!(open(directory.path()), LeaseFileError::NotALeaseFile { .. }));
    assert!(matches!(open(Path::new("/dev/null")), LeaseFileError::NotALeaseFile { .. }));
    let missing = open(&directory.path().join("missing/leases"));
    assert!(matches!(missing, LeaseFileError::NoDirectory { .. }), "{missing}");
}

#[test]
fn a_file_is_written_over_where_it_cannot_be_replaced() {
    let (directory, path) = place();
    fs::write(&path, "1764000000 02:00:00:00:00:01 192.168.86.2 * *\njunk\n\n\n").unwrap();
    // A directory in the place of the new file stops even root from making it.
    fs::create_dir(directory.path().join(".leases.new")).unwrap();
    let mut opened = open(&path);
    assert_eq!(opened.leases.len(), 1);
    opened.file.store(&some(7, 9, NOW)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * RECORD_LEN as u64);
    assert_eq!(open(&path).leases.len(), 2);
}
