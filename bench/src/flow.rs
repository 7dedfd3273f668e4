//! TCP between two namespaces, as fast as it goes, with a count of what has arrived.

use crate::stage::{Guest, Stage};
use nix::sys::socket::{MsgFlags, recv};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wsnic_tests::Netns;
use wsnic_tests::address::GATEWAY;

/// Bytes of one write and one read.
const CHUNK: usize = 128 * 1024;

/// A connection that is full.
pub struct Flow {
    received: Arc<AtomicU64>,
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

/// What one server did in one window.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Gbit/s of payload.
    pub gigabits: f64,
    /// Processor seconds of the server for a GB of payload.
    pub cpu_per_gigabyte: f64,
}

/// One flow between a guest and the gateway, in a window after a warm-up.
pub fn window(
    stage: &Stage,
    guest: &Guest,
    from_guest: bool,
    warm_up: Duration,
    window: Duration,
) -> Sample {
    let flow = Flow::between(stage, guest, from_guest);
    std::thread::sleep(warm_up);
    let (bytes, cpu, started) = (flow.received(), stage.cpu(), Instant::now());
    wait(window, || flow.received() > bytes);
    let bytes = (flow.received() - bytes) as f64;
    let (cpu, seconds) = (stage.cpu() - cpu, started.elapsed().as_secs_f64());
    drop(flow);
    // What is still on its way is not the next one's.
    std::thread::sleep(Duration::from_millis(50));
    assert!(bytes > 0.0, "nothing comes through {}", stage.kind.name());
    Sample { gigabits: bytes * 8.0 / seconds / 1e9, cpu_per_gigabyte: cpu / (bytes / 1e9) }
}

/// Waits for the length of a window, or longer, until something has come: the slowest server needs
/// that where the machine is busy and windows are short.
pub fn wait(window: Duration, came: impl Fn() -> bool) {
    let end = Instant::now() + window;
    std::thread::sleep(window);
    while !came() && Instant::now() < end + wsnic_tests::LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Flow {
    /// Between a guest and the gateway.
    pub fn between(stage: &Stage, guest: &Guest, from_guest: bool) -> Flow {
        let started = if from_guest {
            Flow::start(&guest.netns, &stage.lab.srv, GATEWAY)
        } else {
            Flow::start(&stage.lab.srv, &guest.netns, guest.address)
        };
        started.unwrap_or_else(|error| panic!("no way through {}: {error}", stage.kind.name()))
    }

    /// Connects from one namespace to an address in another and starts to send.
    fn start(from: &Netns, to: &Netns, address: Ipv4Addr) -> io::Result<Flow> {
        let listener = to.enter(|| TcpListener::bind((address, 0))).expect("a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let connect = || {
            let address = SocketAddr::from((address, port));
            TcpStream::connect_timeout(&address, wsnic_tests::LIMIT)
        };
        let source = from.enter(connect)?;
        let (sink, _) = listener.accept().expect("a connection was made");
        let received = Arc::new(AtomicU64::new(0));
        let handle = |end: &TcpStream| end.try_clone().expect("one more handle");
        let ends = [handle(&source), handle(&sink)];
        let count = Arc::clone(&received);
        let threads = vec![
            std::thread::spawn(move || send(source)),
            std::thread::spawn(move || discard(&sink, &count)),
        ];
        Ok(Flow { received, ends, threads })
    }

    /// Bytes of payload that have arrived.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn send(mut stream: TcpStream) {
    let bytes = vec![0x5a; CHUNK];
    while stream.write_all(&bytes).is_ok() {}
}

/// MSG_TRUNC: the kernel throws the bytes away (tcp(7)), so that a sink costs little.
fn discard(stream: &TcpStream, received: &AtomicU64) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(len @ 1..) = recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC) {
        received.fetch_add(len as u64, Ordering::Relaxed);
    }
}
