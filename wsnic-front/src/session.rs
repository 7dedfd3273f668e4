//! One client from accept to the end: HTTP head, port, 101, frames, close.

use crate::addresses::{Addresses, Entered, Turned};
use crate::auth::{
    Auth, AuthError, Identity, Judgement, NameEntered, Names, Passwords, Shown, Source, Sources,
};
use crate::dhcp_port::DhcpPort;
use crate::end::{End, Lifetime};
use crate::fd_closer::FdCloser;
use crate::guest::Guest;
use crate::helper::Helper;
use crate::http::{self, Accept, MAX_HEAD, Refusal, Verdict};
use crate::listen::{Counted, Speaks};
use crate::networks::{Choice, Lost, Networks};
use crate::news::Item;
use crate::rate::Limiter;
use crate::sandbox::Sandboxed;
use crate::sessions::{Listed, Place, Sessions};
use crate::shuttle::{Shuttle, TAP_INTEREST};
use crate::stream::{Socket, Stream};
use crate::tls::{self, Tls, TlsError};
use crate::{page, proxy, ws};
use rustls::ServerConfig;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tracing::Level;
use wsnic_os::log_limit::LogLimit;
use wsnic_os::material::{self, Material};
use wsnic_os::watch::watch;
use wsnic_proto::IpBlock;
use wsnic_proto::settings::{NetworkName, Settings};

/// The head has this long, all in all.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The first byte of TLS: a record of the type handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// An answer or close message has this long to be taken.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// The same at the end of this process, for which somebody waits: `docker stop`, or a restart.
const LAST_FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// The page has this long: 30 KB on a slow line.
const PAGE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a refused request that are still read, so that its sender gets to read the answer.
const MAX_LINGER: usize = 1024 * 1024;
/// vpn-ws-client loses what comes in one packet with the 101.
const VPN_WS_HOLD_BACK: Duration = Duration::from_millis(250);

/// What is made from the files that can be handed over anew.
pub struct Door {
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may come in.
    pub auth: Auth,
}

impl Door {
    /// Makes it all.
    ///
    /// # Errors
    /// Names the file, what is wrong in it, and what to do.
    pub fn new(material: &Material, settings: &Settings) -> Result<Door, DoorError> {
        let source = |source: &Option<material::Source>| {
            source.as_ref().map(|source| Source {
                path: source.path.clone(),
                text: source.text.clone().into_bytes(),
            })
        };
        let sources = Sources {
            tokens: source(&material.tokens),
            jwt: source(&material.jwt_key),
            basic: source(&material.basic_auth),
        };
        let client_cert = settings.server.wss_client_cert;
        let asked = material.client_ca.as_ref().map(|_| client_cert);
        let auth = Auth::new(&sources, &settings.door, asked)?;
        let is_network = |name: &_| settings.networks().any(|network| network.name == *name);
        if let Some((token, network)) = auth.lost(is_network) {
            let (token, network) = (token.to_owned(), network.clone());
            return Err(DoorError::NoNetwork { token, network });
        }
        Ok(Door { tls: tls::config(material, client_cert)?, auth })
    }
}

/// A file of the door is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A certificate or a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A list of who may come in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A token leads nowhere.
    #[error(
        "token {token} of token_file is for network {network}, which there is not: write a section \
         [network {network}], or change the token's network="
    )]
    NoNetwork {
        /// Its name.
        token: String,
        /// Where it leads.
        network: NetworkName,
    },
}

/// Buckets of log lines: who fills one keeps nobody's lines of another kind out of the log.
pub struct LogLimits {
    /// Of those who are not let in, who may be anybody.
    pub strangers: LogLimit,
    /// Of the start and end of sessions, which ports bound.
    pub sessions: Rc<LogLimit>,
    /// Of what guests do: DHCP, addresses that they may not use.
    pub guests: Rc<LogLimit>,
}

impl LogLimits {
    /// Full ones.
    pub fn new(now: Instant) -> LogLimits {
        LogLimits {
            strangers: LogLimit::new("clients that are not let in", now),
            sessions: Rc::new(LogLimit::new("sessions", now)),
            guests: Rc::new(LogLimit::new("guests", now)),
        }
    }
}

