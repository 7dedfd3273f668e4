//! The firewall in the real kernel. Each test has its own network namespaces, which end with their
//! threads; all tests need root and fail without it.

mod attacks;
mod elements;
#[path = "../../../tests/src/frames.rs"]
#[allow(dead_code)]
mod frames;
mod isolation;
mod lan;
mod locks;
mod open;
mod rooms;
mod tables;
mod traffic;
mod world;

use super::*;
use std::net::Ipv4Addr;
use std::time::Duration;
use world::Netns;
use wsnic_proto::settings::{GuestAccess, InterfaceName};
use wsnic_proto::{MacAddr, Plan};

/// One network, see [`network`].
fn policy(access: GuestAccess) -> Policy {
    only(network(access))
}

fn only(network: NetworkPolicy) -> Policy {
    Policy { networks: vec![network], closed: vec![], host_firewall: HostFirewall::Report }
}

/// wsbr0 with the default subnet, the Internet by up0, DNS at 8.8.8.8.
fn network(access: GuestAccess) -> NetworkPolicy {
    NetworkPolicy {
        bridge: Bridge::One(InterfaceName::new("wsbr0").unwrap()),
        plan: Plan::new("192.168.86.0/24".parse().unwrap()).unwrap(),
        uplinks: vec![InterfaceName::new("up0").unwrap()],
        access,
        allow: vec![],
        deny: vec![],
        nameservers: vec![],
        resolver: Some(Ipv4Addr::new(8, 8, 8, 8)),
        dhcp_on_host: false,
        dns_on_host: false,
        isolation: false,
        locks: false,
        allow_vlan: false,
        max_multicast: 0,
    }
}

/// Ends the firewall as a killed process would, and waits until the kernel has seen it.
///
/// The kernel gives tables up in the moment when the last copy of their socket closes. A child that
/// another test forks meanwhile holds a copy until its exec has closed it; the helper forks nobody.
fn die(netns: &Netns, firewall: Firewall) {
    drop(firewall);
    netns.run(|| {
        let mut nf = Netfilter::open().unwrap();
        let mut owned = || own_tables(&mut nf).unwrap().iter().any(|info| info.owner.is_some());
        for _ in 0..5000 {
            if !owned() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the tables still have an owner");
    });
}
