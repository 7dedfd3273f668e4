//! A server with its own lab, whichever server it is, and guests that connect to it.
//!
//! All servers are clients' neighbours over the same kind of link, have a bridge of the same name,
//! address and settings, and stand behind the same firewall: that of wsnic, copied.

use crate::core::Core;
use crate::line::Line;
use crate::pump::Pump;
use crate::relay::BRIDGE;
use crate::tap;
use crate::wire::Wire;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wsnic_tests::frames::Mac;
use wsnic_tests::{Identity, Lab, Netns, Server, Trust, address, wait_until};

/// Where the servers listen.
const PORT: u16 = 8086;
/// The same, with TLS.
const TLS_PORT: u16 = 8087;
/// Guests that move data; addresses of others are of no interest.
const GUESTS: u8 = 5;
/// How long a server may take to answer a handshake: many come at a time.
const LIMIT: Duration = Duration::from_secs(20);

/// The address of a guest that moves data, numbered from 0.
pub fn guest_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 86, 200 + number)
}

/// Its MAC address.
pub fn guest_mac(number: u8) -> Mac {
    [2, 0x86, 0, 0, 0, 1 + number]
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The one that is measured.
    Wsnic,
    /// tokio-tungstenite, a flush for each frame.
    Naive,
    /// A copy between TAP and TCP.
    Limit,
    /// The Python program.
    Python,
}

impl Kind {
    /// How it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Wsnic => "wsnic",
            Kind::Naive => "naive",
            Kind::Limit => "limit",
            Kind::Python => "Python",
        }
    }

    /// How clients speak to it.
    pub fn wire(self) -> Wire {
        if self == Kind::Limit { Wire::Length } else { Wire::WebSocket }
    }
}

enum Running {
    Wsnic(Server),
    Other(Child),
}

/// A running server.
pub struct Stage {
    /// Which one.
    pub kind: Kind,
    /// Its world; guests connect from `lan`.
    pub lab: Lab,
    running: Running,
    trust: Option<Trust>,
}

impl Stage {
    /// wsnic, with these lines in its configuration; guests may reach the server's own addresses, and
    /// all clients have one address.
    pub fn wsnic(conf: &str) -> Stage {
        Stage::wsnic_in(Lab::new(), conf, None)
    }

    /// The same by ws and wss, with these texts as the files that options name.
    pub fn wsnic_with_tls(files: &[(&str, &str)], conf: &str) -> Stage {
        let mut lab = Lab::new();
        let identity = Identity::self_signed(&["localhost"]);
        let mut conf = conf.to_owned();
        for (option, text) in files.iter().chain(&[("wss_server_cert", &*identity.both())]) {
            let path = lab.file(option);
            std::fs::write(&path, text).expect("a file can be written");
            conf += &format!("{option} = {}\n", path.display());
        }
        // They are no trace of the server.
        lab.settle();
        Stage::wsnic_in(lab, &conf, Some(Trust::new(&identity.certificate, "localhost")))
    }

    fn wsnic_in(lab: Lab, conf: &str, trust: Option<Trust>) -> Stage {
        let conf = format!(
            "ws_server_addr = {}\nguest_access = all\nmax_clients_per_address = 0\n{}{conf}",
            address::LAN,
            if conf.contains("handshake_rate") { "" } else { "handshake_rate = 0\n" }
        );
        let server = Server::start(&lab, &conf);
        Stage { kind: Kind::Wsnic, lab, running: Running::Wsnic(server), trust }.prepared()
    }

    /// A relay behind the firewall of `wsnic`.
    pub fn relay(kind: Kind, wsnic: &Stage) -> Stage {
        let lab = Lab::new();
        let mac = wsnic.gateway_mac().map(|byte| format!("{byte:02x}")).join(":");
        lab.srv.ip(&format!(
            "link add {BRIDGE} address {mac} mtu 1500 type bridge stp_state 0 forward_delay 0 \
             mcast_snooping 0"
        ));
        lab.srv.ip(&format!("link set {BRIDGE} addrgenmode none"));
        lab.srv.ip(&format!("address add {}/24 dev {BRIDGE}", address::GATEWAY));
        lab.srv.ip(&format!("link set {BRIDGE} up"));
        let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
        command.arg("relay").arg(kind.name());
        command.arg(SocketAddr::from((address::LAN, PORT)).to_string());
        Stage::other(kind, lab, command, wsnic)
    }

    /// The Python program in a checkout, behind the firewall of `wsnic`.
    pub fn python(checkout: &Path, wsnic: &Stage) -> Stage {
        let lab = Lab::new();
        let mut command = Command::new("python3");
        command.args(["-B", "-m", "wsnic", "-q", "--disable-dhcp", "-a"]);
        command.arg(address::LAN.to_string()).current_dir(checkout);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // It drops a client whose socket takes nothing for a moment, and ends.
        for name in ["tcp_wmem", "tcp_rmem"] {
            lab.srv.set_sysctl(&format!("net/ipv4/{name}"), "4096 8388608 33554432");
            lab.lan.set_sysctl(&format!("net/ipv4/{name}"), "4096 8388608 33554432");
        }
        Stage::other(Kind::Python, lab, command, wsnic)
    }

