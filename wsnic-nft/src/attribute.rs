//! Netlink attributes, written and read: length, type, value, padded to 4 bytes (linux/netlink.h).
//!
//! nf_tables' numbers are in network order.

/// A list of attributes that is being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes(pub(crate) Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Attributes {
        let length = u16::try_from(value.len() + 4).expect("no rule of ours has 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn number64(self, kind: u16, value: u64) -> Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn nest(self, kind: u16, value: Attributes) -> Attributes {
        self.bytes(kind | NESTED, &value.0)
    }
}

/// The attributes in `bytes` as type and value; ends at the first that is malformed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !FLAGS, value))
    })
}

/// The value of the first attribute of type `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The 32-bit number in the first attribute of type `kind`.
pub fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind)?.first_chunk().map(|value| u32::from_be_bytes(*value))
}

/// The text in the first attribute of type `kind`, up to its NUL; empty when there is none.
pub fn text(bytes: &[u8], kind: u16) -> String {
    let value = attribute(bytes, kind).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

// NLA_F_NESTED; with NLA_F_NET_BYTEORDER what is no type, linux/netlink.h
const NESTED: u16 = 1 << 15;
const FLAGS: u16 = 3 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_kernel_text_is_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 4, 5, 16, 0x7f, 0xff] {
                let bytes = vec![fill; length];
                assert!(attributes(&bytes).count() <= 16);
                let _ = (text(&bytes, 0x0404), number(&bytes, 0x0404));
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::default().number(2, 7);
        let Attributes(bytes) = Attributes::default().text(1, "abcd").nest(3, inner);
        assert_eq!(text(&bytes, 1), "abcd");
        assert_eq!(number(attribute(&bytes, 3).unwrap(), 2), Some(7));
    }
}
