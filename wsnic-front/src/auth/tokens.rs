//! Tokens of the token file, found by their hash.
//!
//! Pure. The map is asked for the SHA-256 of what was shown: neither the time of the answer nor the
//! map tells anything about a secret of 160 bits that is not known already.

use super::{Identity, Method, Source, Why};
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use wsnic_proto::settings::NetworkName;
use wsnic_proto::token_file::{self, Token, TokenFileError};

/// Bytes of the longest text that is looked at as a token.
const MAX_TOKEN: usize = 512;

/// All tokens, by their hash.
#[derive(Debug)]
pub struct Tokens(HashMap<[u8; 32], Token>);

impl Tokens {
    /// Those of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn new(source: &Source) -> Result<Tokens, TokenFileError> {
        let tokens = token_file::parse(&source.path.to_string_lossy(), &source.text)?;
        Ok(Tokens(tokens.into_iter().map(|token| (token.hash, token)).collect()))
    }

    /// The networks that tokens are for, each with the token's name.
    pub fn networks(&self) -> impl Iterator<Item = (&str, &NetworkName)> {
        let tokens = self.0.values();
        tokens.filter_map(|token| Some((token.name.as_str(), token.network.as_ref()?)))
    }

    /// The holder of the first of these secrets that is good.
    ///
    /// # Errors
    /// None is.
    pub fn judge(&self, secrets: &[Vec<u8>], now: SystemTime) -> Result<Identity, Why> {
        let mut verdict = Err(if secrets.is_empty() { Why::NoProof } else { Why::Unknown });
        for secret in secrets {
            let found = self.find(secret, now);
            // No early end: what follows is hashed too.
            if verdict.is_err() && found != Err(Why::Unknown) {
                verdict = found;
            }
        }
        verdict
    }

    fn find(&self, secret: &[u8], now: SystemTime) -> Result<Identity, Why> {
        let secret = secret.get(..MAX_TOKEN + 1).unwrap_or(secret);
        let hash = digest(&SHA256, secret);
        let hash = <[u8; 32]>::try_from(hash.as_ref()).map_err(|_| Why::Unknown)?;
        let token = self.0.get(&hash).filter(|_| secret.len() <= MAX_TOKEN).ok_or(Why::Unknown)?;
        let expires = token.expires.and_then(moment);
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Why::Expired);
        }
        let (name, network) = (token.name.clone(), token.network.clone());
        Ok(Identity::limited(Some(name), Method::Token, network, token.limits, expires))
    }
}

/// A moment by its seconds since 1970; None if it is too far away to ever come.
pub(super) fn moment(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(secret: &str) -> String {
        data_encoding::HEXLOWER.encode(digest(&SHA256, secret.as_bytes()).as_ref())
    }

    fn tokens(rest: &str) -> Tokens {
        let text = format!("alice sha256:{} {rest}\nbob sha256:{}", hash("A"), hash("B"));
        Tokens::new(&Source { path: "f".into(), text: text.into_bytes() }).unwrap()
    }

    fn secrets(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_holder_is_found_among_texts_that_are_none() {
        let now = SystemTime::UNIX_EPOCH;
        let tokens = tokens("max_clients=3 session_time=60");
        let alice = tokens.judge(&secrets(&["x", "A", "B"]), now).unwrap();
        assert_eq!((alice.name.as_deref(), alice.max_clients), (Some("alice"), 3));
        assert_eq!(alice.session_time, Some(Duration::from_secs(60)));
        assert_eq!(tokens.judge(&secrets(&["a", &"A".repeat(600)]), now), Err(Why::Unknown));
        assert_eq!(tokens.judge(&[], now), Err(Why::NoProof));
        let long = "A".repeat(MAX_TOKEN + 1);
        let text = format!("alice sha256:{}", hash(&long)).into_bytes();
        let tokens = Tokens::new(&Source { path: "f".into(), text }).unwrap();
        assert_eq!(tokens.judge(&secrets(&[&(long + "A")]), now), Err(Why::Unknown));
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_another_one_still_is_then() {
        let tokens = tokens("expires=2027-01-01T00:00:00Z");
        let end = moment(wsnic_proto::time::end_of("2027-01-01T00:00:00Z").unwrap()).unwrap();
        let before = end - Duration::from_secs(1);
        assert_eq!(tokens.judge(&secrets(&["A"]), before).unwrap().expires, Some(end));
        assert_eq!(tokens.judge(&secrets(&["A", "x"]), end), Err(Why::Expired));
        assert_eq!(tokens.judge(&secrets(&["x", "A"]), end), Err(Why::Expired));
        let bob = tokens.judge(&secrets(&["A", "B"]), end).unwrap();
        assert_eq!(bob.name.as_deref(), Some("bob"));
    }
}
