//! From a super-frame of the kernel to frames: what its own segmentation (net/ipv4/tcp_offload.c,
//! udp_offload.c, af_inet.c, net/ipv6/ip6_offload.c) would have made of it, byte for byte.

use super::checksum::{
    copy_and_sum, finished, finished_not_zero, of as sum_of_number, sum, without,
};
use super::{
    CWR, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FIN, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
    HEADER_LEN, IPV4_LEN, IPV6_LEN, MIN_TCP_SEGMENT, PROTOCOL_TCP, PROTOCOL_UDP, PSH,
    TCP_CHECKSUM_AT, TCP_LEN, UDP_CHECKSUM_AT, UDP_LEN, VnetHeader, put, short, word,
};
use crate::frame;

/// What one read of a TAP with IFF_VNET_HDR gave, to be handed out as frames.
///
/// A super-frame of TCP or of UDP is cut, behind at most one VLAN tag. Anything else is one frame
/// and passes unchanged, with its checksum finished if the kernel left that open.
///
/// A super-frame becomes some fifty frames, as a rule. For a flow with segments of 8 bytes they
/// are 8,192 of together some 2 MiB.
#[derive(Debug)]
pub struct Segments<'a> {
    /// What stands before each segment's payload; nothing, if there is one frame only.
    headers: &'a [u8],
    /// What is still to be handed out behind it.
    rest: &'a [u8],
    work: Work,
}

/// Why what was read is no frame that could be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the kernel's header and an Ethernet header.
    #[error("shorter than the headers of the TAP and of Ethernet")]
    TooShort,
    /// The checksum's place is not in the frame, or not where the frame has a checksum.
    #[error("the checksum's place does not fit the frame")]
    ChecksumPlace,
    /// A kind of super-frame for which nobody asked.
    #[error("unknown segmentation type {0:#04x}")]
    Type(u8),
    /// Segments of no sensible size, or too many.
    #[error("segments of {0} bytes")]
    Size(u16),
    /// The frame is not of the kind that the kernel's header says, or its headers are cut off.
    #[error("the frame's headers do not fit its segmentation type")]
    Headers,
    /// A segment would be longer than IP allows.
    #[error("the super-frame is longer than IP allows")]
    TooLong,
}

impl<'a> Segments<'a> {
    /// `packet` is all that was read: the kernel's header and a frame or super-frame.
    ///
    /// # Errors
    /// When it cannot become frames; it is to be dropped.
    #[inline]
    pub fn new(packet: &'a [u8]) -> Result<Segments<'a>, Malformed> {
        let (header, frame) =
            packet.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::TooShort)?;
        if frame.len() < frame::HEADER_LEN {
            return Err(Malformed::TooShort);
        }
        let header = VnetHeader::read(header);
        if header.gso_type == GSO_NONE {
            let work =
                if header.needs_checksum() { Work::finish(&header, frame)? } else { Work::Pass };
            return Ok(Segments { headers: &[], rest: frame, work });
        }
        let (cut, headers_len) = Cut::new(&header, frame)?;
        let (headers, rest) = frame.split_at(headers_len);
        Ok(Segments { headers, rest, work: Work::Cut(cut) })
    }

    /// Bytes of the next frame; None at the end.
    #[inline]
    pub fn next_len(&self) -> Option<usize> {
        match &self.work {
            Work::Done => None,
            Work::Pass | Work::Finish { .. } => Some(self.rest.len()),
            Work::Cut(cut) => Some(self.headers.len() + self.rest.len().min(cut.size)),
        }
    }

    /// Writes the next frame to the start of `out` and returns its length, which is
    /// [`Segments::next_len`]. Returns 0, and goes no further, at the end or if `out` is shorter.
    #[inline]
    pub fn write_next(&mut self, out: &mut [u8]) -> usize {
        let Some(len) = self.next_len() else { return 0 };
        let Some(out) = out.get_mut(..len) else { return 0 };
        match &mut self.work {
            Work::Done => {}
            Work::Pass => {
                out.copy_from_slice(self.rest);
                self.work = Work::Done;
            }
            Work::Finish { start, at } => {
                let (before, summed) = self.rest.split_at(*start);
                let (out_before, out_summed) = out.split_at_mut(*start);
                out_before.copy_from_slice(before);
                // The field holds the sum of the pseudo-header, so that is in it. As the kernel
                // does, 0xffff stands for 0 in all protocols; only for UDP it matters.
                let sum = copy_and_sum(summed, out_summed);
                put(out, *at, finished_not_zero(sum));
                self.work = Work::Done;
            }
            Work::Cut(cut) => {
                let (payload, rest) = self.rest.split_at(self.rest.len().min(cut.size));
                let (headers, body) = out.split_at_mut(self.headers.len());
                headers.copy_from_slice(self.headers);
                let sum = copy_and_sum(payload, body);
                cut.adapt(headers, payload.len(), sum, rest.is_empty());
                self.rest = rest;
                if rest.is_empty() {
                    self.work = Work::Done;
                }
            }
        }
        len
    }
}

