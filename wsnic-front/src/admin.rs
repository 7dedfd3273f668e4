//! The admin socket: orders of root, as HTTP with JSON, one on each connection.
//!
//! Only root can open the socket; what comes is still read with limits, so that a slip does no harm.
//!
//! | request | body | answer |
//! |---|---|---|
//! | PUT /material | certificates, keys and lists ([`Material`]) | 204; 422 and why not |
//! | GET /status | | what is open, what was refused, who is banned |
//! | GET /networks | | a list of all networks |
//! | GET /sessions | | a list of all that are open |
//! | GET /sessions/ID | | one of them; 404 |
//! | GET /sessions/ID/frames | | what never reaches the bridge, see [`frames`]; 404; 503: [`MAX_WATCHERS`] |
//! | DELETE /sessions/ID | | 204: it ends; 404 |
//! | DELETE /sessions/ID?ban=SECONDS | | the same, and its address is banned; 400: nothing is done |
//! | DELETE /bans/ADDRESS | | 204: it may come again; 404 |
//! | GET /metrics, /healthz, /readyz | | see [`crate::monitor`] |

use crate::monitor::Monitor;
use crate::networks;
use crate::session::{Context, Door};
use crate::small_http::{self, Answer, Request};
use crate::watchers::Sighting;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wsnic_os::log::chain;
use wsnic_os::material::Material;
use wsnic_proto::Settings;

/// Orders at a time; more wait.
pub const MAX_ORDERS: usize = 32;
/// Those who look at frames at a time; more are refused.
pub const MAX_WATCHERS: usize = 32;
/// An order has this long, all in all; but for frames, which are shown until the session ends.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one order at most.
const MAX_ORDER: usize = 32 * 1024 * 1024;

/// Behind a session: its frames that never reach the bridge.
const FRAMES: &str = "/frames";

/// Who gives orders to whom.
pub struct Admin {
    /// What the orders are about.
    pub context: Rc<Context>,
    /// As the front-end was started.
    pub settings: Settings,
    /// What a monitoring system asks.
    pub monitor: Rc<Monitor>,
}

/// A session as in /sessions, its frames, and the place of who looks at them.
type Watched<'a> = (Vec<u8>, Receiver<Sighting>, SemaphorePermit<'a>);

