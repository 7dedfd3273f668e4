//! A host with a bridge and ports on it as the helper makes them, whose fds are in the hands of a
//! front-end that was taken over: it sends what it likes.

use super::super::{Bridge, Firewall, NetworkPolicy, Pair, Policy};
use super::frames::{self, Mac};
use super::world::Netns;
use crate::link::{Link, Links, PortFlags};
use crate::tap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wsnic_proto::MacAddr;
use wsnic_proto::offload::Offloads;

/// Of the bridge.
pub(super) const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// A host.
pub(super) struct Lan {
    pub(super) host: Netns,
    pub(super) firewall: Firewall,
    policy: Policy,
}

/// A port and the guest behind it.
pub(super) struct Guest {
    tap: File,
    /// Of the TAP.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

impl Lan {
    /// A host without a bridge.
    pub(super) fn new(policy: Policy) -> Lan {
        Lan::on_kernel(policy, 0)
    }

    /// The same on a kernel that knows but this of `OWNERSHIP`.
    pub(super) fn on_kernel(policy: Policy, ownership: usize) -> Lan {
        let host = Netns::new();
        // Where there is br_netfilter, it drops and reassembles too.
        host.sh("for call in iptables ip6tables arptables; do
                 call=/proc/sys/net/bridge/bridge-nf-call-$call
                 if [ -e $call ]; then echo 0 > $call; fi
             done");
        // The host's own chatter; a bridge of the helper has none either.
        host.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
             echo 1 > /proc/sys/net/ipv4/ip_forward");
        let wanted = policy.clone();
        let (firewall, _) = host.run(move || Firewall::install_with(&wanted, ownership).unwrap());
        Lan { host, firewall, policy }
    }

    /// Runs what talks rtnetlink on the host.
    pub(super) fn links<F: Future<Output: Send + 'static>>(
        &self,
        work: impl FnOnce(Links) -> F + Send + 'static,
    ) -> F::Output {
        self.host.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { work(Links::connect().unwrap()).await })
        })
    }

    /// Makes a bridge with an address; its index.
    pub(super) fn bridge(&self, name: &str, address: Ipv4Addr, prefix_len: u8) -> u32 {
        let name = name.to_owned();
        self.links(async move |links| {
            links.add_bridge(&name, MacAddr(GATEWAY_MAC), 1500).await.unwrap();
            links.set_up(&name, address, prefix_len).await.unwrap();
            links.find(&name).await.unwrap().unwrap().index
        })
    }

    /// Makes a leaf bridge as `leaf.rs` does; its index.
    pub(super) fn leaf(&self, leaf: u32, root: u32, isolated: bool) -> u32 {
        let [name, upper, lower] = ["", "u", "d"].map(|end| format!("wsleaf{leaf}{end}"));
        self.links(async move |links| {
            let mac = MacAddr::locally_administered(name.as_bytes());
            links.add_bridge(&name, mac, 1500).await.unwrap();
            let bridge = links.set_up_apart(&name).await.unwrap();
            let ends = [upper.as_str(), lower.as_str()];
            links.add_cable(ends, [root, bridge], 1500, isolated).await.unwrap();
            bridge
        })
    }

    /// The index of an interface.
    pub(super) fn index(&self, name: &'static str) -> u32 {
        self.links(async move |links| links.find(name).await.unwrap().unwrap().index)
    }

    /// Opens a port of a network on a bridge, its guest without an address.
    pub(super) fn open(&mut self, network: u16, bridge: u32, number: u32, ip: Ipv4Addr) -> Guest {
        let NetworkPolicy { locks, isolation, .. } = self.policy.networks[usize::from(network)];
        let flags = PortFlags { locked: locks, isolated: isolation };
        let name = format!("wstap{number}");
        let (tap, link) = self.links({
            let name = name.clone();
            async move |links| {
                let (fd, _) = tap::create(&name, Offloads::NONE).unwrap();
                let attached = links.attach_port(&name, bridge, 1500, "note", false, flags).await;
                // As `server.rs` does: a bridge drops the host's own packets until it has woken up.
                let is_awake = |link: &Link| link.index == bridge && link.running;
                while !links.all().await.unwrap().iter().any(is_awake) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (fd, attached.unwrap())
            }
        });
        assert_eq!(link.locked, locks.then_some(true));
        self.firewall.bind(link.index, network, &[]).unwrap();
        let [.., a, b] = ip.octets();
        Guest { tap: tap.into(), index: link.index, name, mac: [2, 0, 0, 1, a, b], ip }
    }

    /// Binds a guest's addresses to its port.
    pub(super) fn bind(&mut self, network: u16, guest: &Guest) {
        self.bind_pairs(network, guest, &[(guest.mac, None), (guest.mac, Some(guest.ip))]);
    }

    /// Binds these addresses to a port.
    pub(super) fn bind_pairs(
        &mut self,
        network: u16,
        guest: &Guest,
        pairs: &[(Mac, Option<Ipv4Addr>)],
    ) {
        let pairs: Vec<Pair> = pairs.iter().map(|(mac, ip)| (MacAddr(*mac), *ip)).collect();
        self.firewall.bind(guest.index, network, &pairs).unwrap();
        let locks = self.policy.networks[usize::from(network)].locks;
        if locks {
            let index = guest.index;
            self.links(async move |links| {
                for (mac, _) in pairs {
                    links.add_mac(index, mac).await.unwrap();
                }
            });
        }
    }

    /// Opens a port and binds its guest's addresses.
    pub(super) fn join(&mut self, network: u16, bridge: u32, number: u32, ip: Ipv4Addr) -> Guest {
        let guest = self.open(network, bridge, number, ip);
        self.bind(network, &guest);
        guest
    }

    /// Where the host believes an address to be.
    pub(super) fn neighbour(&self, ip: Ipv4Addr) -> Option<Mac> {
        let shown = self.host.sh(&format!("ip -4 neigh show {ip}"));
        let mac = shown.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)?;
        Some(mac.parse::<MacAddr>().unwrap().0)
    }

    /// Has br_netfilter hand frames to the rules for packets.
    pub(super) fn filter_frames_as_packets(&self) {
        self.host.sh("for call in iptables ip6tables; do
                 echo 1 > /proc/sys/net/bridge/bridge-nf-call-$call
             done");
    }

    /// Number of a bridge's entries for MAC addresses.
    pub(super) fn fdb(&self, bridge: &str) -> usize {
        let shown = self.host.sh("bridge fdb show");
        shown.lines().filter(|line| line.contains(&format!("master {bridge}"))).count()
    }
}

