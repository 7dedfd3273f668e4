//! The listeners: bound while the process may still bind, served for as long as it runs.

use crate::session::{self, Context};
use crate::stream::Socket;
use nix::unistd::{Gid, Group, Uid, User};
use socket2::{Domain, Protocol, Type};
use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use wsnic_os::janitor::Janitor;
use wsnic_os::unix;
use wsnic_proto::settings::Server;

/// Connections that may wait for accept: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed, such as for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Connections that are not sessions yet; more are closed at once.
pub const MAX_HANDSHAKES: usize = 2048;
/// Bytes that the kernel holds for a client that are not sent yet: beyond, the TAP is left unread.
const NOT_SENT_LOWAT: u32 = 32 * 1024;
/// The name of the admin socket in a socket unit.
pub const ADMIN: &str = "admin";
/// The name of a listener for monitoring in a socket unit.
pub const METRICS: &str = "metrics";

/// What clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// ws://
    Plain,
    /// wss://
    Tls,
    /// Either; the first byte tells.
    Either,
}

/// A socket that listens and is not watched yet.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener, Speaks),
    /// A unix socket, for proxies.
    Unix(std::os::unix::net::UnixListener),
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener, Speaks),
    /// A unix socket, for proxies.
    Unix(UnixListener),
}

impl Bound {
    /// Lets the runtime watch it.
    ///
    /// # Errors
    /// The runtime's.
    pub fn watch(self) -> io::Result<Listener> {
        Ok(match self {
            Bound::Tcp(listener, speaks) => Listener::Tcp(TcpListener::from_std(listener)?, speaks),
            Bound::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

impl Listener {
    /// The next connection, where it comes from, and what it is to speak.
    ///
    /// # Errors
    /// The system's, such as for want of fds.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>, Speaks)> {
        match self {
            Listener::Tcp(listener, speaks) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(peer), *speaks))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None, Speaks::Plain))
            }
        }
    }
}

/// Binds the addresses of `metrics_listen`.
///
/// # Errors
/// The address, and why it cannot be had.
pub fn bind_monitors(addresses: &[SocketAddr]) -> Result<Vec<Bound>, BindError> {
    let bind = |address: &SocketAddr| {
        let listener = open(*address, false);
        let failed = |source| BindError::Monitor { address: *address, source };
        Ok(Bound::Tcp(listener.map_err(failed)?, Speaks::Plain))
    };
    addresses.iter().map(bind).collect()
}

/// Binds every address and unix socket. The janitors remove the sockets' files at the end.
///
/// # Errors
/// The address, and why it cannot be had.
pub fn bind(server: &Server) -> Result<(Vec<Bound>, Vec<Janitor>), BindError> {
    let has_tls = server.wss_cert.is_some();
    let tls_ports = if has_tls { server.wss_ports.as_slice() } else { &[] };
    let plain = server.ws_ports.iter().map(|port| match tls_ports.contains(port) {
        true => (*port, Speaks::Either),
        false => (*port, Speaks::Plain),
    });
    let tls = tls_ports.iter().filter(|port| !server.ws_ports.contains(port));
    let ports = plain.chain(tls.map(|port| (*port, Speaks::Tls)));
    let (mut bound, mut janitors) = (Vec::new(), Vec::new());
    // First, because a janitor is forked while nothing is open that it should not have.
    for path in &server.listen {
        let hired = Janitor::hire(path, || open_unix(path, server));
        let (listener, janitor) =
            hired.map_err(|source| BindError::Unix { path: path.clone(), source })?;
        bound.push(Bound::Unix(listener));
        janitors.push(janitor);
    }
    for (port, speaks) in ports {
        for ip in &server.addresses {
            let address = SocketAddr::new(*ip, port);
            let both = *ip == Ipv6Addr::UNSPECIFIED
                && !server.addresses.contains(&Ipv4Addr::UNSPECIFIED.into());
            let listener = open(address, both);
            let listener = listener.map_err(|source| BindError::Address { address, source })?;
            bound.push(Bound::Tcp(listener, speaks));
        }
    }
    Ok((bound, janitors))
}

