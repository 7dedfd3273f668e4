//! What is tested, in order. A step that others rest on ends the test when it fails.

use super::frames::{self, IP_HEADER, Lease, Seen};
use super::guest::{Guest, random};
use super::line::Line;
use super::rate;
use super::report::{Outcome, Report, Trouble};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;
use wsnic_proto::{Cidr, MacAddr};

/// Of so many pings the fastest counts.
const PINGS: usize = 3;
/// Bytes of the ping's packet: that of ping(8).
const PING_LEN: usize = 84;
/// Every IPv4 link carries this (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// A large ping that takes longer is lost; two in a row count. Guests share 20 pings a second.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// Joins, tests and leaves.
pub async fn run(line: &Line, name: &Name, report: &mut Report) {
    let started = Instant::now();
    let mut guest = match Guest::connect(line).await {
        Ok(guest) => guest,
        Err(trouble) => {
            report.add("connect", Outcome::Bad(trouble));
            return;
        }
    };
    let what = format!("a WebSocket to {} is open", line.place);
    report.add("connect", Outcome::Good { time: started.elapsed(), what, details: json!({}) });
    // An error stands in the report already.
    let _ = as_guest(line, &mut guest, name, report).await;
    guest.leave().await;
}

/// A step that others rest on has failed.
struct Failed;

async fn as_guest(
    line: &Line,
    guest: &mut Guest,
    name: &Name,
    report: &mut Report,
) -> Result<(), Failed> {
    needed(report, "dhcp", address(guest).await)?;
    let Some(lease) = guest.lease.clone() else { return Err(Failed) };
    let gateway = neighbour(guest, lease.gateway).await;
    let gateway = match gateway {
        Ok((mac, time)) => {
            let what = format!("{} is {mac}", lease.gateway);
            let details = json!({ "address": lease.gateway, "mac": mac.to_string() });
            report.add("arp", Outcome::Good { time, what, details });
            (mac, lease.gateway)
        }
        Err(trouble) => return needed(report, "arp", Err(trouble)),
    };
    let answers = add(report, "ping", ping(guest, gateway).await);
    let probed = match answers {
        true => mtu(guest, gateway, lease.mtu).await,
        false => Ok(Outcome::Skipped("without a ping there is no larger one".to_owned())),
    };
    add(report, "mtu", probed);
    add(report, "dns", names(guest, gateway, &lease, name).await);
    add(report, "throughput", rate::sample(line, guest, lease.mtu).await);
    Ok(())
}

fn add(report: &mut Report, step: &'static str, outcome: Result<Outcome, Trouble>) -> bool {
    report.add(step, outcome.unwrap_or_else(Outcome::Bad))
}

fn needed(
    report: &mut Report,
    step: &'static str,
    outcome: Result<Outcome, Trouble>,
) -> Result<(), Failed> {
    add(report, step, outcome).then_some(()).ok_or(Failed)
}

async fn address(guest: &mut Guest) -> Result<Outcome, Trouble> {
    let time = guest.take_address().await?;
    let lease = guest
        .lease
        .as_ref()
        .ok_or_else(|| Trouble::new("no lease", "this is an error of wsnic"))?;
    let what = format!(
        "{} by {}, gateway {}, MTU {}, for {} s",
        lease.address, lease.server.1, lease.gateway, lease.mtu, lease.time
    );
    let details = json!({
        "address": lease.address, "mask": lease.mask, "gateway": lease.gateway, "server": lease.server.1,
        "mtu": lease.mtu, "name_server": lease.name_server, "lease_seconds": lease.time,
    });
    Ok(Outcome::Good { time, what, details })
}

async fn neighbour(guest: &mut Guest, gateway: Ipv4Addr) -> Result<(MacAddr, Duration), Trouble> {
    guest.resolve(gateway).await?.ok_or_else(|| {
        Trouble::new(
            format!("the gateway {gateway} does not answer ARP"),
            "the bridge has lost its address, or another program changed it: restart wsnic, and see its log",
        )
    })
}

async fn ping(guest: &mut Guest, gateway: (MacAddr, Ipv4Addr)) -> Result<Outcome, Trouble> {
    let mut times = Vec::new();
    for _ in 0..PINGS {
        times.extend(echo(guest, gateway, PING_LEN, Duration::from_secs(1)).await?);
    }
    match times.iter().min() {
        Some(time) => {
            let what = format!("{} answers, {} of {PINGS}", gateway.1, times.len());
            let details = json!({ "sent": PINGS, "received": times.len() });
            Ok(Outcome::Good { time: *time, what, details })
        }
        None => Err(Trouble::new(
            format!("the gateway {} does not answer a ping", gateway.1),
            "a firewall of the server's machine drops it: `wsnic check` there names it, and \
             host_firewall=open opens it; or guests ping too much (20 a second, all together)",
        )),
    }
}

