//! wsnic under a systemd that has booted: started by its sockets, supervised, reloaded, stopped.
//!
//! Every test ends with `Bed::finish`, which stops all units and looks for what they left.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use wsnic_tests::services::WEB_NAME;
use wsnic_tests::{Bed, Identity, Lab, NativeGuest, RawGuest, Trust, address, wait_until};

const HELPER: &str = "wsnic-priv.service";
const FRONT_END: &str = "wsnic-front.service";

#[test]
fn the_sockets_start_both_services_for_the_first_guest() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "inet_iface = wan0\n");
    for service in [FRONT_END, HELPER] {
        assert_eq!(bed.property(service, "ActiveState"), "inactive", "{service}");
    }
    let guest = NativeGuest::join(&lab);
    assert!(guest.pings(address::GATEWAY));
    assert_eq!(guest.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    wait_until("both services are ready", || [FRONT_END, HELPER].iter().all(|s| bed.is_active(s)));
    assert_eq!(bed.property(FRONT_END, "StatusText"), "serving");
    assert_eq!(bed.property(HELPER, "NFileDescriptorStore"), "1", "the front-end's connection");
    bed.finish(&lab);
    drop(guest);
}

#[test]
fn no_service_has_more_than_it_needs() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    let guest = RawGuest::join(&lab);
    let (helper, front_end) = (running(&bed, HELPER), running(&bed, FRONT_END));
    let users = fs::read_to_string(bed.path("/etc/passwd")).expect("the machine has users");
    for (pid, user, capabilities) in
        [(helper, "wsnic-priv", "0000000000001000"), (front_end, "wsnic", "0000000000000000")]
    {
        let entry = users.lines().find_map(|line| line.strip_prefix(&format!("{user}:x:")));
        let uid = entry.and_then(|entry| entry.split(':').next()).expect("sysusers.d made it");
        for thread in threads(pid) {
            assert_eq!(status(thread, "Uid"), [uid; 4], "{user}");
            assert!(status(thread, "Groups").iter().all(|gid| gid != "0"), "{user}");
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(status(thread, set), [capabilities], "{user}: {set}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(status(thread, set), ["0000000000000000"], "{user}: {set}");
            }
            assert_eq!(status(thread, "NoNewPrivs"), ["1"], "{user}");
            assert_eq!(status(thread, "Seccomp"), ["2"], "{user}");
        }
    }
    for kind in ["net", "user", "mnt", "ipc"] {
        assert_ne!(namespace(front_end, kind), namespace(bed.init(), kind), "{kind}");
    }
    assert_eq!(namespace(helper, "net"), namespace(bed.init(), "net"), "the one that it works on");
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn dnsmasq_serves_as_a_unit_of_its_own_without_any_privilege() {
    const UNIT: &str = "wsnic-dnsmasq@default.service";
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "dhcp_service = dnsmasq\ninet_iface = wan0\n");
    bed.run(&format!("systemctl enable --quiet {UNIT}"));
    let early = NativeGuest::join(&lab);
    assert_eq!(early.resolves("native"), [early.ip()]);
    assert_eq!(early.resolves(WEB_NAME), [address::WEB]);
    let keeper = running(&bed, UNIT);
    let dnsmasq = wsnic_tests::processes(&lab.srv)
        .iter()
        .find_map(|line| line.strip_suffix(" dnsmasq")?.parse().ok())
        .expect("it runs");
    for pid in [keeper, dnsmasq] {
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status(pid, set), ["0000000000000000"], "{set}");
        }
        assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
        assert!(status(pid, "Uid").iter().all(|uid| uid != "0"));
    }
    assert_eq!(bed.property(UNIT, "NFileDescriptorStore"), "1", "its leases");
    send(dnsmasq, Signal::SIGKILL);
    bed.successor(UNIT, keeper);
    let late = NativeGuest::join(&lab);
    assert_ne!(late.ip(), early.ip(), "leases outlive it");
    bed.finish(&lab);
    drop((early, late));
}

