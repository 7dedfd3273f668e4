//! A host whose own firewall drops forwarded packets (docs/old-faults.md, fault 9).

use std::process::Command;
use wsnic_tests::{Lab, NativeGuest, Server, address, run_wsnic};

const CONF: &str = "inet_iface = wan0\n";
const OPEN: &str = "inet_iface = wan0\nhost_firewall = open\n";

/// As Docker leaves it: the policy drops.
const DOCKER: &str = "table ip filter {
    chain DOCKER-USER { return; }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
        ct state established,related accept
    }
}";
/// As Debian's ufw leaves it, by its own chains.
const UFW: &str = "table ip filter {
    chain ufw-before-forward { ct state related,established accept; }
    chain ufw-reject-forward { }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        counter jump ufw-before-forward
        counter jump ufw-reject-forward
    }
}";
/// As administrators write it: the policy accepts, the last rule rejects.
const REJECT: &str = "table inet filter {
    chain forward { type filter hook forward priority 0; policy accept;
        ct state established,related accept
        reject with icmpx type admin-prohibited
    }
}";

fn reaches_web(lab: &Lab) -> bool {
    let guest = NativeGuest::join(lab);
    guest.hears(address::WEB, address::NAMED_PORT).is_some()
}

/// The log must name the firewall; the command that it gives, if this machine has the program,
/// must help.
fn is_named(ruleset: &str, helps: bool) {
    let mut lab = Lab::new();
    lab.srv.nft(ruleset);
    lab.settle();
    let server = Server::start(&lab, CONF);
    assert!(!reaches_web(&lab), "the firewall of this test does not work");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("drops guests' packets"));
    let line = line.unwrap_or_else(|| panic!("the log does not name the firewall:\n{log}"));
    let (_, command) = line.split_once("open it with: ").expect("a command that opens it");
    if helps {
        let output = lab.srv.output(Command::new("sh").args(["-c", command]));
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(reaches_web(&lab), "{command}\n{}", lab.srv.run("nft list ruleset"));
        server.stop();
        // The administrator's rules stay; that is not wsnic's doing.
        assert!(
            lab.difference().lines().all(|line| line.contains("firewall:")),
            "{}",
            lab.difference()
        );
    } else {
        server.stop();
        lab.finish();
    }
}

fn is_opened(ruleset: &str) {
    let mut lab = Lab::new();
    lab.srv.nft(ruleset);
    lab.settle();
    let server = Server::start(&lab, OPEN);
    assert!(reaches_web(&lab), "{}", lab.srv.run("nft list ruleset"));
    server.stop();
    lab.finish();
}

#[test]
fn dockers_drop_policy_is_named_in_the_log() {
    is_named(DOCKER, true);
}

#[test]
fn ufws_drop_policy_is_named_in_the_log() {
    is_named(UFW, false);
}

#[test]
fn an_earlier_reject_is_named_in_the_log() {
    is_named(REJECT, true);
}

#[test]
fn host_firewall_open_opens_dockers_drop_policy_and_closes_it_at_exit() {
    is_opened(DOCKER);
}

#[test]
fn host_firewall_open_opens_ufws_drop_policy_and_closes_it_at_exit() {
    is_opened(UFW);
}

#[test]
fn host_firewall_open_gets_in_front_of_a_reject_and_leaves_at_exit() {
    is_opened(REJECT);
}

#[test]
fn a_firewall_made_with_iptables_is_named_and_opened() {
    let mut lab = Lab::new();
    lab.srv.run("iptables -P FORWARD DROP");
    lab.settle();
    let server = Server::start(&lab, CONF);
    let log = server.stop();
    assert!(log.contains("drops guests' packets"), "{log}");
    let server = Server::start(&lab, OPEN);
    assert!(reaches_web(&lab), "{}", lab.srv.run("nft list ruleset"));
    server.stop();
    lab.finish();
}

#[test]
fn after_a_crash_with_an_opened_firewall_the_next_stop_closes_it() {
    let mut lab = Lab::new();
    lab.srv.nft(DOCKER);
    lab.settle();
    Server::start(&lab, OPEN).kill_all();
    let server = Server::start(&lab, OPEN);
    assert!(reaches_web(&lab));
    server.stop();
    lab.finish();
}

#[test]
fn a_firewall_that_comes_later_is_named_too_and_only_once() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    assert!(!server.log().contains("drops guests' packets"));
    lab.srv.nft(REJECT);
    server.wait_for_log("drops guests' packets");
    // Another change of the rules, and time to look at it.
    lab.srv.run("nft add table ip something");
    lab.srv.run("iptables -P FORWARD DROP");
    server.wait_for_log("(ip filter FORWARD) drops guests' packets");
    let log = server.stop();
    assert_eq!(log.matches("(inet filter forward) drops guests' packets").count(), 1, "{log}");
    lab.srv.run("nft flush ruleset");
    lab.finish();
}

#[test]
fn a_firewall_that_comes_later_is_opened_too() {
    let lab = Lab::new();
    let server = Server::start(&lab, OPEN);
    lab.srv.nft(REJECT);
    server.wait_for_log("opened inet filter forward for guests");
    assert!(reaches_web(&lab), "{}", lab.srv.run("nft list ruleset"));
    server.stop();
    assert!(!lab.srv.nft_lists("wsnic"), "{}", lab.srv.run("nft list ruleset"));
    lab.srv.run("nft flush ruleset");
    lab.finish();
}

#[test]
fn check_can_be_asked_for_the_host_firewall_alone() {
    let mut lab = Lab::new();
    lab.srv.nft(UFW);
    lab.settle();
    let check = |conf: &str| {
        let file = lab.file("wsnic.conf");
        std::fs::write(&file, conf).expect("a file in the lab's folder");
        let path = file.to_str().expect("a temporary folder's name is text");
        run_wsnic(&lab.srv, &["check", "--only-host-firewall", "-c", path])
    };
    let (status, text) = check(CONF);
    assert!(status.success(), "what it finds is no failure: {text}");
    assert!(text.contains("open it with: ufw route allow in on wsbr0"), "{text}");
    assert!(text.lines().all(|line| !line.starts_with("ok")), "nothing else is looked at: {text}");
    let (status, text) = check(OPEN);
    assert!(status.success() && text.contains("wsnic opens it, as configured"), "{text}");
    let (status, text) = check("inet_iface = a/b\n");
    assert!(!status.success() && text.contains("a/b"), "{text}");
    lab.finish();
}

#[test]
fn an_open_host_is_not_complained_about() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    let log = server.stop();
    assert!(!log.contains("firewall"), "{log}");
    lab.finish();
}
