//! Several networks and rooms behind one server, chosen by path or token.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use wsnic_tests::address::{NAMED_PORT, NEIGHBOUR, WEB};
use wsnic_tests::frames::{self, BROADCAST, EXPERIMENTAL};
use wsnic_tests::{Keeper, Lab, NativeGuest, RawGuest, Server, run_wsnic, wait_until};

const CONF: &str = "\
    [network lab]\nsubnet = 10.1.0.0/24\n\
    [network office]\nsubnet = 10.2.0.0/24\nmtu = 1400\ndhcp_domain_name = office.example\n";
/// Frames that a limit of 50 a second lets through in three minutes.
const FLOOD: usize = 9_000;
const ROOMS: &str = "\
    [network rooms]\nsubnet = 10.3.0.0/16\nrooms = yes\nmax_rooms = 250\nmax_clients = 1000\n";

/// All frames that a guest gets until the shout that is sent last.
fn heard_until(guest: &mut RawGuest, text: &str) -> Vec<String> {
    let before = guest.hear(text);
    let shouts = before.iter().filter(|frame| frames::ethertype(frame) == EXPERIMENTAL);
    shouts
        .map(|frame| String::from_utf8_lossy(&frame[14..]).trim_end_matches('\0').to_owned())
        .collect()
}

#[test]
fn each_path_leads_to_its_own_network_with_its_own_addresses() {
    let lab = Lab::new();
    let server = Server::start(&lab, CONF);
    for (path, gateway, first, mtu) in [
        ("/", [192, 168, 86, 1], [192, 168, 86, 2], 1500_u16),
        ("/lab", [10, 1, 0, 1], [10, 1, 0, 2], 1500),
        ("/office/", [10, 2, 0, 1], [10, 2, 0, 2], 1400),
        ("/unheard/of", [192, 168, 86, 1], [192, 168, 86, 3], 1500),
    ] {
        let mut guest = RawGuest::try_at(&lab, path).expect("the path leads somewhere");
        let ack = guest.dhcp();
        assert_eq!(guest.ip, Ipv4Addr::from(first), "{path}");
        assert_eq!(ack.option(26), Some(&mtu.to_be_bytes()[..]), "{path}");
        let domain = (path == "/office/").then_some(&b"office.example"[..]);
        assert_eq!(ack.option(15), domain, "{path}");
        guest.ping(gateway.into(), 60);
        guest.leave();
    }
    server.stop();
    lab.finish();
}

#[test]
fn no_frame_leaks_from_one_network_into_another() {
    let lab = Lab::new();
    let server =
        Server::start(&lab, &format!("guest_access = all\nenable_inet = yes\n{CONF}{ROOMS}"));
    let paths = ["/", "/lab", "/office", "/rooms/one", "/rooms/two"];
    let mut speakers: Vec<RawGuest> =
        paths.iter().map(|path| RawGuest::join_at(&lab, path)).collect();
    let mut listeners: Vec<RawGuest> =
        paths.iter().map(|path| RawGuest::join_at(&lab, path)).collect();
    for (number, speaker) in speakers.iter_mut().enumerate() {
        for _ in 0..20 {
            speaker.shout(&format!("of {number}"));
        }
    }
    for (number, speaker) in speakers.iter_mut().enumerate() {
        // Everything that was on its way anywhere is before this.
        speaker.shout("last");
        let heard: BTreeSet<String> =
            heard_until(&mut listeners[number], "last").into_iter().collect();
        assert_eq!(heard, BTreeSet::from([format!("of {number}")]), "{}", paths[number]);
    }
    drop((speakers, listeners));
    server.stop();
    lab.finish();
}

