//! The DHCP server as sequences of frames of several ports with a clock that moves, against the
//! books in `leases`. Answers are taken apart here and by dhcproto.

use crate::leases::Leases;
use crate::tape::Tape;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use wsnic_front::dhcp::{Config, Event, Lease, Outcome, PortKey, Server};
use wsnic_proto::{MacAddr, Plan};

/// Whatever guests send: answers are well-formed and for the guest that asked; no address is given
/// to two at a time, no guest has two, no port more than its number; a declined address rests;
/// who is told that there is none has been told the truth; in the end every address is free again.
///
/// Input: the network and the leases of an earlier run, then steps.
pub fn dhcp(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let mut network = Network::start(&mut tape);
    while let Some(step) = tape.next() {
        network.step(step, &mut tape);
    }
    network.end();
}

/// Some second of 2025.
const NOW: u64 = 1_764_000_000;
const BRIDGE: MacAddr = MacAddr([0x02, 0x5e, 0, 0, 0, 1]);

struct Network {
    server: Server,
    books: Leases,
    plan: Plan,
    lease_time: u32,
    now: u64,
    /// The latest time so far: the clock may be set back, which makes leases longer.
    latest: u64,
    /// The keys of four ports, and how many there were.
    ports: [u64; 4],
    keys: u64,
}

impl Network {
    fn start(tape: &mut Tape<'_>) -> Network {
        let subnet =
            tape.pick(&["192.168.86.0/28", "192.168.86.0/30", "192.168.86.0/29", "10.0.0.0/26"]);
        let plan = Plan::new(subnet.parse().expect("a block")).expect("a network");
        let about = tape.byte();
        let lease_time = tape.pick(&[120, 600, 86_400, u32::MAX - 1]);
        let nameservers = (0..about % 64).map(|last| Ipv4Addr::new(9, 9, 9, last)).collect();
        let long = format!("{}.example", "label.".repeat(30));
        let domain = [None, Some("guests.example".to_owned()), Some(long)];
        let config = Config {
            plan,
            gateway_mac: BRIDGE,
            mtu: 1500,
            lease_time,
            domain_name: domain[usize::from(about / 64) % 3].clone(),
            nameservers,
        };
        let earlier: Vec<(Ipv4Addr, MacAddr, u64)> = (0..tape.byte() % 16)
            .map(|_| {
                (address(plan, tape.byte()), mac(tape.byte()), NOW - 100 + u64::from(tape.short()))
            })
            .collect();
        let lease = |(address, mac, expiry): &(Ipv4Addr, MacAddr, u64)| Lease {
            address: *address,
            mac: *mac,
            expiry: *expiry,
            host_name: None,
        };
        let server = Server::new(config, earlier.iter().map(lease).collect());
        let books = Leases::new(plan, earlier, NOW);
        let mut network = Network {
            server,
            books,
            plan,
            lease_time,
            now: NOW,
            latest: NOW,
            ports: [1, 2, 3, 4],
            keys: 4,
        };
        // The earlier run's ports count as closed from the first time that the server hears.
        network.send(0, &[]);
        network
    }

    fn step(&mut self, step: u8, tape: &mut Tape<'_>) {
        match step % 16 {
            0..=10 => {
                let (port, frame) = self.question(step % 16, tape);
                self.send(port, &frame);
            }
            11 => {
                let len = usize::from(tape.short() % 1600);
                self.send(step / 16 % 4, tape.take(len));
            }
            12 => self.close(step / 16 % 4),
            13 => self.now += u64::from(tape.byte()),
            14 => self.now += u64::from(tape.short()),
            // The operator sets the clock back.
            _ => self.now -= u64::from(tape.byte()),
        }
        self.latest = self.latest.max(self.now);
    }

