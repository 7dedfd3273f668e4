//! From frames to a super-frame: consecutive frames of one flow of TCP or UDP become one write.
//!
//! The kernel may send a super-frame on as it is, or cut it again, for a port that takes none. Then
//! the frames must be those that the guest sent, so only such are joined as differ in nothing but
//! what segmentation changes: lengths, checksums, sequence number, PSH on the last, and the ids of
//! IPv4. Of those the kernel makes consecutive numbers, from the first one's on. With DF set that
//! is always right: such a packet is atomic, its id may be any and nobody may look at it (RFC 6864
//! §4). Without DF a router may fragment it, and a made-up id could be that of another packet of
//! this guest, so such frames are joined only if their ids are consecutive already.
//!
//! A frame with a wrong checksum is not joined: the kernel would compute the checksum anew and make
//! the guest's broken data look right. Nor is a datagram without one, which would be given one. Nor is
//! a frame to a group: who bounds these counts writes, not frames.

use super::checksum::{
    Sum, finished, folded, is_right, of as sum_of_number, sum, unmask, unmask_to, unmasked,
};
use super::{
    ACK, ETHERTYPE_IPV4, ETHERTYPE_IPV6, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER_LEN, IPV4_LEN,
    IPV6_LEN, MIN_TCP_SEGMENT, NEEDS_CSUM, PROTOCOL_TCP, PROTOCOL_UDP, PSH, TCP_CHECKSUM_AT,
    TCP_LEN, UDP_CHECKSUM_AT, UDP_LEN, VnetHeader, put, short, word,
};
use crate::frame;
use std::ops::Range;

/// Frames that wait to be written to a TAP with IFF_VNET_HDR as one.
///
/// They wait in the caller's buffer, which must be the same from the first [`Run::offer`] to
/// [`Run::take`]; what stands between and before them there is no longer wanted by anybody. The payload
/// of each is moved behind that of the one before, so that the write is of one piece: the kernel takes
/// 64 KiB in one piece in three quarters of the time that it needs for 45.
#[derive(Debug)]
pub struct Run {
    takes_udp: bool,
    /// The headers of the first frame.
    headers: [u8; MAX_HEADERS],
    /// Bytes of them.
    headers_len: usize,
    kind: Kind,
    frames: usize,
    /// Where the first frame begins.
    start: usize,
    /// Bytes of all frames as they were offered.
    bytes: usize,
    /// Bytes of all payloads.
    payload: usize,
    /// Payload bytes of the first frame: no other has more.
    size: usize,
    next_sequence: u32,
    pushed: bool,
    /// Nothing more fits behind what is pending.
    complete: bool,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// How many frames it carries.
    pub frames: usize,
    /// Bytes of these as they were offered.
    pub bytes: usize,
    /// Where it lies: the kernel's header, and a frame or a super-frame.
    pub range: Range<usize>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is pending, and the next one may fit behind it.
    Joined,
    /// It is pending and ends the run: it was pushed, is shorter, stands alone, or the run is full.
    Complete,
    /// It does not fit what is pending, which is to be flushed; then it is to be offered again.
    Refused,
}

impl Run {
    /// An empty run, which joins frames of TCP. It can be used again and again.
    pub fn new() -> Run {
        Run {
            takes_udp: false,
            headers: [0; MAX_HEADERS],
            headers_len: 0,
            kind: Kind { is_ipv6: false, is_udp: false },
            frames: 0,
            start: 0,
            bytes: 0,
            payload: 0,
            size: 0,
            next_sequence: 0,
            pushed: false,
            complete: false,
        }
    }

    /// Whether frames of UDP are joined as well, which the TAP must take ([`Offloads::takes_udp`]).
    ///
    /// [`Offloads::takes_udp`]: super::Offloads::takes_udp
    pub fn set_takes_udp(&mut self, takes_udp: bool) {
        self.takes_udp = takes_udp;
    }

