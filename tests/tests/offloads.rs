//! Offloads in the whole of wsnic: the kernel hands over super-frames, guests see ordinary frames.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use wsnic_tests::address::{GATEWAY, WEB};
use wsnic_tests::frames::{self, BROADCAST};
use wsnic_tests::services::{blob, http_server};
use wsnic_tests::{
    BRIDGE, Door, Fragment, LIMIT, Lab, NativeGuest, RawGuest, Server, WiredHost, WiredPort,
    offloaded_tap, opcode, wait_until,
};

#[path = "../../wsnic-proto/tests/support/packets.rs"]
mod packets;

use packets::{ACK, Ip, MACS, PSH, Packet, Transport, data, tcp, v4, v6};

const INET: &str = "inet_iface = wan0\n";
/// An address that DHCP does not give away to the first guests.
const WIRED: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 250);
/// Bytes of a transfer: some thousand frames.
const LEN: usize = 6_000_000;
/// An 802.1Q tag: priority 3, VLAN 5.
const TAG: [u8; 4] = [0x81, 0x00, 0x60, 0x05];
/// TUNSETOFFLOAD (linux/if_tun.h).
const SET_OFFLOAD: u32 = 0x4004_54d0;

/// What the kernel has handed to the guest of slot 0, and taken from it, in packets.
fn packets_of_port(lab: &Lab) -> (usize, usize) {
    let count = |name| {
        let text = lab.srv.run(&format!("cat /sys/class/net/wstap0/statistics/{name}"));
        text.trim().parse::<usize>().expect("a number")
    };
    (count("tx_packets"), count("rx_packets"))
}

