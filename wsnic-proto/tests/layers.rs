//! Which origin wins, and what a container changes.

mod support;

use std::ffi::OsString;
use support::outcome;
use wsnic_proto::conf::{Given, Layer, Origin};
use wsnic_proto::settings::{DhcpService, Nat};
use wsnic_proto::{ConfFile, Facts, Settings, options, resolve};

fn command_line(values: &[(&str, &str)]) -> Layer {
    let mut layer = Layer::new();
    for (name, value) in values {
        let (spec, switch) = options::find(name).expect("a known name");
        let given = Given::new(Origin::CommandLine, &format!("--{name}"), value);
        layer.set(spec, switch, given).expect("a good value");
    }
    layer
}

fn all(file: &str, values: &[(&str, &str)], facts: &Facts) -> (Settings, Vec<String>) {
    let file = ConfFile::parse("wsnic.conf", file.as_bytes()).expect("a good file");
    let (settings, warnings) = resolve(&file, &command_line(values), facts).expect("good values");
    (settings, warnings.iter().map(ToString::to_string).collect())
}

fn container(environment: &[(&'static str, &str)]) -> Facts {
    let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Facts { docker_mode: true, environment: environment.collect(), ..Facts::default() }
}

#[test]
fn command_line_beats_environment_beats_file() {
    let facts = container(&[("WSNIC_SUBNET", "10.2.0.0/16"), ("WSNIC_DHCP_LEASE_TIME", "200")]);
    let file = "subnet=10.1.0.0/16\ndhcp_lease_time=100000\nmtu=1400";
    let (settings, _) = all(file, &[("subnet", "10.3.0.0/16")], &facts);
    assert_eq!(settings.network.plan.subnet().to_string(), "10.3.0.0/16");
    assert_eq!(settings.network.dhcp.lease_time, 200);
    assert_eq!(settings.network.mtu, 1400);
}

#[test]
fn an_empty_value_on_the_command_line_takes_the_file_s_value_back() {
    let (settings, _) = all("inet_iface=eth0", &[("inet_iface", "")], &Facts::default());
    assert_eq!(settings.network.nat, Nat::Off);
}

#[test]
fn docker_mode_has_the_container_s_address_and_the_ports_of_both_earlier_images() {
    let (settings, _) = all("", &[], &container(&[]));
    assert_eq!(settings.server.addresses[0].to_string(), "0.0.0.0");
    assert_eq!(settings.server.ws_ports, [80, 8086]);
    assert_eq!(settings.server.wss_ports, [443, 8087]);
    let (settings, _) = all("ws_port=81", &[("ws_server_addr", "::1")], &container(&[]));
    assert_eq!(settings.server.addresses[0].to_string(), "::1");
    assert_eq!(settings.server.ws_ports, [81]);
    assert_eq!(settings.server.wss_ports, [443, 8087]);
}

#[test]
fn a_detected_container_keeps_the_ports_and_listens_everywhere() {
    let facts = Facts { container: true, ..Facts::default() };
    let (settings, _) = all("", &[], &facts);
    assert_eq!(settings.server.addresses[0].to_string(), "0.0.0.0");
    assert_eq!(settings.server.ws_ports, [8086]);
    assert_eq!(settings.server.wss_ports, [8087]);
}

#[test]
fn every_variable_of_the_container_counts() {
    let facts = container(&[
        ("WSNIC_SUBNET", "10.2.0.0/16"),
        ("WSNIC_ENABLE_HOSTNET", "1"),
        ("WSNIC_ENABLE_DHCP", "0"),
        ("WSNIC_DHCP_LEASE_TIME", "7200"),
        ("WSNIC_DHCP_DOMAIN_NAME", "a.example"),
        ("WSNIC_DHCP_NAMESERVER", "9.9.9.9,1.1.1.1"),
    ]);
    let (settings, warnings) = all("", &[], &facts);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings.network.plan.subnet().to_string(), "10.2.0.0/16");
    assert_eq!(settings.network.nat, Nat::DefaultRoute);
    assert_eq!(settings.network.dhcp.service, DhcpService::Disabled);
    assert_eq!(settings.network.dhcp.lease_time, 7200);
    assert_eq!(settings.network.dhcp.domain_name.as_deref(), Some("a.example"));
    assert_eq!(settings.network.dhcp.nameservers.len(), 2);
}

#[test]
fn enabling_dhcp_in_the_environment_leaves_the_choice_of_service_alone() {
    let facts = container(&[("WSNIC_ENABLE_DHCP", "1"), ("WSNIC_SUBNET", "")]);
    assert_eq!(
        all("dhcp_service=dnsmasq", &[], &facts).0.network.dhcp.service,
        DhcpService::Dnsmasq
    );
    assert_eq!(all("", &[], &facts).0.network.dhcp.service, DhcpService::Builtin);
}

#[test]
fn variables_outside_a_container_are_ignored_with_a_warning() {
    let facts = Facts { docker_mode: false, ..container(&[("WSNIC_SUBNET", "rubbish")]) };
    let (settings, warnings) = all("", &[], &facts);
    assert_eq!(settings, all("", &[], &Facts::default()).0);
    assert_eq!(
        warnings,
        ["environment: WSNIC_SUBNET is ignored outside a container: add --docker-mode to use it, \
          or unset it"]
    );
}

#[test]
fn an_interface_that_another_place_switches_off_is_warned_about() {
    let (settings, warnings) = all("enable_inet=0", &[("inet_iface", "eth0")], &Facts::default());
    assert_eq!(settings.network.nat, Nat::Off);
    assert_eq!(
        warnings,
        ["command line: interface eth0 is not used: wsnic.conf:1 says enable_inet=no"]
    );
    assert_eq!(all("enable_inet=0\ninet_iface=eth0", &[], &Facts::default()).1, [""; 0]);
    let (settings, warnings) = all("inet_iface=eth0", &[("enable_inet", "0")], &Facts::default());
    assert_eq!((settings.network.nat, warnings.len()), (Nat::Off, 1));
}

#[test]
fn certificate_and_key_are_found_where_earlier_versions_looked() {
    let gather = |docker_mode, files: &'static [&'static str]| {
        Facts::gather(docker_mode, |path| files.contains(&path), |_| None).unwrap()
    };
    let tls = |facts: &Facts| {
        let server = all("", &[], facts).0.server;
        (server.wss_cert, server.wss_key)
    };
    let files: &[&str] = &["cert/cert.crt", "cert/cert.key"];
    let found = Some("cert/cert.crt".into());
    assert_eq!(tls(&gather(false, files)), (found, Some("cert/cert.key".into())));
    assert_eq!(tls(&gather(false, &["cert/cert.key"])), (None, None));
    let files: &[&str] = &["/opt/wsnic/cert/cert.crt"];
    assert_eq!(tls(&gather(false, files)), (None, None));
    assert_eq!(tls(&gather(true, files)), (Some("/opt/wsnic/cert/cert.crt".into()), None));
    let files: &[&str] = &["/run/.containerenv", "/opt/wsnic/cert/cert.crt"];
    let facts = gather(false, files);
    assert!(facts.container && !facts.docker_mode);
    assert!(tls(&facts).0.is_some());
}