    fn other(kind: Kind, lab: Lab, mut command: Command, wsnic: &Stage) -> Stage {
        lab.srv.nft(&wsnic.firewall());
        let child = lab.srv.spawn(command.stdin(Stdio::piped()));
        let stage = Stage { kind, lab, running: Running::Other(child), trust: None };
        wait_until("a relay listens", || {
            let listening = stage.lab.srv.run("cat /proc/net/tcp");
            listening.lines().any(|line| line.contains(&format!(":{PORT:04X} 00000000:0000 0A")))
        });
        stage.prepared()
    }

    /// The busy guests are known, so that nobody is asked for them.
    fn prepared(self) -> Stage {
        // Bridges leave IP to the firewall's IP hooks only where Docker or Kubernetes turned that on.
        for family in ["ip", "ip6", "arp"] {
            let path = format!("net/bridge/bridge-nf-call-{family}tables");
            if Path::new("/proc/sys").join(&path).exists() {
                self.lab.srv.set_sysctl(&path, "0");
            }
        }
        for number in 0..GUESTS {
            let mac = guest_mac(number).map(|byte| format!("{byte:02x}")).join(":");
            let address = guest_address(number);
            self.lab
                .srv
                .ip(&format!("neigh replace {address} lladdr {mac} dev {BRIDGE} nud permanent"));
        }
        self
    }

    /// The firewall as a script that anybody may load.
    fn firewall(&self) -> String {
        let rules = self.lab.srv.run("nft list ruleset");
        let owned = |line: &&str| !line.trim().starts_with("flags owner");
        rules.lines().filter(owned).collect::<Vec<_>>().join("\n")
    }

    /// The bridge's MAC address.
    pub fn gateway_mac(&self) -> Mac {
        let text = self.lab.srv.run(&format!("cat /sys/class/net/{BRIDGE}/address"));
        let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("a MAC address");
        bytes.try_into().expect("six bytes")
    }

    /// The process that moves frames.
    pub fn pid(&self) -> u32 {
        match &self.running {
            Running::Wsnic(server) => server.front_end(),
            Running::Other(child) => child.id(),
        }
    }

    /// The process that makes ports.
    pub fn helper(&self) -> u32 {
        match &self.running {
            Running::Wsnic(server) => server.helper(),
            Running::Other(child) => child.id(),
        }
    }

    /// Processor seconds that the server has used so far, all its processes.
    pub fn cpu(&self) -> f64 {
        match &self.running {
            Running::Wsnic(server) => server.family().into_iter().map(crate::cpu_seconds).sum(),
            Running::Other(child) => crate::cpu_seconds(child.id()),
        }
    }

    /// Lets the server's processes go first on this machine, as if all others were elsewhere.
    pub fn goes_first(&self) {
        let family = match &self.running {
            Running::Wsnic(server) => server.family(),
            Running::Other(child) => vec![child.id()],
        };
        let threads = family.into_iter().flat_map(threads_of).map(|thread| thread.to_string());
        let mut command = Command::new("renice");
        command.args(["-n", "-20", "-p"]).args(threads).stdout(Stdio::null());
        assert!(command.status().expect("renice runs").success(), "it needs root");
    }

    /// Has whatever moves frames run there from now on.
    pub fn stays_on(&self, core: Core) {
        threads_of(self.pid()).for_each(|thread| core.holds(thread));
    }

    /// A client's connection, with the handshake done.
    pub fn connect(&self) -> TcpStream {
        self.connect_path("/")
    }

    fn connect_path(&self, path: &str) -> TcpStream {
        self.lab.lan.enter(|| self.try_connect_path(path)).expect("the server lets a client in")
    }

    /// Like [`Stage::connect`], by a thread that is in `lan`.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn try_connect(&self) -> io::Result<TcpStream> {
        self.try_connect_path("/")
    }

    fn try_connect_path(&self, path: &str) -> io::Result<TcpStream> {
        let address = SocketAddr::from((address::LAN, PORT));
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_nodelay(true)?;
        if self.kind.wire() == Wire::WebSocket {
            handshake(&mut stream, path)?;
        }
        Ok(stream)
    }

    /// A client's connection by wss, with both handshakes done.
    ///
    /// # Errors
    /// When the server refuses, or speaks no TLS.
    pub fn connect_tls(&self, path: &str) -> io::Result<(TcpStream, ClientConnection)> {
        let trust = self.trust.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let address = SocketAddr::from((address::LAN, TLS_PORT));
        let socket = self.lab.lan.enter(|| TcpStream::connect_timeout(&address, LIMIT))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let connection = ClientConnection::new(trust.config()?, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(request(path).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        Ok((stream.sock, stream.conn))
    }

    /// Datagrams that sockets of the server's namespace were handed, whether they had room or not.
    pub fn datagrams_from_guests(&self) -> u64 {
        let text = self.lab.srv.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
        let text = text.expect("the kernel counts");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, numbers) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let counted = names.split(' ').zip(numbers.split(' '));
        let wanted = counted.filter(|(name, _)| ["InDatagrams", "RcvbufErrors"].contains(name));
        wanted.map(|(_, number)| number.parse::<u64>().expect("a number")).sum()
    }

    /// The interface of the only client's port.
    pub fn port(&self) -> String {
        let links = self.lab.srv.ip("-o link show");
        let mut names = links.lines().filter_map(|line| line.split(": ").nth(1));
        names.find(|name| name.starts_with("wstap")).expect("a client is there").to_owned()
    }

    /// Ends the server; nothing may be left of it.
    pub fn end(self) {
        match self.running {
            Running::Wsnic(server) => drop(server.stop()),
            Running::Other(mut child) => {
                let _ = child.kill();
                child.wait().expect("a child can be waited for");
                self.lab.srv.ip(&format!("link delete {BRIDGE}"));
                self.lab.srv.nft("flush ruleset");
            }
        }
        self.lab.finish();
        wait_for_kernel();
    }
}

