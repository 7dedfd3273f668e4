//! What goes through a session allocates nothing per frame, whatever the direction.
//!
//! Client and bridge are played by another thread than the session's, which alone is counted.
#![allow(unsafe_code)]

use super::tests::{flow, message, session};
use super::*;
use nix::unistd;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

/// The system's allocator; counts what each thread takes from it.
struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

// SAFETY: everything is left to the system's allocator; the counter is no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, len) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The two ends of a session: the client's socket, and the bridge's end of the TAP.
struct Ends {
    client: TcpStream,
    bridge: OwnedFd,
}

impl Ends {
    fn give_to_bridge(&self, packet: &[u8]) {
        while unistd::write(&self.bridge, packet).is_err() {
            std::thread::yield_now();
        }
    }

    fn take_from_bridge(&self) {
        while unistd::read(&self.bridge, &mut [0; 1 << 17]).is_err() {
            std::thread::yield_now();
        }
    }

    fn take_from_session(&mut self, len: usize) {
        self.client.read_exact(&mut vec![0; len]).unwrap();
    }
}

/// How often the thread of a session takes memory, from its start to its end, while `work` is done.
fn taken(offloads: bool, work: impl FnOnce(&mut Ends)) -> usize {
    let (send_ends, ends) = mpsc::channel();
    let served = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, bridge, shuttle) = session(offloads).await;
            let client = client.into_std().unwrap();
            client.set_nonblocking(false).unwrap();
            send_ends.send(Ends { client, bridge }).unwrap();
            let before = TAKEN.get();
            shuttle.run(Vec::new(), ws::Decoder::new(false), Duration::ZERO).await;
            TAKEN.get() - before
        })
    });
    let mut ends = ends.recv().unwrap();
    work(&mut ends);
    drop(ends);
    served.join().unwrap()
}

/// As a TAP gives and takes it.
fn on_tap(offloads: bool, frame: &[u8]) -> Vec<u8> {
    let header = &[0; offload::HEADER_LEN][..if offloads { offload::HEADER_LEN } else { 0 }];
    [header, frame].concat()
}

/// Bytes of a frame as a client gets it.
fn message_len(frame: &[u8]) -> usize {
    ws::header(Opcode::Binary, frame.len()).1 + frame.len()
}

const SHORT: [u8; 64] = [0x54; 64];
const ROUNDS: usize = 300;

/// Ten times as many frames take nothing more.
fn assert_free(work: impl Fn(&mut Ends, usize), offloads: bool) {
    // Whatever is made once for each thread of a test.
    let once = taken(offloads, |ends| work(ends, ROUNDS));
    let often = taken(offloads, |ends| work(ends, 10 * ROUNDS));
    assert!(often <= once + 5, "{once} for {ROUNDS} rounds, {often} for ten times as many");
}

#[test]
fn frames_one_by_one_take_no_memory() {
    for offloads in [false, true] {
        for frame in [&SHORT[..], &[0x54; 1514]] {
            let (from_client, from_bridge) = (message(frame), on_tap(offloads, frame));
            let up = |ends: &mut Ends, rounds| {
                for _ in 0..rounds {
                    ends.client.write_all(&from_client).unwrap();
                    ends.take_from_bridge();
                }
            };
            let down = |ends: &mut Ends, rounds| {
                for _ in 0..rounds {
                    ends.give_to_bridge(&from_bridge);
                    ends.take_from_session(message_len(frame));
                }
            };
            assert_free(up, offloads);
            assert_free(down, offloads);
        }
    }
}

#[test]
fn super_frames_take_no_memory() {
    let (frames, super_frame) = flow(40);
    let from_client: Vec<u8> = frames.iter().flat_map(|frame| message(frame)).collect();
    let len = frames.iter().map(|frame| message_len(frame)).sum();
    let down = |ends: &mut Ends, rounds| {
        for _ in 0..rounds {
            ends.give_to_bridge(&super_frame);
            ends.take_from_session(len);
        }
    };
    // The socket of `session` holds less than a super-frame: a part of each has to be kept.
    let kept = taken(true, |ends| down(ends, ROUNDS));
    assert!(kept <= ROUNDS * 4, "{kept} for {ROUNDS} super-frames of {} frames", frames.len());
    // The last message that one read of the socket brings may have to be kept.
    let up = |ends: &mut Ends| {
        for _ in 0..ROUNDS {
            ends.client.write_all(&from_client).unwrap();
            ends.take_from_bridge();
        }
    };
    let kept = taken(true, up);
    assert!(kept <= ROUNDS * 4, "{kept} for {ROUNDS} super-frames of {} frames", frames.len());
}

/// Memory is taken for the rest of a batch at most, not for each of its frames.
#[test]
fn while_the_socket_is_full_memory_is_taken_by_the_batch() {
    for offloads in [false, true] {
        let packet = on_tap(offloads, &SHORT);
        let frames = 200_000;
        let work = |ends: &mut Ends| {
            let (mut written, mut read, mut full) = (0, 0, 0);
            // Less than client and socket hold in any case.
            let part = 30_000;
            while written < frames {
                if unistd::write(&ends.bridge, &packet).is_ok() {
                    written += 1;
                } else if read + part < written * message_len(&SHORT) {
                    // Nothing moves before the client reads.
                    full += 1;
                    ends.take_from_session(part);
                    read += part;
                } else {
                    std::thread::yield_now();
                }
            }
            assert!(full > 10, "the socket was full {full} times only");
            ends.take_from_session(frames * message_len(&SHORT) - read);
        };
        let kept = taken(offloads, work);
        assert!(kept * 20 < frames, "{kept} for {frames} frames");
    }
}
