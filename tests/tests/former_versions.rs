//! Every command line of the three earlier manuals gives the network that it gave (docs/migrating.md).
//!
//! Lines with `docker run` are in container.rs. With `WSNIC_PYTHON`, a checkout of an earlier version,
//! the lines of its manual also run by that version, and the two networks are compared.

#[path = "former_versions/lines.rs"]
mod lines;

use lines::{DIFFERENT, Line, MIDDLE, NEWEST, OLDEST, ONLY_SOME, PLAIN};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use wsnic_tests::frames::Dhcp;
use wsnic_tests::services::{WEB_NAME, dns_server};
use wsnic_tests::{
    Door, Former, Generation, Home, Identity, Lab, NativeGuest, RawGuest, Trust, address, opcode,
    source_dir,
};

/// What can be seen of a network, by name.
type Facts = BTreeMap<String, String>;

/// Those of the manuals' examples.
const NAME_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(9, 9, 9, 9)];

#[test]
fn every_line_of_the_newest_manual_gives_its_network() {
    check(Generation::Newest, NEWEST);
}

#[test]
fn every_line_of_the_manual_before_gives_its_network() {
    check(Generation::Middle, MIDDLE);
}

#[test]
fn every_line_of_the_oldest_manual_gives_its_network() {
    check(Generation::Oldest, OLDEST);
}

#[test]
fn every_option_of_the_manuals_is_in_one_of_their_lines() {
    let oldest = "-n -c -v ws_server_addr ws_server_port wss_server_port wss_server_cert \
        wss_server_key eth_iface subnet bridge_subnet dhcp_service dhcp_lease_file dhcp_lease_time \
        dhcp_domain_name dhcp_domain dhcp_domain_name_server dhcp_mtu";
    let middle = "-n -c -v -q --use-syslog --docker-mode ws_server_addr ws_server_port \
        wss_server_port wss_server_cert wss_server_key inet_iface subnet dhcp_service dhcp_enabled \
        dhcp_lease_file dhcp_lease_time dhcp_domain_name dhcp_nameserver WSNIC_SUBNET \
        WSNIC_ENABLE_HOSTNET WSNIC_ENABLE_DHCP WSNIC_DHCP_LEASE_TIME WSNIC_DHCP_DOMAIN_NAME \
        WSNIC_DHCP_NAMESERVER";
    let newest = "-v -q -c -a --ws-address --ws-port --wss-port -r --wss-certificate -k \
        --wss-private-key -s --subnet -i --enable-inet -f ---inet-iface --disable-dhcp \
        --dhcp-lease-file -t ---dhcp-lease-time -n ---dhcp-domain-name -d --dhcp-nameserver -p \
        --enable-iperf ws_address ws_port wss_port wss_certificate wss_private_key enable_inet \
        inet_iface subnet disable_dhcp dhcp_lease_file dhcp_lease_time dhcp_domain_name \
        dhcp_nameserver enable_iperf";
    for (options, lines) in [(oldest, OLDEST), (middle, MIDDLE), (newest, NEWEST)] {
        for option in options.split_whitespace() {
            let has = |line: &Line| {
                line.line.split(' ').any(|word| word == option)
                    || line.conf.lines().any(|set| set.starts_with(&format!("{option}=")))
                    || line.environment.iter().any(|(name, _)| *name == option)
            };
            assert!(lines.iter().any(has), "no line has {option}");
        }
    }
}

#[test]
fn what_is_otherwise_than_in_the_earlier_versions_stands_in_the_document() {
    let document = source_dir().join("../docs/migrating.md");
    let document = std::fs::read_to_string(document).expect("docs/migrating.md");
    let alone = [OLDEST, MIDDLE, NEWEST].into_iter().flatten().filter_map(|line| line.ours_alone);
    let different = DIFFERENT.iter().map(|(_, _, why)| *why);
    for why in alone.chain(different).filter(|why| *why != ONLY_SOME) {
        // It may begin a sentence.
        let (first, rest) = why.split_at(1);
        let found = [first.to_owned(), first.to_uppercase()].map(|first| first + rest);
        assert!(found.iter().any(|why| document.contains(why)), "docs/migrating.md lacks: {why}");
    }
}

