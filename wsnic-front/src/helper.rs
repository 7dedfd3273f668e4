//! The helper, seen from the front-end: ask for ports, give them back, hear of lost ones.
//!
//! The only file that sends requests. Every request is invented here: nothing that a client sent
//! is part of one but the addresses of its guest, as numbers, which the helper judges for itself. A helper that does not answer costs new clients their port, never a session.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use wsnic_os::log_limit::LogLimit;
use wsnic_os::packet::PacketSocket;
use wsnic_proto::codec;
use wsnic_proto::message::{MAGIC, MAX_IN_FLIGHT, VERSION};
use wsnic_proto::offload::Offloads;
use wsnic_proto::rooms::RoomKey;
use wsnic_proto::{ErrorCode, Generation, MacAddr, PortId, Reply, Request, RequestId};

/// A client that has no port by then is refused.
const OPEN_LIMIT: Duration = Duration::from_secs(2);
/// A close that is not answered by then is mentioned in the log.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of a port that a new helper is told of.
const MAX_BOUND: usize = 64;
/// Hello has this long at start.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Why a port cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The helper refused.
    #[error("{0}")]
    Refused(#[from] ErrorCode),
    /// No answer within [`OPEN_LIMIT`].
    #[error("the helper does not answer")]
    Silent,
    /// No connection to it.
    #[error("the helper is not running")]
    Gone,
    /// The port came without its fd.
    #[error("this process has too many open files")]
    NoFd,
}

/// A port of this front-end. The fd is a TAP: one read or write is one frame.
#[derive(Debug)]
pub struct Port {
    /// Its slot.
    pub id: PortId,
    /// Its generation.
    pub generation: Generation,
    /// The TAP, non-blocking.
    pub fd: OwnedFd,
    /// Whether each frame has a virtio_net_hdr before it.
    pub offloads: Offloads,
    /// IPv4 address of its bridge.
    pub gateway: Ipv4Addr,
    /// MAC address of its bridge.
    pub gateway_mac: MacAddr,
    /// Told when the port is dead.
    pub lost: Rc<Notify>,
}

/// How the helper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HelperState {
    /// Ports that are open.
    pub ports: u32,
    /// Networks whose bridge is missing or down.
    pub broken: u32,
    /// Networks whose dnsmasq does not serve.
    pub silent: u32,
}

/// A port if one was asked for.
type Answer = Result<Option<Port>, OpenError>;

/// A request that was sent and is not answered. It keeps its room until it is, even if its client
/// has given up, so that the helper never sees more than it allows.
struct Waiting {
    request: Request,
    answer: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

/// A port that was given out.
struct Held {
    generation: Generation,
    lost: Rc<Notify>,
    /// What may pass there, the oldest first: a helper that was restarted is told again.
    bound: Vec<(MacAddr, [u8; 4])>,
}

/// The connection to the helper. It outlives the helper: whoever supervises it passes it on to the
/// next one, which says so ([`Reply::Resumed`]).
pub struct Helper {
    socket: PacketSocket,
    waiting: RefCell<HashMap<RequestId, Waiting>>,
    ports: RefCell<HashMap<PortId, Held>>,
    /// What it said of itself last.
    state: Cell<HelperState>,
    room: Arc<Semaphore>,
    next: Cell<RequestId>,
    log: Rc<LogLimit>,
}

impl Helper {
    /// Says hello on a new connection. Call [`Helper::run`] next.
    ///
    /// # Errors
    /// The helper does not answer, or not in this protocol.
    pub async fn greet(fd: OwnedFd, log: Rc<LogLimit>) -> io::Result<Rc<Helper>> {
        let socket = PacketSocket::new(fd)?;
        say_hello(&socket)?;
        let welcome = async {
            loop {
                let closed = || io::Error::other("the helper closed the connection: see its log");
                let received = socket.receive_with_fd().await?.ok_or_else(closed)?;
                match codec::decode_reply(received.packet()) {
                    Ok(Reply::Welcome { proto: VERSION, .. }) => return Ok(()),
                    // It has died before it could answer.
                    Ok(Reply::Resumed) => say_hello(&socket)?,
                    _ => return Err(io::Error::other("the helper speaks another protocol")),
                }
            }
        };
        timeout(HELLO_LIMIT, welcome)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the helper does not answer"))??;
        let helper = Helper {
            socket,
            waiting: RefCell::default(),
            ports: RefCell::default(),
            state: Cell::default(),
            room: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            next: Cell::new(1),
            log,
        };
        Ok(Rc::new(helper))
    }