/// What all sessions share.
pub struct Context {
    /// Where ports come from.
    pub helper: Rc<Helper>,
    /// Where TAP fds are closed.
    pub closer: FdCloser,
    /// The networks.
    pub networks: Networks,
    /// How those who come in are judged; another after a reload.
    pub door: RefCell<Rc<Door>>,
    /// What is known of clients' addresses.
    pub addresses: Rc<Addresses>,
    /// How many clients each proof has.
    pub names: Rc<Names>,
    /// Where passwords are checked.
    pub passwords: Passwords,
    /// Proxies that are believed for whom they speak.
    pub trusted: Vec<IpBlock>,
    /// Whether those begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether browsers get the page.
    pub page: bool,
    /// How long a session may last.
    pub session_time: Option<Duration>,
    /// How long a guest may be idle.
    pub idle_time: Option<Duration>,
    /// Becomes true when the server shuts down.
    pub shutdown: watch::Receiver<bool>,
    /// Hold back lines that clients could fill the disk with.
    pub log: LogLimits,
    /// When this process began to serve.
    pub started: Instant,
    /// Sessions that are open, and who was not let in.
    pub sessions: Rc<Sessions>,
    /// Without this proof no byte of a client is read.
    pub sandboxed: Sandboxed,
}

impl Context {
    /// Whether a connection from there is looked at at all. Of a believed proxy's clients it is known
    /// later.
    pub fn admits(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            Some(peer) if !self.trusts(Some(peer)) => self.arrives(peer.ip(), &peer),
            _ => true,
        }
    }

    /// Whether somebody who comes from `ip` may try; said in the log now and then if not.
    fn arrives(&self, ip: IpAddr, client: &dyn fmt::Display) -> bool {
        match self.addresses.arrives(ip, Instant::now()) {
            Ok(()) => true,
            Err(turned) => {
                self.sessions.refused(match turned {
                    Turned::Banned => "banned",
                    Turned::TooFast => "handshake_rate",
                });
                if self.log.strangers.allows_at(Level::INFO) {
                    tracing::info!(%client, reason = %turned, "turned away");
                }
                false
            }
        }
    }

    /// Whether this is a proxy that is believed for whom it speaks; unix sockets are for nobody else.
    fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        peer.is_none_or(|peer| self.trusted.iter().any(|block| block.contains(peer.ip())))
    }
}

/// Who is connected, for limits and the log.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    peer: Option<SocketAddr>,
    /// Who a believed proxy speaks for.
    behind: Option<IpAddr>,
}

impl Client {
    /// Somebody who comes from nowhere, for tests.
    #[cfg(test)]
    pub fn of_nobody() -> Client {
        Client { peer: None, behind: None }
    }

    /// The address that counts; None: a proxy on this machine that does not say.
    pub fn ip(self) -> Option<IpAddr> {
        self.behind.or(self.peer.map(|peer| peer.ip()))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.behind, self.peer) {
            (Some(ip), _) => ip.fmt(f),
            (None, Some(peer)) => peer.fmt(f),
            (None, None) => f.write_str("local"),
        }
    }
}

/// Serves one connection to its end; `counted` is dropped when it has a port, or is refused.
pub async fn serve(
    context: &Rc<Context>,
    socket: Socket,
    peer: Option<SocketAddr>,
    speaks: Speaks,
    counted: Counted,
) {
    let mut shutdown = context.shutdown.clone();
    let handshake = async {
        tokio::select! {
            handshake = handshake(context, socket, peer, speaks) => handshake,
            _ = shutdown.wait_for(|stop| *stop) => None,
        }
    };
    // The handshake's future is gone before the session starts: sessions stay small.
    let handshake = Box::pin(handshake).await;
    if let Some(welcome) = handshake {
        session(context, welcome, counted).await;
    }
}

/// A client that may come in.
struct Welcome {
    stream: Stream,
    client: Client,
    identity: Identity,
    choice: Choice,
    /// Count it until it leaves.
    counted: (Option<Entered>, NameEntered),
    accept: Accept,
    /// What came behind the head.
    early: Vec<u8>,
}

impl Welcome {
    /// Gives the memory back that was on its way from the handshake to the session.
    fn unboxed(self: Box<Welcome>) -> Welcome {
        *self
    }
}

