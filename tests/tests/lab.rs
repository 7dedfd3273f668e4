//! The test world itself, without wsnic: what the other tests take for granted.

use std::net::IpAddr;
use std::process::Command;
use wsnic_tests::{Lab, address};

#[test]
fn an_untouched_lab_is_as_it_was() {
    Lab::new().finish();
}

#[test]
fn the_server_reaches_internet_neighbour_and_names() {
    let lab = Lab::new();
    for address in [IpAddr::from(address::WEB), address::METADATA.into(), address::NEIGHBOUR.into()]
    {
        lab.srv.run(&format!("ping -n -c 1 -W 5 {address}"));
    }
    for address in [IpAddr::from(address::WEB6), address::NEIGHBOUR6.into()] {
        lab.srv.run(&format!("ping -n -c 1 -W 5 {address}"));
    }
    let shown =
        lab.srv.output(Command::new("busybox").args(["nslookup", "-type=a", "www.example.com"]));
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains(&address::WEB.to_string()),
        "{shown:?}"
    );
    lab.finish();
}

#[test]
fn what_is_left_behind_is_named() {
    let lab = Lab::new();
    lab.srv.ip("link add left0 type bridge");
    lab.srv.nft("table ip left { chain c { type filter hook input priority 0; }; }");
    lab.srv.set_sysctl("net/ipv4/ip_forward", "1");
    std::fs::write(lab.file("left.txt"), "").expect("a file");
    let difference = lab.difference();
    for named in ["left0", "table ip left", "ip_forward", "left.txt"] {
        assert!(difference.contains(named), "{named} in:\n{difference}");
    }
}
