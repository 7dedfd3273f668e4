//! `wsnic check --live`: a guest that tests a wsnic that runs, and what it says of each trouble.

use serde_json::Value;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use wsnic_tests::{BRIDGE, Identity, Lab, Server, programs, run_wsnic, wait_until};

const WS: &str = "ws://127.0.0.1:8086/";
const WSS: &str = "wss://localhost:8087/";
const NOBODY: u32 = 65534;
const STEPS: [&str; 7] = ["connect", "dhcp", "arp", "ping", "mtu", "dns", "throughput"];

/// What the test guest finds, as JSON; its exit status says the same.
fn report(lab: &Lab, arguments: &[&str]) -> Value {
    let arguments = [&["check", "--json", "--live"], arguments].concat();
    let (status, text) = run_wsnic(&lab.srv, &arguments);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    assert_eq!(report["ok"], status.success(), "{report:#}");
    report
}

/// One step of a report.
fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"))
}

fn states(report: &Value) -> Vec<(&str, &str)> {
    let steps = report["steps"].as_array().expect("steps");
    let text = |step: &'_ Value, name: &str| step[name].as_str().expect("a text").to_owned();
    let known = ["ok", "skipped", "problem"];
    steps
        .iter()
        .map(|step| {
            let (name, state) = (text(step, "step"), text(step, "state"));
            let name = STEPS.into_iter().find(|known| *known == name).expect("a known step");
            (name, known.into_iter().find(|known| *known == state).expect("a known state"))
        })
        .collect()
}

/// The last step that there is failed; what it says and advises contains these words.
fn fails_at(report: &Value, name: &str, words: &[&str]) {
    let step = step(report, name);
    assert_eq!(step["state"], "problem", "{report:#}");
    let text = format!("{} {}", step["what"], step["remedy"]);
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!step["remedy"].as_str().expect("a remedy").is_empty(), "{report:#}");
}

fn finish(lab: Lab, server: Server) {
    wait_until("the test's guests have left", || lab.ports() == 0);
    server.stop();
    lab.finish();
}

#[test]
fn every_step_is_green_by_ws_and_the_address_is_given_back() {
    let lab = Lab::new();
    // Five addresses for the two guests of each test: they have to be given back.
    let server = Server::start(&lab, "inet_iface = wan0\nsubnet = 192.168.86.0/29\nmtu = 1400\n");
    for _ in 0..4 {
        let report = report(&lab, &[WS]);
        assert_eq!(states(&report), STEPS.map(|name| (name, "ok")), "{report:#}");
        assert_eq!(report["url"], WS);
        let dhcp = step(&report, "dhcp");
        let address = dhcp["address"].as_str().expect("an address");
        assert!(address.starts_with("192.168.86."), "{report:#}");
        assert_eq!((&dhcp["gateway"], &dhcp["mtu"]), (&"192.168.86.1".into(), &1400.into()));
        assert_eq!(step(&report, "mtu")["bytes"], 1400);
        assert_eq!(step(&report, "dns")["addresses"][0], "93.184.216.34");
        assert!(step(&report, "throughput")["mbit_per_second"].as_f64() > Some(0.0), "{report:#}");
        let steps = report["steps"].as_array().expect("steps");
        assert!(steps.iter().all(|step| step["milliseconds"].is_number()), "{report:#}");
        wait_until("the test's guests have left", || lab.ports() == 0);
    }
    finish(lab, server);
}

#[test]
fn without_a_url_the_configuration_says_where_and_without_nat_there_are_no_names() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_port = 9123\nws_server_addr = 0.0.0.0\n");
    let file = lab.file("wsnic.conf");
    let (status, text) = run_wsnic(
        &lab.srv,
        &["check", "--live", "-c", file.to_str().expect("a path"), "--resolve", "web.example"],
    );
    assert!(status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.first(), Some(&"guest    joins ws://127.0.0.1:9123/"), "{text}");
    assert_eq!(lines.last(), Some(&"all is well"), "{text}");
    for name in STEPS {
        let state = if name == "dns" { "skipped" } else { "ok" };
        let start = format!("{state:<9}{name} ");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "no {start:?} in:\n{text}");
    }
    assert!(text.contains("--enable-inet"), "{text}");
    finish(lab, server);
}

