//! `wsnic run`: helper first, then dnsmasq where it is wanted, then front-end; all watched; all ended
//! in order.

use crate::child::{self, Program, Store};
use crate::dnsmasq::{self, NotInstalled};
use crate::host_firewall::Watch;
use crate::reload::hand_over;
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::future::{Future as _, poll_fn};
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use wsnic_os::config::{self, LoadError, Loaded};
use wsnic_os::log::{chain, say};
use wsnic_os::notify::{self, Notifier};
use wsnic_os::packet::{self, PacketSocket, Received};
use wsnic_os::unix;
use wsnic_proto::settings::{Nat, Settings};

/// A program that is not ready by then will not be.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The front-end says goodbye to its clients within this.
const FRONT_END_LIMIT: Duration = Duration::from_secs(5);
/// The helper removes 1,000 ports and the bridge within this.
const HELPER_LIMIT: Duration = Duration::from_secs(20);
/// dnsmasq writes its leases at once, and has nothing to do at its end.
const DNSMASQ_LIMIT: Duration = Duration::from_secs(5);
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
    /// dnsmasq is wanted and not there.
    #[error(transparent)]
    Dnsmasq(#[from] NotInstalled),
    /// A program did not start; its own log lines say why.
    #[error("{name} did not start ({status}): see above")]
    NotStarted {
        /// The program.
        name: String,
        /// How it ended.
        status: String,
    },
    /// A program says nothing.
    #[error("{0} is not ready after {READY_LIMIT:?}")]
    NotReady(String),
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
    if dnsmasq::networks(&loaded.settings).next().is_some() {
        dnsmasq::program()?;
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
    let mut services = Vec::new();
    for network in dnsmasq::networks(&loaded.settings) {
        let program = program("wsnic")?.word("dnsmasq").arg(format!("--network={}", network.name));
        let program = program.alone(loaded.settings.sandbox);
        let name = format!("dnsmasq of network {}", network.name);
        services.push(Watched::new(&name, program, DNSMASQ_LIMIT));
    }
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
    let helper = Watched::new("wsnic-priv", helper, HELPER_LIMIT);
    let front_end = front_end.alone(loaded.settings.sandbox).socket("admin", admin.into());
    let front_end = Watched::new("wsnic-front", front_end, FRONT_END_LIMIT);
    let mut programs = Programs { helper, services, front_end };
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let outcome = tokio::select! {
        () = &mut stop => Ok(()),
        outcome = keep_running(&mut programs, &mut reload, &notifier) => outcome,
        never = notifier.keep_alive() => match never {},
    };
    notifier.stopping();
    if outcome.is_ok() {
        tracing::info!("stopping");
    }
    programs.end().await;
    for path in [path, &loaded.settings.admin_socket] {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove a socket");
        }
    }
    outcome
}

/// Starts all, helper first, and starts again whatever dies. Returns if one cannot be started.
async fn keep_running(
    programs: &mut Programs,
    reload: &mut Reload<'_>,
    notifier: &Notifier,
) -> Result<(), RunError> {
    programs.helper.start().await?;
    for service in &mut programs.services {
        service.start().await?;
    }
    let mut watch = Watch::new(&reload.settings).map_err(system("look at the host's firewall"))?;
    Watch::next(&mut watch).await;
    programs.front_end.spawn().map_err(system("start a program"))?;
    let mut announced = false;
    loop {
        if programs.front_end.was_ready && !announced {
            announce(&reload.settings);
            notifier.ready("serving");
            announced = true;
        }
        tokio::select! {
            stepped = programs.step() => stepped?,
            asked = reload.asked() => match asked {
                Asked::Reload => {
                    reload.apply(programs);
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

/// All that is watched, in the order in which it starts.
struct Programs {
    helper: Watched,
    /// A dnsmasq for each network that wants one.
    services: Vec<Watched>,
    front_end: Watched,
}

impl Programs {
    /// [`Watched::step`] of any.
    ///
    /// # Cancel safety
    /// As that.
    async fn step(&mut self) -> Result<(), RunError> {
        let all = [&mut self.helper, &mut self.front_end].into_iter().chain(&mut self.services);
        let mut steps: Vec<_> = all.map(|one| Box::pin(one.step())).collect();
        poll_fn(|context| {
            let mut polled = steps.iter_mut().map(|step| step.as_mut().poll(context));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Ends all, clients first.
    async fn end(&mut self) {
        self.front_end.end().await;
        for service in &mut self.services {
            service.end().await;
        }
        self.helper.end().await;
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
    fn apply(&mut self, programs: &mut Programs) {
        let load = || (self.load)().map(|loaded| loaded.settings);
        if !config::reload(&mut self.settings, load) {
            return;
        }
        let conf = self.settings.to_conf();
        let Programs { helper, front_end, .. } = programs;
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
    name: String,
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
    fn new(name: &str, program: Program, limit: Duration) -> Watched {
        Watched {
            name: name.to_owned(),
            program,
            running: None,
            store: Store::new(),
            limit,
            pause: FIRST_PAUSE,
            started: Instant::now(),
            was_ready: false,
        }
    }

    /// Starts it for the first time, and waits until it serves.
    async fn start(&mut self) -> Result<(), RunError> {
        self.spawn().map_err(system("start a program"))?;
        while !self.was_ready {
            self.step().await?;
        }
        Ok(())
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
                return Err(RunError::NotReady(self.name.clone()));
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
            return Err(RunError::NotStarted {
                name: self.name.clone(),
                status: status.to_owned(),
            });
        }
        tracing::error!(status, "{} has ended, starting it again", self.name);
        if self.started.elapsed() > RECOVERED {
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }

    async fn end(&mut self) {
        if let Some(running) = &mut self.running {
            child::end(&mut running.child, &self.name, self.limit).await;
        }
    }
}

/// Says on standard output where clients connect, and what to do with that.
fn announce(settings: &Settings) {
    let server = &settings.server;
    let mut served: Vec<_> = server.ws_ports.iter().map(|port| ("ws", *port)).collect();
    if server.wss_cert.is_some() {
        served.extend(server.wss_ports.iter().map(|port| ("wss", *port)));
    }
    let mut urls: Vec<String> = Vec::new();
    for (scheme, port) in served {
        urls.extend(server.addresses.iter().map(|ip| url(scheme, *ip, port)));
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
