//! The first word of the command line: which subcommand is meant.

use crate::{cert, check, dnsmasq, live, operator, reload, run, token};
use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use wsnic_os::config::{self, Loaded};
use wsnic_os::log;
use wsnic_proto::cli::{self, Verbosity};
use wsnic_proto::options::OptionId;

/// Every word, and what it does.
const WORDS: [(&str, &str); 14] = [
    ("run", "start wsnic in the foreground (also without a word)"),
    ("status", "sessions, refusals and bans of a wsnic that runs"),
    ("networks", "networks: subnet, sessions, rooms, leases, what holds guests apart, bytes"),
    ("sessions", "who is in: client, identity, network, port, addresses, age, round trip, bytes"),
    ("top", "the same, live: who moves how much"),
    ("capture", "what goes between a guest and the network, as a file for Wireshark"),
    ("kick", "end a session, with --ban keep its address out"),
    ("pardon", "let a banned address in again"),
    ("reload", "hand new certificates and lists of clients to a wsnic that runs"),
    (
        "dnsmasq",
        "keep the dnsmasq of a network, with dhcp_service=dnsmasq: for wsnic run and systemd",
    ),
    ("cert", "make a self-signed certificate for wss://, and say how to trust it"),
    (
        "check",
        "say whether this machine and configuration are fit, and what to do if not; \
         with --live [URL] join a wsnic that runs as a guest, and say what works",
    ),
    ("template", "print a commented wsnic.conf with all options at their defaults"),
    ("token", "make a token for somebody who may come in, see `wsnic token --help`"),
];

/// The oldest habit: no word at all.
const WITHOUT: &str = "run";

/// What the entry point of an image puts before the word.
const DOCKER_MODE: &str = "--docker-mode";

/// The options that the words of [`operator`] have a use for, of all that they understand.
const OPERATOR_OPTIONS: [OptionId; 2] = [OptionId::Config, OptionId::AdminSocket];

/// Runs what `arguments` (the program's name first) ask for.
pub fn dispatch(mut arguments: Vec<OsString>) -> ExitCode {
    let word = take_word(&mut arguments);
    if word == "template" {
        log::say(wsnic_proto::options::template().trim_end());
        return ExitCode::SUCCESS;
    }
    if word == "token" {
        return token::token(&arguments);
    }
    if word == "cert" {
        return match command(word).try_get_matches_from(arguments) {
            Ok(matches) => cert::cert(&matches),
            Err(error) => {
                // An error means that nobody reads it.
                let _ = error.print();
                ExitCode::from(error.exit_code().try_into().unwrap_or(2))
            }
        };
    }
    if word == "dnsmasq" {
        return dnsmasq::keep(command(word), arguments);
    }
    let load = || config::load(command(word), arguments.clone());
    if word == "check" {
        log::init("wsnic", Verbosity::Quiet.into());
        match config::command_line(command(word), arguments.clone()) {
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
    if operator::WORDS.contains(&word) {
        log::init("wsnic", loaded.verbosity.into());
        return operator::operate(word, &loaded.matches, &loaded.settings.admin_socket);
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

/// Takes the word out of the arguments.
fn take_word(arguments: &mut Vec<OsString>) -> &'static str {
    let place = if arguments.get(1).is_some_and(|first| first == DOCKER_MODE) { 2 } else { 1 };
    let given = arguments.get(place).and_then(|word| word.to_str());
    let Some((word, _)) = WORDS.iter().find(|(word, _)| given == Some(word)) else {
        return WITHOUT;
    };
    arguments.remove(place);
    // These understand no other option, and need none of a container's defaults.
    if place == 2 && matches!(*word, "cert" | "token") {
        arguments.retain(|argument| argument != OsStr::new(DOCKER_MODE));
    }
    word
}

/// The command of one word, without the options of the table.
fn command(word: &str) -> Command {
    let command = match word {
        "token" => return token::command(),
        "cert" => {
            return Command::new("wsnic cert")
                .about("Makes a self-signed certificate for wss://")
                .args(cert::arguments());
        }
        _ => Command::new("wsnic")
            .version(env!("CARGO_PKG_VERSION"))
            .about("Connects emulated machines in browsers to a network: one WebSocket message is one Ethernet frame")
            .after_help(list()),
    };
    match word {
        "check" => command.arg(check::argument()).args(live::arguments()),
        "dnsmasq" => command.args(dnsmasq::arguments()),
        word if operator::WORDS.contains(&word) => operator::with_arguments(command, word),
        _ => command,
    }
}

/// The list of words at the end of the help.
fn list() -> String {
    let lines = WORDS.map(|(word, what)| format!("  wsnic {word:<8} {what}"));
    format!("Commands:\n{}", lines.join("\n"))
}

/// The whole command line, each word as a subcommand: for manuals and completions.
pub fn tree() -> Command {
    let words = WORDS.map(|(word, what)| {
        with_used_options(word).name(word).about(what).disable_version_flag(true)
    });
    with_used_options(WITHOUT).subcommands(words)
}

/// The command of a word with those options of the table that it has a use for.
fn with_used_options(word: &str) -> Command {
    let is_used = |option: &&Arg| match word {
        "template" | "cert" | "token" => false,
        word if operator::WORDS.contains(&word) => {
            OPERATOR_OPTIONS.iter().any(|id| option.get_id() == id.spec().name)
        }
        _ => !option.is_hide_set(),
    };
    let all = cli::add_options(Command::new(""));
    let used = all.get_arguments().filter(is_used);
    used.fold(command(word).after_help(""), |command, option| command.arg(option.clone()))
}

fn announce(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configuration read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(line: &str) -> (&'static str, Vec<OsString>) {
        let mut arguments = line.split(' ').map(OsString::from).collect();
        (take_word(&mut arguments), arguments)
    }

    #[test]
    fn the_word_may_stand_behind_what_an_image_puts_first() {
        assert_eq!(taken("wsnic check -v"), ("check", vec!["wsnic".into(), "-v".into()]));
        assert_eq!(taken("wsnic"), ("run", vec!["wsnic".into()]));
        assert_eq!(taken("wsnic -i"), ("run", vec!["wsnic".into(), "-i".into()]));
        let (word, rest) = taken("wsnic --docker-mode status --json");
        assert_eq!(word, "status");
        assert_eq!(rest, ["wsnic", "--docker-mode", "--json"].map(OsString::from));
        assert_eq!(
            taken("wsnic --docker-mode token x"),
            ("token", vec!["wsnic".into(), "x".into()])
        );
        assert_eq!(taken("wsnic --docker-mode -i").0, "run");
    }

    #[test]
    fn every_word_is_a_subcommand_of_the_tree() {
        let tree = tree();
        for (word, _) in WORDS {
            assert!(tree.find_subcommand(word).is_some(), "{word}");
        }
        tree.debug_assert();
    }

    #[test]
    fn the_help_lists_every_word() {
        for (word, what) in WORDS {
            assert!(list().contains(&format!("wsnic {word}")) && list().contains(what), "{word}");
        }
    }
}
