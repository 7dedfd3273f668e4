//! The file of tokens: who may come in by which secret, and what applies to him.
//!
//! Read by the front-end, written to by `wsnic token`. Pure. The secrets are not in the file but
//! their SHA-256, and neither is ever in an error: a secret may stand where a name is expected.
//!
//! ```text
//! # NAME  sha256:HEX  settings
//! alice sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 max_clients=2
//! ```

use crate::conf::Origin;
use crate::settings::{NetworkName, Rate};
use crate::time::end_of;
use std::collections::HashMap;

/// Bytes of the longest name.
pub const MAX_NAME: usize = 64;

/// One token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Letters, digits and signs, for the log.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The network that its holder comes into; None: the one that he asks for.
    pub network: Option<NetworkName>,
    /// What applies to its holder.
    pub limits: Limits,
    /// Seconds since 1970 from which on it is worth nothing; None: never.
    pub expires: Option<u64>,
}

/// Without the hash.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("network", &self.network)
            .field("limits", &self.limits)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What applies to one who came in by a proof, beyond the general settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// His clients at the same time; 0: no limit.
    pub max_clients: u32,
    /// What he may send.
    pub rate_up: OwnRate,
    /// What he may get.
    pub rate_down: OwnRate,
    /// Seconds that a session of his may last, at least 1; None: as for all.
    pub session_time: Option<u32>,
}

/// A rate of one's own; where a part is missing the general one applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnRate {
    /// Bytes a second; 0: no limit.
    pub bytes: Option<u32>,
    /// Frames a second; 0: no limit.
    pub frames: Option<u32>,
}

impl OwnRate {
    /// This, and `general` for what is missing.
    pub fn over(self, general: Rate) -> Rate {
        Rate {
            bytes: self.bytes.unwrap_or(general.bytes),
            frames: self.frames.unwrap_or(general.frames),
        }
    }
}

/// What is wrong with a file of tokens. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {fault}")]
pub struct TokenFileError {
    /// File and line.
    pub origin: Origin,
    /// What about the line, and what to do.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Some other encoding.
    #[error("this is not UTF-8: save the file as UTF-8")]
    NotUtf8,
    /// No name.
    #[error("a line begins with a name of at most {MAX_NAME} letters, digits and . _ - @ +")]
    Name,
    /// No hash.
    #[error(
        "behind the name comes sha256: and the 64 hexadecimal digits of the secret's SHA-256; \
         `wsnic token NAME` prints such a line"
    )]
    Hash,
    /// A word that is no setting.
    #[error(
        "word {0} is no setting; there are network, max_clients, rate_up_bytes, rate_up_frames, \
         rate_down_bytes, rate_down_frames, session_time and expires, each with = and its value"
    )]
    Word(usize),
    /// A setting twice.
    #[error("{0} is set twice: remove one")]
    Twice(&'static str),
    /// No number.
    #[error("{0} needs a whole number from {1} to 4294967295")]
    Number(&'static str, u32),
    /// No name of a network.
    #[error("network needs the name of one, as in [network NAME]; without it the path decides")]
    Network,
    /// No date.
    #[error(
        "expires needs a day such as 2027-01-31 (the last, UTC) or a moment such as \
         2027-01-31T12:00:00Z"
    )]
    Expires,
    /// A name again.
    #[error("line {0} has the same name: give each token a name of its own")]
    SameName(usize),
    /// A hash again.
    #[error("line {0} has the same secret: make another with `wsnic token NAME`")]
    SameSecret(usize),
}

/// Every token of the file called `name`, in its order. `#` begins a comment, at the beginning of a
/// line or behind white space; a byte order mark and CR LF are tolerated.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(name: &str, content: &[u8]) -> Result<Vec<Token>, TokenFileError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut tokens: Vec<Token> = Vec::new();
    let (mut names, mut hashes) = (HashMap::new(), HashMap::new());
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line_number = index + 1;
        let origin = Origin::File { name: name.to_owned(), line: line_number };
        let error = |fault| TokenFileError { origin: origin.clone(), fault };
        let line = std::str::from_utf8(line).map_err(|_| error(Fault::NotUtf8))?;
        let Some(token) = token(line).map_err(error)? else { continue };
        if let Some(first) = names.insert(token.name.clone(), line_number) {
            return Err(error(Fault::SameName(first)));
        }
        if let Some(first) = hashes.insert(token.hash, line_number) {
            return Err(error(Fault::SameSecret(first)));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// True if a token may be called so.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte))
}

/// The token of a line; None if there is nothing but a comment.
fn token(line: &str) -> Result<Option<Token>, Fault> {
    let mut words = line.split_ascii_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(name) = words.next() else { return Ok(None) };
    if !is_name(name) {
        return Err(Fault::Name);
    }
    let hash = words.next().and_then(|word| word.strip_prefix("sha256:")).and_then(digest);
    let hash = hash.ok_or(Fault::Hash)?;
    let (mut settings, mut expires, mut network) = (Numbers::default(), None, None);
    for (index, word) in words.enumerate() {
        let unknown = Fault::Word(index + 3);
        let (key, value) = word.split_once('=').ok_or(unknown)?;
        match key {
            "network" => {
                let name = NetworkName::new(value).ok_or(Fault::Network)?;
                once("network", &mut network, name)?;
            }
            "expires" => once("expires", &mut expires, end_of(value).ok_or(Fault::Expires)?)?,
            _ => settings.set(key, value, unknown)?,
        }
    }
    let (name, limits) = (name.to_owned(), settings.limits());
    Ok(Some(Token { name, hash, network, limits, expires }))
}

