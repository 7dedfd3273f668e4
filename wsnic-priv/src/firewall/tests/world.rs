//! Network namespaces with a host, a guest on its bridge, an Internet and a LAN.

use nix::sched::{CloneFlags, unshare};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace; it ends with its thread.
pub(super) struct Netns {
    /// The thread that lives in it.
    pub(super) tid: String,
    jobs: mpsc::Sender<Job>,
}

impl Netns {
    pub(super) fn new() -> Netns {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(link.file_name().unwrap().to_str().unwrap().to_owned()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let netns = Netns { tid: told.recv().expect("these tests need root"), jobs };
        netns.sh("ip link set lo up");
        netns
    }

    /// Runs `job` inside.
    pub(super) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (tell, told) = mpsc::channel();
        let job = move || tell.send(catch_unwind(AssertUnwindSafe(job))).unwrap();
        self.jobs.send(Box::new(job)).unwrap();
        told.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs a shell script inside: status and output, both streams.
    pub(super) fn try_sh(&self, script: &str) -> (bool, String) {
        let script = format!("exec 2>&1; set -e; {script}");
        let output = self.run(|| Command::new("sh").arg("-c").arg(script).output().unwrap());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a shell script inside that must succeed.
    pub(super) fn sh(&self, script: &str) -> String {
        let (good, output) = self.try_sh(script);
        assert!(good, "{script}: {output}");
        output
    }

    /// Serves TCP and UDP on a port of all addresses: tells each client how it sees it.
    pub(super) fn serve(&self, port: u16) {
        let any = SocketAddrV4::new(0.into(), port);
        let tcp = self.run(move || TcpListener::bind(any).unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = tcp.accept() {
                let _ = stream.write_all(peer.ip().to_string().as_bytes());
            }
        });
        // One socket for each address, so that answers come from the one that was asked.
        for line in self.sh("ip -4 -o address").lines() {
            let block = line.split_whitespace().nth(3).unwrap();
            let address = block.split('/').next().unwrap().parse().unwrap();
            let address = SocketAddrV4::new(address, port);
            let udp = self.run(move || UdpSocket::bind(address).unwrap());
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
                }
            });
        }
    }

    /// Connects by TCP: the client's address as the server sees it, "refused" or "silent".
    pub(super) fn tcp(&self, to: &str) -> String {
        let to = to.parse().unwrap();
        self.run(move || {
            let mut answer = String::new();
            let stream = TcpStream::connect_timeout(&to, WAIT);
            let result = stream.and_then(|mut stream| stream.read_to_string(&mut answer));
            outcome(result.map(|_| answer))
        })
    }

    /// Asks by UDP: as [`Netns::tcp`].
    pub(super) fn udp(&self, to: &str) -> String {
        let to: SocketAddrV4 = to.parse().unwrap();
        self.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(WAIT)).unwrap();
            let mut buffer = [0; 64];
            let result = socket.connect(to).and_then(|()| {
                socket.send(b"?")?;
                socket.recv(&mut buffer)
            });
            outcome(result.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned()))
        })
    }

    /// Pings once.
    pub(super) fn pings(&self, to: &str) -> bool {
        self.try_sh(&format!("ping -c 1 -W 1 {to}")).0
    }
}

fn outcome(result: std::io::Result<String>) -> String {
    match result {
        Ok(answer) => answer,
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "silent".to_owned(),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable => "refused".to_owned(),
            _ => panic!("{error}"),
        },
    }
}

/// The host with bridge, uplink and LAN, and who is behind each.
pub(super) struct World {
    pub(super) host: Netns,
    pub(super) guest: Netns,
    pub(super) internet: Netns,
    pub(super) lan: Netns,
}

impl World {
    /// The host is 192.168.86.1 on wsbr0, 93.184.216.1 on up0, 192.168.1.1 on lan0; the guest is
    /// 192.168.86.2. Whatever has no route goes to the Internet, which also answers for addresses
    /// that do not belong there. The LAN routes the guests' subnet to the host.
    pub(super) fn new() -> World {
        World::with_port("g0")
    }

    /// The same, where the guest's port has another name.
    pub(super) fn with_port(port: &str) -> World {
        let world = World {
            host: Netns::new(),
            guest: Netns::new(),
            internet: Netns::new(),
            lan: Netns::new(),
        };
        let World { host, guest, internet, lan } = &world;
        host.sh(&format!(
            "ip link add wsbr0 type bridge
             ip link add {port} type veth peer name eth0 netns {}
             ip link add up0 type veth peer name eth0 netns {}
             ip link add lan0 type veth peer name eth0 netns {}
             ip link set {port} master wsbr0
             ip address add 192.168.86.1/24 dev wsbr0
             ip address add 93.184.216.1/24 dev up0
             ip address add 192.168.1.1/24 dev lan0
             for link in {port} wsbr0 up0 lan0; do ip link set $link up; done
             ip route add default via 93.184.216.34
             echo 1 > /proc/sys/net/ipv4/ip_forward",
            guest.tid, internet.tid, lan.tid
        ));
        for (netns, address, route) in [
            (guest, "192.168.86.2/24", "default via 192.168.86.1"),
            (internet, "93.184.216.34/24", "192.168.1.0/24 via 93.184.216.1"),
            (lan, "192.168.1.50/24", "default via 192.168.1.1"),
        ] {
            netns.sh(&format!(
                "ip address add {address} dev eth0; ip link set eth0 up; ip route add {route}"
            ));
        }
        for address in ["8.8.8.8", "8.8.4.4", "10.9.9.9", "100.64.0.9", "169.254.169.254"] {
            internet.sh(&format!("ip address add {address}/32 dev lo"));
        }
        internet.sh("ip address add 203.0.113.9/32 dev lo");
        for port in [25, 53, 80] {
            internet.serve(port);
            lan.serve(port);
        }
        host.serve(80);
        guest.serve(80);
        world
    }
}

/// How long silence is waited for.
const WAIT: Duration = Duration::from_millis(700);
