//! Whether the host forwards packets: read below /proc/sys.

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
