//! Every command of the documents is run as it stands there, by the tests here, or for packages and
//! containers by those that have one at hand; and every configuration in them is understood.

use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use wsnic_tests::{
    Bed, Former, Home, Lab, NOT_RUN, NativeGuest, RawGuest, Trust, address, commands_of,
    configurations_of, documents, is_run, printed, source_dir, wait_until,
};

/// Guest 7 of the documents comes from here.
const FAR: &str = "203.0.113.9";
const NAME: &str = "guests.example.org";
const HOSTS: &str = "/etc/hosts";
/// How a pcapng file begins.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

#[test]
fn every_command_of_a_document_is_taken_by_a_test() {
    let tests = fs::read_dir(source_dir().join("tests")).expect("there are tests");
    let tests = tests.map(|entry| entry.expect("a folder can be read").path());
    let tests: Vec<String> = tests
        .filter(|path| path.is_file())
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    for document in documents() {
        let commands = commands_of(&document);
        let is_taken =
            tests.iter().any(|test| test.contains(&format!("commands_of(\"{document}\")")));
        let left: Vec<_> = commands.iter().filter(|command| is_run(&document, command)).collect();
        assert!(is_taken || left.is_empty(), "no test takes what {document} has: {left:#?}");
    }
}

#[test]
fn what_is_not_run_stands_in_its_document_and_what_is_run_instead_is_there() {
    let root = source_dir().join("..");
    for row in NOT_RUN {
        let commands = commands_of(row.document);
        let mut commands = commands.iter().filter(|command| command.starts_with(row.command));
        let first = commands.next();
        let first = first.unwrap_or_else(|| panic!("{} has no {}", row.document, row.command));
        let (file, text) = row.instead;
        let instead = fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(instead.contains(text), "{first}: {file} has no {text}");
        for line in commands.chain([first]).filter(|command| command.starts_with("make ")) {
            // At least there is something to make.
            let line = line.replacen("make ", "make --dry-run ", 1);
            let mut make = Command::new("sh");
            make.args(["-c", &line]).current_dir(&root).env_remove("MAKEFLAGS");
            let output = make.output().expect("a shell runs");
            assert!(output.status.success(), "{line}: {}", printed(&output));
        }
    }
}

#[test]
fn every_link_between_the_documents_leads_to_a_file() {
    let root = source_dir().join("..");
    let others = ["ARCHITECTURE.md", "SECURITY.md"].map(str::to_owned);
    for document in documents().into_iter().chain(others) {
        let path = root.join(&document);
        let text = fs::read_to_string(&path).expect("there is a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_far = link.contains("://");
            let found = path.parent().is_some_and(|folder| folder.join(file).exists());
            assert!(is_far || file.is_empty() || found, "{document}: {link} is not there");
        }
    }
}

#[test]
fn every_configuration_in_the_documents_is_understood() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    let mut understood = 0;
    for document in documents() {
        for block in configurations_of(&document) {
            // Pieces of units.
            if block.starts_with("[S") || block.starts_with("IPAddress") {
                continue;
            }
            home.write("wsnic.conf", &block);
            let (_, said) = home.launch("wsnic check", &[]).wait();
            assert!(said.contains("wsnic.conf is understood"), "{document}: {block}{said}");
            assert!(!said.contains("wsnic.conf:"), "{document}: {block}{said}");
            understood += 1;
        }
    }
    assert!(understood >= 6, "there are {understood} configurations");
    home.remove();
    lab.finish();
}

#[test]
fn the_commands_of_the_readme_do_what_they_say() {
    for command in commands_of("README.md") {
        if !is_run("README.md", &command) {
            continue;
        }
        let command = command.replace("NAME", "alice").replace("FILE", "guest.pcapng");
        let words = command.split('#').next().unwrap_or_default().trim();
        let lab = Lab::new();
        let home = Home::new(&lab, None);
        match words {
            "make run" => {
                let line = without_building(words);
                let server = serve(&home, &line);
                let guest = NativeGuest::join(&lab);
                assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
                drop(guest);
                server.stop();
            }
            "wsnic run" => {
                let server = serve(&home, &command);
                RawGuest::join(&lab).leave();
                succeeds(server.stop(), &command);
            }
            "wsnic check" | "wsnic template" | "wsnic cert" => {
                succeeds(home.launch(&command, &[]).wait(), &command);
            }
            "wsnic token alice" => {
                let said = succeeds(home.launch(&command, &[]).wait(), &command);
                assert!(said.contains("alice sha256:") && said.contains("?token="), "{said}");
            }
            _ => with_seven_guests(&lab, &home, words),
        }
        home.remove();
        lab.finish();
    }
}