/// Reads and judges what a client says of itself; answers what is no WebSocket.
async fn handshake(
    context: &Context,
    socket: Socket,
    peer: Option<SocketAddr>,
    speaks: Speaks,
) -> Option<Box<Welcome>> {
    let mut client = Client { peer, behind: None };
    let deadline = tokio::time::Instant::now() + HEAD_LIMIT;
    let opened = open(context, socket, &mut client, speaks);
    let stream = match timeout_at(deadline, opened).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            context.sessions.refused("handshake");
            if context.log.strangers.allows_at(Level::INFO) {
                tracing::info!(%client, %error, "refused");
            }
            return None;
        }
        // It has not even begun to say what it wants.
        Err(_) => return None,
    };
    let mut bytes = Vec::with_capacity(1024);
    let head = read_head(context.sandboxed, &stream, &mut bytes);
    let refusal = match timeout_at(deadline, head).await {
        Ok(Some(Verdict::Upgrade { head, accept })) => {
            if context.trusts(peer) && !context.proxy_protocol {
                client.behind = proxy::client(&accept.forwarded, &context.trusted);
            }
            bytes.drain(..head);
            match enter(context, &stream, client, &accept).await {
                Ok((identity, choice, counted)) => {
                    let early = bytes;
                    let welcome =
                        Welcome { stream, client, identity, choice, counted, accept, early };
                    return Some(Box::new(welcome));
                }
                Err(refusal) => refusal,
            }
        }
        Ok(Some(Verdict::Page { head_only })) if context.page => {
            tracing::debug!(%client, "a browser gets the page");
            farewell(&stream, &page::response(head_only), PAGE_LIMIT).await;
            return None;
        }
        Ok(Some(Verdict::Page { head_only })) => Refusal::NotWebSocket { head_only },
        Ok(Some(Verdict::Refuse(refusal))) => refusal,
        Ok(Some(Verdict::Incomplete) | None) => return None,
        Err(_) => Refusal::Timeout,
    };
    refuse(context, stream, client, refusal).await;
    None
}

/// Judges who somebody is, and whether there is room for one more of his kind.
async fn enter(
    context: &Context,
    stream: &Stream,
    client: Client,
    accept: &Accept,
) -> Result<(Identity, Choice, (Option<Entered>, NameEntered)), Refusal> {
    if let Some(ip) = client.behind
        && !context.arrives(ip, &client)
    {
        return Err(Refusal::Forbidden);
    }
    let door = Rc::clone(&context.door.borrow());
    let shown = Shown { certificate: stream.certificate(), ..accept.shown.clone() };
    let judged = match door.auth.judge(&shown, SystemTime::now()) {
        Judgement::Welcome(identity) => Ok(identity),
        Judgement::Refused(why) => Err(why),
        Judgement::AskPassword(question) => context.passwords.ask(question).await,
    };
    let identity = judged.map_err(|why| {
        if context.log.strangers.allows_at(Level::INFO) {
            tracing::info!(%client, %why, "not let in");
        }
        if let Some(ip) = client.ip().filter(|_| why.is_wrong_proof())
            && context.addresses.failed(ip, Instant::now())
        {
            tracing::warn!(%client, "banned: too many wrong proofs (ban_after, ban_time)");
        }
        Refusal::Forbidden
    })?;
    let choice = context.networks.choose(&accept.shown.target, &identity).map_err(|lost| {
        if context.log.strangers.allows_at(Level::INFO) {
            let why = match lost {
                Lost::Path => "the path leads to no network, or a room is not named",
                Lost::Forbidden => "the network is not for this proof",
            };
            tracing::info!(%client, identity = identity.label(), %why, "not let in");
        }
        match lost {
            Lost::Path => Refusal::NotFound,
            Lost::Forbidden => Refusal::Forbidden,
        }
    })?;
    let full = |limit: &dyn fmt::Display| {
        if context.log.strangers.allows_at(Level::INFO) {
            tracing::info!(%client, reason = %limit, "not let in");
        }
        Refusal::TooMany
    };
    let of_address = client.ip().map(|ip| context.addresses.enters(ip)).transpose();
    let of_address = of_address.map_err(|limit| full(&limit))?;
    let of_name = context.names.enters(&identity).map_err(|limit| full(&limit))?;
    Ok((identity, choice, (of_address, of_name)))
}

/// What comes before HTTP: for whom a proxy speaks, and TLS.
async fn open(
    context: &Context,
    socket: Socket,
    client: &mut Client,
    speaks: Speaks,
) -> io::Result<Stream> {
    if context.proxy_protocol && context.trusts(client.peer) {
        client.behind = proxy::read_header(&socket).await?;
    }
    let is_tls = match speaks {
        Speaks::Plain => false,
        Speaks::Tls => true,
        Speaks::Either => socket.first_byte().await? == Some(TLS_HANDSHAKE),
    };
    if !is_tls {
        return Ok(Stream::plain(socket));
    }
    let door = Rc::clone(&context.door.borrow());
    let config = door.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let tls = Tls::new(config).map_err(io::Error::other)?;
    Stream::accept_tls(socket, tls).await
}

