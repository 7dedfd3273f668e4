//! Many ports: their elements come and go, and all of them with the tables.

use super::lan::only_with;
use super::*;
use std::time::Instant;

const PORTS: u32 = 5000;

fn pairs(port: u32) -> [Pair; 2] {
    let mac = MacAddr::locally_administered(&port.to_be_bytes());
    [(mac, None), (mac, Some(Ipv4Addr::from(0x0a00_0000 + port)))]
}

fn elements(netns: &Netns, set: &str) -> usize {
    let listed = netns.sh(&format!("nft list set bridge wsnic_ports {set}"));
    listed.split_once("elements").map_or(0, |(_, elements)| elements.matches(" . ").count())
}

/// Does it once for each, and prints how long it takes.
fn timed(what: &str, mut work: impl FnMut(u32)) {
    let mut times: Vec<Duration> = (1..=PORTS)
        .map(|port| {
            let start = Instant::now();
            work(port);
            start.elapsed()
        })
        .collect();
    times.sort();
    let of = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, most {:?}", of(50), of(99), of(100));
}

#[test]
fn five_thousand_ports_are_bound_replaced_and_unbound() {
    let netns = Netns::new();
    let policy = || only_with(true, |network| network.max_multicast = 500);
    let (mut firewall, _) = netns.run(move || Firewall::install(&policy()).unwrap());
    timed("open", |port| firewall.bind(port, 0, &[]).unwrap());
    timed("bind a MAC address", |port| firewall.bind(port, 0, &pairs(port)[..1]).unwrap());
    timed("bind both", |port| firewall.bind(port, 0, &pairs(port)).unwrap());
    assert_eq!(elements(&netns, "macs"), PORTS as usize);
    assert_eq!(elements(&netns, "bound"), PORTS as usize);
    let start = Instant::now();
    firewall.update(&policy()).unwrap();
    println!("all tables again: {:?}", start.elapsed());
    assert_eq!(elements(&netns, "bound"), PORTS as usize);
    let start = Instant::now();
    die(&netns, firewall);
    let (mut firewall, _) = netns.run(move || Firewall::install(&policy()).unwrap());
    println!("the next helper: {:?}", start.elapsed());
    assert_eq!(elements(&netns, "bound"), PORTS as usize);
    assert!((1..=PORTS).all(|port| firewall.bound(port).unwrap().pairs == pairs(port)));
    timed("unbind", |port| match port % 2 {
        0 => firewall.unbind(&[port]).unwrap(),
        _ => firewall.bind(port, 0, &pairs(port)).unwrap(),
    });
    assert_eq!(elements(&netns, "bound"), PORTS as usize / 2);
    let start = Instant::now();
    firewall.unbind(&(1..=PORTS).collect::<Vec<_>>()).unwrap();
    println!("unbind all that are left: {:?}", start.elapsed());
    for set in ["macs", "bound"] {
        assert_eq!(elements(&netns, set), 0);
    }
}

#[test]
fn rooms_come_and_go_and_leave_no_rule() {
    let netns = Netns::new();
    let bridge = Bridge::Rooms { prefix: "wsbr0r".to_owned(), prefix_len: 26 };
    let plan = Plan::new("10.0.0.0/8".parse().unwrap()).unwrap();
    let policy = only(NetworkPolicy { bridge, plan, ..network(GuestAccess::All) });
    let (mut firewall, _) = netns.run(move || Firewall::install(&policy).unwrap());
    let before = netns.sh("nft list ruleset");
    let subnet = |room: u32| Cidr::containing(Ipv4Addr::from(0x0a00_0000 + room * 64), 26);
    timed("add a room", |room| firewall.add_room(room, subnet(room)).unwrap());
    let listed = netns.sh("nft list set inet wsnic_guard rooms");
    assert_eq!(listed.matches(" . 10.").count(), PORTS as usize);
    timed("remove a room", |room| firewall.remove_rooms(&[room]).unwrap());
    assert_eq!(netns.sh("nft list ruleset"), before);
}
