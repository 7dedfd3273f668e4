//! The image, run as a container by a real engine: the lines of both earlier manuals, unchanged.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;
use wsnic_tests::services::WEB_NAME;
use wsnic_tests::{
    Container, Engine, Identity, NativeGuest, RawGuest, Trust, address, commands_of, is_run,
    printed, wait_until,
};

/// From the manual of the version with `--docker-mode`.
const OLDER: &str = "sudo docker run --rm --interactive --tty \\
    -e WSNIC_ENABLE_HOSTNET=1 \\
    -v /var/local/crt/cert.crt:/opt/wsnic/cert/cert.crt \\
    -v /var/local/crt/cert.key:/opt/wsnic/cert/cert.key \\
    -p 8086:80 \\
    -p 8087:443 \\
    --cap-add=NET_ADMIN \\
    --device /dev/net/tun:/dev/net/tun \\
    --sysctl net.ipv4.ip_forward=1 \\
    wsnic:local";

/// From the manual of the version after it.
const NEWER: &str = "docker run --rm --interactive --tty \\
    --cap-add=NET_ADMIN \\
    --device /dev/net/tun:/dev/net/tun \\
    -p 8086:8086 \\
    chschnell86/wsnic -i";

/// What the same has against troubles, in the place of `--cap-add=NET_ADMIN`.
const NEWER_SYSCTLS: &str = "--cap-add=NET_ADMIN \\
    --sysctl net.ipv4.ip_forward=1 \\
    --sysctl net.ipv4.conf.all.forwarding=1 \\
    --sysctl net.ipv4.conf.default.forwarding=1 \\
    --sysctl net.ipv6.conf.all.forwarding=1 \\
    --sysctl net.ipv6.conf.default.forwarding=1";

/// From the same, with TLS.
const NEWER_TLS: &str = "docker run --rm --interactive --tty \\
    --cap-add=NET_ADMIN \\
    --device /dev/net/tun:/dev/net/tun \\
    -p 8086:8086 \\
    -p 8087:8087 \\
    -v ~/cert/cert.crt:/opt/wsnic/cert/cert.crt \\
    -v ~/cert/cert.key:/opt/wsnic/cert/cert.key \\
    chschnell86/wsnic -i";

/// How it is run where root is to have little, with a file system that cannot be written.
const CLOSED: &str = "docker run --rm --read-only --read-only-tmpfs=false --tmpfs /run \\
    --cap-drop=ALL --cap-add=NET_ADMIN --security-opt no-new-privileges \\
    --device /dev/net/tun -p 8086:8086 wsnic:local";

#[test]
fn the_older_manuals_line_serves_ws_and_wss_and_the_internet_with_two_users() {
    let engine = Engine::start(true);
    let trust = certificate(&engine, Path::new("/var/local/crt"));
    let container = engine.run(OLDER);
    let mut first = ws(&engine);
    first.dhcp();
    println!("an image of {} bytes", engine.image_size());
    println!("from docker run to the first lease: {:?}", container.started.elapsed());
    first.ping_gateway(56);
    let mut second = wss(&engine, &trust);
    second.dhcp();
    second.ping_gateway(56);
    let guest = NativeGuest::join(&engine.lab);
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    assert!(!guest.resolves(WEB_NAME).is_empty());
    assert_eq!(guest.hears(address::NEIGHBOUR, address::NAMED_PORT), None);
    is_locked_in(&container);
    let status = container.exec("/usr/bin/wsnic status");
    assert!(status.status.success(), "{}", printed(&status));
    assert!(printed(&status).contains("sessions  3 of"), "{}", printed(&status));
    // The others are still there, and do not answer the goodbye.
    drop(guest);
    ends_well(container);
    drop((first, second));
    engine.finish();
}

