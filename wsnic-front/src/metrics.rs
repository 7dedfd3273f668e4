//! What there is to count, as Prometheus reads it: the text format, version 0.0.4.
//!
//! Pure: what is known comes in, the text goes out. Every total of a session goes on when the session
//! has ended, and nothing that a client or guest has chosen is a label.

use crate::counters::dropped_in_all;
use crate::dhcp_port::DhcpState;
use crate::helper::HelperState;
use crate::sessions::{REFUSALS, Totals};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Content-Type of the text.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that is known at a moment.
pub struct Facts {
    /// Of each network.
    pub networks: Vec<OfNetwork>,
    /// Who was not let in, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Addresses that are banned.
    pub bans: usize,
    /// Connections that were accepted.
    pub connections: u64,
    /// Those that are no session yet.
    pub handshakes: usize,
    /// The helper, if it answers.
    pub helper: Option<HelperState>,
    /// Seconds of processor time that the front-end has used.
    pub cpu: f64,
    /// When it began to serve, in seconds since 1970.
    pub started: f64,
}

/// What is known of a network.
pub struct OfNetwork {
    /// Its name.
    pub name: String,
    /// Sessions that there may be.
    pub max_clients: u32,
    /// What its sessions have moved.
    pub totals: Totals,
    /// Its DHCP servers, if they are the built-in ones.
    pub dhcp: Option<DhcpState>,
}

