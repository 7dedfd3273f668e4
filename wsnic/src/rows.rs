//! Sessions as the front-end tells of them, and tables of them.

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
    fn round_trips_are_shown_in_the_unit_that_fits() {
        let shown = |rtt_us| Row { rtt_us, ..Row::default() }.rtt();
        let times = [None, Some(40), Some(9_999), Some(10_000), Some(750_000), Some(42_000_000)];
        assert_eq!(times.map(shown), ["-", "40µs", "10.0ms", "10ms", "750ms", "42s"]);
    }
}
