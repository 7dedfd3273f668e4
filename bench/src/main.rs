//! `make bench`: what wsnic costs and how fast it is, side by side with other relays.
//!
//! Prints a table and writes it as JSON; judges nothing by its exit status. A run that fails
//! panics. Everything happens in network namespaces, and in a PID namespace of the run, so that
//! no process and no link is left however it ends. docs/performance.md explains each line.

mod client;
mod core;
mod flow;
mod limit;
mod line;
mod machine;
mod naive;
mod offload;
mod options;
mod packets;
mod pump;
mod relay;
mod section;
mod stage;
mod table;
mod tap;
mod wire;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use options::Options;
use std::os::unix::process::CommandExt;
use std::process::Command;
use table::Table;

type Section = (&'static str, fn(&Options, &mut Table));

/// What there is to measure, in the order of the table.
const SECTIONS: [Section; 14] = [
    ("tcp", section::tcp::run),
    ("small", section::small::run),
    ("latency", section::latency::run),
    ("memory", section::idle::memory),
    ("sessions", section::sessions::run),
    ("storm", section::storm::run),
    ("idle", section::idle::others),
    ("fairness", section::fairness::run),
    ("start", section::start::run),
    ("arrival", section::arrival::run),
    ("sandbox", section::sandbox::run),
    ("locks", section::locks::run),
    ("tls", section::tls::run),
    ("door", section::door::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name, address] = &arguments[..]
        && role == "relay"
    {
        return relay::run(name, address.parse().expect("an address and port"));
    }
    let options = Options::parse();
    if std::process::id() != 1 {
        contain(&arguments);
    }
    measure(&options);
}

/// Starts this program again as the first process of a PID namespace: when it ends, so does all
/// that it has started.
fn contain(arguments: &[String]) -> ! {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().expect("a program has a path")).args(arguments);
    panic!("unshare: {}", command.exec());
}

fn measure(options: &Options) {
    allow_many_files();
    let facts = machine::facts();
    for (name, value) in &facts {
        println!("{name}: {value}");
    }
    println!();
    let mut table = Table::begin();
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    for (_, run) in SECTIONS.iter().filter(|(name, _)| chosen(name)) {
        run(options, &mut table);
        // Written after each section: a long run that is ended has not been in vain.
        if let Some(path) = &options.json {
            table.write(path, &facts).expect("the file can be written");
        }
    }
}

/// A client is a file here, and two in wsnic, which inherits the limit.
fn allow_many_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a process has limits");
    let wanted = most.max(65_536);
    // Root may raise the hard limit, but for containers that forbid it.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
    }
}

/// Processor time of all threads of a process so far (schedstat of proc(5)).
fn cpu_seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let nanoseconds = threads.map(|thread| {
        let path = thread.expect("a directory entry").path().join("schedstat");
        let text = std::fs::read_to_string(path).expect("the thread lives");
        text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).expect("a number")
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}
