//! Firewalls of the host: detected, named with their remedy, opened and left as they were.

use super::super::host::Kind;
use super::super::{Firewall, Note, Obstacle};
use super::world::World;
use super::*;

const WAN: &str = "93.184.216.1";

const DOCKER: &str = "
    iptables-nft -P FORWARD DROP
    for chain in DOCKER-USER DOCKER-FORWARD DOCKER-CT DOCKER DOCKER-BRIDGE; do
        iptables-nft -N $chain
    done
    iptables-nft -A FORWARD -j DOCKER-USER
    iptables-nft -A FORWARD -j DOCKER-FORWARD
    iptables-nft -A DOCKER-FORWARD -j DOCKER-CT
    iptables-nft -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables-nft -A DOCKER-FORWARD -j DOCKER-BRIDGE
    iptables-nft -A DOCKER-BRIDGE -o docker0 -j DOCKER
    iptables-nft -A DOCKER ! -i docker0 -o docker0 -j DROP
    iptables-nft -A DOCKER-FORWARD -i docker0 -j ACCEPT";

const UFW: &str = "
    iptables-nft -P FORWARD DROP
    for chain in ufw-before-forward ufw-user-forward ufw-reject-forward; do
        iptables-nft -N $chain
    done
    iptables-nft -A FORWARD -j ufw-before-forward
    iptables-nft -A FORWARD -j ufw-reject-forward
    iptables-nft -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables-nft -A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
    iptables-nft -A ufw-before-forward -p icmp --icmp-type 8 -j ACCEPT
    iptables-nft -A ufw-before-forward -j ufw-user-forward";

const FIREWALLD: &str = "nft -f - <<'END'
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname \"up0\" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_FWD_public { jump filter_FWD_public_allow; }
    chain filter_FWD_public_allow { oifname \"nothing0\" accept; }
}
END";

const OTHER: &str = "nft -f - <<'END'
table inet mine {
    chain mine_forward {
        type filter hook forward priority 0; policy accept;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname \"lan0\" drop
        ip daddr 10.0.0.0/8 drop
        iifname != \"lan0\" counter log prefix \"no \" drop
    }
}
END";

/// Installs over the ruleset that `script` makes.
fn install(world: &World, script: &str, host_firewall: HostFirewall) -> (Firewall, Vec<Note>) {
    world.host.sh(script);
    let policy = Policy { host_firewall, ..policy(GuestAccess::Internet) };
    world.host.run(move || Firewall::install(&policy).unwrap())
}

fn obstacle(notes: &[Note]) -> &Obstacle {
    match notes {
        [Note::Obstacle(obstacle)] => obstacle,
        notes => panic!("{notes:?}"),
    }
}

/// Reported as `kind` with `remedy`; opened by it; opened and closed without it.
fn check(script: &str, chain: (&str, &str, &str), kind: Kind, remedy: &str, apply: &str) {
    let world = World::new();
    let (firewall, notes) = install(&world, script, HostFirewall::Report);
    let found = obstacle(&notes);
    assert_eq!((found.family, found.table.as_str(), found.chain.as_str()), chain);
    assert_eq!((found.kind, found.owned_by_other), (kind, false));
    assert_eq!(found.remedy, remedy);
    assert_ne!(world.guest.tcp("8.8.4.4:80"), WAN, "it is in the way");
    assert!(firewall.teardown().is_empty());

    // Opened by ourselves, and closed again.
    let before = world.host.sh("nft -s list ruleset; iptables-nft-save | sed '/^#/d'");
    let (mut firewall, notes) = install(&world, "", HostFirewall::Open);
    assert!(matches!(&notes[..], [Note::Opened(found)] if found.kind == kind), "{notes:?}");
    assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
    assert_eq!(world.guest.tcp("10.9.9.9:80"), "refused", "the guard still holds");
    let ruleset = world.host.sh("nft list ruleset");
    assert_eq!(ruleset.matches("comment \"wsnic wsbr0\"").count(), 2, "{ruleset}");
    assert!(firewall.verify().unwrap().is_empty());
    assert!(firewall.teardown().is_empty());
    let after = world.host.sh("nft -s list ruleset; iptables-nft-save | sed '/^#/d'");
    assert_eq!(after, before);

    // A killed run's rules are found.
    let (firewall, _) = install(&world, "", HostFirewall::Open);
    die(&world.host, firewall);
    let (firewall, notes) = install(&world, "", HostFirewall::Report);
    assert!(matches!(&notes[..], [Note::LeftoversReplaced { count: 3 }, Note::Obstacle(_)]));
    assert!(firewall.teardown().is_empty());
    let after = world.host.sh("nft -s list ruleset; iptables-nft-save | sed '/^#/d'");
    assert_eq!(after, before);

    // Opened by the remedy.
    world.host.sh(apply);
    let (_firewall, notes) = install(&world, "", HostFirewall::Report);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
}

#[test]
fn docker_is_detected_and_opened() {
    let remedy = "iptables -I DOCKER-USER -i wsbr0 -j ACCEPT && \
                  iptables -I DOCKER-USER -o wsbr0 -j ACCEPT";
    let apply = remedy.replace("iptables", "iptables-nft");
    check(DOCKER, ("ip", "filter", "FORWARD"), Kind::Docker, remedy, &apply);
}

