//! The HTTP head of a connection, and the plain answers to those that are no WebSocket.
//!
//! No I/O. Facts of a request go in, [`Verdict`] comes out; a request is a WebSocket upgrade on any
//! path and from any origin (RFC 6455 §4.2).

use crate::auth::Shown;
use data_encoding::BASE64;
use sha1::{Digest, Sha1};

/// Bytes of the longest head.
pub const MAX_HEAD: usize = 8 * 1024;
/// Header lines of a head.
const MAX_HEADERS: usize = 64;
/// RFC 6455 §1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The head is not complete.
    Incomplete,
    /// Open a session: `head` bytes of the input belong to the request, the rest to the WebSocket.
    Upgrade {
        /// Bytes of the head.
        head: usize,
        /// What to answer when the session is open.
        accept: Accept,
    },
    /// A browser looks at the address: it may get a page.
    Page {
        /// HEAD: the answer has no body.
        head_only: bool,
    },
    /// Answer and close.
    Refuse(Refusal),
}

/// What a proxy says of the client that it speaks for; nobody else is believed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// X-Forwarded-For, all of them: each proxy adds the address that it sees at the end.
    pub chain: Vec<String>,
    /// X-Real-IP.
    pub real_ip: Option<String>,
}

/// An upgrade that was agreed.
#[derive(Debug, PartialEq, Eq)]
pub struct Accept {
    /// Sec-WebSocket-Accept (RFC 6455 §4.2.2).
    key: String,
    /// Whether the subprotocol `binary` was offered.
    binary: bool,
    /// What the client shows of itself.
    pub shown: Shown,
    /// For whom a proxy says that it speaks.
    pub forwarded: Forwarded,
    /// A vpn-ws-client: sends unmasked pings, and loses what comes in one packet with the 101.
    pub is_vpn_ws: bool,
}

impl Accept {
    /// The 101 answer.
    pub fn response(&self) -> String {
        let protocol = if self.binary { "Sec-WebSocket-Protocol: binary\r\n" } else { "" };
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            self.key
        )
    }
}

/// Why a request gets no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something else looking at the address.
    #[error("not a WebSocket request")]
    NotWebSocket {
        /// HEAD: the answer has no body.
        head_only: bool,
    },
    /// Not HTTP, or a WebSocket handshake that is wrong.
    #[error("{0}")]
    BadRequest(&'static str),
    /// Anything but GET and HEAD.
    #[error("method not allowed")]
    Method,
    /// Another version of the WebSocket protocol.
    #[error("WebSocket version other than 13")]
    Version,
    /// Head longer than [`MAX_HEAD`] or with more than 64 lines.
    #[error("request head too large")]
    HeadTooLarge,
    /// The head did not come in time.
    #[error("request head took too long")]
    Timeout,
    /// Not for this client: no proof, a wrong one, a page that may not, a ban. Which, it is not told.
    #[error("forbidden")]
    Forbidden,
    /// This address, or this proof, has as many clients as it may have, or comes too often.
    #[error("too many clients of one kind")]
    TooMany,
    /// The path leads nowhere.
    #[error("the path leads to no network")]
    NotFound,
    /// No port can be had.
    #[error("no port for a guest is free at the moment")]
    Unavailable,
}

impl Refusal {
    /// One word for counters.
    pub fn kind(self) -> &'static str {
        match self {
            Refusal::NotWebSocket { .. } => "not_websocket",
            Refusal::BadRequest(_) | Refusal::Method | Refusal::Version | Refusal::HeadTooLarge => {
                "bad_request"
            }
            Refusal::Timeout => "timeout",
            Refusal::Forbidden => "forbidden",
            Refusal::TooMany => "too_many",
            Refusal::NotFound => "not_found",
            Refusal::Unavailable => "unavailable",
        }
    }

    /// The whole answer; the connection is closed behind it.
    pub fn response(self) -> String {
        let (status, headers) = match self {
            Refusal::NotWebSocket { .. } => ("426 Upgrade Required", "Upgrade: websocket\r\n"),
            Refusal::Version => {
                ("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
            }
            Refusal::BadRequest(_) => ("400 Bad Request", ""),
            Refusal::Method => ("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
            Refusal::HeadTooLarge => ("431 Request Header Fields Too Large", ""),
            Refusal::Timeout => ("408 Request Timeout", ""),
            Refusal::Forbidden => ("403 Forbidden", ""),
            Refusal::NotFound => ("404 Not Found", ""),
            Refusal::TooMany => ("429 Too Many Requests", "Retry-After: 10\r\n"),
            Refusal::Unavailable => ("503 Service Unavailable", "Retry-After: 10\r\n"),
        };
        let (kind, body) = match self {
            Refusal::NotWebSocket { .. } => ("text/html; charset=utf-8", PAGE.to_owned()),
            other => ("text/plain; charset=utf-8", format!("wsnic: {other}\n")),
        };
        let shown = if self == (Refusal::NotWebSocket { head_only: true }) { "" } else { &body };
        format!(
            "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\n\r\n{shown}",
            body.len()
        )
    }
}

const PAGE: &str = "<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>wsnic</title>
<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em}</style>
<h1>wsnic</h1>
<p>This is a WebSocket server: it puts emulated machines onto a network.
It has nothing to show a browser.
<p>If you came here by <b>https</b> to test the certificate: the TLS test succeeded.
<p>To use it, put this page's address into the emulator's network setting (in v86: <i>Networking proxy</i>),
with <code>ws://</code> in place of <code>http://</code>, or <code>wss://</code> in place of <code>https://</code>.
";

