//! Serving front-ends: connections in, requests to [`wsnic_proto::dispatch`], its actions to the kernel.
//!
//! One thread. Nothing here waits for a peer: a peer that does not read its replies is dropped.

use crate::closer::Closer;
use crate::network::Networks;
use crate::ports::{Helper, send};
use futures_util::StreamExt;
use nix::unistd::Uid;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, timeout_at};
use wsnic_host::{Event, Listeners};
use wsnic_os::config::{self, LoadError};
use wsnic_os::notify::Notifier;
use wsnic_os::packet::{PacketListener, PacketSocket};
use wsnic_proto::codec::{self, CodecError};
use wsnic_proto::dispatch::{Action, Misuse, State};
use wsnic_proto::slots::ConnectionId;
use wsnic_proto::{ErrorCode, Generation, Reply, Settings};

/// A peer that has not said hello by then is dropped.
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// Front-ends at a time: the old and the new one during a restart, and some room.
const MAX_CONNECTIONS: usize = 8;
/// How often the host's way out and resolvers are looked at.
const REFRESH: Duration = Duration::from_secs(5);
/// TAPs that are deleted and forgotten together.
const MAX_DELETED: usize = 1024;
/// How often a bridge that could not be made again is tried.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
/// Pause after an accept that failed, such as for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Packets that a front-end can have sent to the helpers of before; a socket's buffer holds some 280.
const MAX_LEFT_BEHIND: usize = 4096;
/// Begins the names under which the supervisor keeps connections.
const STORE_PREFIX: &str = "front-end-";

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it closed the connection")]
    Closed,
    #[error("it did not say hello in time")]
    NoHelloInTime,
    #[error("{0}")]
    Misuse(#[from] Misuse),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// A connection of a helper that died, as the supervisor kept it.
pub struct Kept {
    id: ConnectionId,
    fd: OwnedFd,
}

impl Kept {
    /// A socket that was kept under `name`.
    ///
    /// # Errors
    /// It is no such connection; the fd is given back.
    pub fn new(name: &str, fd: OwnedFd) -> Result<Kept, OwnedFd> {
        match name.strip_prefix(STORE_PREFIX).and_then(|id| id.parse().ok()) {
            Some(id) => Ok(Kept { id: ConnectionId(id), fd }),
            None => Err(fd),
        }
    }
}

/// What a helper starts with.
pub struct Start {
    /// Where front-ends connect.
    pub listener: OwnedFd,
    /// Connections of a helper that died.
    pub kept: Vec<Kept>,
    /// Who may connect.
    pub users: Vec<Uid>,
    /// Who supervises this process.
    pub notifier: Notifier,
    /// Says whether dnsmasq serves.
    pub listeners: Listeners,
}

/// Serves until SIGTERM or SIGINT; on SIGHUP, `load` says what has changed.
///
/// # Errors
/// The system gives no socket, thread or signal handler.
pub async fn serve(
    networks: &mut Networks,
    start: Start,
    (order, mut deleted): Closer,
    mut settings: Settings,
    load: impl Fn() -> Result<Settings, LoadError>,
) -> io::Result<()> {
    let Start { listener, kept, users, notifier, listeners } = start;
    let mut events = wsnic_host::events()?;
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let listener = PacketListener::new(listener)?;
    // Counts on from where the clock is, so that no generation of a helper that died comes again.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let base = Generation((epoch & u128::from(u32::MAX)) as u32);
    let numbered = (0..).zip(settings.networks().cloned());
    let numbered = numbered.map(|(number, network)| (network, wsnic_host::bridge_mac(number)));
    let state = State::new(numbered.collect(), base, Instant::now())
        .with_services(move |address| listeners.has(address).unwrap_or(false));
    let offloads = settings.network.offloads;
    let (helper, links) = Helper::new(networks, state, order, notifier, offloads).await?;
    let mut alive = std::pin::pin!(helper.notifier.keep_alive());
    let tasks = LocalSet::new();
    let mut refresh = tokio::time::interval(REFRESH);
    let mut again = tokio::time::interval(REPAIR_PAUSE);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = kept.iter().map(|kept| kept.id.0).max().unwrap_or(0);
    let mut gone = Vec::new();
    tasks
        .run_until(async {
            let ids: Vec<ConnectionId> = kept.iter().map(|kept| kept.id).collect();
            links.iter().for_each(|link| helper.changed(link));
            helper.adopt(&ids, networks.adopted(), links).await;
            for kept in kept {
                resume(&helper, kept)?;
            }
            helper.notifier.ready("serving");
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((socket, peer)) => {
                            connections += 1;
                            accept(&helper, ConnectionId(connections), socket, Uid::from_raw(peer.uid()), &users);
                        }
                        Err(error) => {
                            tracing::error!(%error, "cannot accept a front-end");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    _ = deleted.recv_many(&mut gone, MAX_DELETED) => helper.deleted(&mut gone),
                    Some(event) = events.next() => {
                        let repaired = match event {
                            Event::Gone(link) => helper.gone(&link).await,
                            Event::Changed(link) => {
                                helper.changed(&link);
                                false
                            }
                            Event::Lost => helper.look_again().await,
                        };
                        if repaired {
                            networks.forward_or_say().await;
                        }
                    }
                    _ = hangup.recv() => if config::reload(&mut settings, &load) {
                        networks.reload(&settings).await;
                    },
                    never = &mut alive => match never {},
                    _ = again.tick(), if !helper.bridges.missing().is_empty() => if helper.repair().await {
                        networks.forward_or_say().await;
                    },
                    _ = refresh.tick() => {
                        networks.refresh().await;
                        if !helper.bridges.stand().await && helper.look_again().await {
                            networks.forward_or_say().await;
                        }
                        helper.remove_unused().await;
                    }
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                }
            }
            helper.notifier.stopping();
            helper.drain();
            Ok(())
        })
        .await
}

