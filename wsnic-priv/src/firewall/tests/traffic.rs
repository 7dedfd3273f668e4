//! What guests reach, by packets.

use super::super::Firewall;
use super::world::World;
use super::*;
use std::time::Instant;

const WAN: &str = "93.184.216.1";

fn install(world: &World, policy: Policy) -> Firewall {
    world.host.run(move || Firewall::install(&policy).unwrap().0)
}

fn assert_tcp(world: &World, expected: &[(&str, &str)]) {
    for (to, wanted) in expected {
        assert_eq!(world.guest.tcp(to), *wanted, "TCP to {to}");
    }
}

#[test]
fn internet_access_reaches_public_addresses_only() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Internet));
    assert_tcp(
        &world,
        &[
            ("93.184.216.34:80", WAN),
            ("8.8.4.4:80", WAN),
            ("8.8.4.4:25", "refused"),
            ("192.168.1.50:80", "refused"),
            ("10.9.9.9:80", "refused"),
            ("100.64.0.9:80", "refused"),
            ("169.254.169.254:80", "refused"),
            ("203.0.113.9:80", "refused"),
            ("192.168.86.1:80", "refused"),
            ("93.184.216.1:80", "refused"),
            ("192.168.1.1:80", "refused"),
        ],
    );
    assert_eq!(world.guest.udp("8.8.4.4:80"), WAN);
    assert_eq!(world.guest.udp("10.9.9.9:80"), "refused");
    assert_eq!(world.guest.udp("93.184.216.1:80"), "refused");
    assert!(world.guest.pings("192.168.86.1"), "the gateway answers");
    assert!(world.guest.pings("8.8.8.8"));
    assert!(!world.guest.pings("93.184.216.1"), "only the gateway address answers");
    assert!(!world.guest.pings("10.9.9.9"));
}

#[test]
fn lan_access_adds_private_ranges_and_still_hides_host_and_metadata() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Lan));
    assert_tcp(
        &world,
        &[
            ("8.8.4.4:80", WAN),
            ("192.168.1.50:80", "192.168.1.1"),
            ("10.9.9.9:80", WAN),
            ("8.8.4.4:25", "refused"),
            ("169.254.169.254:80", "refused"),
            ("192.168.86.1:80", "refused"),
            ("93.184.216.1:80", "refused"),
            ("192.168.1.1:80", "refused"),
        ],
    );
}

#[test]
fn all_access_reaches_everything_but_denied_blocks() {
    let world = World::new();
    let mut policy = network(GuestAccess::All);
    policy.deny = vec!["10.0.0.0/8".parse().unwrap(), "192.168.1.1/32".parse().unwrap()];
    let _firewall = install(&world, only(policy));
    assert_tcp(
        &world,
        &[
            ("8.8.4.4:25", WAN),
            ("192.168.1.50:80", "192.168.1.1"),
            ("169.254.169.254:80", WAN),
            ("192.168.86.1:80", "192.168.86.2"),
            ("93.184.216.1:80", "192.168.86.2"),
            ("10.9.9.9:80", "refused"),
            ("192.168.1.1:80", "refused"),
        ],
    );
}

#[test]
fn deny_wins_over_allow_and_allow_over_access() {
    let world = World::new();
    let mut policy = network(GuestAccess::Internet);
    policy.allow = vec!["192.168.1.0/24".parse().unwrap(), "10.9.9.9/32".parse().unwrap()];
    policy.deny = vec!["10.0.0.0/8".parse().unwrap(), "8.8.4.0/24".parse().unwrap()];
    let _firewall = install(&world, only(policy));
    assert_tcp(
        &world,
        &[
            ("192.168.1.50:80", "192.168.1.1"),
            ("192.168.1.1:80", "refused"),
            ("10.9.9.9:80", "refused"),
            ("8.8.4.4:80", "refused"),
            ("93.184.216.34:80", WAN),
        ],
    );
}

