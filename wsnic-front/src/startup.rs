//! From the command line to a front-end that serves: everything is opened here, then the process
//! locks itself in, and only then the first byte of a client is read.

use crate::addresses::Addresses;
use crate::admin::{self, Admin};
use crate::auth::Passwords;
use crate::dhcp_port::LeaseFileError;
use crate::fd_closer::FdCloser;
use crate::helper::Helper;
use crate::listen::{self, BindError, Bound, Listener, Speaks};
use crate::monitor::{self, Monitor};
use crate::networks::Networks;
use crate::sandbox::{Closed, Sandboxed};
use crate::session::{Context, Door, DoorError, LogLimits};
use clap::{Arg, Command};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use wsnic_os::config::{LoadError, Loaded};
use wsnic_os::inherited::Inherited;
use wsnic_os::janitor::Janitor;
use wsnic_os::material::{Material, MaterialError};
use wsnic_os::notify::{self, Notifier};
use wsnic_os::sandbox::{CloseError, probe};
use wsnic_os::start::start;
use wsnic_os::{log, packet, parent};
use wsnic_proto::Settings;

/// Sessions have this long to say goodbye at the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);
/// A helper that is just starting is waited for this long.
const HELPER_LIMIT: Duration = Duration::from_secs(10);
/// Pause between attempts to reach it.
const HELPER_PAUSE: Duration = Duration::from_millis(50);

/// Fds for everything but clients.
const SPARE_FDS: u64 =
    64 + (admin::MAX_ORDERS + admin::MAX_WATCHERS + monitor::MAX_CONNECTIONS) as u64;