#[test]
fn the_front_end_sees_an_empty_machine() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    let guest = RawGuest::join(&lab);
    let front_end = running(&bed, FRONT_END);
    let list = |path: &str| {
        let entries = fs::read_dir(format!("/proc/{front_end}/root/{path}")).expect(path);
        let name =
            |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        names
    };
    for name in list("") {
        // The last two hold the C library.
        let known = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"];
        assert!(known.contains(&&*name) || name.starts_with("lib"), "/{name}");
    }
    assert_eq!(list("etc"), ["ld.so.cache", "wsnic"]);
    assert_eq!(list("usr/libexec/wsnic"), ["wsnic-front"]);
    assert_eq!(list("run"), ["systemd", "wsnic-admin.sock", "wsnic-priv.sock"]);
    for empty in ["sys", "tmp", "var/lib/wsnic", "var/tmp"] {
        assert!(list(empty).is_empty(), "/{empty}");
    }
    assert_eq!(list("usr/bin"), ["wsnic"], "which a reload runs");
    for hidden in ["etc/passwd", "home", "dev/net/tun"] {
        assert!(fs::metadata(format!("/proc/{front_end}/root/{hidden}")).is_err(), "/{hidden}");
    }
    let interfaces = fs::read_to_string(format!("/proc/{front_end}/net/dev")).expect("it runs");
    assert!(!interfaces.contains("wsbr0") && !interfaces.contains("wan0"), "{interfaces}");
    let mounts = fs::read_to_string(format!("/proc/{front_end}/mounts")).expect("it runs");
    for mount in mounts.lines() {
        let options: Vec<&str> = mount.split(' ').nth(3).unwrap_or_default().split(',').collect();
        let closed = options.contains(&"ro") || options.contains(&"noexec");
        assert!(closed || mount.starts_with("devpts "), "can be written and run: {mount}");
    }
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn a_killed_helper_comes_back_and_no_session_ends() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "inet_iface = wan0\n");
    let old = NativeGuest::join(&lab);
    let (helper, front_end) = (running(&bed, HELPER), running(&bed, FRONT_END));
    send(helper, Signal::SIGKILL);
    assert!(old.pings(address::GATEWAY), "while there is no helper");
    bed.successor(HELPER, helper);
    let new = NativeGuest::join(&lab);
    assert!(new.pings(old.ip()), "the old session is on the same network");
    assert_eq!(old.hears(address::WEB, address::NAMED_PORT).as_deref(), Some("web"));
    assert_eq!(bed.process(FRONT_END), Some(front_end), "the front-end is the same");
    bed.finish(&lab);
    drop((old, new));
}

#[test]
fn a_restarted_helper_serves_new_guests() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    drop(RawGuest::join(&lab));
    let helper = running(&bed, HELPER);
    bed.run("systemctl restart wsnic-priv.service");
    bed.successor(HELPER, helper);
    wait_until("a new guest is served", || {
        RawGuest::connect_to(&lab.srv, wsnic_tests::Server::address(), "/", &[]).is_ok()
    });
    RawGuest::join(&lab).ping_gateway(56);
    bed.finish(&lab);
}

#[test]
fn a_killed_front_end_comes_back_for_the_next_guest() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    let mut lost = RawGuest::join(&lab);
    let (helper, front_end) = (running(&bed, HELPER), running(&bed, FRONT_END));
    send(front_end, Signal::SIGKILL);
    assert_eq!(lost.close_code(), 1006);
    // Its client need not know: the listener is systemd's.
    let mut guest = RawGuest::join(&lab);
    guest.ping_gateway(56);
    assert_eq!(lab.ports(), 1, "the port of the lost session is gone");
    bed.successor(FRONT_END, front_end);
    assert_eq!(bed.process(HELPER), Some(helper), "the helper is the same");
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn six_crashes_in_a_row_do_not_close_the_socket() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    drop(RawGuest::join(&lab));
    let mut last = 0;
    for _ in 0..6 {
        wait_until("the front-end is started again", || {
            bed.process(FRONT_END).is_some_and(|pid| pid != last)
        });
        if let Some(pid) = bed.process(FRONT_END) {
            send(pid, Signal::SIGKILL);
            last = pid;
        }
    }
    assert!(bed.is_active("wsnic-front.socket"));
    RawGuest::join(&lab).ping_gateway(56);
    bed.finish(&lab);
}

