//! Every wrong value is an error that says where, what, and what to do.

mod support;

use support::outcome;
use wsnic_proto::conf::{Given, Layer, Origin};
use wsnic_proto::{ConfFile, Facts, options, resolve};

fn error(text: &str) -> String {
    outcome(text, &Facts::default()).expect_err("the file is wrong").to_string()
}

#[test]
fn wrong_values_name_file_line_option_value_and_remedy() {
    let numbers = "is out of range or no whole number: give a whole number from";
    for (line, rest) in [
        (
            "ws_port=80,0",
            "ws_port=\"80,0\" contains \"0\", which is not a port: give numbers from 1 to 65535 \
             separated by commas, such as 8086",
        ),
        ("wss_port=+1", "wss_port=\"+1\" contains \"+1\", which is not a port: give numbers"),
        ("ws_port=,", "ws_port=\",\" names no port: give numbers from 1 to 65535"),
        (
            "ws_address=127.0.0.1 here",
            "ws_address=\"127.0.0.1 here\" contains \"here\", which is not an IP address: give \
             IPv4 or IPv6 addresses separated by commas, such as 127.0.0.1, ::1",
        ),
        (
            "ws_server_addr=,",
            "ws_server_addr=\",\" names no address: give IPv4 or IPv6 addresses separated by \
             commas, such as 127.0.0.1, ::1",
        ),
        ("max_clients=24001", &format!("max_clients=\"24001\" {numbers} 1 to 24000")),
        ("mtu=1500.0", &format!("mtu=\"1500.0\" {numbers} 576 to 65521")),
        ("mtu=70000", &format!("mtu=\"70000\" {numbers} 576 to 65521")),
        ("dhcp_lease_time=119", &format!("dhcp_lease_time=\"119\" {numbers} 120 to 4294967294")),
        (
            "dhcp_lease_time=99999999999999",
            &format!("dhcp_lease_time=\"99999999999999\" {numbers} 120 to 4294967294"),
        ),
        (
            "subnet=10.0.0.0/31",
            "subnet=\"10.0.0.0/31\" (10.0.0.0/31 cannot be the subnet, use a prefix from /8 to \
             /30 such as 192.168.86.0/24)",
        ),
        (
            "bridge_subnet=10.0.0.1/24",
            "bridge_subnet=\"10.0.0.1/24\" (10.0.0.1/24 has host bits set, the block is written \
             10.0.0.0/24)",
        ),
        ("subnet=x", "subnet=\"x\" (\"x\" is not an IPv4 block such as 192.168.86.0/24)"),
        ("subnet=127.0.0.0/8", "subnet=\"127.0.0.0/8\" (127.0.0.0/8 is not a range for hosts"),
        (
            "allow=10.0.0.0/8, fe80::/10",
            "allow=\"10.0.0.0/8, fe80::/10\" (\"fe80::/10\" is not an IPv4 block such as \
             192.168.86.0/24): give IPv4 blocks separated by commas",
        ),
        (
            "deny=192.168.86.1/24",
            "deny=\"192.168.86.1/24\" (192.168.86.1/24 has host bits set, the block is written \
             192.168.86.0/24): give IPv4 blocks separated by commas",
        ),
        ("enable_inet=eth0", "enable_inet=\"eth0\" is neither yes nor no: give yes or no (also"),
        ("disable_dhcp=maybe", "disable_dhcp=\"maybe\" is neither yes nor no: give yes or no"),
        ("allow_vlan=2", "allow_vlan=\"2\" is neither yes nor no: give yes or no"),
        ("enable_iperf=x", "enable_iperf=\"x\" is neither yes nor no: give yes or no"),
        (
            "inet_iface=eth0 eth1",
            "inet_iface=\"eth0 eth1\" cannot be an interface's name: give the name of a network \
             interface (\"ip link\" lists them), such as eth0",
        ),
        (
            "guest_access=wan",
            "guest_access=\"wan\" is none of the known words: give internet, lan or all",
        ),
        ("sandbox=yes", "sandbox=\"yes\" is none of the known words: give require, prefer or off"),
        ("host_firewall=x", "host_firewall=\"x\" is none of the known words: give report or open"),
        (
            "dhcp_service=isc",
            "dhcp_service=\"isc\" is none of the known words: give builtin, dnsmasq or disabled",
        ),
        (
            "dhcp_domain_name=-a",
            "dhcp_domain_name=\"-a\" is not a domain name: give a domain name of letters",
        ),
        (
            "dhcp_nameserver=8.8.8.8:8.8.4.4",
            "dhcp_nameserver=\"8.8.8.8:8.8.4.4\" contains \"8.8.8.8:8.8.4.4\", which is not an IP \
             address: give at most 63 IPv4 addresses separated by commas",
        ),
        (
            "metrics_listen=127.0.0.1:9100, ::1:9100",
            "metrics_listen=\"127.0.0.1:9100, ::1:9100\" contains \"::1:9100\", which is no \
             address with a port: give addresses with ports, separated by commas",
        ),
        (
            "metrics_listen=9100",
            "metrics_listen=\"9100\" contains \"9100\", which is no address with a port: give",
        ),
        (
            "metrics_listen=127.0.0.1:0",
            "metrics_listen=\"127.0.0.1:0\" contains \"127.0.0.1:0\", which is no address with",
        ),
        ("user=a b", "user=\"a b\" is not a user's name: give the name of a user"),
        ("user=-o", "user=\"-o\" is not a user's name: give the name of a user"),
    ] {
        let text = error(&format!("# first line\n{line}\n"));
        let expected = format!("wsnic.conf:2: {rest}");
        assert!(text.starts_with(&expected), "{text}\n{expected}");
        assert!(text.contains(": give "), "{text}");
    }
}

