//! TCP and UDP packets in frames, built field by field, and how a super-frame is to be cut: slow and
//! straight from RFC 791, 8200, 9293, 768 and 1071, to judge what `wsnic_proto::offload` does.
//!
//! The fuzzers' claims and the comparison with the kernel use this file too.
#![allow(dead_code, reason = "no user needs all of it")]

/// A packet in a frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packet {
    /// What stands between addresses and EtherType: VLAN tags.
    pub(crate) tags: Vec<u8>,
    pub(crate) ip: Ip,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ip {
    V4 {
        tos: u8,
        id: u16,
        /// Flags and fragment offset.
        fragment: u16,
        ttl: u8,
        /// A multiple of 4 bytes.
        options: Vec<u8>,
    },
    V6 {
        class_and_flow: u32,
        hop_limit: u8,
        /// Number and content, without the byte that says what follows: 8 k − 1 bytes.
        extensions: Vec<(u8, Vec<u8>)>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Transport {
    Tcp {
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        window: u16,
        urgent: u16,
        /// A multiple of 4 bytes.
        options: Vec<u8>,
    },
    Udp,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

pub(crate) const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const V4_ADDRESSES: [u8; 8] = [192, 168, 86, 2, 192, 168, 86, 7];
const V6_ADDRESSES: [u8; 32] = [
    0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0xfd, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0,
    0xff, 0xff, 0xff, 0xfe,
];
const PORTS: [u8; 4] = [0x82, 0x35, 0x00, 0x50];

/// struct virtio_net_hdr: flags, type, length of headers, size, start and offset of the checksum.
pub(crate) fn vnet(flags: u8, kind: u8, numbers: [u16; 4]) -> Vec<u8> {
    [&[flags, kind][..], &numbers.map(u16::to_ne_bytes).concat()].concat()
}

/// IPv4 with DF, an id, and nothing special.
pub(crate) fn v4() -> Ip {
    Ip::V4 { tos: 0, id: 0x1234, fragment: DONT_FRAGMENT, ttl: 64, options: vec![] }
}

/// IPv6 with nothing special.
pub(crate) fn v6() -> Ip {
    Ip::V6 { class_and_flow: 0x0001_2345, hop_limit: 64, extensions: vec![] }
}

/// TCP with these flags and nothing special.
pub(crate) fn tcp(flags: u8) -> Transport {
    let options = vec![1, 1, 8, 10, 0, 1, 2, 3, 0, 4, 5, 6];
    Transport::Tcp { sequence: 7000, acknowledged: 42, flags, window: 501, urgent: 0, options }
}

/// Bytes that do not repeat soon.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Packet {
    pub(crate) fn new(ip: Ip, transport: Transport, payload: Vec<u8>) -> Packet {
        Packet { tags: vec![], ip, transport, payload }
    }

    /// The frame, with all checksums.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.build(false)
    }

    /// The frame behind a header that asks for its checksum to be finished.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        let place = [0, 0, self.transport_at() as u16, self.checksum_offset()];
        [vnet(1, 0, place), self.build(true)].concat()
    }

    /// The super-frame that is to be cut at `size`, behind its header.
    pub(crate) fn super_frame(&self, size: u16) -> Vec<u8> {
        let kind = match (&self.transport, &self.ip) {
            (Transport::Udp, _) => 5,
            (Transport::Tcp { .. }, Ip::V4 { .. }) => 1,
            (Transport::Tcp { .. }, Ip::V6 { .. }) => 4,
        };
        let ecn = matches!(self.transport, Transport::Tcp { flags, .. } if flags & CWR != 0);
        let kind = if ecn { kind | 0x80 } else { kind };
        let headers = self.build(true).len() - self.payload.len();
        let place = [headers as u16, size, self.transport_at() as u16, self.checksum_offset()];
        [vnet(1, kind, place), self.build(true)].concat()
    }

    /// What a super-frame becomes.
    pub(crate) fn cut(&self, size: usize) -> Vec<Packet> {
        let count = self.payload.len().div_ceil(size).max(1);
        let segment = |at: usize| {
            let mut packet = self.clone();
            let end = self.payload.len().min((at + 1) * size);
            packet.payload = self.payload[at * size..end].to_vec();
            if let Ip::V4 { id, .. } = &mut packet.ip {
                *id = id.wrapping_add(at as u16);
            }
            if let Transport::Tcp { sequence, flags, .. } = &mut packet.transport {
                *sequence = sequence.wrapping_add((at * size) as u32);
                if at + 1 < count {
                    *flags &= !(FIN | PSH);
                }
                if at > 0 {
                    *flags &= !CWR;
                }
            }
            packet
        };
        (0..count).map(segment).collect()
    }

    pub(crate) fn transport_at(&self) -> usize {
        let ip = match &self.ip {
            Ip::V4 { options, .. } => 20 + options.len(),
            Ip::V6 { extensions, .. } => {
                40 + extensions.iter().map(|(_, content)| 1 + content.len()).sum::<usize>()
            }
        };
        14 + self.tags.len() + ip
    }

    fn checksum_offset(&self) -> u16 {
        if self.transport == Transport::Udp { 6 } else { 16 }
    }

    fn build(&self, unfinished: bool) -> Vec<u8> {
        let mut transport = match &self.transport {
            Transport::Tcp { sequence, acknowledged, flags, window, urgent, options } => {
                let mut head = PORTS.to_vec();
                head.extend(sequence.to_be_bytes());
                head.extend(acknowledged.to_be_bytes());
                head.extend([((20 + options.len()) / 4 * 16) as u8, *flags]);
                head.extend(window.to_be_bytes());
                head.extend([0, 0]);
                head.extend(urgent.to_be_bytes());
                head.extend(options);
                head
            }
            Transport::Udp => {
                let len = 8 + self.payload.len() as u16;
                [&PORTS[..], &len.to_be_bytes(), &[0, 0]].concat()
            }
        };
        transport.extend(&self.payload);
        let protocol = if self.transport == Transport::Udp { 17 } else { 6 };
        let len = transport.len() as u16;
        let mut pseudo_header = match self.ip {
            Ip::V4 { .. } => V4_ADDRESSES.to_vec(),
            Ip::V6 { .. } => V6_ADDRESSES.to_vec(),
        };
        pseudo_header.extend([0, protocol]);
        pseudo_header.extend(len.to_be_bytes());
        let checksum = if unfinished {
            !checksum(&pseudo_header)
        } else {
            match checksum(&[&pseudo_header[..], &transport].concat()) {
                0 if self.transport == Transport::Udp => 0xffff,
                checksum => checksum,
            }
        };
        let at = usize::from(self.checksum_offset());
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let (ethertype, ip) = self.ip.header(protocol, transport.len());
        [&MACS[..], &self.tags, &ethertype, &ip, &transport].concat()
    }
}

