//! One client from accept to the end: HTTP head, port, 101, frames, close.

use crate::dhcp_port::{Dhcp, DhcpPort};
use crate::fd_closer::FdCloser;
use crate::helper::Helper;
use crate::http::{self, Accept, MAX_HEAD, Refusal, Verdict};
use crate::listen::Counted;
use crate::log_limit::LogLimit;
use crate::rate::Limiter;
use crate::sandbox::Sandboxed;
use crate::shuttle::{End, Shuttle, TAP_INTEREST};
use crate::ws;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use wsnic_os::watch::watch;
use wsnic_proto::frame::FramePolicy;
use wsnic_proto::settings::Rate;

/// The head has this long, all in all.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// An answer or close message has this long to be taken.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of a refused request that are still read, so that its sender gets to read the answer.
const MAX_LINGER: usize = 1024 * 1024;
/// vpn-ws-client loses what comes in one packet with the 101.
const VPN_WS_HOLD_BACK: Duration = Duration::from_millis(250);

/// What all sessions share.
pub struct Context {
    /// Where ports come from.
    pub helper: Rc<Helper>,
    /// Where TAP fds are closed.
    pub closer: FdCloser,
    /// What guests may send.
    pub policy: FramePolicy,
    /// What each guest may send.
    pub rate_up: Rate,
    /// What each guest may get.
    pub rate_down: Rate,
    /// What of that may come at once.
    pub rate_burst: Duration,
    /// The DHCP server, if it is the built-in one.
    pub dhcp: Option<Rc<RefCell<Dhcp>>>,
    /// Becomes true when the server shuts down.
    pub shutdown: watch::Receiver<bool>,
    /// Holds back lines that clients could fill the disk with.
    pub log: Rc<LogLimit>,
    /// Sessions that are open.
    pub open: Cell<usize>,
    /// Without this proof no byte of a client is read.
    pub sandboxed: Sandboxed,
}

/// Serves one connection to its end; `counted` is dropped when it has a port, or is refused.
pub async fn serve(context: &Rc<Context>, stream: TcpStream, client: SocketAddr, counted: Counted) {
    let mut shutdown = context.shutdown.clone();
    let handshake = async {
        tokio::select! {
            handshake = handshake(context, stream, client) => handshake,
            _ = shutdown.wait_for(|stop| *stop) => None,
        }
    };
    // The handshake's future is gone before the session starts: sessions stay small.
    let handshake = Box::pin(handshake).await;
    if let Some((stream, accept, early)) = handshake {
        session(context, stream, client, accept, early, counted).await;
    }
}

/// Reads and judges the head; answers what is no WebSocket.
async fn handshake(
    context: &Context,
    mut stream: TcpStream,
    client: SocketAddr,
) -> Option<(TcpStream, Accept, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    let verdict = timeout(HEAD_LIMIT, read_head(context.sandboxed, &mut stream, &mut bytes)).await;
    let refusal = match verdict {
        Ok(Some(Verdict::Upgrade { head, accept })) => {
            bytes.drain(..head);
            return Some((stream, accept, bytes));
        }
        Ok(Some(Verdict::Refuse(refusal))) => refusal,
        Ok(Some(Verdict::Incomplete) | None) => return None,
        Err(_) => Refusal::Timeout,
    };
    refuse(context, stream, client, refusal).await;
    None
}

