//! `wsnic dnsmasq`: keeps the dnsmasq of one network, with no privilege that it does not need.
//!
//! Started by `wsnic run`, or by systemd as wsnic-dnsmasq@NETWORK.service; a process of its own next to
//! dnsmasq, because dnsmasq cannot be told of its parent's death: it changes its user, which takes the
//! wish back (prctl(2)).
//!
//! Theory of operation. dnsmasq insists on CAP_NET_ADMIN at its start, which it wants to keep for
//! answers to guests that have no address yet; with `--dhcp-broadcast` it never uses it. As root it
//! binds its ports, and then asks the kernel to let it keep the capability while it becomes an ordinary
//! user. A seccomp filter answers that request with "done" and does nothing: so the change of user
//! takes all capabilities away, as it does for everybody. From then on, and before it has read the
//! first packet, dnsmasq has none.

mod arguments;
mod leases;

use crate::child::{describe, signal};
use caps::Capability::{CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_SETGID, CAP_SETUID};
use clap::Arg;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use nix::unistd::{Group, Uid, User};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::signal::unix::{SignalKind, signal as on_signal};
use tokio::time::{MissedTickBehavior, interval};
use wsnic_host::{Listeners, bridge_name};
use wsnic_os::config::Loaded;
use wsnic_os::inherited::Inherited;
use wsnic_os::log::chain;
use wsnic_os::log_limit::LogLimit;
use wsnic_os::notify::{INHERITED_NAME, Notifier};
use wsnic_os::parent;
use wsnic_os::privileges::{self, Identity, PrivilegeError};
use wsnic_os::sandbox::{Parts, SandboxError, process, seccomp};
use wsnic_proto::Settings;
use wsnic_proto::ports::Lan;
use wsnic_proto::settings::{DhcpService, Network, NetworkName};

const NETWORK: &str = "network";
/// Where distributions put it; then the search path.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"];
/// Users that dnsmasq may become, the first that exists.
const USERS: [&str; 3] = ["wsnic-dnsmasq", "dnsmasq", "nobody"];
/// How often it is looked whether dnsmasq listens, until it does, and whether the bridge is the same.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// dnsmasq is not installed.
#[derive(Debug, thiserror::Error)]
#[error(
    "dhcp_service=dnsmasq needs the program dnsmasq, which is not installed: install the package \
     dnsmasq-base (Debian, Ubuntu) or dnsmasq (elsewhere), or use dhcp_service=builtin, which needs \
     nothing installed"
)]
pub struct NotInstalled;

/// Why dnsmasq does not run.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    NotInstalled(#[from] NotInstalled),
    #[error("wsnic dnsmasq needs root to start dnsmasq, which then gives it up")]
    NotRoot,
    #[error("there is no network {0} in the configuration")]
    NoNetwork(String),
    #[error("network {0} does not have dhcp_service=dnsmasq")]
    OtherService(NetworkName),
    #[error("there is no user {} for dnsmasq", USERS.join(", "))]
    NoUser,
    #[error("there is no bridge {0}: the helper wsnic-priv makes it, is it running?")]
    NoBridge(String, #[source] io::Error),
    #[error(transparent)]
    Leases(#[from] leases::LeaseFileError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("bridge {0} was made anew, dnsmasq has to be started again")]
    OtherBridge(String),
    #[error("dnsmasq has ended ({0})")]
    Ended(String),
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
}

fn system<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> KeepError {
    move |source| KeepError::System(action, source.into())
}

/// The program.
///
/// # Errors
/// It is nowhere.
pub fn program() -> Result<PathBuf, NotInstalled> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = PROGRAM_DIRS.map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    let candidates = dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join("dnsmasq"));
    { candidates }.find(|path| path.is_file()).ok_or(NotInstalled)
}

/// The networks that want one.
pub fn networks(settings: &Settings) -> impl Iterator<Item = &Network> {
    settings.networks().filter(|network| network.dhcp.service == DhcpService::Dnsmasq)
}

/// The arguments of the command.
pub fn arguments() -> [Arg; 2] {
    let network = Arg::new(NETWORK)
        .long(NETWORK)
        .value_name("NAME")
        .default_value(NetworkName::DEFAULT)
        .help("The network that dnsmasq is to serve");
    [network, parent::argument()]
}

/// The command `wsnic dnsmasq`: runs until it is told to stop, or dnsmasq has ended.
pub fn keep(command: clap::Command, arguments: Vec<OsString>) -> ExitCode {
    let (loaded, inherited) = match wsnic_os::start::start("wsnic-dnsmasq", command, arguments) {
        Ok(started) => started,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            return ExitCode::from(2);
        }
    };
    let kept = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))
        .and_then(|runtime| runtime.block_on(start(&loaded, inherited)));
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn start(loaded: &Loaded, inherited: Inherited) -> Result<(), KeepError> {
    let (mut notify, mut kept) = (None, None);
    for (name, fd) in inherited {
        match name.as_str() {
            INHERITED_NAME => notify = Some(fd),
            leases::STORED => kept = Some(fd),
            _ => {}
        }
    }
    let notifier = Notifier::new(notify).map_err(system("reach $NOTIFY_SOCKET"))?;
    if !Uid::effective().is_root() {
        return Err(KeepError::NotRoot);
    }
    let (network, bridge) = network(loaded)?;
    let index = if_nametoindex(bridge.as_str())
        .map_err(|error| KeepError::NoBridge(bridge.clone(), error.into()))?;
    let (user, group) = user()?;
    let program = program()?;
    let leases = leases::open(network, kept, &notifier)?;
    let mut command = Command::new(program);
    command
        .args(arguments::of(network, &bridge, (&user.name, &group), loaded.verbosity))
        .env_clear()
        // Its words are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::from(leases))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut terminate = on_signal(SignalKind::terminate()).map_err(system("handle signals"))?;
    let mut interrupt = on_signal(SignalKind::interrupt()).map_err(system("handle signals"))?;
    let child = close(&loaded.settings, &mut command)?;
    // The same user as dnsmasq's, which may end it, and who has no other power.
    Identity { uid: user.uid, gid: user.gid }.assume()?;
    let mut dnsmasq = Dnsmasq::new(child);
    if let Err(error) = parent::heed(&loaded.matches) {
        dnsmasq.end().await;
        return Err(system("watch the parent")(error));
    }
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        error = dnsmasq.watch(network.plan.gateway(), (&bridge, index), &notifier) => {
            dnsmasq.end().await;
            Err(error)
        }
        () = stop => {
            notifier.stopping();
            dnsmasq.end().await;
            Ok(())
        }
    }
}