#[test]
fn guests_of_different_networks_do_not_reach_each_other_by_the_gateway_either() {
    let lab = Lab::new();
    let conf = "guest_access = all\nenable_inet = yes\n\
                [network lab]\nsubnet = 10.1.0.0/24\nguest_access = all\nenable_inet = yes\n";
    let server = Server::start(&lab, conf);
    let one = NativeGuest::join(&lab);
    let other = NativeGuest::join_at(&lab, "/lab");
    let neighbour = NativeGuest::join(&lab);
    assert!(one.pings(neighbour.ip()), "within one network they do");
    assert!(one.pings(wsnic_tests::address::WEB), "and so does the Internet");
    assert!(other.pings(wsnic_tests::address::WEB));
    for (from, to) in [(&one, &other), (&other, &one)] {
        assert!(!from.pings(to.ip()));
        // Not even by a route of their own making, behind the other gateway.
        let gateway = if from.ip().octets()[0] == 10 { "10.1.0.1" } else { "192.168.86.1" };
        from.netns.ip(&format!("route replace {} via {gateway}", to.ip()));
        assert!(!from.pings(to.ip()));
    }
    drop((one, other, neighbour));
    server.stop();
    lab.finish();
}

#[test]
fn networks_side_by_side_have_nat_access_isolation_and_limits_of_their_own() {
    let lab = Lab::new();
    // The network default has NAT, the LAN, no way from guest to guest, and a limit; lab has none of that.
    let conf = "inet_iface = wan0\nguest_access = lan\nisolation = yes\nrate_limit_up_frames = 50\n\
                [network lab]\nsubnet = 10.1.0.0/24\nisolation = no\n\
                [network web]\nsubnet = 10.2.0.0/24\nenable_inet = yes\n";
    let server = Server::start(&lab, conf);
    let join = |path: &str| [NativeGuest::join_at(&lab, path), NativeGuest::join_at(&lab, path)];
    let (isolated, together, online) = (join("/"), join("/lab"), join("/web"));
    for (guests, has_web, has_lan, has_other) in [
        (&isolated, true, true, false),
        (&together, false, false, true),
        (&online, true, false, true),
    ] {
        let [one, other] = guests;
        let ip = one.ip();
        assert_eq!(one.hears(WEB, NAMED_PORT).is_some(), has_web, "the Internet from {ip}");
        assert_eq!(one.hears(NEIGHBOUR, NAMED_PORT).is_some(), has_lan, "the LAN from {ip}");
        assert_eq!(one.pings(other.ip()), has_other, "another guest from {ip}");
        assert_eq!(other.pings(ip), has_other, "another guest from {}", other.ip());
    }
    for (one, other) in [(&isolated, &together), (&together, &online), (&online, &isolated)] {
        assert!(!one[0].pings(other[0].ip()) && !other[0].pings(one[0].ip()));
    }
    drop((isolated, together, online));

    // The limited one has sent some of its frames when the other has sent all.
    let mut limited = RawGuest::join_at(&lab, "/");
    let mut free = RawGuest::join_at(&lab, "/lab");
    let frames_in = || {
        let conf = lab.file("wsnic.conf");
        let conf = ["sessions", "--json", "-c", conf.to_str().expect("a path")];
        let rows = run_wsnic(&lab.srv, &conf).1;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).expect("a list");
        let of = |network: &str| {
            let row = rows.iter().find(|row| row["network"] == network).expect("a session");
            row["frames_in"].as_u64().expect("a number")
        };
        (of("default"), of("lab"))
    };
    let frame = |from| frames::ethernet(BROADCAST, from, EXPERIMENTAL, &[0; 46]);
    for guest in [&mut limited, &mut free] {
        guest.send_all(std::iter::repeat_n(frame(guest.mac), FLOOD));
    }
    wait_until("the free one has sent all", || frames_in().1 >= FLOOD as u64);
    let (of_limited, _) = frames_in();
    assert!(of_limited < FLOOD as u64, "{of_limited} of {FLOOD} frames under a limit");
    drop((limited, free));
    server.stop();
    lab.finish();
}