/// The first bytes of a stranger: read inside the sandbox only. None if the client went away.
async fn read_head(_: Sandboxed, stream: &Stream, bytes: &mut Vec<u8>) -> Option<Verdict> {
    loop {
        // One byte more than a head may have, so that a longer one is seen as that.
        let len = bytes.len();
        let room = (MAX_HEAD + 1).saturating_sub(len).clamp(1, 2048);
        bytes.resize(len + room, 0);
        let read = stream.read(&mut bytes[len..]).await.ok()?;
        bytes.truncate(len + read);
        if read == 0 {
            return None;
        }
        match http::judge(bytes) {
            Verdict::Incomplete => {}
            verdict => return Some(verdict),
        }
    }
}

/// Says why not.
async fn refuse(context: &Context, stream: Stream, client: Client, refusal: Refusal) {
    context.sessions.refused(refusal.kind());
    if context.log.strangers.allows_at(Level::INFO) {
        tracing::info!(%client, reason = %refusal, "refused");
    }
    farewell(&stream, &refusal.response(), FAREWELL_LIMIT).await;
}

/// Answers and closes so that the answer arrives: a reset would take it from the client's hands.
async fn farewell(stream: &Stream, answer: &str, limit: Duration) {
    let answered = async {
        stream.write_all(answer.as_bytes()).await?;
        linger(stream, MAX_LINGER).await
    };
    // A client that does not take its answer gets none.
    let _ = timeout(limit, answered).await;
}

/// Says that nothing more comes, and reads what the client still sends, at most `limit` bytes,
/// until it closes too.
async fn linger(stream: &Stream, limit: usize) -> io::Result<()> {
    stream.shut_down_write().await?;
    // Not in the future of the session, which would be as much larger for as long as it lasts.
    let mut scrap = vec![0; 4096];
    let mut seen = 0;
    while seen < limit {
        match stream.read(&mut scrap).await? {
            0 => break,
            len => seen += len,
        }
    }
    Ok(())
}

