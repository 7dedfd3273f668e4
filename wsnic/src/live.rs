//! `wsnic check --live`: a guest that joins a wsnic that runs, and says what works for it.
//!
//! Needs no privilege and changes nothing: it connects as any client does, and gives its address
//! back. Each step prints one line; a step that fails says what to do about it.

mod frames;
mod guest;
mod line;
mod rate;
mod report;
mod steps;

use crate::run;
use clap::{Arg, ArgAction, ArgMatches};
use line::Target;
use report::{Report, without_secrets};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use wsnic_os::config::{LoadError, Loaded};
use wsnic_os::log::{chain, say};
use wsnic_proto::Settings;

const LIVE: &str = "live";
const JSON: &str = "json";
const RESOLVE: &str = "resolve";
const CA: &str = "ca";
const INSECURE: &str = "insecure";
const ORIGIN: &str = "origin";

/// Of ws:// (RFC 6455 §3).
const DEFAULT_PORT: u16 = 80;

/// The arguments of this file, for `wsnic check`.
pub fn arguments() -> [Arg; 6] {
    [
        Arg::new(LIVE)
            .long(LIVE)
            .value_name("URL")
            .num_args(0..=1)
            .default_missing_value("")
            .help("Join a wsnic that runs as a guest does, and say what works; without a URL the one of this configuration"),
        Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).requires(LIVE).help("With --live: print one JSON object"),
        Arg::new(RESOLVE)
            .long(RESOLVE)
            .value_name("NAME")
            .requires(LIVE)
            .default_value("example.com")
            .help("With --live: the name that is looked up"),
        Arg::new(CA)
            .long(CA)
            .value_name("FILE")
            .requires(LIVE)
            .value_parser(clap::value_parser!(PathBuf))
            .help("With --live: believe these certificates (PEM) instead of the system's"),
        Arg::new(INSECURE)
            .long(INSECURE)
            .action(ArgAction::SetTrue)
            .requires(LIVE)
            .conflicts_with(CA)
            .help("With --live: believe any certificate"),
        Arg::new(ORIGIN)
            .long(ORIGIN)
            .value_name("ORIGIN")
            .requires(LIVE)
            .help("With --live: come as a page of this origin does, see allowed_origins"),
    ]
}

/// Whether a running wsnic is to be checked.
pub fn is_wanted(matches: &ArgMatches) -> bool {
    matches.contains_id(LIVE)
}

/// Joins, tests and leaves; the status is 0 when all is well. The configuration has to be there only for
/// want of a URL: whoever names one may be on another machine, or may not read the file. It also tells
/// which part of a URL is the name of a network and no secret.
pub fn check(matches: &ArgMatches, load: impl FnOnce() -> Result<Loaded, LoadError>) -> ExitCode {
    let (url, networks) = match (matches.get_one::<String>(LIVE).map_or("", String::as_str), load())
    {
        ("", Ok(loaded)) => (default_url(&loaded.settings), Vec::new()),
        ("", Err(error)) => return usage(&chain(&error)),
        (url, Ok(loaded)) => (url.to_owned(), names(&loaded.settings)),
        (url, Err(_)) => (url.to_owned(), Vec::new()),
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let target = Target {
        ca: matches.get_one::<PathBuf>(CA).cloned(),
        is_insecure: matches.get_flag(INSECURE),
        origin: text(ORIGIN),
        shown: without_secrets(&url, &networks),
        url,
    };
    let name = match frames::name(&text(RESOLVE).unwrap_or_default()) {
        Ok(name) => name,
        Err(why) => return usage(&format!("--{RESOLVE}: {why}")),
    };
    let line = match target.prepare() {
        Ok(line) => line,
        Err(why) => return usage(&why),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return usage(&format!("cannot start: {error}")),
    };
    let is_json = matches.get_flag(JSON);
    let mut report = Report::new(target.shown, is_json);
    runtime.block_on(steps::run(&line, &name, &mut report));
    if is_json {
        say(report.to_json());
    } else {
        say(report.verdict());
    }
    if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn names(settings: &Settings) -> Vec<String> {
    settings.networks().map(|network| network.name.to_string()).collect()
}

fn usage(why: &str) -> ExitCode {
    eprintln!("wsnic: {why}");
    ExitCode::from(2)
}

/// Where a wsnic of these settings listens: an address that always works from here.
fn default_url(settings: &Settings) -> String {
    let server = &settings.server;
    let address = server.addresses.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    run::url("ws", address, server.ws_ports.first().copied().unwrap_or(DEFAULT_PORT))
}
