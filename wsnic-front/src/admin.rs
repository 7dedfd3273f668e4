//! The admin socket: orders of root, as HTTP with JSON, one on each connection.
//!
//! Only root can open the socket; what comes is still read with limits, so that a slip does no harm.
//!
//! | request | body | answer |
//! |---|---|---|
//! | PUT /material | certificates, keys and lists ([`Material`]) | 204; 422 and why not |
//! | GET /status | | what is open, what was refused, who is banned |
//! | GET /sessions | | a list of all that are open |
//! | DELETE /sessions/ID | | 204: it ends; 404 |
//! | DELETE /sessions/ID?ban=SECONDS | | the same, and its address is banned |
//! | DELETE /bans/ADDRESS | | 204: it may come again; 404 |

use crate::session::{Context, Door};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use wsnic_os::log::chain;
use wsnic_os::material::Material;
use wsnic_proto::Settings;

/// An order has this long, all in all.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one order at most.
const MAX_ORDER: usize = 32 * 1024 * 1024;

/// Takes orders until the task is dropped.
pub async fn serve(context: Rc<Context>, listener: UnixListener, settings: Settings) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = timeout(LIMIT, one_order(&context, stream, &settings)).await;
                if let Ok(Err(error)) = served {
                    tracing::debug!(%error, "an order on the admin socket came to nothing");
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept on the admin socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn one_order(
    context: &Context,
    mut stream: UnixStream,
    settings: &Settings,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let answer = loop {
        if let Some(answer) = answer(context, &bytes, settings) {
            break answer;
        }
        if bytes.len() > MAX_ORDER {
            break ("413 Content Too Large", "an order has 32 MiB at most".to_owned());
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let (status, body) = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The answer, when the order is complete.
fn answer(context: &Context, bytes: &[u8], settings: &Settings) -> Option<(&'static str, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(("400 Bad Request", "this is not HTTP/1.1".to_owned())),
    };
    let length =
        request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| str::from_utf8(header.value).ok()?.trim().parse().ok());
    let length: usize = length.unwrap_or(0);
    let body = bytes[head..].get(..length);
    match (request.method, request.path) {
        (Some("PUT"), Some("/material")) => body.map(|body| replace(context, body, settings)),
        (Some("GET"), Some("/status")) => Some(json(&status(context, settings))),
        (Some("GET"), Some("/sessions")) => Some(json(&context.sessions.rows())),
        (Some("DELETE"), Some(path)) => Some(delete(context, path)),
        _ => Some(("404 Not Found", "there is no such order in this version".to_owned())),
    }
}

fn json(value: &impl Serialize) -> (&'static str, String) {
    match serde_json::to_string(value) {
        Ok(text) => ("200 OK", text),
        Err(error) => ("500 Internal Server Error", error.to_string()),
    }
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

fn status(context: &Context, settings: &Settings) -> Status {
    let bans = context.addresses.bans(Instant::now()).into_iter();
    let bans = bans.map(|(address, left)| Ban { address, seconds: left.as_secs() });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        seconds: context.started.elapsed().as_secs(),
        sessions: context.sessions.len(),
        sessions_in_all: context.sessions.in_all(),
        max_clients: settings.max_clients(),
        refused: context.sessions.refusals(),
        bans: bans.collect(),
    }
}

fn delete(context: &Context, path: &str) -> (&'static str, String) {
    const DONE: &str = "204 No Content";
    let missing = |what: &str| ("404 Not Found", format!("there is no such {what}"));
    if let Some(address) = path.strip_prefix("/bans/") {
        let pardoned = address.parse().is_ok_and(|ip| context.addresses.pardon(ip, Instant::now()));
        return if pardoned { (DONE, String::new()) } else { missing("ban") };
    }
    let Some(rest) = path.strip_prefix("/sessions/") else { return missing("order") };
    let (id, query) = rest.split_once('?').unwrap_or((rest, ""));
    let seconds = query.strip_prefix("ban=").map(str::parse::<u32>);
    let Some(address) = id.parse().ok().and_then(|id| context.sessions.kick(id)) else {
        return missing("session");
    };
    match (seconds, address) {
        (None, _) => (DONE, String::new()),
        (Some(Ok(seconds)), Some(ip)) => {
            let time = Duration::from_secs(seconds.into());
            match context.addresses.ban(ip, time, Instant::now()) {
                true => (DONE, String::new()),
                false => ("409 Conflict", format!("{ip} is this machine's own: ended, not banned")),
            }
        }
        (Some(Ok(_)), None) => ("409 Conflict", "it has no address: ended, not banned".to_owned()),
        (Some(Err(_)), _) => ("400 Bad Request", "ban=SECONDS is no number".to_owned()),
    }
}

fn replace(context: &Context, body: &[u8], settings: &Settings) -> (&'static str, String) {
    let wrong = |text: String| ("422 Unprocessable Content", text);
    let material: Material = match serde_json::from_slice(body) {
        Ok(material) => material,
        // Without the text around the place, which may be a key's.
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            return wrong(format!("this is no material of this version ({place})"));
        }
    };
    let had_tls = context.door.borrow().tls.is_some();
    match Door::new(&material, settings) {
        Ok(door) if door.tls.is_some() != had_tls => {
            wrong("wss:// begins or ends at the next start only".to_owned())
        }
        Ok(door) => {
            *context.door.borrow_mut() = Rc::new(door);
            tracing::info!("new certificates and lists are in force, sessions go on");
            ("204 No Content", String::new())
        }
        Err(error) => wrong(chain(&error)),
    }
}