#[test]
fn the_newer_manuals_lines_serve_ws_and_wss() {
    let engine = Engine::start(true);
    let trust = certificate(&engine, &engine.file("cert"));
    for line in [NEWER, &NEWER.replace("--cap-add=NET_ADMIN", NEWER_SYSCTLS)] {
        let container = engine.run(line);
        let guest = NativeGuest::join(&engine.lab);
        assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
        drop(guest);
        ends_well(container);
    }
    let container = engine.run(NEWER_TLS);
    for mut guest in [ws(&engine), wss(&engine, &trust)] {
        guest.dhcp();
        guest.ping_gateway(56);
        guest.leave();
    }
    ends_well(container);
    engine.finish();
}

#[test]
fn the_variables_and_the_file_of_the_older_image_count() {
    let engine = Engine::start(true);
    fs::write(engine.file("wsnic.conf"), "max_clients=1\n").expect("a file");
    let line = OLDER.replace(
        "-e WSNIC_ENABLE_HOSTNET=1",
        "-e WSNIC_SUBNET=10.86.0.0/24 \\
        -e WSNIC_DHCP_LEASE_TIME=600 -e WSNIC_DHCP_DOMAIN_NAME=guests.example \\
        -e WSNIC_DHCP_NAMESERVER=9.9.9.9 -v ~/wsnic.conf:/opt/wsnic/wsnic.conf",
    );
    let line = without_certificate(&line);
    let container = engine.run(&line);
    let guest = NativeGuest::plug(&engine.lab);
    let lease = guest.dhcp();
    assert_eq!(lease.get("ip").rsplit_once('.').expect("an address").0, "10.86.0");
    assert_eq!(lease.get("lease"), "600");
    assert_eq!(lease.get("domain"), "guests.example");
    assert_eq!(lease.get("dns"), "9.9.9.9");
    assert!(RawGuest::connect_to(&engine.lab.lan, WS.into(), "/", &[]).is_err(), "one may come in");
    drop(guest);
    ends_well(container);
    let line = line.replace("WSNIC_SUBNET=10.86.0.0/24", "WSNIC_ENABLE_DHCP=0");
    let container = engine.run(&line);
    assert!(NativeGuest::plug(&engine.lab).try_dhcp().is_err());
    ends_well(container);
    engine.finish();
}

#[test]
fn with_a_closed_device_and_few_capabilities_it_says_what_is_missing_and_serves() {
    let engine = Engine::start(false);
    let container = engine.run(CLOSED);
    let mut guest = ws(&engine);
    guest.dhcp();
    guest.ping_gateway(56);
    let log = container.log();
    assert!(log.contains("wsnic-priv: the sandbox lacks: a user other than root"), "{log}");
    assert!(log.contains("chmod 0666 /dev/net/tun opens it"), "{log}");
    guest.leave();
    ends_well(container);
    engine.finish();
}

#[test]
fn words_work_behind_the_images_entry_point_and_its_health_is_asked_of_wsnic() {
    let engine = Engine::start(true);
    let health = engine.must("docker image inspect -f {{.Config.Healthcheck.Test}} wsnic:local");
    assert_eq!(health.trim(), "[CMD /usr/bin/wsnic status]");
    assert!(engine.must("docker run --rm wsnic:local template").contains("#ws_server_addr="));
    assert!(engine.must("docker run --rm wsnic:local --version").starts_with("wsnic "));
    let nobody_there = engine.shell("docker run --rm wsnic:local status");
    assert_eq!(nobody_there.status.code(), Some(1), "{}", printed(&nobody_there));
    let refused = engine.shell("docker run --rm wsnic:local");
    assert_eq!(refused.status.code(), Some(1), "without a device it does not start");
    assert!(printed(&refused).contains("--device /dev/net/tun"), "{}", printed(&refused));
    engine.finish();
}

