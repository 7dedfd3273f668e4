//! `wsnic check`: the file, then the machine; one line per finding, and what to do.

use crate::child::Program;
use crate::dnsmasq;
use crate::host_firewall::{self, Obstacle};
use clap::{Arg, ArgAction};
use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use wsnic_host::{Links, Problem, resolver};
use wsnic_nft::Netfilter;
use wsnic_os::config::Loaded;
use wsnic_os::log::{chain, say};
use wsnic_proto::Settings;
use wsnic_proto::settings::{DhcpService, HostFirewall, Nat, Network};

const HOST_FIREWALL: &str = "only-host-firewall";

/// The argument that asks for the host's firewall alone.
pub fn argument() -> Arg {
    Arg::new(HOST_FIREWALL)
        .long(HOST_FIREWALL)
        .action(ArgAction::SetTrue)
        .help("Look at this host's own firewall only; the status is 0 unless it cannot be read")
}

/// Prints every finding; the status is 0 when wsnic would start.
pub fn check(loaded: &Loaded) -> ExitCode {
    let checked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(check_all(loaded)));
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("problem  the machine cannot be checked ({error})"));
            ExitCode::FAILURE
        }
    }
}

async fn check_all(loaded: &Loaded) -> io::Result<bool> {
    let settings = &loaded.settings;
    let links = Links::connect()?;
    if loaded.matches.get_flag(HOST_FIREWALL) {
        return Ok(check_host_firewall(settings, &links).await);
    }
    let mut fit = check_configuration(loaded);
    for program in ["wsnic-priv", "wsnic-front"] {
        let found = Program::find(program, String::new(), loaded.log());
        fit &= found.map_err(|error| say(format_args!("problem  {error}"))).is_ok();
    }
    fit &=
        report(wsnic_host::privilege(), "this process may administer the network (CAP_NET_ADMIN)");
    fit &= report(wsnic_host::device(), "/dev/net/tun can be opened");
    fit &= report(wsnic_host::names(&links).await?, "no interface is in the way");
    for network in settings.networks() {
        if !settings.others.is_empty() {
            say(format_args!("network  {}", network.name));
        }
        let clashes = wsnic_host::subnet(network, &links).await?;
        fit &= report(clashes, &format!("the subnet {} is free", network.plan.subnet()));
        fit &= check_uplink(network, &links).await?;
    }
    check_host_firewall(settings, &links).await;
    Ok(fit)
}

fn check_configuration(loaded: &Loaded) -> bool {
    let settings = &loaded.settings;
    match &loaded.file {
        Some(file) => good(&format!("{} is understood", file.display())),
        None => good("no configuration file, the defaults apply"),
    }
    for warning in &loaded.warnings {
        say(format_args!("warning  {warning}"));
    }
    let mut fit = true;
    if dnsmasq::networks(settings).next().is_some() {
        match dnsmasq::program() {
            Ok(program) => good(&format!("dnsmasq is there, {}", program.display())),
            Err(missing) => {
                let text = missing.to_string();
                let (what, remedy) = text.split_once(": ").unwrap_or((&text, ""));
                fit = problem(what, remedy);
            }
        }
    }
    let server = &settings.server;
    let wss_ports = server.wss_cert.iter().flat_map(|_| &server.wss_ports);
    let ports: BTreeSet<u16> = server.ws_ports.iter().chain(wss_ports).copied().collect();
    for (ip, port) in
        server.addresses.iter().flat_map(|ip| ports.iter().map(move |port| (ip, port)))
    {
        let address = SocketAddr::new(*ip, *port);
        match TcpListener::bind(address) {
            Ok(_) => good(&format!("{address} is free to listen on")),
            Err(error) => {
                fit = problem(
                    &format!("{address} cannot be listened on ({error})"),
                    "stop what uses it, or choose another with ws_server_addr and ws_server_port",
                );
            }
        }
    }
    fit
}

async fn check_uplink(network: &Network, links: &Links) -> io::Result<bool> {
    if network.nat == Nat::Off {
        good(
            "guests get no Internet, as configured (set inet_iface or enable_inet to change that)",
        );
        return Ok(true);
    }
    let fit = match wsnic_host::uplink(network, links).await? {
        Ok(Some(name)) => report(None, &format!("guests get Internet by {name}")),
        Ok(None) => {
            warning(
                "this host has no IPv4 default route",
                "guests get Internet as soon as there is one, or name the interface with inet_iface",
            );
            true
        }
        Err(problem) => report(Some(problem), ""),
    };
    match (network.dhcp.nameservers.first(), resolver()) {
        (None, _) if network.dhcp.service == DhcpService::Dnsmasq => {
            good("guests' names are resolved by dnsmasq, which asks whom this machine asks");
        }
        (Some(server), _) => {
            good(&format!("guests' names are resolved by {server}, as configured"));
        }
        (None, Ok(server)) => good(&format!("guests' names are resolved by {server}")),
        (None, Err(reason)) => warning(
            &format!("guests cannot resolve names: {reason}"),
            "name a server with the option dhcp_nameserver, such as dhcp_nameserver=9.9.9.9",
        ),
    }
    Ok(fit)
}

/// Rules of others that drop what guests send or get. False if they cannot be read.
async fn check_host_firewall(settings: &Settings, links: &Links) -> bool {
    let ways = host_firewall::ways(settings.networks(), links).await;
    let found = Netfilter::open().and_then(|mut nf| host_firewall::survey(&mut nf, &ways));
    let obstacles = match found {
        Ok(obstacles) => obstacles,
        Err(error) => {
            let what = format!("cannot read the host's firewall rules: {}", chain(&error));
            warning(&what, "run the check as root");
            return false;
        }
    };
    if host_firewall::has_legacy_filter() {
        say(format_args!("warning  {}", host_firewall::LEGACY));
    }
    if obstacles.is_empty() {
        good("no firewall of this host drops guests' packets");
    }
    let opens = settings.network.host_firewall == HostFirewall::Open;
    for obstacle in obstacles {
        let Obstacle { owned_by_other, .. } = obstacle;
        if opens && !owned_by_other {
            good(&format!("{obstacle}; wsnic opens it, as configured (host_firewall=open)"));
        } else {
            warning(&obstacle.to_string(), "or let wsnic do it: host_firewall=open");
        }
    }
    true
}

/// True if there is no problem.
fn report(problems: impl IntoIterator<Item = Problem>, otherwise: &str) -> bool {
    let mut fit = true;
    for found in problems {
        fit = problem(&found.what, &found.remedy);
    }
    if fit {
        good(otherwise);
    }
    fit
}

fn good(what: &str) {
    say(format_args!("ok       {what}"));
}

fn warning(what: &str, remedy: &str) {
    say(format_args!("warning  {what}\n         {remedy}"));
}

/// False: wsnic would not start.
fn problem(what: &str, remedy: &str) -> bool {
    say(format_args!("problem  {what}\n         {remedy}"));
    false
}