#[test]
fn wss_is_tested_with_the_systems_certificates_a_file_or_none_by_an_ordinary_user() {
    let lab = Lab::new();
    let identity = Identity::self_signed(&["localhost"]);
    let (path, ca) = (lab.file("server.pem"), lab.file("ca.pem"));
    identity.write(&path);
    std::fs::write(&ca, &identity.certificate).expect("a file can be written");
    let conf = format!("inet_iface = wan0\nwss_server_cert = {}\n", path.display());
    let server = Server::start(&lab, &conf);
    let ca_name = ca.to_str().expect("a path");
    let as_user = |arguments: &[&str], roots: Option<&str>| {
        let mut command = Command::new(programs::wsnic());
        command.args(["check", "--json", "--live", WSS]).args(arguments).uid(NOBODY).gid(NOBODY);
        // The system's certificates are where this points (SSL_CERT_FILE).
        command.env("SSL_CERT_FILE", roots.unwrap_or("/nonexistent"));
        let output = lab.srv.output(&mut command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    };
    for (arguments, roots) in
        [(&["--ca", ca_name][..], None), (&["--insecure"], None), (&[], Some(ca_name))]
    {
        let report = as_user(arguments, roots);
        assert_eq!(states(&report), STEPS.map(|name| (name, "ok")), "{report:#}");
    }
    fails_at(&as_user(&[], None), "connect", &["signed", "--ca", "--insecure"]);
    let other = report(&lab, &["wss://127.0.0.1:8087/", "--ca", ca_name]);
    fails_at(&other, "connect", &["other names", "wsnic cert"]);
    fails_at(&report(&lab, &["wss://127.0.0.1:8086/"]), "connect", &["ws://"]);
    fails_at(&report(&lab, &["ws://127.0.0.1:8087/"]), "connect", &["wss://"]);
    wait_until("the test's guests have left", || lab.ports() == 0);
    server.stop();
    for file in [path, ca] {
        std::fs::remove_file(file).expect("a file of the test");
    }
    lab.finish();
}

#[test]
fn a_server_that_is_not_there_and_one_that_is_none_are_told() {
    let lab = Lab::new();
    fails_at(&report(&lab, &[WS]), "connect", &["nothing listens", "wsnic run", "ws_server_addr"]);
    fails_at(&report(&lab, &["ws://192.168.50.2:7000/"]), "connect", &["192.168.50.2:7000"]);
    for wrong in ["http://127.0.0.1:8086/", "127.0.0.1:8086", "ws://", "ws:// x"] {
        let (status, text) = run_wsnic(&lab.srv, &["check", "--live", wrong]);
        assert_eq!(status.code(), Some(2), "{wrong}: {text}");
        assert!(text.contains("ws://127.0.0.1:8086/"), "{wrong}: {text}");
    }
    lab.finish();
}

#[test]
fn who_is_not_let_in_is_told_how() {
    let lab = Lab::new();
    let file = lab.file("tokens");
    let (status, line) = run_wsnic(&lab.srv, &["token", "alice"]);
    assert!(status.success(), "{line}");
    let token = line.split("token=").nth(1).expect("a URL with the token");
    let token = token.split_whitespace().next().expect("a token").to_owned();
    let entry = line.lines().find(|line| line.trim().starts_with("alice")).expect("a line").trim();
    std::fs::write(&file, format!("{entry}\n")).expect("a file can be written");
    let conf = format!(
        "token_file = {}\nstrict_paths = yes\nallowed_origins = https://good.example\n",
        file.display()
    );
    let server = Server::start(&lab, &conf);
    fails_at(&report(&lab, &[WS]), "connect", &["403", "?token=", "--origin"]);
    for lost in [format!("{WS}nowhere?token={token}"), format!("{WS}{token}")] {
        let refused = report(&lab, &[&lost]);
        fails_at(&refused, "connect", &["404", "strict_paths"]);
        assert!(!refused.to_string().contains(&token), "the token stays secret: {refused:#}");
        assert_eq!(refused["url"], format!("{WS}…"));
    }
    let path = lab.file("wsnic.conf");
    let conf = path.to_str().expect("a path");
    let named = report(
        &lab,
        &[&format!("{WS}default/{token}"), "-c", conf, "--origin", "https://good.example"],
    );
    assert_eq!((&named["ok"], &named["url"]), (&true.into(), &format!("{WS}default/…").into()));
    let mistyped = format!("http://alice:{token}@127.0.0.1:8086/{token}?token={token}");
    let (status, text) = run_wsnic(&lab.srv, &["check", "--live", &mistyped]);
    assert!(status.code() == Some(2) && text.contains("http://127.0.0.1:8086/…"), "{text}");
    assert!(!text.contains(&token), "the token stays secret: {text}");
    let well = report(&lab, &[&format!("{WS}?token={token}"), "--origin", "https://good.example"]);
    assert_eq!(well["ok"], true, "{well:#}");
    wait_until("the test's guests have left", || lab.ports() == 0);
    server.stop();
    std::fs::remove_file(file).expect("a file of the test");
    lab.finish();
}

#[test]
fn a_full_server_is_told_and_the_sample_does_without_a_second_guest() {
    let lab = Lab::new();
    let server = Server::start(&lab, "max_clients = 1\n");
    let alone = report(&lab, &[WS]);
    assert_eq!(step(&alone, "throughput")["state"], "skipped", "{alone:#}");
    assert_eq!(alone["ok"], true, "{alone:#}");
    let guest = wsnic_tests::RawGuest::connect(&lab);
    fails_at(&report(&lab, &[WS]), "connect", &["503", "max_clients"]);
    drop(guest);
    finish(lab, server);
}

#[test]
fn no_dhcp_is_told() {
    let lab = Lab::new();
    let server = Server::start(&lab, "dhcp_service = disabled\n");
    let report = report(&lab, &[WS]);
    fails_at(&report, "dhcp", &["nobody answers DHCP", "dhcp_service"]);
    assert_eq!(states(&report), [("connect", "ok"), ("dhcp", "problem")]);
    finish(lab, server);
}

#[test]
fn a_gateway_that_lost_its_address_is_told() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    lab.srv.ip(&format!("address flush dev {BRIDGE}"));
    let report = report(&lab, &[WS]);
    fails_at(&report, "arp", &["192.168.86.1", "restart wsnic"]);
    finish(lab, server);
}

