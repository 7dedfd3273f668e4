//! Serving front-ends: connections in, requests to [`wsnic_proto::dispatch`], its actions to the kernel.
//!
//! One thread. Nothing here waits for a peer: a peer that does not read its replies is dropped.

use crate::closer::{Closer, Deletion};
use crate::leaf::Leaves;
use crate::link::{BRIDGE, Event, Link, Links, PORT_GROUP, port_name, port_of};
use crate::network::Network;
use crate::{link, sysctl, tap, tripwire};
use futures_util::StreamExt;
use nix::unistd::Uid;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, timeout_at};
use wsnic_os::config::{self, LoadError};
use wsnic_os::notify::Notifier;
use wsnic_os::packet::{PacketListener, PacketSocket};
use wsnic_proto::codec::{self, CodecError};
use wsnic_proto::dispatch::{Action, Misuse, State};
use wsnic_proto::message::VERSION;
use wsnic_proto::slots::{ConnectionId, Slots};
use wsnic_proto::{ErrorCode, Generation, PortId, Reply, RequestId, RevokeReason, Settings};

/// A peer that has not said hello by then is dropped.
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// Front-ends at a time: the old and the new one during a restart, and some room.
const MAX_CONNECTIONS: usize = 8;
/// How often the host's way out and resolvers are looked at.
const REFRESH: Duration = Duration::from_secs(5);
/// How often a bridge that could not be made again is tried.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
/// Pause after an accept that failed, such as for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How often and how long a bridge that wakes up is waited for: 100 ms at most.
const WAKE_TRIES: u32 = 50;
const WAKE_PAUSE: Duration = Duration::from_millis(2);
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