#[test]
fn the_commands_for_operators_do_what_they_say() {
    for command in commands_of("docs/operator.md") {
        let lab = Lab::new();
        let home = Home::new(&lab, None);
        with_seven_guests(&lab, &home, &command);
        home.remove();
        lab.finish();
    }
}

#[test]
fn the_commands_for_tls_and_tokens_let_in_who_has_one_and_nobody_else() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    let [conf] = &configurations_of("docs/door.md")[..] else { panic!("door.md has one") };
    home.write("wsnic.conf", conf);
    let (mut server, mut given) = (None, String::new());
    for command in commands_of("docs/door.md") {
        if command == "wsnic reload" {
            server = Some(serve(&home, "wsnic run"));
        }
        let said = succeeds(home.launch(&command, &[]).wait(), &command);
        if command.starts_with("wsnic token") {
            given = token(&said);
        }
    }
    let certificate = fs::read_to_string(home.file("cert/cert.crt")).expect("it was made");
    let trust = Trust::new(&certificate, NAME);
    let wss = SocketAddr::from((address::WAN, 443));
    let knock = |path: &str| RawGuest::connect_tls(&lab.inet, wss, path, &[], &trust);
    assert!(knock("/").is_err(), "nobody comes in without a token");
    let mut alice = knock(&format!("/?token={given}")).expect("a token lets in");
    alice.dhcp();
    alice.leave();
    let server = server.expect("the document has a reload");
    assert!(server.log().contains("identity=\"alice (token)\""), "{}", server.log());
    succeeds(server.stop(), "wsnic run");
    home.remove();
    lab.finish();
}

#[test]
fn the_commands_for_who_comes_from_an_earlier_version_do_what_they_say() {
    let lab = Lab::new();
    let home = Home::new(&lab, None);
    home.write("wsnic.conf", "ws_address=127.0.0.1\nenable_inet=1\nenable_iperf=1\n");
    for command in commands_of("docs/migrating.md") {
        if command == "wsnic run" {
            let server = serve(&home, &command);
            RawGuest::join(&lab).leave();
            succeeds(server.stop(), &command);
        } else if is_run("docs/migrating.md", &command) {
            let said = succeeds(home.launch(&command, &[]).wait(), &command);
            assert!(said.contains("wsnic.conf is understood"), "{said}");
            assert!(said.contains("enable_iperf is ignored"), "{said}");
        }
    }
    home.remove();
    lab.finish();
}

#[test]
fn the_commands_for_troubles_do_what_they_say() {
    for command in commands_of("docs/troubleshooting.md") {
        if is_for_systemd(&command) {
            continue;
        }
        let lab = Lab::new();
        let home = Home::new(&lab, None);
        match command.as_str() {
            "wsnic check" | "wsnic check --only-host-firewall" => {
                succeeds(home.launch(&command, &[]).wait(), &command);
            }
            list if list.starts_with("ip ") || list.starts_with("nft ") => {
                let server = serve(&home, "wsnic run");
                let during = succeeds(home.launch(list, &[]).wait(), list);
                succeeds(server.stop(), "wsnic run");
                let after = succeeds(home.launch(list, &[]).wait(), list);
                let ours = |said: &str| said.contains("wsbr0") || said.contains("wsnic_guard");
                assert!(ours(&during) && !ours(&after), "{list}: {during}, then {after}");
            }
            live if live.contains("wss://") => with_tls(&lab, &home, live),
            _ => with_seven_guests(&lab, &home, &command),
        }
        home.remove();
        lab.finish();
    }
}

#[test]
fn a_dnsmasq_that_systemd_does_not_run_is_seen_and_run_as_the_document_says() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "dhcp_service = dnsmasq\n");
    let mut guest = RawGuest::connect(&lab);
    guest.send(&wsnic_tests::frames::Dhcp::new(1, guest.mac).frame());
    let answer = guest.receive_within(std::time::Duration::from_secs(3));
    assert!(answer.is_none_or(|frame| wsnic_tests::frames::Dhcp::parse(&frame).is_none()));
    drop(guest);
    let commands = commands_of("docs/troubleshooting.md");
    for command in commands.iter().filter(|command| is_for_systemd(command)) {
        must(&bed, command);
    }
    wait_until("guests get addresses", || {
        let guest = NativeGuest::plug(&lab);
        guest.try_dhcp().is_ok()
    });
    bed.finish(&lab);
}