#[test]
fn every_command_of_the_manual_does_what_it_says() {
    let engine = Engine::start(true);
    let mut servers = 0;
    for command in commands_of("docs/container.md") {
        if !is_run("docs/container.md", &command) {
            continue;
        }
        if command.starts_with("docker compose ") {
            engine.must(&command);
            if command.contains(" down") {
                // podman-compose makes a network that the file does not ask for, and leaves it.
                engine.must("docker network rm docker_default");
            } else {
                let mut guest = None;
                wait_until("the service is there", || {
                    guest = RawGuest::connect_to(&engine.lab.lan, WS.into(), "/", &[]).ok();
                    guest.is_some()
                });
                guest.expect("just connected").dhcp();
            }
        } else if command.ends_with(" wsnic") || command.starts_with("docker exec wsnic ") {
            let container = engine.run(&NEWER.replace("--rm", "--rm --name wsnic"));
            engine.must(&command);
            ends_well(container);
        } else if command.contains("--device") {
            servers += 1;
            let container = engine.run(&command);
            let mut guest = if command.contains("-p 8087:443") {
                let certificate = fs::read_to_string(engine.file("cert/cert.crt")).expect("made");
                wss(&engine, &Trust::new(&certificate, "localhost"))
            } else {
                ws(&engine)
            };
            guest.dhcp();
            for (name, uid) in [("wsnic-priv", "65523"), ("wsnic-front", "65522")] {
                assert_eq!(status(container.program(name), "Uid"), uid, "{command}");
            }
            guest.leave();
            ends_well(container);
        } else {
            engine.must(&command);
        }
    }
    assert!(servers >= 6, "the manual has {servers} ways to run it");
    engine.finish();
}

/// Where the engine publishes the ports of the container, as a neighbour sees it.
const WS: (Ipv4Addr, u16) = (address::LAN, 8086);
const WSS: (Ipv4Addr, u16) = (address::LAN, 8087);

fn ws(engine: &Engine) -> RawGuest {
    RawGuest::connect_to(&engine.lab.lan, WS.into(), "/", &[]).expect("ws is served")
}

fn wss(engine: &Engine, trust: &Trust) -> RawGuest {
    RawGuest::connect_tls(&engine.lab.lan, WSS.into(), "/", &[], trust).expect("wss is served")
}

/// Puts cert.crt and cert.key into a folder of the machine.
fn certificate(engine: &Engine, folder: &Path) -> Trust {
    let identity = Identity::self_signed(&["localhost"]);
    engine.lab.srv.enter(|| {
        fs::create_dir(folder).expect("a folder");
        fs::write(folder.join("cert.crt"), &identity.certificate).expect("a file");
        fs::write(folder.join("cert.key"), &identity.key).expect("a file");
    });
    Trust::new(&identity.certificate, "localhost")
}

fn without_certificate(line: &str) -> String {
    line.lines().filter(|line| !line.contains("/cert.")).collect::<Vec<_>>().join("\n")
}

/// `docker stop`: had wsnic not ended by itself, the engine would have killed it and said 137.
fn ends_well(container: Container<'_>) {
    let asked = Instant::now();
    let (status, log) = container.stop();
    println!("docker stop: {:?}", asked.elapsed());
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("stopping") && !log.contains("ERROR wsnic"), "{log}");
}

fn is_locked_in(container: &Container<'_>) {
    let log = container.log();
    for (name, uid, capabilities) in
        [("wsnic-priv", "65523", "0000000000001000"), ("wsnic-front", "65522", "0000000000000000")]
    {
        let pid = container.program(name);
        let value = |field| status(pid, field);
        assert_eq!(value("Uid"), uid, "{name}\n{log}");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(value(set), capabilities, "{name}: {set}");
        }
        assert_eq!((value("NoNewPrivs").as_str(), value("Seccomp").as_str()), ("1", "2"), "{name}");
    }
    let root = fs::read_dir(format!("/proc/{}/root", container.program("wsnic-front")));
    assert_eq!(root.expect("it runs").count(), 0, "the front-end sees an empty root");
    // A container has no namespaces to give away; everything else is there.
    let lacks: Vec<&str> = log.lines().filter(|line| line.contains("the sandbox lacks")).collect();
    assert!(
        matches!(lacks.as_slice(), [line] if line.contains("lacks: a network of its own (")
            && !line.contains(';')),
        "{lacks:?}"
    );
}

/// The first value of a line of /proc/PID/status.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
}