struct Helper {
    state: RefCell<State>,
    sockets: RefCell<HashMap<ConnectionId, Rc<PacketSocket>>>,
    /// Each port's TAP as it was made, or as a helper that died left it.
    taps: RefCell<HashMap<PortId, Link>>,
    links: Links,
    /// The bridges behind the network's own.
    leaves: Leaves,
    /// Index of the network's bridge; changes when the bridge has to be made again, 0 while that fails.
    bridge: Cell<u32>,
    mtu: u16,
    /// Those that TAPs are made with: all, or what the kernel has.
    offloads: Cell<u32>,
    closer: UnboundedSender<Deletion>,
    /// Keeps a copy of each connection with the supervisor, so that it outlives this process.
    notifier: Notifier,
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

/// The note on a TAP, from which a restarted helper learns whose it is.
fn note(id: ConnectionId, generation: Generation) -> String {
    format!("wsnic {} {}", id.0, generation.0)
}

fn read_note(text: &str) -> Option<(ConnectionId, Generation)> {
    let (id, generation) = text.strip_prefix("wsnic ")?.split_once(' ')?;
    Some((ConnectionId(id.parse().ok()?), Generation(generation.parse().ok()?)))
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
}

/// Serves until SIGTERM or SIGINT; on SIGHUP, `load` says what has changed.
///
/// # Errors
/// The system gives no socket, thread or signal handler.
pub async fn serve(
    network: &mut Network,
    start: Start,
    (order, mut deleted): Closer,
    mut settings: Settings,
    load: impl Fn() -> Result<Settings, LoadError>,
) -> io::Result<()> {
    let Start { listener, kept, users, notifier } = start;
    let mut events = link::events()?;
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let listener = PacketListener::new(listener)?;
    let welcome = Reply::Welcome {
        proto: VERSION,
        max_ports: settings.server.max_clients,
        mtu: settings.network.mtu,
        gateway: settings.network.plan.gateway().octets(),
        gateway_mac: network.bridge_mac(),
    };
    // Counts on from where the clock is, so that no generation of a helper that died comes again.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let base = Generation((epoch & u128::from(u32::MAX)) as u32);
    let links = Links::connect()?;
    let all = links.all().await?;
    let leaves = Leaves::new(links.clone(), settings.network.mtu, &all);
    let slots = Slots::new(settings.server.max_clients, base, Instant::now());
    let helper = Rc::new(Helper {
        state: RefCell::new(State::new(slots, welcome)),
        sockets: RefCell::default(),
        taps: RefCell::default(),
        links,
        leaves,
        bridge: Cell::new(network.bridge()),
        mtu: settings.network.mtu,
        offloads: Cell::new(if settings.network.offloads { tap::OFFLOADS } else { 0 }),
        closer: order,
        notifier,
    });
    let mut alive = std::pin::pin!(helper.notifier.keep_alive());
    let tasks = LocalSet::new();
    let mut refresh = tokio::time::interval(REFRESH);
    let mut again = tokio::time::interval(REPAIR_PAUSE);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = kept.iter().map(|kept| kept.id.0).max().unwrap_or(0);
    tasks
        .run_until(async {
            helper.resume(kept, all)?;
            helper.notifier.ready("serving");
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((socket, peer)) => {
                            connections += 1;
                            helper.accept(ConnectionId(connections), socket, Uid::from_raw(peer.uid()), &users);
                        }
                        Err(error) => {
                            tracing::error!(%error, "cannot accept a front-end");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    Some(deletion) = deleted.recv() => helper.deleted(deletion),
                    Some(event) = events.next() => match event {
                        Event::Gone(link) if link.name == BRIDGE && link.index == helper.bridge.get() => {
                            tracing::error!("somebody deleted the bridge {BRIDGE}, making it again");
                            helper.repair(network).await;
                        }
                        Event::Gone(link) if helper.leaves.vanished(&link) => {
                            tracing::error!(link = link.name, "somebody deleted a leaf bridge, making it again");
                            helper.reattach(|port| helper.leaves.bridge_of(port, network.bridge()) == 0).await;
                        }
                        Event::Gone(link) => helper.vanished(&link),
                        Event::Changed(link) => helper.changed(&link),
                        Event::Lost => helper.look_again(network).await,
                    },
                    _ = hangup.recv() => if config::reload(&mut settings, &load) {
                        network.reload(&settings).await;
                    },
                    never = &mut alive => match never {},
                    _ = again.tick(), if network.bridge() == 0 => helper.repair(network).await,
                    _ = refresh.tick() => {
                        network.refresh().await;
                        let found = helper.links.find(BRIDGE).await;
                        let is_another = |found: Option<Link>| found.is_none_or(|link| link.index != network.bridge());
                        if network.bridge() != 0 && found.is_ok_and(is_another) {
                            helper.look_again(network).await;
                        }
                        helper.leaves.remove_unused(|port| helper.state.borrow().slots.is_used(port)).await;
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

impl Helper {
    fn accept(self: &Rc<Self>, id: ConnectionId, socket: PacketSocket, user: Uid, users: &[Uid]) {
        if !users.contains(&user) {
            return tracing::warn!(%user, "refused: this user may not talk to the helper");
        }
        if self.sockets.borrow().len() >= MAX_CONNECTIONS {
            return tracing::warn!(%user, "refused: there are {MAX_CONNECTIONS} front-ends already");
        }
        self.notifier.store(&format!("{STORE_PREFIX}{}", id.0), socket.as_fd());
        self.state.borrow_mut().connected(id);
        self.spawn(id, socket);
    }

    /// Goes on with the front-ends of a helper that died, and deletes the ports of those that left.
    fn resume(self: &Rc<Self>, kept: Vec<Kept>, links: Vec<Link>) -> io::Result<()> {
        let ids: Vec<ConnectionId> = kept.iter().map(|kept| kept.id).collect();
        let is_port = |link: &Link| link.group == PORT_GROUP;
        for link in links.into_iter().filter(is_port) {
            let Some(port) = port_of(&link.name) else { continue };
            let whose = read_note(&link.alias).filter(|(id, _)| ids.contains(id));
            let adopted = whose.is_some_and(|(id, generation)| {
                self.state.borrow_mut().slots.adopt(id, port, generation, link.index)
            });
            if adopted {
                self.taps.borrow_mut().insert(port, link);
            } else {
                self.state.borrow_mut().slots.condemn(port);
                self.delete(Deletion { port, answer: None });
            }
        }
        for Kept { id, fd } in kept {
            let socket = PacketSocket::new(fd)?;
            self.state.borrow_mut().resumed(id);
            let ports = self.state.borrow().slots.count(id).0;
            tracing::info!(ports, "going on with a front-end");
            // Where this fails the connection has ended, which its task finds out. What was sent to
            // the helpers of before is asked again: twice would be too often, a hello not least.
            let _ = socket.discard(MAX_LEFT_BEHIND);
            let _ = send(&socket, &Reply::Resumed);
            self.spawn(id, socket);
        }
        Ok(())
    }

    fn spawn(self: &Rc<Self>, id: ConnectionId, socket: PacketSocket) {
        let socket = Rc::new(socket);
        self.sockets.borrow_mut().insert(id, Rc::clone(&socket));
        let helper = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match helper.talk(id, &socket).await {
                End::Closed => tracing::info!("a front-end has left"),
                end => tracing::error!(reason = %end, "hung up on a front-end"),
            }
            // The supervisor's copy may be open for a moment more.
            socket.shut_down();
            helper.sockets.borrow_mut().remove(&id);
            helper.notifier.remove(&format!("{STORE_PREFIX}{}", id.0));
            let ports = helper.state.borrow_mut().disconnected(id);
            for port in ports {
                helper.delete(Deletion { port, answer: None });
            }
        });
    }

    /// Serves one connection to its end.
    async fn talk(&self, id: ConnectionId, socket: &PacketSocket) -> End {
        let deadline = tokio::time::Instant::now() + HELLO_LIMIT;
        loop {
            let served = self.one_request(id, socket);
            let is_silent = self.state.borrow().is_silent(id);
            let served = match is_silent {
                true => timeout_at(deadline, served).await.unwrap_or(Err(End::NoHelloInTime)),
                false => served.await,
            };
            if let Err(end) = served {
                return end;
            }
        }
    }

    async fn one_request(&self, id: ConnectionId, socket: &PacketSocket) -> Result<(), End> {
        let received = socket.receive_without_fd().await?.ok_or(End::Closed)?;
        let request = codec::decode_request(received.packet())?;
        let action = self.state.borrow_mut().dispatch(id, request, Instant::now());
        match action {
            Action::Reply(reply) => send(socket, &reply)?,
            Action::Open { req, port, generation } => {
                let outcome = self.open(port, &note(id, generation)).await;
                self.state.borrow_mut().answered(id);
                self.opened(socket, req, port, generation, outcome)?;
            }
            Action::Close { req, port } => self.delete(Deletion { port, answer: Some((id, req)) }),
            Action::HangUp(misuse) => return Err(misuse.into()),
            Action::Ignore => {}
        }
        Ok(())
    }

    /// Makes the TAP of an opening slot; returns its fd and how it is.
    async fn open(&self, port: PortId, note: &str) -> io::Result<(OwnedFd, Link)> {
        let name = port_name(port);
        let (fd, offloads) = tap::create(&name, self.offloads.get())?;
        if self.offloads.replace(offloads) != offloads {
            tracing::info!(offloads, "this kernel has not all TAP offloads, going on without");
        }
        let has_ipv6 = !sysctl::disable_ipv6(&name);
        loop {
            let bridge = self.leaves.make(port, self.bridge.get()).await?;
            let link = self.links.attach_port(&name, bridge, self.mtu, note, has_ipv6).await?;
            if !self.state.borrow().slots.any_open() {
                self.wait_for_bridge().await?;
            }
            // Another one may have been made meanwhile; this port is not among those it was given.
            if self.leaves.bridge_of(port, self.bridge.get()) == bridge {
                return Ok((fd, link));
            }
        }
    }

    /// Makes the bridge again, with the ports that are open; tried again later if it fails.
    async fn repair(&self, network: &mut Network) {
        network.repair().await;
        self.leaves.forget();
        self.bridge.set(network.bridge());
        self.reattach(|_| true).await;
    }

    /// Finds out what has happened where the kernel could not tell.
    async fn look_again(&self, network: &mut Network) {
        let links = match self.links.all().await {
            Ok(links) => links,
            Err(error) => return tracing::error!(%error, "cannot look at the interfaces"),
        };
        let is_there = |index: u32| links.iter().any(|link| link.index == index);
        if !is_there(self.bridge.get()) {
            tracing::error!("somebody deleted the bridge {BRIDGE}, making it again");
            self.repair(network).await;
        } else if self.leaves.retain(&links) {
            self.reattach(|port| self.leaves.bridge_of(port, network.bridge()) == 0).await;
        }
        let gone = |link: &&Link| !is_there(link.index);
        let gone: Vec<Link> = self.taps.borrow().values().filter(gone).cloned().collect();
        gone.iter().for_each(|link| self.vanished(link));
        links.iter().for_each(|link| self.changed(link));
    }

    /// Puts open ports back on their bridges. Those that are being opened now see that theirs is another.
    async fn reattach(&self, is_off: impl Fn(PortId) -> bool) {
        let mut ports = self.state.borrow().slots.open_ports();
        ports.retain(|(port, ..)| is_off(*port));
        for (port, id, generation) in ports {
            let (name, note) = (port_name(port), note(id, generation));
            let attached = match self.leaves.make(port, self.bridge.get()).await {
                Ok(bridge) => self.links.attach_port(&name, bridge, self.mtu, &note, true).await,
                Err(error) => Err(error),
            };
            if let Err(error) = attached {
                tracing::warn!(%error, port = name, "cannot attach the port again");
            }
        }
    }

    /// The first port wakes the bridge, which drops the host's own packets for a moment more.
    async fn wait_for_bridge(&self) -> io::Result<()> {
        for _ in 0..WAKE_TRIES {
            if self.links.find(BRIDGE).await?.is_none_or(|bridge| bridge.running) {
                break;
            }
            tokio::time::sleep(WAKE_PAUSE).await;
        }
        Ok(())
    }

    fn opened(
        &self,
        socket: &PacketSocket,
        req: RequestId,
        port: PortId,
        generation: Generation,
        outcome: io::Result<(OwnedFd, Link)>,
    ) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        match outcome {
            Ok((fd, link)) => {
                state.slots.opened(port, link.index);
                self.taps.borrow_mut().insert(port, link);
                let offloads = self.offloads.get();
                let reply = Reply::Opened { req, port, generation, mtu: self.mtu, offloads };
                socket.send(codec::encode_reply(&reply).as_bytes(), Some(fd.as_fd()))
            }
            Err(error) => {
                tracing::error!(%error, port = port_name(port), "cannot make a TAP");
                // Its fd is closed by now, and with it the TAP has gone.
                state.slots.shelve(port);
                send(socket, &Reply::Err { req, code: ErrorCode::Kernel })
            }
        }
    }

    fn delete(&self, deletion: Deletion) {
        if self.closer.send(deletion).is_err() {
            tracing::error!(port = port_name(deletion.port), "no thread deletes TAPs");
        }
    }

    fn deleted(&self, deletion: Deletion) {
        self.state.borrow_mut().slots.freed(deletion.port);
        let Some((id, req)) = deletion.answer else { return };
        self.state.borrow_mut().answered(id);
        self.tell(id, &Reply::Done { req });
    }

    fn vanished(&self, link: &Link) {
        let Some(port) = port_of(&link.name) else { return };
        let Some((id, generation)) = self.state.borrow_mut().slots.vanished(port, link.index)
        else {
            return;
        };
        tracing::warn!(port = link.name, "somebody deleted a TAP, its session ends");
        self.tell(id, &Reply::Revoked { port, generation, reason: RevokeReason::Deleted });
    }

    /// Hangs up on a front-end that changes a TAP of its own, which the real one cannot.
    fn changed(&self, link: &Link) {
        // Our mark is set when all that is compared stands: earlier messages show a TAP being made.
        let Some(port) = port_of(&link.name).filter(|_| link.group == PORT_GROUP) else { return };
        let taps = self.taps.borrow();
        let changed = taps.get(&port).and_then(|made| tripwire::changed(made, link));
        let holder = self.state.borrow().slots.holder(port);
        let (Some(changed), Some(holder)) = (changed, holder) else { return };
        let port = &link.name;
        tracing::error!(port, changed, "a front-end has tampered with its TAP, hanging up on it");
        if let Some(socket) = self.sockets.borrow().get(&holder) {
            socket.shut_down();
        }
    }

    fn drain(&self) {
        self.state.borrow_mut().stop();
        let ids: Vec<ConnectionId> = self.sockets.borrow().keys().copied().collect();
        for id in ids {
            self.tell(id, &Reply::Drain);
        }
    }

    /// Sends outside of the connection's own task. A peer that does not read is dropped by that
    /// task's next receive: shutting the socket down ends it.
    fn tell(&self, id: ConnectionId, reply: &Reply) {
        let socket = self.sockets.borrow().get(&id).map(Rc::clone);
        if let Some(socket) = socket
            && let Err(error) = send(&socket, reply)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::error!(%error, "a front-end does not take its replies");
            socket.shut_down();
        }
    }
}

fn send(socket: &PacketSocket, reply: &Reply) -> io::Result<()> {
    socket.send(codec::encode_reply(reply).as_bytes(), None)
}
