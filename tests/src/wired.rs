//! Neighbours of the guests that come by no WebSocket: plain TAPs on wsnic's bridge, for which the
//! kernel cuts every super-frame and finishes every checksum.

use crate::inspect::Inspection;
use crate::services::RUNTIME;
use crate::{LIMIT, Lab, Netns, tap, wait_until};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// wsnic's bridge.
pub const BRIDGE: &str = "wsbr0";

/// A plain TAP on the bridge, whose frames the test reads and writes itself. Gone when dropped.
#[derive(Debug)]
pub struct WiredPort(File);

impl WiredPort {
    /// Plugs it in.
    pub fn plug(lab: &Lab) -> WiredPort {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wired{}", NEXT.fetch_add(1, Ordering::Relaxed));
        lab.srv.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        let tap = tap::open(&lab.srv, &name);
        lab.srv.set_sysctl("net/ipv6/conf/default/disable_ipv6", "0");
        let mtu = lab.srv.run(&format!("cat /sys/class/net/{BRIDGE}/mtu"));
        lab.srv.ip(&format!("link set {name} mtu {} master {BRIDGE} up", mtu.trim()));
        wait_until("the wired port forwards", || {
            lab.srv.run(&format!("bridge link show dev {name}")).contains("state forwarding")
        });
        WiredPort(tap)
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        let written = self.0.write(frame).expect("the bridge takes a frame");
        assert_eq!(written, frame.len());
    }

    /// The next frame of which `wanted` makes something.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn receive_until<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        let mut buffer = vec![0; 70_000];
        loop {
            match self.0.read(&mut buffer) {
                Ok(len) => {
                    if let Some(value) = wanted(&buffer[..len]) {
                        return value;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < end, "nothing comes to the wired port");
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
                Err(error) => panic!("reading a TAP: {error}"),
            }
        }
    }
}

/// A machine with a Linux network stack on a plain TAP of the bridge.
#[derive(Debug)]
pub struct WiredHost {
    /// Where its programs run.
    pub netns: Netns,
    /// Looks at the frames in both directions, as they are on the wire.
    pub inspection: Arc<Inspection>,
    pump: JoinHandle<()>,
}

impl WiredHost {
    /// Plugs it in, with this address in the guests' default network.
    pub fn plug(lab: &Lab, ip: Ipv4Addr, mtu: u32) -> WiredHost {
        let netns = Netns::new();
        let own = tap::open(&netns, "eth0");
        let WiredPort(port) = WiredPort::plug(lab);
        let inspection = Arc::<Inspection>::default();
        let inspected = Arc::clone(&inspection);
        let pump = RUNTIME.spawn(async move {
            let (own, port) = (tap::register(own), tap::register(port));
            let there = carry(&own, &port, &inspected);
            let back = carry(&port, &own, &inspected);
            futures_util::future::join(there, back).await;
        });
        netns.ip(&format!("link set eth0 mtu {mtu} up"));
        netns.ip(&format!("address add {ip}/24 dev eth0"));
        WiredHost { netns, inspection, pump }
    }
}

impl Drop for WiredHost {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

async fn carry(from: &AsyncFd<File>, to: &AsyncFd<File>, inspection: &Inspection) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(mut ready) = from.readable().await else { return };
        match ready.try_io(|tap| tap.get_ref().read(&mut bytes)) {
            Ok(Ok(len)) => {
                inspection.pass(&bytes[..len]);
                // A card that is down, or has no room, loses frames.
                let _ = to.get_ref().write(&bytes[..len]);
            }
            // EIO while the card is down.
            Ok(Err(error)) if error.raw_os_error() != Some(5) => return,
            Ok(Err(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(_) => {}
        }
    }
}
