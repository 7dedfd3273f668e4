//! A client that says nothing is asked whether it is still there, and dropped when it is not.

use std::net::SocketAddr;
use std::time::Duration;
use wsnic_tests::{Door, Lab, RawGuest, Server, address, opcode, wait_until};

#[test]
fn silent_clients_and_vanished_ones_are_pinged_and_then_dropped_with_their_ports() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0\n");
    let lan = SocketAddr::from((address::LAN, 8086));
    let connect = |_| RawGuest::connect_to(&lab.lan, lan, "/", &[]).expect("a guest");
    let vanished: Vec<RawGuest> = (0..20).map(connect).collect();
    // Nothing of theirs arrives from now on, not even an end.
    lab.srv.ip("route replace blackhole 192.168.50.2/32");
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
    wait_until("the ports are gone", || lab.ports() == 0);
    drop((door, vanished));
    lab.srv.ip("route delete blackhole 192.168.50.2/32");
    RawGuest::join(&lab).leave();
    server.stop();
    lab.finish();
}
