//! Tests of sessions whose messages carry a stream, with a socket pair in place of the TAP.

use super::*;
use crate::framing::{self, BadLength, LENGTH_LEN};
use crate::shuttle::tests::{flow, message, session_with};
use crate::ws;
use nix::unistd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;
use wsnic_proto::offload;
use wsnic_proto::settings::Framing;

/// A close message of a client.
const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// What a client sends, from its first byte to the end of the session.
fn run(sent: Vec<u8>, offloads: bool) -> (End, OwnedFd, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (client, bridge, shuttle) = session_with(offloads, Framing::Stream).await;
        let (_from_server, mut to_server) = client.into_split();
        let sending = tokio::task::spawn_local(async move {
            to_server.write_all(&sent).await.unwrap();
            to_server
        });
        let end = shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await;
        drop(sending.await.unwrap());
        (end, bridge, shuttle.counters.dropped.get())
    })
}

/// What the bridge has got, without the TAP's headers.
fn written(bridge: &OwnedFd, offloads: bool) -> Vec<Vec<u8>> {
    let (mut bytes, mut all) = (vec![0; 1 << 17], Vec::new());
    while let Ok(len @ 1..) = unistd::read(bridge, &mut bytes) {
        all.push(bytes[if offloads { offload::HEADER_LEN } else { 0 }..len].to_vec());
    }
    all
}

/// A frame that is joined with no other.
fn numbered(number: u16, len: usize) -> Vec<u8> {
    let header = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &number.to_be_bytes()];
    let mut frame = header.concat();
    frame.resize(len.max(frame.len()), 0x55);
    frame
}

/// Each behind its length.
fn in_stream(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&framing::length(frame.len()), &frame[..]].concat()).collect()
}

/// A message in two fragments.
fn fragmented(bytes: &[u8]) -> Vec<u8> {
    let (start, end) = bytes.split_at(bytes.len() / 2);
    let (mut start, mut end) = (message(start), message(end));
    (start[0], end[0]) = (0x02, 0x80);
    [start, end].concat()
}

#[test]
fn frames_reach_the_bridge_in_order_however_they_come_in_messages() {
    let frames: Vec<_> = (0..120).map(|at| numbered(at, usize::from(at) * 12)).collect();
    let stream = in_stream(&frames);
    for (offloads, len) in [(false, 1), (true, 3), (false, 700), (true, 1501), (true, 100_000)] {
        for message in [message, fragmented] {
            let sent = stream.chunks(len).flat_map(message).chain(CLOSE).collect();
            let (end, bridge, _) = run(sent, offloads);
            assert!(matches!(end, End::Closed(None)), "{end}");
            assert!(written(&bridge, offloads) == frames, "offloads {offloads}, messages of {len}");
        }
    }
}

#[test]
fn segments_of_one_message_are_joined() {
    let (frames, super_frame) = flow(10);
    let (_, bridge, _) = run([message(&in_stream(&frames)), CLOSE.to_vec()].concat(), true);
    assert_eq!(written(&bridge, true), [&super_frame[offload::HEADER_LEN..]]);
}

#[test]
fn a_message_with_more_frames_than_a_step_takes_is_done_before_what_comes_behind_it() {
    let frames: Vec<_> = (0..6000).map(|at| numbered(at, 0)).collect();
    let (end, bridge, dropped) = run([message(&in_stream(&frames)), CLOSE.to_vec()].concat(), true);
    assert!(matches!(end, End::Closed(None)), "{end}");
    // Nobody has read, so that not all of them had room.
    let written = written(&bridge, true);
    assert!(written.len() > AT_ONCE && written == frames[..written.len()]);
    assert_eq!(written.len() + dropped as usize, frames.len());
}

#[test]
fn what_came_before_a_length_that_is_none_reaches_the_bridge() {
    let frames = vec![numbered(1, 60)];
    let sent = [in_stream(&frames), vec![0xff; LENGTH_LEN], frames[0].clone()].concat();
    let (end, bridge, _) = run(message(&sent), true);
    assert!(matches!(end, End::Framing(BadLength(u32::MAX))), "{end}");
    assert_eq!(end.close_code(), Some(1002));
    assert_eq!(written(&bridge, true), frames);
}

#[test]
fn each_frame_for_the_guest_has_its_length_before_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for offloads in [false, true] {
        LocalSet::new().block_on(&runtime, async {
            let (mut client, bridge, shuttle) = session_with(offloads, Framing::Stream).await;
            tokio::task::spawn_local(async move {
                shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await
            });
            // WebSocket headers of 2, 4 and 10 bytes; with the length the first is no short one any more.
            for len in [60, 123, 1514, 65_533] {
                let frame = numbered(7, len);
                let header = &[0; offload::HEADER_LEN][..];
                let header = if offloads { header } else { &[] };
                unistd::write(&bridge, &[header, &frame].concat()).unwrap();
                let (expected, expected_len) = ws::header(ws::Opcode::Binary, LENGTH_LEN + len);
                let expected = [&expected[..expected_len], &framing::length(len), &frame].concat();
                let mut message = vec![0; expected.len()];
                client.read_exact(&mut message).await.unwrap();
                assert!(message == expected, "{len} bytes, offloads {offloads}");
            }
        });
    }
}