    /// Takes the helper's replies and events until the connection ends; returns why.
    pub async fn run(self: Rc<Self>) -> String {
        let mut resumed = false;
        loop {
            // Answered when nothing more is there to be read: while this process was stopped, one
            // helper after the other may have come, and only the last one wants its hello.
            let received = tokio::select! {
                biased;
                received = self.socket.receive_with_fd() => received,
                () = std::future::ready(()), if resumed => {
                    if let Err(error) = self.ask_again() {
                        return error.to_string();
                    }
                    resumed = false;
                    continue;
                }
            };
            let mut received = match received {
                Ok(Some(received)) => received,
                Ok(None) => return "it closed the connection".to_owned(),
                Err(error) => return error.to_string(),
            };
            let fd = received.fd.take();
            match codec::decode_reply(received.packet()) {
                Ok(Reply::Resumed) => resumed = true,
                Ok(reply) => self.handle(reply, fd),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// A new helper has the connection: what the old one has not answered is lost.
    fn ask_again(self: &Rc<Self>) -> io::Result<()> {
        tracing::info!("the helper was restarted, going on");
        say_hello(&self.socket)?;
        let mut waiting = self.waiting.borrow_mut();
        // What a client wanted that has given up is not asked for again; a close always is. In order: a
        // port's close comes last.
        waiting.retain(|_, one| {
            matches!(one.request, Request::Close { .. }) || !one.answer.is_closed()
        });
        let mut all: Vec<(RequestId, Request)> =
            waiting.iter().map(|(req, one)| (*req, one.request)).collect();
        drop(waiting);
        let oldest = self.next.get().wrapping_sub(RequestId::MAX / 2);
        all.sort_unstable_by_key(|(req, _)| req.wrapping_sub(oldest));
        all.iter().try_for_each(|(_, request)| self.send(request))?;
        // It has let nothing pass since it is there.
        for (id, held) in &*self.ports.borrow() {
            let helper = Rc::clone(self);
            tokio::task::spawn_local(helper.bind_again(*id, held.generation, held.bound.clone()));
        }
        Ok(())
    }

    async fn bind_again(
        self: Rc<Self>,
        id: PortId,
        generation: Generation,
        bound: Vec<(MacAddr, [u8; 4])>,
    ) {
        for (mac, address) in bound {
            if let Err(error) = self.bind(id, generation, (mac, address.into()), false).await {
                tracing::debug!(port = id.0, %error, "a guest's address is not bound again");
                if matches!(error, OpenError::Gone) {
                    return;
                }
            }
        }
    }

    fn send(&self, request: &Request) -> io::Result<()> {
        self.socket.send(codec::encode_request(request).as_bytes(), None)
    }

    /// Opens a port.
    ///
    /// # Errors
    /// After at most 2 s.
    ///
    /// # Cancel safety
    /// A port that comes after the caller has gone is given back.
    pub async fn open(&self, network: u16, room: Option<RoomKey>) -> Result<Port, OpenError> {
        let open = self.ask(|req| match room {
            None => Request::Open { req, network },
            Some(room) => Request::OpenRoom { req, network, room },
        });
        timeout(OPEN_LIMIT, open).await.map_err(|_| OpenError::Silent)??.ok_or(OpenError::Gone)
    }

    /// Lets these source addresses pass on a port; an unspecified address is none. One that was `given`
    /// by DHCP is taken from whoever of our guests still has it.
    ///
    /// # Errors
    /// The helper refuses, or does not answer within 2 s.
    pub async fn bind(
        &self,
        port: PortId,
        generation: Generation,
        (mac, address): (MacAddr, Ipv4Addr),
        given: bool,
    ) -> Result<(), OpenError> {
        let address = address.octets();
        let bind = self.ask_if(|req| {
            let is_held = self.is_held(port, generation);
            is_held.then_some(Request::Bind { req, port, generation, mac, address, given })
        });
        timeout(OPEN_LIMIT, bind).await.map_err(|_| OpenError::Silent)??;
        let mut ports = self.ports.borrow_mut();
        if given && address != [0; 4] {
            // Nobody else has it any more.
            for held in ports.values_mut() {
                held.bound.retain(|pair| pair.1 != address);
            }
        }
        if let Some(held) = ports.get_mut(&port).filter(|held| held.generation == generation) {
            held.bound.retain(|pair| *pair != (mac, address));
            held.bound.push((mac, address));
            // The helper keeps no more either: the oldest go.
            let excess = held.bound.len().saturating_sub(MAX_BOUND);
            held.bound.drain(..excess);
        }
        Ok(())
    }

    /// Gives a port back; returns when it is deleted, however long that takes.
    pub async fn close(&self, id: PortId, generation: Generation) {
        if self.is_held(id, generation) {
            self.ports.borrow_mut().remove(&id);
        }
        let mut close =
            std::pin::pin!(self.ask(|req| Request::Close { req, port: id, generation }));
        let answer = match timeout(CLOSE_LIMIT, &mut close).await {
            Ok(answer) => answer,
            Err(_) => {
                if self.log.allows() {
                    tracing::warn!(port = id.0, "the helper takes long to delete a port");
                }
                close.await
            }
        };
        if let Err(error) = answer {
            tracing::debug!(port = id.0, %error, "port not given back");
        }
    }

    /// How the helper is; waits for as long as it does not answer.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn state(&self) -> Result<HelperState, OpenError> {
        self.ask(|req| Request::Stats { req }).await?;
        Ok(self.state.get())
    }

    /// Ends the connection, and with it all ports.
    pub fn hang_up(&self) {
        self.socket.shut_down();
    }

    fn is_held(&self, port: PortId, generation: Generation) -> bool {
        self.ports.borrow().get(&port).is_some_and(|held| held.generation == generation)
    }

    async fn ask(&self, request: impl FnOnce(RequestId) -> Request) -> Answer {
        self.ask_if(|req| Some(request(req))).await
    }

    /// Asks, unless there is nothing to be asked any more when the helper has room for it.
    async fn ask_if(&self, request: impl FnOnce(RequestId) -> Option<Request>) -> Answer {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| OpenError::Gone)?;
        let req = self.next.replace(self.next.get().wrapping_add(1));
        let (sender, answer) = oneshot::channel();
        let request = request(req).ok_or(OpenError::Gone)?;
        if let Err(error) = self.send(&request) {
            tracing::debug!(%error, "cannot send to the helper");
            return Err(OpenError::Silent);
        }
        let waiting = Waiting { request, answer: sender, _room: room };
        self.waiting.borrow_mut().insert(req, waiting);
        answer.await.unwrap_or(Err(OpenError::Gone))
    }

    fn handle(self: &Rc<Self>, reply: Reply, fd: Option<OwnedFd>) {
        match reply {
            Reply::Revoked { port, generation, .. } => {
                if let Some(held) = self.ports.borrow().get(&port)
                    && held.generation == generation
                {
                    held.lost.notify_one();
                }
            }
            Reply::Drain => tracing::info!("the helper is stopping"),
            Reply::Opened { req, port: id, generation, offloads, gateway, gateway_mac, .. } => {
                let (lost, offloads) = (Rc::new(Notify::new()), Offloads(offloads));
                let gateway = gateway.into();
                let port =
                    fd.map(|fd| Port { id, generation, fd, offloads, gateway, gateway_mac, lost });
                self.opened(req, id, generation, port);
            }
            Reply::Err { req, code } => self.answer(req, Err(code.into())),
            Reply::Stats { req, ports_in_all, broken, silent, .. } => {
                self.state.set(HelperState { ports: ports_in_all, broken, silent });
                self.answer(req, Ok(None));
            }
            Reply::Done { req } | Reply::Pong { req } => self.answer(req, Ok(None)),
            // Resumed is taken care of before; the Welcome that follows it tells nothing new.
            Reply::Welcome { .. } | Reply::Resumed => {}
        }
    }
}

impl Helper {
    fn answer(&self, req: RequestId, answer: Answer) {
        if let Some(waiting) = self.waiting.borrow_mut().remove(&req) {
            // An error means that nobody waits any more.
            let _ = waiting.answer.send(answer);
        }
    }

