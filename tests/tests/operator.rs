//! What an operator sees and does: `wsnic status`, `wsnic sessions`, `wsnic kick`, `wsnic pardon`.

use std::net::SocketAddr;
use std::process::Command;
use wsnic_tests::{Lab, RawGuest, Server, address, run_wsnic, wait_until};

const ADMIN: &str = "/run/wsnic-admin.sock";

fn wsnic(lab: &Lab, arguments: &[&str]) -> (bool, String) {
    let conf = lab.file("wsnic.conf");
    let conf = ["-c", conf.to_str().expect("a path")];
    let (status, output) = run_wsnic(&lab.srv, &[arguments, &conf[..]].concat());
    (status.success(), output)
}

fn says(lab: &Lab, arguments: &[&str]) -> String {
    let (good, output) = wsnic(lab, arguments);
    assert!(good, "{arguments:?}: {output}");
    output
}

/// The number of the session on this port.
fn id_of(lab: &Lab, port: &str) -> String {
    let sessions = says(lab, &["sessions"]);
    let line = sessions.lines().find(|line| line.split_whitespace().any(|word| word == port));
    let line = line.unwrap_or_else(|| panic!("no {port} in\n{sessions}"));
    line.split_whitespace().next().expect("a number").to_owned()
}

#[test]
fn sessions_are_listed_with_who_where_and_how_much() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0\n");
    assert_eq!(says(&lab, &["sessions"]).lines().count(), 1, "a heading");
    let wan = SocketAddr::from((address::WAN, 8086));
    let mut one = RawGuest::connect_to(&lab.inet, wan, "/", &[]).expect("a guest");
    let other = RawGuest::connect(&lab);
    one.dhcp();
    one.ping_gateway(1000);
    let text = says(&lab, &["sessions"]);
    let line = text.lines().find(|line| line.contains("wstap0")).expect("the first guest");
    let mac = one.mac.map(|byte| format!("{byte:02x}")).join(":");
    assert!(line.contains(&address::UPLINK.to_string()) && line.contains(&mac), "{line}");
    assert!(line.contains("anyone"), "{line}");
    let json = says(&lab, &["sessions", "--json"]);
    assert!(json.starts_with('[') && json.contains("\"port\":\"wstap1\""), "{json}");
    let status = says(&lab, &["status"]);
    assert!(status.contains("sessions  2 of at most 1000, 2 since the start"), "{status}");
    drop((one, other));
    wait_until("nobody is listed", || says(&lab, &["sessions"]).lines().count() == 1);
    server.stop();
    let (good, output) = wsnic(&lab, &["status"]);
    assert!(!good && output.contains("admin_socket"), "{output}");
    lab.finish();
}

#[test]
fn a_kicked_session_ends_and_its_address_stays_out_if_it_is_banned() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0\n");
    let wan = SocketAddr::from((address::WAN, 8086));
    let connect = || RawGuest::connect_to(&lab.inet, wan, "/", &[]);
    let (mut guest, mut other) = (connect().expect("a guest"), RawGuest::connect(&lab));
    says(&lab, &["kick", &id_of(&lab, "wstap0")]);
    assert_eq!(guest.close_code(), 1008);
    let mut again = connect().expect("he may come again");
    wait_until("one port is his", || lab.ports() == 2);
    let id = says(&lab, &["sessions"]);
    let id = id.lines().last().and_then(|line| line.split_whitespace().next()).expect("the last");
    says(&lab, &["kick", id, "--ban", "1h"]);
    assert_eq!(again.close_code(), 1008);
    assert!(connect().is_err(), "banned");
    let status = says(&lab, &["status"]);
    assert!(status.contains(&format!("banned    {} for", address::UPLINK)), "{status}");
    assert!(status.contains("refused   1 banned"), "{status}");
    says(&lab, &["pardon", &address::UPLINK.to_string()]);
    drop(connect().expect("pardoned"));
    other.dhcp();
    for (wrong, said) in [
        (&["kick", "4711"][..], "no such session"),
        (&["pardon", "203.0.113.1"], "no such ban"),
        (&["kick", &id_of(&lab, "wstap1"), "--ban", "60"], "not banned"),
        (&["kick"], "required"),
        (&["kick", "1", "--ban", "soon"], "10m"),
    ] {
        let (good, output) = wsnic(&lab, wrong);
        assert!(!good && output.contains(said), "{wrong:?}: {output}");
    }
    drop(other);
    server.stop();
    lab.finish();
}

#[test]
fn only_root_gives_orders() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let curl = format!("curl -s --unix-socket {ADMIN} http://wsnic/status");
    assert!(lab.srv.run(&curl).contains("\"sessions\":0"));
    let mut other = Command::new("setpriv");
    other.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    other.args(curl.split_whitespace());
    let output = lab.srv.output(&mut other);
    assert!(!output.status.success() && output.stdout.is_empty(), "another user gets nothing");
    for order in ["-X POST http://wsnic/status", "http://wsnic/nothing"] {
        let answer = lab.srv.run(&format!("curl -s -i --unix-socket {ADMIN} {order}"));
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    server.stop();
    lab.finish();
}