impl Guest {
    /// Sends a frame. The kernel has brought it to every port where it belongs when this returns.
    pub(super) fn send(&self, frame: &[u8]) {
        assert_eq!((&self.tap).write(frame).unwrap(), frame.len());
    }

    /// What has come since it was last asked.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match (&self.tap).read(&mut buffer) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
    }

    /// Whether a frame has come, among others.
    pub(super) fn got(&self, frame: &[u8]) -> bool {
        self.received().iter().any(|got| got == frame)
    }

    /// The same for a frame that comes by a cable, which is waited for if it is to come.
    pub(super) fn gets(&self, frame: &[u8], is_to_come: bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let got = self.got(frame);
            if got || !is_to_come || Instant::now() > end {
                return got;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A frame of no protocol from this guest.
    pub(super) fn words(&self, to: Mac, words: &str) -> Vec<u8> {
        frames::ethernet(to, self.mac, frames::EXPERIMENTAL, words.as_bytes())
    }

    /// A UDP datagram of this guest.
    pub(super) fn udp(&self, to: Mac, dest: Ipv4Addr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let datagram = frames::udp(ports.0, ports.1, data);
        frames::ipv4(to, self.mac, self.ip, dest, 17, &datagram)
    }
}

/// The policy of one locked network, or of one without locks.
pub(super) fn only_with(locks: bool, change: impl FnOnce(&mut NetworkPolicy)) -> Policy {
    let access = wsnic_proto::settings::GuestAccess::All;
    let mut network = NetworkPolicy { locks, resolver: None, ..super::network(access) };
    change(&mut network);
    assert!(matches!(network.bridge, Bridge::One(_)));
    super::only(network)
}