#[test]
fn rooms_are_made_for_those_who_share_a_secret() {
    let lab = Lab::new();
    let server = Server::start(&lab, ROOMS);
    let mut one = RawGuest::join_at(&lab, "/rooms/secret");
    let mut friend = RawGuest::join_at(&lab, "/rooms/secret?name=friend");
    let mut stranger = RawGuest::join_at(&lab, "/rooms/other");
    assert_eq!((one.ip, friend.ip), ([10, 3, 0, 2].into(), [10, 3, 0, 3].into()));
    assert_eq!(stranger.ip, Ipv4Addr::new(10, 3, 1, 2));
    let friends = friend.ip;
    friend.send(&frames::arp_request(friend.mac, friend.ip, one.ip));
    one.receive_until(|frame| frames::parse_arp(frame).filter(|arp| arp.2 == friends));
    one.ping([10, 3, 0, 1].into(), 10);
    stranger.ping([10, 3, 1, 1].into(), 10);
    for path in ["/rooms", "/rooms/", "/rooms?secret=secret"] {
        let refused = RawGuest::try_at(&lab, path).expect_err("a room has a name");
        assert!(refused.to_string().contains("404"), "{path}: {refused}");
    }
    drop((one, friend, stranger));
    server.stop();
    lab.finish();
}

#[test]
fn two_hundred_rooms_come_and_go_and_leave_nothing() {
    let lab = Lab::new();
    let server =
        Server::start(&lab, &format!("max_clients_per_address = 0\nhandshake_rate = 0\n{ROOMS}"));
    let bridges = || lab.srv.ip("-o link show").matches(": wsbr1r").count();
    let rules = || lab.srv.run("nft list sets");
    let before = rules();
    let guests: Vec<RawGuest> =
        (0..200).map(|number| RawGuest::join_at(&lab, &format!("/rooms/{number}"))).collect();
    let addresses: BTreeSet<Ipv4Addr> = guests.iter().map(|guest| guest.ip).collect();
    assert_eq!((addresses.len(), bridges()), (200, 200));
    drop(guests);
    wait_until("empty rooms are removed", || bridges() == 0);
    wait_until("the firewall forgets them", || rules() == before);
    let again = RawGuest::join_at(&lab, "/rooms/again");
    assert_eq!(again.ip, Ipv4Addr::new(10, 3, 0, 2), "the numbers are free again");
    drop(again);
    server.stop();
    lab.finish();
}

#[test]
fn a_network_and_its_rooms_have_as_many_guests_as_they_may() {
    let lab = Lab::new();
    let conf = "[network lab]\nsubnet = 10.1.0.0/24\nmax_clients = 1\n\
                [network rooms]\nsubnet = 10.3.0.0/16\nrooms = yes\nmax_rooms = 1\n";
    let server = Server::start(&lab, conf);
    let inside = [RawGuest::join_at(&lab, "/lab"), RawGuest::join_at(&lab, "/rooms/one")];
    for path in ["/lab", "/rooms/two"] {
        let refused = RawGuest::try_at(&lab, path).expect_err("it is full");
        assert!(refused.to_string().contains("503"), "{path}: {refused}");
    }
    let more = [RawGuest::join_at(&lab, "/"), RawGuest::join_at(&lab, "/rooms/one")];
    drop((inside, more));
    server.stop();
    lab.finish();
}

#[test]
fn with_strict_paths_a_path_that_names_no_network_is_refused() {
    let lab = Lab::new();
    let server = Server::start(&lab, &format!("strict_paths = yes\n{CONF}"));
    let refused = RawGuest::try_at(&lab, "/other").expect_err("there is no such network");
    assert!(refused.to_string().contains("404"), "{refused}");
    let guests = ["/", "/default", "/lab"].map(|path| RawGuest::join_at(&lab, path));
    drop(guests);
    server.stop();
    lab.finish();
}

