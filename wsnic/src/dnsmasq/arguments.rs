//! The command line of dnsmasq. Pure.

use std::net::Ipv4Addr;
use wsnic_proto::cli::Verbosity;
use wsnic_proto::settings::{Nat, Network};

/// Leases that are kept at most, some 100 bytes each.
const MAX_LEASES: u32 = 65_536;
/// What guests take for granted (RFC 894).
const USUAL_MTU: u16 = 1500;

/// For a network with this bridge: what earlier versions of wsnic gave, and what keeps the machine's
/// own dnsmasq.conf out and privileges away.
pub fn of(
    network: &Network,
    bridge: &str,
    (user, group): (&str, &str),
    verbosity: Verbosity,
) -> Vec<String> {
    let plan = network.plan;
    let gateway = plan.gateway();
    let (first, last) = (plan.pool_address(0), plan.pool_address(plan.pool_len() - 1));
    let (first, last) = (first.unwrap_or(gateway), last.unwrap_or(gateway));
    let (mask, seconds) = (plan.subnet().netmask(), network.dhcp.lease_time);
    let servers = &network.dhcp.nameservers;
    let announced = if servers.is_empty() { list(&[gateway]) } else { list(servers) };
    let mut arguments = vec![
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--pid-file=".to_owned(),
        "--log-facility=-".to_owned(),
        format!("--user={user}"),
        format!("--group={group}"),
        "--no-ping".to_owned(),
        "--no-hosts".to_owned(),
        format!("--interface={bridge}"),
        "--except-interface=lo".to_owned(),
        format!("--listen-address={gateway}"),
        "--bind-interfaces".to_owned(),
        format!("--dhcp-range={first},{last},{mask},{seconds}s"),
        format!("--dhcp-option=6,{announced}"),
        "--dhcp-sequential-ip".to_owned(),
        format!("--dhcp-lease-max={}", plan.pool_len().min(MAX_LEASES)),
        // Or it would write into the machine's ARP table, which takes CAP_NET_ADMIN.
        "--dhcp-broadcast".to_owned(),
        // The file that is its standard input.
        "--dhcp-leasefile=/proc/self/fd/0".to_owned(),
    ];
    if let Some(name) = &network.dhcp.domain_name {
        arguments.push(format!("--domain={name}"));
    }
    // To those who do not ask for it too.
    if network.mtu != USUAL_MTU {
        arguments.push(format!("--dhcp-option-force=26,{}", network.mtu));
    }
    // Names of guests only, for those who have no way out: questions are a way out too.
    if network.nat == Nat::Off || !servers.is_empty() {
        arguments.push("--no-resolv".to_owned());
    }
    if network.nat != Nat::Off {
        arguments.extend(servers.iter().map(|server| format!("--server={server}")));
    }
    if matches!(verbosity, Verbosity::Quiet | Verbosity::Normal) {
        arguments.push("--quiet-dhcp".to_owned());
    }
    arguments
}

fn list(servers: &[Ipv4Addr]) -> String {
    let servers: Vec<String> = servers.iter().map(Ipv4Addr::to_string).collect();
    servers.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsnic_proto::{ConfFile, Facts, resolve};

    fn arguments(conf: &str) -> Vec<String> {
        let conf = ConfFile::parse("wsnic.conf", conf.as_bytes()).unwrap();
        let (settings, _) = resolve(&conf, &Default::default(), &Facts::default()).unwrap();
        of(&settings.network, "wsbr0", ("wsnic-dnsmasq", "wsnic-dnsmasq"), Verbosity::Normal)
    }

    fn has(arguments: &[String], wanted: &str) -> bool {
        arguments.iter().any(|argument| argument == wanted)
    }

    #[test]
    fn dnsmasq_gets_the_options_that_it_always_got() {
        let given = arguments("dhcp_domain_name = lan.example\n");
        for wanted in [
            "--no-ping",
            "--no-hosts",
            "--interface=wsbr0",
            "--except-interface=lo",
            "--listen-address=192.168.86.1",
            "--bind-interfaces",
            "--dhcp-range=192.168.86.2,192.168.86.254,255.255.255.0,86400s",
            "--dhcp-option=6,192.168.86.1",
            "--dhcp-sequential-ip",
            "--domain=lan.example",
            "--conf-file=/dev/null",
        ] {
            assert!(has(&given, wanted), "{wanted} in {given:?}");
        }
    }

    #[test]
    fn without_nat_nobody_beyond_is_asked_for_names() {
        assert!(has(&arguments(""), "--no-resolv"));
        let servers = arguments("dhcp_nameserver = 9.9.9.9\n");
        assert!(!servers.iter().any(|argument| argument.starts_with("--server")));
        let given = arguments("enable_inet = yes\n");
        assert!(!has(&given, "--no-resolv"), "then it asks whom this machine asks");
    }

    #[test]
    fn configured_name_servers_are_announced_and_asked() {
        let given = arguments("enable_inet = yes\ndhcp_nameserver = 9.9.9.9, 1.1.1.1\n");
        for wanted in [
            "--dhcp-option=6,9.9.9.9,1.1.1.1",
            "--no-resolv",
            "--server=9.9.9.9",
            "--server=1.1.1.1",
        ] {
            assert!(has(&given, wanted), "{wanted} in {given:?}");
        }
    }

    #[test]
    fn another_mtu_is_announced() {
        assert!(has(&arguments("mtu = 1400\n"), "--dhcp-option-force=26,1400"));
    }
}