#[test]
fn services_that_hang_are_killed_by_the_watchdog_and_come_back() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    let guest = RawGuest::join(&lab);
    let (helper, front_end) = (running(&bed, HELPER), running(&bed, FRONT_END));
    for pid in [helper, front_end] {
        send(pid, Signal::SIGSTOP);
    }
    bed.successor(HELPER, helper);
    bed.successor(FRONT_END, front_end);
    for service in [HELPER, FRONT_END] {
        assert!(bed.journal(service).contains("Watchdog timeout"), "{service}");
    }
    drop(guest);
    RawGuest::join(&lab).ping_gateway(56);
    bed.finish(&lab);
}

#[test]
fn a_service_that_is_well_is_left_alone_by_the_watchdog() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    let mut guest = RawGuest::join(&lab);
    let before = (running(&bed, HELPER), running(&bed, FRONT_END));
    let stamp = |service| bed.property(service, "WatchdogTimestampMonotonic");
    for service in [HELPER, FRONT_END] {
        let first = stamp(service);
        wait_until("it says that it lives, twice", || stamp(service) != first);
        let second = stamp(service);
        wait_until("it says that it lives, twice", || stamp(service) != second);
    }
    assert_eq!((running(&bed, HELPER), running(&bed, FRONT_END)), before);
    guest.ping_gateway(56);
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn a_reload_applies_guest_access_and_ends_no_session() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    let helper = running(&bed, HELPER);
    assert_eq!(guest.hears(address::NEIGHBOUR, address::NAMED_PORT), None);
    bed.set_conf("inet_iface = wan0\nguest_access = lan\n");
    bed.run("systemctl reload wsnic-priv.service");
    wait_until("the guest reaches the neighbour", || {
        guest.hears(address::NEIGHBOUR, address::NAMED_PORT).as_deref() == Some("lan")
    });
    bed.set_conf("inet_iface = wan0\n");
    bed.run("systemctl reload wsnic-priv.service");
    wait_until("the guest does not reach the neighbour", || {
        guest.hears(address::NEIGHBOUR, address::NAMED_PORT).is_none()
    });
    // An error of the log is one for the journal too, and only that.
    let errors = "journalctl --no-pager --output=cat --priority=err --unit=wsnic-*";
    assert_eq!(bed.run(errors), "", "all is well so far");
    bed.set_conf("nonsense\n");
    bed.output("systemctl reload wsnic-priv.service");
    bed.wait_for_journal(HELPER, "not reloaded");
    let said = bed.run(errors);
    assert!(said.starts_with("ERROR wsnic-priv: not reloaded"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(guest.pings(address::GATEWAY), "the session is the same");
    assert_eq!(bed.process(HELPER), Some(helper), "the helper is the same");
    bed.finish(&lab);
    drop(guest);
}

#[test]
fn leases_are_kept_in_the_state_folder() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "dhcp_lease_file = /var/lib/wsnic/leases\n");
    let guest = RawGuest::join(&lab);
    let (address, mac) = (guest.ip, guest.mac);
    drop(guest);
    bed.run("systemctl restart wsnic-front.service");
    let leases = fs::read_to_string(bed.path("/var/lib/wsnic/leases")).expect("a lease file");
    assert!(leases.contains(&address.to_string()), "{leases}");
    let mut again = RawGuest::connect(&lab);
    again.mac = mac;
    again.dhcp();
    assert_eq!(again.ip, address);
    drop(again);
    bed.finish(&lab);
}

