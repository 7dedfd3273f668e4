use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::net::SocketAddrV4;

/// Who listens for TCP over IPv4 in a network namespace: /proc/net/tcp (proc_net_tcp.txt of the
/// kernel), opened once, so that a process that has locked itself in can look again and again.
#[derive(Debug)]
pub struct Listeners(File);

impl Listeners {
    /// Those of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel shows no such table.
    pub fn open() -> io::Result<Listeners> {
        File::open("/proc/thread-self/net/tcp").map(Listeners)
    }

    /// Whether somebody listens at this address, and not only at 0.0.0.0.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn has(&self, address: SocketAddrV4) -> io::Result<bool> {
        let mut table = &self.0;
        table.rewind()?;
        is_listening(BufReader::new(table), address)
    }
}

/// Listeners come before everything else, so that connections, of which there may be thousands, need
/// not be read.
fn is_listening(table: impl io::BufRead, address: SocketAddrV4) -> io::Result<bool> {
    let octets = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{octets:08X}:{:04X}", address.port());
    for line in table.lines().skip(1) {
        let line = line?;
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = words.next();
        if words.nth(1) != Some("0A") {
            break;
        }
        if local == Some(wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    fn address(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 86, last), 53)
    }

    #[test]
    fn a_listener_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     0: 0356A8C0:0035 00000000:0000 0A 00000000:00000000 00:00000000\n\
                     1: 0156A8C0:0035 00000000:0000 0A 00000000:00000000 00:00000000\n\
                     2: 0256A8C0:0035 0256A8C0:A000 01 00000000:00000000 00:00000000\n";
        let listens = |table: &str, last| is_listening(table.as_bytes(), address(last)).unwrap();
        if cfg!(target_endian = "little") {
            assert!(listens(table, 1) && listens(table, 3));
        }
        assert!(!listens(table, 2), "a connection is no listener");
        assert!(!listens(table, 4));
        assert!(!listens("", 1));
    }

    #[test]
    fn a_listener_that_comes_and_goes_is_seen_again_and_again() {
        let listeners = Listeners::open().expect("Linux has the table");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = match listener.local_addr() {
            Ok(std::net::SocketAddr::V4(at)) => at,
            other => panic!("{other:?}"),
        };
        let _connection = TcpStream::connect(at).expect("it listens");
        assert!(listeners.has(at).unwrap());
        drop(listener);
        assert!(!listeners.has(at).unwrap());
    }
}