/// What is to be done to the next frame.
#[derive(Debug)]
enum Work {
    Done,
    Pass,
    /// The sum from `start` on goes to `at`; both are in the frame.
    Finish {
        start: usize,
        at: usize,
    },
    Cut(Cut),
}

impl Work {
    fn finish(header: &VnetHeader, frame: &[u8]) -> Result<Work, Malformed> {
        let start = usize::from(header.csum_start);
        let at = start + usize::from(header.csum_offset);
        if start < frame::HEADER_LEN || at + 2 > frame.len() {
            return Err(Malformed::ChecksumPlace);
        }
        Ok(Work::Finish { start, at })
    }
}

/// How a super-frame is cut, and the sums over what all its segments have in common.
#[derive(Debug)]
struct Cut {
    /// Bytes of payload of each segment but the last.
    size: usize,
    ip_at: usize,
    ip: Ip,
    transport_at: usize,
    transport: Transport,
    /// Sum of the pseudo-header and of what is the same in all transport headers, without lengths.
    transport_sum: u64,
    is_first: bool,
}

#[derive(Debug)]
enum Ip {
    /// The next segment's id, and the sum of the header without id, length and checksum.
    V4 {
        id: u16,
        sum: u64,
    },
    V6,
}

#[derive(Debug)]
enum Transport {
    /// The next segment's sequence number, and the flags of all together.
    Tcp {
        sequence: u32,
        flags: u8,
    },
    Udp,
}

impl Cut {
    /// The cut and the length of all headers, for a frame of at least an Ethernet header.
    fn new(header: &VnetHeader, frame: &[u8]) -> Result<(Cut, usize), Malformed> {
        let (wanted_ip, protocol) = match header.gso_type {
            GSO_UDP_L4 => (None, PROTOCOL_UDP),
            other => match other & !GSO_ECN {
                GSO_TCPV4 => (Some(ETHERTYPE_IPV4), PROTOCOL_TCP),
                GSO_TCPV6 => (Some(ETHERTYPE_IPV6), PROTOCOL_TCP),
                _ => return Err(Malformed::Type(other)),
            },
        };
        let (ethertype, ip_at) = network(frame);
        if wanted_ip.is_some_and(|wanted| wanted != ethertype) {
            return Err(Malformed::Headers);
        }
        let (ip, transport_at) = match ethertype {
            ETHERTYPE_IPV4 => ipv4(frame, ip_at, protocol),
            ETHERTYPE_IPV6 => ipv6(frame, ip_at, protocol),
            _ => None,
        }
        .ok_or(Malformed::Headers)?;
        let (transport, checksum_at, headers_len) =
            transport(frame, transport_at, protocol).ok_or(Malformed::Headers)?;
        if headers_len > MAX_HEADERS {
            return Err(Malformed::Headers);
        }

        let size = usize::from(header.gso_size);
        let payload = frame.len() - headers_len;
        let is_size_sensible = match transport {
            Transport::Tcp { .. } => size >= MIN_TCP_SEGMENT,
            Transport::Udp => size > 0 && payload.div_ceil(size) <= MAX_UDP_SEGMENTS,
        };
        if !is_size_sensible {
            return Err(Malformed::Size(header.gso_size));
        }
        // The frame as a whole obeys IP too, so every segment does.
        let len = u16::try_from(frame.len() - ip_at).map_err(|_| Malformed::TooLong)?;
        let transport_len = len - (transport_at - ip_at) as u16;

        let head = &frame[transport_at..headers_len];
        let mut transport_sum = if header.needs_checksum() {
            let told = (usize::from(header.csum_start), usize::from(header.csum_offset));
            if told != (transport_at, checksum_at) {
                return Err(Malformed::ChecksumPlace);
            }
            // Not from the addresses: with a routing header the last destination counts.
            sum(&head[checksum_at..checksum_at + 2]) + without(transport_len)
        } else {
            let addresses = match ip {
                Ip::V4 { .. } => &frame[ip_at + 12..ip_at + IPV4_LEN],
                Ip::V6 => &frame[ip_at + 8..ip_at + IPV6_LEN],
            };
            sum(addresses) + sum_of_number(u16::from(protocol))
        };
        transport_sum += match transport {
            // Without sequence number, flags and checksum.
            Transport::Tcp { .. } => {
                sum(&head[..4])
                    + sum(&head[8..12])
                    + sum(&[head[12], 0])
                    + sum(&head[14..16])
                    + sum(&head[18..])
            }
            Transport::Udp => sum(&head[..4]),
        };
        let cut = Cut { size, ip_at, ip, transport_at, transport, transport_sum, is_first: true };
        Ok((cut, headers_len))
    }

