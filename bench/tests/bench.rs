//! The benchmark works, in each of its sections; its figures are for people.

use std::process::Command;
use wsnic_tests::wsnic;

/// What its lines are about, section by section.
const SECTIONS: [(&str, &[&str]); 14] = [
    (
        "tcp",
        &[
            "TCP from guest",
            "TCP to guest",
            "TCP from guest with offloads",
            "TCP from guest with offloads, server's CPU",
            "TCP to guest with offloads",
            "TCP to guest with offloads, server's CPU",
        ],
    ),
    ("small", &["64-byte UDP frames from guest", "64-byte UDP frames to guest"]),
    (
        "latency",
        // Where there is more than one core, there are rows for two as well.
        &[
            "round trip of a small frame, one core, median",
            "the same, 99th percentile",
            "the same, the first after the others' turns, median",
        ],
    ),
    ("memory", &["front-end's memory per idle client", "helper's memory per idle client"]),
    (
        "sessions",
        &[
            "GET /sessions, 6 sessions, median",
            "the same, 99th percentile",
            "the command wsnic sessions, 6 sessions, median",
            "round trip of a guest, asked 10 times/s, median",
        ],
    ),
    ("storm", &["200 connects/s, all stay, 99th", "200 connects/s, come and go, refused"]),
    ("idle", &["TCP from guest, 5 idle others", "TCP to guest, 5 idle others"]),
    (
        "fairness",
        &[
            "TCP from each of 2 guests, a third floods",
            "TCP to each of 2 guests, a third floods",
            "TCP from each of 2 guests, a third does not read",
            "TCP to each of 2 guests, a third does not read",
            "round trip of a fourth meanwhile",
        ],
    ),
    ("start", &["start of wsnic to ready"]),
    (
        "arrival",
        &[
            "helper's memory without clients",
            "front-end's memory without clients",
            "connect to the first DHCP OFFER",
            "WebSockets opened",
        ],
    ),
    ("sandbox", &["front-end's CPU, guest to guest, sandbox=require"]),
    (
        "locks",
        &[
            "TCP from guest with locks, server's CPU",
            "TCP to guest with locks, server's CPU",
            "64-byte UDP frames from guest with locks, CPU",
            "64-byte UDP frames to guest with locks, CPU",
        ],
    ),
    (
        "tls",
        &[
            "TCP from guest by wss",
            "TCP from guest by wss, server's CPU",
            "TCP to guest by wss",
            "TCP to guest by wss, server's CPU",
        ],
    ),
    (
        "door",
        &[
            "a handshake with a wrong token, server's CPU",
            "the same by wss, server's CPU",
            "TCP from guest during refusals",
            "TCP to guest during refusals",
            "one beyond handshake_rate, server's CPU",
        ],
    ),
];

#[test]
fn a_quick_benchmark_of_speed_measures_everything() {
    check(&["tcp", "small", "latency"]);
}

#[test]
fn a_quick_benchmark_of_many_guests_measures_everything() {
    check(&["memory", "sessions", "storm", "idle", "fairness"]);
}

#[test]
fn a_quick_benchmark_of_starts_and_arrivals_measures_everything() {
    check(&["start", "arrival", "sandbox", "locks"]);
}

#[test]
fn a_quick_benchmark_of_the_door_measures_everything() {
    check(&["tls", "door"]);
}

#[test]
fn every_section_is_checked() {
    let help = Command::new(env!("CARGO_BIN_EXE_wsnic-bench")).arg("--help").output();
    let help = String::from_utf8(help.expect("the benchmark runs").stdout).expect("text");
    let names = SECTIONS.map(|(name, _)| name).join(", ");
    assert!(help.contains(&format!("[possible values: {names}]")), "{help}");
}

fn check(only: &[&str]) {
    let programs = wsnic();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let json = dir.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_wsnic-bench"))
        .args(["--quick", "--only", &only.join(","), "--json"])
        .arg(&json)
        .env("WSNIC_BIN_DIR", programs.parent().expect("programs lie in a folder"))
        .env_remove("WSNIC_PYTHON")
        .output()
        .expect("the benchmark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json = std::fs::read_to_string(json).expect("figures were written");
    let figures: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let rows = figures["rows"].as_array().expect("rows");
    for (_, lines) in SECTIONS.iter().filter(|(name, _)| only.contains(name)) {
        for what in *lines {
            assert!(text.contains(&format!("| {what}")), "no line on {what:?} in:\n{text}");
            let row =
                rows.iter().find(|row| row["what"].as_str().is_some_and(|it| it.starts_with(what)));
            let row = row.unwrap_or_else(|| panic!("nothing on {what:?} in {json}"));
            assert!(row["wsnic"].is_number() && row["unit"].is_string(), "{row}");
            assert!(row["ratios"].is_object(), "{row}");
        }
    }
    for fact in ["processor", "cores", "kernel"] {
        assert!(figures[fact].is_string(), "{json}");
    }
    if only.contains(&"tcp") {
        assert_eq!(rows[0]["Python"], "skipped", "there is no checkout");
        assert!(text.contains("skipped"), "{text}");
    }
}
