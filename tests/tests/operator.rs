//! What an operator sees and does: `wsnic status`, `wsnic sessions`, `wsnic top`, `wsnic kick`,
//! `wsnic pardon`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use wsnic_tests::frames::{self, BROADCAST};
use wsnic_tests::{
    Lab, NativeGuest, RawGuest, Server, address, run_wsnic, wait_until, wsnic as program,
};

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
fn networks_are_listed_with_their_sessions_rooms_and_leases() {
    let lab = Lab::new();
    let conf = "isolation = on\nstrict_paths = yes\n[network own]\nsubnet = 10.1.0.0/24\n\
                private = yes\nlocks = no\nisolation = off\n\
                [network rooms]\nsubnet = 10.2.0.0/16\nrooms = on\nmax_rooms = 7\n";
    let server = Server::start(&lab, conf);
    let guests = ["/", "/rooms/one", "/rooms/two", "/rooms/two"];
    let mut guests = guests.map(|path| RawGuest::join_at(&lab, path));
    guests[0].ping_gateway(56);
    let text = says(&lab, &["networks"]);
    let words = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words[1..words.len() - 3].join(" ")
    };
    assert_eq!(words("default"), "192.168.86.0/24 1/1000 - builtin 1/253 no yes yes");
    assert_eq!(words("own"), "10.1.0.0/24 0/1000 - builtin yes no no");
    assert!(words("rooms").starts_with("10.2.0.0/16 3/1000 2/7 builtin 3/"), "{text}");
    let json = says(&lab, &["networks", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json[2]["rooms"], &json[2]["sessions"]), (&2.into(), &3.into()), "{json}");
    assert_eq!(json[0]["gateway"], "192.168.86.1");
    assert!(json[0]["bytes_in"].as_u64() > Some(0), "{json}");
    drop(guests);
    wait_until("nobody is in a room", || says(&lab, &["networks"]).contains(" 0/7 "));
    server.stop();
    lab.finish();
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
    assert!(line.contains("anyone") && line.contains(" default "), "{line}");
    assert!(line.contains(&one.ip.to_string()), "by DHCP: {line}");
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

/// The answer to an order that is written by hand: its status and its text.
fn order(lab: &Lab, what: &str) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--unix-socket", ADMIN, "--write-out", "\n%{http_code}", "--request"]);
    let (method, target) = what.split_once(' ').expect("a method and a target");
    let output = lab.srv.output(curl.arg(method).arg(format!("http://wsnic{target}")));
    let text = String::from_utf8(output.stdout).expect("text");
    let (text, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), text.to_owned())
}

#[test]
fn an_order_with_a_slip_is_refused_and_nothing_is_done() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    for slip in ["?ban=1h", "?bann=60", "?ban=", "?ban=-1", "?", "?ban=1&ban=2", "?BAN=1"] {
        let (status, text) = order(&lab, &format!("DELETE /sessions/1{slip}"));
        assert_eq!(status, "400", "{slip}: {text}");
        assert!(
            text.contains("nothing is done") && text.contains("?ban=SECONDS"),
            "{slip}: {text}"
        );
        guest.ping_gateway(56);
    }
    assert_eq!(order(&lab, "DELETE /sessions/4711?ban=60").0, "404");
    assert_eq!(order(&lab, "DELETE /sessions/1").0, "204");
    assert_eq!(guest.close_code(), 1008);
    server.stop();
    lab.finish();
}

#[test]
fn who_looks_at_frames_when_many_do_already_is_told_what_to_do() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let guest = RawGuest::join(&lab);
    let look = || {
        let mut stream = lab.srv.enter(|| UnixStream::connect(ADMIN)).expect("the socket is there");
        stream.write_all(b"GET /sessions/1/frames HTTP/1.1\r\n\r\n").expect("it takes an order");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("it answers");
        (stream, line)
    };
    let mut watchers: Vec<_> = (0..32).map(|_| look()).collect();
    assert!(watchers.iter().all(|(_, line)| line.contains(" 200 ")), "{watchers:?}");
    let (status, text) = order(&lab, "GET /sessions/1/frames");
    assert_eq!(status, "503", "{text}");
    assert!(text.contains("wsnic capture") && text.contains("32"), "{text}");
    watchers.pop();
    wait_until("there is room again", || look().1.contains(" 200 "));
    drop((watchers, guest));
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