#[test]
fn too_many_name_servers_and_too_long_a_socket_path_are_refused() {
    let servers = vec!["9.9.9.9"; 64].join(",");
    let text = error(&format!("dhcp_nameserver={servers}"));
    assert!(text.contains("more than a DHCP answer can carry: give at most 63"), "{text}");
    let text = error(&format!("helper_socket=/{}", "x".repeat(107)));
    assert!(text.ends_with("give a path of at most 107 bytes such as /run/wsnic-priv.sock"));
    assert!(outcome(&format!("helper_socket=/{}", "x".repeat(106)), &Facts::default()).is_ok());
}

#[test]
fn wrong_values_of_the_door_name_what_would_be_right() {
    for (line, rest) in [
        (
            "allowed_origins=example.org",
            "contains \"example.org\", which is no origin: give origins",
        ),
        ("allowed_origins=https://a/b", "which is no origin"),
        ("trusted_proxies=10.0.0.1/8", "(\"10.0.0.1/8\" is not a block such as 10.0.0.0/8 or"),
        ("trusted_proxies=::/129", "is not a block"),
        ("listen=/run/x", "contains \"/run/x\": give unix: and a path"),
        ("listen=unix:x", "give unix: and a path"),
        ("listen_mode=0777", "is no such mode: give an octal mode from 0600 to 0666 such as 0660"),
        ("listen_mode=060", "is no such mode"),
        ("listen_owner=a:", "names no user: give a user, or user:group"),
        ("wss_client_cert=maybe", "is none of the known words: give required or optional"),
        ("handshake_rate=-1", "give a whole number from 0 to 100000"),
        ("ban_after=0", "give a whole number from 1 to 1000000"),
    ] {
        let text = error(line);
        assert!(text.starts_with("wsnic.conf:1: ") && text.contains(rest), "{line}: {text}");
    }
}

#[test]
fn origins_are_compared_as_browsers_send_them() {
    let text = "allowed_origins=HTTPS://Example.org:443, http://localhost:8000 http://a:80";
    let (settings, _) = outcome(text, &Facts::default()).unwrap();
    let origins = ["https://example.org", "http://localhost:8000", "http://a"];
    assert_eq!(settings.door.allowed_origins, origins);
}

#[test]
fn one_port_may_be_for_ws_and_wss() {
    let (settings, _) = outcome("wss_certificate=c\nws_port=8087", &Facts::default()).unwrap();
    assert_eq!(settings.server.ws_ports, settings.server.wss_ports);
}

#[test]
fn a_block_that_is_none_is_shown_short_and_escaped() {
    let text = error("subnet=10.0.0.0/8\u{2066}\u{200b}");
    assert!(text.contains("(\"10.0.0.0/8\\u{2066}\\u{200b}\" is not an IPv4 block"), "{text}");
    let text = error(&format!("allow={}", "9".repeat(100_000)));
    assert!(text.len() < 500, "{text}");
}

#[test]
fn errors_of_command_line_and_environment_name_the_option_or_variable() {
    let mut layer = Layer::new();
    let (spec, _) = options::find("ws_port").unwrap();
    layer.set(spec, None, Given::new(Origin::CommandLine, "--ws-server-port", "x")).unwrap();
    let error = resolve(&ConfFile::default(), &layer, &Facts::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "command line: --ws-server-port=\"x\" contains \"x\", which is not a port: give numbers \
         from 1 to 65535 separated by commas, such as 8086"
    );
    for (name, value, expected) in [
        ("WSNIC_SUBNET", "y", "WSNIC_SUBNET=\"y\" (\"y\" is not an IPv4 block"),
        ("WSNIC_ENABLE_DHCP", "z", "WSNIC_ENABLE_DHCP=\"z\" is neither yes nor no: give yes or no"),
    ] {
        let environment = vec![(name, value.to_owned())];
        let facts = Facts { docker_mode: true, environment, ..Facts::default() };
        let error = outcome("", &facts).unwrap_err().to_string();
        assert!(error.starts_with(&format!("environment: {expected}")), "{error}");
    }
}
