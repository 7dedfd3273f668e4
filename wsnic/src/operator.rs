//! What an operator sees of a wsnic that runs, and does to it: `wsnic status`, `wsnic networks`,
//! `wsnic sessions`, `wsnic top`, `wsnic capture`, `wsnic kick`, `wsnic pardon`.

use crate::admin::{OrderError, order_now};
use crate::rows::{Row, age, networks, sessions};
use crate::{capture, top};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use wsnic_os::log::{chain, say};

/// The words of this file.
pub const WORDS: [&str; 7] = ["status", "networks", "sessions", "top", "capture", "kick", "pardon"];

/// Adds the arguments of a word.
pub fn with_arguments(command: Command, word: &str) -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print what wsnic answers, which is JSON");
    match word {
        "status" | "networks" | "sessions" => command.arg(json),
        "top" => command,
        "capture" => capture::with_arguments(command),
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
    let done = match word {
        "capture" => capture::capture(matches, socket)
            // Standard output may be the capture itself.
            .map(|text| eprintln!("{text}"))
            .map_err(|error| chain(&error)),
        "top" => top::top(socket).map_err(|error| chain(&error)),
        word => answer(word, matches, socket)
            .map(|text| say(text.trim_end()))
            .map_err(|error| chain(&error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsnic: {error}");
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
    let wrong = |error: serde_json::Error| OrderError::Refused(error.to_string());
    Ok(match word {
        "status" => status(&serde_json::from_str(&text).map_err(wrong)?),
        "networks" => networks(&serde_json::from_str::<Vec<_>>(&text).map_err(wrong)?),
        _ => sessions(&serde_json::from_str::<Vec<Row>>(&text).map_err(wrong)?),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
