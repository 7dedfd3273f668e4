//! Firewalls as they are found: recognised, named with the command that opens them, and seen open
//! once that command has run.

use super::*;
use std::process::Command;
use wsnic_nft::{Batch, Rule, TableFlags};
use wsnic_tests::Netns;

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

fn sh(host: &Netns, script: &str) {
    let output = host.output(Command::new("sh").arg("-c").arg(format!("set -e; {script}")));
    assert!(output.status.success(), "{script}: {output:?}");
}

fn uplink() -> [Way; 1] {
    let uplinks = vec![InterfaceName::new("up0").unwrap()];
    [Way { bridge: "wsbr0".to_owned(), prefix: None, uplinks }]
}

#[test]
fn remedies_for_rooms_name_the_bridges_of_all_of_them() {
    let way =
        Way { bridge: "wsbr1r0".to_owned(), prefix: Some("wsbr1r".to_owned()), uplinks: vec![] };
    assert_eq!((way.plus(), way.star()), ("wsbr1r+".to_owned(), "'\"wsbr1r*\"'".to_owned()));
}

fn found(host: &Netns) -> Vec<Obstacle> {
    host.enter(|| survey(&mut Netfilter::open().unwrap(), &uplink()).unwrap())
}

/// Recognised as `kind` with `remedy`, and no longer when `apply` has done what that does.
fn check(script: &str, chain: &str, kind: Kind, remedy: &str, apply: &str) {
    let host = Netns::new();
    sh(&host, script);
    let obstacles = found(&host);
    let [obstacle] = &obstacles[..] else { panic!("{obstacles:?}") };
    assert_eq!(format!("{} {}", obstacle.table, obstacle.chain), chain);
    assert_eq!((obstacle.kind, obstacle.owned_by_other), (kind, false));
    assert_eq!(obstacle.remedy, remedy);
    sh(&host, apply);
    assert_eq!(found(&host), []);
}

#[test]
fn docker_is_detected_and_its_remedy_helps() {
    let remedy = "iptables -I DOCKER-USER -i wsbr0 -j ACCEPT && \
                  iptables -I DOCKER-USER -o wsbr0 -j ACCEPT";
    let apply = remedy.replace("iptables", "iptables-nft");
    check(DOCKER, "ip filter FORWARD", Kind::Docker, remedy, &apply);
}

#[test]
fn ufw_is_detected_and_its_remedy_helps() {
    let remedy = "ufw route allow in on wsbr0";
    // What that command does.
    let apply = "iptables-nft -A ufw-user-forward -i wsbr0 -j ACCEPT";
    check(UFW, "ip filter FORWARD", Kind::Ufw, remedy, apply);
}

#[test]
fn firewalld_is_detected_and_its_remedy_helps() {
    let remedy = "firewall-cmd --zone=trusted --add-interface=wsbr0";
    // What that command does.
    let apply = "nft add chain inet firewalld filter_FWD_trusted { accept\\; }
        nft insert rule inet firewalld filter_FORWARD_ZONES iifname wsbr0 goto filter_FWD_trusted";
    check(FIREWALLD, "inet firewalld filter_FORWARD", Kind::Firewalld, remedy, apply);
}

#[test]
fn another_firewall_is_detected_and_its_remedy_helps() {
    let remedy = "nft insert rule inet mine mine_forward iifname wsbr0 accept && \
                  nft insert rule inet mine mine_forward oifname wsbr0 accept";
    check(OTHER, "inet mine mine_forward", Kind::Other, remedy, remedy);
}

#[test]
fn an_iptables_reject_is_detected_and_its_remedy_helps() {
    let script = "iptables-nft -A FORWARD -i lan0 -j ACCEPT
        iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited";
    let remedy = "iptables -I FORWARD -i wsbr0 -j ACCEPT && iptables -I FORWARD -o wsbr0 -j ACCEPT";
    let apply = remedy.replace("iptables", "iptables-nft");
    check(script, "ip filter FORWARD", Kind::Other, remedy, &apply);
}

#[test]
fn a_set_of_states_lets_answers_through() {
    let vmap = OTHER.replace("iifname != \"lan0\"", "iifname != \"wsbr0\"");
    for script in [FIREWALLD.replace("goto filter_FWD_public\n    }", "accept\n    }"), vmap] {
        let host = Netns::new();
        sh(&host, &script);
        assert_eq!(found(&host), []);
    }
}

#[test]
fn harmless_rulesets_are_not_reported() {
    let host = Netns::new();
    sh(
        &host,
        "iptables-nft -A FORWARD -i lan0 -j DROP
        iptables-nft -A FORWARD -d 10.0.0.0/8 -j REJECT
        iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP
        nft add table inet t
        nft 'add chain inet t input { type filter hook input priority 0; policy drop; }'
        nft add table ip6 t
        nft 'add chain ip6 t f { type filter hook forward priority 0; policy drop; }'
        nft add chain inet t unused
        nft add rule inet t unused drop",
    );
    assert_eq!(found(&host), []);
}

#[test]
fn a_table_with_another_owner_is_said_to_be_so() {
    let host = Netns::new();
    let mut other = host.enter(|| Netfilter::open().unwrap());
    let table = Table::new(Family::INET, "firewalld");
    let mut batch = Batch::default();
    batch.new_table(&table, TableFlags::OWNER);
    batch.base_chain(&table, "f", "filter", HookPoint::Forward, 0);
    batch.rule(&table, "f", Rule::new().drop());
    other.commit(batch).unwrap();
    let obstacles = found(&host);
    assert!(matches!(obstacles[..], [Obstacle { owned_by_other: true, .. }]), "{obstacles:?}");
    let text = obstacles[0].to_string();
    assert!(text.contains("open it with: firewall-cmd --zone=trusted"), "{text}");
}

#[test]
fn an_obstacle_is_told_once_and_again_when_it_has_come_back() {
    let host = Netns::new();
    let watch = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        Watch::new(&settings()).unwrap().unwrap()
    };
    let mut watch = host.enter(watch);
    let mut news = || host.enter(|| watch.look(&uplink()).unwrap()).len();
    assert_eq!(news(), 0);
    sh(&host, "iptables-nft -P FORWARD DROP");
    assert_eq!((news(), news()), (1, 0));
    sh(&host, "nft add table ip something");
    assert_eq!(news(), 0, "another change, the same obstacle");
    sh(&host, "iptables-nft -P FORWARD ACCEPT");
    assert_eq!(news(), 0);
    sh(&host, "iptables-nft -P FORWARD DROP");
    assert_eq!(news(), 1);
}

fn settings() -> Settings {
    let conf = wsnic_proto::ConfFile::parse("wsnic.conf", b"inet_iface = up0\n").unwrap();
    let line = wsnic_proto::conf::Layer::new();
    wsnic_proto::resolve(&conf, &line, &wsnic_proto::Facts::default()).unwrap().0
}
