use super::basic::Accounts;
use super::*;
use data_encoding::{BASE64, HEXLOWER};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

const JWT_SECRET: &str = "0123456789abcdef0123456789abcdef";

fn door() -> Door {
    let (settings, _) = wsnic_proto::resolve(
        &wsnic_proto::ConfFile::default(),
        &wsnic_proto::conf::Layer::new(),
        &wsnic_proto::Facts::default(),
    )
    .unwrap();
    settings.door
}

fn source(text: String) -> Option<Source> {
    Some(Source { path: "f".into(), text: text.into_bytes() })
}

/// A door with a file of tokens in which alice has "A", and one that has expired "OLD".
fn with_tokens(origins: &[&str]) -> (Sources, Door) {
    let hash = |secret: &str| HEXLOWER.encode(digest(&SHA256, secret.as_bytes()).as_ref());
    let text = format!("alice sha256:{}\nold sha256:{} expires=1999-01-01", hash("A"), hash("OLD"));
    let sources = Sources { tokens: source(text), ..Sources::default() };
    let allowed_origins = origins.iter().map(|&origin| origin.to_owned()).collect();
    (sources, Door { token_file: Some("f".into()), allowed_origins, ..door() })
}

fn with_passwords() -> (Sources, Door) {
    let hash = bcrypt::hash_with_salt("right", 4, [3; 16]).unwrap();
    let text = format!("bob:{}", hash.format_for_version(bcrypt::Version::TwoY));
    let sources = Sources { basic: source(text), ..Sources::default() };
    (sources, Door { basic_auth_file: Some("f".into()), ..door() })
}

fn auth((sources, door): (Sources, Door), client_cert: Option<ClientCert>) -> Auth {
    Auth::new(&sources, &door, client_cert).unwrap()
}

fn target(target: &str) -> Shown {
    Shown { target: target.to_owned(), ..Shown::default() }
}

