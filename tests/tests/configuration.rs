//! Configuration files of every generation, and what is said about broken ones.

use wsnic_tests::{Lab, NativeGuest, Server, address, run_wsnic};

/// As each generation's README spelt the same wishes.
const GENERATIONS: [(&str, &str); 3] = [
    (
        "oldest",
        "# wsnic.conf\nws_server_addr=127.0.0.1\nws_server_port=8099\neth_iface=wan0\n\
         bridge_subnet=10.86.0.0/24\ndhcp_service=internal\ndhcp_lease_time=7200\n\
         dhcp_domain=guests.example\ndhcp_domain_name_server=93.184.216.53\n",
    ),
    (
        "middle",
        "ws_server_addr=127.0.0.1\nws_server_port=8099\ninet_iface=wan0\nsubnet=10.86.0.0/24\n\
         dhcp_service=builtin\ndhcp_lease_time=7200\ndhcp_domain_name=guests.example\n\
         dhcp_nameserver=93.184.216.53\n",
    ),
    (
        "newest",
        "; wsnic.conf\nWS_ADDRESS: 127.0.0.1\nws_port: 8099\nenable_inet: 1\ninet_iface: wan0\n\
         subnet: 10.86.0.0/24\ndisable_dhcp: 0\ndhcp_lease_time: 7200\n\
         dhcp_domain_name: guests.example\ndhcp_nameserver: 93.184.216.53\nenable_iperf: 0\n",
    ),
];

#[test]
fn the_files_of_all_three_generations_have_the_same_effect() {
    for (generation, conf) in GENERATIONS {
        let lab = Lab::new();
        let server = Server::start(&lab, conf);
        assert!(server.log().contains("ws://127.0.0.1:8099"), "{generation}: {}", server.log());
        let address = ([127, 0, 0, 1], 8099).into();
        let guest = NativeGuest::plug_into(&lab.srv, address, 1500);
        let lease = guest.dhcp();
        for (name, value) in [
            ("ip", "10.86.0.2"),
            ("router", "10.86.0.1"),
            ("dns", "93.184.216.53"),
            ("domain", "guests.example"),
            ("lease", "7200"),
        ] {
            assert_eq!(lease.get(name), value, "{generation}: {lease:?}");
        }
        let web = guest.hears(address::WEB, address::NAMED_PORT);
        assert_eq!(web.as_deref(), Some("web"), "{generation}");
        server.stop();
        lab.finish();
    }
}

#[test]
fn broken_files_are_refused_with_file_line_and_the_offending_text() {
    let lab = Lab::new();
    for (conf, line, text) in [
        ("inet_iface = wan0\nthis is no option\n", 2, "this is no option"),
        ("subnet = 192.168.86.0/24\n\nsubnet = 10.0.0.0/8\n", 3, "subnet"),
        ("ws_server_port = 80860\n", 1, "80860"),
        ("\n\n\nsubnet = 192.168.86.0/33\n", 4, "192.168.86.0/33"),
        ("guest_access = everything\n", 1, "everything"),
        ("enable_inet = perhaps\n", 1, "perhaps"),
        ("dhcp_nameserver = 9.9.9.9, nobody\n", 1, "nobody"),
        ("inet_iface = a/b\n", 1, "a/b"),
    ] {
        let log = Server::refuses(&lab, conf, &[]);
        let place = format!("{}:{line}", lab.file("wsnic.conf").display());
        assert!(log.contains(&place) && log.contains(text), "{conf:?} gives:\n{log}");
    }
    lab.finish();
}

#[test]
fn an_unknown_option_is_a_warning() {
    let lab = Lab::new();
    let server = Server::start(&lab, "# old\ntap_speed = 7\n");
    let expected = format!("{}:2: unknown option", lab.file("wsnic.conf").display());
    let log = server.stop();
    assert!(log.contains(&expected) && log.contains("tap_speed"), "{log}");
    lab.finish();
}

#[test]
fn a_missing_file_that_was_named_is_an_error() {
    let lab = Lab::new();
    let (status, text) = run_wsnic(&lab.srv, &["run", "-c", "/nowhere/wsnic.conf"]);
    assert!(!status.success() && text.contains("/nowhere/wsnic.conf"), "{text}");
    lab.finish();
}

#[test]
fn a_network_interface_that_is_not_there_is_named() {
    let lab = Lab::new();
    let log = Server::refuses(&lab, "inet_iface = wan9\n", &[]);
    assert!(log.contains("wan9"), "{log}");
    lab.finish();
}

#[test]
fn check_says_what_is_wrong_and_leaves_everything_as_it_was() {
    let lab = Lab::new();
    let conf = lab.file("wsnic.conf");
    let path = conf.to_str().expect("a temporary folder's name is text");
    let check = |text: &str| {
        std::fs::write(&conf, text).expect("a file in the lab's folder");
        run_wsnic(&lab.srv, &["check", "-c", path])
    };
    let (status, text) = check("inet_iface = wan0\n");
    assert!(status.success(), "{text}");
    let (status, text) = check("subnet = 192.168.50.0/24\n");
    assert!(!status.success() && text.contains("lan0"), "the subnet is lan0's: {text}");
    let (status, text) = check("ws_server_port = none\n");
    assert!(!status.success() && text.contains(&format!("{path}:1")), "{text}");
    let taken =
        lab.srv.enter(|| std::net::TcpListener::bind("127.0.0.1:8086")).expect("a free port");
    let (status, text) = check("");
    assert!(!status.success() && text.contains("8086"), "{text}");
    drop(taken);
    lab.finish();
}

#[test]
fn with_no_subcommand_wsnic_runs() {
    let lab = Lab::new();
    let mut command = std::process::Command::new(wsnic_tests::wsnic());
    std::fs::write(lab.file("wsnic.conf"), "ws_server_port = 8099\n").expect("a file");
    let log = std::fs::File::create(lab.file("wsnic.log")).expect("a file");
    command.arg("-c").arg(lab.file("wsnic.conf")).stdin(std::process::Stdio::null());
    command.stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut child = lab.srv.spawn(&mut command);
    wsnic_tests::wait_until("it is ready", || {
        std::fs::read_to_string(lab.file("wsnic.log")).is_ok_and(|log| log.contains("ws://"))
    });
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    assert!(child.wait().expect("a child can be waited for").success());
    lab.finish();
}