/// The text.
pub fn text(facts: &Facts) -> String {
    let mut text = Text(String::with_capacity(8192));
    text.gauge("wsnic_build_info", "1, with the version as a label.");
    text.sample("wsnic_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    sessions(&mut text, facts);
    text.gauge("wsnic_handshakes", "Connections that are no session yet.");
    text.sample("wsnic_handshakes", &[], facts.handshakes);
    text.counter("wsnic_connections_total", "Connections that were looked at.");
    text.sample("wsnic_connections_total", &[], facts.connections);
    text.counter("wsnic_refused_total", "Connections that did not become a session.");
    let mut refused = BTreeMap::from(REFUSALS.map(|reason| (reason, 0)));
    refused.extend(&facts.refused);
    for (reason, count) in refused {
        text.sample("wsnic_refused_total", &[("reason", reason)], count);
    }
    text.gauge("wsnic_bans", "Addresses that are banned.");
    text.sample("wsnic_bans", &[], facts.bans);
    if facts.networks.iter().any(|network| network.dhcp.is_some()) {
        dhcp(&mut text, facts);
    }
    text.gauge("wsnic_helper_up", "Whether the helper answers.");
    text.sample("wsnic_helper_up", &[], u8::from(facts.helper.is_some()));
    if let Some(helper) = facts.helper {
        text.gauge("wsnic_network_up", "Whether the bridge of every network is up.");
        text.sample("wsnic_network_up", &[], u8::from(helper.broken == 0));
        text.gauge("wsnic_helper_ports", "Ports that the helper has open.");
        text.sample("wsnic_helper_ports", &[], helper.ports);
    }
    text.counter("process_cpu_seconds_total", "Processor time of the front-end, in seconds.");
    text.sample("process_cpu_seconds_total", &[], facts.cpu);
    text.gauge("process_start_time_seconds", "Start of the front-end, in seconds since 1970.");
    text.sample("process_start_time_seconds", &[], facts.started);
    text.0
}

fn sessions(text: &mut Text, facts: &Facts) {
    text.gauge("wsnic_max_sessions", "Sessions that there may be (max_clients).");
    for network in &facts.networks {
        text.sample("wsnic_max_sessions", &[("network", &network.name)], network.max_clients);
    }
    text.gauge("wsnic_sessions", "Sessions that are open.");
    text.by_network("wsnic_sessions", facts, |totals| totals.open);
    text.counter("wsnic_sessions_total", "Sessions that were opened.");
    text.by_network("wsnic_sessions_total", facts, |totals| totals.begun);
    text.counter("wsnic_frames_total", "Frames that went through.");
    text.by_direction("wsnic_frames_total", facts, |totals| [totals.frames_in, totals.frames_out]);
    text.counter("wsnic_frame_bytes_total", "Their bytes, without FCS.");
    text.by_direction("wsnic_frame_bytes_total", facts, |totals| {
        [totals.bytes_in, totals.bytes_out]
    });
    text.counter("wsnic_late_frames_total", "Frames to guests dropped to keep a slow queue short.");
    text.by_network("wsnic_late_frames_total", facts, |totals| totals.late);
    text.counter("wsnic_dropped_frames_total", "Frames that were not fit, or not taken.");
    for (reason, count) in dropped_in_all() {
        text.sample("wsnic_dropped_frames_total", &[("reason", reason)], count);
    }
    text.counter("wsnic_text_messages_total", "Text messages of clients, which are no frames.");
    text.by_network("wsnic_text_messages_total", facts, |totals| totals.texts);
}

fn dhcp(text: &mut Text, facts: &Facts) {
    let of_dhcp = |network: &OfNetwork| Some((network.name.clone(), network.dhcp?));
    let networks: Vec<(String, DhcpState)> = facts.networks.iter().filter_map(of_dhcp).collect();
    text.gauge("wsnic_dhcp_leases", "Addresses that are leased or offered.");
    for (name, dhcp) in &networks {
        text.sample("wsnic_dhcp_leases", &[("network", name)], dhcp.leases);
    }
    text.gauge("wsnic_dhcp_addresses", "Addresses that there are, where there is a guest.");
    for (name, dhcp) in &networks {
        text.sample("wsnic_dhcp_addresses", &[("network", name)], dhcp.addresses);
    }
    text.counter("wsnic_dhcp_answers_total", "Answers to guests.");
    for (name, DhcpState { answers, .. }) in &networks {
        let kinds = [("offer", answers.offers), ("ack", answers.acks), ("nak", answers.naks)];
        for (kind, count) in kinds {
            let labels = [("network", &**name), ("type", kind)];
            text.sample("wsnic_dhcp_answers_total", &labels, count);
        }
    }
    text.counter("wsnic_dhcp_exhausted_total", "Questions of guests for whom no address was left.");
    for (name, dhcp) in &networks {
        let labels = [("network", &**name)];
        text.sample("wsnic_dhcp_exhausted_total", &labels, dhcp.answers.exhausted);
    }
}

struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    // Writing to a String does not fail.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = write!(self.0, "{before}{label}=\"{value}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }

    fn by_network(&mut self, name: &str, facts: &Facts, value: impl Fn(&Totals) -> u64) {
        for network in &facts.networks {
            self.sample(name, &[("network", &network.name)], value(&network.totals));
        }
    }

    fn by_direction(&mut self, name: &str, facts: &Facts, value: impl Fn(&Totals) -> [u64; 2]) {
        for network in &facts.networks {
            let directions = ["guest_to_bridge", "bridge_to_guest"];
            for (direction, value) in directions.into_iter().zip(value(&network.totals)) {
                let labels = [("network", &*network.name), ("direction", direction)];
                self.sample(name, &labels, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_stands_below_its_help_and_type() {
        let totals = Totals { open: 1, begun: 2, frames_in: 3, ..Totals::default() };
        let network = |name: &str| OfNetwork {
            name: name.to_owned(),
            max_clients: 1000,
            totals,
            dhcp: Some(DhcpState { leases: 7, ..DhcpState::default() }),
        };
        let facts = Facts {
            networks: vec![network("default"), network("a\"b")],
            refused: BTreeMap::from([("banned", 7)]),
            bans: 1,
            connections: 9,
            handshakes: 0,
            helper: Some(HelperState { ports: 1, broken: 0, silent: 0 }),
            cpu: 0.25,
            started: 1_700_000_000.5,
        };
        let text = text(&facts);
        let mut family = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(help.ends_with('.') || help.ends_with(')'), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert_eq!(kind.ends_with(" counter"), family.ends_with("_total"), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, family, "{line}");
            }
        }
        for line in [
            "wsnic_sessions{network=\"default\"} 1",
            "wsnic_sessions_total{network=\"a\\\"b\"} 2",
            "wsnic_frames_total{network=\"default\",direction=\"guest_to_bridge\"} 3",
            "wsnic_refused_total{reason=\"banned\"} 7",
            "wsnic_dhcp_leases{network=\"default\"} 7",
            "wsnic_refused_total{reason=\"busy\"} 0",
            "process_cpu_seconds_total 0.25",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in\n{text}");
        }
    }
}
