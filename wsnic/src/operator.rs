//! What an operator sees of a wsnic that runs, and does to it: `wsnic status`, `wsnic sessions`,
//! `wsnic kick`, `wsnic pardon`.

use crate::admin::{OrderError, order_now};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use wsnic_os::log::{chain, say};

/// Columns of `wsnic sessions`: name in JSON, heading.
const COLUMNS: [(&str, &str); 10] = [
    ("id", "ID"),
    ("client", "CLIENT"),
    ("identity", "IDENTITY"),
    ("port", "PORT"),
    ("mac", "MAC"),
    ("seconds", "AGE"),
    ("bytes_in", "SENT"),
    ("bytes_out", "GOT"),
    ("frames_in", "FRAMES"),
    ("dropped", "DROPPED"),
];

/// The words of this file.
pub const WORDS: [&str; 4] = ["status", "sessions", "kick", "pardon"];

/// Adds the arguments of a word.
pub fn with_arguments(command: Command, word: &str) -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print what wsnic answers, which is JSON");
    match word {
        "status" | "sessions" => command.arg(json),
        "kick" => command
            .arg(
                Arg::new("id")
                    .value_name("ID")
                    .required(true)
                    .value_parser(clap::value_parser!(u64))
                    .help("The session, as `wsnic sessions` numbers it"),
            )
            .arg(Arg::new("ban").long("ban").value_name("TIME").value_parser(seconds).help(
                "Keep its address out for so long: seconds, or with s, m, h or d such as 1h",
            )),
        _ => command.arg(
            Arg::new("address")
                .value_name("ADDRESS")
                .required(true)
                .value_parser(clap::value_parser!(IpAddr))
                .help("The address that may come again"),
        ),
    }
}

/// A time such as 90, 10m or 1h, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(|letter: char| letter.is_ascii_alphabetic()) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("give a time such as 600, 10m, 1h or 7d".to_owned()),
    };
    let number: u32 = digits.parse().map_err(|_| "give a time such as 600, 10m, 1h or 7d")?;
    number.checked_mul(factor).ok_or_else(|| "that is longer than a century".to_owned())
}

/// Does what a word of [`WORDS`] says.
pub fn operate(word: &str, matches: &ArgMatches, socket: &Path) -> ExitCode {
    match answer(word, matches, socket) {
        Ok(text) => {
            say(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wsnic: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn answer(word: &str, matches: &ArgMatches, socket: &Path) -> Result<String, OrderError> {
    let ask = |what: &str| order_now(socket, what, &[]);
    if word == "kick" {
        let id = matches.get_one::<u64>("id").copied().unwrap_or_default();
        let ban = matches.get_one::<u32>("ban");
        let query = ban.map(|seconds| format!("?ban={seconds}")).unwrap_or_default();
        ask(&format!("DELETE /sessions/{id}{query}"))?;
        return Ok(match ban {
            None => format!("session {id} ends; its client may come again"),
            Some(seconds) => format!("session {id} ends; its address is banned for {seconds} s"),
        });
    }
    if word == "pardon" {
        let address = matches.get_one::<IpAddr>("address").map(ToString::to_string);
        let address = address.unwrap_or_default();
        ask(&format!("DELETE /bans/{address}"))?;
        return Ok(format!("{address} may come again"));
    }
    let text = ask(&format!("GET /{word}"))?;
    if matches.get_flag("json") {
        return Ok(text);
    }
    let value: Value =
        serde_json::from_str(&text).map_err(|error| OrderError::Refused(error.to_string()))?;
    Ok(if word == "status" { status(&value) } else { sessions(&value) })
}

fn status(value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or_default();
    let mut text = format!(
        "wsnic {} serves since {}\nsessions  {} of at most {}, {} since the start\n",
        value["version"].as_str().unwrap_or("?"),
        age(number("seconds")),
        number("sessions"),
        number("max_clients"),
        number("sessions_in_all"),
    );
    for (why, count) in value["refused"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "refused   {count} {why}");
    }
    for ban in value["bans"].as_array().into_iter().flatten() {
        let left = age(ban["seconds"].as_u64().unwrap_or_default());
        let _ = writeln!(text, "banned    {} for {left}", ban["address"].as_str().unwrap_or("?"));
    }
    text
}

fn sessions(value: &Value) -> String {
    let cell = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        Value::Number(number) if name == "seconds" => age(number.as_u64().unwrap_or_default()),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    };
    let rows = value.as_array().into_iter().flatten();
    let rows = rows.map(|row| COLUMNS.map(|(name, _)| cell(row, name)));
    let table: Vec<_> =
        std::iter::once(COLUMNS.map(|(_, head)| head.to_owned())).chain(rows).collect();
    let mut text = String::new();
    for row in &table {
        for (column, cell) in row.iter().enumerate() {
            let width = table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Seconds, in the unit that fits.
fn age(seconds: u64) -> String {
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
    use serde_json::json;

    #[test]
    fn times_are_understood_with_and_without_a_unit() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "h", "1w", "-1", "1.5h", "99999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sessions_stand_in_columns() {
        let rows = json!([
            {"id": 1, "client": "192.0.2.1:5", "identity": "anyone", "port": "wstap0", "mac": null,
             "seconds": 30, "bytes_in": 1, "bytes_out": 2, "frames_in": 3, "dropped": 0},
            {"id": 12, "client": "::1", "identity": "alice (token)", "port": "wstap1",
             "mac": "02:00:00:00:00:01", "seconds": 7500, "bytes_in": 1000, "bytes_out": 2,
             "frames_in": 3, "dropped": 0},
        ]);
        let text = sessions(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at = |line: &str, text: &str| line.find(text).expect("a column");
        assert_eq!(at(lines[0], "PORT"), at(lines[1], "wstap0"));
        assert_eq!(at(lines[0], "AGE"), at(lines[2], "2h"));
        assert!(lines[1].contains(" -  ") && lines[1].contains("30s"), "{text}");
    }
}