#[test]
fn ufw_is_detected_and_opened() {
    let remedy = "ufw route allow in on wsbr0";
    // What that command does.
    let apply = "iptables-nft -A ufw-user-forward -i wsbr0 -j ACCEPT";
    check(UFW, ("ip", "filter", "FORWARD"), Kind::Ufw, remedy, apply);
}

#[test]
fn firewalld_is_detected_and_opened() {
    let remedy = "firewall-cmd --zone=trusted --add-interface=wsbr0";
    // What that command does.
    let apply = "nft add chain inet firewalld filter_FWD_trusted { accept\\; }
        nft insert rule inet firewalld filter_FORWARD_ZONES iifname wsbr0 goto filter_FWD_trusted";
    let chain = ("inet", "firewalld", "filter_FORWARD");
    check(FIREWALLD, chain, Kind::Firewalld, remedy, apply);
}

#[test]
fn another_firewall_is_detected_and_opened() {
    let remedy = "nft insert rule inet mine mine_forward iifname wsbr0 accept && \
                  nft insert rule inet mine mine_forward oifname wsbr0 accept";
    check(OTHER, ("inet", "mine", "mine_forward"), Kind::Other, remedy, remedy);
}

#[test]
fn an_iptables_reject_is_detected_and_opened() {
    let script = "iptables-nft -A FORWARD -i lan0 -j ACCEPT
        iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited";
    let remedy = "iptables -I FORWARD -i wsbr0 -j ACCEPT && iptables -I FORWARD -o wsbr0 -j ACCEPT";
    let apply = remedy.replace("iptables", "iptables-nft");
    check(script, ("ip", "filter", "FORWARD"), Kind::Other, remedy, &apply);
}

#[test]
fn a_set_of_states_lets_answers_through() {
    let world = World::new();
    let vmap = OTHER.replace("iifname != \"lan0\"", "iifname != \"wsbr0\"");
    for script in [FIREWALLD.replace("goto filter_FWD_public\n    }", "accept\n    }"), vmap] {
        let (firewall, notes) = install(&world, &script, HostFirewall::Report);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
        assert!(firewall.teardown().is_empty());
        world.host.sh("nft flush ruleset");
    }
}

#[test]
fn iptables_understands_the_rules_that_open_it() {
    let world = World::new();
    let (_firewall, _) = install(&world, DOCKER, HostFirewall::Open);
    let listed = world.host.sh("iptables-nft -S FORWARD");
    println!("{listed}");
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "-P FORWARD DROP");
    assert!(lines[1].starts_with("-A FORWARD -i wsbr0 ") && lines[1].ends_with("-j ACCEPT"));
    assert!(lines[2].starts_with("-A FORWARD -o wsbr0 ") && lines[2].ends_with("-j ACCEPT"));
    world.host.sh("iptables-nft -L -v -n; iptables-nft-save | iptables-nft-restore --test");
}

#[test]
fn harmless_rulesets_are_not_reported() {
    let world = World::new();
    let script = "
        iptables-nft -A FORWARD -i lan0 -j DROP
        iptables-nft -A FORWARD -d 10.0.0.0/8 -j REJECT
        iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP
        nft add table inet t
        nft 'add chain inet t input { type filter hook input priority 0; policy drop; }'
        nft add table ip6 t
        nft 'add chain ip6 t f { type filter hook forward priority 0; policy drop; }'
        nft add chain inet t unused
        nft add rule inet t unused drop";
    let (_firewall, notes) = install(&world, script, HostFirewall::Report);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);
}

#[test]
fn a_firewall_that_comes_back_is_opened_again_and_told_once() {
    let world = World::new();
    let (mut firewall, _) = install(&world, DOCKER, HostFirewall::Open);
    assert!(firewall.verify().unwrap().is_empty());
    world.host.sh("iptables-nft -F FORWARD");
    let notes = firewall.verify().unwrap();
    assert!(matches!(notes[..], [Note::Opened(_)]), "{notes:?}");
    assert_eq!(world.guest.tcp("8.8.4.4:80"), WAN);

    firewall.update(&policy(GuestAccess::Internet)).unwrap();
    world.host.sh("nft add table ip something");
    assert!(firewall.verify().unwrap().is_empty());
    assert_ne!(world.guest.tcp("8.8.4.4:80"), WAN);
}

#[test]
fn a_table_with_another_owner_is_said_to_be_so() {
    let world = World::new();
    let mut other = world.host.run(|| nft::Netfilter::open().unwrap());
    let table = nft::Table::new(nft::Family::Inet, "firewalld");
    let mut batch = nft::Batch::default();
    batch.new_table(&table, nft::TableFlags::Owner);
    batch.base_chain(&table, "f", "filter", nft::HookPoint::Forward, 0);
    batch.rule(&table, "f", rule::Rule::new().drop());
    other.commit(batch).unwrap();
    let (_firewall, notes) = install(&world, "", HostFirewall::Open);
    match &notes[..] {
        [Note::NotOpened(obstacle, error)] => {
            assert!(obstacle.owned_by_other);
            assert_eq!(error.errno(), Some(1));
            assert!(notes[0].to_string().contains("firewall-cmd --zone=trusted"), "{}", notes[0]);
        }
        notes => panic!("{notes:?}"),
    }
}