#[test]
fn a_silent_client_is_asked_whether_it_is_there_and_given_up_as_it_was() {
    let newest = Generation::Newest.checkout();
    if newest.is_none() {
        println!("WSNIC_PYTHON: no checkout of the newest version, comparison SKIPPED");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| is_patient(None));
        if newest.is_some() {
            scope.spawn(|| is_patient(newest.as_deref()));
        }
    });
}

/// A client that says nothing is asked every 30 seconds, and not given up before 100.
fn is_patient(theirs: Option<&Path>) {
    let lab = Lab::new();
    let home = Home::new(&lab, theirs);
    let server = Former::serve(&home, "sudo ./wsnic.sh", &[]);
    let mut door = Door::upgraded(&lab);
    let start = Instant::now();
    door.wait_at_most(Duration::from_secs(240));
    let mut asked = Vec::new();
    while let Some(fragment) = door.try_receive() {
        match fragment.opcode {
            opcode::PING => asked.push(start.elapsed()),
            opcode::CLOSE => break,
            _ => {}
        }
    }
    let given_up = start.elapsed();
    println!("{theirs:?}: asked after {asked:?}, given up after {given_up:?}");
    assert!(asked.len() >= 2, "{asked:?}");
    // A second less: what arrives late makes the next one seem early.
    let is_patient = asked.windows(2).all(|pair| (pair[1] - pair[0]).as_secs() >= 29);
    assert!(is_patient, "{asked:?}");
    assert!(given_up.as_secs() >= 99, "{given_up:?}");
    drop(door);
    let (status, log) = server.stop();
    home.remove();
    if theirs.is_none() {
        assert!(status.success(), "{log}");
        lab.finish();
    }
}

#[test]
fn both_manuals_lines_for_help_end_well() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    for line in ["./wsnic.sh -h", "./wsnic.sh --help"] {
        let (status, help) = home.launch(line, &[]).wait();
        assert!(status.success() && help.contains("--subnet"), "{line}: {help}");
    }
    home.remove();
    lab.finish();
}

#[test]
fn what_is_taken_no_longer_is_refused_with_what_to_write() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    for (line, conf, remedy) in [
        ("./wsnic.sh -d 8.8.8.8:9.9.9.9", "", "separated by commas"),
        ("./wsnic.sh -s 192.168.86.0/255.255.255.0", "", "such as 192.168.86.0/24"),
        ("./wsnic.sh -t 60", "", "from 120"),
        ("./wsnic.sh --ws-addr 0.0.0.0", "", "--ws-address"),
        ("./wsnic.sh -c no.conf", "", "no.conf"),
        ("./wsnic.sh", "ws_port=1\nws_server_port=2\n", "wsnic.conf:2"),
        ("./wsnic.sh", "[main]\nws_port=9000\n", "wsnic.conf:1"),
    ] {
        home.write("wsnic.conf", conf);
        let (status, said) = home.launch(&format!("{line} > no-output"), &[]).wait();
        assert!(!status.success() && said.contains(remedy), "{line} {conf:?}: {said}");
        let output = std::fs::read(home.file("no-output")).expect("made by the shell");
        assert!(output.is_empty(), "{line}: errors go to standard error");
    }
    home.remove();
    lab.finish();
}

#[test]
fn certificates_made_as_both_manuals_say_are_served() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    let newest = "openssl req -x509 -newkey rsa:4096 -sha256 -days 3650 \
        -nodes -keyout cert.key -out cert.crt -subj \"/CN=localhost\"";
    let middle = "openssl req -x509 -newkey rsa:4096 -sha256 -days 3650 \
        -nodes -keyout cert.key -out cert.crt -subj \"/CN=wsnic.example.com\" \
        -addext \"subjectAltName=DNS:wsnic2.example.com,IP:12.34.56.78\"";
    for line in [newest, middle] {
        let (status, said) =
            home.launch(&format!("sh -c 'mkdir -p cert; cd cert; {line}'"), &[]).wait();
        assert!(status.success(), "{line}: {said}");
        let server = Former::serve(&home, "sudo ./wsnic.sh", &[]);
        wait_for(&home, "127.0.0.1:8086 127.0.0.1:8087");
        let page = lab.srv.run("curl --silent --insecure https://localhost:8087");
        assert!(page.contains("TLS test succeeded"), "{page}");
        let (status, log) = server.stop();
        assert!(status.success(), "{log}");
    }
    home.remove();
    lab.finish();
}