fn is_for_systemd(command: &str) -> bool {
    command.starts_with("systemctl ") || command.starts_with("journalctl ")
}

#[test]
fn the_commands_for_systemd_do_what_they_say() {
    let mut lab = Lab::new();
    let bed = Bed::boot(&mut lab, "");
    let mut guest = None;
    for command in commands_of("docs/systemd.md") {
        if !is_run("docs/systemd.md", &command) {
            continue;
        }
        if command.starts_with("systemctl enable wsnic-dnsmasq") {
            bed.set_conf("dhcp_service = dnsmasq\n");
        }
        let said = must(&bed, &command);
        if command.starts_with("systemctl enable --now") {
            lab.settle();
            guest = Some(RawGuest::join(&lab));
        } else if command.starts_with("systemctl restart") {
            guest = None;
            wait_until("guests get addresses", || {
                let guest = NativeGuest::plug(&lab);
                guest.try_dhcp().is_ok()
            });
        } else if command.starts_with("ps ") {
            assert!(said.contains("/usr/libexec/wsnic/wsnic-front"), "{said}");
            assert!(!said.contains("root "), "nothing of it is root: {said}");
        } else if command.contains("pgrep -x dnsmasq") {
            assert!(said.contains("CapEff:\t0000000000000000"), "{said}");
        } else if command.starts_with("grep ") {
            assert!(said.contains("CapEff:\t0000000000001000"), "{said}");
        } else if command.starts_with("systemd-analyze") {
            assert!(said.contains(": 0.3 ") && said.contains(": 1.2 "), "{said}");
        }
    }
    drop(guest);
    for unit in wsnic_tests::UNITS.iter().filter(|unit| !unit.contains("admin")) {
        assert!(!bed.is_active(unit), "{unit}");
    }
    assert!(!lab.srv.ip("-o link show").contains("wsbr0"), "a bridge is left");
    bed.finish(&lab);
}

#[test]
fn the_commands_that_show_who_may_do_what_show_it() {
    let mut lab = Lab::new();
    let bed = Bed::boot(&mut lab, "");
    must(&bed, "systemctl start wsnic.service");
    for command in commands_of("docs/privsep.md") {
        let said = must(&bed, &command);
        if command.contains("wsnic-priv)/task") {
            assert!(said.contains("CapEff:\t0000000000001000"), "{said}");
        } else if command.contains("wsnic-front)/task") {
            assert!(said.contains("CapEff:\t0000000000000000"), "{said}");
        } else if command.starts_with("ls ") {
            assert_eq!(said, "", "the front-end's root is empty");
        } else if command.starts_with("cat ") {
            assert!(said.contains("lo:") && said.lines().count() == 1, "{said}");
        } else if command.starts_with("for ") {
            let mut names: Vec<&str> = said.lines().collect();
            let all = names.len();
            names.dedup();
            assert_eq!(
                (names.len(), all),
                (10, 10),
                "each is another than that of process 1: {said}"
            );
        } else {
            assert!(
                command.starts_with("ps ") && said.contains("wsnic-front"),
                "{command}: {said}"
            );
        }
    }
    must(&bed, "systemctl stop wsnic.service");
    bed.finish(&lab);
}

/// Runs a line on a machine; what it prints.
fn must(bed: &Bed, line: &str) -> String {
    let output = bed.shell(&line.replace("apt ", "apt -qq -y "));
    let said = printed(&output);
    // Some of the units that it names may have ended, which has a status of its own.
    let is_fine = output.status.success() || line.starts_with("systemctl status ");
    assert!(is_fine, "`{line}`: {said}");
    said
}

/// Starts a server and waits until it is ready.
fn serve(home: &Home<'_>, line: &str) -> Former {
    let server = home.launch(line, &[]);
    wait_until("wsnic is ready", || {
        let log = server.log();
        assert!(!log.contains("ERROR"), "`{line}`: {log}");
        log.contains("wsnic is ready")
    });
    server
}

/// `make run` as it is typed, but in the sources' folder and with programs that are there.
fn without_building(line: &str) -> String {
    let built = wsnic_tests::wsnic();
    let folder = built.parent().expect("a program lies in a folder");
    let root = source_dir().join("..");
    let make = format!("env -u MAKEFLAGS make --directory={} CARGO=true", root.display());
    line.replacen("make", &format!("{make} RELEASE={}", folder.display()), 1)
}

