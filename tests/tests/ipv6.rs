//! A network without IPv6 carries none of the host's (docs/old-faults.md, fault 8).

use wsnic_tests::frames::{self, IPV6};
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server};

#[test]
fn the_hosts_own_ipv6_chatter_does_not_reach_guests() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let mut guest = RawGuest::join(&lab);
    // Router and neighbour solicitations, MLD reports: the kernel sends them when a port comes up.
    let mut others: Vec<RawGuest> = (0..3).map(|_| RawGuest::join(&lab)).collect();
    for round in 0..10 {
        guest.ping_gateway(56);
        others[0].shout(&format!("round {round}"));
        let heard = guest.hear(&format!("round {round}"));
        assert!(!heard.iter().any(|frame| frames::ethertype(frame) == IPV6), "{heard:02x?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop((guest, others));
    server.stop();
    lab.finish();
}

#[test]
fn bridge_and_ports_have_no_ipv6_address() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    for name in ["wsbr0", "wstap0"] {
        assert_eq!(lab.srv.ip(&format!("-6 -o address show dev {name}")), "");
    }
    assert_eq!(lab.srv.sysctl("net/ipv6/conf/wsbr0/disable_ipv6"), "1");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_router_advertisement_of_a_guest_does_not_change_the_hosts_routes() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    lab.srv.set_sysctl("net/ipv6/conf/all/accept_ra", "2");
    let before = lab.srv.ip("-6 route show default");
    let mut guest = RawGuest::join(&lab);
    let mut other = RawGuest::connect(&lab);
    // RFC 4861 §4.2: from fe80::bad to ff02::1, hop limit 255, router lifetime 1800 s.
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let from = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0xad];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let sum = checksum(&[&from[..], &to, &[0, 0, 0, 16, 0, 0, 0, 58], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = [&[0x60, 0, 0, 0, 0, 16, 58, 255][..], &from, &to, &message].concat();
    guest.send(&frames::ethernet([0x33, 0x33, 0, 0, 0, 1], guest.mac, IPV6, &packet));
    guest.shout("advertised");
    other.hear("advertised");
    guest.ping_gateway(56);
    assert_eq!(lab.srv.ip("-6 route show default"), before);
    lab.srv.set_sysctl("net/ipv6/conf/all/accept_ra", "1");
    drop((guest, other));
    server.stop();
    lab.finish();
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