    /// True if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Takes the frame at `range` of `buffer`, if it fits what is pending. [`HEADER_LEN`] bytes before it
    /// are of no use to anybody else.
    ///
    /// An empty run takes every frame. One that cannot be joined is complete by itself and will be
    /// written unchanged.
    pub fn offer(&mut self, buffer: &mut [u8], range: Range<usize>) -> Offered {
        let sum = Sum::of(buffer.get(range.clone()).unwrap_or_default());
        self.offer_summed(buffer, range, sum)
    }

    /// The same with the sum of the frame's bytes, which [`unmask`] gives for little.
    #[inline]
    pub fn offer_summed(&mut self, buffer: &mut [u8], range: Range<usize>, sum: Sum) -> Offered {
        if self.complete {
            return Offered::Refused;
        }
        let frame = buffer.get(range.clone()).unwrap_or_default();
        if !self.is_empty() {
            let end = self.end();
            let behind = self.kind.summed_behind(frame, sum);
            let is_next = self.is_next(frame, frame.len())
                && behind.is_some_and(|behind| self.kind.is_right(frame, frame.len(), behind));
            if !is_next {
                return Offered::Refused;
            }
            let (is_pushed, len) = (is_pushed(self.kind, frame), frame.len());
            buffer.copy_within(range.start + self.headers_len..range.end, end);
            return self.add(len, is_pushed);
        }
        let segment = Segment::new(frame).filter(|segment| self.takes_udp || !segment.kind.is_udp);
        self.start = range.start;
        match segment.filter(|segment| segment.may_start() && segment.is_right(sum)) {
            Some(segment) => self.begin(&segment),
            None => {
                (self.frames, self.bytes, self.complete) = (1, frame.len(), true);
                Offered::Complete
            }
        }
    }

    /// The same with a frame that is still masked (RFC 6455 §5.3), but only if it is the next one of the
    /// flow that is pending; its payload is unmasked, summed and moved in one pass. Refused, it is as
    /// it was.
    #[inline]
    pub fn offer_masked(
        &mut self,
        buffer: &mut [u8],
        range: Range<usize>,
        mask: [u8; 4],
    ) -> Offered {
        if self.complete || self.is_empty() {
            return Offered::Refused;
        }
        let frame = buffer.get(range.clone()).unwrap_or_default();
        let (head, len) = (unmasked::<MAX_HEADERS>(frame, mask), frame.len());
        if !self.is_next(&head, len) {
            return Offered::Refused;
        }
        let (from, to) = (range.start + self.headers_len..range.end, self.end());
        let mut payload_mask = mask;
        payload_mask.rotate_left(self.headers_len % 4);
        let payload = unmask_to(buffer, from.clone(), to, payload_mask);
        let own = &head[..self.headers_len];
        let behind = sum(&own[self.kind.addresses_at()..]) + payload;
        if self.kind.is_right(own, len, behind) {
            return self.add(len, is_pushed(self.kind, own));
        }
        // All as it was: the headers may lie under what was moved.
        buffer.copy_within(to..to + from.len(), from.start);
        unmask(&mut buffer[from.clone()], payload_mask);
        buffer[range.start..from.start].copy_from_slice(own);
        unmask(&mut buffer[range.start..from.start], mask);
        Offered::Refused
    }

    /// Makes ready what is pending, and forgets it; None if nothing is. `buffer` is that of [`Run::offer`].
    #[inline]
    pub fn take(&mut self, buffer: &mut [u8]) -> Option<Write> {
        let (frames, bytes) = (self.frames, self.bytes);
        (self.frames, self.complete) = (0, false);
        let range = match frames {
            0 => return None,
            1 => {
                let start = self.start.checked_sub(HEADER_LEN)?;
                buffer.get_mut(start..self.start)?.fill(0);
                start..self.start + bytes
            }
            _ => {
                let payload = self.start + self.headers_len;
                let start = self.start.checked_sub(HEADER_LEN)?;
                let (header, headers) = buffer.get_mut(start..payload)?.split_at_mut(HEADER_LEN);
                header.copy_from_slice(&self.header().bytes());
                self.finish_headers(headers);
                start..payload + self.payload
            }
        };
        Some(Write { frames, bytes, range })
    }

