//! What a monitoring system sees: /metrics, /healthz and /readyz.

use nix::sys::signal::{Signal, kill};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use wsnic_tests::{
    Door, Lab, NativeGuest, RawGuest, Response, Server, address, open_files, wait_until,
};

const CONF: &str = "metrics_listen = 127.0.0.1:9100\n";
const HELPER: &str = "wsnic-priv";
const ADMIN: &str = "/run/wsnic-admin.sock";

fn monitor() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9100))
}

fn ask(lab: &Lab, request: &str) -> Response {
    let mut door = Door::knock_at(&lab.srv, monitor());
    door.send(format!("{request} HTTP/1.1\r\nHost: monitor\r\n\r\n").as_bytes());
    let response = door.response();
    door.wait_for_end();
    response
}

/// The text as the admin socket gives it, which is made for each who asks.
fn metrics(lab: &Lab) -> String {
    lab.srv.run(&format!("curl -s --unix-socket {ADMIN} http://wsnic/metrics"))
}

/// The value of a sample; None when there is no such one.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|_| panic!("{sample} {line}")))
}

/// promtool, which is Prometheus' own judge.
fn judge(text: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool is there, see tests/setup.sh");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

#[test]
fn metrics_pass_prometheus_own_check_and_totals_never_go_back() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{CONF}[network lab]\nsubnet = 10.1.0.0/24\n"));
    judge(&metrics(&lab));
    let mut guest = RawGuest::join(&lab);
    guest.ping_gateway(1000);
    // Too short for a frame, and a frame with a VLAN tag.
    guest.send(&[0; 13]);
    let mac = guest.mac;
    guest.send(&[&[0xff; 6][..], &mac, &[0x81, 0, 0, 7, 8, 6], &[0; 46]].concat());
    guest.ping_gateway(10);
    Door::knock(&lab).send(b"GET / HTTP/1.1\r\n\r\n");
    wait_until("the one without an upgrade is counted", || {
        value(&metrics(&lab), "wsnic_refused_total{reason=\"not_websocket\"}") == Some(1.0)
    });
    wait_until("the helper is asked again", || {
        value(&metrics(&lab), "wsnic_helper_ports") == Some(1.0)
    });
    let busy = metrics(&lab);
    judge(&busy);
    for (sample, expected) in [
        ("wsnic_sessions{network=\"default\"}", 1.0),
        ("wsnic_sessions_total{network=\"default\"}", 1.0),
        ("wsnic_sessions{network=\"lab\"}", 0.0),
        ("wsnic_max_sessions{network=\"default\"}", 1000.0),
        ("wsnic_connections_total", 2.0),
        ("wsnic_dhcp_leases{network=\"default\"}", 1.0),
        ("wsnic_dhcp_addresses{network=\"default\"}", 253.0),
        ("wsnic_dhcp_answers_total{network=\"default\",type=\"offer\"}", 1.0),
        ("wsnic_dhcp_answers_total{network=\"default\",type=\"ack\"}", 1.0),
        ("wsnic_dhcp_answers_total{network=\"default\",type=\"nak\"}", 0.0),
        ("wsnic_dropped_frames_total{reason=\"too_short\"}", 1.0),
        ("wsnic_dropped_frames_total{reason=\"vlan\"}", 1.0),
        ("wsnic_refused_total{reason=\"banned\"}", 0.0),
        ("wsnic_bans", 0.0),
        ("wsnic_helper_up", 1.0),
        ("wsnic_network_up", 1.0),
        ("wsnic_helper_ports", 1.0),
    ] {
        assert_eq!(value(&busy, sample), Some(expected), "{sample} in\n{busy}");
    }
    let from = "wsnic_frame_bytes_total{network=\"default\",direction=\"guest_to_bridge\"}";
    let moved = value(&busy, from).expect("bytes");
    assert!((1000.0..2000.0).contains(&moved), "{busy}");
    guest.leave();
    wait_until("nobody is in", || {
        value(&metrics(&lab), "wsnic_sessions{network=\"default\"}") == Some(0.0)
    });
    let after = metrics(&lab);
    judge(&after);
    for line in busy.lines().filter(|line| line.contains("_total")) {
        let (sample, before) = line.rsplit_once(' ').expect("a sample and its value");
        let Ok(before) = before.parse::<f64>() else { continue };
        assert!(value(&after, sample) >= Some(before), "{line} in\n{after}");
    }
    server.stop();
    lab.finish();
}