#[test]
fn deny_cuts_connections_that_stand() {
    use std::io::{Read, Write};
    let world = World::new();
    let mut firewall = install(&world, policy(GuestAccess::Internet));
    let listener = world.internet.run(|| std::net::TcpListener::bind("0.0.0.0:8080").unwrap());
    let mut client = world.guest.run(|| std::net::TcpStream::connect("8.8.4.4:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let timeout = Some(std::time::Duration::from_millis(500));
    server.set_read_timeout(timeout).unwrap();
    let mut byte = [0];
    let policy = network(GuestAccess::Internet);
    firewall.update(&only(policy.clone())).unwrap();
    client.write_all(b"a").unwrap();
    server.read_exact(&mut byte).expect("an update alone cuts nothing");
    let deny = vec!["8.8.4.4/32".parse().unwrap()];
    firewall.update(&only(NetworkPolicy { deny, ..policy })).unwrap();
    client.write_all(b"b").unwrap();
    server.read_exact(&mut byte).unwrap_err();
}

#[test]
fn dns_at_the_gateway_is_translated_by_udp_and_tcp() {
    let world = World::new();
    let mut denied = network(GuestAccess::Internet);
    denied.deny = vec!["8.8.8.8/32".parse().unwrap()];
    let mut firewall = install(&world, only(denied));
    assert_eq!(world.guest.udp("192.168.86.1:53"), WAN);
    assert_eq!(world.guest.tcp("192.168.86.1:53"), WAN);
    assert_eq!(world.guest.udp("8.8.8.8:53"), "refused", "denied by its own address");

    let on_lan = NetworkPolicy {
        resolver: Some([192, 168, 1, 50].into()),
        ..network(GuestAccess::Internet)
    };
    firewall.update(&only(on_lan)).unwrap();
    assert_eq!(world.guest.udp("192.168.86.1:53"), "192.168.1.1");
    assert_eq!(world.guest.tcp("192.168.86.1:53"), "192.168.1.1");
    assert_eq!(world.guest.udp("192.168.1.50:53"), "refused");
    assert_eq!(world.guest.tcp("192.168.1.50:80"), "refused");

    world.host.serve(53);
    let on_host = NetworkPolicy {
        resolver: Some([93, 184, 216, 1].into()),
        ..network(GuestAccess::Internet)
    };
    firewall.update(&only(on_host.clone())).unwrap();
    assert_eq!(world.guest.udp("192.168.86.1:53"), "192.168.86.2");
    assert_eq!(world.guest.tcp("192.168.86.1:53"), "192.168.86.2");
    assert_eq!(world.guest.tcp("93.184.216.1:53"), "refused");

    firewall.update(&only(NetworkPolicy { resolver: None, ..on_host })).unwrap();
    assert_eq!(world.guest.udp("192.168.86.1:53"), "refused");
}

#[test]
fn announced_name_servers_are_reached_at_port_53_only() {
    let world = World::new();
    let mut policy = network(GuestAccess::Internet);
    policy.nameservers = vec![[192, 168, 1, 50].into()];
    let _firewall = install(&world, only(policy));
    assert_eq!(world.guest.udp("192.168.1.50:53"), "192.168.1.1");
    assert_eq!(world.guest.tcp("192.168.1.50:53"), "192.168.1.1");
    assert_eq!(world.guest.udp("192.168.1.50:80"), "refused");
    assert_eq!(world.guest.tcp("192.168.1.50:80"), "refused");
}

#[test]
fn without_uplink_nothing_is_forwarded() {
    let world = World::new();
    let mut policy = network(GuestAccess::All);
    policy.uplinks.clear();
    policy.allow = vec!["8.8.8.8/32".parse().unwrap()];
    let _firewall = install(&world, only(policy));
    assert_tcp(&world, &[("8.8.8.8:80", "refused"), ("192.168.1.50:80", "refused")]);
    assert_eq!(world.guest.tcp("192.168.86.1:80"), "192.168.86.2");
}

#[test]
fn internet_leaves_by_the_uplink_only() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Internet));
    world.host.sh("ip route add 8.8.4.4 via 192.168.1.50");
    world.lan.sh("ip address add 8.8.4.4/32 dev lo");
    assert_tcp(&world, &[("8.8.4.4:80", "refused"), ("8.8.8.8:80", WAN)]);
}

#[test]
fn nobody_reaches_guests_but_the_host() {
    let world = World::new();
    world.internet.sh("ip route add 192.168.86.0/24 via 93.184.216.1");
    assert_eq!(world.lan.tcp("192.168.86.2:80"), "192.168.1.50", "reached without the guard");
    assert_eq!(world.internet.tcp("192.168.86.2:80"), "93.184.216.34", "reached without the guard");
    let _firewall = install(&world, policy(GuestAccess::All));
    assert_eq!(world.lan.tcp("192.168.86.2:80"), "silent");
    assert_eq!(world.internet.tcp("192.168.86.2:80"), "silent");
    assert_eq!(world.internet.udp("192.168.86.2:80"), "silent");
    assert!(!world.lan.pings("192.168.86.2"));
    assert_eq!(world.host.tcp("192.168.86.2:80"), "192.168.86.1");
    assert_eq!(world.host.udp("192.168.86.2:80"), "192.168.86.1");
}

#[test]
fn the_host_reaches_guests_that_may_not_reach_it() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Internet));
    assert_eq!(world.host.tcp("192.168.86.2:80"), "192.168.86.1");
    assert_eq!(world.host.udp("192.168.86.2:80"), "192.168.86.1");
    assert!(world.host.pings("192.168.86.2"));
    assert_eq!(world.guest.tcp("192.168.86.1:80"), "refused");
}

