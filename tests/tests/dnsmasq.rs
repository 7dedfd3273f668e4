//! dnsmasq as the DHCP and DNS service: the real one, as the package has it.

use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;
use wsnic_tests::frames;
use wsnic_tests::services::{BIG_NAME, WEB_NAME};
use wsnic_tests::{
    Lab, NativeGuest, Netns, RawGuest, Server, address, address::GATEWAY, run_wsnic, wait_until,
};

const DNSMASQ: &str = "dhcp_service = dnsmasq\n";

/// What a process may do, by /proc/PID/status.
fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("a line of this name").trim().to_owned()
}

fn dnsmasq(server: &Server) -> u32 {
    server.program("dnsmasq").unwrap_or_else(|| panic!("no dnsmasq:\n{}", server.log()))
}

#[test]
fn a_real_client_gets_its_lease_from_dnsmasq() {
    let lab = Lab::new();
    let conf = format!(
        "{DNSMASQ}inet_iface = wan0\ndhcp_domain_name = lan.example\ndhcp_lease_time = 4000\n"
    );
    let server = Server::start(&lab, &conf);
    let guest = NativeGuest::plug(&lab);
    let lease = guest.dhcp();
    for (name, value) in [
        ("ip", "192.168.86.2"),
        ("mask", "24"),
        ("router", "192.168.86.1"),
        ("dns", "192.168.86.1"),
        ("domain", "lan.example"),
        ("lease", "4000"),
        ("serverid", "192.168.86.1"),
    ] {
        assert_eq!(lease.get(name), value, "{name} of {lease:?}");
    }
    assert_eq!(guest.dhcp().get("ip"), "192.168.86.2", "it keeps its address");
    assert_eq!(NativeGuest::join(&lab).ip(), Ipv4Addr::new(192, 168, 86, 3));
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn guests_know_each_other_by_name() {
    let lab = Lab::new();
    let conf = format!("{DNSMASQ}dhcp_domain_name = lan.example\n");
    let server = Server::start(&lab, &conf);
    let one = NativeGuest::join(&lab);
    let other = NativeGuest::join(&lab);
    // Of two with the same name the one who asked last has it.
    for name in ["native", "native.lan.example"] {
        assert_eq!(one.resolves(name), [other.ip()], "{name}");
    }
    assert!(one.asks_dns_by_tcp(GATEWAY, "native").is_ok());
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn names_of_the_internet_are_for_guests_with_a_way_there() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{DNSMASQ}inet_iface = wan0\n"));
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    assert!(guest.asks_dns_by_tcp(GATEWAY, BIG_NAME).expect("an answer").len() > 512);
    assert!(!guest.downloads(address::WEB, "/blob/1000").is_empty());
    drop(guest);
    server.stop();

    let server = Server::start(&lab, DNSMASQ);
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [] as [Ipv4Addr; 0]);
    assert_eq!(guest.resolves("native"), [guest.ip()]);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_resolver_of_the_host_alone_serves_guests_by_dnsmasq() {
    let lab = Lab::new();
    let stub = wsnic_tests::services::dns_server(
        &lab.srv,
        Ipv4Addr::new(127, 0, 0, 53).into(),
        address::WEB,
    );
    lab.set_resolv_conf("nameserver 127.0.0.53\n");
    let server = Server::start(&lab, &format!("{DNSMASQ}inet_iface = wan0\n"));
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.resolves(WEB_NAME), [address::WEB]);
    drop((guest, stub));
    let log = server.stop();
    assert!(!log.contains("cannot resolve names"), "{log}");
    lab.finish();
}

