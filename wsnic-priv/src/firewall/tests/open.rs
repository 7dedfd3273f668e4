//! `host_firewall = open`: others' chains are opened whatever they say, and left as they were.

use super::super::{Firewall, Note};
use super::world::{Netns, World};
use super::*;
use wsnic_nft::{Family, HookPoint, Rule, Table};

const WAN: &str = "93.184.216.1";

const IPTABLES: &str = "
    iptables-nft -P FORWARD DROP
    iptables-nft -N DOCKER-USER
    iptables-nft -A FORWARD -j DOCKER-USER
    iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";

const NFT: &str = "nft -f - <<'END'
table inet mine {
    chain mine_forward {
        type filter hook forward priority filter + 10; policy accept;
        ct state vmap { established : accept, related : accept, invalid : drop }
        jump others
        reject with icmpx admin-prohibited
    }
    chain others { iifname \"lan0\" drop; }
}
table ip second {
    chain early { type filter hook forward priority -200; policy drop; }
}
END";

/// Chains that guests' packets do not pass, or that decide nothing.
const UNCONCERNED: &str = "nft -f - <<'END'
table inet t {
    chain input { type filter hook input priority 0; policy drop; }
    chain unused { drop; }
}
table ip6 t {
    chain forward { type filter hook forward priority 0; policy drop; }
}
table ip t {
    chain translate { type nat hook postrouting priority 100; }
}
END";

/// Installs over the ruleset that `script` makes.
fn install(world: &World, script: &str, host_firewall: HostFirewall) -> (Firewall, Vec<Note>) {
    world.host.sh(script);
    let policy = Policy { host_firewall, ..policy(GuestAccess::Internet) };
    world.host.run(move || Firewall::install(&policy).unwrap())
}

fn ruleset(netns: &Netns) -> String {
    netns.sh("nft -s list ruleset; iptables-nft-save | sed '/^#/d; s/\\[.*\\]//'")
}

fn our_rules(world: &World) -> usize {
    world.host.sh("nft list ruleset").matches("comment \"wsnic\"").count()
}

/// Opened and closed again; a killed run's rules are found.
fn check(script: &str, chains: usize) {
    let world = World::new();
    world.host.sh(script);
    let before = ruleset(&world.host);
    let (mut firewall, notes) = install(&world, "", HostFirewall::Report);
    assert!(notes.is_empty(), "{notes:?}");
    assert_ne!(world.guest.tcp("8.8.4.4:80"), WAN, "it is in the way");
    assert!(firewall.teardown().is_empty());

    let (mut firewall, notes) = install(&world, "", HostFirewall::Open);
    assert_eq!(notes.len(), chains, "{notes:?}");
    assert!(notes.iter().all(|note| matches!(note, Note::Opened(_))), "{notes:?}");
    assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
    assert_eq!(world.guest.tcp("10.9.9.9:80"), "refused", "the guard still holds");
    assert_eq!(our_rules(&world), 2 * chains);
    assert!(firewall.verify().unwrap().is_empty());
    assert_eq!(our_rules(&world), 2 * chains, "only where they are missing");
    assert!(firewall.teardown().is_empty());
    assert_eq!(ruleset(&world.host), before);

    let (firewall, _) = install(&world, "", HostFirewall::Open);
    die(&world.host, firewall);
    let (mut firewall, notes) = install(&world, "", HostFirewall::Report);
    let left = 2 * chains + 1;
    assert!(matches!(notes[..], [Note::LeftoversReplaced(count)] if count == left), "{notes:?}");
    assert!(firewall.teardown().is_empty());
    assert_eq!(ruleset(&world.host), before);
}

#[test]
fn a_chain_of_iptables_is_opened_and_closed() {
    check(IPTABLES, 1);
}

#[test]
fn every_chain_that_guests_packets_pass_is_opened_and_closed() {
    check(NFT, 2);
}

#[test]
fn other_chains_are_left_alone() {
    let world = World::new();
    let (_firewall, notes) = install(&world, UNCONCERNED, HostFirewall::Open);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(our_rules(&world), 0);
}

#[test]
fn iptables_understands_the_rules_that_open_it() {
    let world = World::new();
    let (_firewall, _) = install(&world, IPTABLES, HostFirewall::Open);
    let listed = world.host.sh("iptables-nft -S FORWARD");
    println!("{listed}");
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "-P FORWARD DROP");
    assert!(lines[1].starts_with("-A FORWARD -i wsbr+ ") && lines[1].ends_with("-j ACCEPT"));
    assert!(lines[2].starts_with("-A FORWARD -o wsbr+ ") && lines[2].ends_with("-j ACCEPT"));
    world.host.sh("iptables-nft -L -v -n; iptables-nft-save | iptables-nft-restore --test");
}

#[test]
fn a_firewall_that_comes_back_is_opened_again() {
    let world = World::new();
    let (mut firewall, _) = install(&world, IPTABLES, HostFirewall::Open);
    for removal in ["iptables-nft -F FORWARD", "iptables-nft -D FORWARD 1"] {
        world.host.sh(removal);
        let notes = firewall.verify().unwrap();
        assert!(matches!(notes[..], [Note::Opened(_)]), "{notes:?}");
        assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
        assert_eq!(our_rules(&world), 2);
    }
}

#[test]
fn a_table_with_another_owner_stays_closed_and_is_named_once() {
    let world = World::new();
    let mut other = world.host.run(|| Netfilter::open().unwrap());
    let table = Table::new(Family::INET, "firewalld");
    let mut batch = Batch::default();
    batch.new_table(&table, TableFlags::OWNER);
    batch.base_chain(&table, "f", "filter", HookPoint::Forward, 0);
    batch.rule(&table, "f", Rule::new().drop());
    other.commit(batch).unwrap();
    let (mut firewall, notes) = install(&world, IPTABLES, HostFirewall::Open);
    match &notes[..] {
        [refused @ Note::NotOpened(chain, error), Note::Opened(_)] => {
            assert_eq!((chain.as_str(), error.errno()), ("inet firewalld f", Some(1)));
            assert!(refused.to_string().contains("inet firewalld f"), "{refused}");
        }
        notes => panic!("{notes:?}"),
    }
    world.host.sh("nft add table ip something");
    assert!(firewall.verify().unwrap().is_empty());
}