    fn opened(
        self: &Rc<Self>,
        req: RequestId,
        id: PortId,
        generation: Generation,
        port: Option<Port>,
    ) {
        let waiting = self.waiting.borrow_mut().remove(&req);
        let unwanted = match (port, waiting) {
            (Some(port), Some(waiting)) => {
                let lost = Rc::clone(&port.lost);
                let held = Held { generation, lost, bound: Vec::new() };
                self.ports.borrow_mut().insert(id, held);
                match waiting.answer.send(Ok(Some(port))) {
                    Ok(()) => return,
                    Err(port) => port.ok().flatten().map(|port| port.fd),
                }
            }
            (port, waiting) => {
                if let Some(waiting) = waiting {
                    let _ = waiting.answer.send(Err(OpenError::NoFd));
                }
                port.map(|port| port.fd)
            }
        };
        let helper = Rc::clone(self);
        tokio::task::spawn_local(async move {
            helper.close(id, generation).await;
            // Only now: closing a TAP that exists blocks for some 20 ms.
            drop(unwanted);
        });
    }
}

fn say_hello(socket: &PacketSocket) -> io::Result<()> {
    let hello = Request::Hello { magic: MAGIC, min: VERSION, max: VERSION };
    socket.send(codec::encode_request(&hello).as_bytes(), None)
}
