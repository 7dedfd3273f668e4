//! A guest with a Linux network stack: a TAP in a namespace of its own, whose frames travel through
//! an independent WebSocket client.

use crate::inspect::Inspection;
use crate::raw_guest::Line;
use crate::services::{RUNTIME, checksum, dns_query};
use crate::{LIMIT, Lab, Netns, Server, raw_guest, tap};
use futures_util::{SinkExt, StreamExt};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// How long a service may take to answer before it counts as out of reach: the first retry of a
/// lost SYN comes after one second.
const REACH: Duration = Duration::from_millis(2500);
/// Bytes of the longest frame that a TAP can carry: MTU 65521, header, VLAN tag, and room.
const BUFFER: usize = 1 << 16;
/// What busybox udhcpc runs at each event.
const UDHCPC_SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0
ip address flush dev \"$interface\"
ip address add \"$ip/$mask\" broadcast \"$broadcast\" dev \"$interface\"
[ -n \"$mtu\" ] && ip link set \"$interface\" mtu \"$mtu\"
[ -n \"$router\" ] && ip route replace default via \"${router%% *}\"
: > /etc/resolv.conf
for server in $dns; do echo \"nameserver $server\" >> /etc/resolv.conf; done
printf 'ip=%s\\nmask=%s\\nrouter=%s\\ndns=%s\\ndomain=%s\\nlease=%s\\nmtu=%s\\nserverid=%s\\n' \\
\t\"$ip\" \"$mask\" \"$router\" \"$dns\" \"$domain\" \"$lease\" \"$mtu\" \"$serverid\" > \"$LEASE_FILE\"
";

/// A machine with one network card, `eth0`, that is plugged into wsnic.
#[derive(Debug)]
pub struct NativeGuest {
    /// Where its programs run.
    pub netns: Netns,
    /// Looks at the frames in both directions, as they are in the WebSocket.
    pub inspection: Arc<Inspection>,
    dir: TempDir,
    pump: JoinHandle<()>,
}

impl NativeGuest {
    /// Connects to the server's default address and takes an address by DHCP.
    pub fn join(lab: &Lab) -> NativeGuest {
        let guest = NativeGuest::plug(lab);
        guest.dhcp();
        guest
    }

    /// Connects to this path of the server's default address and takes an address by DHCP.
    pub fn join_at(lab: &Lab, path: &str) -> NativeGuest {
        let guest = NativeGuest::plug_in(&lab.srv, Server::address(), (path, false), 1500);
        guest.dhcp();
        guest
    }

    /// The same, sending frames and getting them as container2wasm does: a stream in which each stands
    /// behind its length, and the subprotocol `binary`.
    pub fn join_in_stream(lab: &Lab, path: &str) -> NativeGuest {
        let guest = NativeGuest::plug_in(&lab.srv, Server::address(), (path, true), 1500);
        guest.dhcp();
        guest
    }

    /// Connects to the server's default address. The card is up and has no IPv4 address.
    pub fn plug(lab: &Lab) -> NativeGuest {
        NativeGuest::plug_into(&lab.srv, Server::address(), 1500)
    }

    /// Connects from any namespace to any address, with a card of this MTU.
    pub fn plug_into(netns: &Netns, address: SocketAddr, mtu: u32) -> NativeGuest {
        NativeGuest::plug_in(netns, address, ("/", false), mtu)
    }

    fn plug_in(
        netns: &Netns,
        address: SocketAddr,
        (path, in_stream): (&str, bool),
        mtu: u32,
    ) -> NativeGuest {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "").expect("a file in the temporary folder");
        let inside = Netns::with_mounts(&resolv_conf);
        let tap = tap::open(&inside, "eth0");
        let mut url = format!("ws://{address}{path}").into_client_request().expect("a URL");
        if in_stream {
            url.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("binary"));
        }
        let (socket, _) = raw_guest::open(netns, address, url, None)
            .unwrap_or_else(|error| panic!("the server refuses a guest: {error}"));
        let inspection = Arc::<Inspection>::default();
        let inspected = Arc::clone(&inspection);
        let pump = RUNTIME.spawn(async move {
            let tap = Arc::new(tap::register(tap));
            pump(tap, socket, &inspected, in_stream).await;
        });
        inside.ip(&format!("link set eth0 mtu {mtu} up"));
        NativeGuest { netns: inside, inspection, dir, pump }
    }

    /// Runs busybox's DHCP client, which sets address, route and resolver; returns its variables.
    ///
    /// # Panics
    /// When it gets no lease.
    pub fn dhcp(&self) -> Lease {
        self.try_dhcp().unwrap_or_else(|log| panic!("no lease:\n{log}"))
    }

    /// Like [`NativeGuest::dhcp`].
    ///
    /// # Errors
    /// What the client printed, when it gets no lease.
    pub fn try_dhcp(&self) -> Result<Lease, String> {
        use std::os::unix::fs::PermissionsExt;
        let (script, lease) = (self.dir.path().join("udhcpc.sh"), self.dir.path().join("lease"));
        std::fs::write(&script, UDHCPC_SCRIPT).expect("a file in the temporary folder");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("a mode");
        let _ = std::fs::remove_file(&lease);
        let mut client = Command::new("busybox");
        client.args(["udhcpc", "-f", "-i", "eth0", "-n", "-q", "-t", "8", "-T", "1"]);
        client.args(["-x", "hostname:native", "-s"]).arg(&script).env("LEASE_FILE", &lease);
        let output = self.netns.output(&mut client);
        match std::fs::read_to_string(&lease) {
            Ok(text) if output.status.success() => Ok(Lease(text)),
            _ => {
                Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
            }
        }
    }

    /// Its first IPv4 address.
    pub fn ip(&self) -> Ipv4Addr {
        let text = self.netns.ip("-4 -o address show dev eth0");
        let address = text.split_whitespace().nth(3).and_then(|cidr| cidr.split('/').next());
        address.and_then(|address| address.parse().ok()).expect("the guest has an address")
    }

    /// Whether an address answers to at least one ping.
    pub fn pings(&self, address: impl Into<IpAddr>) -> bool {
        self.netns.succeeds(&format!("ping -n -c 3 -i 0.2 -W 1 {}", address.into()))
    }

    /// What the service at a TCP port says; None when it cannot be reached.
    pub fn hears(&self, address: impl Into<IpAddr>, port: u16) -> Option<String> {
        let address = SocketAddr::new(address.into(), port);
        self.netns.enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, REACH).ok()?;
            stream.set_read_timeout(Some(LIMIT)).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    /// What the service at a UDP port answers, from whichever of its addresses; None when nothing
    /// comes.
    pub fn hears_udp(&self, address: impl Into<IpAddr>, port: u16) -> Option<String> {
        let address = SocketAddr::new(address.into(), port);
        self.netns
            .enter(|| exchange(address, b"?", false))
            .map(|answer| String::from_utf8_lossy(&answer).into_owned())
    }

    /// The addresses of a name, by busybox nslookup through the resolver that DHCP named.
    pub fn resolves(&self, name: &str) -> Vec<Ipv4Addr> {
        let mut command = Command::new("busybox");
        command.args(["nslookup", "-type=a", name]);
        let output = self.netns.output(&mut command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers = text.lines().skip_while(|line| !line.starts_with("Name:"));
        answers.filter_map(|line| line.strip_prefix("Address:")?.trim().parse().ok()).collect()
    }

    /// The answer of a name server over UDP; None when nothing comes.
    pub fn asks_dns(&self, server: Ipv4Addr, name: &str) -> Option<Vec<u8>> {
        self.netns.enter(|| exchange(SocketAddr::from((server, 53)), &dns_query(7, name), true))
    }

    /// The answer of a name server over TCP.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer.
    pub fn asks_dns_by_tcp(&self, server: Ipv4Addr, name: &str) -> std::io::Result<Vec<u8>> {
        self.netns.enter(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, 53)), REACH)?;
            stream.set_read_timeout(Some(LIMIT))?;
            let query = dns_query(8, name);
            stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())?;
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        })
    }

    /// Downloads a path by HTTP; the body.
    pub fn downloads(&self, server: Ipv4Addr, path: &str) -> Vec<u8> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        self.http(server, head.as_bytes(), &[])
    }

    /// Uploads bytes by HTTP; the server's checksum and ours must be the same.
    pub fn uploads(&self, server: Ipv4Addr, bytes: &[u8]) {
        let len = bytes.len();
        let head =
            format!("POST /upload HTTP/1.1\r\nHost: {server}\r\nContent-Length: {len}\r\n\r\n");
        let answer = self.http(server, head.as_bytes(), bytes);
        assert_eq!(String::from_utf8_lossy(&answer), checksum(bytes), "checksum of an upload");
    }

    fn http(&self, server: Ipv4Addr, head: &[u8], body: &[u8]) -> Vec<u8> {
        let answer = self.netns.enter(|| -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, 80)), LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            stream.write_all(head)?;
            stream.write_all(body)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        });
        let mut answer = answer.expect("an HTTP exchange with the Internet");
        let end =
            answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an HTTP head ends");
        answer.split_off(end + 4)
    }

    /// Pulls the plug: the WebSocket's TCP connection is cut.
    pub fn unplug(self) {}
}