/// Takes orders until the task is dropped.
pub async fn serve(admin: Admin, listener: UnixListener) {
    let (admin, room) = (Rc::new(admin), Arc::new(Semaphore::new(MAX_ORDERS)));
    let watchers = Arc::new(Semaphore::new(MAX_WATCHERS));
    // They end with this task.
    let mut orders = JoinSet::new();
    loop {
        while orders.try_join_next().is_some() {}
        // It is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (admin, watchers) = (Rc::clone(&admin), Arc::clone(&watchers));
                orders.spawn_local(async move {
                    let served = async {
                        let (stream, watched) = admin.one_order(stream, &watchers).await?;
                        drop(permit);
                        match watched {
                            Some((row, seen, _place)) => frames(stream, &row, seen).await,
                            None => Ok(()),
                        }
                    };
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "an order on the admin socket came to nothing");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept on the admin socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Admin {
    /// Answers; but for who is to see frames, who is given back with what there is to be seen.
    async fn one_order<'a>(
        &self,
        mut stream: UnixStream,
        watchers: &'a Semaphore,
    ) -> io::Result<(UnixStream, Option<Watched<'a>>)> {
        let answered = async {
            let answer = match small_http::receive(&mut stream, MAX_ORDER).await? {
                Ok(request) => match self.watched(&request, watchers) {
                    Some(Ok(watched)) => return Ok(Some(watched)),
                    Some(Err(answer)) => answer,
                    None => self.answer(&request).await,
                },
                Err(answer) => answer,
            };
            answer.send(&mut stream, false).await.map(|()| None)
        };
        let watched = timeout(LIMIT, answered).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok((stream, watched))
    }

    async fn answer(&self, request: &Request) -> Answer {
        let (context, target) = (&self.context, &*request.target);
        match &*request.method {
            "PUT" if target == "/material" => self.replace(&request.body),
            "GET" => match target {
                "/status" => Answer::json(&self.status()),
                "/networks" => Answer::json(&self.networks().await),
                "/sessions" => Answer::made_json(context.sessions.json().await),
                target => match self.monitor.answer(target).await {
                    Some(answer) => answer,
                    None => self.session(target.strip_suffix(FRAMES).unwrap_or(target)),
                },
            },
            "DELETE" => self.delete(target),
            _ => missing("order in this version"),
        }
    }

    /// All networks, the default first.
    async fn networks(&self) -> Vec<networks::Row<'_>> {
        let context = &self.context;
        let (totals, rooms) = (context.sessions.totals().await, context.sessions.rooms().await);
        let networks = context.networks.iter();
        networks
            .map(|network| {
                let number = &network.number;
                let totals = totals.get(number).copied().unwrap_or_default();
                network.row(totals, rooms.get(number).copied().unwrap_or_default())
            })
            .collect()
    }

    /// One session.
    fn session(&self, target: &str) -> Answer {
        match id_in(target).map(|id| self.context.sessions.get(id)) {
            Some(Some(session)) => Answer::json(&session.row(Instant::now())),
            Some(None) => missing("session"),
            None => missing("order in this version"),
        }
    }

    /// The session whose frames are asked for, and those; or why nobody else can look at any.
    fn watched<'a>(
        &self,
        request: &Request,
        watchers: &'a Semaphore,
    ) -> Option<Result<Watched<'a>, Answer>> {
        let target = request.target.strip_suffix(FRAMES).filter(|_| request.method == "GET")?;
        let session = self.context.sessions.get(id_in(target)?)?;
        let row = serde_json::to_vec(&session.row(Instant::now())).ok()?;
        let Ok(place) = watchers.try_acquire() else {
            let text = format!(
                "there are {MAX_WATCHERS} who look at frames, and there is room for no more: end one, \
                 such as a `wsnic capture`, and try again\n"
            );
            return Some(Err(Answer::text("503 Service Unavailable", text)));
        };
        Some(Ok((row, session.counters().watchers.join(), place)))
    }

    fn status(&self) -> Status {
        let context = &self.context;
        let bans = context.addresses.bans(Instant::now()).into_iter();
        let bans = bans.map(|(address, left)| Ban { address, seconds: left.as_secs() });
        Status {
            version: env!("CARGO_PKG_VERSION"),
            seconds: context.started.elapsed().as_secs(),
            sessions: context.sessions.len(),
            sessions_in_all: context.sessions.in_all(),
            max_clients: self.settings.max_clients(),
            refused: context.sessions.refusals(),
            bans: bans.collect(),
        }
    }

    fn delete(&self, target: &str) -> Answer {
        let context = &self.context;
        if let Some(address) = target.strip_prefix("/bans/") {
            let now = Instant::now();
            let pardoned = address.parse().is_ok_and(|ip| context.addresses.pardon(ip, now));
            return if pardoned { Answer::done() } else { missing("ban") };
        }
        // All of it is understood before anything is done: a slip is no order.
        let (session, query) = match target.split_once('?') {
            Some((session, query)) => (session, Some(query)),
            None => (target, None),
        };
        let seconds = |query: &str| query.strip_prefix("ban=")?.parse::<u32>().ok();
        let seconds = match query.map(seconds) {
            Some(None) => {
                let text =
                    "nothing is done: ?ban=SECONDS is all that may be said, a whole number\n";
                return Answer::text("400 Bad Request", text);
            }
            Some(seconds) => seconds,
            None => None,
        };
        let Some(address) = id_in(session).and_then(|id| context.sessions.kick(id)) else {
            return missing("session");
        };
        let conflict = |text: String| Answer::text("409 Conflict", text);
        match (seconds, address) {
            (None, _) => Answer::done(),
            (Some(seconds), Some(ip)) => {
                let time = Duration::from_secs(seconds.into());
                match context.addresses.ban(ip, time, Instant::now()) {
                    true => Answer::done(),
                    false => conflict(format!("{ip} is this machine's own: ended, not banned")),
                }
            }
            (Some(_), None) => conflict("it has no address: ended, not banned".to_owned()),
        }
    }

    fn replace(&self, body: &[u8]) -> Answer {
        let wrong = |text: String| Answer::text("422 Unprocessable Content", text);
        let material: Material = match serde_json::from_slice(body) {
            Ok(material) => material,
            // Without the text around the place, which may be a key's.
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                return wrong(format!("this is no material of this version ({place})"));
            }
        };
        let had_tls = self.context.door.borrow().tls.is_some();
        match Door::new(&material, &self.settings) {
            Ok(door) if door.tls.is_some() != had_tls => {
                wrong("wss:// begins or ends at the next start only".to_owned())
            }
            Ok(door) => {
                *self.context.door.borrow_mut() = Rc::new(door);
                tracing::info!("new certificates and lists are in force, sessions go on");
                Answer::done()
            }
            Err(error) => wrong(chain(&error)),
        }
    }
}

/// Shows the frames of a session that never reach the bridge, until it ends or nobody listens.
///
/// The answer has no length. First comes the session as in /sessions and a line feed. Then, of each
/// frame: 1 from the guest or 0 to it, one byte; nanoseconds since 1970, eight bytes; its length, four
/// bytes; the frame. Numbers are big-endian.
async fn frames(
    mut stream: UnixStream,
    row: &[u8],
    mut seen: Receiver<Sighting>,
) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&[row, b"\n"].concat()).await?;
    let (mut reader, mut writer) = stream.into_split();
    let left = async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await };
    let shown = async move {
        while let Some(Sighting { from_guest, time, frame }) = seen.recv().await {
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            let len = frame.len() as u32;
            let head = [&[u8::from(from_guest)][..], &time.to_be_bytes(), &len.to_be_bytes()];
            writer.write_all(&[&head.concat(), &frame[..]].concat()).await?;
        }
        writer.shutdown().await
    };
    tokio::select! {
        ended = shown => ended,
        left = left => left.map(drop),
    }
}

/// The number in `/sessions/NUMBER`.
fn id_in(target: &str) -> Option<u64> {
    target.strip_prefix("/sessions/")?.parse().ok()
}

fn missing(what: &str) -> Answer {
    Answer::text("404 Not Found", format!("there is no such {what}"))
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    seconds: u64,
    sessions: usize,
    sessions_in_all: u64,
    max_clients: u32,
    refused: BTreeMap<&'static str, u64>,
    bans: Vec<Ban>,
}

#[derive(Serialize)]
struct Ban {
    address: IpAddr,
    seconds: u64,
}