/// The first bytes of a stranger: read inside the sandbox only. None if the client went away.
async fn read_head(_: Sandboxed, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Verdict> {
    loop {
        // One byte more than a head may have, so that a longer one is seen as that.
        let room = (MAX_HEAD + 1).saturating_sub(bytes.len()).max(1) as u64;
        if (&mut *stream).take(room).read_buf(bytes).await.ok()? == 0 {
            return None;
        }
        match http::judge(bytes) {
            Verdict::Incomplete => {}
            verdict => return Some(verdict),
        }
    }
}

/// Answers and closes so that the answer arrives: a reset would take it from the client's hands.
async fn refuse(context: &Context, mut stream: TcpStream, client: SocketAddr, refusal: Refusal) {
    if context.log.allows() {
        tracing::info!(%client, reason = %refusal, "refused");
    }
    let answer = async {
        stream.write_all(refusal.response().as_bytes()).await?;
        linger(&mut stream, MAX_LINGER).await
    };
    // A client that does not take its answer gets none.
    let _ = timeout(FAREWELL_LIMIT, answer).await;
}

/// Says that nothing more comes, and reads what the client still sends, at most `limit` bytes,
/// until it closes too.
async fn linger(stream: &mut TcpStream, limit: usize) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut scrap = [0; 4096];
    let mut seen = 0;
    while seen < limit {
        match stream.read(&mut scrap).await? {
            0 => break,
            len => seen += len,
        }
    }
    Ok(())
}

async fn session(
    context: &Rc<Context>,
    mut stream: TcpStream,
    client: SocketAddr,
    accept: Accept,
    early: Vec<u8>,
    counted: Counted,
) {
    let port = match context.helper.open().await {
        Ok(port) => port,
        Err(error) => {
            if context.log.allows() {
                tracing::warn!(%client, reason = %error, "no port for a client");
            }
            return refuse(context, stream, client, Refusal::Unavailable).await;
        }
    };
    drop(counted);
    let (id, generation, lost, offloads) = (port.id, port.generation, port.lost, port.offloads);
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
    context.open.set(context.open.get() + 1);
    if context.log.allows() {
        tracing::info!(%client, port = name, sessions = context.open.get(), "client connected");
    }
    let dhcp = context.dhcp.as_ref().map(|dhcp| DhcpPort::open(dhcp, &context.log));
    let greeting = stream.write_all(accept.response().as_bytes()).await;
    let limit = |rate| Limiter::new(rate, context.rate_burst, started);
    let limits = (limit(context.rate_up), limit(context.rate_down));
    let shuttle = Shuttle::new(stream, tap, offloads, context.policy, dhcp, limits);
    let hold_back = if accept.is_vpn_ws { VPN_WS_HOLD_BACK } else { Duration::ZERO };
    let mut shutdown = context.shutdown.clone();
    let end = match greeting {
        Err(_) => End::Lost,
        Ok(()) => tokio::select! {
            end = shuttle.run(early, ws::Decoder::new(accept.is_vpn_ws), hold_back) => end,
            () = lost.notified() => End::PortLost,
            never = warn_of_text(context, &shuttle, client) => match never {},
            _ = shutdown.wait_for(|stop| *stop) => End::Shutdown,
        },
    };
    context.open.set(context.open.get() - 1);
    if context.log.allows() {
        let counters = &shuttle.counters;
        tracing::info!(
            %client, port = name, reason = %end, seconds = started.elapsed().as_secs(),
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
}

/// Says that a client sends text, which is no frame.
async fn warn_of_text(context: &Context, shuttle: &Shuttle, client: SocketAddr) -> Infallible {
    shuttle.text_came().await;
    if context.log.allows() {
        tracing::warn!(%client, "the client sends text messages, which are ignored: frames are binary");
    }
    // Once a session is enough; the line at its end has the number.
    std::future::pending().await
}

/// Sends what was begun and the close message, then waits for the client to close.
async fn say_goodbye(mut stream: TcpStream, waiting: Vec<u8>, end: End) {
    let Some(code) = end.close_code() else { return };
    let farewell = async {
        stream.write_all(&waiting).await?;
        stream.write_all(&ws::close(code)).await?;
        // Whatever a guest still had on the way, for as long as there is time.
        linger(&mut stream, usize::MAX).await
    };
    // A client that does not read its close message has lost it.
    let _ = timeout(FAREWELL_LIMIT, farewell).await;
}
