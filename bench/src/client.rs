//! A guest in this program's own hands: frames on a WebSocket, without a network stack behind.

use crate::stage::{Stage, guest_address, guest_mac};
use crate::wire::{Arrival, PONG_MESSAGE, Wire};
use nix::sys::socket::{MsgFlags, recv};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wsnic_tests::address::GATEWAY;
use wsnic_tests::frames::{self, Mac};

/// Where guests' datagrams go: a socket that nobody reads.
pub const SINK: u16 = 9;
/// Bytes of one write of a flood, about.
const BURST: usize = 64 * 1024;
/// The first answer may wait for the bridge; later ones do not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer may take: what takes longer is lost.
const LOST: Duration = Duration::from_secs(1);

/// A guest that sends what it is told to.
pub struct Client {
    stream: TcpStream,
    wire: Wire,
    mac: Mac,
    address: Ipv4Addr,
    gateway: Mac,
    inbox: Vec<u8>,
    count: u16,
}

impl Client {
    /// Connects as the guest of this number and waits until the gateway has answered it.
    pub fn join(stage: &Stage, number: u8) -> Client {
        let mut client = Client::connect(stage, guest_mac(number), guest_address(number));
        let end = Instant::now() + PATIENCE;
        while client.ping(Duration::from_millis(200)).is_none() {
            assert!(Instant::now() < end, "{} answers no guest", stage.kind.name());
        }
        client
    }

    /// Connects and says nothing.
    pub fn connect(stage: &Stage, mac: Mac, address: Ipv4Addr) -> Client {
        Client {
            stream: stage.connect(),
            wire: stage.kind.wire(),
            mac,
            address,
            gateway: stage.gateway_mac(),
            inbox: Vec::with_capacity(4096),
            count: 0,
        }
    }

    /// Time until the gateway answers a small frame (98 bytes, an ICMP echo); None when it does not.
    pub fn round_trip(&mut self) -> Option<Duration> {
        self.ping(LOST)
    }

    fn ping(&mut self, limit: Duration) -> Option<Duration> {
        self.count = self.count.wrapping_add(1);
        let echo = frames::echo_request(self.count, &[0x5a; 56]);
        let frame = frames::ipv4(self.gateway, self.mac, self.address, GATEWAY, 1, &echo);
        let message = self.wire.message(&frame, [1, 2, 3, 4]);
        let started = Instant::now();
        self.stream.write_all(&message).expect("the server takes a frame");
        loop {
            let left = limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero())?;
            self.stream.set_read_timeout(Some(left)).expect("a timeout that is not zero");
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the server has closed"),
                Ok(len) => self.inbox.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("the connection: {error}"),
            }
            let time = started.elapsed();
            if self.take_answers() {
                return Some(time);
            }
        }
    }

    /// Whether the answer to the last echo is among what has come.
    fn take_answers(&mut self) -> bool {
        let (mut at, mut found) = (0, false);
        while let Some(arrival) = self.wire.next(&self.inbox[at..]) {
            at += match arrival {
                Arrival::Frame { header, len } => {
                    let frame = &self.inbox[at + header..at + header + len];
                    found |= is_answer(frame, self.count);
                    header + len
                }
                Arrival::Ping { len } => {
                    self.stream.write_all(&PONG_MESSAGE).expect("the server takes a pong");
                    len
                }
                Arrival::Other { len } => len,
                Arrival::Close => panic!("the server says goodbye"),
            };
        }
        self.inbox.drain(..at);
        found
    }

    /// One frame to the gateway that means nothing: the session has moved something.
    pub fn greet(&mut self) {
        let frame = frames::ethernet(self.gateway, self.mac, frames::EXPERIMENTAL, &[0; 50]);
        let message = self.wire.message(&frame, [0; 4]);
        self.stream.write_all(&message).expect("the server takes a frame");
    }

    /// Tells the server that there is somebody, without a frame.
    pub fn live(&mut self) {
        self.stream.write_all(&PONG_MESSAGE).expect("the server takes a pong");
    }

    /// Sends datagrams with this much payload to the gateway, as fast as the server takes them.
    pub fn flood(&self, payload: usize) -> Busy {
        let (own, sink) = (SocketAddrV4::new(self.address, 7), SocketAddrV4::new(GATEWAY, SINK));
        let frame = frames::datagram(self.gateway, self.mac, own, sink, &vec![0x5a; payload]);
        let message = self.wire.message(&frame, [0x37, 0xfa, 0x21, 0x3d]);
        let burst = message.repeat((BURST / message.len()).max(1));
        let mut stream = self.stream.try_clone().expect("one more handle");
        stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Busy::start(move |stop, count| {
            // What was cut off by the timeout goes on where it ended: messages stay whole.
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) || at % message.len() != 0 {
                match stream.write(&burst[at..]) {
                    Ok(len) => {
                        at = (at + len) % burst.len();
                        count.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        })
    }

    /// Throws away all that comes, and counts its bytes.
    pub fn sink(&self) -> Busy {
        let stream = self.stream.try_clone().expect("one more handle");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Busy::start(move |stop, count| {
            let mut bytes = vec![0; 4 * BURST];
            while !stop.load(Ordering::Relaxed) {
                match recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC) {
                    Ok(0) => return,
                    Ok(len) => drop(count.fetch_add(len as u64, Ordering::Relaxed)),
                    Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                    Err(_) => return,
                }
            }
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A thread that works until this is dropped, and what it has counted.
pub struct Busy {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    /// Starts `work`, which ends soon after the flag was set.
    pub fn start(work: impl FnOnce(&AtomicBool, &AtomicU64) + Send + 'static) -> Busy {
        let (stop, count) = (Arc::default(), Arc::default());
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || work(&stops, &counts));
        Busy { stop, count, thread: Some(thread) }
    }

    /// So far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "a thread has failed");
    }
}

fn is_answer(frame: &[u8], identifier: u16) -> bool {
    let Some((.., 1, message)) = frames::parse_ipv4(frame) else { return false };
    message.first() == Some(&0) && message.get(4..6) == Some(&identifier.to_be_bytes()[..])
}