#[test]
fn dnsmasq_holds_no_privilege_once_it_serves() {
    let lab = Lab::new();
    let server = Server::start(&lab, DNSMASQ);
    let pid = dnsmasq(&server);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(pid, set), 16), Ok(0), "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(status(pid, "Groups"), "");
    let uids = status(pid, "Uid");
    assert!(uids.split_whitespace().all(|uid| uid != "0"), "{uids}");
    // So does the process that watches over it.
    let parent: u32 = status(pid, "PPid").parse().expect("a number");
    assert_eq!(u64::from_str_radix(&status(parent, "CapPrm"), 16), Ok(0));
    assert_eq!(status(parent, "Uid"), uids);
    // No file of the machine's own dnsmasq, and no socket but on the bridge.
    let sockets = lab.srv.run("ss -Hlnup");
    let ours: Vec<&str> = sockets.lines().filter(|line| line.contains("\"dnsmasq\"")).collect();
    assert!(!ours.is_empty());
    for line in ours {
        assert!(line.contains("192.168.86.1:53") || line.contains("%wsbr0:67"), "{sockets}");
    }
    let guest = NativeGuest::join(&lab);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn nobody_but_guests_and_the_host_itself_asks_dnsmasq() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{DNSMASQ}inet_iface = wan0\n"));
    let guest = NativeGuest::join(&lab);
    let asks = |netns: &Netns| {
        netns.output(Command::new("busybox").args([
            "timeout",
            "4",
            "busybox",
            "nslookup",
            "-type=a",
            "native",
            "192.168.86.1",
        ]))
    };
    let answered =
        |output: Output| String::from_utf8_lossy(&output.stdout).contains(&guest.ip().to_string());
    // The neighbour's way to that address is the host, which would take it for its own.
    assert!(answered(asks(&lab.srv)), "the host itself");
    assert!(answered(asks(&guest.netns)), "a guest");
    assert!(!answered(asks(&lab.lan)), "a neighbour of the host");
    let connect = || {
        let address = SocketAddr::from((GATEWAY, 53));
        TcpStream::connect_timeout(&address, Duration::from_millis(1500)).is_ok()
    };
    assert!(guest.netns.enter(connect) && !lab.lan.enter(connect), "nor over TCP");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_killed_dnsmasq_is_started_again_and_forgets_nobody() {
    let lab = Lab::new();
    let server = Server::start(&lab, DNSMASQ);
    let early = NativeGuest::join(&lab);
    let pid = dnsmasq(&server);
    assert!(server.kill_program("dnsmasq"));
    server.wait_for_log("dnsmasq of network default has ended, starting it again");
    wait_until("there is another", || server.program("dnsmasq").is_some_and(|new| new != pid));
    let late = NativeGuest::join(&lab);
    assert_ne!(late.ip(), early.ip(), "leases outlive the process that keeps them");
    assert_eq!(early.dhcp().get("ip"), early.ip().to_string());
    assert!(early.pings(late.ip()));
    drop((early, late));
    server.stop();
    lab.finish();
}

#[test]
fn leases_are_kept_over_a_restart_of_wsnic() {
    let lab = Lab::new();
    let file = lab.file("leases");
    let conf = format!("{DNSMASQ}dhcp_lease_file = {}\n", file.display());
    let server = Server::start(&lab, &conf);
    let first = NativeGuest::join(&lab);
    assert_eq!(first.ip(), Ipv4Addr::new(192, 168, 86, 2));
    drop(first);
    server.stop();
    let text = std::fs::read_to_string(&file).expect("the lease file");
    assert!(text.contains(" 192.168.86.2 native "), "{text}");

    let server = Server::start(&lab, &conf);
    let second = NativeGuest::join(&lab);
    assert_eq!(second.ip(), Ipv4Addr::new(192, 168, 86, 3), "the first one's is taken");
    drop(second);
    server.stop();

    // The built-in server goes on with the file, and gives it back.
    let builtin = format!("dhcp_lease_file = {}\n", file.display());
    let server = Server::start(&lab, &builtin);
    let third = NativeGuest::join(&lab);
    assert_eq!(third.ip(), Ipv4Addr::new(192, 168, 86, 4));
    drop(third);
    server.stop();
    let server = Server::start(&lab, &conf);
    let fourth = NativeGuest::join(&lab);
    assert_eq!(fourth.ip(), Ipv4Addr::new(192, 168, 86, 5));
    drop(fourth);
    server.stop();
    std::fs::remove_file(&file).expect("the file is there");
    lab.finish();
}