fn succeeds((status, said): (std::process::ExitStatus, String), line: &str) -> String {
    assert!(status.success(), "`{line}`: {said}");
    said
}

/// The secret in what `wsnic token` prints.
fn token(said: &str) -> String {
    let (_, rest) = said.split_once("?token=").unwrap_or_else(|| panic!("no address in {said}"));
    rest.chars().take_while(|letter| !letter.is_whitespace()).collect()
}

/// Runs a command where wsnic serves seven guests; the seventh comes from [`FAR`].
fn with_seven_guests(lab: &Lab, home: &Home<'_>, command: &str) {
    home.write("wsnic.conf", "ws_server_addr = 0.0.0.0\n");
    lab.inet.ip(&format!("address add {FAR}/32 dev lo"));
    lab.inet.ip(&format!("route add {}/32 dev net0 src {FAR}", address::WAN));
    let server = serve(home, "wsnic run");
    let _others: Vec<RawGuest> = (1..7).map(|_| RawGuest::join(lab)).collect();
    let wan = SocketAddr::from((address::WAN, 8086));
    let mut guest = RawGuest::connect_to(&lab.inet, wan, "/", &[]).expect("it serves");
    guest.dhcp();
    if command.starts_with("wsnic pardon") {
        succeeds(home.launch("wsnic kick 7 --ban 1h", &[]).wait(), command);
    }
    if command.starts_with("wsnic capture") {
        capture(home, command, guest);
    } else {
        let said = succeeds(home.launch(command, &[]).wait(), command);
        if command.starts_with("wsnic kick") {
            assert_eq!(guest.close_code(), 1008, "{command}");
        } else if command.contains("sessions") {
            assert!(said.contains(FAR), "{command}: {said}");
        }
        let is_out = RawGuest::connect_to(&lab.inet, wan, "/", &[]).is_err();
        assert_eq!(is_out, command.contains("--ban"), "{command}");
    }
    succeeds(server.stop(), command);
}

/// Runs a command that ends with its session.
fn capture(home: &Home<'_>, command: &str, mut guest: RawGuest) {
    // What Wireshark would be shown.
    home.write("bin/wireshark", "#!/bin/sh\nexec cat > guest.pcapng\n");
    let stub = home.file("bin/wireshark");
    fs::set_permissions(stub, PermissionsExt::from_mode(0o755)).expect("a mode");
    let running = home.launch(command, &[]);
    let file = home.file("guest.pcapng");
    wait_until("the capture has begun", || file.metadata().is_ok_and(|file| file.len() > 0));
    guest.ping_gateway(56);
    guest.leave();
    succeeds(running.wait(), command);
    let bytes = fs::read(&file).expect("a file was made");
    assert!(bytes.starts_with(&PCAPNG) && bytes.len() > 300, "{command}: {} bytes", bytes.len());
}

/// Runs a command where wsnic speaks TLS, and asks for a token where the command has one.
fn with_tls(lab: &Lab, home: &Home<'_>, command: &str) {
    succeeds(home.launch(&format!("wsnic cert localhost {NAME}"), &[]).wait(), "wsnic cert");
    let hosts = home.file("hosts");
    home.write("hosts", &format!("127.0.0.1 localhost\n{} {NAME}\n", address::WAN));
    let bind = |from: &Path| mount(Some(from), HOSTS, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    lab.srv.enter(|| bind(&hosts).expect("a mount"));
    let mut conf =
        "ws_server_addr = 0.0.0.0\nwss_server_port = 443, 8087\ninet_iface = wan0\n".to_owned();
    let mut line = command.to_owned();
    if command.contains("TOKEN") {
        conf += "token_file = tokens\n";
        home.write("wsnic.conf", &conf);
        let made = home.launch("wsnic token alice --append", &[]).wait();
        line = line.replace("TOKEN", &token(&succeeds(made, "wsnic token")));
    }
    home.write(
        "wsnic.conf",
        &format!("{conf}[network lab]\nsubnet = 10.86.1.0/24\ninet_iface = wan0\n"),
    );
    let server = serve(home, "wsnic run");
    // A real certificate would be believed.
    let roots = home.file("cert/cert.crt");
    let environment = [("SSL_CERT_FILE", roots.to_str().expect("a path"))];
    let said = succeeds(home.launch(&line, &environment).wait(), command);
    assert!(said.contains("dns"), "{command}: {said}");
    succeeds(server.stop(), command);
    lab.srv.enter(|| umount(HOSTS).expect("it is mounted"));
}