fn accept(helper: &Rc<Helper>, id: ConnectionId, socket: PacketSocket, user: Uid, users: &[Uid]) {
    if !users.contains(&user) {
        return tracing::warn!(%user, "refused: this user may not talk to the helper");
    }
    if helper.sockets.borrow().len() >= MAX_CONNECTIONS {
        return tracing::warn!(%user, "refused: there are {MAX_CONNECTIONS} front-ends already");
    }
    helper.notifier.store(&format!("{STORE_PREFIX}{}", id.0), socket.as_fd());
    helper.state.borrow_mut().connected(id);
    spawn(helper, id, socket);
}

/// Goes on with a front-end of a helper that died.
fn resume(helper: &Rc<Helper>, Kept { id, fd }: Kept) -> io::Result<()> {
    let socket = PacketSocket::new(fd)?;
    helper.state.borrow_mut().resumed(id);
    let ports = helper.state.borrow().ports.count(id).0;
    tracing::info!(ports, "going on with a front-end");
    // Where this fails the connection has ended, which its task finds out. What was sent to
    // the helpers of before is asked again: twice would be too often, a hello not least.
    let _ = socket.discard(MAX_LEFT_BEHIND);
    let _ = send(&socket, &Reply::Resumed);
    spawn(helper, id, socket);
    Ok(())
}

fn spawn(helper: &Rc<Helper>, id: ConnectionId, socket: PacketSocket) {
    let socket = Rc::new(socket);
    helper.sockets.borrow_mut().insert(id, Rc::clone(&socket));
    let helper = Rc::clone(helper);
    tokio::task::spawn_local(async move {
        match talk(&helper, id, &socket).await {
            End::Closed => tracing::info!("a front-end has left"),
            end => tracing::error!(reason = %end, "hung up on a front-end"),
        }
        // The supervisor's copy may be open for a moment more.
        socket.shut_down();
        helper.sockets.borrow_mut().remove(&id);
        helper.notifier.remove(&format!("{STORE_PREFIX}{}", id.0));
        let ports = helper.state.borrow_mut().disconnected(id);
        for port in ports {
            helper.delete(port, None);
        }
    });
}

/// Serves one connection to its end.
async fn talk(helper: &Helper, id: ConnectionId, socket: &PacketSocket) -> End {
    let deadline = tokio::time::Instant::now() + HELLO_LIMIT;
    loop {
        let served = one_request(helper, id, socket);
        let is_silent = helper.state.borrow().is_silent(id);
        let served = match is_silent {
            true => timeout_at(deadline, served).await.unwrap_or(Err(End::NoHelloInTime)),
            false => served.await,
        };
        if let Err(end) = served {
            return end;
        }
    }
}

async fn one_request(helper: &Helper, id: ConnectionId, socket: &PacketSocket) -> Result<(), End> {
    let received = socket.receive_without_fd().await?.ok_or(End::Closed)?;
    let request = codec::decode_request(received.packet())?;
    let action = helper.state.borrow_mut().dispatch(id, request, Instant::now());
    match action {
        Action::Reply(reply) => send(socket, &reply)?,
        Action::Open { req, port, generation } => {
            let opened = helper.open(id, (req, port, generation)).await;
            helper.state.borrow_mut().answered(id);
            match opened {
                Ok((fd, reply)) => {
                    socket.send(codec::encode_reply(&reply).as_bytes(), Some(fd.as_fd()))?;
                }
                Err(_) => send(socket, &Reply::Err { req, code: ErrorCode::Kernel })?,
            }
        }
        Action::Close { req, port } => helper.delete(port, Some((id, req))),
        Action::Bind { req, port, change } => {
            let bound = helper.bind(port, &change).await;
            helper.state.borrow_mut().answered(id);
            let failed = Reply::Err { req, code: ErrorCode::Kernel };
            send(socket, &if bound { Reply::Done { req } } else { failed })?;
        }
        Action::HangUp(misuse) => return Err(misuse.into()),
        Action::Ignore => {}
    }
    Ok(())
}