fn page(origin: &str, target: &str) -> Shown {
    Shown { origin: Some(origin.to_owned()), ..self::target(target) }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn judge(auth: &Auth, shown: &Shown) -> Result<Identity, Why> {
    match auth.judge(shown, now()) {
        Judgement::Welcome(identity) => Ok(identity),
        Judgement::Refused(why) => Err(why),
        Judgement::AskPassword(_) => panic!("asks for the password"),
    }
}

#[test]
fn where_nothing_is_asked_for_everybody_comes_in() {
    for certificates in [None, Some(ClientCert::Optional)] {
        let open = auth((Sources::default(), door()), certificates);
        assert!(open.is_open());
        for shown in [target("/"), target("/any/path?token=x"), page("null", "/")] {
            assert_eq!(judge(&open, &shown).unwrap().method, Method::Anyone);
        }
    }
}

#[test]
fn with_tokens_only_their_holders_come_in() {
    let auth = auth(with_tokens(&[]), None);
    assert!(!auth.is_open());
    let alice = judge(&auth, &target("/x?token=%41")).unwrap();
    assert_eq!((alice.name.as_deref(), alice.method), (Some("alice"), Method::Token));
    let by_protocol = Shown { protocols: vec!["token.A".to_owned()], ..target("/") };
    assert!(judge(&auth, &by_protocol).is_ok());
    assert_eq!(judge(&auth, &target("/")), Err(Why::NoProof));
    assert_eq!(judge(&auth, &target("/a")), Err(Why::Unknown));
    assert_eq!(judge(&auth, &target("/?token=OLD")), Err(Why::Expired));
    assert_eq!(judge(&auth, &target("/wrong?token=OLD")), Err(Why::Expired));
    let certificate = Shown { certificate: Some("CN=eve".to_owned()), ..target("/") };
    assert_eq!(judge(&auth, &certificate), Err(Why::NoProof), "nobody verifies certificates");
}

#[test]
fn a_page_of_another_origin_is_refused_even_with_a_good_token() {
    let auth = auth(with_tokens(&["https://example.org", "http://localhost:8000"]), None);
    assert!(judge(&auth, &page("HTTPS://Example.org:443", "/?token=A")).is_ok());
    assert!(judge(&auth, &page("http://localhost:8000", "/A")).is_ok());
    for other in
        ["null", "", "https://example.org.evil", "http://example.org", "https://example.org:80"]
    {
        assert_eq!(judge(&auth, &page(other, "/?token=A")), Err(Why::Origin), "{other}");
    }
    assert!(judge(&auth, &target("/?token=A")).is_ok(), "a program with a token");
    assert_eq!(judge(&auth, &page("https://example.org", "/")), Err(Why::NoProof));
}

#[test]
fn with_origins_alone_their_pages_come_in_and_programs_do_not() {
    let door = Door { allowed_origins: vec!["https://example.org".to_owned()], ..door() };
    let auth = auth((Sources::default(), door), Some(ClientCert::Optional));
    assert_eq!(judge(&auth, &page("https://example.org", "/")).unwrap().method, Method::Anyone);
    assert_eq!(judge(&auth, &page("https://example.com", "/")), Err(Why::Origin));
    assert_eq!(judge(&auth, &target("/")), Err(Why::NoProof));
    let program = Shown { certificate: Some("CN=anna".to_owned()), ..target("/") };
    assert_eq!(judge(&auth, &program).unwrap().method, Method::Certificate);
}

#[test]
fn null_never_matches_even_if_somebody_lists_it() {
    let door = Door { allowed_origins: vec!["null".to_owned()], ..door() };
    let auth = auth((Sources::default(), door), None);
    assert_eq!(judge(&auth, &page("null", "/")), Err(Why::Origin));
}

#[test]
fn a_verified_certificate_is_a_proof_beside_others() {
    let auth = auth(with_tokens(&[]), Some(ClientCert::Required));
    let shown = Shown { certificate: Some("CN=anna\n".to_owned()), ..target("/?token=wrong") };
    let anna = judge(&auth, &shown).unwrap();
    assert_eq!((anna.name.as_deref(), anna.method), (Some("CN=anna?"), Method::Certificate));
    assert!(judge(&auth, &target("/?token=A")).is_ok());
    let required = self::auth((Sources::default(), door()), Some(ClientCert::Required));
    assert_eq!(judge(&required, &target("/")), Err(Why::NoProof));
}

#[test]
fn a_password_is_asked_about_whether_its_name_is_known_or_not() {
    let auth = auth(with_passwords(), None);
    for credentials in ["bob:right", "bob:wrong", "eve:right", ":"] {
        let text = format!("Basic {}", BASE64.encode(credentials.as_bytes()));
        let shown = Shown { authorization: Some(text), ..target("/") };
        let Judgement::AskPassword(question) = auth.judge(&shown, now()) else { panic!() };
        assert_eq!(format!("{question:?}"), "Question { .. }");
    }
    assert_eq!(judge(&auth, &target("/")), Err(Why::NoProof));
}

#[test]
fn a_password_where_there_are_none_is_a_wrong_proof() {
    let shown = Shown { authorization: Some("Basic Ym9iOng=".to_owned()), ..target("/") };
    assert_eq!(judge(&auth(with_tokens(&[]), None), &shown), Err(Why::Password));
    assert!(judge(&auth((Sources::default(), door()), None), &shown).is_ok());
}

#[test]
fn either_of_two_kinds_of_token_is_good() {
    let (mut sources, mut door) = with_tokens(&[]);
    door.jwt_key_file = Some("f".into());
    sources.jwt = source(JWT_SECRET.to_owned());
    let auth = auth((sources, door), None);
    let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let message =
        format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(r#"{"exp":1900000000,"sub":"s"}"#));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_SECRET.as_bytes());
    let tag =
        data_encoding::BASE64URL_NOPAD.encode(ring::hmac::sign(&key, message.as_bytes()).as_ref());
    let signed = judge(&auth, &target(&format!("/?token={message}.{tag}"))).unwrap();
    assert_eq!((signed.name.as_deref(), signed.method), (Some("s"), Method::Signed));
    assert!(judge(&auth, &target("/?token=A")).is_ok());
    assert_eq!(judge(&auth, &target("/?token=OLD")), Err(Why::Expired), "known to one of them");
    let wrong = judge(&auth, &target(&format!("/?token={message}.AAAA"))).unwrap_err();
    assert_eq!(wrong, Why::Signature);
    assert!(wrong.is_wrong_proof() && !Why::NoProof.is_wrong_proof());
}

#[test]
fn a_file_that_is_set_and_was_not_read_is_an_error_and_no_open_door() {
    let (_, door) = with_tokens(&[]);
    let error = Auth::new(&Sources::default(), &door, None).unwrap_err();
    assert_eq!(error.to_string(), "token_file=f was not read: restart wsnic");
    // And an empty file lets nobody in.
    let empty = Sources { tokens: source(String::new()), ..Sources::default() };
    let auth = Auth::new(&empty, &door, None).unwrap();
    assert_eq!(judge(&auth, &target("/")), Err(Why::NoProof));
}

#[test]
fn neither_the_door_nor_its_errors_tell_secrets() {
    let (sources, door) = with_tokens(&[]);
    let hash = &String::from_utf8(sources.tokens.clone().unwrap().text).unwrap()[13..40];
    let auth = Auth::new(&sources, &door, None).unwrap();
    let text = format!("{auth:?} {sources:?} {:?}", auth.tokens);
    assert!(!text.contains(hash), "{text}");
    for (option, sources) in [
        ("tokens", Sources { tokens: source("x SECRET".to_owned()), ..Sources::default() }),
        ("jwt", Sources { jwt: source("SECRET".to_owned()), ..Sources::default() }),
        ("basic", Sources { basic: source("bob:SECRET".to_owned()), ..Sources::default() }),
    ] {
        let path = Some(PathBuf::from("f"));
        let door = Door {
            token_file: path.clone().filter(|_| option == "tokens"),
            jwt_key_file: path.clone().filter(|_| option == "jwt"),
            basic_auth_file: path.filter(|_| option == "basic"),
            ..self::door()
        };
        let error = Auth::new(&sources, &door, None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
    let _: Accounts = Accounts::new(&Source { path: "f".into(), text: Vec::new() }).unwrap();
}

proptest! {
    #[test]
    fn nobody_comes_in_by_chance_and_nothing_panics(
        target in ".{0,40}",
        authorization in proptest::option::of("(Basic|Bearer|x) .{0,30}"),
        origin in proptest::option::of(".{0,20}"),
        protocols in proptest::collection::vec("(token[.])?.{0,6}", 0..4),
    ) {
        let auth = auth(with_tokens(&["https://example.org"]), None);
        let shown = Shown { target, authorization, origin, protocols, certificate: None };
        let is_alice = shown.secrets().contains(&b"A".to_vec());
        prop_assert_eq!(judge(&auth, &shown).is_ok() , is_alice && shown.origin.is_none());
    }
}
