//! The limit: frames behind their length on TCP and a TAP with offloads, nothing else.

use crate::line::Line;
use crate::pump::Pump;
use crate::tap;
use crate::wire::Wire;
use std::net::TcpListener;

/// Serves for ever on a listener, each client in a thread.
pub fn serve(listener: &TcpListener, attach: impl Fn(&str)) {
    for (number, stream) in listener.incoming().enumerate() {
        let stream = stream.expect("a client");
        let name = format!("wstap{number}");
        let tap = tap::create(&name, true).expect("a TAP can be made");
        attach(&name);
        std::thread::spawn(|| Pump::new(tap, Line::Plain(stream), Wire::Length, true).run());
    }
}
