//! The first word of the command line: which subcommand is meant.

use crate::{cert, check, live, operator, reload, run, token};
use clap::Command;
use std::ffi::OsString;
use std::process::ExitCode;
use wsnic_os::config::{self, Loaded};
use wsnic_os::log;
use wsnic_proto::cli::Verbosity;

const SUBCOMMANDS: &str = "\
Commands:
  wsnic run      start wsnic in the foreground (also without a word)
  wsnic status   sessions, refusals and bans of a wsnic that runs
  wsnic sessions who is in: client, identity, port, MAC, age, bytes
  wsnic kick     end a session, with --ban keep its address out; wsnic pardon lets it in again
  wsnic reload   hand new certificates and lists of clients to a wsnic that runs
  wsnic cert     make a self-signed certificate for wss://, and say how to trust it
  wsnic check    say whether this machine and configuration are fit, and what to do if not;
                 with --live [URL] join a wsnic that runs as a guest, and say what works
  wsnic template print a commented wsnic.conf with all options at their defaults
  wsnic token    make a token for somebody who may come in, see `wsnic token --help`";

/// Runs what `arguments` (the program's name first) ask for.
pub fn dispatch(mut arguments: Vec<OsString>) -> ExitCode {
    let word = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let word = match word {
        "run" | "check" | "template" | "reload" | "cert" | "token" => {
            arguments.remove(1).into_string().unwrap_or_default()
        }
        word if operator::WORDS.contains(&word) => {
            arguments.remove(1).into_string().unwrap_or_default()
        }
        // The oldest habit: no word at all.
        _ => "run".to_owned(),
    };
    if word == "template" {
        log::say(wsnic_proto::options::template().trim_end());
        return ExitCode::SUCCESS;
    }
    if word == "token" {
        return token::token(&arguments);
    }
    if word == "cert" {
        let command = Command::new("wsnic cert")
            .about("Makes a self-signed certificate for wss://")
            .args(cert::arguments());
        return match command.try_get_matches_from(arguments) {
            Ok(matches) => cert::cert(&matches),
            Err(error) => {
                // An error means that nobody reads it.
                let _ = error.print();
                ExitCode::from(error.exit_code().try_into().unwrap_or(2))
            }
        };
    }
    let command = Command::new("wsnic")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Connects emulated machines in browsers to a network: one WebSocket message is one Ethernet frame")
        .after_help(SUBCOMMANDS);
    let command = match word.as_str() {
        "check" => command.arg(check::argument()).args(live::arguments()),
        word if operator::WORDS.contains(&word) => operator::with_arguments(command, word),
        _ => command,
    };
    let load = || config::load(command.clone(), arguments.clone());
    if word == "check" {
        log::init("wsnic", Verbosity::Quiet.into());
        match config::command_line(command.clone(), arguments.clone()) {
            Ok(matches) if live::is_wanted(&matches) => return live::check(&matches, load),
            // The same error comes again below.
            Ok(_) | Err(_) => {}
        }
    }
    let mut loaded = match load() {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("wsnic: {}", log::chain(&error));
            return ExitCode::from(2);
        }
    };
    if word == "check" {
        return check::check(&loaded);
    }
    if word == "reload" {
        log::init("wsnic", loaded.verbosity.into());
        return reload::reload(&loaded.settings);
    }
    if operator::WORDS.contains(&word.as_str()) {
        log::init("wsnic", loaded.verbosity.into());
        return operator::operate(&word, &loaded.matches, &loaded.settings.admin_socket);
    }
    // Where this program does not reach the syslog daemon the others need not try.
    loaded.use_syslog = log::init("wsnic", loaded.log());
    announce(&loaded);
    match run::run(&loaded, &load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn announce(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configuration read");
    }
}