#[test]
fn foreign_sources_are_dropped() {
    let world = World::new();
    world.guest.sh("ip address add 10.1.1.1/32 dev lo
         ip route replace default via 192.168.86.1 src 10.1.1.1");
    world.host.sh("ip route add 10.1.1.1 via 192.168.86.2");
    world.internet.sh("ip route add 10.1.1.1 via 93.184.216.1");
    assert_eq!(world.guest.tcp("8.8.8.8:80"), "10.1.1.1", "passes without the guard");
    let _firewall = install(&world, policy(GuestAccess::All));
    assert_eq!(world.guest.tcp("8.8.8.8:80"), "silent");
}

#[test]
fn ipv6_from_guests_goes_nowhere() {
    let world = World::new();
    world.host.sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip address add fd01::1/64 dev wsbr0 nodad; ip address add fd02::1/64 dev up0 nodad");
    world.guest.sh("ip address add fd01::2/64 dev eth0 nodad; ip route add default via fd01::1");
    world.internet.sh("ip address add fd02::2/64 dev eth0 nodad; ip route add default via fd02::1");
    // A new link takes a moment for IPv6.
    for (netns, to) in
        [(&world.guest, "fd01::1"), (&world.guest, "fd02::2"), (&world.internet, "fd01::2")]
    {
        assert!((0..10).any(|_| netns.pings(to)), "{to} answers without the guard");
    }
    let _firewall = install(&world, policy(GuestAccess::All));
    assert!(world.internet.pings("fd02::1"), "still works for all but guests");
    assert!(!world.guest.pings("fd01::1"));
    assert!(!world.guest.pings("fd02::2"));
    assert!(!world.internet.pings("fd01::2"));
}

#[test]
fn pings_of_the_gateway_are_limited_even_in_one_flow() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Internet));
    let start = Instant::now();
    let output = world.guest.try_sh("ping -q -c 400 -i 0.002 -W 1 192.168.86.1").1;
    let most = at_most(start, 40, 20);
    let words: Vec<&str> = output.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "received,").unwrap();
    let received: u64 = words[place - 1].parse().unwrap();
    assert!((40..=most).contains(&received), "{most} may pass: {output}");
}

#[test]
fn refusals_are_limited() {
    let world = World::new();
    let _firewall = install(&world, policy(GuestAccess::Internet));
    let start = Instant::now();
    let answers = world.guest.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.9.9.9:7").unwrap();
        // A pending ICMP error fails a send.
        (0..5000).filter(|_| socket.send(b"x").is_err()).count() as u64
    });
    let most = at_most(start, 200, 100);
    assert!((1..=most).contains(&answers), "{answers} of at most {most}");
}

/// What a limit lets through since `start`, however slow the machine is: the burst, the rate for the
/// time that went by, and one for rounding.
fn at_most(start: Instant, burst: u64, rate: u64) -> u64 {
    burst + rate * start.elapsed().as_millis() as u64 / 1000 + 1
}

#[test]
fn no_way_past_the_bridge_leads_to_the_host() {
    for guarded in [true, false] {
        let world = World::with_port("wstap0");
        let _firewall = guarded.then(|| install(&world, policy(GuestAccess::Internet)));
        // The kernel takes such a frame from the port and does not show it to the bridge.
        world.guest.sh("ip neigh replace 192.168.86.1 lladdr 01:80:c2:00:00:0e dev eth0");
        for to in ["192.168.86.1:80", "192.168.1.1:80"] {
            let wanted = if guarded { "silent" } else { "192.168.86.2" };
            assert_eq!(world.guest.udp(to), wanted, "{to}");
        }
    }
}

#[test]
fn a_port_that_was_taken_off_the_bridge_reaches_nothing() {
    let world = World::with_port("wstap0");
    world.host.sh("echo 1 > /proc/sys/net/ipv4/conf/wstap0/forwarding");
    world.host.sh("ip address add 192.168.87.1/32 dev wstap0");
    world.host.sh("ip link set wstap0 nomaster; ip route add 192.168.86.2/32 dev wstap0");
    world.guest.sh("ip route add 192.168.87.1 dev eth0");
    assert!(world.guest.pings("192.168.87.1"), "without a guard it is reached");
    let _firewall = install(&world, policy(GuestAccess::All));
    assert!(!world.guest.pings("192.168.87.1"));
    for to in ["192.168.86.1:80", "192.168.1.50:80"] {
        assert_eq!(world.guest.udp(to), "silent", "{to}");
    }
}