#[test]
fn a_found_key_beside_a_named_certificate_is_used_with_a_warning() {
    let facts = Facts { key: Some("cert/cert.key"), ..Facts::default() };
    let (settings, warnings) = outcome("wss_certificate=/etc/a.pem", &facts).unwrap();
    assert_eq!(settings.server.wss_key.unwrap().to_str(), Some("cert/cert.key"));
    assert_eq!(
        warnings,
        ["wsnic.conf:1: the private key is taken from cert/cert.key, which exists: set \
          wss_server_key if that is not the key of this certificate"]
    );
}

#[test]
fn a_key_without_certificate_is_warned_about_and_left_out() {
    let (settings, warnings) = outcome("wss_private_key=k", &Facts::default()).unwrap();
    assert_eq!(settings.server.wss_key, None);
    assert_eq!(
        warnings,
        ["wsnic.conf:1: wss_server_key is not used: set wss_server_cert too for wss://"]
    );
}

#[test]
fn facts_ask_for_each_variable_of_the_table() {
    let value = |name: &str| (name == "WSNIC_SUBNET").then(|| OsString::from("10.0.0.0/8"));
    let facts = Facts::gather(true, |_| false, value).unwrap();
    assert_eq!(facts.environment, [("WSNIC_SUBNET", "10.0.0.0/8".to_owned())]);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_an_error_that_names_it() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = |_: &str| Some(OsString::from_vec(vec![b'a', 0xff]));
    let error = Facts::gather(true, |_| false, value).unwrap_err().to_string();
    assert!(error.starts_with("environment: \"WSNIC_SUBNET=a\u{fffd}\" is not UTF-8"), "{error}");
}

#[test]
fn a_reload_takes_what_can_change_and_names_the_rest() {
    let old = "subnet=10.0.0.0/24\nguest_access=internet\nallow=10.9.0.0/16\n";
    let new = "subnet=10.1.0.0/24\nguest_access=lan\ndeny=1.1.1.1\nhost_firewall=open\nmtu=1400\n";
    let (mut settings, _) = outcome(old, &Facts::default()).unwrap();
    let (given, _) = outcome(new, &Facts::default()).unwrap();
    assert_eq!(settings.reload(&given), ["subnet", "mtu"]);
    let expected = new.replace("10.1.0.0/24", "10.0.0.0/24").replace("mtu=1400", "mtu=1500");
    assert_eq!(settings, outcome(&expected, &Facts::default()).unwrap().0);
    assert_eq!(settings.clone().reload(&settings), [""; 0]);
}
