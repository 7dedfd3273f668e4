//! Single values: text to type.

use super::{GuestAccess, Nat, Network};
use crate::address::Cidr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Ranges that are not the Internet: private, carrier NAT, link-local (RFC 1918, 6598, 3927).
const NOT_PUBLIC: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
];

/// The items of a list; colons belong to IPv6 addresses and do not separate.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| matches!(letter, ',' | ';') || letter.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// Decimal digits only: `u32`'s own parser takes a plus sign.
pub(super) fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An address to listen on; brackets around IPv6 and the name localhost (RFC 6761) are understood.
pub(super) fn listen_address(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// An address and a port other than 0; the name localhost is understood.
pub(super) fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    // Without brackets the last part of an IPv6 address would be taken for the port.
    if address.contains(':') && !address.starts_with('[') {
        return None;
    }
    let port = number(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    Some(SocketAddr::new(listen_address(address)?, port))
}

/// The same items, each at its first place only.
pub(super) fn without_repetitions<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

/// Labels of 1 to 63 letters, digits, hyphens and underscores, 253 in all (RFC 1035 §2.3.4); a
/// final dot is dropped.
pub(super) fn domain(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_owned())
}

/// A name that passwd(5) can hold and that no program takes for an option.
pub(super) fn user(text: &str) -> Option<String> {
    // useradd(8): LOGIN_NAME_MAX is 256 with the NUL.
    let good = text.len() <= 255
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b','));
    good.then(|| text.to_owned())
}

/// sun_path takes 108 bytes with the NUL behind the path (unix(7)).
pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    (1..108).contains(&text.len()).then(|| PathBuf::from(text))
}

/// Paths between commas; they may hold blanks, but not at their ends.
pub(super) fn paths(text: &str) -> Vec<PathBuf> {
    text.split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// `unix:` and an absolute path.
pub(super) fn listener(text: &str) -> Option<PathBuf> {
    text.strip_prefix("unix:").filter(|path| path.starts_with('/')).and_then(socket_path)
}

/// Read and write for owner, group and others, in octal; the owner has both.
pub(super) fn mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (text.bytes().all(|byte| byte.is_ascii_digit()) && mode & !0o066 == 0o600).then_some(mode)
}

/// `user` or `user:group`.
pub(super) fn owner(text: &str) -> Option<(String, Option<String>)> {
    match text.split_once(':') {
        None => user(text).filter(|name| !name.is_empty()).map(|user| (user, None)),
        Some((name, group)) if !name.is_empty() && !group.is_empty() => {
            Some((user(name)?, Some(user(group)?)))
        }
        Some(_) => None,
    }
}

/// Scheme and host, and a port unless it is the scheme's (RFC 6454 §6.2), in lower case.
pub(super) fn origin(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let good = !scheme.is_empty()
        && !host.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !host.contains(['/', '?', '#', '@', '\\']);
    let text = text.to_ascii_lowercase();
    let text = match text.split_once("://")?.0 {
        "http" => text.strip_suffix(":80").unwrap_or(&text),
        "https" => text.strip_suffix(":443").unwrap_or(&text),
        _ => &text,
    };
    good.then(|| text.to_owned())
}

/// True if guests who reach the Internet may nevertheless not reach `address`.
pub(super) fn kept_from(address: Ipv4Addr, network: &Network) -> bool {
    network.nat != Nat::Off
        && network.guest_access == GuestAccess::Internet
        && NOT_PUBLIC.iter().any(|(base, len)| Cidr::containing(*base, *len).contains(address))
        && !network.plan.subnet().contains(address)
        && !network.allow.iter().any(|block| block.contains(address))
}