/// Why the front-end cannot serve.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate, or another file for the door, cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// It is of no use.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The lease file cannot be used.
    #[error(transparent)]
    Leases(#[from] LeaseFileError),
    /// The process could not lock itself in.
    #[error(transparent)]
    Sandbox(#[from] CloseError),
    /// The helper cannot be reached.
    #[error("cannot reach the helper at {} (is wsnic-priv running?)", path.display())]
    Helper {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The helper has ended the connection, which is not to be had twice.
    #[error("the helper is gone: {0}")]
    HelperGone(String),
    /// The system refused something basic.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> StartError {
    move |source| StartError::System { action, source: source.into() }
}

/// Runs the program to its end; the last error is its last line of the log.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the front-end until it is told to stop.
///
/// # Errors
/// What has to be put right.
fn run() -> Result<(), StartError> {
    let (loaded, inherited) = start("wsnic-front", command(), std::env::args_os())?;
    let Loaded { settings, matches, .. } = loaded;
    let opened = Opened::open(&settings, matches.get_one("helper"), inherited)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(system("start the runtime"))?;
    let ready = runtime.block_on(opened.prepare())?;
    let closed = Closed::enter(&settings, fd_limit(settings.max_clients()))?;
    parent::heed(&matches).map_err(system("watch the parent"))?;
    let closer = FdCloser::start().map_err(system("start a thread"))?;
    let passwords = Passwords::start().map_err(system("start a thread"))?;
    let sandboxed = closed.seal()?;
    if let Some(probe) = probe::wanted(&matches) {
        probe.make();
        return Ok(());
    }
    runtime.block_on(serve(&settings, ready, (closer, passwords), sandboxed))
}

/// The command and its own arguments, without the options of the table.
pub fn command() -> Command {
    Command::new("wsnic-front")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The front-end of wsnic: WebSocket server and frame shuttle, without privileges")
        .arg(
            Arg::new("helper")
                .long("helper")
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The helper's socket, instead of the option helper_socket"),
        )
        .arg(parent::argument())
        .arg(probe::argument())
}

/// Everything that needs to be opened while that is still possible.
struct Opened {
    listeners: Vec<Bound>,
    monitors: Vec<Bound>,
    admin: Option<std::os::unix::net::UnixListener>,
    janitors: Vec<Janitor>,
    door: Door,
    helper: OwnedFd,
    helper_path: PathBuf,
    networks: Networks,
    notifier: Notifier,
}

impl Opened {
    fn open(
        settings: &Settings,
        helper: Option<&PathBuf>,
        inherited: Inherited,
    ) -> Result<Opened, StartError> {
        let is_notify = |(name, _): &(String, OwnedFd)| name == notify::INHERITED_NAME;
        let (notify, sockets) = inherited.into_iter().partition::<Vec<_>, _>(is_notify);
        let notify = notify.into_iter().map(|(_, fd)| fd).next();
        let is_admin = |(name, _): &(String, OwnedFd)| name == listen::ADMIN;
        let (admin, sockets) = sockets.into_iter().partition::<Vec<_>, _>(is_admin);
        let admin = admin.into_iter().map(|(_, fd)| fd.into()).next();
        let is_monitor = |(name, _): &(String, OwnedFd)| name == listen::METRICS;
        let (monitors, sockets) = sockets.into_iter().partition::<Vec<_>, _>(is_monitor);
        let door = Door::new(&Material::read(settings)?, settings)?;
        let inherit = |sockets: Vec<(String, OwnedFd)>| {
            let bound = sockets.into_iter().map(|(name, fd)| listen::inherit(name, fd));
            bound.collect::<Result<Vec<_>, _>>()
        };
        let alone = sockets.is_empty();
        let (listeners, janitors) = match alone {
            true => listen::bind(&settings.server)?,
            false => (inherit(sockets)?, Vec::new()),
        };
        // Behind the janitors, which are to have nothing of this.
        let monitors = match alone && monitors.is_empty() {
            true => listen::bind_monitors(&settings.metrics_listen)?,
            false => inherit(monitors)?,
        };
        if monitors.is_empty() && !settings.metrics_listen.is_empty() {
            tracing::warn!(
                "systemd opens the sockets, metrics_listen does nothing here: systemctl enable --now \
                 wsnic-front-metrics.socket"
            );
        }
        let needs_tls =
            |bound: &Bound| matches!(bound, Bound::Tcp(_, speaks) if *speaks != Speaks::Plain);
        if door.tls.is_none() && listeners.iter().any(needs_tls) {
            return Err(BindError::NoCertificate("wss").into());
        }
        raise_fd_limit(settings.max_clients());
        let helper_path = helper.unwrap_or(&settings.helper_socket).clone();
        let networks = Networks::open(settings)?;
        Ok(Opened {
            listeners,
            monitors,
            admin,
            janitors,
            door,
            helper: connect(&helper_path)?,
            helper_path,
            networks,
            notifier: Notifier::new(notify).map_err(system("reach $NOTIFY_SOCKET"))?,
        })
    }

    /// Greets the helper, and lets the runtime watch what is open.
    async fn prepare(self) -> Result<Ready, StartError> {
        let Opened { listeners, monitors, helper, helper_path, .. } = self;
        let Opened { admin, janitors, door, networks, notifier, .. } = self;
        let handle = |kind| signal(kind).map_err(system("handle signals"));
        let signals = Signals {
            terminate: handle(SignalKind::terminate())?,
            interrupt: handle(SignalKind::interrupt())?,
            hangup: handle(SignalKind::hangup())?,
        };
        let log = LogLimits::new(std::time::Instant::now());
        let helper = Helper::greet(helper, Rc::clone(&log.sessions))
            .await
            .map_err(|source| StartError::Helper { path: helper_path, source })?;
        let watch = |bound: Vec<Bound>| {
            let listeners = bound.into_iter().map(Bound::watch).collect::<Result<Vec<_>, _>>();
            listeners.map_err(system("watch a listener"))
        };
        let (listeners, monitors) = (watch(listeners)?, watch(monitors)?);
        let admin = admin.map(|admin| {
            admin.set_nonblocking(true)?;
            UnixListener::from_std(admin)
        });
        let admin = admin.transpose().map_err(system("watch the admin socket"))?;
        Ok(Ready {
            listeners,
            monitors,
            admin,
            janitors,
            door,
            helper,
            networks,
            notifier,
            signals,
            log,
        })
    }
}

/// Everything that serving needs, but for the sandbox around it.
struct Ready {
    listeners: Vec<Listener>,
    monitors: Vec<Listener>,
    admin: Option<UnixListener>,
    janitors: Vec<Janitor>,
    door: Door,
    helper: Rc<Helper>,
    networks: Networks,
    notifier: Notifier,
    signals: Signals,
    log: LogLimits,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Returns when the process is to end.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => tracing::info!(
                    "options of the front-end take effect at its next start; `wsnic reload` brings new certificates and tokens, a reload of the helper guest_access, allow and deny"
                ),
            }
        }
    }
}