#[test]
fn the_listener_answers_what_monitoring_asks_and_nothing_else() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let metrics = ask(&lab, "GET /metrics?name=x");
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    judge(&metrics.body);
    for (request, status, body) in [
        ("GET /healthz", 200, "ok\n"),
        ("GET /readyz", 200, "ok\n"),
        ("GET /", 404, "there are /metrics, /healthz and /readyz\n"),
        ("GET /sessions", 404, "there are /metrics, /healthz and /readyz\n"),
        ("DELETE /sessions/1", 405, "GET and HEAD only\n"),
        ("PUT /material", 405, "GET and HEAD only\n"),
    ] {
        let response = ask(&lab, request);
        assert_eq!((response.status, &*response.body), (status, body), "{request}");
    }
    let mut door = Door::knock_at(&lab.srv, monitor());
    door.send(b"HEAD /healthz HTTP/1.1\r\n\r\n");
    let head = lab.srv.run("curl -s -I http://127.0.0.1:9100/readyz");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Content-Length: 3"), "{head}");
    for path in ["healthz", "readyz"] {
        let said = lab.srv.run(&format!("curl -s --unix-socket {ADMIN} http://wsnic/{path}"));
        assert_eq!(said, "ok\n");
    }
    server.stop();
    lab.finish();
}

#[test]
fn readyz_fails_while_the_helper_is_stopped_and_comes_back() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let guest = NativeGuest::join(&lab);
    assert_eq!(ask(&lab, "GET /readyz").status, 200);
    server.signal_program(HELPER, Signal::SIGSTOP);
    wait_until("it is not ready", || ask(&lab, "GET /readyz").status == 503);
    let said = ask(&lab, "GET /readyz");
    assert!(said.body.starts_with("helper: ") && said.body.lines().count() == 1, "{said:?}");
    assert_eq!(ask(&lab, "GET /healthz").status, 200);
    let text = metrics(&lab);
    judge(&text);
    assert_eq!(value(&text, "wsnic_helper_up"), Some(0.0), "{text}");
    // Asked more often than the helper may have questions: it gets one.
    for _ in 0..100 {
        assert_eq!(ask(&lab, "GET /readyz").status, 503);
    }
    assert!(guest.pings(address::GATEWAY), "guests do not need the helper");
    server.signal_program(HELPER, Signal::SIGCONT);
    wait_until("it is ready again", || ask(&lab, "GET /readyz").status == 200);
    server.kill_program(HELPER);
    wait_until("the next helper answers", || ask(&lab, "GET /readyz").status == 200);
    assert!(NativeGuest::join(&lab).pings(address::GATEWAY));
    server.stop();
    lab.finish();
}

#[test]
fn readyz_fails_while_dnsmasq_is_dead_and_comes_back() {
    let lab = Lab::new();
    let other = "[network own]\nsubnet = 10.1.0.0/24\ndhcp_service = builtin\n";
    let server = Server::start(&lab, &format!("dhcp_service = dnsmasq\n{CONF}{other}"));
    wait_until("it is ready", || ask(&lab, "GET /readyz").status == 200);
    let supervisor = server.parent_of("dnsmasq");
    kill(supervisor, Signal::SIGSTOP).expect("it runs");
    assert!(server.kill_program("dnsmasq"));
    wait_until("it is not ready", || ask(&lab, "GET /readyz").status == 503);
    let said = ask(&lab, "GET /readyz").body;
    let expected = "dhcp: dnsmasq does not serve 1 of the networks, see the log of wsnic dnsmasq\n";
    assert_eq!(said, expected);
    kill(supervisor, Signal::SIGCONT).expect("it runs");
    wait_until("it is ready again", || ask(&lab, "GET /readyz").status == 200);
    server.stop();
    lab.finish();
}

