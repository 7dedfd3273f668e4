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

use super::checksum::{Sum, finished, folded, is_right, of as sum_of_number, sum};
use super::{
    ACK, ETHERTYPE_IPV4, ETHERTYPE_IPV6, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER_LEN, IPV4_LEN,
    IPV6_LEN, MIN_TCP_SEGMENT, NEEDS_CSUM, PROTOCOL_TCP, PROTOCOL_UDP, PSH, TCP_CHECKSUM_AT,
    TCP_LEN, UDP_CHECKSUM_AT, UDP_LEN, VnetHeader, put, short, word,
};
use crate::frame;
use std::io::IoSlice;
use std::ops::Range;

/// Frames that wait to be written to a TAP with IFF_VNET_HDR as one.
///
/// The frames stay where they are, in the caller's buffer, which must be the same and unchanged
/// from the first [`Run::offer`] to [`Run::flush`].
#[derive(Debug)]
pub struct Run {
    takes_udp: bool,
    /// The kernel's header and the headers of the first frame; made ready by `flush`.
    head: [u8; HEADER_LEN + MAX_HEADERS],
    /// Bytes of the first frame's headers.
    headers_len: usize,
    kind: Kind,
    /// The payload of each frame.
    pieces: [Piece; MAX_FRAMES],
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
            head: [0; HEADER_LEN + MAX_HEADERS],
            headers_len: 0,
            kind: Kind { is_ipv6: false, is_udp: false },
            pieces: [Piece::default(); MAX_FRAMES],
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

    /// Takes the frame at `range` of `buffer`, if it fits what is pending.
    ///
    /// An empty run takes every frame. One that cannot be joined is complete by itself and will be
    /// written unchanged.
    pub fn offer(&mut self, buffer: &[u8], range: Range<usize>) -> Offered {
        let sum = Sum::of(buffer.get(range.clone()).unwrap_or_default());
        self.offer_summed(buffer, range, sum)
    }

    /// The same with the sum of the frame's bytes, which [`unmask`] gives for little.
    ///
    /// [`unmask`]: super::unmask
    #[inline]
    pub fn offer_summed(&mut self, buffer: &[u8], range: Range<usize>, sum: Sum) -> Offered {
        if self.complete {
            return Offered::Refused;
        }
        let frame = buffer.get(range.clone()).unwrap_or_default();
        match Segment::new(frame).filter(|segment| self.takes_udp || !segment.kind.is_udp) {
            Some(segment) if self.is_empty() && segment.may_start() && segment.is_right(sum) => {
                self.start(&segment, range.start);
                self.add(&segment, range.start);
            }
            _ if self.is_empty() => {
                (self.frames, self.start, self.bytes) = (1, range.start, frame.len());
                self.complete = true;
            }
            Some(segment) if self.fits(&segment) && segment.is_right(sum) => {
                self.add(&segment, range.start);
            }
            _ => return Offered::Refused,
        }
        if self.complete { Offered::Complete } else { Offered::Joined }
    }

    /// Where the frame is that is pending alone, if one is, and forgets it: it goes behind a header of
    /// zeros.
    #[inline]
    pub fn take_single(&mut self) -> Option<Range<usize>> {
        if self.frames != 1 {
            return None;
        }
        (self.frames, self.complete) = (0, false);
        Some(self.start..self.start + self.bytes)
    }