/// Takes a listener that the process was started with, under its name in the socket unit: `wss` for
/// TLS, `either` for both, any other for ws://.
///
/// # Errors
/// It is no listener.
pub fn inherit(name: String, fd: OwnedFd) -> Result<Bound, BindError> {
    let socket = socket2::Socket::from(fd);
    let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.is_listener().unwrap_or(false);
    if !listens {
        return Err(BindError::NotAListener(name));
    }
    let prepared = socket.set_nonblocking(true).and_then(|()| socket.local_addr());
    let address = prepared.map_err(|source| BindError::Inherited { name: name.clone(), source })?;
    if address.is_unix() {
        return Ok(Bound::Unix(OwnedFd::from(socket).into()));
    }
    let speaks = match name.as_str() {
        "wss" => Speaks::Tls,
        "either" => Speaks::Either,
        _ => Speaks::Plain,
    };
    Ok(Bound::Tcp(socket.into(), speaks))
}

/// A listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}{}", remedy(.source))]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An address for monitoring cannot be bound.
    #[error("cannot listen on {address} (option metrics_listen)")]
    Monitor {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A unix socket cannot be made.
    #[error("cannot listen on {} (options listen and listen_owner)", path.display())]
    Unix {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A listener for TLS, and no certificate.
    #[error("the inherited socket \"{0}\" is for wss://: set wss_server_cert")]
    NoCertificate(&'static str),
    /// Something else was passed.
    #[error(
        "the inherited socket \"{0}\" is no listening stream socket: see ListenStream= of its unit"
    )]
    NotAListener(String),
    /// The system refused.
    #[error("cannot use the inherited socket \"{name}\"")]
    Inherited {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program has this port: stop it, or choose another with ws_server_port or \
             wss_server_port)"
        }
        io::ErrorKind::AddrNotAvailable => {
            " (this host does not have that address: see ws_server_addr)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    }
}

fn open(address: SocketAddr, both_families: bool) -> io::Result<std::net::TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open_unix(path: &Path, server: &Server) -> io::Result<std::os::unix::net::UnixListener> {
    let owner = server.listen_owner.as_ref();
    let ids = owner.map(|(user, group)| find(user, group.as_deref())).transpose()?;
    unix::listen(path, server.listen_mode, ids)
}

fn find(user: &str, group: Option<&str>) -> io::Result<(Uid, Gid)> {
    let missing = |kind: &str, name: &str| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no {kind} {name}"))
    };
    let found = User::from_name(user)?.ok_or_else(|| missing("user", user))?;
    let gid = match group {
        None => found.gid,
        Some(group) => Group::from_name(group)?.ok_or_else(|| missing("group", group))?.gid,
    };
    Ok((found.uid, gid))
}

/// Accepts until the task is dropped; every connection becomes a task of its own.
pub async fn accept(context: Rc<Context>, listener: Listener, handshakes: Rc<Cell<usize>>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer, speaks)) => {
                if !context.admits(peer) {
                    continue;
                }
                if handshakes.get() >= MAX_HANDSHAKES {
                    context.sessions.refused("busy");
                    if context.log.strangers.allows() {
                        tracing::warn!(client = ?peer, "too many connections that say nothing, closed one");
                    }
                    continue;
                }
                if let Socket::Tcp(stream) = &socket
                    && let Err(error) = prepare(stream)
                {
                    tracing::debug!(client = ?peer, %error, "the connection was gone at once");
                    continue;
                }
                context.sessions.arrived();
                let context = Rc::clone(&context);
                let counted = Counted::new(&handshakes);
                tokio::task::spawn_local(async move {
                    session::serve(&context, socket, peer, speaks, counted).await;
                });
            }
            Err(error) => {
                if context.log.strangers.allows() {
                    tracing::error!(%error, "cannot accept clients at the moment");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT_LOWAT)
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
pub struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(counter: &Rc<Cell<usize>>) -> Counted {
        counter.set(counter.get() + 1);
        Counted(Rc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
