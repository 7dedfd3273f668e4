//! Which name server answers for the gateway: read from the host's resolv.conf (resolv.conf(5)).
//!
//! Text in, decision out; only [`resolver`] touches files.

use std::net::{IpAddr, Ipv4Addr};

/// Where the host names its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the programs that put a stub on a loopback address keep the resolvers behind it.
const BEHIND_STUBS: [&str; 3] = [
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/interface/original.resolvconf",
];

/// The resolver to forward to, or why there is none.
///
/// # Errors
/// A sentence for the log.
pub fn resolver() -> Result<Ipv4Addr, String> {
    let text = std::fs::read_to_string(RESOLV_CONF)
        .map_err(|error| format!("{RESOLV_CONF} cannot be read: {error}"))?;
    choose(&text, || BEHIND_STUBS.iter().find_map(|path| std::fs::read_to_string(path).ok()))
}

/// The first IPv4 name server of `text` that guests' packets can be sent to; behind a loopback
/// stub, the first of what `behind_stub` returns.
///
/// The order of the file is kept, as the C library does: the first server is asked, never a
/// mixture, because servers behind the first may not know the same names.
fn choose(text: &str, behind_stub: impl Fn() -> Option<String>) -> Result<Ipv4Addr, String> {
    let servers = nameservers(text);
    if let Some(server) = first_reachable(&servers) {
        return Ok(server);
    }
    let is_stub = servers.is_empty() || servers.iter().any(IpAddr::is_loopback);
    if is_stub
        && let Some(server) =
            behind_stub().as_deref().map(nameservers).as_deref().and_then(first_reachable)
    {
        return Ok(server);
    }
    if servers.is_empty() {
        return Err(format!("{RESOLV_CONF} names no server"));
    }
    let list: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
    Err(format!("guests' packets cannot be sent to what {RESOLV_CONF} names: {}", list.join(", ")))
}

fn first_reachable(servers: &[IpAddr]) -> Option<Ipv4Addr> {
    servers.iter().find_map(|server| match server {
        IpAddr::V4(server) if !server.is_loopback() && !server.is_unspecified() => Some(*server),
        _ => None,
    })
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // A scope such as fe80::1%eth0 is cut off; link-local servers are no use to guests anyway.
    servers.filter_map(|word| word.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, behind: Option<&str>) -> Result<Ipv4Addr, String> {
        choose(text, || behind.map(str::to_owned))
    }

    #[test]
    fn the_first_ipv4_server_is_taken_in_the_order_of_the_file() {
        let text = "# c\nsearch example.org\nnameserver fe80::1%eth0\nnameserver 10.0.0.53\nnameserver 9.9.9.9\n";
        assert_eq!(chosen(text, None), Ok(Ipv4Addr::new(10, 0, 0, 53)));
    }

    #[test]
    fn behind_a_loopback_stub_the_real_resolver_is_found() {
        let behind = Some("nameserver 192.0.2.1\n");
        assert_eq!(chosen("nameserver 127.0.0.53\n", behind), Ok(Ipv4Addr::new(192, 0, 2, 1)));
        assert!(chosen("nameserver 127.0.0.53\n", None).unwrap_err().contains("127.0.0.53"));
        assert!(chosen("nameserver 127.0.0.53\n", Some("nameserver 127.0.0.1")).is_err());
    }

    #[test]
    fn no_server_or_only_ipv6_is_said() {
        assert_eq!(chosen("", None), Err("/etc/resolv.conf names no server".to_owned()));
        assert!(chosen("nameserver 2001:db8::1", None).unwrap_err().contains("2001:db8::1"));
        assert!(chosen("nameserver", None).is_err());
    }
}
