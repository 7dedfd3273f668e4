//! Settings below /proc/sys: the helper's only use of them.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// Turns IPv6 off on an interface.
///
/// Where /proc/sys cannot be written (containers), the guard still drops all IPv6 from guests, and
/// without an IPv6 address the host sends none.
pub fn disable_ipv6(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if Path::new(&path).exists()
        && let Err(error) = write(&path, "1")
    {
        tracing::debug!(%error, path, "IPv6 stays on, without an address");
    }
}

/// The file is there: nothing is made or cut.
fn write(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// True if the operator lets this host forward between all its interfaces (net.ipv4.ip_forward).
pub fn forwards_everything() -> bool {
    read("ip_forward") == "1"
}

/// What says whether packets are forwarded, for `interfaces` and in all: differs when it changed.
pub fn routing<'a>(interfaces: impl Iterator<Item = &'a str>) -> String {
    let one = |name: &str| read(&format!("conf/{name}/forwarding"));
    interfaces.map(one).fold(read("ip_forward"), |all, one| all + " " + &one)
}

/// A value below net.ipv4; empty if it is not there.
fn read(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    text.trim_end().to_owned()
}
