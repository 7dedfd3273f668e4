//! The tables themselves: what nft lists, who may change them, what stays and what goes.

use super::super::{Firewall, FirewallError, Note};
use super::world::Netns;
use super::*;

fn install(netns: &Netns, policy: Policy) -> (Firewall, Vec<Note>) {
    netns.run(move || Firewall::install(&policy).unwrap())
}

fn tables(netns: &Netns) -> Vec<String> {
    netns.sh("nft list tables").lines().map(str::to_owned).collect()
}

/// Without what nft says about the owner: newer versions know one flag more.
fn without_owner(listed: &str) -> String {
    let lines = listed.lines().filter(|line| !line.contains("flags") && !line.is_empty());
    lines.map(|line| format!("{}\n", line.split(" # progname").next().unwrap())).collect()
}

fn nat_table() -> wsnic_nft::Table {
    let [_, _, nat] = wsnic_rules::tables();
    nat
}

const BOTH: [&str; 2] = ["table inet wsnic_guard", "table ip wsnic_nat"];

#[test]
fn rules_are_listed_as_meant() {
    let netns = Netns::new();
    let mut policy = network(GuestAccess::Internet);
    policy.allow = vec!["10.1.0.0/16".parse().unwrap()];
    policy.deny = vec!["10.1.2.3/32".parse().unwrap()];
    policy.nameservers = vec![[10, 0, 0, 53].into()];
    policy.dhcp_on_host = true;
    let (_firewall, notes) = install(&netns, only(policy));
    assert!(notes.is_empty(), "{notes:?}");
    // Compared as nft itself reads and lists them: its versions differ.
    let wanted = Netns::new();
    wanted.sh(&format!("nft -f - <<'END'\n{}END", include_str!("listing.nft")));
    let list = "nft -s list table inet wsnic_guard; nft -s list table ip wsnic_nat";
    assert_eq!(without_owner(&netns.sh(list)), without_owner(&wanted.sh(list)));
}

/// Two locked networks of which one has tags, one without locks, and rooms.
fn four_networks() -> Policy {
    let internet = network(GuestAccess::Internet);
    let named = |name: &str, subnet: &str| NetworkPolicy {
        bridge: Bridge::One(InterfaceName::new(name).unwrap()),
        plan: Plan::new(subnet.parse().unwrap()).unwrap(),
        resolver: None,
        uplinks: vec![],
        ..internet.clone()
    };
    let networks = vec![
        NetworkPolicy { locks: true, max_multicast: 500, resolver: None, ..internet.clone() },
        named("wsbr1", "10.1.0.0/16"),
        NetworkPolicy {
            locks: true,
            isolation: true,
            allow_vlan: true,
            ..named("wsbr2", "10.2.0.0/16")
        },
        NetworkPolicy {
            bridge: Bridge::Rooms { prefix: "wsbr3r".to_owned(), prefix_len: 26 },
            plan: Plan::new("10.3.0.0/16".parse().unwrap()).unwrap(),
            locks: true,
            max_multicast: 500,
            ..internet
        },
    ];
    Policy { networks, ..policy(GuestAccess::Internet) }
}

#[test]
fn several_networks_with_locks_are_listed_as_meant() {
    let netns = Netns::new();
    let (mut firewall, _) = install(&netns, four_networks());
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let ip = |last| Some(Ipv4Addr::new(10, 3, 0, last));
    firewall.bind(1001, 3, &[(mac(1), None), (mac(1), ip(5)), (mac(2), ip(6))]).unwrap();
    firewall.bind(1002, 1, &[(mac(3), ip(7))]).unwrap();
    firewall.bind(1003, 2, &[(mac(4), None)]).unwrap();
    firewall.add_room(2001, "10.3.0.0/26".parse().unwrap()).unwrap();
    firewall.add_room(2002, "10.3.0.64/26".parse().unwrap()).unwrap();
    let wanted = Netns::new();
    wanted.sh(&format!("nft -f - <<'END'\n{}END", include_str!("networks.nft")));
    let list = "nft -s list table inet wsnic_guard; nft -s list table ip wsnic_nat;
        nft -s list table bridge wsnic_ports";
    // Some versions of nft read two comparisons of neighbours as one.
    let list = |netns: &Netns| {
        let listed = without_owner(&netns.sh(list));
        listed.replace("th sport != 67 th dport != 68", "@th,0,32 != 0x430044")
    };
    assert_eq!(list(&netns), list(&wanted));
}

#[test]
fn nobody_else_changes_the_tables() {
    let netns = Netns::new();
    let (mut firewall, _) = install(&netns, policy(GuestAccess::Internet));
    let before = netns.sh("nft list ruleset");
    for attempt in [
        "flush table inet wsnic_guard",
        "delete table inet wsnic_guard",
        "insert rule inet wsnic_guard forward accept",
        "delete table ip wsnic_nat",
    ] {
        assert!(!netns.try_sh(&format!("nft {attempt}")).0, "{attempt}");
    }
    netns.sh("nft flush ruleset");
    assert_eq!(netns.sh("nft list ruleset"), before);
    assert!(netns.run(move || firewall.verify()).unwrap().is_empty());
}

