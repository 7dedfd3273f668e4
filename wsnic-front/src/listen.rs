//! The listeners: bound while the process may still bind, served for as long as it runs.

use crate::session::{self, Context};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait for accept: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed, such as for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Connections that are not sessions yet; more are closed at once.
pub const MAX_HANDSHAKES: usize = 2048;
/// Bytes that the kernel holds for a client that are not sent yet: beyond, the TAP is left unread.
/// See docs/decisions/0007 for what more costs a slow client, and less a fast one.
const NOT_SENT_LOWAT: u32 = 32 * 1024;

/// Binds every address.
///
/// # Errors
/// The address, and why it cannot be had.
pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Vec<std::net::TcpListener>, BindError> {
    let bind_one = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, port);
        let both =
            *ip == Ipv6Addr::UNSPECIFIED && !addresses.contains(&Ipv4Addr::UNSPECIFIED.into());
        open(address, both).map_err(|source| BindError::Address { address, source })
    };
    addresses.iter().map(bind_one).collect()
}

/// Takes a listener that the process was started with, under its name in the socket unit.
///
/// # Errors
/// It is no listener, or one that this version does not serve.
pub fn inherit(name: String, fd: OwnedFd) -> Result<std::net::TcpListener, BindError> {
    if name == "wss" {
        return Err(BindError::NoTls);
    }
    let socket = Socket::from(fd);
    let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.is_listener().unwrap_or(false);
    if !listens {
        return Err(BindError::NotAListener(name));
    }
    socket.set_nonblocking(true).map_err(|source| BindError::Inherited { name, source })?;
    Ok(socket.into())
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
    /// wss:// is not served.
    #[error("wss:// is not served by this version: take the wss listener out of the socket unit")]
    NoTls,
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
            " (another program has this port: stop it, or choose another with ws_server_port)"
        }
        io::ErrorKind::AddrNotAvailable => {
            " (this host does not have that address: see ws_server_addr)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    }
}

fn open(address: SocketAddr, both_families: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the task is dropped; every connection becomes a task of its own.
pub async fn accept(context: Rc<Context>, listener: TcpListener, handshakes: Rc<Cell<usize>>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if handshakes.get() >= MAX_HANDSHAKES {
                    if context.log.allows() {
                        tracing::warn!(%client, "too many connections that say nothing, closed one");
                    }
                    continue;
                }
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%client, %error, "the connection was gone at once");
                    continue;
                }
                let context = Rc::clone(&context);
                let counted = Counted::new(&handshakes);
                tokio::task::spawn_local(async move {
                    session::serve(&context, stream, client, counted).await;
                });
            }
            Err(error) => {
                if context.log.allows() {
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