async fn session(context: &Rc<Context>, welcome: Box<Welcome>, counted: Counted) {
    let Welcome { stream, client, identity, choice, counted: of_kind, accept, early } =
        welcome.unboxed();
    let Choice { network, room } = choice;
    let port = match context.helper.open(network.number, room).await {
        Ok(port) => port,
        Err(error) => {
            if context.log.strangers.allows() {
                tracing::warn!(%client, reason = %error, "no port for a client");
            }
            return refuse(context, stream, client, Refusal::Unavailable).await;
        }
    };
    drop(counted);
    let (id, generation, lost, offloads) = (port.id, port.generation, port.lost, port.offloads);
    let options = &network.options;
    let policy = network.policy(port.gateway_mac);
    let dhcp = network.dhcp(port.gateway, port.gateway_mac);
    let name = format!("wstap{}", id.0);
    let tap = match watch(port.fd, TAP_INTEREST) {
        Ok(tap) => tap,
        Err(error) => {
            tracing::error!(%client, %error, "cannot watch a TAP");
            context.helper.close(id, generation).await;
            return refuse(context, stream, client, Refusal::Unavailable).await;
        }
    };
    let started = Instant::now();
    let dhcp = dhcp.map(|dhcp| DhcpPort::open(&dhcp, &context.log.guests));
    let guest = options.locks.then(|| {
        let max_macs = options.max_macs as usize;
        Guest::new(Rc::clone(&context.helper), (id, generation), max_macs, port.gateway)
    });
    let greeting = stream.write_all(accept.response().as_bytes()).await;
    let is_vpn_ws = accept.is_vpn_ws;
    // What is left lasts as long as the session: nothing of its head is kept.
    drop(accept);
    let burst = Duration::from_millis(options.rate_burst_ms.into());
    let limit = |rate| Limiter::new(rate, burst, started);
    let limits = (
        limit(identity.rate_up.over(options.rate_up)),
        limit(identity.rate_down.over(options.rate_down)),
    );
    let own = identity.expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let time = identity.session_time.or(context.session_time).filter(|time| !time.is_zero());
    let time = time.into_iter().chain(own).min();
    let ends = time.and_then(|time| tokio::time::Instant::from_std(started).checked_add(time));
    let lifetime = Lifetime { ends, idle: context.idle_time };
    let own = (dhcp, guest);
    let shuttle = Shuttle::new(stream, tap, offloads, policy, own, limits, lifetime)
        .with_framing(options.framing);
    let counters = Rc::clone(&shuttle.counters);
    let place = Place { network: Rc::clone(&network), room, port: name.clone() };
    let who = identity.label();
    let listed = context.sessions.list(client, who.clone(), place, counters);
    let session = listed.session.id;
    // Which room: its secret is nobody's business.
    let room = room.map(|_| tracing::field::display(port.gateway));
    if context.log.sessions.allows_at(Level::INFO) {
        let sessions = context.sessions.len();
        tracing::info!(
            %client, identity = who, network = %options.name, room, port = name, session, sessions,
            "client connected"
        );
    }
    let hold_back = if is_vpn_ws { VPN_WS_HOLD_BACK } else { Duration::ZERO };
    let mut shutdown = context.shutdown.clone();
    let end = match greeting {
        Err(_) => End::Lost,
        Ok(()) => tokio::select! {
            end = shuttle.run(early, ws::Decoder::new(is_vpn_ws), hold_back) => end,
            () = lost.notified() => End::PortLost,
            () = listed.session.kicked() => End::Kicked,
            end = hear_news(context, &shuttle, &listed, client) => end,
            _ = shutdown.wait_for(|stop| *stop) => End::Shutdown,
        },
    };
    drop(listed);
    if matches!(end, End::Framing(_)) && context.log.guests.allows() {
        tracing::warn!(
            %client, network = %options.name,
            "the client does not send a stream of frames: for v86 and others whose messages are frames, \
             set framing=messages for this network, or send them to another one"
        );
    }
    if context.log.sessions.allows_at(Level::INFO) {
        let counters = &shuttle.counters;
        tracing::info!(
            %client, identity = who, network = %options.name, room, port = name, session,
            mac = counters.mac.get().map(tracing::field::display), reason = %end,
            seconds = started.elapsed().as_secs(),
            frames_in = counters.frames_in.get(), bytes_in = counters.bytes_in.get(),
            frames_out = counters.frames_out.get(), bytes_out = counters.bytes_out.get(),
            dropped = counters.dropped.get(), late = counters.late.get(), texts = counters.texts.get(), "client disconnected"
        );
    }
    let (stream, waiting, fd) = shuttle.into_parts();
    let all_end = matches!(end, End::Shutdown);
    let giving_back = async {
        if all_end {
            // With this process's connection to it, the helper deletes all ports, and by one message.
            // Open until then: an interface that vanishes by itself means trouble to the helper.
            let _ = fd.into_raw_fd();
            return;
        }
        context.helper.close(id, generation).await;
        context.closer.close(fd);
    };
    tokio::join!(say_goodbye(stream, waiting, end), giving_back);
    drop(of_kind);
}

/// Says what an operator may want to know of a session, and asks others whether they are there; ends if
/// another asks and this one is not.
async fn hear_news(context: &Context, shuttle: &Shuttle, listed: &Listed, client: Client) -> End {
    loop {
        let item = tokio::select! {
            item = shuttle.news.next() => item,
            () = listed.session.challenged() => match shuttle.is_there().await {
                true => continue,
                false => return End::Silent,
            },
        };
        match item {
            Item::Text if context.log.guests.allows() => {
                // Once a session is enough; the line at its end has the number.
                tracing::warn!(%client, "the client sends text messages, which are ignored: frames are binary");
            }
            Item::Stream if context.log.guests.allows() => {
                tracing::warn!(
                    %client,
                    "the client sends each frame behind its length, as container2wasm does: set \
                     framing=stream for its network"
                );
            }
            Item::Refused((mac, address), why) if context.log.guests.allows() => {
                tracing::warn!(%client, %mac, %address, %why, "a guest may not use its address, its frames are dropped");
            }
            Item::Wanted(mac) => context.sessions.challenge(&listed.session, mac),
            Item::Text | Item::Stream | Item::Refused(..) => {}
        }
    }
}

/// Sends what was begun and the close message, then waits for the client to close.
async fn say_goodbye(stream: Stream, waiting: Vec<u8>, end: End) {
    let Some(code) = end.close_code() else { return };
    let farewell = async {
        stream.write_all(&waiting).await?;
        stream.write_all(&ws::close(code)).await?;
        // Whatever a guest still had on the way, for as long as there is time.
        linger(&stream, usize::MAX).await
    };
    let limit = if matches!(end, End::Shutdown) { LAST_FAREWELL_LIMIT } else { FAREWELL_LIMIT };
    // A client that does not read its close message has lost it.
    let _ = timeout(limit, farewell).await;
}
