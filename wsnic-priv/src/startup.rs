//! From the command line to a helper that serves, and the end of it.

use crate::closer::{self, Closer};
use crate::link::Links;
use crate::network::{NetworkError, Networks};
use crate::sandbox::Closed;
use crate::server::{self, Kept, Start};
use clap::{Arg, Command};
use nix::unistd::{Uid, User};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use wsnic_host::Listeners;
use wsnic_os::config::{self, LoadError, Loaded};
use wsnic_os::inherited::Inherited;
use wsnic_os::janitor::Janitor;
use wsnic_os::notify::{self, Notifier};
use wsnic_os::sandbox::{CloseError, probe};
use wsnic_os::start::start;
use wsnic_os::{log, packet, parent};
use wsnic_proto::Settings;

/// The user of the front-end, unless the configuration names another.
const FRONT_END_USER: &str = "wsnic";

/// Why the helper cannot serve.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The network cannot be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The socket for the front-end cannot be had.
    #[error("cannot listen on {} (is another wsnic running? see option helper_socket)", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// The process could not lock itself in.
    #[error(transparent)]
    Sandbox(#[from] CloseError),
    /// The system refused something basic.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
}

fn system<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> StartError {
    move |source| StartError::System(action, source.into())
}

/// Runs the program to its end; the last error is its last line of the log.
pub fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        tracing::error!("{}", log::chain(&error));
        ExitCode::FAILURE
    })
}

/// Runs the helper until it is told to stop.
///
/// # Errors
/// What has to be put right; everything that was made is taken away again.
fn run() -> Result<ExitCode, StartError> {
    let (loaded, inherited) = start("wsnic-priv", command(), std::env::args_os())?;
    let opened = open(&loaded, inherited)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let closed = Closed::enter(&loaded.settings, loaded.file.as_deref())?;
    parent::heed(&loaded.matches).map_err(system("watch the parent"))?;
    let closer = closer::start().map_err(system("start a thread"))?;
    closed.seal()?;
    if let Some(probe) = probe::wanted(&loaded.matches) {
        probe.make();
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(serve(loaded.settings, opened, closer))
}

/// The command and its own arguments, without the options of the table.
pub fn command() -> Command {
    Command::new("wsnic-priv")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The helper of wsnic: owns bridge, TAPs and firewall rules, hands out TAP fds")
        .arg(
            Arg::new("socket")
                .long("socket")
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where the front-end connects, instead of the option helper_socket"),
        )
        .arg(parent::argument())
        .arg(probe::argument())
}

/// Opens and looks up what only root can; a janitor, for a socket that this process makes itself.
fn open(loaded: &Loaded, inherited: Inherited) -> Result<(Start, Option<Janitor>), StartError> {
    let Loaded { settings, matches, .. } = loaded;
    let (mut kept, mut listener, mut notify) = (Vec::new(), None, None);
    for (name, fd) in inherited {
        match Kept::new(&name, fd) {
            Ok(connection) => kept.push(connection),
            Err(fd) if name == notify::INHERITED_NAME => notify = Some(fd),
            Err(fd) => listener = Some(fd),
        }
    }
    let path = matches.get_one::<PathBuf>("socket").unwrap_or(&settings.helper_socket);
    let (listener, janitor) = match listener {
        Some(listener) => (listener, None),
        None => {
            let failed = |source| StartError::Socket(path.clone(), source);
            let hired = Janitor::hire(path, || packet::listen(path)).map_err(failed)?;
            (hired.0, Some(hired.1))
        }
    };
    let notifier = Notifier::new(notify).map_err(system("reach $NOTIFY_SOCKET"))?;
    let listeners = Listeners::open().map_err(system("see who listens"))?;
    let users = front_end_users(settings);
    Ok((Start { listener, kept, users, notifier, listeners }, janitor))
}

async fn serve(
    settings: Settings,
    (start, janitor): (Start, Option<Janitor>),
    closer: Closer,
) -> Result<ExitCode, StartError> {
    let links = Links::connect().map_err(system("open a netlink socket"))?;
    let mut networks = Networks::setup(&settings, links, !start.kept.is_empty()).await?;
    networks.summaries().iter().for_each(|summary| tracing::info!("{summary}"));
    let load = || config::load(command(), std::env::args_os()).map(|loaded| loaded.settings);
    let served = server::serve(&mut networks, start, closer, settings, load).await;
    networks.teardown().await;
    drop(janitor);
    served.map(|()| ExitCode::SUCCESS).map_err(system("serve"))
}

/// Who may talk to the helper: root, the helper's own user, the front-end's user.
fn front_end_users(settings: &Settings) -> Vec<Uid> {
    let name = settings.user.as_deref().unwrap_or(FRONT_END_USER);
    let front_end = User::from_name(name).ok().flatten().map(|user| user.uid);
    [Uid::from_raw(0), Uid::effective()].into_iter().chain(front_end).collect()
}
