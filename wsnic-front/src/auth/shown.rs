//! What a client shows of itself, and the secrets that may be in it.
//!
//! Pure. Browsers can set the address and the subprotocols of a WebSocket and nothing else, so
//! secrets are looked for in both, and in `Authorization` for programs.

use data_encoding::BASE64;

/// Texts that are looked at as tokens, all in all: each costs a hash.
const MAX_SECRETS: usize = 16;
/// Bytes of the longest name or password of basic authentication.
const MAX_BASIC: usize = 1024;
/// Bytes of a certificate's subject in the log.
const MAX_SUBJECT: usize = 128;
/// What precedes a token in a subprotocol.
const PROTOCOL_PREFIX: &str = "token.";

/// What a client shows of itself in its HTTP head and its TLS handshake.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The request's target as it was sent: `/path?query`.
    pub target: String,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `Origin`: browsers always send it.
    pub origin: Option<String>,
    /// The subprotocols that it offers.
    pub protocols: Vec<String>,
    /// The subject of a client certificate that was verified.
    pub certificate: Option<String>,
}

/// Without anything that may be a secret.
impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("origin", &self.origin)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Name and password, as a client shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// Of anything but `:`.
    pub name: String,
    /// Any bytes.
    pub password: Vec<u8>,
}

/// Says nothing.
impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").finish_non_exhaustive()
    }
}

impl Shown {
    /// Every text that may be a token, at most 16, those that are certainly meant so first.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, query),
            None => (self.target.as_str(), ""),
        };
        let bearer = self.scheme("bearer").map(|text| text.as_bytes().to_vec());
        let parameters = query.split('&').filter_map(|part| part.strip_prefix("token="));
        let protocols = self.protocols.iter();
        let protocols = protocols.filter_map(|part| part.trim().strip_prefix(PROTOCOL_PREFIX));
        bearer
            .into_iter()
            .chain(parameters.map(percent_decoded))
            .chain(protocols.map(|part| part.as_bytes().to_vec()))
            .chain(path.split('/').map(percent_decoded))
            .filter(|secret| !secret.is_empty())
            .take(MAX_SECRETS)
            .collect()
    }

    /// Name and password of `Authorization: Basic` (RFC 7617).
    pub fn basic(&self) -> Option<Basic> {
        let decoded = BASE64.decode(self.scheme("basic")?.as_bytes()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
        let name = std::str::from_utf8(name).ok()?;
        let fits = name.len() <= MAX_BASIC && password.len() <= MAX_BASIC;
        fits.then(|| Basic { name: name.to_owned(), password: password.to_vec() })
    }

    /// What follows the scheme in `Authorization` (RFC 9110 §11.4).
    fn scheme(&self, wanted: &str) -> Option<&str> {
        let (scheme, rest) = self.authorization.as_deref()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim())
    }
}

/// RFC 3986 §2.1; a `%` that begins no escape stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let escape = match (byte, bytes.as_slice_of_two()) {
            (b'%', Some([high, low])) => hex(high).zip(hex(low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                bytes.nth(1);
            }
            None => decoded.push(byte),
        }
    }
    decoded
}

trait SliceOfTwo {
    fn as_slice_of_two(&self) -> Option<[u8; 2]>;
}

impl SliceOfTwo for std::str::Bytes<'_> {
    fn as_slice_of_two(&self) -> Option<[u8; 2]> {
        let mut ahead = self.clone();
        Some([ahead.next()?, ahead.next()?])
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// An origin in the form of the option: lower case, without the scheme's own port.
pub fn normal_origin(origin: &str) -> String {
    let origin = origin.trim().to_ascii_lowercase();
    let port = match origin.split_once("://") {
        Some(("http", _)) => ":80",
        Some(("https", _)) => ":443",
        _ => "",
    };
    origin.strip_suffix(port).unwrap_or(&origin).to_owned()
}

/// A foreign name for the log: printable, at most 128 bytes.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().map(|letter| if is_printable(letter) { letter } else { '?' }) {
        if shown.len() + letter.len_utf8() > MAX_SUBJECT {
            break;
        }
        shown.push(letter);
    }
    shown
}

/// Neither a control character nor one that has no width or turns the direction of text.
pub fn is_printable(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(shown: &Shown) -> Vec<String> {
        shown.secrets().into_iter().map(|secret| String::from_utf8(secret).unwrap()).collect()
    }

    #[test]
    fn a_token_is_found_wherever_a_client_can_put_it() {
        let shown = Shown {
            target: "/a/b%2Fc/?x=1&token=q%20r&token=+".to_owned(),
            authorization: Some("bearer  H".to_owned()),
            protocols: vec!["binary".to_owned(), " token.P.x".to_owned()],
            ..Shown::default()
        };
        assert_eq!(texts(&shown), ["H", "q r", "+", "P.x", "a", "b/c"]);
    }

    #[test]
    fn a_path_of_thousand_parts_costs_no_more_than_sixteen() {
        let shown = Shown { target: "/x".repeat(1000) + "?token=t", ..Shown::default() };
        assert_eq!(shown.secrets().len(), MAX_SECRETS);
        assert_eq!(texts(&shown)[0], "t");
    }

    #[test]
    fn percent_signs_that_begin_no_escape_stand_for_themselves() {
        assert_eq!(percent_decoded("%41%4%%zz%c3%A4%"), "A%4%%zzä%".as_bytes());
    }

    #[test]
    fn basic_is_name_and_password_and_the_password_may_have_colons() {
        let with = |text: &str| Shown { authorization: Some(text.to_owned()), ..Shown::default() };
        let basic = with(&format!("BASIC {}", BASE64.encode(b"bob:a:b"))).basic().unwrap();
        assert_eq!((basic.name.as_str(), basic.password.as_slice()), ("bob", &b"a:b"[..]));
        assert!(with(&format!("Basic {}", BASE64.encode(b"bob"))).basic().is_none());
        assert!(with("Basic %%%").basic().is_none() && with("Basic").basic().is_none());
        let long = format!("bob:{}", "x".repeat(MAX_BASIC + 1));
        assert!(with(&format!("Basic {}", BASE64.encode(long.as_bytes()))).basic().is_none());
    }

    #[test]
    fn nothing_secret_is_in_the_debug_text() {
        let shown = Shown {
            target: "/SECRET?token=SECRET".to_owned(),
            authorization: Some(format!("Basic {}", BASE64.encode(b"SECRET:SECRET"))),
            protocols: vec!["token.SECRET".to_owned()],
            ..Shown::default()
        };
        let text = format!("{shown:?} {:?}", shown.basic().unwrap());
        assert!(!text.contains("SECRET") && !text.contains("U0VDUkVU"), "{text}");
    }

    #[test]
    fn foreign_names_are_printable_and_short() {
        assert_eq!(printable("CN=ä\n\u{202e}x"), "CN=ä??x");
        assert!(printable(&"ä".repeat(1000)).len() <= MAX_SUBJECT);
    }

    proptest! {
        #[test]
        fn anything_shown_is_looked_at_without_panic(
            target in ".{0,60}",
            authorization in proptest::option::of("(Basic|Bearer|x) .{0,40}"),
            protocols in proptest::collection::vec("(token.)?.{0,10}", 0..4),
            origin in ".{0,40}",
        ) {
            let shown = Shown { target, authorization, protocols, ..Shown::default() };
            prop_assert!(shown.secrets().len() <= MAX_SECRETS);
            let _ = shown.basic();
            let once = normal_origin(&origin);
            prop_assert!(once.len() <= origin.len() * 2);
        }
    }
}
