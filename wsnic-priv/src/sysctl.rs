//! Settings below /proc/sys: the helper's only use of them.

use std::path::Path;

/// Turns IPv6 off on an interface.
///
/// Where /proc/sys cannot be written (containers), the guard still drops all IPv6 from guests, and
/// without an IPv6 address the host sends none.
pub fn disable_ipv6(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if Path::new(&path).exists()
        && let Err(error) = std::fs::write(&path, "1")
    {
        tracing::debug!(%error, path, "IPv6 stays on, without an address");
    }
}