/// The threads of a process.
fn threads_of(pid: u32) -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    threads.map(|thread| {
        let name = thread.expect("a directory entry").file_name();
        name.to_str().and_then(|name| name.parse().ok()).expect("a number")
    })
}

/// The kernel deletes what was in a namespace later, and while it does, it makes everybody wait who
/// wants to change an interface: seconds after a thousand ports, a minute after five thousand.
fn wait_for_kernel() {
    let (netns, end) = (Netns::new(), Instant::now() + CLEARED);
    let mut quick = 0;
    while quick < 3 && Instant::now() < end {
        let started = Instant::now();
        netns.ip("link add wait0 type bridge");
        netns.ip("link set wait0 up");
        quick = if started.elapsed() < UNDISTURBED { quick + 1 } else { 0 };
        netns.ip("link delete wait0");
    }
}

/// How long that is waited for.
const CLEARED: Duration = Duration::from_secs(300);
/// What two `ip` commands take at most when nobody holds the kernel's lock.
const UNDISTURBED: Duration = Duration::from_millis(20);

/// What a client says first.
pub fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: wsnic\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
}

/// Asks for a WebSocket and reads the answer to its end.
fn handshake(stream: &mut TcpStream, path: &str) -> io::Result<()> {
    stream.write_all(request(path).as_bytes())?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Frames may follow at once: looked at first, then taken to the end of the head.
        let mut bytes = [0; 1024];
        let seen = stream.peek(&mut bytes)?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let all = [&head[..], &bytes[..seen]].concat();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let len = end.map_or(seen, |end| end - head.len());
        stream.read_exact(&mut bytes[..len])?;
        head.extend_from_slice(&bytes[..len]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&head).lines().next().unwrap_or("").to_owned()))
}

/// A guest with a network stack: a TAP in a namespace of its own.
pub struct Guest {
    /// Where its programs run.
    pub netns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
    socket: TcpStream,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    /// Connects as the guest of this number.
    pub fn join(stage: &Stage, number: u8, offloads: bool) -> Guest {
        Guest::join_by(stage, number, offloads, Line::Plain(stage.connect()))
    }

    /// The same by this path.
    pub fn join_path(stage: &Stage, number: u8, path: &str) -> Guest {
        Guest::join_by(stage, number, true, Line::Plain(stage.connect_path(path)))
    }

    /// The same by wss.
    pub fn join_tls(stage: &Stage, number: u8, offloads: bool) -> Guest {
        let (socket, connection) = stage.connect_tls("/").expect("the server lets a client in");
        Guest::join_by(stage, number, offloads, Line::tls(socket, connection))
    }

    fn join_by(stage: &Stage, number: u8, offloads: bool, line: Line) -> Guest {
        let (address, mac) = (guest_address(number), guest_mac(number));
        let netns = Netns::new();
        let tap = netns.enter(|| tap::create("eth0", offloads)).expect("a TAP can be made");
        let hex = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        netns.ip(&format!("link set eth0 address {} mtu 1500 addrgenmode none", hex(mac)));
        netns.ip(&format!("address add {address}/24 dev eth0"));
        netns.ip("link set eth0 up");
        let gateway = hex(stage.gateway_mac());
        netns.ip(&format!(
            "neigh replace {} lladdr {gateway} dev eth0 nud permanent",
            address::GATEWAY
        ));
        let socket = line.socket().try_clone().expect("one more handle");
        let pump = Pump::new(tap, line, stage.kind.wire(), offloads);
        let pump = std::thread::Builder::new().name("guest".into()).spawn(|| pump.run());
        let guest = Guest { netns, address, socket, pump: Some(pump.expect("a thread starts")) };
        // The bridge learns where the guest is.
        wait_until(&format!("the guest of {} hears the gateway", stage.kind.name()), || {
            guest.netns.succeeds(&format!("ping -n -c 1 -W 1 {}", address::GATEWAY))
        });
        guest
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}
