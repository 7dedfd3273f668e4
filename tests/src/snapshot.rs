//! Everything that a run of wsnic could leave behind, as lines of text that can be compared.

use crate::netns::Netns;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The state of a namespace and of a folder at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, Vec<String>>);

impl Snapshot {
    /// Looks at the namespace, and at the files in `dir` and in the namespace's `/run`.
    pub fn take(netns: &Netns, dir: &Path) -> Snapshot {
        let shown = |line: &str| sorted(netns.run(line).lines().map(stable));
        Snapshot(BTreeMap::from([
            ("links", shown("ip -d -o link show")),
            ("addresses", shown("ip -o address show")),
            ("routes", shown("ip route show table all")),
            ("IPv6 routes", shown("ip -6 route show table all")),
            ("rules", shown("ip rule show")),
            ("forwarding database", shown("bridge fdb show")),
            ("firewall", netns.run("nft list ruleset").lines().map(uncounted).collect()),
            ("sysctls", netns.enter(sysctls)),
            ("processes", processes(netns)),
            ("files", sorted(files(dir).into_iter().chain(netns.enter(|| files("/run".as_ref()))))),
        ]))
    }

    /// What `later` has more (+) and less (-) than `self`; empty when they are equal.
    pub fn difference(&self, later: &Snapshot) -> String {
        let mut text = String::new();
        for (name, before) in &self.0 {
            let after = later.0.get(name).map(Vec::as_slice).unwrap_or_default();
            for line in before.iter().filter(|line| !after.contains(line)) {
                let _ = writeln!(text, "- {name}: {line}");
            }
            for line in after.iter().filter(|line| !before.contains(line)) {
                let _ = writeln!(text, "+ {name}: {line}");
            }
            if before.len() != after.len() {
                let _ = writeln!(text, "  {name}: {} lines, now {}", before.len(), after.len());
            }
        }
        text
    }
}

/// The processes of a namespace, as "PID command".
pub fn processes(netns: &Netns) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let wanted = netns.identity();
    let pids = entries("/proc".as_ref()).into_iter().filter_map(|name| name.parse::<u32>().ok());
    let inside = pids.filter(|pid| {
        std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == wanted)
    });
    let text = inside.map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} {}", name.trim())
    });
    sorted(text)
}

/// Without what changes by itself: timers, and states that follow with a delay.
fn stable(line: &str) -> String {
    const TIMERS: [&str; 4] = ["gc_timer", "hello_timer", "tcn_timer", "topology_change_timer"];
    let mut line = without(line, |word| word == "state" || TIMERS.contains(&word));
    // The kernel looks at carriers up to a second later.
    for late in [" tentative", "NO-CARRIER,", ",LOWER_UP", " linkdown"] {
        line = line.replace(late, "");
    }
    line
}

/// Without counters.
fn uncounted(line: &str) -> String {
    without(line, |word| ["packets", "bytes"].contains(&word))
}

/// Without the words that `left_out` names and the value behind each.
fn without(line: &str, left_out: impl Fn(&str) -> bool) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if left_out(word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Per-interface settings of IPv4 and IPv6, and those of bridges.
fn sysctls() -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let folder = format!("/proc/sys/net/{family}/conf");
        for interface in entries(folder.as_ref()) {
            for name in entries(format!("{folder}/{interface}").as_ref()) {
                let path = format!("{folder}/{interface}/{name}");
                // Some are secrets or write-only and cannot be read.
                if let Ok(value) = std::fs::read_to_string(&path) {
                    lines.push(format!("{path} = {}", value.trim()));
                }
            }
        }
    }
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_nonlocal_bind"] {
        lines
            .push(format!("{path} = {}", std::fs::read_to_string(path).unwrap_or_default().trim()));
    }
    sorted(lines)
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in entries(dir) {
        let path = dir.join(name);
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path.display().to_string());
    }
    found
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(read) = std::fs::read_dir(dir) else { return Vec::new() };
    read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}
