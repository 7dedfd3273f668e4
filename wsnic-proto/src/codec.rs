//! Messages to bytes and back: fixed-width little-endian integers, as bincode 2 writes them.
//!
//! The only file that names bincode. A message is at most [`MAX_PACKET`] bytes, a decoded one has
//! used every byte of its packet, and no input can make either function panic or allocate.

use crate::message::{Reply, Request};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

/// Longest packet in bytes; a longer one is refused unread.
pub const MAX_PACKET: usize = 256;

const FORMAT: Configuration<LittleEndian, Fixint, Limit<MAX_PACKET>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_PACKET>();

/// One encoded message.
#[derive(Clone, Copy)]
pub struct Packet {
    bytes: [u8; MAX_PACKET],
    len: usize,
}

impl Packet {
    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Why a packet is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Unknown variant, too short, or a value out of range.
    #[error("a packet of {0} bytes is no message")]
    Malformed(usize),
    /// Bytes are left behind the message.
    #[error("{0} bytes behind the message")]
    Trailing(usize),
}

/// Encodes a request.
pub fn encode_request(request: &Request) -> Packet {
    encode(request)
}

/// Encodes a reply or event.
pub fn encode_reply(reply: &Reply) -> Packet {
    encode(reply)
}

/// Decodes a request.
///
/// # Errors
/// The packet is not exactly one request.
pub fn decode_request(packet: &[u8]) -> Result<Request, CodecError> {
    decode(packet)
}

/// Decodes a reply or event.
///
/// # Errors
/// The packet is not exactly one reply.
pub fn decode_reply(packet: &[u8]) -> Result<Reply, CodecError> {
    decode(packet)
}

fn encode(message: &impl Encode) -> Packet {
    let mut bytes = [0; MAX_PACKET];
    let len = bincode::encode_into_slice(message, &mut bytes, FORMAT)
        .expect("every message is a few fixed-width integers, far below MAX_PACKET");
    Packet { bytes, len }
}

fn decode<T: Decode<()>>(packet: &[u8]) -> Result<T, CodecError> {
    let (message, used) = bincode::decode_from_slice(packet, FORMAT)
        .map_err(|_| CodecError::Malformed(packet.len()))?;
    match packet.len() - used {
        0 => Ok(message),
        rest => Err(CodecError::Trailing(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::MacAddr;
    use crate::message::{ErrorCode, Generation, MAGIC, PortId, RevokeReason};
    use proptest::prelude::*;

    fn requests() -> impl Strategy<Value = Request> {
        let port = any::<(u32, u32, u32)>();
        prop_oneof![
            any::<(u32, u16, u16)>().prop_map(|(magic, min, max)| Request::Hello {
                magic,
                min,
                max
            }),
            any::<(u32, u16)>().prop_map(|(req, network)| Request::Open { req, network }),
            port.prop_map(|(req, port, generation)| Request::Close {
                req,
                port: PortId(port),
                generation: Generation(generation)
            }),
            (port, any::<([u8; 6], [u8; 4], bool)>()).prop_map(
                |((req, port, generation), (mac, address, given))| {
                    let (port, generation) = (PortId(port), Generation(generation));
                    Request::Bind { req, port, generation, mac: MacAddr(mac), address, given }
                }
            ),
            any::<(u32, u16, [u8; 16])>().prop_map(|(req, network, room)| Request::OpenRoom {
                req,
                network,
                room
            }),
            any::<u32>().prop_map(|req| Request::Stats { req }),
            any::<u32>().prop_map(|req| Request::Ping { req }),
        ]
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let code = prop_oneof![
            Just(ErrorCode::NoPortFree),
            Just(ErrorCode::TooFast),
            Just(ErrorCode::NoSuchNetwork),
            Just(ErrorCode::Kernel),
            Just(ErrorCode::Unsupported),
            Just(ErrorCode::Stopping),
            Just(ErrorCode::NoRoomFree),
            Just(ErrorCode::Taken),
            Just(ErrorCode::NotAllowed),
        ];
        let reason = prop_oneof![
            Just(RevokeReason::Deleted),
            Just(RevokeReason::Tampered),
            Just(RevokeReason::Operator),
        ];
        prop_oneof![
            any::<(u16, u32, u16, [u8; 4], [u8; 6])>().prop_map(
                |(proto, max_ports, mtu, gateway, mac)| Reply::Welcome {
                    proto,
                    max_ports,
                    mtu,
                    gateway,
                    gateway_mac: MacAddr(mac)
                }
            ),
            any::<(u32, u32, u32, u16, u32, [u8; 4], [u8; 6])>().prop_map(
                |(req, port, generation, mtu, offloads, gateway, mac)| {
                    Reply::Opened {
                        req,
                        port: PortId(port),
                        generation: Generation(generation),
                        mtu,
                        offloads,
                        gateway,
                        gateway_mac: MacAddr(mac),
                    }
                }
            ),
            any::<u32>().prop_map(|req| Reply::Done { req }),
            (any::<u32>(), code).prop_map(|(req, code)| Reply::Err { req, code }),
            any::<(u32, u32, u32, u32, u32)>().prop_map(
                |(req, ports, ports_in_all, broken, silent)| {
                    Reply::Stats { req, ports, ports_in_all, broken, silent }
                }
            ),
            any::<u32>().prop_map(|req| Reply::Pong { req }),
            (any::<(u32, u32)>(), reason).prop_map(|((port, generation), reason)| Reply::Revoked {
                port: PortId(port),
                generation: Generation(generation),
                reason
            }),
            Just(Reply::Drain),
            Just(Reply::Resumed),
        ]
    }

    #[test]
    fn hello_has_the_documented_bytes() {
        let packet = encode_request(&Request::Hello { magic: MAGIC, min: 1, max: 1 });
        assert_eq!(packet.as_bytes(), [0, 0, 0, 0, b'c', b'n', b's', b'w', 1, 0, 1, 0]);
    }

    #[test]
    fn an_empty_packet_is_no_message() {
        assert_eq!(decode_request(&[]), Err(CodecError::Malformed(0)));
        assert_eq!(decode_reply(&[]), Err(CodecError::Malformed(0)));
    }

    proptest! {
        #[test]
        fn every_request_survives_the_wire(request in requests()) {
            let packet = encode_request(&request);
            prop_assert_eq!(decode_request(packet.as_bytes()), Ok(request));
        }

        #[test]
        fn every_reply_survives_the_wire(reply in replies()) {
            let packet = encode_reply(&reply);
            prop_assert_eq!(decode_reply(packet.as_bytes()), Ok(reply));
        }

        #[test]
        fn a_cut_or_longer_packet_is_refused(request in requests(), extra in 1usize..200) {
            let packet = encode_request(&request);
            let bytes = packet.as_bytes();
            prop_assert!(decode_request(&bytes[..bytes.len() - 1]).is_err());
            let longer = [bytes, &vec![0; extra]].concat();
            prop_assert_eq!(decode_request(&longer), Err(CodecError::Trailing(extra)));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_request(&bytes);
            let _ = decode_reply(&bytes);
        }
    }
}