    /// Makes of the super-frame's headers those of the next segment.
    #[inline]
    fn adapt(&mut self, headers: &mut [u8], payload: usize, payload_sum: u64, is_last: bool) {
        let (headers, head) = headers.split_at_mut(self.transport_at);
        // No longer than the super-frame, which fits 16 bits.
        let len = (headers.len() - self.ip_at + head.len() + payload) as u16;
        let transport_len = (head.len() + payload) as u16;
        let packet = &mut headers[self.ip_at..];
        match &mut self.ip {
            Ip::V4 { id, sum } => {
                put(packet, 2, len.to_be_bytes());
                put(packet, 4, id.to_be_bytes());
                put(packet, 10, finished(*sum + sum_of_number(len) + sum_of_number(*id)));
                *id = id.wrapping_add(1);
            }
            Ip::V6 => put(packet, 4, (len - IPV6_LEN as u16).to_be_bytes()),
        }
        let sum = self.transport_sum + sum_of_number(transport_len) + payload_sum;
        match &mut self.transport {
            Transport::Tcp { sequence, flags } => {
                let mut own = *flags;
                if !is_last {
                    own &= !(FIN | PSH);
                }
                if !self.is_first {
                    own &= !CWR;
                }
                let number = sequence.to_be_bytes();
                put(head, 4, number);
                put(head, 13, [own]);
                let own_sum = super::checksum::sum(&number) + sum_of_number(u16::from(own));
                put(head, TCP_CHECKSUM_AT, finished(sum + own_sum));
                *sequence = sequence.wrapping_add(payload as u32);
            }
            Transport::Udp => {
                put(head, 4, transport_len.to_be_bytes());
                let sum = sum + sum_of_number(transport_len);
                put(head, UDP_CHECKSUM_AT, finished_not_zero(sum));
            }
        }
        self.is_first = false;
    }
}

/// EtherType and place of the packet, behind one tag or none.
fn network(frame: &[u8]) -> (u16, usize) {
    match short(frame, 12) {
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => {
            (short(frame, 12 + frame::VLAN_TAG_LEN), frame::HEADER_LEN + frame::VLAN_TAG_LEN)
        }
        ethertype => (ethertype, frame::HEADER_LEN),
    }
}

/// What is kept of an IPv4 header, and where the transport header begins.
fn ipv4(frame: &[u8], at: usize, protocol: u8) -> Option<(Ip, usize)> {
    let packet = frame.get(at..)?;
    let fixed = packet.first_chunk::<IPV4_LEN>()?;
    let header = packet.get(..usize::from(fixed[0] & 0x0f) * 4)?;
    // Neither a later fragment nor more of them.
    let is_whole = short(fixed, 6) & 0x3fff == 0;
    if fixed[0] >> 4 != 4 || header.len() < IPV4_LEN || !is_whole || fixed[9] != protocol {
        return None;
    }
    let sum = sum(&header[..2]) + sum(&header[6..10]) + sum(&header[12..]);
    Some((Ip::V4 { id: short(fixed, 4), sum }, at + header.len()))
}

/// The same of an IPv6 header with those extension headers that the kernel segments.
fn ipv6(frame: &[u8], at: usize, protocol: u8) -> Option<(Ip, usize)> {
    let fixed = frame.get(at..)?.first_chunk::<IPV6_LEN>()?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (fixed[6], at + IPV6_LEN);
    while at <= MAX_HEADERS {
        match next {
            // Hop-by-hop options, routing, destination options (RFC 8200 §4).
            0 | 43 | 60 => {
                let [after, len] = *frame.get(at..)?.first_chunk()?;
                (next, at) = (after, at + (usize::from(len) + 1) * 8);
            }
            _ if next == protocol => return Some((Ip::V6, at)),
            _ => return None,
        }
    }
    None
}

/// What is kept of the transport header, where its checksum is in it, and where the payload begins.
fn transport(frame: &[u8], at: usize, protocol: u8) -> Option<(Transport, usize, usize)> {
    let head = frame.get(at..)?;
    if protocol == PROTOCOL_UDP {
        return (head.len() >= UDP_LEN).then_some((Transport::Udp, UDP_CHECKSUM_AT, at + UDP_LEN));
    }
    let fixed = head.first_chunk::<TCP_LEN>()?;
    let len = usize::from(fixed[12] >> 4) * 4;
    let tcp = Transport::Tcp { sequence: word(fixed, 4), flags: fixed[13] };
    (len >= TCP_LEN && len <= head.len()).then_some((tcp, TCP_CHECKSUM_AT, at + len))
}

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// Bytes of headers, which each segment repeats: those of a tag, IPv6 and TCP with all its options
/// are 118, and the rest is for extension headers. The kernel makes none.
const MAX_HEADERS: usize = 256;
/// UDP_MAX_SEGMENTS of the kernel's linux/udp.h, which refuses more itself.
const MAX_UDP_SEGMENTS: usize = 128;