/// Runs each line by the program under test and, where there is one, by the earlier version.
fn check(generation: Generation, lines: &[Line]) {
    let theirs = generation.checkout();
    if theirs.is_none() {
        println!("WSNIC_PYTHON: no checkout of the {generation:?} version, comparison SKIPPED");
    }
    let mut wrong = String::new();
    // A few at the same time: mostly they wait for what does not come.
    for few in lines.chunks(3) {
        let results: Vec<String> = std::thread::scope(|scope| {
            let theirs = theirs.as_deref();
            let threads: Vec<_> =
                few.iter().map(|line| scope.spawn(move || result(line, theirs))).collect();
            let failed = |line: &Line| format!("`{}` {:?}: see above\n", line.line, line.conf);
            let results = threads.into_iter().zip(few);
            results.map(|(thread, line)| thread.join().unwrap_or_else(|_| failed(line))).collect()
        });
        wrong += &results.concat();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What is wrong with the line's network.
fn result(line: &Line, theirs: Option<&Path>) -> String {
    let mut expected: Facts = PLAIN.iter().map(owned).collect();
    for (name, value) in line.otherwise {
        match *value {
            "-" if *name == "lease" => {
                expected.retain(|known, _| known != name && !known.starts_with("DHCP "));
            }
            "-" => drop(expected.remove(*name)),
            value => drop(expected.insert((*name).to_owned(), value.to_owned())),
        }
    }
    let ours = network(line, None, &expected);
    let mut wrong = difference(line, "expected", &expected, "found", &ours, |_, _| false);
    let Some(checkout) = theirs else { return wrong };
    let no_tls = "SKIPPED, stunnel is not installed, which did TLS";
    match line.ours_alone.or((line.certificate.is_some() && !has_stunnel()).then_some(no_tls)) {
        None => {
            let found = network(line, Some(checkout), &expected);
            wrong += &difference(line, "wsnic", &ours, "the earlier version", &found, is_known);
        }
        Some(why) => println!("`{}` {:?}: not compared, {why}", line.line, line.conf),
    }
    wrong
}

fn has_stunnel() -> bool {
    Command::new("stunnel").arg("-version").output().is_ok_and(|output| output.status.success())
}

fn is_known(name: &str, theirs: &str) -> bool {
    DIFFERENT.iter().any(|(known, value, _)| name == *known && ["*", theirs].contains(value))
}

fn difference(
    line: &Line,
    first_name: &str,
    first: &Facts,
    second_name: &str,
    second: &Facts,
    is_known: impl Fn(&str, &str) -> bool,
) -> String {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let mut text = String::new();
    for name in names {
        let value = |facts: &Facts| facts.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        let (one, other) = (value(first), value(second));
        if one != other && !is_known(name, &other) {
            let Line { line, conf, .. } = line;
            text += &format!(
                "`{line}` {conf:?}: {name}: {first_name} {one:?}, {second_name} {other:?}\n"
            );
        }
    }
    text
}

/// Starts the line and looks at everything; `expected` says how long to wait for what.
fn network(line: &Line, theirs: Option<&Path>, expected: &Facts) -> Facts {
    let lab = Lab::new();
    if theirs.is_some() {
        // Its manual leaves this to the administrator.
        lab.srv.set_sysctl("net/ipv4/ip_forward", "1");
    }
    // The name servers of the manuals' examples.
    let _name_servers = NAME_SERVERS.map(|server| {
        lab.inet.ip(&format!("address add {server}/32 dev lo"));
        dns_server(&lab.inet, server.into(), address::WEB)
    });
    let home = Home::new(&lab, theirs);
    home.write(if line.line.contains("my.conf") { "my.conf" } else { "wsnic.conf" }, line.conf);
    let identity = Identity::self_signed(&["localhost"]);
    if let Some((certificate, key)) = line.certificate {
        home.write(certificate, &identity.certificate);
        home.write(key, &identity.key);
    }
    let server = Former::serve(&home, line.line, line.environment);
    let mut facts = Facts::new();
    let mut note = |name: &str, value: String| drop(facts.insert(name.to_owned(), value));
    let listeners = wait_for(&home, &expected["listeners"]);
    // One had its wss:// on all addresses, which is then the first in the list.
    let (_, port) = expected["listeners"]
        .split(' ')
        .next()
        .and_then(|first| first.rsplit_once(':'))
        .expect("an address");
    let ws = listeners.split(' ').find(|address| address.ends_with(&format!(":{port}")));
    let ws = ws.unwrap_or_else(|| panic!("nobody listens at port {port}: {listeners}"));
    let ws = ws.replace("0.0.0.0", "127.0.0.1");
    note("listeners", listeners.clone());
    let server_address: SocketAddr = ws.parse().expect("an address");
    note("answer to a GET", answer(&lab, server_address));
    let mut guest = RawGuest::connect_to(&lab.srv, server_address, "/", &[]).expect("it serves");
    note("bridge", bridge(&lab));
    note("port", ports(&lab));
    let lease = lease(&mut guest);
    lease.iter().flat_map(dhcp_facts).for_each(|(name, value)| note(&name, value));
    if let Some((.., port)) = line.certificate.and(expected["listeners"].split_once(' ')) {
        let trust = Trust::new(&identity.certificate, "localhost");
        let address: SocketAddr = port.parse().expect("an address");
        let guest = RawGuest::connect_tls(&lab.srv, address, "/", &[], &trust);
        guest.expect("wss is served").leave();
        note("wss", "serves".to_owned());
    }
    if home.file("leases").metadata().is_ok_and(|file| file.len() > 0) {
        note("lease file", "written".to_owned());
    }
    for (name, value) in reach(&lab, server_address) {
        note(name, value);
    }
    guest.leave();
    let (status, log) = server.stop();
    for hint in ["run iperf3 -s -B 192.168.86.1"] {
        if log.contains(hint) {
            note("hint", hint.to_owned());
        }
    }
    home.remove();
    if theirs.is_none() {
        assert!(status.success(), "{log}");
        lab.finish();
    }
    facts
}

/// The listeners, once they are those or some time has passed.
fn wait_for(home: &Home<'_>, expected: &str) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let listeners = home.listeners().into_iter().collect::<Vec<_>>().join(" ");
        if listeners == expected || Instant::now() > end {
            return listeners;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answer(lab: &Lab, address: SocketAddr) -> String {
    let mut door = Door::knock_at(&lab.srv, address);
    door.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = door.response();
    let mut text = response.status.to_string();
    for name in ["Upgrade", "Connection"] {
        text += &format!(", {name}: {}", response.header(name).unwrap_or_default());
    }
    // One has it in bold letters.
    if response.body.replace("<b style=\"color:green\">", "").contains("TLS test succeeded") {
        text += ", TLS test succeeded";
    }
    let mut stream = door.into_stream();
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket takes a time limit");
    match stream.read(&mut [0]) {
        Ok(0) => text + ", closed",
        _ => text + ", left open",
    }
}

fn bridge(lab: &Lab) -> String {
    let link = lab.srv.ip("-o link show dev wsbr0");
    let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.get(..2)).unwrap_or_default();
    let first = u8::from_str_radix(mac, 16).expect("a MAC address");
    let mac = if first & 3 == 2 { "with a MAC of its own" } else { "with another's MAC" };
    let up = if link.contains(",UP") { "up" } else { "down" };
    let address = lab.srv.ip("-o -4 address show dev wsbr0");
    let words: Vec<&str> = address.split_whitespace().skip(3).take(3).collect();
    format!("wsbr0 {up} {} {mac}", words.join(" "))
}

fn ports(lab: &Lab) -> String {
    let links = lab.srv.ip("-o link show");
    let ports = links.lines().filter(|line| line.contains("wstap")).map(|line| {
        let name = line.split(": ").nth(1).unwrap_or_default();
        let up = if line.contains(",UP") { "up" } else { "down" };
        let master = line.split(" master ").nth(1).and_then(|rest| rest.split(' ').next());
        format!("{name} {up} on {}", master.unwrap_or_default())
    });
    ports.collect::<Vec<_>>().join(", ")
}

/// What the guest is given; None if nobody answers. A DHCP server may have just begun.
fn lease(guest: &mut RawGuest) -> Option<Dhcp> {
    for _ in 0..4 {
        let discover = Dhcp::new(1, guest.mac).with(55, &[1, 3, 6]);
        guest.send(&discover.frame());
        let end = Instant::now() + Duration::from_secs(1);
        while let Some(frame) = guest.receive_within(end.saturating_duration_since(Instant::now()))
        {
            if Dhcp::parse(&frame).is_some_and(|answer| answer.chaddr == guest.mac) {
                return Some(guest.dhcp());
            }
        }
    }
    None
}

fn dhcp_facts(lease: &Dhcp) -> Vec<(String, String)> {
    let addresses = |value: &[u8]| {
        let each = value.chunks_exact(4).map(|four| wsnic_tests::frames::address(four).to_string());
        each.collect::<Vec<_>>().join(" ")
    };
    let number = |value: &[u8]| value.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let time = lease.option(51).map(number).unwrap_or_default();
    let mut facts = vec![("lease".to_owned(), lease.yiaddr.to_string())];
    for (option, value) in &lease.options {
        // Some make it a little shorter by chance, so that not all guests come back at once.
        let share = |most: u32, name: &str| match number(value) {
            part if part <= most && part >= most / 8 * 7 => name.to_owned(),
            part => part.to_string(),
        };
        let (name, value) = match option {
            1 => ("mask", addresses(value)),
            3 => ("router", addresses(value)),
            6 => ("name servers", addresses(value)),
            15 => ("domain", String::from_utf8_lossy(value).into_owned()),
            26 => ("MTU", number(value).to_string()),
            28 => ("broadcast", addresses(value)),
            51 => ("lease time", time.to_string()),
            54 => ("server", addresses(value)),
            58 => ("renewal", share(time / 2, "half")),
            59 => ("rebinding", share(time / 8 * 7, "7/8")),
            _ => ("unexpected", format!("{value:02x?}")),
        };
        facts.push((format!("DHCP {option} {name}"), value));
    }
    facts
}

/// What a guest reaches, and who reaches it.
fn reach(lab: &Lab, server: SocketAddr) -> Vec<(&'static str, String)> {
    let shown = lab.srv.ip("-o -4 address show dev wsbr0");
    let cidr = shown.split_whitespace().nth(3).expect("the bridge has an address");
    let (gateway, prefix) = cidr.split_once('/').expect("with its prefix");
    let gateway: Ipv4Addr = gateway.parse().expect("an address");
    let own = Ipv4Addr::from_bits(gateway.to_bits() + 60);
    let guest = NativeGuest::plug_into(&lab.srv, server, 1500);
    guest.netns.ip(&format!("address add {own}/{prefix} dev eth0"));
    guest.netns.ip(&format!("route add default via {gateway}"));
    let mut found = Vec::new();
    if guest.pings(gateway) {
        found.push(("ping of the gateway", "answered".to_owned()));
    }
    let asked = std::thread::scope(|scope| {
        let hears = |address| {
            let guest = &guest;
            scope.spawn(move || guest.hears(address, address::NAMED_PORT))
        };
        let (web, neighbour) = (hears(address::WEB), hears(address::NEIGHBOUR));
        let machine = hears(gateway);
        let dns = scope.spawn(|| guest.asks_dns(gateway, WEB_NAME).map(|_| "answers".to_owned()));
        [
            ("web", web),
            ("neighbour's service", neighbour),
            ("machine's service", machine),
            ("name server at the gateway", dns),
        ]
        .map(|(name, thread)| (name, thread.join().expect("an answer or none")))
    });
    found.extend(asked.into_iter().filter_map(|(name, answer)| Some((name, answer?))));
    lab.inet.ip(&format!("route add {own}/32 via {}", address::WAN));
    if lab.inet.succeeds(&format!("ping -n -c 1 -W 1 {own}")) {
        found.push(("ping from outside", "answered".to_owned()));
    }
    found
}

fn owned((name, value): &(&str, &str)) -> (String, String) {
    ((*name).to_owned(), (*value).to_owned())
}