#[test]
fn each_network_has_a_dnsmasq_of_its_own() {
    let lab = Lab::new();
    let conf = format!(
        "{DNSMASQ}[network lab]\nsubnet = 10.1.0.0/24\nmtu = 1400\n{DNSMASQ}\
         [network plain]\nsubnet = 10.2.0.0/24\n"
    );
    let server = Server::start(&lab, &conf);
    let one = NativeGuest::join(&lab);
    let other = NativeGuest::join_at(&lab, "/lab");
    let plain = NativeGuest::join_at(&lab, "/plain");
    assert_eq!(one.ip(), Ipv4Addr::new(192, 168, 86, 2));
    assert_eq!(other.ip(), Ipv4Addr::new(10, 1, 0, 2));
    assert_eq!(plain.ip(), Ipv4Addr::new(10, 2, 0, 2), "by the built-in server");
    assert_eq!(one.resolves("native"), [one.ip()], "each knows its own guests");
    assert_eq!(other.resolves("native"), [other.ip()]);
    assert_eq!(other.dhcp().get("mtu"), "1400");
    // Not even by asking the other network's.
    assert_eq!(one.asks_dns(Ipv4Addr::new(10, 1, 0, 1), "native"), None);
    drop((one, other, plain));
    server.stop();
    lab.finish();
}

#[test]
fn the_first_frame_from_a_new_address_is_not_lost() {
    let lab = Lab::new();
    let server = Server::start(&lab, DNSMASQ);
    for _ in 0..5 {
        let mut guest = RawGuest::join(&lab);
        // Asked once.
        guest.send(&frames::arp_request(guest.mac, guest.ip, GATEWAY));
        guest.receive_until(|frame| frames::parse_arp(frame).filter(|arp| arp.2 == GATEWAY));
        guest.leave();
    }
    server.stop();
    lab.finish();
}

#[test]
fn an_address_that_dnsmasq_gives_is_taken_from_who_just_uses_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, DNSMASQ);
    let squatter = NativeGuest::plug(&lab);
    squatter.netns.ip("address add 192.168.86.2/24 dev eth0");
    assert!(squatter.pings(GATEWAY), "as long as nobody else has it");
    let guest = NativeGuest::join(&lab);
    assert_eq!(guest.ip(), Ipv4Addr::new(192, 168, 86, 2));
    // Who had the address is no more believed to have it.
    lab.srv.run("ip neighbour flush dev wsbr0");
    assert!(guest.pings(GATEWAY));
    assert!(!squatter.pings(GATEWAY));
    drop((squatter, guest));
    server.stop();
    lab.finish();
}

#[test]
fn a_bridge_that_is_made_anew_is_served_again() {
    let lab = Lab::new();
    let server = Server::start(&lab, DNSMASQ);
    let before = NativeGuest::join(&lab);
    let pid = dnsmasq(&server);
    lab.srv.ip("link delete wsbr0");
    server.wait_for_log("made anew");
    wait_until("there is another", || server.program("dnsmasq").is_some_and(|new| new != pid));
    let after = NativeGuest::join(&lab);
    assert_ne!(before.ip(), after.ip());
    drop((before, after));
    server.stop();
    lab.finish();
}

#[test]
fn nothing_of_dnsmasq_outlives_wsnic_however_it_ends() {
    let lab = Lab::new();
    Server::start(&lab, DNSMASQ).kill();
    Server::start(&lab, DNSMASQ).kill_all();
    let server = Server::start(&lab, DNSMASQ);
    server.signal_program("dnsmasq", Signal::SIGSTOP);
    server.stop();
    lab.finish();
}

#[test]
fn a_port_that_is_taken_is_said_and_ends_the_start() {
    let lab = Lab::new();
    let taken = lab.srv.enter(|| std::net::UdpSocket::bind("0.0.0.0:53")).expect("a free port");
    let log = Server::refuses(&lab, DNSMASQ, &[]);
    assert!(log.contains("192.168.86.1") && log.contains("Address already in use"), "{log}");
    assert!(log.contains("dnsmasq of network default did not start"), "{log}");
    drop(taken);
    lab.finish();
}

#[test]
fn without_the_program_the_package_is_named() {
    let lab = Lab::new();
    for dir in ["/usr/sbin", "/usr/bin", "/usr/local/sbin"] {
        if std::path::Path::new(dir).join("dnsmasq").exists() {
            // Without mount(8), which leaves a file of its own.
            lab.srv.run(&format!("busybox mount -o bind /dev/null {dir}/dnsmasq"));
        }
    }
    let log = Server::refuses(&lab, DNSMASQ, &[]);
    assert!(log.contains("dnsmasq-base") && log.contains("dhcp_service=builtin"), "{log}");
    let (status, text) = run_wsnic(&lab.srv, &["check", "--dhcp-service=dnsmasq"]);
    assert!(!status.success() && text.contains("dnsmasq-base"), "{text}");
    lab.finish();
}
