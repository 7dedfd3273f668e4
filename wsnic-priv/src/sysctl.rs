//! Settings below /proc/sys: the helper's only use of them.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// Turns IPv6 off on an interface; tells whether it is.
///
/// Where /proc/sys cannot be written (containers), the guard still drops all IPv6 from guests, and
/// without an IPv6 address the host sends none.
pub fn disable_ipv6(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if !Path::new(&path).exists() {
        return false;
    }
    let written = write(&path, "1");
    if let Err(error) = &written {
        tracing::debug!(%error, path, "IPv6 stays on, without an address");
    }
    written.is_ok()
}

/// The file is there: nothing is made or cut.
fn write(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
