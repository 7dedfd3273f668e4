//! Command lines of this and all earlier versions.
#![cfg(feature = "cli")]

use clap::Command;
use proptest::collection::vec;
use proptest::prelude::*;
use std::ffi::OsString;
use wsnic_proto::cli::{CommandLine, Verbosity, add_options, normalise};
use wsnic_proto::options::{Kind, OPTIONS, OptionId, Place};
use wsnic_proto::settings::{DhcpService, Nat};
use wsnic_proto::{ConfFile, Facts, Settings, resolve};

fn command() -> Command {
    add_options(Command::new("wsnic"))
}

fn parse(line: &str) -> CommandLine {
    let arguments = normalise(
        ["wsnic"].into_iter().chain(line.split(' ').filter(|s| !s.is_empty())).map(OsString::from),
    )
    .expect("UTF-8");
    let matches = command().try_get_matches_from(arguments).expect(line);
    CommandLine::new(&matches).expect(line)
}

fn settings(line: &str) -> Settings {
    let facts = Facts { docker_mode: parse(line).docker_mode, ..Facts::default() };
    resolve(&ConfFile::default(), &parse(line).layer, &facts).expect(line).0
}

fn normal(line: &str) -> String {
    let arguments = normalise(line.split(' ').map(OsString::from)).expect("UTF-8");
    arguments.join(" ".as_ref()).into_string().expect("UTF-8")
}

#[test]
fn the_command_is_sound() {
    command().debug_assert();
    command().subcommand(add_options(Command::new("run"))).debug_assert();
}

#[test]
fn every_option_has_its_long_spelling_and_those_of_earlier_versions() {
    for spec in OPTIONS.iter().filter(|spec| spec.place != Place::CommandLine) {
        let value = match spec.kind {
            Kind::Flag => "yes",
            _ => "9",
        };
        for name in spec.aliases.iter().chain([&spec.name]) {
            let line = format!("--{}={value}", name.replace('_', "-"));
            let given = parse(&line).layer.get(spec.id).cloned().expect(&line);
            assert_eq!((given.value.as_str(), given.key), (value, format!("--{}", spec.long())));
        }
    }
}

#[test]
fn command_lines_of_the_newest_python_version_work() {
    let settings = settings(
        "-a 0.0.0.0 --ws-port 81 --wss-port 444 -r c.crt -k c.key -s 10.0.0.0/8 -i ---inet-iface \
         eth7 --disable-dhcp --dhcp-lease-file l ---dhcp-lease-time 600 -n a.b -d 9.9.9.9",
    );
    assert_eq!((settings.server.ws_ports, settings.server.wss_ports), (vec![81], vec![444]));
    assert_eq!(settings.server.wss_key.unwrap().to_str(), Some("c.key"));
    assert!(matches!(settings.network.nat, Nat::Interface(name) if name.as_str() == "eth7"));
    assert_eq!(settings.network.dhcp.service, DhcpService::Disabled);
    assert_eq!(settings.network.dhcp.lease_time, 600);
    assert_eq!(settings.network.dhcp.domain_name.as_deref(), Some("a.b"));
    assert_eq!(settings.network.dhcp.nameservers.len(), 1);
}

#[test]
fn command_lines_of_the_middle_version_work() {
    let line = parse("-v -n brtap -c my.conf --use-syslog --docker-mode");
    assert_eq!(line.verbosity, Verbosity::Verbose);
    assert_eq!(line.config.unwrap().to_str(), Some("my.conf"));
    assert!(line.docker_mode);
    assert_eq!(line.layer.get(OptionId::DhcpDomainName), None);
    assert!(line.use_syslog && !parse("-v").use_syslog);
    assert_eq!(settings("--docker-mode").server.wss_ports, [443, 8087]);
}

#[test]
fn three_dashes_become_two() {
    assert_eq!(
        normal("wsnic ---inet-iface eth0 ---dhcp-lease-time=600 -- ---x"),
        "wsnic --inet-iface eth0 --dhcp-lease-time=600 -- ---x"
    );
}