/// Looks at what a client has sent so far.
pub fn judge(bytes: &[u8]) -> Verdict {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    match request.parse(head) {
        Ok(httparse::Status::Complete(len)) => match upgrade(&request) {
            Ok(accept) => Verdict::Upgrade { head: len, accept },
            Err(Refusal::NotWebSocket { head_only }) if wants_html(&request) => {
                Verdict::Page { head_only }
            }
            Err(refusal) => Verdict::Refuse(refusal),
        },
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            Verdict::Refuse(Refusal::HeadTooLarge)
        }
        Ok(httparse::Status::Partial) => Verdict::Incomplete,
        Err(httparse::Error::TooManyHeaders) => Verdict::Refuse(Refusal::HeadTooLarge),
        Err(_) => Verdict::Refuse(Refusal::BadRequest("this is not HTTP/1.1")),
    }
}

fn upgrade(request: &httparse::Request<'_, '_>) -> Result<Accept, Refusal> {
    let head_only = request.method == Some("HEAD");
    if !head_only && request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    let wants =
        has_token(request, "upgrade", "websocket") && has_token(request, "connection", "upgrade");
    if head_only || !wants || request.version != Some(1) {
        return Err(Refusal::NotWebSocket { head_only });
    }
    // vpn-ws-client names its MAC, sends no version and a key of another length.
    let is_vpn_ws = value(request, "x-vpn-ws-mac").is_some();
    match value(request, "sec-websocket-version") {
        Some(b"13") => {}
        None if is_vpn_ws => {}
        None => return Err(Refusal::BadRequest("Sec-WebSocket-Version is missing")),
        Some(_) => return Err(Refusal::Version),
    }
    let key = value(request, "sec-websocket-key")
        .filter(|key| !key.is_empty())
        .ok_or(Refusal::BadRequest("Sec-WebSocket-Key is missing"))?;
    let is_nonce = BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    if !is_vpn_ws && !is_nonce {
        return Err(Refusal::BadRequest("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let binary = has_token(request, "sec-websocket-protocol", "binary");
    let shown = Shown {
        target: request.path.unwrap_or_default().to_owned(),
        origin: text(request, "origin"),
        authorization: text(request, "authorization"),
        protocols: list(request, "sec-websocket-protocol"),
        certificate: None,
    };
    let forwarded =
        Forwarded { chain: list(request, "x-forwarded-for"), real_ip: text(request, "x-real-ip") };
    Ok(Accept { key: BASE64.encode(&digest), binary, shown, forwarded, is_vpn_ws })
}

/// Whether the client is a browser with a person behind it: it asks for HTML by name (RFC 9110
/// §12.5.1), where programs ask for anything.
fn wants_html(request: &httparse::Request<'_, '_>) -> bool {
    let accept = list(request, "accept");
    accept.iter().any(|item| {
        let kind = item.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("text/html")
    })
}

/// The only value of a header, without white space around it. None if it is missing or repeated.
fn value<'b>(request: &httparse::Request<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let mut values = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let first = values.next()?;
    values.next().is_none().then(|| first.value.trim_ascii())
}

fn text(request: &httparse::Request<'_, '_>, name: &str) -> Option<String> {
    value(request, name).and_then(|value| str::from_utf8(value).ok()).map(str::to_owned)
}

/// All items of a header's list, of all its lines, in order.
fn list(request: &httparse::Request<'_, '_>, name: &str) -> Vec<String> {
    let headers = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let texts = headers.filter_map(|header| str::from_utf8(header.value).ok());
    let items = texts.flat_map(|text| text.split(',')).map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// True if a header's list has this token (RFC 9110 §5.6.1), ignoring case.
fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    let headers = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    headers
        .flat_map(|header| header.value.split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "GET /any/path?token=x HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n";

    fn refusal(text: &str) -> Refusal {
        match judge(text.as_bytes()) {
            Verdict::Refuse(refusal) => refusal,
            other => panic!("{text} gave {other:?}"),
        }
    }

    fn accept(text: &str) -> Accept {
        match judge(text.as_bytes()) {
            Verdict::Upgrade { accept, .. } => accept,
            other => panic!("{text} gave {other:?}"),
        }
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted_with_its_answer() {
        let request = format!("{GOOD}\r\nrest");
        let Verdict::Upgrade { head, accept } = judge(request.as_bytes()) else { panic!() };
        assert_eq!(&request[head..], "rest");
        let response = accept.response();
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!response.contains("Protocol:") && response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn the_subprotocol_binary_is_echoed_when_offered() {
        let offered = accept(&format!("{GOOD}Sec-WebSocket-Protocol: base64, Binary\r\n\r\n"));
        assert!(offered.response().contains("Sec-WebSocket-Protocol: binary\r\n"));
        let other = accept(&format!("{GOOD}Sec-WebSocket-Protocol: chat\r\n\r\n"));
        assert!(!other.response().contains("Sec-WebSocket-Protocol"));
    }

    #[test]
    fn a_vpn_ws_client_needs_no_version_and_no_proper_key() {
        let head = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: 0123456789\r\n";
        assert!(accept(&format!("{head}X-vpn-ws-MAC: aa:bb:cc:dd:ee:ff\r\n\r\n")).is_vpn_ws);
        assert!(matches!(refusal(&format!("{head}\r\n")), Refusal::BadRequest(_)));
    }

    #[test]
    fn who_does_not_get_the_page_is_told_that_tls_works() {
        let response = refusal("GET / HTTP/1.1\r\nHost: h\r\n\r\n").response();
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"));
        assert!(
            response.contains("Connection: close\r\n") && response.contains("TLS test succeeded")
        );
        let head = refusal("HEAD / HTTP/1.1\r\n\r\n").response();
        assert!(head.contains("Content-Length: ") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_browser_that_asks_for_html_is_to_get_the_page_and_a_program_is_not() {
        let judged = |line: &str, accept: &str| {
            judge(format!("{line} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n").as_bytes())
        };
        let browser = "application/xhtml+xml, Text/HTML;q=0.9,*/*;q=0.8";
        assert_eq!(judged("GET /?token=x", browser), Verdict::Page { head_only: false });
        assert_eq!(judged("HEAD /any/path", "text/html"), Verdict::Page { head_only: true });
        assert_eq!(judged("POST /", browser), Verdict::Refuse(Refusal::Method));
        for accept in ["*/*", "text/*", "text/html2", "application/json", ""] {
            let refused = Verdict::Refuse(Refusal::NotWebSocket { head_only: false });
            assert_eq!(judged("GET /", accept), refused, "{accept}");
        }
        let upgrade = format!("{GOOD}Accept: text/html\r\n\r\n");
        assert!(matches!(judge(upgrade.as_bytes()), Verdict::Upgrade { .. }));
    }

    #[test]
    fn what_is_no_get_or_no_http_is_refused_with_its_status() {
        assert_eq!(refusal("POST / HTTP/1.1\r\n\r\n"), Refusal::Method);
        assert!(matches!(refusal("\x16\x03\x01\x02\r\n\r\n"), Refusal::BadRequest(_)));
        assert_eq!(refusal(&GOOD.replace("13", "8").add_end()), Refusal::Version);
        assert!(matches!(
            refusal(&GOOD.replace("HTTP/1.1", "HTTP/1.0").add_end()),
            Refusal::NotWebSocket { .. }
        ));
        assert!(matches!(
            refusal(&GOOD.replace("dGhl", "dGhlx").add_end()),
            Refusal::BadRequest(_)
        ));
    }

    #[test]
    fn heads_of_more_than_8_kib_or_64_lines_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(refusal(&long), Refusal::HeadTooLarge);
        assert_eq!(judge(&long.as_bytes()[..MAX_HEAD - 1]), Verdict::Incomplete);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert_eq!(refusal(&many), Refusal::HeadTooLarge);
        let enough = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(64));
        assert!(matches!(refusal(&enough), Refusal::NotWebSocket { .. }));
    }

    trait AddEnd {
        fn add_end(self) -> String;
    }
    impl AddEnd for String {
        fn add_end(self) -> String {
            self + "\r\n"
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = judge(&bytes);
        }

        #[test]
        fn a_head_is_incomplete_until_its_last_byte(cut in 0usize..200) {
            let request = format!("{GOOD}\r\n");
            if cut < request.len() {
                prop_assert_eq!(judge(&request.as_bytes()[..cut]), Verdict::Incomplete);
            }
        }
    }
}
