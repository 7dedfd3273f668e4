//! `wsnic run`: helper first, then front-end; both watched; both ended in order.

use crate::child::{self, Program, Store};
use crate::host_firewall::Watch;
use crate::reload::hand_over;
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use wsnic_os::config::{self, LoadError, Loaded};
use wsnic_os::log::{chain, say};
use wsnic_os::notify::{self, Notifier};
use wsnic_os::packet::{self, PacketSocket, Received};
use wsnic_os::unix;
use wsnic_proto::settings::{DhcpService, Nat, Settings};

/// A program that is not ready by then will not be.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The front-end says goodbye to its clients within this.
const FRONT_END_LIMIT: Duration = Duration::from_secs(5);
/// The helper removes 1,000 ports and the bridge within this.
const HELPER_LIMIT: Duration = Duration::from_secs(20);
/// Time between two starts of a program that dies; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Sockets that a program may leave here; the helper has one for each front-end.
const MAX_STORE: usize = 16;
/// A program that ran for this long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// Why wsnic does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not root.
    #[error("wsnic run needs root to make the network: start it with sudo, or by systemd")]
    NotRoot,
    /// The socket between the programs cannot be had.
    #[error("cannot listen on {} (is another wsnic running? see option helper_socket)", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The admin socket cannot be had.
    #[error("cannot listen on {} (is another wsnic running? see option admin_socket)", path.display())]
    Admin {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// dnsmasq is not supported.
    #[error(
        "dhcp_service=dnsmasq is not supported by this version: use dhcp_service=builtin, which \
         needs nothing installed, or dhcp_service=disabled and start dnsmasq yourself"
    )]
    Dnsmasq,
    /// A program did not start; its own log lines say why.
    #[error("{name} did not start ({status}): see above")]
    NotStarted {
        /// The program.
        name: &'static str,
        /// How it ended.
        status: String,
    },
    /// A program says nothing.
    #[error("{0} is not ready after {READY_LIMIT:?}")]
    NotReady(&'static str),
    /// The system refused something basic.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

fn system(action: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { action, source }
}

/// Reads the configuration again.
pub type Load<'a> = &'a dyn Fn() -> Result<Loaded, LoadError>;

/// Runs until SIGTERM or SIGINT; on SIGHUP, `load` says what has changed.
///
/// # Errors
/// What has to be put right; nothing is left behind.
pub fn run(loaded: &Loaded, load: Load<'_>) -> Result<(), RunError> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(RunError::NotRoot);
    }
    if loaded.settings.network.dhcp.service == DhcpService::Dnsmasq {
        return Err(RunError::Dnsmasq);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?
        .block_on(supervise(loaded, load))
}

async fn supervise(loaded: &Loaded, load: Load<'_>) -> Result<(), RunError> {
    let notifier = Notifier::new(None).map_err(system("reach $NOTIFY_SOCKET"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handle signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(system("handle signals"))?;
    let mut reload = Reload::new(loaded, load, hangup);
    let conf = loaded.settings.to_conf();
    let with_parent = format!("--with-parent={}", std::process::id());
    let program = |name| {
        Program::find(name, conf.clone(), loaded.log())
            .map(|program| program.arg(&with_parent))
            .map_err(system("find a program"))
    };
    let (helper, front_end) = (program("wsnic-priv")?, program("wsnic-front")?);
    let path = &loaded.settings.helper_socket;
    let admin = unix::listen(&loaded.settings.admin_socket, 0o600, None)
        .map_err(|source| RunError::Admin { path: loaded.settings.admin_socket.clone(), source })?;
    // The helper will be no user who could make it in /run, or remove it.
    let listener = packet::listen(path).map_err(|source| {
        // It is our own, made just now.
        let _ = std::fs::remove_file(&loaded.settings.admin_socket);
        RunError::Socket { path: path.clone(), source }
    })?;
    let helper = helper.socket("wsnic-priv", listener);
    let mut helper = Watched::new("wsnic-priv", helper, HELPER_LIMIT);
    let front_end = front_end.alone(loaded.settings.sandbox).socket("admin", admin.into());
    let mut front_end = Watched::new("wsnic-front", front_end, FRONT_END_LIMIT);
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let outcome = tokio::select! {
        () = &mut stop => Ok(()),
        outcome = keep_running(&mut helper, &mut front_end, &mut reload, &notifier) => outcome,
        never = notifier.keep_alive() => match never {},
    };
    notifier.stopping();
    if outcome.is_ok() {
        tracing::info!("stopping");
    }
    front_end.end().await;
    helper.end().await;
    for path in [path, &loaded.settings.admin_socket] {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove a socket");
        }
    }
    outcome
}

/// Starts both, helper first, and starts again whatever dies. Returns if one cannot be started.
async fn keep_running(
    helper: &mut Watched,
    front_end: &mut Watched,
    reload: &mut Reload<'_>,
    notifier: &Notifier,
) -> Result<(), RunError> {
    helper.spawn().map_err(system("start a program"))?;
    while !helper.was_ready {
        helper.step().await?;
    }
    let mut watch = Watch::new(&reload.settings).map_err(system("look at the host's firewall"))?;
    Watch::next(&mut watch).await;
    front_end.spawn().map_err(system("start a program"))?;
    let mut announced = false;
    loop {
        if front_end.was_ready && !announced {
            announce(&reload.settings);
            notifier.ready("serving");
            announced = true;
        }
        tokio::select! {
            stepped = helper.step() => stepped?,
            stepped = front_end.step() => stepped?,
            asked = reload.asked() => match asked {
                Asked::Reload => {
                    reload.apply(helper, front_end);
                    if let Err(error) = hand_over(&reload.settings).await {
                        tracing::error!("certificates and lists stay as they are: {}", chain(&error));
                    }
                }
                Asked::Stop => return Ok(()),
            },
            () = Watch::next(&mut watch), if watch.is_some() => {}
        }
    }
}

/// What SIGHUP means.
enum Asked {
    Reload,
    /// The terminal in which this was started is gone.
    Stop,
}

/// The settings in force, and how to read them again.
struct Reload<'a> {
    settings: Settings,
    load: Load<'a>,
    hangup: tokio::signal::unix::Signal,
    had_terminal: bool,
}

impl Reload<'_> {
    fn new<'a>(loaded: &Loaded, load: Load<'a>, hangup: tokio::signal::unix::Signal) -> Reload<'a> {
        let had_terminal = has_terminal();
        Reload { settings: loaded.settings.clone(), load, hangup, had_terminal }
    }

    async fn asked(&mut self) -> Asked {
        self.hangup.recv().await;
        let lost_terminal = self.had_terminal && !has_terminal();
        if lost_terminal { Asked::Stop } else { Asked::Reload }
    }

    /// Reads the configuration and tells the helper; what is wrong in it changes nothing.
    fn apply(&mut self, helper: &mut Watched, front_end: &mut Watched) {
        let load = || (self.load)().map(|loaded| loaded.settings);
        if !config::reload(&mut self.settings, load) {
            return;
        }
        let conf = self.settings.to_conf();
        let changed = helper.program.change(conf.clone()).and(front_end.program.change(conf));
        let told = changed.and_then(|()| match &helper.running {
            Some(running) => Ok(child::signal(&running.child, Signal::SIGHUP)?),
            // It reads the new one when it is started again.
            None => Ok(()),
        });
        if let Err(error) = told {
            tracing::error!(%error, "cannot tell the helper of the new configuration");
        }
    }
}