/// One ping whose packet has `len` bytes; None: it does not come back.
async fn echo(
    guest: &mut Guest,
    to: (MacAddr, Ipv4Addr),
    len: usize,
    patience: Duration,
) -> Result<Option<Duration>, Trouble> {
    let mark: [u8; 4] = random();
    let frame = frames::ping(guest.way(to), u32::from_be_bytes(mark), len);
    let back = guest.ask_once(&frame, patience, |seen| match seen {
        // The type, code and checksum of ICMP are not in it.
        Seen::EchoReply(data) => {
            (data.starts_with(&mark) && data.len() == len - IP_HEADER - 4).then_some(())
        }
        _ => None,
    });
    Ok(back.await?.map(|((), time)| time))
}

/// The largest ping that comes back, by halves.
async fn mtu(
    guest: &mut Guest,
    gateway: (MacAddr, Ipv4Addr),
    announced: u16,
) -> Result<Outcome, Trouble> {
    if announced < MIN_MTU {
        return Err(Trouble::new(
            format!("guests are told an MTU of {announced}, which no IPv4 network has"),
            "set the MTU of the DHCP server right; another one than wsnic's may be on the network",
        ));
    }
    let started = Instant::now();
    let (mut good, mut bad) = (MIN_MTU, announced.saturating_add(1));
    let mut next = announced;
    while bad - good > 1 {
        let mut back = None;
        for _ in 0..2 {
            back = back.or(echo(guest, gateway, next.into(), PROBE_PATIENCE).await?);
        }
        match back {
            Some(_) => good = next,
            None => bad = next,
        }
        next = good + (bad - good) / 2;
    }
    if good < announced {
        return Err(Trouble::new(
            format!(
                "guests are told an MTU of {announced}, and the largest ping that comes back has {good} bytes"
            ),
            format!(
                "set mtu={good}, or see which firewall or proxy of the server's machine drops longer packets"
            ),
        ));
    }
    let what = format!("packets of {good} bytes pass, as announced");
    Ok(Outcome::Good { time: started.elapsed(), what, details: json!({ "bytes": good }) })
}

async fn names(
    guest: &mut Guest,
    gateway: (MacAddr, Ipv4Addr),
    lease: &Lease,
    name: &Name,
) -> Result<Outcome, Trouble> {
    let Some(server) = lease.name_server else {
        let why = "guests have no name server, so no Internet; if they are to have it: --enable-inet, or \
                   enable_inet=yes in wsnic.conf; or this machine's resolver is none that they can ask";
        return Ok(Outcome::Skipped(why.to_owned()));
    };
    let prefix = u32::from(lease.mask).leading_ones() as u8;
    let is_near = Cidr::containing(lease.address, prefix).contains(server) && server != gateway.1;
    let mac = match is_near {
        true => guest.resolve(server).await?.map(|(mac, _)| mac),
        false => Some(gateway.0),
    };
    let id = u16::from_be_bytes(random());
    let port = u16::from_be_bytes(random()) | 0xc000;
    let question = frames::dns_question(id, name).ok_or_else(|| {
        Trouble::new("the question cannot be encoded", "give another name with --resolve")
    })?;
    let answer = match mac {
        Some(mac) => {
            let frame = frames::udp(guest.way((mac, server)), (port, 53), &question);
            guest.ask(&frame, |seen| frames::dns_answer(seen, (server, port), id)).await?
        }
        None => None,
    };
    let shown = name.to_string();
    let shown = shown.trim_end_matches('.');
    match answer {
        None => Err(Trouble::new(
            format!("the name server {server} does not answer"),
            "see whether the server's machine resolves names itself; a firewall of it may drop guests' \
             packets (the log names it, host_firewall=open opens it); or set another dhcp_nameserver",
        )),
        Some(((ResponseCode::NoError, addresses), time)) if !addresses.is_empty() => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let what = format!("{server} knows {shown}: {}", list.join(", "));
            let details = json!({ "server": server, "name": shown, "addresses": addresses });
            Ok(Outcome::Good { time, what, details })
        }
        Some(((code, _), _)) => Err(Trouble::new(
            format!("the name server {server} answers, and has no address for {shown} ({code})"),
            "ask for a name that exists with --resolve; else see whether the server's machine has the \
             Internet, or set another dhcp_nameserver",
        )),
    }
}
