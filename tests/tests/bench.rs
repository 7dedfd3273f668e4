//! The benchmark works; its figures are for people.

use std::process::Command;
use wsnic_tests::wsnic;

#[test]
fn a_quick_benchmark_measures_everything() {
    let programs = wsnic();
    let output = Command::new(env!("CARGO_BIN_EXE_wsnic-bench"))
        .arg("--quick")
        .env("WSNIC_BIN_DIR", programs.parent().expect("programs lie in a folder"))
        .output()
        .expect("the benchmark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for what in [
        "ready",
        "OFFER",
        "helper, resident",
        "front-end, resident",
        "WebSockets opened",
        "sandbox=require",
    ] {
        assert!(text.contains(what), "no line on {what:?} in:\n{text}");
    }
}
