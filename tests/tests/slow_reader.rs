//! A client that stops reading costs only its own frames (docs/old-faults.md, fault 2).

use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::{Door, Fragment, Lab, RawGuest, Server, opcode, resident_kib};

const FRAMES: u32 = 40_000;

#[test]
fn a_client_that_stops_reading_harms_nobody_and_its_stream_stays_whole() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_multicast = 0\n");
    let mut sender = RawGuest::join(&lab);
    let mut other = RawGuest::join(&lab);
    let mut stuck = Door::upgraded(&lab);
    let padding = [0x5a; 1400];
    // 57 MB of broadcast: far more than sockets and queues hold.
    for batch in 0..FRAMES / 100 {
        let frames = (batch * 100..(batch + 1) * 100).map(|number| {
            let payload = [&number.to_be_bytes()[..], &padding].concat();
            frames::ethernet(BROADCAST, sender.mac, EXPERIMENTAL, &payload)
        });
        sender.send_all(frames.collect::<Vec<_>>());
        // Whoever reads goes on, all the time.
        sender.shout(&format!("batch {batch}."));
        other.hear(&format!("batch {batch}."));
        if batch % 50 == 0 {
            other.ping_gateway(56);
            sender.ping_gateway(56);
        }
    }
    let memory = resident_kib(server.front_end());
    assert!(memory < 64 << 10, "the front-end holds {memory} KiB for one stuck client");
    // When it reads again it finds whole messages, in order, some missing; and it still works.
    stuck.send_fragment(&Fragment::new(opcode::PING, b"awake"));
    let mut last = None;
    let mut seen = 0;
    loop {
        let message = stuck.receive();
        match message.opcode {
            opcode::PONG => break,
            opcode::PING => {}
            opcode::BINARY if message.payload.len() == 14 + 4 + padding.len() => {
                assert_eq!(message.payload[18..], padding, "a frame is torn");
                let number =
                    u32::from_be_bytes(message.payload[14..18].try_into().expect("four bytes"));
                assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
                last = Some(number);
                seen += 1;
            }
            opcode::BINARY => assert!(message.payload.len() < 400, "a strange frame: {message:?}"),
            _ => panic!("{message:?}"),
        }
    }
    assert!(seen > 0 && seen < FRAMES, "{seen} frames");
    drop((sender, other, stuck));
    server.stop();
    lab.finish();
}

#[test]
fn a_client_that_stopped_reading_does_not_hold_up_the_shutdown() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut sender = RawGuest::connect(&lab);
    let stuck = Door::upgraded(&lab);
    let frame = frames::ethernet(BROADCAST, sender.mac, EXPERIMENTAL, &[1; 1400]);
    for _ in 0..100 {
        sender.send_all(vec![frame.clone(); 100]);
    }
    server.stop();
    drop((sender, stuck));
    lab.finish();
}