impl Drop for NativeGuest {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What the DHCP client was told, as lines `name=value`.
#[derive(Debug)]
pub struct Lease(String);

impl Lease {
    /// The value of a variable of busybox udhcpc.
    pub fn get(&self, name: &str) -> &str {
        let lines = self.0.lines().filter_map(|line| line.split_once('='));
        lines.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// Sends a question and waits for an answer; when `strict`, only from where the question went.
fn exchange(address: SocketAddr, question: &[u8], strict: bool) -> Option<Vec<u8>> {
    let any: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_read_timeout(Some(REACH)).ok()?;
    if strict {
        socket.connect(address).ok()?;
        socket.send(question).ok()?;
    } else {
        socket.send_to(question, address).ok()?;
    }
    let mut bytes = vec![0; BUFFER];
    let len = socket.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Carries frames both ways until one side ends.
async fn pump(
    tap: Arc<AsyncFd<File>>,
    socket: WebSocketStream<Box<dyn Line>>,
    inspection: &Inspection,
    in_stream: bool,
) {
    let (mut sink, mut stream) = socket.split();
    let to_server = async {
        let mut bytes = vec![0; BUFFER];
        loop {
            let Ok(mut ready) = tap.readable().await else { return };
            match ready.try_io(|tap| tap.get_ref().read(&mut bytes)) {
                Ok(Ok(len)) => {
                    inspection.pass(&bytes[..len]);
                    if in_stream {
                        let length = Message::Binary((len as u32).to_be_bytes().to_vec().into());
                        if sink.feed(length).await.is_err() {
                            return;
                        }
                    }
                    let message = Message::Binary(bytes[..len].to_vec().into());
                    if sink.feed(message).await.is_err() {
                        return;
                    }
                }
                // EIO while the card is down.
                Ok(Err(error)) if error.raw_os_error() != Some(5) => return,
                Ok(Err(_)) | Err(_) => {
                    if sink.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let to_guest = async {
        let mut received = Vec::new();
        loop {
            let frame = match frame_of(&mut received).filter(|_| in_stream) {
                Some(frame) => frame,
                None => match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) if in_stream => {
                        received.extend_from_slice(&bytes);
                        continue;
                    }
                    Some(Ok(Message::Binary(frame))) => frame.to_vec(),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => break,
                },
            };
            inspection.pass(&frame);
            match tap.get_ref().write(&frame) {
                Ok(_) => {}
                // A card that is down, or has no room, loses frames.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(5) => {}
                Err(error) => panic!("writing a frame of {} bytes: {error}", frame.len()),
            }
        }
    };
    futures_util::future::select(std::pin::pin!(to_server), std::pin::pin!(to_guest)).await;
}

/// Takes the frame at the start of a stream, if all of it is there.
fn frame_of(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = u32::from_be_bytes(*stream.first_chunk()?) as usize;
    stream.get(4..4 + len)?;
    Some(stream.drain(..4 + len).skip(4).collect())
}
