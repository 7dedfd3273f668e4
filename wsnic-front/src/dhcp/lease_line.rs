//! One line of the lease file, in dnsmasq's format: `expiry mac address hostname clientid`.
//!
//! Called by `lease_file`. Does no I/O and panics on no bytes.

use super::{HostName, Lease};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of a line as it is written, newline included. 117 are the most that one needs, and a
/// power of two never crosses a disk sector, which is written wholly or not at all.
pub(super) const RECORD_LEN: usize = 128;

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A lease of an IPv4 address.
    Lease(Lease),
    /// Nothing, a comment, or what dnsmasq keeps for IPv6.
    Other,
    /// Torn, or never a lease.
    Bad,
}

/// What `line`, without its newline, is.
pub(super) fn parse(line: &[u8]) -> Line {
    let Ok(text) = std::str::from_utf8(line) else { return Line::Bad };
    // A file system that crashed may leave zeroes where a record was to be.
    let text = text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace());
    if text.is_empty() || text.starts_with('#') || text.starts_with("duid ") {
        return Line::Other;
    }
    // All five, so that what stands before the last field is known to be whole.
    let mut fields = text.split_ascii_whitespace();
    let (Some(expiry), Some(mac), Some(address), Some(host_name), Some(_), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Line::Bad;
    };
    let digits = expiry.bytes().all(|byte| byte.is_ascii_digit());
    let expiry = match expiry.parse() {
        // dnsmasq's infinite leases.
        Ok(0) => u64::MAX,
        Ok(expiry) if digits => expiry,
        _ => return Line::Bad,
    };
    if address.parse::<Ipv6Addr>().is_ok() {
        return Line::Other;
    }
    let (Ok(mac), Ok(address)) = (mac.parse(), address.parse::<Ipv4Addr>()) else {
        return Line::Bad;
    };
    let host_name = HostName::new(host_name.as_bytes());
    Line::Lease(Lease { address, mac, expiry, host_name })
}

/// `lease` as a line of [`RECORD_LEN`] bytes. The client's identifier is always `*`: a MAC is
/// who a client is.
pub(super) fn format(lease: &Lease) -> [u8; RECORD_LEN] {
    let Lease { address, mac, expiry, host_name } = lease;
    let expiry = if *expiry == u64::MAX { 0 } else { *expiry };
    let host_name = host_name.as_ref().map_or("*", HostName::as_str);
    let line = format!("{expiry} {mac} {address} {host_name} *");
    let mut record = [b' '; RECORD_LEN];
    // The zip ends with the shorter one; the last byte stays the newline's.
    for (place, byte) in record.iter_mut().take(RECORD_LEN - 1).zip(line.bytes()) {
        *place = byte;
    }
    if let Some(last) = record.last_mut() {
        *last = b'\n';
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_dnsmasq_are_read() {
        let Line::Lease(lease) =
            parse(b"1764000000 00:22:15:0a:0b:0c 192.168.86.17 buildroot 01:00:22:15:0a:0b:0c")
        else {
            panic!("no lease");
        };
        assert_eq!(lease.expiry, 1_764_000_000);
        assert_eq!(lease.mac.to_string(), "00:22:15:0a:0b:0c");
        assert_eq!(lease.address, Ipv4Addr::new(192, 168, 86, 17));
        assert_eq!(lease.host_name.unwrap().as_str(), "buildroot");
        assert_eq!(parse(b"duid 00:01:00:01:2c"), Line::Other);
        assert_eq!(parse(b"1764000000 353108 fd00::17 * 00:01"), Line::Other);
        assert_eq!(parse(b"# comment"), Line::Other);
        assert_eq!(parse(b"\0\0\0"), Line::Other);
        assert_eq!(parse(b"1764000000 00:22:15:0a:0b:0c 192.168.86.17 buildroot"), Line::Bad);
        assert_eq!(parse(b"+5 00:22:15:0a:0b:0c 192.168.86.17 * *"), Line::Bad);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }

        #[test]
        fn the_longest_lease_fits_and_is_read_back(
            expiry in 1_u64..,
            octets: [u8; 6],
            address: u32,
            name in "[a-z0-9]{1,63}",
        ) {
            let lease = Lease {
                address: Ipv4Addr::from(address),
                mac: wsnic_proto::MacAddr(octets),
                expiry,
                host_name: HostName::new(name.as_bytes()),
            };
            let record = format(&lease);
            prop_assert_eq!(record.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(parse(&record[..RECORD_LEN - 1]), Line::Lease(lease));
        }
    }
}
