//! For whom a proxy speaks: the PROXY protocol, version 2, and the headers that proxies add.
//!
//! No I/O but reading the header of the PROXY protocol from the socket that is given. Whether a proxy
//! is believed at all is decided by the caller.

use crate::http::Forwarded;
use crate::stream::Socket;
use ppp::v2;
use std::io;
use std::net::IpAddr;
use wsnic_proto::IpBlock;

/// Bytes before the addresses: signature, version and command, family, length (§2.2).
const FIXED_LEN: usize = 16;
/// Bytes of addresses and additions that are taken; haproxy's longest are some hundred.
const MAX_REST: usize = 2048;

/// Reads the header with which a proxy begins; None: it speaks for itself (LOCAL), or for what is no
/// IP address.
///
/// # Errors
/// `InvalidData`: it is none of version 2. The socket's.
pub async fn read_header(socket: &Socket) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; FIXED_LEN];
    socket.read_exact(&mut header).await?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no PROXY header of version 2");
    if !header.starts_with(v2::PROTOCOL_PREFIX) {
        return Err(wrong());
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > MAX_REST {
        return Err(wrong());
    }
    header.resize(FIXED_LEN + rest, 0);
    socket.read_exact(&mut header[FIXED_LEN..]).await?;
    let header = v2::Header::try_from(header.as_slice()).map_err(|_| wrong())?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (_, v2::Addresses::IPv6(addresses)) => {
            Some(IpAddr::from(addresses.source_address).to_canonical())
        }
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

/// The client behind a believed proxy: the last address in the chain that is no believed proxy itself.
/// None: nothing is said, or what is said last is no address.
pub fn client(forwarded: &Forwarded, trusted: &[IpBlock]) -> Option<IpAddr> {
    for text in forwarded.chain.iter().rev() {
        let address = address(text)?;
        if !trusted.iter().any(|block| block.contains(address)) {
            return Some(address);
        }
    }
    match forwarded.chain.first() {
        // All are proxies: the first is as near to the client as it gets.
        Some(first) => address(first),
        None => forwarded.real_ip.as_deref().and_then(address),
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches('"');
    let bare = bare.parse().ok().or_else(|| {
        let socket = bare.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
        socket.or_else(|| bare.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    });
    bare.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(texts: &[&str]) -> Forwarded {
        let chain = texts.iter().map(|text| (*text).to_owned()).collect();
        Forwarded { chain, real_ip: None }
    }

    fn blocks(texts: &[&str]) -> Vec<IpBlock> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let trusted = blocks(&["10.0.0.0/8", "::1"]);
        let client = |texts: &[&str]| client(&chain(texts), &trusted).map(|ip| ip.to_string());
        assert_eq!(client(&["203.0.113.7"]).unwrap(), "203.0.113.7");
        assert_eq!(client(&["1.1.1.1", "203.0.113.7", "10.0.0.9"]).unwrap(), "203.0.113.7");
        assert_eq!(client(&["10.0.0.8", "::1"]).unwrap(), "10.0.0.8", "all are proxies");
        assert_eq!(client(&["1.1.1.1", "unknown"]), None, "the proxy itself does not know");
        assert_eq!(client(&["[2001:db8::1]:80"]).unwrap(), "2001:db8::1");
        assert_eq!(client(&["203.0.113.7:1234"]).unwrap(), "203.0.113.7");
        assert_eq!(client(&[]), None);
    }

    #[test]
    fn x_real_ip_counts_where_there_is_no_chain() {
        let real_ip = Some("::ffff:203.0.113.9".to_owned());
        let forwarded = Forwarded { chain: Vec::new(), real_ip: real_ip.clone() };
        assert_eq!(client(&forwarded, &[]).unwrap().to_string(), "203.0.113.9");
        let both = Forwarded { real_ip, ..chain(&["1.1.1.1"]) };
        assert_eq!(client(&both, &[]).unwrap().to_string(), "1.1.1.1");
    }
}
