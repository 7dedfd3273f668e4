//! Tests of the shuttle with a real TCP connection and a socket pair in place of the TAP.

use super::*;
use crate::stream::Socket;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd;
use packets::{ACK, Packet, data, tcp, v4};
use std::io;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use wsnic_proto::MacAddr;

#[path = "../../wsnic-proto/tests/support/packets.rs"]
pub(in crate::shuttle) mod packets;

const POLICY: FramePolicy =
    FramePolicy { max_len: 1518, gateway_mac: MacAddr([2, 1, 2, 3, 4, 5]), allow_vlan: false };
const FRAME: [u8; 1514] = [0x55; 1514];
const PING: [u8; 10] = [0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];
const FRAMES: u32 = 100_000;

/// Client's end, the bridge's end of the TAP, and the session between them.
pub(in crate::shuttle) async fn session(offloads: bool) -> (TcpStream, OwnedFd, Rc<Shuttle>) {
    session_with(offloads, Framing::Messages).await
}

/// The same with a network's framing.
pub(in crate::shuttle) async fn session_with(
    offloads: bool,
    framing: Framing,
) -> (TcpStream, OwnedFd, Rc<Shuttle>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    // Small, so that sends are cut off often.
    socket2::SockRef::from(&server).set_send_buffer_size(32 * 1024).unwrap();
    let flags = SockFlag::SOCK_NONBLOCK;
    let (tap, bridge) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let tap = wsnic_os::watch::watch(tap, TAP_INTEREST).unwrap();
    let stream = Stream::plain(Socket::Tcp(server));
    let shuttle = Shuttle::new(
        stream,
        tap,
        if offloads { Offloads::ALL } else { Offloads::NONE },
        POLICY,
        (None, None),
        (None, None),
        Lifetime::default(),
    );
    (client, bridge, Rc::new(shuttle.with_framing(framing)))
}

#[test]
fn pongs_between_frames_do_not_tear_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (client, bridge, shuttle) = session(false).await;
        tokio::task::spawn_local(async move {
            shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await
        });
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < FRAMES {
                match unistd::write(&bridge, &FRAME) {
                    Ok(_) => sent += 1,
                    Err(_) => std::thread::sleep(Duration::from_micros(20)),
                }
            }
            bridge
        });
        let (mut from_server, mut to_server) = client.into_split();
        let pings = tokio::task::spawn_local(async move {
            while to_server.write_all(&PING).await.is_ok() {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        });
        let (mut frames, mut pongs, mut body) = (0, 0_u32, vec![0; FRAME.len()]);
        while frames < FRAMES {
            match from_server.read_u16().await.unwrap() {
                0x827e => {
                    assert_eq!(usize::from(from_server.read_u16().await.unwrap()), FRAME.len());
                    from_server.read_exact(&mut body).await.unwrap();
                    assert!(body == FRAME, "torn behind {frames} frames and {pongs} pongs");
                    frames += 1;
                }
                0x8a04 => {
                    from_server.read_exact(&mut body[..4]).await.unwrap();
                    assert_eq!(&body[..4], b"ping");
                    pongs += 1;
                }
                // The session's own, for the round trip.
                0x8904 => drop(from_server.read_exact(&mut body[..4]).await.unwrap()),
                other => panic!("no header: {other:04x} behind {frames} frames and {pongs} pongs"),
            }
        }
        assert!(pongs > 0);
        pings.abort();
        drop(sender.join().unwrap());
    });
}

#[test]
fn the_end_of_the_tap_ends_the_session() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (_client, bridge, shuttle) = session(false).await;
        drop(bridge);
        let end = shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await;
        assert!(matches!(end, End::PortLost), "{end}");
    });
}

#[test]
fn a_client_that_is_held_back_gets_nothing_before_its_first_frame() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (mut client, bridge, shuttle) = session(false).await;
        let hold_back = Duration::from_secs(3600);
        tokio::task::spawn_local(async move {
            shuttle.run(Vec::new(), ws::Decoder::new(true), hold_back).await
        });
        unistd::write(&bridge, &FRAME).unwrap();
        // Long enough for a frame that is not held back, which makes this test fail.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let early = client.try_read(&mut [0; 16]).map_err(|error| error.kind());
        assert_eq!(early, Err(io::ErrorKind::WouldBlock));
        // A binary message of 14 bytes with a mask of zeros.
        let own = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6];
        client.write_all(&[&[0x82, 0x8e, 0, 0, 0, 0][..], &own].concat()).await.unwrap();
        assert_eq!(client.read_u32().await.unwrap(), 0x827e_0000 | FRAME.len() as u32);
        drop(bridge);
    });
}

/// A flow of TCP in full segments, and the super-frame that becomes it.
pub(in crate::shuttle) fn flow(segments: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let packet = Packet::new(v4(), tcp(ACK), data(segments * 1448));
    (packet.cut(1448).iter().map(Packet::bytes).collect(), packet.super_frame(1448))
}

/// As a client sends it, with a mask that changes nothing.
pub(in crate::shuttle) fn message(frame: &[u8]) -> Vec<u8> {
    let (mut header, len) = ws::header(Opcode::Binary, frame.len());
    header[1] |= 0x80;
    [&header[..len], &[0; 4], frame].concat()
}

#[test]
fn frames_before_a_violation_reach_the_bridge_and_no_other_session() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (frames, _) = flow(2);
        let (mut client, bridge, shuttle) = session(true).await;
        // More could be joined to the last one when the violation comes.
        let unmasked = vec![0x82, 1, 0];
        client.write_all(&[message(&frames[0]), unmasked].concat()).await.unwrap();
        let end = shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await;
        assert!(matches!(end, End::Violation(_)), "{end}");
        let mut written = [0; 2000];
        let len = unistd::read(&bridge, &mut written).unwrap();
        assert_eq!(written[offload::HEADER_LEN..len], frames[0]);

        let (mut client, bridge, shuttle) = session(true).await;
        let own = [[0xff; 6], [2, 0, 0, 0, 0, 1], [8, 6, 0, 1, 8, 0]].concat();
        // Closes at once.
        let close = vec![0x88, 0x80, 0, 0, 0, 0];
        client.write_all(&[message(&own), close].concat()).await.unwrap();
        let end = shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await;
        assert!(matches!(end, End::Closed(None)), "{end}");
        let len = unistd::read(&bridge, &mut written).unwrap();
        assert_eq!(written[offload::HEADER_LEN..len], own);
    });
}
