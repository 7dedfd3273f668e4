use super::*;
use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const EDDSA: &str = r#"{"alg":"EdDSA"}"#;

fn key(text: &[u8]) -> Result<SignedKey, KeyFault> {
    let source = Source { path: "jwt.key".into(), text: text.to_vec() };
    SignedKey::new(&source).map_err(|error| error.fault)
}

fn message(header: &str, claims: &str) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn hs256(header: &str, claims: &str, secret: &str) -> String {
    let message = message(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn ed25519_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn public_pem(pair: &Ed25519KeyPair) -> String {
    let der = [&ED25519_PREFIX[..], pair.public_key().as_ref()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
}

fn eddsa(header: &str, claims: &str) -> String {
    let message = message(header, claims);
    let signature = ed25519_pair().sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn at(seconds: u64) -> SystemTime {
    moment(seconds).unwrap()
}

fn judge(key: &SignedKey, token: &str, seconds: u64) -> Result<Identity, Why> {
    key.judge(&[token.as_bytes().to_vec()], at(seconds))
}

/// What HS256 says of these claims at the second 1000.
fn claims(claims: &str) -> Result<Identity, Why> {
    judge(&key(SECRET.as_bytes()).unwrap(), &hs256(HS256, claims, SECRET), 1000)
}

#[test]
fn claims_say_who_and_what_applies_to_him() {
    let bob = claims(
        r#"{"sub":"bob","exp":2000,"network":"default","max_clients":2,"rate_up_bytes":10,
            "rate_down_frames":0,"session_time":60,"iss":"x","roles":[]}"#,
    );
    let bob = bob.unwrap();
    assert_eq!(
        (bob.name.as_deref(), bob.method, bob.max_clients),
        (Some("bob"), Method::Signed, 2)
    );
    assert_eq!(bob.rate_up, OwnRate { bytes: Some(10), frames: None });
    assert_eq!(bob.rate_down, OwnRate { bytes: None, frames: Some(0) });
    assert_eq!((bob.session_time, bob.expires), (Some(Duration::from_secs(60)), Some(at(2030))));
    assert_eq!(claims(r#"{"exp":2000}"#).unwrap().name, None);
}

#[test]
fn clocks_may_differ_by_thirty_seconds() {
    let key = key(SECRET.as_bytes()).unwrap();
    let token = hs256(HS256, r#"{"exp":2000.9,"nbf":1000}"#, SECRET);
    assert_eq!(judge(&key, &token, 969), Err(Why::TooEarly));
    assert!(judge(&key, &token, 970).is_ok() && judge(&key, &token, 2029).is_ok());
    assert_eq!(judge(&key, &token, 2030), Err(Why::Expired));
}

#[test]
fn claims_that_do_not_fit_are_refused_and_are_no_guess() {
    for (text, why) in [
        (r#"{"sub":"bob"}"#, "one is missing or has the wrong type"),
        (r#"{"exp":"2000"}"#, "one is missing or has the wrong type"),
        (r#"{"exp":-1}"#, "exp is no time"),
        (r#"{"exp":1e300}"#, "exp is no time"),
        (r#"{"exp":1e15}"#, "exp is no time"),
        (r#"{"exp":2000,"nbf":-1}"#, "nbf is no time"),
        (r#"{"exp":2000,"exp":3000}"#, "one is missing or has the wrong type"),
        (r#"{"exp":2000,"network":"No name"}"#, "network is no network's name"),
        (r#"{"exp":2000,"aud":["others"]}"#, "aud is somebody else"),
        (r#"{"exp":2000,"max_clients":1}"#, "max_clients without sub"),
        (r#"{"exp":2000,"max_clients":-1}"#, "one is missing or has the wrong type"),
        (r#"{"exp":2000,"session_time":0}"#, "session_time is 0"),
        (r#"{"exp":2000,"sub":"a\nb"}"#, "sub is no name of 1 to 128 printable bytes"),
        ("no json", "one is missing or has the wrong type"),
    ] {
        let refused = claims(text).unwrap_err();
        assert_eq!(refused, Why::Claims(why), "{text}");
        assert!(!refused.is_wrong_proof());
    }
    let critical = hs256(r#"{"alg":"HS256","crit":["x"],"x":1}"#, r#"{"exp":2000}"#, SECRET);
    let refused = judge(&key(SECRET.as_bytes()).unwrap(), &critical, 1000);
    assert!(matches!(refused, Err(Why::Claims(_))), "{refused:?}");
}

#[test]
fn the_key_and_not_the_token_says_which_algorithm_it_is() {
    const GOOD: &str = r#"{"exp":2000}"#;
    let pem = public_pem(&ed25519_pair());
    let (secret, public) = (key(SECRET.as_bytes()).unwrap(), key(pem.as_bytes()).unwrap());
    assert!(judge(&public, &eddsa(EDDSA, GOOD), 1000).is_ok());
    assert!(judge(&secret, &hs256(HS256, GOOD, SECRET), 1000).is_ok());
    let pair = ed25519_pair();
    let raw = String::from_utf8_lossy(pair.public_key().as_ref()).into_owned();
    for token in [
        // The public key as the secret of HS256, in each of its forms.
        hs256(HS256, GOOD, &pem),
        hs256(HS256, GOOD, pem.trim()),
        hs256(HS256, GOOD, &raw),
        hs256(EDDSA, GOOD, &pem),
        message(r#"{"alg":"none"}"#, GOOD) + ".",
        message(EDDSA, GOOD) + ".",
        hs256(r#"{"alg":"HS512"}"#, GOOD, SECRET),
        hs256(HS256, GOOD, "another secret of thirty-two bytes"),
        "..".to_owned(),
    ] {
        assert_eq!(judge(&public, &token, 1000), Err(Why::Signature), "{token}");
    }
    assert_eq!(judge(&secret, &eddsa(EDDSA, GOOD), 1000), Err(Why::Signature));
    let lying = eddsa(HS256, GOOD);
    assert_eq!(judge(&public, &lying, 1000), Err(Why::Claims("alg is not that of the key")));
    let lying = hs256(r#"{"alg":"HS512"}"#, GOOD, SECRET);
    assert_eq!(judge(&secret, &lying, 1000), Err(Why::Claims("alg is not that of the key")));
}

#[test]
fn what_no_dots_are_in_is_unknown_and_two_tokens_are_looked_at() {
    let key = key(SECRET.as_bytes()).unwrap();
    assert_eq!(judge(&key, "token", 1000), Err(Why::Unknown));
    assert_eq!(key.judge(&[], at(1000)), Err(Why::NoProof));
    let good = hs256(HS256, r#"{"exp":2000}"#, SECRET).into_bytes();
    let bad = b"a.b.c".to_vec();
    assert!(key.judge(&[b"x".to_vec(), bad.clone(), good.clone()], at(1000)).is_ok());
    assert_eq!(key.judge(&[bad.clone(), bad, good], at(1000)), Err(Why::Signature));
}

#[test]
fn the_line_end_behind_a_secret_is_not_part_of_it() {
    for text in [format!("{SECRET}\n"), format!("{SECRET}\r\n")] {
        let key = key(text.as_bytes()).unwrap();
        assert!(judge(&key, &hs256(HS256, r#"{"exp":2000}"#, SECRET), 1000).is_ok());
    }
    let binary = [&[0xff; 31][..], b"\n"].concat();
    assert_eq!(secret(&binary), binary);
}

#[test]
fn what_is_no_key_is_refused_with_what_to_do() {
    assert_eq!(key(b"short\n").unwrap_err(), KeyFault::Short(5));
    assert_eq!(key(b"").unwrap_err(), KeyFault::Short(0));
    let private =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";
    assert_eq!(key(private.as_bytes()).unwrap_err(), KeyFault::Private);
    let pem = public_pem(&ed25519_pair());
    for text in [
        pem.replace("PUBLIC KEY", "CERTIFICATE"),
        pem.replace("MCow", "MCox"),
        pem.replace("-----END", "A-----END"),
    ] {
        assert_eq!(key(text.as_bytes()).unwrap_err(), KeyFault::NotEd25519, "{text}");
    }
    let source = Source { path: "/etc/wsnic/jwt".into(), text: b"SECRET".to_vec() };
    let error = SignedKey::new(&source).unwrap_err();
    assert!(error.to_string().starts_with("/etc/wsnic/jwt: "), "{error}");
    let key = key(SECRET.as_bytes()).unwrap();
    assert!(!format!("{error} {error:?} {source:?} {key:?}").contains("SECRET"));
    assert!(!format!("{key:?}").contains("012345"));
}

proptest! {
    #[test]
    fn any_text_with_dots_is_judged_without_panic(
        header in "\\{\"alg\":\"(HS256|EdDSA|none)\".{0,20}\\}", claims in ".{0,40}", rest in ".{0,20}"
    ) {
        let key = key(SECRET.as_bytes()).unwrap();
        let made = format!("{}.{rest}", message(&header, &claims));
        prop_assert!(judge(&key, &made, 1000).is_err());
        let plain = [header.as_str(), &claims, &rest].join(".");
        prop_assert!(judge(&key, &plain, 1000).is_err());
        // Signed, whatever it says: no panic either.
        let _ = judge(&key, &hs256(&header, &claims, SECRET), 1000);
    }

    #[test]
    fn one_changed_bit_spoils_a_token(index in 0_usize..200, bit in 0_u8..7) {
        let key = key(SECRET.as_bytes()).unwrap();
        let mut token = hs256(HS256, r#"{"exp":2000,"sub":"bob"}"#, SECRET).into_bytes();
        let index = index % token.len();
        token[index] ^= 1 << bit;
        prop_assert!(key.judge(&[token], at(1000)).is_err());
    }
}