#[test]
fn readyz_has_a_line_for_a_bridge_that_is_down_and_one_for_a_pool_that_is_empty() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("{CONF}subnet = 10.9.8.0/29\n"));
    lab.srv.ip("link set wsbr0 down");
    wait_until("the bridge is missed", || ask(&lab, "GET /readyz").body.starts_with("network: "));
    assert_eq!(value(&metrics(&lab), "wsnic_network_up"), Some(0.0));
    // All addresses: a guest has four at most.
    let mut guests = [RawGuest::connect(&lab), RawGuest::connect(&lab)];
    for guest in &mut guests {
        for _ in 0..3 {
            guest.mac[0] = 2;
            guest.mac[1] = guest.mac[1].wrapping_add(1);
            if value(&metrics(&lab), "wsnic_dhcp_leases{network=\"default\"}") < Some(5.0) {
                guest.dhcp();
            }
        }
    }
    wait_until("both are said", || {
        let said = ask(&lab, "GET /readyz");
        let lines: Vec<&str> = said.body.lines().collect();
        said.status == 503
            && matches!(lines[..], [a, b] if a.starts_with("network: ") && b.starts_with("dhcp: "))
    });
    lab.srv.ip("link set wsbr0 up");
    wait_until("the bridge is back", || {
        let said = ask(&lab, "GET /readyz").body;
        said.starts_with("dhcp: network default: no address is left")
    });
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn a_deleted_bridge_that_cannot_be_made_again_is_missed() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    assert_eq!(ask(&lab, "GET /readyz").status, 200);
    // Somebody else takes its name.
    lab.srv.ip("link set wsbr0 down name gone0");
    lab.srv.ip("link add wsbr0 type bridge");
    lab.srv.ip("link delete gone0");
    server.wait_for_log("guests have no network, trying again");
    wait_until("the bridge is missed", || ask(&lab, "GET /readyz").body.starts_with("network: "));
    lab.srv.ip("link delete wsbr0");
    wait_until("the bridge is back", || ask(&lab, "GET /readyz").status == 200);
    assert!(NativeGuest::join(&lab).pings(address::GATEWAY));
    server.stop();
    lab.finish();
}

#[test]
fn those_who_ask_nothing_keep_nobody_out() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    assert_eq!(ask(&lab, "GET /healthz").status, 200);
    let before = open_files(server.front_end());
    // Many more than there are at a time, some of which have begun to ask.
    let mut silent: Vec<Door> = (0..300)
        .map(|number| {
            let mut door = Door::knock_at(&lab.srv, monitor());
            if number % 2 == 0 {
                door.try_send(b"GET /metrics HTTP/1.1\r\nX: ");
            }
            door
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(ask(&lab, "GET /metrics").status, 200);
    }
    assert!(open_files(server.front_end()) <= before + 32, "no more than 32 at a time");
    // The last of them has not been pushed out; its time ends.
    silent.pop().expect("the last").wait_for_end();
    wait_until("all are gone", || open_files(server.front_end()) <= before);
    let mut long = Door::knock_at(&lab.srv, monitor());
    long.try_send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000)).as_bytes());
    assert_eq!(long.response().status, 413);
    assert!(RawGuest::join(&lab).resolve(address::GATEWAY) != [0; 6]);
    server.stop();
    lab.finish();
}

#[test]
fn strangers_are_held_to_the_rate_of_connections() {
    let lab = Lab::new();
    let conf = "metrics_listen = 0.0.0.0:9100, [::1]:9100\nhandshake_rate = 1\n";
    let server = Server::start(&lab, conf);
    let stranger = || {
        let mut curl = Command::new("curl");
        curl.args(["-s", &format!("http://{}:9100/healthz", address::WAN)]);
        lab.inet.output(&mut curl).stdout == b"ok\n"
    };
    assert!(stranger());
    wait_until("he is turned away", || !stranger());
    assert_eq!(ask(&lab, "GET /healthz").status, 200, "this machine never is");
    assert_eq!(lab.srv.run("curl -s http://[::1]:9100/healthz"), "ok\n");
    server.stop();
    lab.finish();
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_the_option() {
    let lab = Lab::new();
    let other = lab.srv.enter(|| std::net::TcpListener::bind(monitor())).expect("a free port");
    let log = Server::refuses(&lab, CONF, &[]);
    assert!(log.contains("127.0.0.1:9100 (option metrics_listen)"), "{log}");
    drop(other);
    lab.finish();
}
