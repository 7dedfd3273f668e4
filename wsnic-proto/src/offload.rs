//! TAP offloads: cutting super-frames that the kernel left whole, and joining frames that it may
//! take as one.
//!
//! Used by the front-end between TAP and WebSocket. Theory of operation. Most of what a frame
//! costs is its way through the kernel, so a TAP that is made with IFF_VNET_HDR and TUNSETOFFLOAD
//! moves up to 64 KiB of a flow of TCP or UDP in one read or write, with a header before it that says where
//! to cut and which checksum is unfinished. A guest knows nothing of this: towards it [`Segments`]
//! cuts what was read into the frames that the kernel would have made, and towards the bridge
//! [`Run`] joins consecutive frames of one flow. What is joined is only what the kernel would cut
//! into the same frames again, but for IPv4 ids that nobody may look at; all else passes as it is.
//!
//! Nothing here allocates, and neither the kernel's header nor a guest's frame is believed beyond
//! what the bytes of the frame allow.

mod checksum;
mod run;
mod segments;

pub use checksum::{Sum, unmask};
pub use run::{Offered, Run, Write};
pub use segments::{Malformed, Segments};

/// Bytes of struct virtio_net_hdr (linux/virtio_net.h), which stands before each frame of a TAP
/// with IFF_VNET_HDR. Its numbers are in the host's byte order.
pub const HEADER_LEN: usize = 10;

// Values of its fields (linux/virtio_net.h).
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// May be added to GSO_TCPV4 and GSO_TCPV6: the CWR flag is set, which is the first segment's only.
const GSO_ECN: u8 = 0x80;

// IEEE 802 and IANA numbers.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

// Lengths and places in headers (RFC 791, RFC 8200, RFC 9293, RFC 768).
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;

// Flags of TCP (RFC 9293 §3.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// Bytes of payload below which there is no TCP segmentation: TCP_MIN_GSO_SIZE of the kernel's
/// net/tcp.h. It bounds what one super-frame can become.
const MIN_TCP_SEGMENT: usize = 8;

/// Which TUN_F_* offloads a TAP has (linux/if_tun.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads(pub u32);

impl Offloads {
    /// Plain frames without a header.
    pub const NONE: Offloads = Offloads(0);
    /// TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN: super-frames of TCP, and checksums that are
    /// left to the reader.
    pub const TCP: Offloads = Offloads(0x01 | 0x02 | 0x04 | 0x08);
    /// The same, and TUN_F_USO4 | TUN_F_USO6 (Linux 6.2): super-frames of UDP.
    pub const ALL: Offloads = Offloads(Offloads::TCP.0 | 0x20 | 0x40);

    /// Whether each frame has a [`HEADER_LEN`] before it.
    pub fn has_header(self) -> bool {
        self != Offloads::NONE
    }

    /// Whether super-frames may be of UDP.
    pub fn takes_udp(self) -> bool {
        self == Offloads::ALL
    }
}

/// struct virtio_net_hdr.
#[derive(Debug, Clone, Copy, Default)]
struct VnetHeader {
    flags: u8,
    gso_type: u8,
    /// Bytes of all headers: a hint of how much the kernel should keep in one piece.
    hdr_len: u16,
    /// Bytes of payload of each segment but the last.
    gso_size: u16,
    /// Where the sum begins, from the start of the frame.
    csum_start: u16,
    /// Where it is to be put, from there.
    csum_offset: u16,
}

impl VnetHeader {
    fn read(bytes: &[u8; HEADER_LEN]) -> VnetHeader {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *bytes;
        VnetHeader {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    fn bytes(self) -> [u8; HEADER_LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

/// The big-endian number at `at`; 0 behind the end.
#[inline]
fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |pair| u16::from_be_bytes(*pair))
}

/// The big-endian number at `at`; 0 behind the end.
#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four))
}

/// Writes `value` at `at`, if there is room.
#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}