    /// A frame that is a question, at least nearly.
    fn question(&mut self, kind: u8, tape: &mut Tape<'_>) -> (u8, Vec<u8>) {
        let who = tape.byte();
        let (port, guest) = (who % 4, mac(who / 4 % 24));
        let flags = tape.byte();
        let pick = tape.byte();
        let wish = self.books.some(guest, pick).filter(|_| !pick.is_multiple_of(8));
        let wish = wish.unwrap_or_else(|| address(self.plan, pick));
        let gateway = self.plan.gateway();
        let mut options = vec![53, 1, MESSAGE_TYPES[usize::from(kind)]];
        let mut ciaddr = Ipv4Addr::UNSPECIFIED;
        // REQUEST of its four states, RFC 2131 §4.3.2, and DECLINE name the address.
        if matches!(kind, 2 | 3 | 6) || flags & 1 != 0 {
            options.extend([50, 4]);
            options.extend(wish.octets());
        }
        if matches!(kind, 4 | 5 | 7 | 8) || flags & 2 != 0 {
            ciaddr = wish;
        }
        if matches!(kind, 2) || flags & 4 != 0 {
            let server = if flags & 0x30 == 0x30 { address(self.plan, pick) } else { gateway };
            options.extend([54, 4]);
            options.extend(server.octets());
        }
        if flags & 8 != 0 {
            let len = tape.byte();
            options.extend(tape.take(usize::from(len)));
        }
        options.push(255);
        let to = if matches!(kind, 4) { gateway } else { Ipv4Addr::BROADCAST };
        let broadcast = if flags & 0x40 != 0 { 0x80 } else { 0 };
        let mut message = vec![1, 1, 6, 0, 1, 2, 3, who, 0, 0, broadcast, 0];
        message.extend(ciaddr.octets());
        message.extend([0; 12]);
        message.extend(guest.0);
        message.resize(236, 0);
        if flags & 0x80 != 0 {
            // Other bytes at other places.
            for _ in 0..tape.byte() % 4 {
                let at = usize::from(tape.byte()) % message.len();
                message[at] = tape.byte();
            }
        }
        message.extend([99, 130, 83, 99]);
        message.extend(options);
        (port, datagram(guest, ciaddr, to, &message))
    }

    fn send(&mut self, port: u8, frame: &[u8]) {
        let key = self.ports[usize::from(port)];
        let Outcome { reply, event, lease } = self.server.handle(self.now, PortKey(key), frame);
        self.books.tick(self.now);
        let answer = reply.map(|reply| Answer::parse(&reply, self.plan, frame));
        // A lease that the file is told of is the one of the event.
        let stored = lease.map(|lease| (lease.mac, lease.address, lease.expiry));
        let given = answer.as_ref().map(|answer| (answer.kind, answer.address));
        match (event, answer) {
            (None, None) => {
                assert_eq!(stored, None);
                self.books.silence(key);
            }
            (None, Some(Answer { kind: MessageType::Offer, mac, address })) => {
                self.books.offered(self.now, key, mac, address);
            }
            // INFORM: parameters and no address.
            (None, Some(Answer { kind, address, .. })) => {
                assert_eq!((kind, address), (MessageType::Ack, Ipv4Addr::UNSPECIFIED));
            }
            (Some(Event::Leased { mac, address, .. } | Event::Renewed { mac, address }), _) => {
                let until = self.now + u64::from(self.lease_time);
                assert_eq!(given, Some((MessageType::Ack, address)));
                assert_eq!(stored, Some((mac, address, until)));
                self.books.leased(self.now, key, mac, address, until);
            }
            (Some(Event::Released { mac, address }), None) => {
                assert_eq!(stored, Some((mac, address, self.now)));
                self.books.released(key, mac, address);
            }
            (Some(Event::Declined { mac, address }), None) => {
                assert_eq!(stored, Some((mac, address, self.now)));
                self.books.declined(self.now, key, mac, address);
            }
            (Some(Event::Refused { .. }), _) => {
                assert_eq!(given, Some((MessageType::Nak, Ipv4Addr::UNSPECIFIED)));
                assert_eq!(stored, None);
            }
            (Some(Event::Exhausted { mac }), None) => self.books.exhausted(self.now, mac, key),
            (Some(Event::Malformed(_)), None) => assert_eq!(stored, None),
            (event, answer) => panic!("{event:?} with {answer:?}"),
        }
    }

    fn close(&mut self, port: u8) {
        let key = &mut self.ports[usize::from(port)];
        self.server.port_closed(self.now, PortKey(*key));
        self.books.tick(self.now);
        self.books.port_closed(self.now, *key);
        self.keys += 1;
        *key = self.keys;
    }

