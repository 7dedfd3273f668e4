//! What the world around wsnic offers: an HTTP server, a DNS server and services that say their
//! name. All are independent of wsnic's code and run on one runtime of the test process, on
//! sockets of whichever namespace they belong to.

use crate::netns::Netns;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, OnceLock};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

/// Bytes that a large transfer moves: 50 MB.
pub const BLOB_LEN: usize = 50_000_000;
/// The Internet host's name, which the lab's name server knows.
pub const WEB_NAME: &str = "www.example.com";
/// Another of its names.
pub const SHORT_NAME: &str = "example.com";
/// A name with so many addresses that the answer only fits through TCP.
pub const BIG_NAME: &str = "big.example.com";
/// Addresses of [`BIG_NAME`].
pub const BIG_ADDRESSES: usize = 60;

/// Runs everything of the tests that is asynchronous.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
});

/// A service that ends when dropped.
#[derive(Debug)]
pub struct Service(tokio::task::JoinHandle<()>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The bytes that `GET /blob/LEN` returns; any prefix is that of a longer one.
pub fn blob(len: usize) -> Vec<u8> {
    static LONGEST: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    let longest = LONGEST.get_or_init(|| {
        let mut bytes = Vec::with_capacity(BLOB_LEN + 8);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while bytes.len() < BLOB_LEN {
            // xorshift64: no pattern that a lost or repeated frame could hide in.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(BLOB_LEN);
        Arc::new(bytes)
    });
    longest[..len].to_vec()
}

/// SHA-256 in hex.
pub fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A TCP service that says `name` to everyone who connects, and a UDP service on the same port
/// that answers everything with it.
pub fn named_service(netns: &Netns, address: IpAddr, port: u16, name: &'static str) -> Service {
    let (listener, socket) = (listen(netns, address, port), udp(netns, address, port));
    Service(RUNTIME.spawn(async move {
        let greet = async {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.write_all(name.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        };
        let echo = async {
            let mut bytes = [0; 2048];
            while let Ok((_, from)) = socket.recv_from(&mut bytes).await {
                let _ = socket.send_to(name.as_bytes(), from).await;
            }
        };
        futures_util::future::join(greet, echo).await;
    }))
}

/// An HTTP server: `GET /blob/LEN` returns [`blob`], `POST /upload` the checksum of what was sent.
pub fn http_server(netns: &Netns, address: IpAddr) -> Service {
    let listener = listen(netns, address, 80);
    Service(RUNTIME.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = serve_http(stream).await;
            });
        }
    }))
}

async fn serve_http(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut length = 0usize;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut words = request.split_whitespace();
    let body = match (words.next(), words.next()) {
        (Some("GET"), Some(path)) => {
            let len = path.strip_prefix("/blob/").and_then(|len| len.parse().ok()).unwrap_or(0);
            tokio::task::spawn_blocking(move || blob(len)).await?
        }
        _ => {
            let mut hash = Sha256::new();
            let mut bytes = vec![0; 1 << 16];
            while length > 0 {
                let read = stream.read(&mut bytes).await?;
                if read == 0 {
                    break;
                }
                hash.update(&bytes[..read]);
                length = length.saturating_sub(read);
            }
            let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            sum.into_bytes()
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// A DNS server on UDP and TCP port 53 that knows [`WEB_NAME`], [`SHORT_NAME`] and [`BIG_NAME`].
pub fn dns_server(netns: &Netns, address: IpAddr, web: Ipv4Addr) -> Service {
    let (listener, socket) = (listen(netns, address, 53), udp(netns, address, 53));
    Service(RUNTIME.spawn(async move {
        let over_udp = async {
            let mut bytes = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
                if let Some(answer) = answer_dns(&bytes[..len], web, 512) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        };
        let over_tcp = async {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let len = stream.read_u16().await?;
                    let mut query = vec![0; usize::from(len)];
                    stream.read_exact(&mut query).await?;
                    let answer = answer_dns(&query, web, 65_535).unwrap_or_default();
                    let len = (answer.len() as u16).to_be_bytes();
                    stream.write_all(&[&len[..], &answer].concat()).await
                });
            }
        };
        futures_util::future::join(over_udp, over_tcp).await;
    }))
}

/// A query for the addresses of `name` (RFC 1035 §4.1), with this identifier.
pub fn dns_query(identifier: u16, name: &str) -> Vec<u8> {
    let mut query = identifier.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn answer_dns(query: &[u8], web: Ipv4Addr, limit: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let question = query.get(12..at + 4)?;
    let asks_for_address = question.ends_with(&[0, 1, 0, 1]);
    let addresses = match name.join(".").as_str() {
        WEB_NAME | SHORT_NAME => vec![web],
        BIG_NAME => (0..BIG_ADDRESSES).map(|n| Ipv4Addr::new(93, 184, 217, n as u8)).collect(),
        _ => Vec::new(),
    };
    let known = !addresses.is_empty();
    let addresses = if asks_for_address { addresses } else { Vec::new() };
    let fits = 12 + question.len() + addresses.len() * 16 <= limit;
    let answers = if fits { addresses.len() as u16 } else { 0 };
    let mut answer = query.get(..2)?.to_vec();
    // QR, RD copied as set, TC when it does not fit; RA; NXDOMAIN for what is not known.
    answer.extend([0x81 | u8::from(!fits) << 1, 0x80 | if known { 0 } else { 3 }, 0, 1]);
    answer.extend(answers.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses.iter().take(usize::from(answers)) {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn listen(netns: &Netns, address: IpAddr, port: u16) -> TcpListener {
    let listener = netns.enter(|| std::net::TcpListener::bind(SocketAddr::new(address, port)));
    let listener =
        listener.unwrap_or_else(|error| panic!("listening on {address}:{port}: {error}"));
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let _guard = RUNTIME.enter();
    TcpListener::from_std(listener).expect("a listener can be registered")
}

fn udp(netns: &Netns, address: IpAddr, port: u16) -> UdpSocket {
    let socket = netns.enter(|| std::net::UdpSocket::bind(SocketAddr::new(address, port)));
    let socket = socket.unwrap_or_else(|error| panic!("binding {address}:{port}: {error}"));
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    let _guard = RUNTIME.enter();
    UdpSocket::from_std(socket).expect("a socket can be registered")
}