#[test]
fn a_token_leads_into_its_network_and_a_private_one_is_for_its_tokens_only() {
    let lab = Lab::new();
    let conf = format!("{CONF}[network secret]\nsubnet = 10.4.0.0/24\nprivate = yes\n");
    let file = lab.file("tokens");
    let token = |name: &str, network: &str| {
        let network = format!("--network={network}");
        let options: &[&str] =
            if network.ends_with('=') { &["token", name] } else { &["token", name, &network] };
        let (status, output) = run_wsnic(&lab.srv, options);
        assert!(status.success(), "{output}");
        let line =
            output.lines().find(|line| line.contains(" sha256:")).expect("a line").to_owned();
        let (_, secret) = output.split_once("?token=").expect("an example");
        (line, secret.split_whitespace().next().expect("a secret").to_owned())
    };
    let (any, secret) = (token("any", ""), token("of-secret", "secret"));
    std::fs::write(&file, format!("{}\n{}\n", any.0, secret.0)).expect("a file");
    let server = Server::start(&lab, &format!("token_file = {}\n{conf}", file.display()));
    let join = |path: &str, token: &str| {
        let guest = RawGuest::try_at(&lab, &format!("{path}?token={token}"));
        guest.map(|mut guest| {
            guest.dhcp();
            guest.ip.octets()
        })
    };
    assert_eq!(join("/lab", &any.1).expect("he chooses"), [10, 1, 0, 2]);
    assert_eq!(join("/", &any.1).expect("the default"), [192, 168, 86, 2]);
    assert_eq!(join("/", &secret.1).expect("the token decides"), [10, 4, 0, 2]);
    assert_eq!(join("/secret", &secret.1).expect("both say so")[..3], [10, 4, 0]);
    for (path, token) in [("/secret", &any.1), ("/lab", &secret.1), ("/default", &secret.1)] {
        let refused = join(path, token).expect_err("not for him");
        assert!(refused.to_string().contains("403"), "{path}: {refused}");
    }
    server.stop();
    std::fs::remove_file(&file).expect("the file is there");
    lab.finish();
}

#[test]
fn a_token_for_a_network_that_there_is_not_is_named_at_the_start() {
    let lab = Lab::new();
    let file = lab.file("tokens");
    std::fs::write(&file, format!("alice sha256:{} network=attic\n", "0".repeat(64)))
        .expect("a file");
    let log = Server::refuses(&lab, &format!("token_file = {}\n{CONF}", file.display()), &[]);
    assert!(
        log.contains("token alice of token_file is for network attic, which there is not"),
        "{log}"
    );
    std::fs::remove_file(&file).expect("the file is there");
    lab.finish();
}

#[test]
fn networks_and_rooms_go_on_when_the_helper_is_replaced() {
    let lab = Lab::new();
    let mut keeper = Keeper::start(&lab, &format!("{CONF}{ROOMS}"));
    let paths = ["/", "/lab", "/rooms/one", "/rooms/one", "/rooms/two"];
    let mut guests: Vec<RawGuest> =
        paths.iter().map(|path| RawGuest::join_at(&lab, path)).collect();
    for _ in 0..3 {
        keeper.replace_helper();
        for guest in &mut guests {
            let [a, b, c, _] = guest.ip.octets();
            guest.ping(Ipv4Addr::new(a, b, c, 1), 40);
        }
    }
    let late = RawGuest::join_at(&lab, "/rooms/two");
    assert_eq!(late.ip.octets()[..3], guests[4].ip.octets()[..3], "the room is still known");
    drop((guests, late));
    keeper.stop();
    lab.finish();
}

#[test]
fn a_broadcast_storm_in_one_room_is_nothing_to_the_next() {
    let lab = Lab::new();
    let server = Server::start(&lab, ROOMS);
    let mut loud = RawGuest::join_at(&lab, "/rooms/loud");
    let mut quiet =
        [RawGuest::join_at(&lab, "/rooms/quiet"), RawGuest::join_at(&lab, "/rooms/quiet")];
    let frame = frames::ethernet(BROADCAST, loud.mac, EXPERIMENTAL, &[b'x'; 500]);
    loud.send_all((0..5000).map(|_| frame.clone()));
    let [speaker, listener] = &mut quiet;
    speaker.shout("end");
    assert_eq!(heard_until(listener, "end"), [""; 0]);
    drop((loud, quiet));
    server.stop();
    lab.finish();
}
