//! Signed tokens (JWT, RFC 7519): HS256 or EdDSA, by the kind of the operator's key.
//!
//! Pure but for the choice of the library's cryptography, which is made once for the process. The
//! algorithm is fixed by the key, never by the token. The library checks the signature, and only of
//! a token with a good one it reads header and claims; the claims are judged here, because the
//! library would ask the clock itself.

use super::tokens::moment;
use super::{Identity, Method, Source, Why, shown};
use data_encoding::BASE64;
use jsonwebtoken::crypto::{self, CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, dangerous};
use ring::{hmac, signature as ring_signature};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wsnic_proto::settings::NetworkName;
use wsnic_proto::token_file::{Limits, OwnRate};

/// Tokens that are verified, all in all: EdDSA takes some 50 µs.
const MAX_VERIFIED: usize = 2;
/// Bytes of the shortest secret of HS256 (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;
/// Clocks may differ by so much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Bytes of the longest `sub`.
const MAX_SUB: usize = 128;
/// 9999-12-31T23:59:59Z: what lies behind it is never.
const LAST_SECOND: f64 = 253_402_300_799.0;
/// SubjectPublicKeyInfo of Ed25519 up to the key (RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key of signed tokens.
pub struct SignedKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

/// Without the key.
impl std::fmt::Debug for SignedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why a key is none. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct KeyError {
    /// The file.
    pub path: PathBuf,
    /// What about it, and what to do.
    pub fault: KeyFault,
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// HS256 can be guessed.
    #[error(
        "the secret of signed tokens has {0} bytes, HS256 needs at least {MIN_SECRET}: make one \
         with `openssl rand -hex 32`"
    )]
    Short(usize),
    /// Whoever signs keeps this to himself.
    #[error(
        "this is a private key: give wsnic the public one, which \
         `openssl pkey -in KEY -pubout` prints"
    )]
    Private,
    /// Some other PEM file.
    #[error(
        "this PEM file holds no Ed25519 public key (BEGIN PUBLIC KEY): make a pair with \
         `openssl genpkey -algorithm ed25519`"
    )]
    NotEd25519,
}

/// What is read of a token; other claims mean nothing.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    sub: Option<String>,
    network: Option<String>,
    max_clients: Option<u32>,
    rate_up_bytes: Option<u32>,
    rate_up_frames: Option<u32>,
    rate_down_bytes: Option<u32>,
    rate_down_frames: Option<u32>,
    session_time: Option<u32>,
    /// Whom it is for (RFC 7519 §4.1.3): wsnic has no name by which that could be itself.
    aud: Option<IgnoredAny>,
}

impl SignedKey {
    /// The key of a file: Ed25519 if it is PEM, else the secret of HS256. The line end behind a
    /// secret of printable characters does not belong to it.
    ///
    /// # Errors
    /// It is no such key.
    pub fn new(source: &Source) -> Result<SignedKey, KeyError> {
        let error = |fault| KeyError { path: Path::to_owned(&source.path), fault };
        // An error says that it was installed already.
        let _ = PROVIDER.install_default();
        let (key, algorithm) = if contains(&source.text, b"-----BEGIN") {
            (DecodingKey::from_ed_der(&ed25519(&source.text).map_err(error)?), Algorithm::EdDSA)
        } else {
            let secret = secret(&source.text);
            if secret.len() < MIN_SECRET {
                return Err(error(KeyFault::Short(secret.len())));
            }
            (DecodingKey::from_secret(secret), Algorithm::HS256)
        };
        Ok(SignedKey { key, algorithm })
    }

    /// The holder of the first of these secrets that is a good token; of those with two dots the
    /// first two are looked at.
    ///
    /// # Errors
    /// None is.
    pub fn judge(&self, secrets: &[Vec<u8>], now: SystemTime) -> Result<Identity, Why> {
        let mut verdict = Err(if secrets.is_empty() { Why::NoProof } else { Why::Unknown });
        for token in secrets.iter().filter(|secret| is_signed(secret)).take(MAX_VERIFIED) {
            let found = self.verify(token).and_then(|claims| identity(claims, now));
            // No early end: what follows is verified too.
            let better = verdict == Err(Why::Unknown) || verdict == Err(Why::Signature);
            if better || verdict.is_err() && found.is_ok() {
                verdict = found;
            }
        }
        verdict
    }

