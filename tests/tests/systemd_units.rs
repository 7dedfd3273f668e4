//! systemd's units as files: nothing in them is unknown to systemd, and they give little away.

use std::path::Path;
use std::process::{Command, Output};
use wsnic_tests::{install, printed};

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let output = analyze(
        &["verify", "--man=no", "--recursive-errors=no"],
        &[
            "wsnic.service",
            "wsnic-front.socket",
            "wsnic-front-wss.socket",
            "wsnic-front-admin.socket",
            "wsnic-front-metrics.socket",
            "wsnic-front.service",
            "wsnic-priv.socket",
            "wsnic-priv.service",
            "wsnic-dnsmasq@default.service",
        ],
    );
    // It may have something to say about other units of this machine.
    let text = printed(&output);
    let about_us: Vec<&str> = text.lines().filter(|line| line.contains("wsnic")).collect();
    assert!(output.status.success() && about_us.is_empty(), "{text}");
}

#[test]
fn the_helper_is_exposed_by_at_most_1_5() {
    exposed_by_at_most(15, "wsnic-priv.service");
}

/// It is root for a moment, which counts for 0.4, and has four capabilities then.
#[test]
fn dnsmasq_is_exposed_by_at_most_2_5() {
    exposed_by_at_most(25, "wsnic-dnsmasq@default.service");
}

#[test]
fn the_front_end_is_exposed_by_at_most_0_5() {
    exposed_by_at_most(5, "wsnic-front.service");
}

#[test]
fn the_front_end_does_not_end_with_the_helper() {
    let unit = read("wsnic-front.service");
    for name in ["Requires", "Requisite", "BindsTo", "PartOf", "PropagatesStopTo"] {
        for value in values(&unit, name) {
            assert!(!value.contains("wsnic-priv"), "{name}={value}");
        }
    }
}

#[test]
fn no_number_of_failures_makes_a_service_give_up() {
    for name in ["wsnic-front.service", "wsnic-priv.service", "wsnic-dnsmasq@.service"] {
        let unit = read(name);
        assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"], "{name}");
        assert_eq!(values(&unit, "Restart"), ["always"], "{name}");
        let pause: u32 = values(&unit, "RestartSec")[0].parse().expect("seconds");
        assert!(pause >= 1, "{name} would be started again in a tight loop");
    }
}

#[test]
fn the_sockets_have_the_names_that_the_front_end_knows() {
    assert_eq!(values(&read("wsnic-front.socket"), "FileDescriptorName"), ["ws"]);
    assert_eq!(values(&read("wsnic-front-wss.socket"), "FileDescriptorName"), ["wss"]);
    assert_eq!(values(&read("wsnic-front-wss.socket"), "Service"), ["wsnic-front.service"]);
    let admin = read("wsnic-front-admin.socket");
    assert_eq!(values(&admin, "FileDescriptorName"), ["admin"]);
    assert_eq!(values(&admin, "Service"), ["wsnic-front.service"]);
    assert_eq!(values(&admin, "SocketMode"), ["0600"], "orders are root's");
    let metrics = read("wsnic-front-metrics.socket");
    assert_eq!(values(&metrics, "FileDescriptorName"), ["metrics"]);
    assert_eq!(values(&metrics, "Service"), ["wsnic-front.service"]);
}

/// The scale of --threshold is ten times that of the report.
fn exposed_by_at_most(threshold: u32, unit: &str) {
    let threshold = format!("--threshold={threshold}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold], &[unit]);
    assert!(output.status.success(), "{}", printed(&output));
}

/// systemd-analyze(1) on units of this tree, where their programs are installed.
fn analyze(arguments: &[&str], units: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary folder");
    install(dir.path());
    let usr = dir.path().join("usr");
    let units = units.iter().map(|unit| Path::new("/usr/lib/systemd/system").join(unit));
    Command::new("unshare")
        .args(["--mount", "sh", "-euc", INSTALLED, "analyze"])
        .arg(usr)
        .args(arguments)
        .args(units)
        .output()
        .expect("unshare runs")
}

const INSTALLED: &str = r#"
    mount -t overlay -o "ro,lowerdir=$1:/usr" overlay /usr
    shift
    exec systemd-analyze "$@"
"#;

fn read(unit: &str) -> String {
    let path = wsnic_tests::source_dir().join("../systemd").join(unit);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn values<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}
