//! The HTTP head of a connection, however it is cut into reads.

use crate::tape::Tape;
use tungstenite::handshake::derive_accept_key;
use wsnic_front::http::{MAX_HEAD, Refusal, Verdict, judge};

/// The verdict on a head does not depend on how it is cut into reads; a head beyond its limits is
/// refused; only what asks for a WebSocket gets one, only who asks for HTML the page; every answer is well-formed HTTP.
///
/// Input: a byte from which the lengths of the reads follow, then the head.
pub fn http_head(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let seed = tape.byte();
    let sent = tape.rest();
    let whole = read(sent, || usize::MAX);
    let mut step = u32::from(seed);
    let cut = read(sent, || {
        step = step.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        1 + (step >> 16) as usize % (1 + usize::from(seed) * 4)
    });
    assert_eq!(whole, cut, "reads of other lengths");
    if sent.len() <= 400 {
        assert_eq!(whole, read(sent, || 1), "reads of one byte");
    }
    match &whole {
        Verdict::Incomplete => assert!(sent.len() < MAX_HEAD),
        Verdict::Refuse(refusal) => check_refusal(*refusal),
        Verdict::Page { .. } => {
            let text = String::from_utf8_lossy(sent).to_ascii_lowercase();
            let is_get = text.trim_start().starts_with("get ");
            assert!(is_get || text.trim_start().starts_with("head "), "a page for GET and HEAD");
            assert!(text.contains("accept:") && text.contains("text/html"));
        }
        Verdict::Upgrade { head, accept } => {
            let (head, _) = sent.split_at(*head);
            check_upgrade(head, &accept.response());
        }
    }
}

/// The verdict on a client that sends `sent`, as the front-end reads: one byte more than a head may
/// have at most, a verdict asked for behind each read.
fn read(sent: &[u8], mut len_of_read: impl FnMut() -> usize) -> Verdict {
    let limit = sent.len().min(MAX_HEAD + 1);
    let mut seen = 0;
    while seen < limit {
        seen = seen.saturating_add(len_of_read()).min(limit);
        match judge(&sent[..seen]) {
            Verdict::Incomplete => {}
            verdict => return verdict,
        }
    }
    Verdict::Incomplete
}

/// What RFC 6455 §4.2.1 asks of a client, looked for in the plainest way.
fn check_upgrade(head: &[u8], response: &str) {
    assert!(head.len() <= MAX_HEAD);
    assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
    let text = head.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect::<String>();
    let mut lines = text.trim_start().lines();
    let request = lines.next().expect("a head has a first line");
    assert!(request.starts_with("get ") && request.ends_with(" http/1.1"), "{request}");
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    assert!(fields.len() <= 64, "{} fields", fields.len());
    let has = |name: &str, token: &str| {
        fields.iter().any(|(key, value)| key.trim() == name && value.contains(token))
    };
    assert!(has("upgrade", "websocket") && has("connection", "upgrade"));
    let is_vpn_ws = has("x-vpn-ws-mac", "");
    assert!(is_vpn_ws || has("sec-websocket-version", "13"));

    // Of the original bytes: a key is base64, in which case matters.
    let key = head
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            name.eq_ignore_ascii_case(b"sec-websocket-key").then(|| value[1..].trim_ascii())
        })
        .collect::<Vec<_>>();
    assert_eq!(key.len(), 1, "one key");
    assert!(is_vpn_ws || key[0].len() == 24, "16 bytes in base64");
    let binary = response.contains("Sec-WebSocket-Protocol: binary\r\n");
    assert!(!binary || has("sec-websocket-protocol", "binary"));
    let protocol = if binary { "Sec-WebSocket-Protocol: binary\r\n" } else { "" };
    assert_eq!(
        response,
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            derive_accept_key(key[0])
        )
    );
}

fn check_refusal(refusal: Refusal) {
    let response = refusal.response();
    let (head, body) = response.split_once("\r\n\r\n").expect("a head has an end");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 4")).expect("a status");
    assert!(status[..2].parse::<u8>().is_ok());
    let length = lines.clone().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
    assert!(lines.any(|line| line == "Connection: close"));
    let head_only = refusal == (Refusal::NotWebSocket { head_only: true });
    assert_eq!(body.len(), if head_only { 0 } else { length });
}