#[test]
fn a_drop_in_moves_the_listener_and_limits_who_may_connect() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    drop(RawGuest::join(&lab));
    let folder = bed.path("/etc/systemd/system/wsnic-front.socket.d");
    fs::create_dir(&folder).expect("a folder of the machine");
    let text = "[Socket]\nListenStream=\nListenStream=0.0.0.0:8090\n\
        IPAddressAllow=192.168.50.0/24\nIPAddressDeny=any\n";
    fs::write(folder.join("address.conf"), text).expect("a file of the machine");
    bed.run("systemctl daemon-reload");
    bed.run("systemctl restart wsnic-front.socket");
    let server = (address::LAN, 8090).into();
    let guest = RawGuest::connect_to(&lab.lan, server, "/", &[]).expect("from the LAN");
    let from_internet = lab.inet.enter(|| {
        let server = (address::WAN, 8090).into();
        std::net::TcpStream::connect_timeout(&server, std::time::Duration::from_secs(2))
    });
    assert!(from_internet.is_err(), "not from elsewhere");
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn a_key_that_only_root_can_read_comes_in_as_a_credential_and_is_replaced_by_a_reload() {
    let mut lab = Lab::new();
    let conf = "wss_server_cert = /etc/wsnic/wss.crt\nwss_server_key = /etc/wsnic/wss.key\n";
    let bed = Bed::start(&mut lab, conf);
    let install = |identity: &Identity| {
        for (name, text) in [("wss.crt", &identity.certificate), ("wss.key", &identity.key)] {
            let path = bed.path(&format!("/etc/wsnic/{name}"));
            fs::write(&path, text).expect("a file of the machine");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
        }
        Trust::new(&identity.certificate, "localhost")
    };
    let trust = install(&Identity::self_signed(&["localhost"]));
    let folder = bed.path("/etc/systemd/system/wsnic-front.service.d");
    fs::create_dir(&folder).expect("a folder of the machine");
    let text = "[Service]\nLoadCredential=wss_server_cert:/etc/wsnic/wss.crt\n\
        LoadCredential=wss_server_key:/etc/wsnic/wss.key\n";
    fs::write(folder.join("keys.conf"), text).expect("a file of the machine");
    bed.run("systemctl daemon-reload");
    bed.run("systemctl start wsnic-front-wss.socket");
    let connect = |trust| {
        let server = ([127, 0, 0, 1], 8087).into();
        RawGuest::connect_tls(&lab.srv, server, "/", &[], trust)
    };
    let mut guest = connect(&trust).expect("wss is served");
    guest.dhcp();
    let front_end = running(&bed, FRONT_END);
    let next = install(&Identity::self_signed(&["localhost"]));
    bed.run("systemctl reload wsnic-front.service");
    connect(&next).expect("with the new certificate").leave();
    assert!(connect(&trust).is_err(), "the old one is gone");
    guest.ping_gateway(56);
    assert_eq!(bed.process(FRONT_END), Some(front_end), "the front-end is the same");
    drop(guest);
    bed.finish(&lab);
}

#[test]
fn monitoring_has_a_socket_of_its_own() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "metrics_listen = 127.0.0.1:9100\n");
    RawGuest::join(&lab).leave();
    bed.wait_for_journal(FRONT_END, "enable --now wsnic-front-metrics.socket");
    bed.run("systemctl stop wsnic-front.service wsnic-priv.service");
    bed.run("systemctl enable --quiet --now wsnic-front-metrics.socket");
    lab.settle();
    assert!(!bed.is_active(FRONT_END));
    assert_eq!(lab.srv.run("curl -s http://127.0.0.1:9100/readyz"), "ok\n", "starts what it asks");
    let metrics = lab.srv.run("curl -s http://127.0.0.1:9100/metrics");
    assert!(metrics.contains("\nwsnic_helper_up 1\n"), "{metrics}");
    RawGuest::join(&lab).leave();
    bed.finish(&lab);
}

#[test]
fn starting_wsnic_one_way_ends_the_other() {
    let mut lab = Lab::new();
    let bed = Bed::start(&mut lab, "");
    drop(RawGuest::join(&lab));
    bed.run("systemctl start wsnic.service");
    for unit in wsnic_tests::UNITS {
        assert_eq!(bed.property(unit, "ActiveState"), "inactive", "{unit}");
    }
    RawGuest::join(&lab).ping_gateway(56);
    bed.run("systemctl reload wsnic.service");
    bed.run("systemctl start wsnic-front.socket wsnic-priv.socket");
    assert_eq!(bed.property("wsnic.service", "ActiveState"), "inactive");
    RawGuest::join(&lab).ping_gateway(56);
    bed.finish(&lab);
}

fn running(bed: &Bed, service: &str) -> u32 {
    let mut pid = None;
    wait_until("the service is ready", || {
        pid = bed.process(service).filter(|_| bed.is_active(service));
        pid.is_some()
    });
    pid.expect("just found")
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("the process lives");
}

fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let id = |task: std::io::Result<fs::DirEntry>| task.ok()?.file_name().to_str()?.parse().ok();
    tasks.filter_map(id).collect()
}

/// The values of a line of /proc/PID/status.
fn status(pid: u32, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("a line of status").split_whitespace().map(str::to_owned).collect()
}

fn namespace(pid: u32, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("the process lives")
}
