//! What figures depend on: processor, kernel, and what else the machine does.

use std::fs::read_to_string;

/// Facts for the JSON file. No names.
pub fn facts() -> Vec<(&'static str, String)> {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name"));
    let model = models.map(|rest| rest.trim_start_matches([' ', '\t', ':'])).next();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let word = |path: &str, count: usize| {
        let text = read_to_string(path).unwrap_or_default();
        text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
    };
    vec![
        ("processor", model.unwrap_or("unknown").to_owned()),
        ("cores", cores.to_string()),
        ("kernel", word("/proc/sys/kernel/osrelease", 1)),
        ("load", word("/proc/loadavg", 3)),
    ]
}