/// The only guest downloads and uploads, and sees frames of up to `max_len` bytes. Returns packets
/// of the TAP and frames of the WebSocket, down and up.
fn transfer(lab: &Lab, guest: &NativeGuest, max_len: usize) -> ((usize, usize), (usize, usize)) {
    guest.inspection.start();
    let seen = |from: (usize, usize), at: usize| {
        let (down, up) = packets_of_port(lab);
        let frames = guest.inspection.assert_right(max_len);
        ((down - from.0 + up - from.1), frames - at)
    };
    let before = packets_of_port(lab);
    assert!(guest.downloads(WEB, &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
    let down = seen(before, 0);
    let before = packets_of_port(lab);
    guest.uploads(WEB, &blob(LEN));
    (down, seen(before, down.1))
}

#[test]
fn a_guest_sees_right_frames_of_the_mtu_where_the_kernel_sees_super_frames() {
    let lab = Lab::new();
    let server = Server::start(&lab, INET);
    let guest = NativeGuest::join(&lab);
    let (down, up) = transfer(&lab, &guest, 1514);
    // Acknowledgements are among them and are packets of their own.
    assert!(down.0 * 4 < down.1 * 3, "down: {} packets for {} frames", down.0, down.1);
    assert!(up.0 * 4 < up.1 * 3, "up: {} packets for {} frames", up.0, up.1);
    drop(guest);
    server.stop();
    lab.finish();
}

/// Every frame is a packet of the TAP.
fn passes_plainly(lab: &Lab, guest: &NativeGuest) {
    let (down, up) = transfer(lab, guest, 1514);
    // What crossed the moment of counting, or was dropped, is on one side only.
    for (packets, frames) in [down, up] {
        assert!(packets.abs_diff(frames) * 10 < frames, "{packets} packets for {frames} frames");
    }
}

#[test]
fn without_offloads_every_frame_crosses_by_itself() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{INET}offloads = no\n"));
    let guest = NativeGuest::join(&lab);
    passes_plainly(&lab, &guest);
    drop(guest);
    let log = server.stop();
    assert!(!log.contains("offloads"), "{log}");
    lab.finish();
}

#[test]
fn a_kernel_that_refuses_offloads_is_named_once_and_frames_pass_without() {
    let lab = Lab::new();
    let server = Server::start_without_ioctl(&lab, INET, SET_OFFLOAD);
    let guest = NativeGuest::join(&lab);
    let others: Vec<RawGuest> = (0..3).map(|_| RawGuest::connect(&lab)).collect();
    passes_plainly(&lab, &guest);
    drop((guest, others));
    let log = server.stop();
    assert_eq!(log.matches("TAP offloads").count(), 1, "{log}");
    lab.finish();
}

#[test]
fn a_neighbour_without_offloads_sees_right_frames_in_both_directions() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let guest = NativeGuest::join(&lab);
    let wired = WiredHost::plug(&lab, WIRED, 1500);
    let _web = http_server(&wired.netns, WIRED.into());
    for inspection in [&guest.inspection, &wired.inspection] {
        inspection.start();
    }
    assert!(guest.downloads(WIRED, &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
    guest.uploads(WIRED, &blob(LEN));
    for inspection in [&guest.inspection, &wired.inspection] {
        assert!(inspection.assert_right(1514) > LEN * 2 / 1460);
    }
    drop((guest, wired));
    server.stop();
    lab.finish();
}

#[test]
fn datagrams_that_cross_joined_leave_by_nat_one_by_one() {
    let lab = Lab::new();
    let server = Server::start(&lab, INET);
    let mut guest = RawGuest::join(&lab);
    let to = SocketAddrV4::new(WEB, 4000);
    let receiver = lab.inet.enter(|| UdpSocket::bind(to)).expect("a free port");
    receiver.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let payloads: Vec<Vec<u8>> = (0..150u8).map(|number| vec![number; 18]).collect();
    let (gateway, from) = (guest.resolve(GATEWAY), SocketAddrV4::new(guest.ip, 4001));
    let before = packets_of_port(&lab).1;
    let datagram = |payload| frames::datagram(gateway, guest.mac, from, to, payload);
    let sent: Vec<Vec<u8>> = payloads.iter().map(|payload| datagram(payload)).collect();
    guest.send_all(sent);
    for payload in &payloads {
        let mut buffer = [0; 100];
        let len = receiver.recv(&mut buffer).expect("a datagram");
        assert_eq!(buffer[..len], payload[..]);
    }
    let writes = packets_of_port(&lab).1 - before;
    assert!(writes < payloads.len(), "{writes} writes");
    server.stop();
    lab.finish();
}

#[test]
fn what_one_guest_sends_joined_another_gets_cut() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (one, other) = (NativeGuest::join(&lab), NativeGuest::join(&lab));
    let _web = http_server(&other.netns, other.ip().into());
    for guest in [&one, &other] {
        guest.inspection.start();
    }
    one.uploads(other.ip(), &blob(LEN));
    assert!(one.downloads(other.ip(), &format!("/blob/{LEN}")) == blob(LEN), "a download is torn");
    for guest in [&one, &other] {
        assert!(guest.inspection.assert_right(1514) > LEN * 2 / 1460);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn jumbo_frames_cross_with_offloads() {
    let lab = Lab::new();
    // Packets of 60,000 bytes: two of them fit no super-frame.
    for mtu in [9000, 60_000] {
        let server = Server::start(&lab, &format!("{INET}mtu = {mtu}\n"));
        let guest = NativeGuest::plug_into(&lab.srv, Server::address(), mtu);
        guest.dhcp();
        let other = NativeGuest::plug_into(&lab.srv, Server::address(), mtu);
        other.dhcp();
        let _web = http_server(&other.netns, other.ip().into());
        for guest in [&guest, &other] {
            guest.inspection.start();
        }
        guest.uploads(other.ip(), &blob(LEN));
        assert!(
            guest.downloads(other.ip(), &format!("/blob/{LEN}")) == blob(LEN),
            "a download is torn"
        );
        let len = usize::try_from(mtu).expect("a small number") + 14;
        for guest in [&guest, &other] {
            guest.inspection.assert_right(len);
        }
        drop((guest, other));
        server.stop();
    }
    lab.finish();
}

#[test]
fn large_pings_cross_in_fragments_of_ip() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let (one, other) = (NativeGuest::join(&lab), NativeGuest::join(&lab));
    for guest in [&one, &other] {
        guest.inspection.start();
    }
    for address in [other.ip(), GATEWAY] {
        let line = format!("ping -n -c 5 -i 0.2 -W 5 -s 20000 {address}");
        assert!(one.netns.run(&line).contains(" 0% packet loss"));
    }
    for guest in [&one, &other] {
        guest.inspection.assert_right(1514);
    }
    drop((one, other));
    server.stop();
    lab.finish();
}

/// The frames of one flow of TCP, which is cut from one packet.
fn flow(ip: &Ip, flags: u8, payload: usize, size: usize, tags: &[u8]) -> Vec<Vec<u8>> {
    flow_of(tcp(flags), ip, payload, size, tags)
}

fn flow_of(
    transport: Transport,
    ip: &Ip,
    payload: usize,
    size: usize,
    tags: &[u8],
) -> Vec<Vec<u8>> {
    let mut packet = Packet::new(ip.clone(), transport, data(payload));
    packet.tags = tags.to_vec();
    packet.cut(size).iter().map(Packet::bytes).collect()
}

/// What comes to a wired port, in order, of as many frames as this.
fn arrive(port: &mut WiredPort, count: usize) -> Vec<Vec<u8>> {
    let own = |frame: &[u8]| frame.starts_with(&MACS).then(|| frame.to_vec());
    (0..count).map(|_| port.receive_until(own)).collect()
}

/// One after the other: a flow that is joined, one frame of another kind, and so on.
fn medley(tags: &[u8]) -> Vec<Vec<u8>> {
    let v4_with = |id, fragment| Ip::V4 { tos: 0, id, fragment, ttl: 9, options: vec![] };
    let mut udp = Packet::new(v6(), Transport::Udp, data(700));
    udp.tags = tags.to_vec();
    let mut broken = flow(&v4(), ACK, 500, 1000, tags).remove(0);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    // One whose checksum is wrong, in the middle of a flow.
    let mut half_right = flow(&v4(), ACK, 10_000, 1000, tags);
    half_right[4][100] ^= 1;
    // A datagram that has no checksum, in the middle of a flow.
    let mut half_summed = flow_of(Transport::Udp, &v4(), 1800, 18, tags);
    half_summed[40][tags.len() + 40..][..2].fill(0);
    let parts = [
        half_right,
        half_summed,
        flow(&v4(), ACK, 20_000, 1448, tags),
        vec![udp.bytes()],
        flow_of(Transport::Udp, &v6(), 50_000, 1452, tags),
        flow(&v6(), ACK | PSH, 9000, 1000, tags),
        flow(&v4(), ACK, 100_000, 1400, tags),
        vec![broken],
        // Ids that do not count, without DF: may not be joined, or they would change.
        flow(&v4_with(7, 0), ACK, 100, 1000, tags),
        flow(&v4_with(3, 0), ACK, 100, 1000, tags),
        flow(&v4_with(0xfffe, 0), ACK, 5000, 1000, tags),
        vec![frames::ethernet(
            MACS[..6].try_into().expect("six"),
            [2, 0, 0, 0, 0, 2],
            77,
            &[9; 77],
        )],
    ];
    parts.concat()
}

#[test]
fn flows_that_are_joined_and_frames_between_them_arrive_unchanged_and_in_order() {
    let lab = Lab::new();
    let server = Server::start(&lab, "locks = no\n");
    let mut guest = RawGuest::connect(&lab);
    let mut port = WiredPort::plug(&lab);
    let sent = medley(&[]);
    guest.send_all(sent.clone());
    assert!(arrive(&mut port, sent.len()) == sent, "other frames, or in another order");
    // And the other way.
    let mut other = RawGuest::connect(&lab);
    other.shout("here");
    guest.hear("here");
    guest.send_all(sent.clone());
    for frame in &sent {
        let came = other.receive_until(|got| got.starts_with(&MACS).then(|| got.to_vec()));
        assert!(came == *frame, "{came:02x?} instead of {frame:02x?}");
    }
    drop((guest, other, port));
    server.stop();
    lab.finish();
}

#[test]
fn frames_with_a_vlan_tag_arrive_unchanged_and_in_order() {
    let lab = Lab::new();
    let server = Server::start(&lab, "allow_vlan = yes\nlocks = no\n");
    let (mut guest, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    let mut port = WiredPort::plug(&lab);
    let mut sent = medley(&TAG);
    sent.extend(medley(&[]));
    guest.send_all(sent.clone());
    assert!(arrive(&mut port, sent.len()) == sent, "other frames, or in another order");
    for frame in &sent {
        let came = other.receive_until(|got| got.starts_with(&MACS).then(|| got.to_vec()));
        assert!(came == *frame, "{came:02x?} instead of {frame:02x?}");
    }
    // A sender on the bridge that leaves cutting and checksums behind a tag to whoever reads.
    let (mut sender, _) = offloaded_tap(&lab.srv, "sender0");
    lab.srv.ip(&format!("link set sender0 master {BRIDGE} up"));
    let mut packet = Packet::new(v4(), tcp(ACK | PSH), data(20_000));
    packet.tags = TAG.to_vec();
    wait_until("the sender's port forwards", || {
        lab.srv.run("bridge link show dev sender0").contains("state forwarding")
    });
    sender.write_all(&packet.super_frame(1448)).expect("the kernel takes a super-frame");
    packet.payload.truncate(999);
    sender.write_all(&packet.unfinished()).expect("the kernel takes a frame");
    let whole = packet.bytes();
    for frame in flow(&v4(), ACK | PSH, 20_000, 1448, &TAG).into_iter().chain([whole]) {
        let came = other.receive_until(|got| got.starts_with(&MACS).then(|| got.to_vec()));
        assert!(came == frame, "{came:02x?} instead of {frame:02x?}");
    }
    drop(sender);
    drop((guest, other, port));
    server.stop();
    lab.finish();
}

#[test]
fn a_frame_in_fragments_of_websocket_keeps_its_place_in_a_flow() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::upgraded(&lab);
    let mut port = WiredPort::plug(&lab);
    let sent = flow(&v4(), ACK, 14_480, 1448, &[]);
    let mut bytes = Vec::new();
    for (number, frame) in sent.iter().enumerate() {
        if number % 3 == 1 {
            let (start, end) = frame.split_at(700);
            let start = Fragment { fin: false, ..Fragment::new(opcode::BINARY, start) };
            bytes
                .extend([start.bytes(), Fragment::new(opcode::CONTINUATION, end).bytes()].concat());
        } else {
            bytes.extend(Fragment::new(opcode::BINARY, frame).bytes());
        }
    }
    // All at once, then in pieces that end anywhere.
    door.send(&bytes);
    assert!(arrive(&mut port, sent.len()) == sent, "other frames, or in another order");
    for piece in bytes.chunks(999) {
        door.send(piece);
    }
    assert!(arrive(&mut port, sent.len()) == sent, "other frames, or in another order");
    let mark = frames::ethernet(BROADCAST, [2, 0, 0, 0, 0, 2], 77, &[1; 77]);
    door.send_fragment(&Fragment::new(opcode::BINARY, &mark));
    port.receive_until(|frame| (frame == mark).then_some(()));
    drop((door, port));
    server.stop();
    lab.finish();
}