/// Every session needs two fds, and every connection that is not one yet needs one.
fn fd_limit(max_clients: u32) -> u64 {
    u64::from(max_clients) * 2 + listen::MAX_HANDSHAKES as u64 + SPARE_FDS
}

fn raise_fd_limit(max_clients: u32) {
    let needed = fd_limit(max_clients);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        // Who starts as root may have more than the limit.
        if needed > hard && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
            return Ok(needed);
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit >= needed => {}
        Ok(limit) => tracing::warn!(
            limit,
            needed,
            "the limit of open files is low for max_clients: raise it (ulimit -Hn, LimitNOFILE=)"
        ),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

fn connect(path: &Path) -> Result<OwnedFd, StartError> {
    let started = std::time::Instant::now();
    loop {
        match packet::connect(path) {
            Ok(fd) => return Ok(fd),
            Err(source) if started.elapsed() > HELPER_LIMIT => {
                return Err(StartError::Helper { path: path.to_owned(), source });
            }
            Err(_) => std::thread::sleep(HELPER_PAUSE),
        }
    }
}

async fn serve(
    settings: &Settings,
    ready: Ready,
    (closer, passwords): (FdCloser, Passwords),
    sandboxed: Sandboxed,
) -> Result<(), StartError> {
    let Ready { listeners, monitors, admin, janitors, door, helper, .. } = ready;
    let Ready { networks, notifier, mut signals, log, .. } = ready;
    let (stop, shutdown) = watch::channel(false);
    let context = Rc::new(Context {
        helper: Rc::clone(&helper),
        closer,
        networks,
        door: RefCell::new(Rc::new(door)),
        addresses: Rc::new(Addresses::new(&settings.door)),
        names: Rc::default(),
        passwords,
        trusted: settings.door.trusted_proxies.clone(),
        proxy_protocol: settings.door.proxy_protocol,
        page: settings.server.page,
        session_time: seconds(settings.door.session_time),
        idle_time: seconds(settings.door.idle_time),
        shutdown,
        log,
        started: std::time::Instant::now(),
        sessions: Rc::default(),
        sandboxed,
    });
    let mut helper_task = spawn_local(helper.run());
    let handshakes = Rc::new(Cell::new(0));
    let mut accepting = Vec::new();
    for listener in listeners {
        let (context, handshakes) = (Rc::clone(&context), Rc::clone(&handshakes));
        accepting.push(spawn_local(listen::accept(context, listener, handshakes)));
    }
    let monitor = Rc::new(Monitor::new(&context, &handshakes));
    for listener in monitors {
        accepting.push(spawn_local(monitor::serve(Rc::clone(&monitor), listener)));
    }
    if let Some(listener) = admin {
        let (context, settings) = (Rc::clone(&context), settings.clone());
        let admin = Admin { context, settings, monitor: Rc::clone(&monitor) };
        accepting.push(spawn_local(admin::serve(admin, listener)));
    }
    // It is theirs, and gone with them.
    drop(monitor);
    notifier.ready("serving");
    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        never = notifier.keep_alive() => match never {},
        reason = &mut helper_task => Err(StartError::HelperGone(reason.unwrap_or_default())),
    };
    notifier.stopping();
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    // An error means that no session is there to hear it.
    let _ = stop.send(true);
    // This context, the one of each accept task that is being aborted, and the sessions'.
    let all_gone = async {
        while Rc::strong_count(&context) > 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(FAREWELL_LIMIT, all_gone).await.is_err() {
        let left = Rc::strong_count(&context) - 1;
        tracing::warn!(left, "not all connections have ended");
    }
    helper_task.abort();
    // Before any TAP is closed, which happens as this process ends.
    context.helper.hang_up();
    drop(janitors);
    outcome
}

/// 0 is no limit.
fn seconds(seconds: u32) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
