//! A guest's name for itself, fit for the log and the lease file.
//!
//! Used by the DHCP server and its lease file. Does no I/O.

use std::fmt;

/// Letters, digits and inner hyphens, 1 to 63 of them: a label of RFC 1123 §2.1.
#[derive(Clone, PartialEq, Eq)]
pub struct HostName(Box<str>);

/// Octets of the longest label (RFC 1035 §2.3.4).
pub(crate) const MAX_LEN: usize = 63;

impl HostName {
    /// The name in an option 12, without the NULs that some clients end it with (RFC 2132 §2);
    /// None for anything that is not a label.
    pub fn new(bytes: &[u8]) -> Option<HostName> {
        let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
        let good = (1..=MAX_LEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        good.then(|| HostName(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_taken_and_everything_else_is_dropped() {
        for good in ["a", "Guest-7", "0", &"x".repeat(63)] {
            assert_eq!(HostName::new(good.as_bytes()).unwrap().as_str(), good);
        }
        assert_eq!(HostName::new(b"guest\0\0").unwrap().as_str(), "guest");
        let long = "x".repeat(64);
        for bad in ["", "\0", "-a", "a-", "a.b", "a b", "a\nb", "a\0b", "*", "é", &long] {
            assert_eq!(HostName::new(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(HostName::new(&[0xff, 0xfe]), None);
    }
}
