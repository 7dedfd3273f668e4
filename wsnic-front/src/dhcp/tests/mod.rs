//! Tests of the DHCP server, and the guest that they use.

mod lease_file;
mod messages;
mod policy;
mod properties;

use super::server::{Event, Outcome};
use super::{Config, Lease, PortKey, Server};
use dhcproto::v4::{DhcpOption, DhcpOptions, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use std::net::Ipv4Addr;
use wsnic_proto::{Frame, MacAddr, Plan};

/// Some second of 2025.
const NOW: u64 = 1_764_000_000;
const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x5e, 0, 0, 0, 1]);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn plan(subnet: &str) -> Plan {
    Plan::new(subnet.parse().unwrap()).unwrap()
}

fn config(subnet: &str) -> Config {
    Config {
        plan: plan(subnet),
        gateway_mac: GATEWAY_MAC,
        mtu: 1500,
        lease_time: 86_400,
        domain_name: Some("guests.example".to_owned()),
        nameservers: vec![plan(subnet).gateway()],
    }
}

fn server(subnet: &str) -> Server {
    Server::new(config(subnet), Vec::new())
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 86, last)
}

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([0x02, 0x22, a, b, c, d])
}

/// A message under way from a guest.
struct Ask {
    message: Message,
    source: MacAddr,
    from: Ipv4Addr,
    to: Ipv4Addr,
}

impl Ask {
    fn new(kind: MessageType, mac: MacAddr) -> Ask {
        let mut message = Message::new_with_id(0x1234_5678, NONE, NONE, NONE, NONE, &mac.0);
        message.set_opcode(Opcode::BootRequest);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        Ask { message, source: mac, from: NONE, to: Ipv4Addr::BROADCAST }
    }

    fn discover(number: u32) -> Ask {
        Ask::new(MessageType::Discover, mac(number))
    }

    fn selecting(number: u32, address: Ipv4Addr) -> Ask {
        let gateway = Ipv4Addr::new(192, 168, 86, 1);
        Ask::init_reboot(number, address).with(DhcpOption::ServerIdentifier(gateway))
    }

    fn init_reboot(number: u32, address: Ipv4Addr) -> Ask {
        Ask::new(MessageType::Request, mac(number)).with(DhcpOption::RequestedIpAddress(address))
    }

    fn rebinding(number: u32, address: Ipv4Addr) -> Ask {
        Ask::new(MessageType::Request, mac(number)).ciaddr(address)
    }

    fn renewing(number: u32, address: Ipv4Addr) -> Ask {
        let mut ask = Ask::rebinding(number, address);
        ask.to = Ipv4Addr::new(192, 168, 86, 1);
        ask.from = address;
        ask
    }

    fn release(number: u32, address: Ipv4Addr) -> Ask {
        Ask::new(MessageType::Release, mac(number)).ciaddr(address)
    }

    fn decline(number: u32, address: Ipv4Addr) -> Ask {
        Ask::new(MessageType::Decline, mac(number)).with(DhcpOption::RequestedIpAddress(address))
    }

    fn with(mut self, option: DhcpOption) -> Ask {
        self.message.opts_mut().insert(option);
        self
    }

    fn ciaddr(mut self, address: Ipv4Addr) -> Ask {
        self.message.set_ciaddr(address);
        self
    }

    fn broadcast(mut self) -> Ask {
        self.message.set_flags(Flags::default().set_broadcast());
        self
    }

    fn frame(&self) -> Vec<u8> {
        frame_of(self.source, self.from, self.to, &self.message.to_vec().unwrap())
    }
}

/// `message` as a guest sends it, without UDP checksum.
fn frame_of(source: MacAddr, from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(message.len() + 8).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend((udp_len + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let checksum = !ones_sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [&[0xff; 6][..], &source.0, &[8, 0], &ip, &[0, 68, 0, 67]].concat();
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    assert!(Frame::new(&frame).unwrap().is_to_dhcp_server());
    frame
}

/// The one's complement sum of RFC 1071, written otherwise than the server's.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u16;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    sum
}

/// An answer, taken apart and found to be well-formed in every header.
#[derive(Debug)]
struct Answer {
    mac: MacAddr,
    to: Ipv4Addr,
    message: Message,
    message_len: usize,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let frame = Frame::new(bytes).unwrap();
        assert!(frame.is_to_dhcp_client());
        assert_eq!(frame.source(), GATEWAY_MAC);
        let packet = frame.payload();
        assert_eq!(packet[0], 0x45);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(ones_sum(&packet[..20]), 0xffff, "IPv4 checksum");
        let udp = &packet[20..];
        assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
        assert_ne!(udp[6..8], [0, 0]);
        let pseudo = [&packet[12..20], &[0, 17], &udp[4..6], udp].concat();
        assert_eq!(ones_sum(&pseudo), 0xffff, "UDP checksum");
        let message_len = udp.len() - 8;
        assert!((300..=548).contains(&message_len));
        let message = Message::decode(&mut Decoder::new(&udp[8..])).unwrap();
        assert_eq!(message.opcode(), Opcode::BootReply);
        let to = <[u8; 4]>::try_from(&packet[16..20]).unwrap().into();
        Answer { mac: frame.destination(), to, message, message_len }
    }

    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn options(&self) -> &DhcpOptions {
        self.message.opts()
    }

    fn has(&self, option: &DhcpOption) -> bool {
        self.options().get(OptionCode::from(option)) == Some(option)
    }
}

/// What the server answers `ask` on port `port` at [`NOW`] + `at`.
fn tell(server: &mut Server, at: u64, port: u64, ask: &Ask) -> Outcome {
    let outcome = server.handle(NOW + at, PortKey(port), &ask.frame());
    server.pool().check();
    outcome
}

fn ask(server: &mut Server, at: u64, port: u64, ask: &Ask) -> Option<Answer> {
    tell(server, at, port, ask).reply.map(|bytes| Answer::parse(&bytes))
}

/// The address offered to MAC `number`.
fn offered(server: &mut Server, at: u64, port: u64, number: u32) -> Option<Ipv4Addr> {
    let answer = ask(server, at, port, &Ask::discover(number))?;
    assert_eq!(answer.kind(), MessageType::Offer);
    Some(answer.message.yiaddr())
}

/// DISCOVER and REQUEST, both answered.
fn lease(server: &mut Server, at: u64, port: u64, number: u32) -> Ipv4Addr {
    let offer = ask(server, at, port, &Ask::discover(number)).unwrap();
    let address = offer.message.yiaddr();
    let Some(DhcpOption::ServerIdentifier(gateway)) =
        offer.options().get(OptionCode::ServerIdentifier).cloned()
    else {
        panic!("no server identifier");
    };
    let request = Ask::init_reboot(number, address).with(DhcpOption::ServerIdentifier(gateway));
    let answer = ask(server, at, port, &request).unwrap();
    assert_eq!(answer.kind(), MessageType::Ack);
    assert_eq!(answer.message.yiaddr(), address);
    address
}