#[test]
fn a_dead_owner_leaves_the_guard_and_the_next_replaces_it() {
    let netns = Netns::new();
    let (firewall, _) = install(&netns, policy(GuestAccess::Internet));
    let before = without_owner(&netns.sh("nft -s list table inet wsnic_guard"));
    die(&netns, firewall);
    assert_eq!(tables(&netns), BOTH[..1]);
    assert_eq!(without_owner(&netns.sh("nft -s list table inet wsnic_guard")), before);
    netns.sh("nft add table ip wsnic_nat");

    let (mut firewall, notes) = install(&netns, policy(GuestAccess::Internet));
    assert!(matches!(notes[..], [Note::LeftoversReplaced(2)]), "{notes:?}");
    assert_eq!(without_owner(&netns.sh("nft -s list table inet wsnic_guard")), before);
    assert!(!netns.try_sh("nft delete table inet wsnic_guard").0, "owned again");
    assert!(firewall.teardown().is_empty());
    assert_eq!(netns.sh("nft list ruleset"), "");
}

#[test]
fn the_guard_is_replaced_in_one_transaction() {
    let netns = Netns::new();
    let (firewall, _) = install(&netns, policy(GuestAccess::Internet));
    die(&netns, firewall);
    let generation = |netns: &Netns| netns.run(|| Netfilter::open().unwrap().generation().unwrap());
    let before = generation(&netns);
    let (mut firewall, _) = install(&netns, policy(GuestAccess::Internet));
    assert_eq!(generation(&netns), before + 1);
    firewall.update(&policy(GuestAccess::All)).unwrap();
    assert_eq!(generation(&netns), before + 2);
}

#[test]
fn a_second_instance_is_refused_and_harms_nothing() {
    let netns = Netns::new();
    let (_firewall, _) = install(&netns, policy(GuestAccess::Internet));
    let before = netns.sh("nft list ruleset");
    let error = netns.run(|| Firewall::install(&policy(GuestAccess::All)).err().unwrap());
    assert!(matches!(error, FirewallError::OtherInstance { .. }), "{error}");
    assert!(error.to_string().contains("another wsnic"));
    assert_eq!(netns.sh("nft list ruleset"), before);
}

#[test]
fn a_refused_update_keeps_the_old_rules() {
    let netns = Netns::new();
    let (mut firewall, _) = install(&netns, policy(GuestAccess::Internet));
    let before = netns.sh("nft list ruleset");
    // More than a send buffer holds.
    let deny = vec!["10.0.0.0/9".parse().unwrap(); 100_000];
    let big = only(NetworkPolicy { deny, ..network(GuestAccess::Internet) });
    let error = netns.run(move || (firewall.update(&big).map(|_| ()), firewall));
    let error = chain(&error.0.unwrap_err());
    assert!(error.contains("shorten the lists"), "{error}");
    assert_eq!(netns.sh("nft list ruleset"), before);
}

#[test]
fn many_blocks_fit_into_one_batch() {
    let netns = Netns::new();
    let block = |n: u32| Cidr::containing(Ipv4Addr::from(n << 12), 20);
    let deny = (0..400).map(block).collect();
    let big = NetworkPolicy { deny, ..network(GuestAccess::Internet) };
    let (_firewall, _) = install(&netns, only(big));
    assert!(netns.sh("nft list chain inet wsnic_guard from_guests_0").lines().count() > 400);
}

#[test]
fn tables_of_a_kernel_without_owners_are_restored() {
    for ownership in [1, 2] {
        let netns = Netns::new();
        let (firewall, notes) = netns
            .run(move || Firewall::install_with(&policy(GuestAccess::Lan), ownership).unwrap());
        assert!(matches!(
            (ownership, &notes[..]),
            (1, [Note::GuardEndsWithHelper]) | (2, [Note::TablesUnowned])
        ));
        let before = netns.sh("nft -s list ruleset");
        netns.sh("nft flush ruleset");
        assert_eq!(netns.sh("nft list ruleset").is_empty(), ownership == 2);
        let (mut firewall, notes) = netns.run(move || {
            let mut firewall = firewall;
            let notes = firewall.verify().unwrap();
            assert!(firewall.verify().unwrap().is_empty());
            (firewall, notes)
        });
        assert_eq!(notes.len(), ownership - 1, "{notes:?}");
        assert_eq!(netns.sh("nft -s list ruleset"), before);
        assert!(firewall.teardown().is_empty());
        assert_eq!(netns.sh("nft list ruleset"), "");
    }
}

#[test]
fn a_refusal_names_what_was_refused() {
    let netns = Netns::new();
    let error = netns.run(|| {
        let mut nf = Netfilter::open().unwrap();
        let mut batch = Batch::default();
        batch.new_table(&nat_table(), TableFlags::NONE);
        batch.rule(&nat_table(), "nowhere", wsnic_nft::Rule::new().accept());
        batch.hint("or is it somewhere?");
        batch.chain(&nat_table(), "somewhere");
        nf.commit(batch).unwrap_err()
    });
    assert_eq!(error.errno(), Some(2));
    assert_eq!(
        error.to_string(),
        "the kernel refused to add a rule to ip wsnic_nat nowhere (or is it somewhere?)"
    );
    assert_eq!(netns.sh("nft list ruleset"), "");
}

#[test]
fn an_unknown_table_flag_is_recognised_as_an_older_kernel() {
    let netns = Netns::new();
    let errno = netns.run(|| {
        let mut nf = Netfilter::open().unwrap();
        let mut batch = Batch::default();
        batch.new_table(&nat_table(), TableFlags(0x80));
        nf.commit(batch).unwrap_err().errno().unwrap()
    });
    assert!([EINVAL, EOPNOTSUPP].contains(&errno), "{errno}");
}