/// A terminal that has hung up is none any more.
fn has_terminal() -> bool {
    io::stdin().is_terminal() || io::stderr().is_terminal()
}

/// A program that is to run for as long as this one does.
struct Watched {
    name: &'static str,
    program: Program,
    running: Option<Running>,
    store: Store,
    /// How long it may take to end.
    limit: Duration,
    /// Time between two starts.
    pause: Duration,
    started: Instant,
    /// It has served once, so that it is worth starting again.
    was_ready: bool,
}

struct Running {
    child: Child,
    /// What it says; None when it has closed that.
    notify: Option<PacketSocket>,
}

impl Watched {
    fn new(name: &'static str, program: Program, limit: Duration) -> Watched {
        Watched {
            name,
            program,
            running: None,
            store: Store::new(),
            limit,
            pause: FIRST_PAUSE,
            started: Instant::now(),
            was_ready: false,
        }
    }

    fn spawn(&mut self) -> io::Result<()> {
        self.started = Instant::now();
        let (child, notify) = self.program.spawn(&self.store)?;
        self.running = Some(Running { child, notify: Some(notify) });
        Ok(())
    }

    /// Hears one thing that the program says, or starts it again after it has died.
    ///
    /// # Errors
    /// It did not become ready at its first start.
    ///
    /// # Cancel safety
    /// What was heard or seen is dealt with before the next await.
    async fn step(&mut self) -> Result<(), RunError> {
        let Some(Running { child, notify }) = &mut self.running else {
            sleep(self.pause.saturating_sub(self.started.elapsed())).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            if let Err(error) = self.spawn() {
                tracing::error!(%error, "cannot start {}", self.name);
            }
            return Ok(());
        };
        let said = async {
            match notify {
                Some(socket) => socket.receive_with_fd().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What it said before it died is heard first.
            biased;
            said = said => match said {
                Ok(Some(said)) => self.hear(said),
                // It has nothing more to say; that it has ended is seen elsewhere.
                Ok(None) | Err(_) => *notify = None,
            },
            status = child.wait() => self.died(&child::describe(status))?,
            () = sleep(READY_LIMIT.saturating_sub(self.started.elapsed())), if !self.was_ready => {
                return Err(RunError::NotReady(self.name));
            }
        }
        Ok(())
    }

    fn hear(&mut self, mut said: Received) {
        let fd = said.fd.take();
        let text = String::from_utf8_lossy(said.packet());
        let value = |name| notify::value(&text, name);
        if value("READY") == Some("1") {
            self.was_ready = true;
        }
        match (value("FDNAME"), fd) {
            (Some(name), Some(fd))
                if value("FDSTORE") == Some("1") && self.store.len() < MAX_STORE =>
            {
                self.store.insert(name.to_owned(), fd);
            }
            (Some(name), None) if value("FDSTOREREMOVE") == Some("1") => {
                self.store.remove(name);
            }
            _ => {}
        }
    }

    fn died(&mut self, status: &str) -> Result<(), RunError> {
        self.running = None;
        if !self.was_ready {
            return Err(RunError::NotStarted { name: self.name, status: status.to_owned() });
        }
        tracing::error!(status, "{} has ended, starting it again", self.name);
        if self.started.elapsed() > RECOVERED {
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }

    async fn end(&mut self) {
        if let Some(running) = &mut self.running {
            child::end(&mut running.child, self.name, self.limit).await;
        }
    }
}

/// Says on standard output where clients connect, and what to do with that.
fn announce(settings: &Settings) {
    let server = &settings.server;
    let mut urls: Vec<String> =
        server.addresses.iter().map(|ip| url("ws", *ip, server.ws_port)).collect();
    if server.wss_cert.is_some() {
        urls.extend(server.addresses.iter().map(|ip| url("wss", *ip, server.wss_port)));
    }
    urls.extend(server.listen.iter().map(|path| format!("unix:{}", path.display())));
    let mut text = format!("\nwsnic is ready: {}\n", urls.join("  "));
    text.push_str(
        "  v86: paste this address into \"Networking proxy\", or set net_device.relay_url to it.\n",
    );
    if settings.network.nat == Nat::Off {
        text.push_str(
            "  Guests reach each other only; start with --enable-inet for the Internet.\n",
        );
    }
    let _ = writeln!(text, "  Ctrl-C ends it and leaves nothing behind.");
    say(&text);
}

/// An address where a client on this machine finds a server that listens there.
pub fn url(scheme: &str, ip: IpAddr, port: u16) -> String {
    // 0.0.0.0 and :: are every address of this host; the one that always works from here is shown.
    let shown = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}/", SocketAddr::new(shown, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_can_be_pasted() {
        assert_eq!(url("ws", "0.0.0.0".parse().unwrap(), 80), "ws://127.0.0.1:80/");
        assert_eq!(url("ws", "::".parse().unwrap(), 8086), "ws://[::1]:8086/");
        assert_eq!(url("ws", "192.0.2.7".parse().unwrap(), 8086), "ws://192.0.2.7:8086/");
    }
}