#[test]
fn names_that_are_not_resolved_are_told() {
    let lab = Lab::new();
    // Nobody is there.
    let server = Server::start(&lab, "inet_iface = wan0\ndhcp_nameserver = 93.184.215.77\n");
    let report = report(&lab, &[WS]);
    fails_at(&report, "dns", &["93.184.215.77", "dhcp_nameserver", "host_firewall"]);
    assert_eq!(step(&report, "throughput")["state"], "ok", "{report:#}");
    finish(lab, server);
}

#[test]
fn a_firewall_that_drops_large_packets_pings_or_what_guests_send_each_other_is_told() {
    let lab = Lab::new();
    let drop = |hook: &str, rule: &str| {
        let chain = format!("type filter hook {hook} priority 0;\n{rule}\n");
        lab.srv.nft(&format!("table bridge foreign {{\nchain foreign {{\n{chain}}}\n}}\n"));
    };
    let server = Server::start(&lab, "");
    drop("input", "ip protocol icmp ip length > 1000 drop");
    let small = report(&lab, &[WS]);
    fails_at(&small, "mtu", &["1500", "1000 bytes", "mtu=1000"]);
    lab.srv.run("nft delete table bridge foreign");

    drop("input", "ip protocol icmp drop");
    let silent = report(&lab, &[WS]);
    fails_at(&silent, "ping", &["192.168.86.1", "wsnic check", "host_firewall=open"]);
    assert_eq!(step(&silent, "mtu")["state"], "skipped", "{silent:#}");
    lab.srv.run("nft delete table bridge foreign");

    drop("forward", "ip protocol udp drop");
    let apart = report(&lab, &[WS]);
    fails_at(&apart, "throughput", &["ARP", "br_netfilter"]);
    lab.srv.run("nft delete table bridge foreign");
    wait_until("the test's guests have left", || lab.ports() == 0);
    server.stop();
    lab.finish();
}

#[test]
fn isolated_guests_and_a_rate_limit_are_no_fault() {
    let lab = Lab::new();
    let conf = "isolation = yes\n[network slow]\nsubnet = 192.168.87.0/24\n\
                rate_limit_up_bytes = 100000\n";
    let server = Server::start(&lab, conf);
    let apart = report(&lab, &[WS]);
    assert_eq!(step(&apart, "throughput")["state"], "skipped", "{apart:#}");
    let slow = report(&lab, &["ws://127.0.0.1:8086/slow"]);
    let rate = step(&slow, "throughput")["mbit_per_second"].as_f64().expect("a rate");
    // 0.8 Mbit/s, and a tenth of a second at once.
    assert!(rate < 2.0, "{slow:#}");
    assert!(apart["ok"] == true && slow["ok"] == true, "{apart:#}{slow:#}");
    finish(lab, server);
}