#[test]
fn addresses_that_a_guest_names_in_arp_are_listed_the_last_one_first() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let leased = guest.ip;
    let other = std::net::Ipv4Addr::new(192, 168, 86, 77);
    guest.send(&frames::arp_request(guest.mac, other, other));
    // A probe names nothing (RFC 5227), and what is no ARP for IPv4 neither.
    guest.send(&frames::arp_request(guest.mac, [0; 4].into(), leased));
    guest.send(&frames::ethernet(BROADCAST, guest.mac, frames::ARP, &[0xff; 28]));
    wait_until("both are listed", || {
        let json = says(&lab, &["sessions", "--json"]);
        json.contains(&format!("\"addresses\":[\"{other}\",\"{leased}\"]"))
    });
    guest.ping_gateway(10);
    assert!(says(&lab, &["sessions"]).contains(&format!(" {leased},{other} ")), "used again");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn the_round_trip_is_known_of_quiet_and_of_busy_clients() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut quiet = RawGuest::connect(&lab);
    let busy = NativeGuest::join(&lab);
    let mut flood = busy.netns.spawn(
        Command::new("ping")
            .args(["-f", "-q", &address::GATEWAY.to_string()])
            .stdout(Stdio::null()),
    );
    let rtt = |port: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&says(&lab, &["sessions", "--json"])).expect("JSON");
        let row = json.as_array().expect("a list").iter().find(|row| row["port"] == port);
        row.and_then(|row| Some((row["rtt_us"].as_u64()?, row["rtt_seconds_ago"].as_u64()?)))
    };
    wait_until("both have answered a ping", || {
        // Its WebSocket answers while it is read.
        quiet.receive_within(Duration::from_millis(10));
        rtt("wstap0").is_some() && rtt("wstap1").is_some()
    });
    let (micros, ago) = rtt("wstap0").expect("known");
    assert!(micros > 0 && ago < 60, "{micros} µs, {ago} s ago");
    let text = says(&lab, &["sessions"]);
    let lines: Vec<&str> = text.lines().collect();
    let at = lines[0].find("RTT").expect("a column");
    assert!(lines[1..].iter().all(|line| line[at..].contains("s (")), "{text}");
    flood.kill().expect("it runs");
    flood.wait().expect("a child can be waited for");
    drop((quiet, busy));
    server.stop();
    lab.finish();
}

#[test]
fn top_shows_who_moves_most_once_without_a_terminal_and_live_on_one() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let idle = RawGuest::join(&lab);
    let busy = NativeGuest::join(&lab);
    let mut flood = busy.netns.spawn(
        Command::new("ping")
            .args(["-f", "-q", &address::GATEWAY.to_string()])
            .stdout(Stdio::null()),
    );
    let text = says(&lab, &["top"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("2 sessions  from guests "), "{text}");
    assert!(lines[2].starts_with("ID  SENT/s  GOT/s  FRAMES/s  RTT"), "{text}");
    assert!(lines[3].contains("wstap1") && lines[4].contains("wstap0"), "{text}");
    let frames = lines[3].split_whitespace().nth(3).expect("frames");
    assert!(frames != "0" && !text.contains('\x1b'), "{text}");
    // script(1) gives it a terminal.
    let line = format!("{} top -c {}", program().display(), lab.file("wsnic.conf").display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut live = lab.srv.spawn(&mut command);
    let (mut keys, mut screen) = (live.stdin.take().expect("a pipe"), live.stdout.take());
    let screen = screen.as_mut().expect("a pipe");
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    // Drawn, and drawn anew.
    while seen.windows(3).filter(|three| three == b"\x1b[H").count() < 3 {
        let len = screen.read(&mut part).expect("the terminal is there");
        assert!(len > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..len]);
    }
    keys.write_all(b"xq").expect("it reads keys");
    screen.read_to_end(&mut seen).expect("the terminal is there");
    assert!(live.wait().expect("a child can be waited for").success());
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(text.contains("\x1b[?1049h") && text.contains("wstap1"), "{text:?}");
    assert!(text.trim_end().ends_with("\x1b[?25h\x1b[?1049l"), "the terminal is as it was");
    flood.kill().expect("it runs");
    flood.wait().expect("a child can be waited for");
    drop((idle, busy));
    server.stop();
    let (good, output) = wsnic(&lab, &["top"]);
    assert!(!good && output.contains("admin_socket"), "{output}");
    lab.finish();
}
