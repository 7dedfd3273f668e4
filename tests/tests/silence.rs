//! A client that says nothing is asked whether it is still there, and dropped when it is not.

use std::time::Duration;
use wsnic_tests::{Door, Lab, RawGuest, Server, opcode, wait_until};

#[test]
fn a_silent_client_is_pinged_and_then_dropped_with_its_port() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut door = Door::upgraded(&lab);
    door.wait_at_most(Duration::from_secs(180));
    let mut pings = 0;
    // It never answers; frames of the host's may come, a CLOSE may or may not.
    while let Some(fragment) = door.try_receive() {
        match fragment.opcode {
            opcode::PING => pings += 1,
            opcode::CLOSE => break,
            _ => {}
        }
    }
    assert!(pings > 0, "it was dropped without being asked");
    wait_until("its port is gone", || !lab.srv.ip("-o link show").contains("wstap"));
    drop(door);
    RawGuest::join(&lab).leave();
    server.stop();
    lab.finish();
}