impl Ip {
    fn header(&self, protocol: u8, transport_len: usize) -> ([u8; 2], Vec<u8>) {
        match self {
            Ip::V4 { tos, id, fragment, ttl, options } => {
                let len = 20 + options.len();
                let mut header = vec![0x40 + (len / 4) as u8, *tos];
                header.extend(((len + transport_len) as u16).to_be_bytes());
                header.extend(id.to_be_bytes());
                header.extend(fragment.to_be_bytes());
                header.extend([*ttl, protocol, 0, 0]);
                header.extend(V4_ADDRESSES);
                header.extend(options);
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                ([0x08, 0x00], header)
            }
            Ip::V6 { class_and_flow, hop_limit, extensions } => {
                let mut following = Vec::new();
                for (at, (_, content)) in extensions.iter().enumerate() {
                    following.push(extensions.get(at + 1).map_or(protocol, |(next, _)| *next));
                    following.extend(content);
                }
                let first = extensions.first().map_or(protocol, |(first, _)| *first);
                let mut header = (6 << 28 | class_and_flow).to_be_bytes().to_vec();
                header.extend(((following.len() + transport_len) as u16).to_be_bytes());
                header.extend([first, *hop_limit]);
                header.extend(V6_ADDRESSES);
                header.extend(following);
                ([0x86, 0xdd], header)
            }
        }
    }
}

/// RFC 1071 §1.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        sum = sum % 65_536 + sum / 65_536;
    }
    !(sum as u16)
}
