//! The token file, and who comes in by it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use wsnic_front::auth::{Auth, Judgement, Method, Shown, Source, Sources};
use wsnic_proto::conf::{Layer, Origin};
use wsnic_proto::settings::Door;
use wsnic_proto::token_file::{self, Fault, is_name};
use wsnic_proto::{ConfFile, Facts, resolve};

/// A file is taken with names and hashes that are all different, or refused with its name, a line of
/// it, and no word that stands there; line ends and comments mean nothing. Exactly who shows a secret
/// of the file comes in, from an allowed page or from none, until the token expires.
///
/// Input: a line each for target, `Authorization`, `Origin` and a subprotocol, then a file.
pub fn token(bytes: &[u8]) {
    let mut parts = bytes.splitn(5, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (target, authorization, origin, protocol) = (line(), line(), line(), line());
    file(parts.next().unwrap_or_default());
    let given = |text: String| (!text.is_empty()).then_some(text);
    judge(&Shown {
        target,
        authorization: given(authorization),
        origin: given(origin),
        protocols: given(protocol).into_iter().collect(),
        certificate: None,
    });
}

const NAME: &str = "etc/tokens";

fn file(content: &[u8]) {
    let outcome = token_file::parse(NAME, content);
    match &outcome {
        Ok(tokens) => {
            assert!(tokens.iter().all(|token| is_name(&token.name)));
            let names: HashSet<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
            let hashes: HashSet<[u8; 32]> = tokens.iter().map(|token| token.hash).collect();
            assert_eq!((names.len(), hashes.len()), (tokens.len(), tokens.len()));
        }
        Err(error) => {
            let Origin::File { name, line } = &error.origin else { panic!("{error:?}") };
            let line =
                content.split(|byte| *byte == b'\n').nth(line - 1).expect("a line of the file");
            assert_eq!(name, NAME);
            let (text, debug) = (error.fault.to_string(), format!("{:?}", error.fault));
            let vocabulary = vocabulary();
            for word in String::from_utf8_lossy(line).split_whitespace() {
                let is_own = word.chars().count() < 6 || vocabulary.contains(word);
                assert!(is_own || !text.contains(word) && !debug.contains(word), "{text}");
            }
        }
    }
    let joined = content.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    let commented = [content, b"\n# comment\r\n\t# comment"].concat();
    for same in [joined, commented] {
        assert_eq!(token_file::parse(NAME, &same), outcome);
    }
}

/// What errors say of themselves.
fn vocabulary() -> String {
    let mut faults = vec![
        Fault::NotUtf8,
        Fault::Name,
        Fault::Hash,
        Fault::Word(0),
        Fault::Network,
        Fault::Expires,
        Fault::SameName(0),
        Fault::SameSecret(0),
    ];
    for key in KEYS {
        faults.extend([Fault::Twice(key), Fault::Number(key, 0), Fault::Number(key, 1)]);
    }
    faults.iter().map(|fault| format!("{fault} {fault:?} ")).collect()
}

const KEYS: [&str; 8] = [
    "network",
    "expires",
    "max_clients",
    "rate_up_bytes",
    "rate_up_frames",
    "rate_down_bytes",
    "rate_down_frames",
    "session_time",
];

/// Whose secrets are `alice` and `b/c.d`; that of `carol`, who is late, is `late`. By sha256sum(1).
const TOKENS: &str = "\
alice sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90
bob sha256:f696bf622bf50e7cd16747f1d4d25f10640f89c5b38a72d8a6b8842ae2067de6
carol sha256:089001a35679a33ef3db0ca350db9b9a2f0136e0e327577b04b3b98127470961 expires=2026-12-31
";
const PAGE: &str = "https://example.org";

fn judge(shown: &Shown) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (settings, _) = resolve(&ConfFile::default(), &Layer::new(), &Facts::default())
        .expect("the defaults are settings");
    let path = PathBuf::from("f");
    let source = Source { path: path.clone(), text: TOKENS.as_bytes().to_vec() };
    let sources = Sources { tokens: Some(source), ..Sources::default() };
    let door =
        Door { token_file: Some(path), allowed_origins: vec![PAGE.to_owned()], ..settings.door };
    let auth = Auth::new(&sources, &door, None).expect("the file is good");
    let unseen = Shown { origin: None, ..shown.clone() };
    assert!(!format!("{unseen:?}").contains("alice"), "a secret is in the log");
    let secrets = secrets(shown);
    let holder = |secret: &str| secrets.iter().any(|shown| shown == secret.as_bytes());
    let page = shown.origin.as_deref().map(|origin| origin.trim().to_ascii_lowercase());
    let page = page.as_deref().map(|page| page.strip_suffix(":443").unwrap_or(page));
    let may = (holder("alice") || holder("b/c.d")) && page.is_none_or(|page| page == PAGE);
    match auth.judge(shown, now) {
        Judgement::Welcome(identity) => {
            assert!(may, "{:?} came in", identity.name);
            assert_eq!(identity.method, Method::Token);
        }
        // So many that not all are looked at.
        Judgement::Refused(_) => assert!(!may || secrets.len() > 16),
        Judgement::AskPassword(_) => panic!("there are no passwords"),
    }
}

/// Everything that may be a token: the model.
fn secrets(shown: &Shown) -> Vec<Vec<u8>> {
    let (path, query) = shown.target.split_once('?').unwrap_or((&shown.target, ""));
    let mut found: Vec<Vec<u8>> = path.split('/').map(decoded).collect();
    for parameter in query.split('&') {
        if let Some(("token", value)) = parameter.split_once('=') {
            found.push(decoded(value));
        }
    }
    for protocol in &shown.protocols {
        if let Some(token) = protocol.trim().strip_prefix("token.") {
            found.push(token.as_bytes().to_vec());
        }
    }
    if let Some((scheme, rest)) =
        shown.authorization.as_deref().and_then(|text| text.trim().split_once(' '))
        && scheme.to_lowercase() == "bearer"
    {
        found.push(rest.trim().as_bytes().to_vec());
    }
    found.retain(|secret| !secret.is_empty());
    found
}

/// Each `%` with two digits behind it is a byte.
fn decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut decoded) = (text.as_bytes(), Vec::new());
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..2).filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let byte = digits
            .filter(|_| *first == b'%')
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    decoded
}
