//! RFC 6455 as the Autobahn testsuite has it, by ws and by wss. docs/conformance.md says how, and
//! which cases a server of binary Ethernet frames has no part in.

use wsnic_tests::{Identity, Lab, Server, autobahn};

/// Large frames are for the cases with messages of 65,536 bytes.
const CONF: &str = "mtu = 65521\n";
/// Cases that cannot be: their messages are larger than any Ethernet frame, or text for its own sake.
const WITHOUT: [&str; 11] = [
    "6.*", "9.1.2", "9.1.3", "9.1.4", "9.1.5", "9.1.6", "9.2.2", "9.2.3", "9.2.4", "9.2.5", "9.2.6",
];

/// Set by `make conformance`: all cases in place of some.
const ALL: &str = "WSNIC_CONFORMANCE";
/// At least one of each chapter: framing of each length, pings, reserved bits, opcodes, fragments, closes.
const SOME: [&str; 23] = [
    "1.1.1", "1.1.5", "1.2.8", "2.5", "2.10", "3.3", "3.7", "4.1.1", "4.1.3", "4.2.3", "5.1",
    "5.4", "5.9", "5.18", "5.19", "7.1.1", "7.1.3", "7.3.2", "7.5.1", "7.7.4", "7.9.4", "7.13.1",
    "10.1.1",
];
const EVERY: [&str; 11] =
    ["1.*", "2.*", "3.*", "4.*", "5.*", "7.*", "9.1.*", "9.2.*", "9.7.*", "9.8.*", "10.*"];

#[test]
fn cases_of_autobahn_pass_by_ws_and_wss() {
    match std::env::var_os(ALL) {
        None => pass(&SOME, SOME.len()),
        Some(_) => pass(&EVERY, 116),
    }
}

/// Plays the cases in both ways; `least` of them at least.
fn pass(cases: &[&str], least: usize) {
    let lab = Lab::new();
    let (identity, path) = (Identity::self_signed(&["localhost"]), lab.file("server.pem"));
    identity.write(&path);
    let server = Server::start(&lab, &format!("{CONF}wss_server_cert = {}\n", path.display()));
    for url in ["ws://127.0.0.1:8086/", "wss://127.0.0.1:8087/"] {
        let outcomes = autobahn::play(&lab, url, cases, &WITHOUT);
        assert!(outcomes.len() >= least, "{} cases of {least}", outcomes.len());
        let count = |word| outcomes.values().filter(|outcome| outcome.behavior == word).count();
        println!(
            "{url}: {} cases, {} OK, {} NON-STRICT, {} INFORMATIONAL",
            outcomes.len(),
            count("OK"),
            count("NON-STRICT"),
            count("INFORMATIONAL")
        );
        for (case, outcome) in outcomes.iter().filter(|(_, outcome)| outcome.behavior != "OK") {
            println!("  {case}: {outcome:?}");
        }
        let bad: Vec<_> = outcomes.iter().filter(|(_, outcome)| !outcome.is_good()).collect();
        assert!(bad.is_empty(), "{url}: {bad:?}");
    }
    server.stop();
    std::fs::remove_file(path).expect("a file of the test");
    lab.finish();
}