    /// When all have left and enough time has gone by, every address can be had.
    fn end(&mut self) {
        for port in 0..4 {
            self.close(port);
        }
        self.now = self.latest + 2000;
        let mut given = BTreeSet::new();
        for number in 0..self.plan.pool_len() {
            if number % 4 == 0 {
                self.keys += 1;
            }
            let guest = MacAddr([0x06, 0, 0, 0, 0, number as u8]);
            let key = PortKey(self.keys);
            let outcome = self.server.handle(self.now, key, &discover(guest));
            let reply = outcome.reply.unwrap_or_else(|| panic!("{number} addresses are left"));
            given.insert(Answer::parse(&reply, self.plan, &discover(guest)).address);
        }
        assert_eq!(given.len(), self.plan.pool_len() as usize, "an address was lost");
    }
}

/// Of the steps: DISCOVER, REQUEST, DECLINE, RELEASE, INFORM, what servers send, and nonsense.
const MESSAGE_TYPES: [u8; 11] = [1, 1, 3, 3, 3, 3, 4, 7, 8, 5, 77];

/// Of the pool or around it.
fn address(plan: Plan, pick: u8) -> Ipv4Addr {
    let size = u32::from(plan.broadcast()) - u32::from(plan.subnet().network());
    Ipv4Addr::from(u32::from(plan.subnet().network()) + u32::from(pick) % (size + 3))
}

fn mac(number: u8) -> MacAddr {
    MacAddr([0x02, 0x22, 0, 0, 0, number])
}

fn discover(guest: MacAddr) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.resize(28, 0);
    message.extend(guest.0);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    datagram(guest, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &message)
}

fn datagram(guest: MacAddr, from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let len = message.len() as u16 + 8;
    let mut frame = [&[0xff; 6], &guest.0[..], &[8, 0, 0x45, 0]].concat();
    frame.extend((len + 20).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend([0, 68, 0, 67]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

/// An answer, every header of which was found to be right.
#[derive(Debug)]
struct Answer {
    kind: MessageType,
    /// Of the guest that asked.
    mac: MacAddr,
    address: Ipv4Addr,
}

impl Answer {
    fn parse(frame: &[u8], plan: Plan, question: &[u8]) -> Answer {
        let (ethernet, packet) = frame.split_at(14);
        assert_eq!((&ethernet[6..12], &ethernet[12..]), (&BRIDGE.0[..], &[8, 0][..]));
        let (ip, udp) = packet.split_at(20);
        assert_eq!((ip[0], ip[9]), (0x45, 17));
        assert_eq!(word(ip, 2), packet.len());
        assert_eq!(sum(&[ip]), 0xffff, "checksum of the IPv4 header");
        assert_eq!(ip[12..16], plan.gateway().octets());
        assert_eq!((word(udp, 0), word(udp, 2), word(udp, 4)), (67, 68, udp.len()));
        assert_ne!(word(udp, 6), 0, "no checksum of UDP");
        assert_eq!(sum(&[&ip[12..], &[0, 17], &udp[4..6], udp]), 0xffff, "checksum of UDP");
        let bytes = &udp[8..];
        assert!((300..=548).contains(&bytes.len()), "{} bytes", bytes.len());
        let message = Message::decode(&mut Decoder::new(bytes)).expect("dhcproto reads it");
        assert_eq!(message.opcode(), Opcode::BootReply);
        let mac = MacAddr(message.chaddr().try_into().expect("six octets"));
        let to_all = ethernet[..6] == [0xff; 6] && ip[16..] == [0xff; 4];
        assert!(to_all || ethernet[..6] == mac.0, "for somebody else");
        // The transaction of the question, behind its headers, wherever they end.
        let xid = message.xid().to_be_bytes();
        let question_ip = usize::from(question[14] & 0x0f) * 4;
        assert_eq!(question[14 + question_ip + 8 + 4..][..4], xid);

        let options = message.opts();
        let kind = options.msg_type().expect("a type");
        let server = options.get(OptionCode::ServerIdentifier);
        assert_eq!(server, Some(&DhcpOption::ServerIdentifier(plan.gateway())));
        let has_time = options.get(OptionCode::AddressLeaseTime).is_some();
        let address = message.yiaddr();
        assert_eq!(has_time, !address.is_unspecified());
        if kind != MessageType::Nak {
            let mask = options.get(OptionCode::SubnetMask);
            assert_eq!(mask, Some(&DhcpOption::SubnetMask(plan.subnet().netmask())));
        }
        Answer { kind, mac, address }
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) * 256 + usize::from(bytes[at + 1])
}

/// The one's complement sum of RFC 1071.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (added, carry) = sum.overflowing_add(word);
        added + u16::from(carry)
    })
}