/// Settings that are numbers.
#[derive(Default)]
struct Numbers([Option<u32>; KEYS.len()]);

/// Their keys, with the least value of each.
const KEYS: [(&str, u32); 6] = [
    ("max_clients", 0),
    ("rate_up_bytes", 0),
    ("rate_up_frames", 0),
    ("rate_down_bytes", 0),
    ("rate_down_frames", 0),
    ("session_time", 1),
];

impl Numbers {
    fn set(&mut self, key: &str, value: &str, unknown: Fault) -> Result<(), Fault> {
        let index = KEYS.iter().position(|(known, _)| *known == key).ok_or(unknown)?;
        let (key, least) = KEYS[index];
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|number| digits && *number >= least);
        once(key, &mut self.0[index], number.ok_or(Fault::Number(key, least))?)
    }

    fn limits(self) -> Limits {
        let [max_clients, up_bytes, up_frames, down_bytes, down_frames, session_time] = self.0;
        Limits {
            max_clients: max_clients.unwrap_or(0),
            rate_up: OwnRate { bytes: up_bytes, frames: up_frames },
            rate_down: OwnRate { bytes: down_bytes, frames: down_frames },
            session_time,
        }
    }
}

fn once<T>(key: &'static str, slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        Some(_) => Err(Fault::Twice(key)),
        None => Ok(()),
    }
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit =
            |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn fault(line: &str) -> Fault {
        parse("f", line.as_bytes()).unwrap_err().fault
    }

    #[test]
    fn a_line_says_who_and_what_applies_to_him() {
        let text = format!(
            "\u{feff}# comment\r\n\r\nalice {HASH} # plain\r\nbob@x sha256:{} network=default \
             max_clients=2 rate_up_bytes=1000 rate_down_frames=0 session_time=60 expires=2027-01-31\n",
            "AB".repeat(32)
        );
        let tokens = parse("f", text.as_bytes()).unwrap();
        assert_eq!((tokens.len(), tokens[0].name.as_str()), (2, "alice"));
        assert_eq!((tokens[0].limits, tokens[0].expires), (Limits::default(), None));
        assert_eq!(tokens[1].hash, [0xab; 32]);
        assert_eq!(tokens[1].expires, end_of("2027-02-01T00:00:00Z"));
        let limits = tokens[1].limits;
        assert_eq!((limits.max_clients, limits.session_time), (2, Some(60)));
        let general = Rate { bytes: 7, frames: 8 };
        assert_eq!(limits.rate_up.over(general), Rate { bytes: 1000, frames: 8 });
        assert_eq!(limits.rate_down.over(general), Rate { bytes: 7, frames: 0 });
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(fault("a/b"), Fault::Name);
        assert_eq!(fault(&format!("{} {HASH}", "x".repeat(65))), Fault::Name);
        for line in ["alice", "alice secret", "alice sha256:ab", "alice max_clients=2"] {
            assert_eq!(fault(line), Fault::Hash, "{line}");
        }
        assert_eq!(fault(&format!("alice {}", HASH.replace("9f", "+f"))), Fault::Hash);
        let with = |rest: &str| fault(&format!("alice {HASH} {rest}"));
        assert_eq!(with("max_clients=1 secret"), Fault::Word(4));
        assert_eq!(with("c2VjcmV0=="), Fault::Word(3));
        assert_eq!(with("max_clients=+1"), Fault::Number("max_clients", 0));
        assert_eq!(with("rate_up_bytes=4294967296"), Fault::Number("rate_up_bytes", 0));
        assert_eq!(with("session_time=0"), Fault::Number("session_time", 1));
        assert_eq!(with("network=Other"), Fault::Network);
        assert_eq!(with("network="), Fault::Network);
        assert_eq!(with("expires=tomorrow"), Fault::Expires);
        assert_eq!(with("max_clients=1 max_clients=1"), Fault::Twice("max_clients"));
        assert_eq!(fault(&format!("alice {HASH}\nbob {HASH}")), Fault::SameSecret(1));
        let other = format!("sha256:{}", "0".repeat(64));
        assert_eq!(fault(&format!("\nalice {HASH}\nalice {other}")), Fault::SameName(2));
        assert_eq!(parse("f", b"\xff").unwrap_err().fault, Fault::NotUtf8);
    }

    #[test]
    fn an_error_names_file_and_line_and_nothing_that_may_be_secret() {
        for line in ["SECRET=", "alice SECRET", "alice sha256:SECRET", "SECRET*/"] {
            let error = parse("/etc/wsnic/tokens", format!("\n{line}").as_bytes()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(error.to_string().starts_with("/etc/wsnic/tokens:2: "), "{error}");
            assert!(!text.contains("SECRET"), "{text}");
        }
        let tokens = parse("f", format!("alice {HASH}").as_bytes()).unwrap();
        assert!(!format!("{tokens:?}").contains("159"), "0x9f is in {tokens:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse("f", &bytes);
        }

        #[test]
        fn no_word_of_a_wrong_line_is_in_its_error(
            words in proptest::collection::vec("[A-Z]{6}[=:#]?[A-Z]{0,6}", 1..5)
        ) {
            if let Err(error) = parse("f", words.join(" ").as_bytes()) {
                let text = format!("{error} {error:?}");
                prop_assert!(words.iter().all(|word| !text.contains(&word[..6])), "{}", text);
            }
        }
    }
}