/// Which network, and its bridge.
fn network(loaded: &Loaded) -> Result<(&Network, String), KeepError> {
    let name =
        loaded.matches.get_one::<String>(NETWORK).map_or(NetworkName::DEFAULT, String::as_str);
    let mut numbered = (0..).zip(loaded.settings.networks());
    let (number, network) = numbered
        .find(|(_, network)| network.name.as_str() == name)
        .ok_or_else(|| KeepError::NoNetwork(name.to_owned()))?;
    if network.dhcp.service != DhcpService::Dnsmasq {
        return Err(KeepError::OtherService(network.name.clone()));
    }
    Ok((network, bridge_name(Lan { network: number, room: 0 }, false)))
}

/// Whom dnsmasq becomes, and the name of the group.
fn user() -> Result<(User, String), KeepError> {
    let find = |name: &&str| {
        let user = User::from_name(name).ok().flatten()?;
        let group = Group::from_gid(user.gid).ok().flatten()?;
        Some((user, group.name))
    };
    USERS.iter().find_map(find).ok_or(KeepError::NoUser)
}

/// Starts dnsmasq, with what its start needs, and with nothing that it could do afterwards.
fn close(settings: &Settings, command: &mut Command) -> Result<Child, KeepError> {
    let mut parts = Parts::new(settings.sandbox);
    parts.add("protection from core dumps", process::keep_secrets)?;
    privileges::narrow(&[CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_SETUID, CAP_SETGID])?;
    privileges::gain_nothing()?;
    parts.add("a seccomp filter", seccomp::keep_no_capabilities)?;
    parts.report();
    command.spawn().map_err(system("start dnsmasq"))
}

/// dnsmasq while it runs.
struct Dnsmasq {
    child: Child,
    log: Option<Lines<BufReader<ChildStderr>>>,
    limit: LogLimit,
}

impl Dnsmasq {
    fn new(mut child: Child) -> Dnsmasq {
        let log = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        Dnsmasq { child, log, limit: LogLimit::new("dnsmasq", std::time::Instant::now()) }
    }

    /// Says when it serves, and passes on its log. Returns when it has ended, or cannot serve any more.
    async fn watch(
        &mut self,
        gateway: Ipv4Addr,
        (bridge, index): (&str, u32),
        notifier: &Notifier,
    ) -> KeepError {
        let mut ready = false;
        let mut look = interval(LOOK);
        loop {
            let line = async {
                match &mut self.log {
                    Some(log) => log.next_line().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Its last words come before its end.
                biased;
                line = line => match line {
                    Ok(Some(line)) => self.tell(&line),
                    Ok(None) | Err(_) => self.log = None,
                },
                status = self.child.wait() => return KeepError::Ended(describe(status)),
                _ = look.tick() => {
                    if !ready && listens(gateway) {
                        ready = true;
                        look = interval(LOOK_AGAIN);
                        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                        notifier.ready("serving");
                    }
                    // Its socket for DHCP belongs to the one that there was.
                    if if_nametoindex(bridge) != Ok(index) {
                        return KeepError::OtherBridge(bridge.to_owned());
                    }
                }
            }
        }
    }

    /// Passes a line on. Guests can cause most of them.
    fn tell(&self, line: &str) {
        let text = line.trim();
        if text.is_empty() || !self.limit.allows() {
            return;
        }
        // `dnsmasq: ` stands before its last words, `dnsmasq-dhcp[7]: ` and the like before others.
        if let Some(last) = text.strip_prefix("dnsmasq: ") {
            tracing::error!("dnsmasq: {last}");
            return;
        }
        let (_, text) = text.split_once("]: ").unwrap_or(("", text));
        let lower = text.to_ascii_lowercase();
        let is_trouble = TROUBLE.iter().any(|word| lower.contains(word));
        if is_trouble && !lower.contains(WANTED) {
            tracing::warn!("dnsmasq: {text}");
        } else {
            tracing::debug!("dnsmasq: {text}");
        }
    }

    /// Ends it. Until it has become an ordinary user it cannot be told to.
    async fn end(&mut self) {
        while let Ok(None) = self.child.try_wait() {
            // Refused as long as it is root, a moment.
            let _ = signal(&self.child, Signal::SIGTERM);
            let _ = tokio::time::timeout(LOOK, self.child.wait()).await;
        }
    }
}

/// What dnsmasq says of what an operator should know: its lines come without a priority.
const TROUBLE: [&str; 7] =
    ["warning", "fail", "cannot", "error", "no address", "maximum number", "refused"];

/// So it is meant where guests have no way out.
const WANTED: &str = "no upstream servers configured";

/// Whether somebody listens for questions over TCP at this address: the last thing that dnsmasq opens.
fn listens(gateway: Ipv4Addr) -> bool {
    let questions = SocketAddrV4::new(gateway, 53);
    Listeners::open().and_then(|listeners| listeners.has(questions)).unwrap_or(false)
}