    fn begin(&mut self, first: &Segment<'_>) -> Offered {
        let headers = &first.frame[..first.headers_len];
        self.headers[..headers.len()].copy_from_slice(headers);
        self.headers_len = headers.len();
        self.kind = first.kind;
        (self.bytes, self.payload) = (0, 0);
        self.size = first.payload_len();
        self.next_sequence = first.sequence();
        self.add(first.frame.len(), first.is_pushed())
    }

    /// One more of `len` bytes, whose payload is where it is to be.
    #[inline]
    fn add(&mut self, len: usize, is_pushed: bool) -> Offered {
        let payload = len - self.headers_len;
        self.frames += 1;
        self.bytes += len;
        self.payload += payload;
        self.next_sequence = self.next_sequence.wrapping_add(payload as u32);
        self.pushed = is_pushed;
        self.complete = is_pushed
            || payload < self.size
            || self.frames == MAX_FRAMES
            || self.headers_len + self.payload + self.size > MAX_LEN;
        if self.complete { Offered::Complete } else { Offered::Joined }
    }

    /// Where the next payload goes.
    fn end(&self) -> usize {
        self.start + self.headers_len + self.payload
    }

    /// Whether a frame of `len` bytes that begins like this is the next of the pending flow, but for its
    /// checksums. A run that is not complete has room.
    #[inline]
    fn is_next(&self, own: &[u8], len: usize) -> bool {
        let (first, kind, headers_len) = (self.headers(), self.kind, self.headers_len);
        let at = kind.transport_at();
        // Options and urgent pointer: mostly time stamps, compared without a call.
        let rest = at + TCP_REST_AT;
        len > headers_len
            && len - headers_len <= self.size
            // Addresses, EtherType, and what stands before the packet's length.
            && if kind.is_ipv6 {
                is_same::<18>(first, own, 0)
                    && is_same::<34>(first, own, 20)
                    && usize::from(short(own, 18)) == len - at
            } else {
                is_same::<16>(first, own, 0)
                    && is_same::<4>(first, own, 20)
                    && is_same::<8>(first, own, 26)
                    && usize::from(short(own, 16)) == len - IP_AT
                    && self.is_id_legal(own)
            }
            // Ports.
            && is_same::<4>(first, own, at)
            && if kind.is_udp {
                usize::from(short(own, at + UDP_LEN_AT)) == len - at
                    && short(own, at + UDP_CHECKSUM_AT) != 0
            } else {
                // Acknowledgement and header length; flags and window.
                word(own, at + 4) == self.next_sequence
                    && is_same::<5>(first, own, at + 8)
                    && short(own, at + 12) & 0xff & !u16::from(PSH) == u16::from(ACK)
                    && is_same::<2>(first, own, at + 14)
                    && match headers_len - rest {
                        14 => is_same::<14>(first, own, rest),
                        _ => first.get(rest..) == own.get(rest..headers_len),
                    }
            }
    }

    /// Whether the id that the kernel would give this IPv4 frame does no harm.
    fn is_id_legal(&self, frame: &[u8]) -> bool {
        let is_atomic = frame[20] & DONT_FRAGMENT != 0;
        is_atomic || short(frame, 18) == short(self.headers(), 18).wrapping_add(self.frames as u16)
    }

    fn headers(&self) -> &[u8] {
        &self.headers[..self.headers_len]
    }