    /// Nothing that a stranger wrote is parsed: the signature is looked at first.
    fn verify(&self, token: &[u8]) -> Result<Claims, Why> {
        let dot = token.iter().rposition(|byte| *byte == b'.').ok_or(Why::Signature)?;
        let (message, signature) = (&token[..dot], &token[dot + 1..]);
        let signature = std::str::from_utf8(signature).map_err(|_| Why::Signature)?;
        let right = crypto::verify(signature, message, &self.key, self.algorithm);
        if !right.is_ok_and(|right| right) {
            return Err(Why::Signature);
        }
        let read = dangerous::insecure_decode::<Claims>(token);
        let TokenData { header, claims } =
            read.map_err(|_| Why::Claims("one is missing or has the wrong type"))?;
        if header.alg != self.algorithm {
            return Err(Why::Claims("alg is not that of the key"));
        }
        // RFC 7515 §4.1.11: whoever does not know what is critical has to refuse it.
        if header.crit.is_some() {
            return Err(Why::Claims("crit is not known to this version"));
        }
        Ok(claims)
    }
}

fn is_signed(secret: &[u8]) -> bool {
    secret.iter().filter(|byte| **byte == b'.').count() == 2
}

/// Whom the claims of a token with a good signature name.
fn identity(claims: Claims, now: SystemTime) -> Result<Identity, Why> {
    let expires = time(claims.exp).ok_or(Why::Claims("exp is no time"))? + LEEWAY;
    if expires <= now {
        return Err(Why::Expired);
    }
    if let Some(nbf) = claims.nbf {
        let begins = time(nbf).ok_or(Why::Claims("nbf is no time"))?;
        if begins > now + LEEWAY {
            return Err(Why::TooEarly);
        }
    }
    if claims.aud.is_some() {
        return Err(Why::Claims("aud is somebody else"));
    }
    let network = match claims.network {
        Some(name) => {
            Some(NetworkName::new(&name).ok_or(Why::Claims("network is no network's name"))?)
        }
        None => None,
    };
    if claims.sub.as_ref().is_some_and(|sub| {
        sub.is_empty() || sub.len() > MAX_SUB || !sub.chars().all(shown::is_printable)
    }) {
        return Err(Why::Claims("sub is no name of 1 to 128 printable bytes"));
    }
    if claims.max_clients.is_some_and(|limit| limit > 0) && claims.sub.is_none() {
        return Err(Why::Claims("max_clients without sub"));
    }
    if claims.session_time == Some(0) {
        return Err(Why::Claims("session_time is 0"));
    }
    let limits = Limits {
        max_clients: claims.max_clients.unwrap_or(0),
        rate_up: OwnRate { bytes: claims.rate_up_bytes, frames: claims.rate_up_frames },
        rate_down: OwnRate { bytes: claims.rate_down_bytes, frames: claims.rate_down_frames },
        session_time: claims.session_time,
    };
    Ok(Identity::limited(claims.sub, Method::Signed, network, limits, Some(expires)))
}

/// A NumericDate (RFC 7519 §2), parts of a second cut off.
fn time(seconds: f64) -> Option<SystemTime> {
    // Within the range the cast is exact but for the fraction; NaN is not within.
    (0.0..=LAST_SECOND).contains(&seconds).then_some(seconds as u64).and_then(moment)
}

fn secret(text: &[u8]) -> &[u8] {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().all(|byte| matches!(byte, b' '..=b'~')) { line } else { text }
}

fn ed25519(pem: &[u8]) -> Result<[u8; 32], KeyFault> {
    if contains(pem, b"PRIVATE KEY-----") {
        return Err(KeyFault::Private);
    }
    let text = std::str::from_utf8(pem).map_err(|_| KeyFault::NotEd25519)?;
    let inside = text
        .split_once("-----BEGIN PUBLIC KEY-----")
        .and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"));
    let (inside, _) = inside.ok_or(KeyFault::NotEd25519)?;
    let inside: String = inside.split_ascii_whitespace().collect();
    let der = BASE64.decode(inside.as_bytes()).map_err(|_| KeyFault::NotEd25519)?;
    let key = der.strip_prefix(&ED25519_PREFIX).ok_or(KeyFault::NotEd25519)?;
    key.try_into().map_err(|_| KeyFault::NotEd25519)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The library's cryptography: ring, for the two algorithms that there are here.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    // For JWK only, which nothing here reads.
    key_utils: KeyUtils::new_unimplemented(),
};

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let bytes = key.try_get_as_bytes()?;
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, bytes)))),
        Algorithm::EdDSA => Ok(Box::new(EdDsa(bytes.to_vec()))),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

struct Hs256(hmac::Key);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), signature::Error> {
        // In constant time.
        hmac::verify(&self.0, message, tag).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

struct EdDsa(Vec<u8>);

impl Verifier<Vec<u8>> for EdDsa {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        ring_signature::UnparsedPublicKey::new(&ring_signature::ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for EdDsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