    /// Hands what is pending to `write`, as pieces of one write in order, and forgets it.
    ///
    /// Returns the number of frames, their bytes, and what `write` returned; None if nothing was
    /// pending. `buffer` is that of [`Run::offer`].
    #[inline]
    pub fn flush<R>(
        &mut self,
        buffer: &[u8],
        write: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> Option<(usize, usize, R)> {
        let (frames, bytes) = (self.frames, self.bytes);
        let written = match self.pieces.get(..frames)? {
            [] => return None,
            [_] => {
                let frame = Piece { start: self.start, len: bytes };
                write(&[IoSlice::new(&[0; HEADER_LEN]), IoSlice::new(frame.of(buffer))])
            }
            pieces => {
                let mut slices = [IoSlice::new(&[]); 1 + MAX_FRAMES];
                for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece.of(buffer));
                }
                self.finish_head();
                slices[0] = IoSlice::new(&self.head[..HEADER_LEN + self.headers_len]);
                write(&slices[..1 + frames])
            }
        };
        (self.frames, self.complete) = (0, false);
        Some((frames, bytes, written))
    }

    fn start(&mut self, first: &Segment<'_>, at: usize) {
        let headers = &first.frame[..first.headers_len];
        self.head[HEADER_LEN..HEADER_LEN + headers.len()].copy_from_slice(headers);
        self.headers_len = headers.len();
        self.kind = first.kind;
        (self.start, self.bytes, self.payload) = (at, 0, 0);
        self.size = first.payload_len();
        self.next_sequence = first.sequence();
    }

    fn add(&mut self, segment: &Segment<'_>, at: usize) {
        let len = segment.payload_len();
        self.pieces[self.frames] = Piece { start: at + segment.headers_len, len };
        self.frames += 1;
        self.bytes += segment.frame.len();
        self.payload += len;
        self.next_sequence = self.next_sequence.wrapping_add(len as u32);
        self.pushed = segment.is_pushed();
        self.complete = self.pushed
            || len < self.size
            || self.frames == MAX_FRAMES
            || self.headers_len + self.payload + self.size > MAX_LEN;
    }

    /// Whether `segment` is the next of the pending flow. A run that is not complete has room.
    #[inline]
    fn fits(&self, segment: &Segment<'_>) -> bool {
        let (first, own) = (self.headers(), segment.frame);
        let at = self.kind.transport_at();
        segment.kind == self.kind
            && segment.headers_len == self.headers_len
            && segment.payload_len() <= self.size
            // Addresses, EtherType, and what stands before the packet's length.
            && if self.kind.is_ipv6 {
                is_same::<18>(first, own, 0) && is_same::<34>(first, own, 20)
            } else {
                is_same::<16>(first, own, 0)
                    && is_same::<4>(first, own, 20)
                    && is_same::<8>(first, own, 26)
                    && self.is_id_legal(own)
            }
            // Ports.
            && is_same::<4>(first, own, at)
            // Acknowledgement and header length; window; urgent pointer and options.
            && (self.kind.is_udp
                || segment.sequence() == self.next_sequence
                    && is_same::<5>(first, own, at + 8)
                    && is_same::<2>(first, own, at + 14)
                    && first.get(at + 18..) == own.get(at + 18..self.headers_len))
    }

    /// Whether the id that the kernel would give this IPv4 frame does no harm.
    fn is_id_legal(&self, frame: &[u8]) -> bool {
        let is_atomic = frame[20] & DONT_FRAGMENT != 0;
        is_atomic || short(frame, 18) == short(self.headers(), 18).wrapping_add(self.frames as u16)
    }

    fn headers(&self) -> &[u8] {
        &self.head[HEADER_LEN..HEADER_LEN + self.headers_len]
    }

    /// Makes of the first frame's headers those of the super-frame.
    fn finish_head(&mut self) {
        let (at, checksum_at) = (self.kind.transport_at(), self.kind.checksum_at());
        let headers_len = self.headers_len;
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: match self.kind {
                Kind { is_udp: true, .. } => GSO_UDP_L4,
                Kind { is_ipv6: true, .. } => GSO_TCPV6,
                _ => GSO_TCPV4,
            },
            // A frame of 64 KiB at most, so all of these fit.
            hdr_len: headers_len as u16,
            gso_size: self.size as u16,
            csum_start: at as u16,
            csum_offset: checksum_at as u16,
        };
        put(&mut self.head, 0, header.bytes());
        let headers = &mut self.head[HEADER_LEN..HEADER_LEN + headers_len];
        let len = (headers_len - IP_AT + self.payload) as u16;
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

/// Bytes of the caller's buffer.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    start: usize,
    len: usize,
}

impl Piece {
    fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }
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
    #[inline]
    fn is_right(&self, whole: Sum) -> bool {
        let at = self.kind.transport_at();
        // Of known lengths, which makes a few additions of each sum.
        let behind_head = if self.kind.is_ipv6 {
            self.frame.first_chunk::<{ IP_AT + 8 }>().map(|head| whole.behind(head))
        } else {
            let ip = self.frame.get(IP_AT..).and_then(<[u8]>::first_chunk::<IPV4_LEN>);
            let head = self.frame.first_chunk::<{ IP_AT + 12 }>();
            head.filter(|_| ip.is_some_and(|ip| is_right(sum(ip)))).map(|head| whole.behind(head))
        };
        behind_head.is_some_and(|sum| {
            let len = (self.frame.len() - at) as u16;
            is_right(sum + sum_of_number(self.kind.protocol()) + sum_of_number(len))
        })
    }

    fn payload_len(&self) -> usize {
        self.frame.len() - self.headers_len
    }

    /// Of TCP.
    fn sequence(&self) -> u32 {
        word(self.frame, self.kind.transport_at() + 4)
    }

    fn is_pushed(&self) -> bool {
        !self.kind.is_udp && self.frame[self.kind.transport_at() + 13] & PSH != 0
    }
}

const IP_AT: usize = frame::HEADER_LEN;
/// In the first byte of an address: more than one receiver (IEEE 802).
const GROUP: u8 = 0x01;
/// In the header of UDP (RFC 768).
const UDP_LEN_AT: usize = 4;
/// In the byte with the flags of IPv4 (RFC 791 §3.1).
const DONT_FRAGMENT: u8 = 0x40;
/// Ethernet, IPv6, and TCP with all its options.
const MAX_HEADERS: usize = IP_AT + IPV6_LEN + 60;
/// Frames in a run: as many of 1,024 bytes as IP can hold in one packet.
const MAX_FRAMES: usize = 64;
/// Bytes of a super-frame with all its headers. IP would take 14 more, but the kernel cuts what has
/// 64 KiB with its Ethernet header (GSO_LEGACY_MAX_SIZE) before it hands it to an interface.
const MAX_LEN: usize = 65_535;
