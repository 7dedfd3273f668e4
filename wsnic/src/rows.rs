//! Sessions and networks as the front-end tells of them, and tables of them.

use serde::Deserialize;
use std::fmt::Write as _;

/// A session.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Its number.
    pub id: u64,
    /// Where its client is.
    pub client: String,
    /// By which proof it came in.
    pub identity: String,
    /// Its network.
    pub network: String,
    /// Its port's interface.
    pub port: String,
    /// Its guest's hardware address.
    pub mac: Option<String>,
    /// Its guest's addresses, the last one first.
    pub addresses: Vec<String>,
    /// How old it is.
    pub seconds: u64,
    /// The round trip to its client, in microseconds.
    pub rtt_us: Option<u64>,
    /// How long ago that was measured.
    pub rtt_seconds_ago: Option<u64>,
    /// Frames from the guest.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames to the guest.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that were not fit, or not taken.
    pub dropped: u64,
    /// Frames that were dropped to keep the queue to the guest short.
    pub late: u64,
}

impl Row {
    /// The guest's addresses in one word.
    pub fn address(&self) -> String {
        if self.addresses.is_empty() { "-".to_owned() } else { self.addresses.join(",") }
    }

    /// The round trip, in the unit that fits.
    pub fn rtt(&self) -> String {
        match self.rtt_us {
            None => "-".to_owned(),
            Some(micros @ 0..1000) => format!("{micros}µs"),
            Some(micros @ 1000..10_000) => format!("{:.1}ms", micros as f64 / 1e3),
            Some(micros @ 10_000..10_000_000) => format!("{}ms", micros / 1000),
            Some(micros) => format!("{}s", micros / 1_000_000),
        }
    }
}

const HEADING: [&str; 14] = [
    "ID", "CLIENT", "IDENTITY", "NETWORK", "PORT", "MAC", "ADDRESS", "AGE", "RTT", "SENT", "GOT",
    "FRAMES", "DROPPED", "LATE",
];

/// The table of `wsnic sessions`.
pub fn sessions(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let rtt = match row.rtt_seconds_ago {
            Some(ago) => format!("{} ({})", row.rtt(), age(ago)),
            None => row.rtt(),
        };
        [
            row.id.to_string(),
            row.client.clone(),
            row.identity.clone(),
            row.network.clone(),
            row.port.clone(),
            row.mac.clone().unwrap_or_else(|| "-".to_owned()),
            row.address(),
            age(row.seconds),
            rtt,
            row.bytes_in.to_string(),
            row.bytes_out.to_string(),
            row.frames_in.to_string(),
            row.dropped.to_string(),
            row.late.to_string(),
        ]
    };
    table(HEADING, rows.iter().map(row))
}

/// A network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    name: String,
    subnet: String,
    private: bool,
    locks: bool,
    isolation: bool,
    rooms: Option<u64>,
    max_rooms: Option<u64>,
    dhcp: String,
    leases: Option<u64>,
    addresses: Option<u64>,
    sessions: u64,
    max_clients: u64,
    bytes_in: u64,
    bytes_out: u64,
    frames_in: u64,
}

const NETWORK_HEADING: [&str; 11] = [
    "NETWORK", "SUBNET", "SESSIONS", "ROOMS", "DHCP", "PRIVATE", "LOCKS", "ISOLATED", "SENT",
    "GOT", "FRAMES",
];

/// The table of `wsnic networks`.
pub fn networks(rows: &[Network]) -> String {
    let of = |number: Option<u64>, most: Option<u64>| match (number, most) {
        (Some(number), Some(most)) => format!("{number}/{most}"),
        _ => "-".to_owned(),
    };
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let row = |row: &Network| {
        let dhcp = match (row.leases, row.addresses) {
            // Where nobody has been yet there is no pool.
            (Some(leases), Some(addresses @ 1..)) => format!("{} {leases}/{addresses}", row.dhcp),
            _ => row.dhcp.clone(),
        };
        [
            row.name.clone(),
            row.subnet.clone(),
            of(Some(row.sessions), Some(row.max_clients)),
            of(row.rooms, row.max_rooms),
            dhcp,
            yes(row.private),
            yes(row.locks),
            yes(row.isolation),
            row.bytes_in.to_string(),
            row.bytes_out.to_string(),
            row.frames_in.to_string(),
        ]
    };
    table(NETWORK_HEADING, rows.iter().map(row))
}

/// Lines with columns that are as wide as they need to be.
pub fn table<const N: usize>(
    heading: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let lines: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a String does not fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Seconds, in the unit that fits.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_stand_in_columns() {
        let rows: Vec<Row> = serde_json::from_value(serde_json::json!([
            {"id": 1, "client": "192.0.2.1:5", "identity": "anyone", "port": "wstap0", "mac": null,
             "network": "default", "addresses": [], "seconds": 30, "bytes_in": 1, "dropped": 0},
            {"id": 12, "client": "::1", "identity": "alice (token)", "port": "wstap1",
             "mac": "02:00:00:00:00:01", "addresses": ["192.168.86.2", "192.168.86.9"],
             "seconds": 7500, "rtt_us": 1234, "rtt_seconds_ago": 12, "unknown": "later"},
        ]))
        .expect("rows");
        let text = sessions(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at = |line: &str, text: &str| line.find(text).expect("a column");
        assert_eq!(at(lines[0], "PORT"), at(lines[1], "wstap0"));
        assert_eq!(at(lines[0], "AGE"), at(lines[2], "2h"));
        assert_eq!(at(lines[0], "RTT"), at(lines[2], "1.2ms (12s)"));
        assert!(lines[1].contains(" -  ") && lines[1].contains("30s"), "{text}");
        assert!(lines[2].contains(" 192.168.86.2,192.168.86.9  "), "{text}");
    }

    #[test]
    fn networks_stand_in_columns() {
        let rows: Vec<Network> = serde_json::from_value(serde_json::json!([
            {"name": "default", "subnet": "192.168.86.0/24", "sessions": 2, "max_clients": 1000,
             "dhcp": "builtin", "leases": 2, "addresses": 253, "locks": true, "rooms": null},
            {"name": "rooms", "subnet": "10.3.0.0/16", "rooms": 1, "max_rooms": 200, "max_clients": 9,
             "dhcp": "builtin", "leases": 0, "addresses": 0, "isolation": true, "unknown": "later"},
        ]))
        .expect("rows");
        let text = networks(&rows);
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str, text: &str| line.find(text).expect("a column");
        assert_eq!(at(lines[0], "SESSIONS"), at(lines[1], "2/1000"));
        assert_eq!(at(lines[0], "DHCP"), at(lines[1], "builtin 2/253"));
        assert_eq!(at(lines[0], "ROOMS"), at(lines[2], "1/200"));
        assert!(lines[2].contains(" builtin  "), "{text}");
    }

    #[test]
    fn round_trips_are_shown_in_the_unit_that_fits() {
        let shown = |rtt_us| Row { rtt_us, ..Row::default() }.rtt();
        let times = [None, Some(40), Some(9_999), Some(10_000), Some(750_000), Some(42_000_000)];
        assert_eq!(times.map(shown), ["-", "40µs", "10.0ms", "10ms", "750ms", "42s"]);
    }
}
