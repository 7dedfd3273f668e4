//! The command line.

use crate::stage::{Kind, Stage};
use clap::{Arg, ArgAction, Command, value_parser};
use std::path::PathBuf;
use std::time::Duration;
use wsnic_proto::options::OptionId;

/// How much is done, and with what.
#[derive(Debug)]
pub struct Options {
    /// Goes through every step once, so that the test suite knows that it works.
    pub quick: bool,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// Before each measurement.
    pub warm_up: Duration,
    /// The length of one.
    pub window: Duration,
    /// Sections to run; all when there are none.
    pub only: Vec<String>,
    /// Idle clients.
    pub clients: usize,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// A checkout of the Python program.
    pub python: Option<PathBuf>,
}

impl Options {
    /// From the command line; ends the program when it is wrong.
    pub fn parse() -> Options {
        let matches = command().get_matches();
        let quick = matches.get_flag("quick");
        let rounds = matches.get_one::<u16>("rounds").map(|rounds| usize::from((*rounds).max(1)));
        let seconds = matches.get_one::<f64>("seconds").copied();
        let window = seconds.unwrap_or(if quick { 0.1 } else { 2.0 }).clamp(0.01, 600.0);
        let clients = matches
            .get_one::<u32>("clients")
            .map_or(if quick { 5 } else { 5000 }, |clients| *clients as usize);
        Options {
            quick,
            rounds: rounds.unwrap_or(if quick { 1 } else { 5 }),
            warm_up: Duration::from_millis(if quick { 50 } else { 500 }),
            window: Duration::from_secs_f64(window),
            only: matches.get_many::<String>("only").unwrap_or_default().cloned().collect(),
            clients: clients.clamp(1, most_clients()),
            json: matches.get_one::<PathBuf>("json").cloned(),
            python: matches
                .get_one::<PathBuf>("python")
                .cloned()
                .or_else(|| std::env::var_os("WSNIC_PYTHON").map(PathBuf::from))
                .filter(|path| !path.as_os_str().is_empty()),
        }
    }

    /// `full`, or `short` in a quick run.
    pub fn count(&self, full: usize, short: usize) -> usize {
        if self.quick { short } else { full }
    }

    /// wsnic and all that it is compared with, each in a lab of its own.
    pub fn all_servers(&self) -> Vec<Stage> {
        let mut servers = self.robust_servers();
        servers.extend(self.python.as_ref().map(|checkout| Stage::python(checkout, &servers[0])));
        servers
    }

    /// The same but for the Python program, which ends where more comes than a socket takes.
    pub fn robust_servers(&self) -> Vec<Stage> {
        // The others have no locks either; the section `locks` says what those cost.
        let wsnic = Stage::wsnic("locks = no\n");
        let others = [Kind::Naive, Kind::Limit].map(|kind| Stage::relay(kind, &wsnic));
        std::iter::once(wsnic).chain(others).collect()
    }
}

/// All of them, in every other round from the last to the first: whoever comes next finds caches as the
/// one before has left them, and what the kernel still does for that one.
pub fn in_turn<T>(round: usize, all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    if !round.is_multiple_of(2) {
        all.reverse();
    }
    all
}

/// As many as wsnic takes, less those that move something.
fn most_clients() -> usize {
    let most = match OptionId::MaxClients.spec().kind {
        wsnic_proto::options::Kind::Number { max, .. } => max as usize,
        _ => 1000,
    };
    most - 20
}

fn command() -> Command {
    let text = |name: &'static str, metavar: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(metavar).help(help)
    };
    Command::new("wsnic-bench")
        .about("Measures wsnic side by side with other relays, in network namespaces. Needs root.")
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Everything once and briefly; the figures mean little"),
        )
        .arg(
            text("rounds", "N", "Rounds of each comparison (default: 5)")
                .value_parser(value_parser!(u16)),
        )
        .arg(
            text("seconds", "N", "Length of each measurement (default: 2)")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            text("clients", "N", "Idle clients, as far as max_clients goes (default: 5000)")
                .value_parser(value_parser!(u32)),
        )
        .arg(
            text("only", "NAMES", "Only these sections, with commas between them")
                .value_delimiter(',')
                .value_parser(crate::SECTIONS.map(|(name, _)| name)),
        )
        .arg(
            text("json", "FILE", "Where the figures go as JSON")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            text(
                "python",
                "DIR",
                "A checkout of the Python program to compare with (default: WSNIC_PYTHON)",
            )
            .value_parser(value_parser!(PathBuf)),
        )
}