    /// The kernel's header of the super-frame.
    fn header(&self) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: match self.kind {
                Kind { is_udp: true, .. } => GSO_UDP_L4,
                Kind { is_ipv6: true, .. } => GSO_TCPV6,
                _ => GSO_TCPV4,
            },
            // A frame of 64 KiB at most, so all of these fit.
            hdr_len: self.headers_len as u16,
            gso_size: self.size as u16,
            csum_start: self.kind.transport_at() as u16,
            csum_offset: self.kind.checksum_at() as u16,
        }
    }

    /// Makes of the first frame's headers those of the super-frame.
    fn finish_headers(&self, headers: &mut [u8]) {
        let (at, checksum_at) = (self.kind.transport_at(), self.kind.checksum_at());
        headers.copy_from_slice(self.headers());
        let len = (self.headers_len - IP_AT + self.payload) as u16;
        let transport_len = len - (at - IP_AT) as u16;
        if self.kind.is_ipv6 {
            put(headers, IP_AT + 4, transport_len.to_be_bytes());
        } else {
            put(headers, IP_AT + 2, len.to_be_bytes());
            put(headers, IP_AT + 10, [0; 2]);
            let checksum = finished(sum(&headers[IP_AT..at]));
            put(headers, IP_AT + 10, checksum);
        }
        if self.kind.is_udp {
            put(headers, at + UDP_LEN_AT, transport_len.to_be_bytes());
        } else if self.pushed {
            headers[at + 13] |= PSH;
        }
        let pseudo_header = sum(&headers[self.kind.addresses_at()..at])
            + sum_of_number(self.kind.protocol())
            + sum_of_number(transport_len);
        put(headers, at + checksum_at, folded(pseudo_header));
    }
}

impl Default for Run {
    fn default() -> Run {
        Run::new()
    }
}

/// Whether both have the same `N` bytes at `at`. Compared as numbers are, where a slice would be by a call.
#[inline]
fn is_same<const N: usize>(first: &[u8], other: &[u8], at: usize) -> bool {
    let bytes = |of: &[u8]| of.get(at..).and_then(<[u8]>::first_chunk::<N>).copied();
    bytes(first) == bytes(other)
}

/// Which headers a frame has behind that of Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    is_ipv6: bool,
    is_udp: bool,
}

impl Kind {
    fn protocol(self) -> u16 {
        u16::from(if self.is_udp { PROTOCOL_UDP } else { PROTOCOL_TCP })
    }

    fn transport_at(self) -> usize {
        IP_AT + if self.is_ipv6 { IPV6_LEN } else { IPV4_LEN }
    }

    /// Where the addresses begin, behind which the transport header follows at once.
    fn addresses_at(self) -> usize {
        IP_AT + if self.is_ipv6 { 8 } else { 12 }
    }

    /// Where the checksum is, from the transport header on.
    fn checksum_at(self) -> usize {
        if self.is_udp { UDP_CHECKSUM_AT } else { TCP_CHECKSUM_AT }
    }

    /// The sum of a frame from its addresses on, `whole` being that of all its bytes. Of known lengths,
    /// which makes a few additions of it.
    #[inline]
    fn summed_behind(self, frame: &[u8], whole: Sum) -> Option<u64> {
        match self.is_ipv6 {
            true => frame.first_chunk::<{ IP_AT + 8 }>().map(|head| whole.behind(head)),
            false => frame.first_chunk::<{ IP_AT + 12 }>().map(|head| whole.behind(head)),
        }
    }

    /// Whether the checksums of a frame of `len` bytes are right that begins like this, `behind` being
    /// the sum from its addresses on.
    #[inline]
    fn is_right(self, head: &[u8], len: usize, behind: u64) -> bool {
        let ip = head.get(IP_AT..).and_then(<[u8]>::first_chunk::<IPV4_LEN>);
        let transport_len = (len - self.transport_at()) as u16;
        (self.is_ipv6 || ip.is_some_and(|ip| is_right(sum(ip))))
            && is_right(behind + sum_of_number(self.protocol()) + sum_of_number(transport_len))
    }
}

/// Whether a segment of TCP wants to be handed on at once.
fn is_pushed(kind: Kind, head: &[u8]) -> bool {
    !kind.is_udp && head[kind.transport_at() + 13] & PSH != 0
}

/// A frame that could be joined with others, if its checksums are right: TCP or UDP over IPv4 without
/// options or over IPv6 without extension headers, to one receiver, with payload, without padding. TCP
/// with no flags but ACK and PSH; UDP with a checksum.
struct Segment<'a> {
    frame: &'a [u8],
    kind: Kind,
    headers_len: usize,
}

