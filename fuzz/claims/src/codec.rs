//! The helper protocol's codec against the sizes that wsnic-proto/src/message.rs implies.

use crate::tape::Tape;
use wsnic_proto::codec::{MAX_PACKET, decode_reply, decode_request, encode_reply, encode_request};
use wsnic_proto::{ErrorCode, Generation, MacAddr, PortId, Reply, Request, RevokeReason};

/// A packet is accepted exactly if it has the size of its variant and its values are in range;
/// what is accepted is encoded to the same bytes; what is encoded is decoded to the same message.
pub fn codec(bytes: &[u8]) {
    let request = decode_request(bytes);
    assert_eq!(request.is_ok(), is_request(bytes), "{request:?}");
    if let Ok(request) = request {
        assert_eq!(encode_request(&request).as_bytes(), bytes);
    }
    let reply = decode_reply(bytes);
    assert_eq!(reply.is_ok(), is_reply(bytes), "{reply:?}");
    if let Ok(reply) = reply {
        assert_eq!(encode_reply(&reply).as_bytes(), bytes);
    }

    let request = some_request(&mut Tape::new(bytes));
    let packet = encode_request(&request);
    assert!(packet.as_bytes().len() <= MAX_PACKET && is_request(packet.as_bytes()));
    assert_eq!(decode_request(packet.as_bytes()), Ok(request));
    let reply = some_reply(&mut Tape::new(bytes));
    let packet = encode_reply(&reply);
    assert!(packet.as_bytes().len() <= MAX_PACKET && is_reply(packet.as_bytes()));
    assert_eq!(decode_reply(packet.as_bytes()), Ok(reply));
}

/// A variant's number and then its fields, all little-endian; a byte has eight bits.
fn is_request(bytes: &[u8]) -> bool {
    const SIZES: [usize; 7] = [
        4 + 2 + 2,             // Hello: magic, min, max
        4 + 2,                 // Open: req, network
        4 + 4 + 4,             // Close: req, port, generation
        4 + 4 + 4 + 6 + 4 + 1, // Bind: req, port, generation, mac, address, given
        4,                     // Stats: req
        4,                     // Ping: req
        4 + 2 + 16,            // OpenRoom: req, network, room
    ];
    // The last byte of a Bind says yes or no.
    let in_range = |variant, rest: &[u8]| variant != 3 || rest.last().is_some_and(|last| *last < 2);
    variant(bytes).is_some_and(|(variant, rest)| {
        SIZES.get(variant) == Some(&rest.len()) && in_range(variant, rest)
    })
}

fn is_reply(bytes: &[u8]) -> bool {
    const SIZES: [usize; 9] = [
        2 + 4 + 2 + 4 + 6,         // Welcome: proto, max_ports, mtu, gateway, gateway_mac
        4 + 4 + 4 + 2 + 4 + 4 + 6, // Opened: req, port, generation, mtu, offloads, gateway, gateway_mac
        4,                         // Done: req
        4 + 4,                     // Err: req, code
        4 + 4 + 4 + 4 + 4,         // Stats: req, ports, ports_in_all, broken, silent
        4,                         // Pong: req
        4 + 4 + 4,                 // Revoked: port, generation, reason
        0,                         // Drain
        0,                         // Resumed
    ];
    let Some((number, rest)) = variant(bytes) else { return false };
    let last = || {
        variant(&rest[rest.len() - 4..]).is_some_and(|(value, _)| {
            let values = if number == 3 { 9 } else { 3 };
            value < values
        })
    };
    SIZES.get(number) == Some(&rest.len()) && (!matches!(number, 3 | 6) || last())
}

fn variant(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number) as usize, rest))
}

fn some_request(tape: &mut Tape<'_>) -> Request {
    match tape.byte() % 7 {
        0 => Request::Hello { magic: tape.word(), min: tape.short(), max: tape.short() },
        1 => Request::Open { req: tape.word(), network: tape.short() },
        2 => Request::Close {
            req: tape.word(),
            port: PortId(tape.word()),
            generation: Generation(tape.word()),
        },
        3 => Request::Bind {
            req: tape.word(),
            port: PortId(tape.word()),
            generation: Generation(tape.word()),
            mac: mac(tape),
            address: tape.word().to_be_bytes(),
            given: tape.byte() % 2 == 1,
        },
        6 => Request::OpenRoom { req: tape.word(), network: tape.short(), room: [tape.byte(); 16] },
        4 => Request::Stats { req: tape.word() },
        _ => Request::Ping { req: tape.word() },
    }
}

fn some_reply(tape: &mut Tape<'_>) -> Reply {
    match tape.byte() % 9 {
        0 => Reply::Welcome {
            proto: tape.short(),
            max_ports: tape.word(),
            mtu: tape.short(),
            gateway: tape.word().to_be_bytes(),
            gateway_mac: mac(tape),
        },
        1 => Reply::Opened {
            req: tape.word(),
            port: PortId(tape.word()),
            generation: Generation(tape.word()),
            mtu: tape.short(),
            offloads: tape.word(),
            gateway: tape.word().to_be_bytes(),
            gateway_mac: mac(tape),
        },
        2 => Reply::Done { req: tape.word() },
        3 => Reply::Err {
            req: tape.word(),
            code: tape.pick(&[
                ErrorCode::NoPortFree,
                ErrorCode::TooFast,
                ErrorCode::NoSuchNetwork,
                ErrorCode::Kernel,
                ErrorCode::Unsupported,
                ErrorCode::Stopping,
                ErrorCode::NoRoomFree,
                ErrorCode::Taken,
                ErrorCode::NotAllowed,
            ]),
        },
        4 => Reply::Stats {
            req: tape.word(),
            ports: tape.word(),
            ports_in_all: tape.word(),
            broken: tape.word(),
            silent: tape.word(),
        },
        5 => Reply::Pong { req: tape.word() },
        6 => Reply::Revoked {
            port: PortId(tape.word()),
            generation: Generation(tape.word()),
            reason: tape.pick(&[
                RevokeReason::Deleted,
                RevokeReason::Tampered,
                RevokeReason::Operator,
            ]),
        },
        7 => Reply::Drain,
        _ => Reply::Resumed,
    }
}

fn mac(tape: &mut Tape<'_>) -> MacAddr {
    let ([a, b, c, d], [e, f]) = (tape.word().to_be_bytes(), tape.short().to_be_bytes());
    MacAddr([a, b, c, d, e, f])
}
