//! The world around one wsnic.
//!
//! ```text
//!   inet  93.184.216.34 web, .53 name server, 169.254.169.254 metadata, 10.20.30.40 private
//!     │ 93.184.215.1, 2a01:4f8:1::1
//!     │ wan0 93.184.215.2, 2a01:4f8:1::2
//!   srv   wsnic runs here, and a host service on port 7000
//!     │ lan0 192.168.50.1, fd00:50::1
//!     │ 192.168.50.2, fd00:50::2
//!   lan   an RFC 1918 neighbour with services on port 7000
//! ```

use crate::netns::Netns;
use crate::services::{self, Service};
use crate::snapshot::Snapshot;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take until nothing is left of a server that has ended.
const CLEARING_LIMIT: Duration = Duration::from_secs(5);

/// Who is where.
pub mod address {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// wsnic's default gateway address.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);
    /// An HTTP server on the Internet.
    pub const WEB: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
    /// The Internet host's IPv6 address.
    pub const WEB6: Ipv6Addr = Ipv6Addr::new(0x2a01, 0x4f8, 1, 0, 0, 0, 0, 1);
    /// The name server that the server's resolv.conf names.
    pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 53);
    /// The server towards the Internet.
    pub const WAN: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 2);
    /// The server towards the Internet.
    pub const WAN6: Ipv6Addr = Ipv6Addr::new(0x2a01, 0x4f8, 1, 0, 0, 0, 0, 2);
    /// The server's provider, one hop away.
    pub const UPLINK: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 1);
    /// The server towards its LAN.
    pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
    /// A neighbour in the server's LAN, which also resolves names.
    pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
    /// The neighbour in IPv6.
    pub const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 2);
    /// A private network behind the provider's router.
    pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 20, 30, 40);
    /// Where clouds keep credentials.
    pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
    /// The port of every service that says who it is: `srv`, `lan`, `metadata`, `private` or `web`.
    pub const NAMED_PORT: u16 = 7000;
}

/// Three namespaces with services, a folder, and how it all looked before the test.
#[derive(Debug)]
pub struct Lab {
    /// Where wsnic runs.
    pub srv: Netns,
    /// The Internet.
    pub inet: Netns,
    /// The server's private network.
    pub lan: Netns,
    dir: TempDir,
    before: Snapshot,
    _services: Vec<Service>,
}

impl Lab {
    /// The world as drawn above, with nothing of wsnic in it.
    ///
    /// # Panics
    /// Without root.
    pub fn new() -> Lab {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run as root"
        );
        let dir =
            tempfile::Builder::new().prefix("wsnic-test-").tempdir().expect("a temporary folder");
        // The front-end is not root and must reach what lies in the folder.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))
            .expect("the owner of a folder may change its mode");
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {}\n", address::RESOLVER))
            .expect("a file in the temporary folder");
        let (srv, inet, lan) = (Netns::with_mounts(&resolv_conf), Netns::new(), Netns::new());
        connect(&srv, &inet, &lan);
        let services = populate(&srv, &inet, &lan);
        let before = Snapshot::take(&srv, dir.path());
        Lab { srv, inet, lan, dir, before, _services: services }
    }

    /// A file in the lab's folder, which every process may reach.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.srv.ip("-o link show").lines().filter(|line| line.contains(": wstap")).count()
    }

    /// How many MAC addresses of guests are bound to ports.
    pub fn bound_macs(&self) -> usize {
        self.srv.run("bridge fdb show").lines().filter(|line| line.contains(" sticky")).count()
    }

    /// Replaces the server's /etc/resolv.conf.
    pub fn set_resolv_conf(&self, text: &str) {
        // Written in place: the file is bound into the server's file system.
        std::fs::write(self.file("resolv.conf"), text).expect("the resolv.conf is the lab's");
    }

    /// Takes the present state as the one that [`Lab::finish`] compares with, after the test has
    /// changed the world itself.
    pub fn settle(&mut self) {
        self.before = Snapshot::take(&self.srv, self.dir.path());
    }

    /// What is different from how it was before the test.
    pub fn difference(&self) -> String {
        let files = ["wsnic.conf", "wsnic.log"];
        let present: Vec<_> =
            files.iter().map(|name| self.file(name)).filter(|f| f.exists()).collect();
        for file in present {
            let _ = std::fs::remove_file(file);
        }
        self.before.difference(&Snapshot::take(&self.srv, self.dir.path()))
    }

    /// Ends the test: everything must be as it was before. What clears up after a process that has ended
    /// has a moment for it.
    pub fn finish(self) {
        let end = Instant::now() + CLEARING_LIMIT;
        let mut difference = self.difference();
        while !difference.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            difference = self.difference();
        }
        assert!(difference.is_empty(), "left behind (+) or lost (-):\n{difference}");
    }
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

fn connect(srv: &Netns, inet: &Netns, lan: &Netns) {
    srv.link("wan0", inet, "net0");
    srv.link("lan0", lan, "eth0");
    srv.ip("address add 93.184.215.2/24 dev wan0");
    srv.ip("address add 2a01:4f8:1::2/64 dev wan0 nodad");
    srv.ip("address add 192.168.50.1/24 dev lan0");
    srv.ip("address add fd00:50::1/64 dev lan0 nodad");
    srv.ip("route add default via 93.184.215.1");
    srv.ip("-6 route add default via 2a01:4f8:1::1");
    inet.ip("address add 93.184.215.1/24 dev net0");
    inet.ip("address add 2a01:4f8:1::1/64 dev net0 nodad");
    for address in [address::WEB, address::RESOLVER, address::METADATA, address::PRIVATE] {
        inet.ip(&format!("address add {address}/32 dev lo"));
    }
    lan.ip("address add 192.168.50.2/24 dev eth0");
    lan.ip("address add fd00:50::2/64 dev eth0 nodad");
    lan.ip("route add default via 192.168.50.1");
    lan.ip("-6 route add default via fd00:50::1");
    // IPv6 reaches everything too, if something lets a guest's through.
    for name in ["wan0", "lan0"] {
        crate::wait_until("the links are up", || {
            srv.ip(&format!("link show {name}")).contains("state UP")
        });
    }
    crate::wait_until("link-local addresses are there", || {
        srv.ip("-6 -o address show scope link").lines().count() == 2
    });
    crate::wait_until("all addresses are in use", || {
        let routes = srv.ip("-6 route show table local");
        ["2a01:4f8:1::2", "fd00:50::1"].iter().all(|address| routes.contains(address))
    });
}

fn populate(srv: &Netns, inet: &Netns, lan: &Netns) -> Vec<Service> {
    use std::net::Ipv6Addr;
    let port = address::NAMED_PORT;
    let any = Ipv6Addr::UNSPECIFIED.into();
    vec![
        services::named_service(srv, any, port, "srv"),
        services::named_service(lan, any, port, "lan"),
        services::named_service(inet, address::WEB.into(), port, "web"),
        services::named_service(inet, address::WEB6.into(), port, "web"),
        services::named_service(inet, address::UPLINK.into(), port, "web"),
        services::named_service(inet, address::METADATA.into(), port, "metadata"),
        services::named_service(inet, address::PRIVATE.into(), port, "private"),
        services::http_server(inet, address::WEB.into()),
        services::dns_server(inet, address::RESOLVER.into(), address::WEB),
        services::dns_server(lan, address::NEIGHBOUR.into(), address::WEB),
    ]
}