impl<'a> Segment<'a> {
    #[inline]
    fn new(frame: &'a [u8]) -> Option<Segment<'a>> {
        let fixed = frame.first_chunk::<{ IP_AT + IPV4_LEN + UDP_LEN }>()?;
        let (is_ipv6, protocol, len) = match short(fixed, 12) {
            ETHERTYPE_IPV4 => {
                // No options, nothing of a fragment.
                let is_plain = fixed[IP_AT] == 0x45 && short(fixed, 20) & !0x4000 == 0;
                if !is_plain {
                    return None;
                }
                (false, fixed[23], usize::from(short(fixed, 16)))
            }
            ETHERTYPE_IPV6 => {
                if fixed[IP_AT] >> 4 != 6 {
                    return None;
                }
                (true, fixed[20], IPV6_LEN + usize::from(short(fixed, 18)))
            }
            _ => return None,
        };
        let end = IP_AT + len;
        // Joining would lose what stands behind the packet, which is padding if it is anything.
        if end != frame.len() || end > MAX_LEN || fixed[0] & GROUP != 0 {
            return None;
        }
        let kind = Kind { is_ipv6, is_udp: protocol == PROTOCOL_UDP };
        let at = kind.transport_at();
        let transport = frame.get(at..)?;
        let headers_len = at
            + match protocol {
                PROTOCOL_TCP => {
                    let tcp = transport.first_chunk::<TCP_LEN>()?;
                    let len = usize::from(tcp[12] >> 4) * 4;
                    let is_plain = tcp[12] & 0x0f == 0 && tcp[13] & !PSH == ACK;
                    (is_plain && len >= TCP_LEN).then_some(len)?
                }
                PROTOCOL_UDP => {
                    let udp = transport.first_chunk::<UDP_LEN>()?;
                    let is_plain = usize::from(short(udp, UDP_LEN_AT)) == transport.len()
                        && short(udp, UDP_CHECKSUM_AT) != 0;
                    is_plain.then_some(UDP_LEN)?
                }
                _ => return None,
            };
        (headers_len < end).then_some(Segment { frame, kind, headers_len })
    }

    /// Whether another may follow it.
    fn may_start(&self) -> bool {
        !self.is_pushed() && (self.kind.is_udp || self.payload_len() >= MIN_TCP_SEGMENT)
    }

    /// Whether its checksums are right, `whole` being the sum of all its bytes.
    fn is_right(&self, whole: Sum) -> bool {
        let behind = self.kind.summed_behind(self.frame, whole);
        behind.is_some_and(|behind| self.kind.is_right(self.frame, self.frame.len(), behind))
    }

    fn payload_len(&self) -> usize {
        self.frame.len() - self.headers_len
    }

    /// Of TCP.
    fn sequence(&self) -> u32 {
        word(self.frame, self.kind.transport_at() + 4)
    }

    fn is_pushed(&self) -> bool {
        is_pushed(self.kind, self.frame)
    }
}

const IP_AT: usize = frame::HEADER_LEN;
/// In the first byte of an address: more than one receiver (IEEE 802).
const GROUP: u8 = 0x01;
/// In the header of UDP (RFC 768).
const UDP_LEN_AT: usize = 4;
/// In the header of TCP: what follows window and checksum (RFC 9293 §3.1).
const TCP_REST_AT: usize = 18;
/// In the byte with the flags of IPv4 (RFC 791 §3.1).
const DONT_FRAGMENT: u8 = 0x40;
/// Ethernet, IPv6, and TCP with all its options.
const MAX_HEADERS: usize = IP_AT + IPV6_LEN + 60;
/// Frames in a run: as many of 1,024 bytes as IP can hold in one packet.
const MAX_FRAMES: usize = 64;
/// Bytes of a super-frame with all its headers. IP would take 14 more, but the kernel cuts what has
/// 64 KiB with its Ethernet header (GSO_LEGACY_MAX_SIZE) before it hands it to an interface.
const MAX_LEN: usize = 65_535;