#[test]
fn the_back_end_disappears_in_every_spelling_and_a_domain_stays() {
    assert_eq!(normal("wsnic -n brtap -v"), "wsnic -v");
    assert_eq!(normal("wsnic run -nbrtap"), "wsnic run");
    assert_eq!(normal("wsnic -vqn brtap -i"), "wsnic -vq -i");
    assert_eq!(normal("wsnic -n tapdev -c a"), "wsnic -c a");
    assert_eq!(normal("wsnic -vn=brtap"), "wsnic -v");
    assert_eq!(normal("wsnic -vn guests -i"), "wsnic -vn guests -i");
    assert_eq!(
        normal("wsnic -s n --dhcp-domain-name brtap"),
        "wsnic -s n --dhcp-domain-name brtap"
    );
    assert_eq!(normal("wsnic -c n -cn -rbn"), "wsnic -c n -cn -rbn");
    assert_eq!(normal("wsnic -n"), "wsnic -n");
    assert_eq!(normal("brtap"), "brtap");
}

#[test]
fn flags_take_no_value_or_one_behind_an_equals_sign() {
    assert_eq!(settings("-vip").network.nat, Nat::DefaultRoute);
    assert_eq!(settings("-f eth0 --enable-inet=no").network.nat, Nat::Off);
    assert!(settings("--allow-vlan").network.allow_vlan);
    assert_eq!(settings("--disable-dhcp=no").network.dhcp.service, DhcpService::Builtin);
    assert_eq!(
        settings("--disable-dhcp --dhcp-service dnsmasq").network.dhcp.service,
        DhcpService::Dnsmasq
    );
}

#[test]
fn the_last_of_several_values_counts_and_lists_grow() {
    assert_eq!(
        settings("-s 10.0.0.0/8 -i -i --subnet 10.1.0.0/16").network.plan.subnet().prefix_len(),
        16
    );
    assert_eq!(settings("--allow 10.0.0.0/8 --allow 1.1.1.1,2.2.2.2").network.allow.len(), 3);
}

#[test]
fn verbosity_follows_the_flags() {
    assert_eq!(parse("").verbosity, Verbosity::Normal);
    assert_eq!(parse("-q").verbosity, Verbosity::Quiet);
    assert_eq!(parse("-v -q").verbosity, Verbosity::Verbose);
    assert_eq!(parse("-vv").verbosity, Verbosity::Everything);
}

#[test]
fn help_names_every_option_and_fits_a_terminal() {
    let help = command().render_long_help().to_string();
    for spec in OPTIONS.iter().filter(|spec| spec.place == Place::Everywhere) {
        assert!(help.contains(&format!("--{}", spec.long())), "{}", spec.name);
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    assert!(help.contains("-n, --dhcp-domain-name <NAME>"), "{help}");
    assert!(!help.contains("iperf"), "{help}");
}

#[test]
fn a_command_without_these_arguments_says_nothing() {
    let matches = Command::new("other").try_get_matches_from(["other"]).unwrap();
    let line = CommandLine::new(&matches).unwrap();
    assert_eq!(line.layer, wsnic_proto::conf::Layer::new());
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf8_is_an_error_that_shows_it() {
    use std::os::unix::ffi::OsStringExt as _;
    let arguments = [OsString::from("wsnic"), OsString::from_vec(b"-c\xff".to_vec())];
    assert_eq!(
        normalise(arguments).unwrap_err().to_string(),
        "command line: \"-c\u{fffd}\" is not UTF-8: use only file names and values in that \
         encoding"
    );
}

proptest! {
    #[test]
    fn any_arguments_are_read_or_refused_without_panic(
        arguments in vec("-{0,3}[a-z]{0,3}|-{0,3}\\PC{0,6}|--(enable-inet|subnet|allow)=?\\PC{0,4}", 0..6)
    ) {
        let arguments = normalise(arguments.into_iter().map(OsString::from)).expect("UTF-8");
        if let Ok(matches) = command().try_get_matches_from(arguments) {
            let _ = CommandLine::new(&matches);
        }
    }
}
