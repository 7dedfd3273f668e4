//! Who may come in, by which proof, and how much: and that nobody learns why he may not.

use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::tungstenite::Error;
use wsnic_tests::{
    Authority, Door, HANDSHAKE, Identity, Lab, Netns, RawGuest, Server, Trust, address, run_wsnic,
    wait_until,
};

const SECRET: &str = "D3QGNVY6R4UWTS7BNURNXMETXWN4PBGG";
const OTHER: &str = "K7QXVY6R4UWTS7BNURNXMETXWN4PBGZZ";

/// A line of the token file.
fn line(name: &str, secret: &str, settings: &str) -> String {
    let hash: String = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} sha256:{hash} {settings}\n")
}

/// A lab with a token file, and the configuration that names it.
fn with_tokens(text: &str) -> (Lab, PathBuf, String) {
    let lab = Lab::new();
    let path = lab.file("tokens");
    std::fs::write(&path, text).expect("a file can be written");
    let conf = format!("token_file = {}\nws_server_addr = 0.0.0.0\n", path.display());
    (lab, path, conf)
}

fn local() -> SocketAddr {
    Server::address()
}

fn wan() -> SocketAddr {
    SocketAddr::from((address::WAN, 8086))
}

/// 0 for a guest that comes in, else the HTTP status, or 1 where there is no answer at all.
fn status(from: &Netns, to: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    match RawGuest::connect_to(from, to, path, headers) {
        Ok(guest) => {
            guest.leave();
            0
        }
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(_) => 1,
    }
}

fn finish(lab: Lab, files: &[&Path]) {
    files.iter().for_each(|file| std::fs::remove_file(file).expect("a file of the test"));
    lab.finish();
}

fn nothing_secret(server: &Server, secrets: &[&str]) {
    let log = server.log();
    for pid in server.family() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(secrets.iter().all(|secret| !line.contains(secret)), "{line}");
    }
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "{log}");
}

#[test]
fn a_token_is_taken_wherever_a_client_can_put_it() {
    let (lab, path, conf) = with_tokens(&line("alice", SECRET, ""));
    let server = Server::start(&lab, &conf);
    let bearer = format!("Bearer {SECRET}");
    let protocol = format!("binary, token.{SECRET}");
    for (target, headers) in [
        (format!("/?token={SECRET}"), vec![]),
        (format!("/lan?x=1&token={SECRET}&y=2"), vec![]),
        (format!("/{SECRET}"), vec![]),
        (format!("/room/{SECRET}/"), vec![]),
        ("/".to_owned(), vec![("authorization", bearer.as_str())]),
        ("/".to_owned(), vec![("sec-websocket-protocol", protocol.as_str())]),
    ] {
        let guest = RawGuest::connect_to(&lab.srv, local(), &target, &headers);
        let mut guest = guest.unwrap_or_else(|error| panic!("{target} {headers:?}: {error}"));
        guest.dhcp();
        guest.leave();
    }
    server.wait_for_log("identity=\"alice (token)\"");
    for target in ["/", "/?token=", &format!("/?token={OTHER}"), &format!("/?Token={SECRET}")] {
        assert_eq!(status(&lab.srv, local(), target, &[]), 403, "{target}");
    }
    nothing_secret(&server, &[SECRET, OTHER]);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn every_refusal_is_the_same_to_the_last_byte() {
    let (lab, path, conf) = with_tokens(&format!(
        "{}{}",
        line("alice", SECRET, "expires=2020-01-01"),
        line("bob", OTHER, "")
    ));
    let server = Server::start(&lab, &format!("{conf}allowed_origins = https://good.example\n"));
    let answer = |target: &str, headers: &str| {
        let mut door = Door::knock(&lab);
        let handshake = HANDSHAKE.replace("GET / ", &format!("GET {target} "));
        door.send(format!("{handshake}{headers}\r\n").as_bytes());
        let response = door.response();
        (response.status, response.head, response.body)
    };
    let wanted = answer("/", "");
    assert_eq!(wanted.0, 403);
    let good = "Origin: https://good.example\r\n";
    for (target, headers) in [
        ("/?token=wrong", good.to_owned()),
        (&format!("/?token={SECRET}"), good.to_owned()),
        (&format!("/?token={OTHER}"), "Origin: https://evil.example\r\n".to_owned()),
        ("/", format!("{good}Authorization: Basic YTpi\r\n")),
        ("/", format!("{good}Authorization: Bearer a.b.c\r\n")),
        ("/", good.to_owned()),
    ] {
        assert_eq!(answer(target, &headers), wanted, "{target} {headers}");
    }
    assert_eq!(answer(&format!("/?token={OTHER}"), good).0, 101);
    nothing_secret(&server, &[SECRET, OTHER]);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn pages_of_other_origins_are_refused_and_programs_need_a_proof() {
    let lab = Lab::new();
    let server =
        Server::start(&lab, "allowed_origins = https://good.example http://localhost:8000\n");
    let from = |origin: &'static str| {
        let headers: &[_] = if origin.is_empty() { &[] } else { &[("origin", origin)] };
        status(&lab.srv, local(), "/", headers)
    };
    for good in ["https://good.example", "HTTPS://GOOD.example:443", "http://localhost:8000"] {
        assert_eq!(from(good), 0, "{good}");
    }
    for bad in ["http://good.example", "https://good.example.evil.org", "null", "http://localhost"]
    {
        assert_eq!(from(bad), 403, "{bad}");
    }
    assert_eq!(from(""), 403, "a program without a proof");
    server.stop();
    lab.finish();
}

#[test]
fn signed_tokens_are_good_for_their_time_and_by_their_key_only() {
    let lab = Lab::new();
    let (secret, path) = ("0123456789abcdef0123456789abcdef", lab.file("jwt"));
    std::fs::write(&path, secret).expect("a file can be written");
    let server = Server::start(&lab, &format!("jwt_key_file = {}\n", path.display()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let jwt = |header: &str, claims: String, key: &str| sign(&lab, header, &claims, key);
    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let good = format!(r#"{{"sub":"carol","exp":{}}}"#, now + 600);
    for (header, claims, key, expected) in [
        (HS256, good.clone(), secret, 0),
        (HS256, good.clone(), "another secret of thirty-two byte", 403),
        (r#"{"alg":"none"}"#, good.clone(), secret, 403),
        (r#"{"alg":"HS512"}"#, good, secret, 403),
        (HS256, format!(r#"{{"sub":"carol","exp":{}}}"#, now - 600), secret, 403),
        (HS256, r#"{"sub":"carol"}"#.to_owned(), secret, 403),
        (HS256, format!(r#"{{"exp":{},"nbf":{}}}"#, now + 900, now + 600), secret, 403),
        (HS256, format!(r#"{{"exp":{},"network":"other"}}"#, now + 900), secret, 403),
    ] {
        let token = jwt(header, claims.clone(), key);
        let target = format!("/?token={token}");
        assert_eq!(status(&lab.srv, local(), &target, &[]), expected, "{header} {claims}");
        nothing_secret(&server, &[&token, secret]);
    }
    server.wait_for_log("identity=\"carol (signed token)\"");
    server.stop();
    std::fs::write(&path, "short").expect("a file can be written");
    let log = Server::refuses(&lab, &format!("jwt_key_file = {}\n", path.display()), &[]);
    assert!(log.contains("needs at least 32"), "{log}");
    finish(lab, &[&path]);
}

/// A JWT made by Python's standard library.
fn sign(lab: &Lab, header: &str, claims: &str, key: &str) -> String {
    const PROGRAM: &str = "import base64,hmac,sys\n\
        b=lambda x:base64.urlsafe_b64encode(x).rstrip(b'=')\n\
        t=b(sys.argv[1].encode())+b'.'+b(sys.argv[2].encode())\n\
        print((t+b'.'+b(hmac.digest(sys.argv[3].encode(),t,'sha256'))).decode(),end='')";
    let mut python = Command::new("python3");
    python.args(["-c", PROGRAM, header, claims, key]);
    let output = lab.srv.output(&mut python);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a token")
}

#[test]
fn tokens_signed_by_ed25519_are_checked_by_the_public_key() {
    let lab = Lab::new();
    let (key, public) = (lab.file("ed.key"), lab.file("ed.pub"));
    lab.srv.run(&format!("openssl genpkey -algorithm ed25519 -out {}", key.display()));
    lab.srv.run(&format!("openssl pkey -in {} -pubout -out {}", key.display(), public.display()));
    let server = Server::start(&lab, &format!("jwt_key_file = {}\n", public.display()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = format!(r#"{{"sub":"grace","exp":{}}}"#, now + 600);
    let good = sign_by_openssl(&lab, &claims, &key);
    assert_eq!(status(&lab.srv, local(), &format!("/?token={good}"), &[]), 0);
    server.wait_for_log("identity=\"grace (signed token)\"");
    // The public key is no secret: whoever takes it for one is refused.
    let text = std::fs::read_to_string(&public).expect("the key");
    let forged = sign(&lab, r#"{"alg":"HS256"}"#, &claims, &text);
    let other = lab.file("other.key");
    lab.srv.run(&format!("openssl genpkey -algorithm ed25519 -out {}", other.display()));
    let foreign = sign_by_openssl(&lab, &claims, &other);
    for wrong in [forged, foreign] {
        assert_eq!(status(&lab.srv, local(), &format!("/?token={wrong}"), &[]), 403);
    }
    nothing_secret(&server, &[&good]);
    server.stop();
    finish(lab, &[&key, &public, &other]);
}

/// A JWT whose signature (EdDSA) openssl has made.
fn sign_by_openssl(lab: &Lab, claims: &str, key: &Path) -> String {
    const PROGRAM: &str = "import base64,subprocess,sys,tempfile\n\
        b=lambda x:base64.urlsafe_b64encode(x).rstrip(b'=')\n\
        t=b(b'{\"alg\":\"EdDSA\"}')+b'.'+b(sys.argv[1].encode())\n\
        f=tempfile.NamedTemporaryFile(); f.write(t); f.flush()\n\
        s=subprocess.check_output(['openssl','pkeyutl','-sign','-rawin','-inkey',sys.argv[2],'-in',f.name])\n\
        print((t+b'.'+b(s)).decode(),end='')";
    let mut python = Command::new("python3");
    python.args(["-c", PROGRAM, claims]).arg(key);
    let output = lab.srv.output(&mut python);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a token")
}

#[test]
fn passwords_of_htpasswd_let_in_and_wrong_ones_do_not() {
    let lab = Lab::new();
    let path = lab.file("htpasswd");
    let made = lab.srv.run(&format!("htpasswd -cbB -C 4 {} dave hunter2", path.display()));
    assert!(!made.contains("hunter2"));
    let server = Server::start(&lab, &format!("basic_auth_file = {}\n", path.display()));
    let basic = |text: &'static str| status(&lab.srv, local(), "/", &[("authorization", text)]);
    assert_eq!(basic("Basic ZGF2ZTpodW50ZXIy"), 0, "dave:hunter2");
    assert_eq!(basic("basic ZGF2ZTpodW50ZXIy"), 0, "remembered");
    assert_eq!(basic("Basic ZGF2ZTpodW50ZXIz"), 403, "dave:hunter3");
    assert_eq!(basic("Basic ZXZlOmh1bnRlcjI="), 403, "eve:hunter2");
    assert_eq!(basic("Basic !!!"), 403);
    server.wait_for_log("identity=\"dave (password)\"");
    nothing_secret(&server, &["hunter", "ZGF2ZTpod"]);
    server.stop();
    std::fs::write(&path, "dave:{SHA}xyz\n").expect("a file can be written");
    let log = Server::refuses(&lab, &format!("basic_auth_file = {}\n", path.display()), &[]);
    assert!(log.contains("htpasswd:1") && log.contains("htpasswd -B"), "{log}");
    finish(lab, &[&path]);
}

#[test]
fn a_client_certificate_is_a_proof_and_its_name_stands_in_the_log() {
    let (lab, tokens, conf) = with_tokens(&line("alice", SECRET, ""));
    let (identity, authority) = (Identity::self_signed(&["localhost"]), Authority::new());
    let (cert, ca) = (lab.file("server.pem"), lab.file("ca.pem"));
    identity.write(&cert);
    std::fs::write(&ca, authority.certificate()).expect("a file can be written");
    let conf = format!(
        "{conf}wss_server_cert = {}\nwss_client_ca = {}\nwss_client_cert = optional\n",
        cert.display(),
        ca.display()
    );
    let server = Server::start(&lab, &conf);
    let trust = Trust::new(&identity.certificate, "localhost");
    let wss = SocketAddr::from(([127, 0, 0, 1], 8087));
    let connect =
        |path: &str, trust: &Trust| RawGuest::connect_tls(&lab.srv, wss, path, &[], trust);
    connect("/", &trust.clone().as_client(authority.client("erin"))).expect("erin").leave();
    server.wait_for_log("identity=\"erin (certificate)\"");
    assert!(matches!(connect("/", &trust), Err(Error::Http(_))), "no proof at all");
    connect(&format!("/?token={SECRET}"), &trust).expect("alice").leave();
    server.stop();
    finish(lab, &[&tokens, &cert, &ca]);
}

#[test]
fn wrong_proofs_lead_to_a_ban_that_attempts_prolong_and_that_harms_no_other() {
    let (lab, path, conf) = with_tokens(&line("alice", SECRET, ""));
    let server = Server::start(&lab, &format!("{conf}ban_after = 3\nban_time = 2\n"));
    let good = format!("/?token={SECRET}");
    let lan = SocketAddr::from((address::LAN, 8086));
    for _ in 0..3 {
        assert_eq!(status(&lab.inet, wan(), "/?token=guess", &[]), 403);
    }
    server.wait_for_log("banned");
    let banned = Instant::now();
    while banned.elapsed() < Duration::from_secs(4) {
        assert_eq!(status(&lab.inet, wan(), &good, &[]), 1, "closed, whatever it shows");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(status(&lab.lan, lan, &good, &[]), 0, "another address");
    for _ in 0..10 {
        assert_eq!(status(&lab.srv, local(), "/?token=guess", &[]), 403, "never this machine");
    }
    wait_until("the ban is over once the attempts end", || {
        std::thread::sleep(Duration::from_millis(2500));
        status(&lab.inet, wan(), &good, &[]) == 0
    });
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn an_address_and_a_token_have_as_many_clients_as_they_may() {
    let (lab, path, conf) = with_tokens(&format!(
        "{}{}",
        line("alice", SECRET, "max_clients=2"),
        line("bob", OTHER, "")
    ));
    let server = Server::start(&lab, &format!("{conf}max_clients_per_address = 3\n"));
    let (alice, bob) = (format!("/?token={SECRET}"), format!("/?token={OTHER}"));
    let connect = |path: &str| RawGuest::connect_to(&lab.inet, wan(), path, &[]).expect("a guest");
    let first = [connect(&alice), connect(&alice)];
    assert_eq!(status(&lab.inet, wan(), &alice, &[]), 429, "a third of alice");
    assert_eq!(status(&lab.srv, local(), &alice, &[]), 429, "from wherever");
    let third = connect(&bob);
    assert_eq!(status(&lab.inet, wan(), &bob, &[]), 429, "a fourth of the address");
    assert_eq!(status(&lab.srv, local(), &bob, &[]), 0, "another address");
    drop((first, third));
    wait_until("their places are free", || status(&lab.inet, wan(), &alice, &[]) == 0);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn an_address_that_connects_too_often_is_turned_away_for_a_moment() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0\nhandshake_rate = 2\n");
    let answers: Vec<u16> = (0..40).map(|_| status(&lab.inet, wan(), "/", &[])).collect();
    assert!(answers[..10].iter().all(|status| *status == 0), "five times as many: {answers:?}");
    assert!(answers.contains(&1), "{answers:?}");
    let lan = SocketAddr::from((address::LAN, 8086));
    assert_eq!(status(&lab.lan, lan, "/", &[]), 0, "another address");
    (0..40).for_each(|_| assert_eq!(status(&lab.srv, local(), "/", &[]), 0, "this machine"));
    wait_until("it may again", || status(&lab.inet, wan(), "/", &[]) == 0);
    server.stop();
    lab.finish();
}

#[test]
fn sessions_end_with_their_time_their_proof_and_when_idle() {
    let others = format!(
        "{}{}",
        line("alice", SECRET, "session_time=1"),
        line("carol", "THIRDSECRETOFSOMELENGTH", "session_time=3600")
    );
    let (lab, path, conf) = with_tokens(&others);
    let server = Server::start(&lab, &format!("{conf}idle_time = 2\n"));
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 6;
    let date = lab.srv.run(&format!("date -u -d @{expires} +%Y-%m-%dT%H:%M:%SZ"));
    let bob = line("bob", OTHER, &format!("expires={}", date.trim()));
    std::fs::write(&path, format!("{others}{bob}")).expect("a file can be written");
    let conf_file = lab.file("wsnic.conf");
    run_wsnic(&lab.srv, &["reload", "-c", conf_file.to_str().expect("a path")]);
    let connect = |token: &str| {
        let target = format!("/?token={token}");
        RawGuest::connect_to(&lab.srv, local(), &target, &[]).expect("a guest")
    };
    let (mut alice, mut bob) = (connect(SECRET), connect(OTHER));
    let (mut idle, mut busy) =
        (connect("THIRDSECRETOFSOMELENGTH"), connect("%54HIRDSECRETOFSOMELENGTH"));
    assert_eq!(alice.close_code(), 1008);
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        bob.shout("I am here");
        busy.shout("I am here");
        std::thread::sleep(Duration::from_millis(200));
        if server.log().contains("bob (token)") && server.log().matches("time is over").count() == 2
        {
            break;
        }
    }
    assert_eq!(idle.close_code(), 1008);
    assert_eq!(bob.close_code(), 1008);
    busy.dhcp();
    for reason in ["the session's time is over", "the guest is idle"] {
        server.wait_for_log(reason);
    }
    assert_eq!(status(&lab.srv, local(), &format!("/?token={OTHER}"), &[]), 403, "expired");
    drop(busy);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn a_reload_takes_tokens_away_and_brings_new_ones_and_ends_no_session() {
    let (lab, path, conf) = with_tokens(&line("alice", SECRET, ""));
    let server = Server::start(&lab, &conf);
    let (alice, bob) = (format!("/?token={SECRET}"), format!("/?token={OTHER}"));
    let mut guest = RawGuest::connect_to(&lab.srv, local(), &alice, &[]).expect("alice");
    let conf_file = lab.file("wsnic.conf");
    let conf_file = conf_file.to_str().expect("a path");
    std::fs::write(&path, line("bob", OTHER, "")).expect("a file can be written");
    let (good, output) = run_wsnic(&lab.srv, &["reload", "-c", conf_file]);
    assert!(good.success(), "{output}");
    assert_eq!(status(&lab.srv, local(), &alice, &[]), 403);
    assert_eq!(status(&lab.srv, local(), &bob, &[]), 0);
    std::fs::write(&path, format!("{}broken\n", line("bob", OTHER, ""))).expect("a file");
    let (good, output) = run_wsnic(&lab.srv, &["reload", "-c", conf_file]);
    assert!(!good.success() && output.contains("tokens:2"), "{output}");
    assert_eq!(status(&lab.srv, local(), &bob, &[]), 0, "as before");
    guest.dhcp();
    drop(guest);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn what_wsnic_token_makes_lets_its_holder_in() {
    let (lab, path, conf) = with_tokens("");
    std::fs::remove_file(&path).expect("a file of the test");
    let conf_file = lab.file("wsnic.conf");
    std::fs::write(&conf_file, &conf).expect("a file can be written");
    let conf_path = conf_file.to_str().expect("a path");
    let (good, output) = run_wsnic(&lab.srv, &["token", "frank", "--append", "-c", conf_path]);
    assert!(good.success(), "{output}");
    let mode = std::fs::metadata(&path).expect("the token file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (_, secret) = output.split_once("?token=").expect("an address");
    let secret = secret.split_whitespace().next().expect("a secret").to_owned();
    let text = std::fs::read_to_string(&path).expect("the token file");
    assert!(text.starts_with("frank sha256:") && !text.contains(&secret), "{text}");
    let server = Server::start(&lab, &conf);
    assert_eq!(status(&lab.srv, local(), &format!("/?token={secret}"), &[]), 0);
    server.wait_for_log("identity=\"frank (token)\"");
    nothing_secret(&server, &[&secret]);
    server.stop();
    finish(lab, &[&path]);
}

#[test]
fn clients_of_a_trusted_proxy_are_told_apart() {
    let (lab, path, conf) = with_tokens(&line("alice", SECRET, ""));
    let conf =
        format!("{conf}trusted_proxies = 127.0.0.1\nban_after = 2\nmax_clients_per_address = 1\n");
    let server = Server::start(&lab, &conf);
    let good = format!("/?token={SECRET}");
    let via = |client: &'static str, target: &str| {
        status(&lab.srv, local(), target, &[("x-forwarded-for", client)])
    };
    for _ in 0..2 {
        assert_eq!(via("203.0.113.66", "/?token=guess"), 403);
    }
    assert_eq!(via("203.0.113.66", &good), 403, "banned");
    assert_eq!(via("203.0.113.67", &good), 0);
    let headers = [("x-forwarded-for", "2001:db8::1")];
    let guest = RawGuest::connect_to(&lab.srv, local(), &good, &headers).expect("a guest");
    assert_eq!(via("2001:db8::2", &good), 429, "the same /64");
    assert_eq!(via("2001:db8:0:1::2", &good), 0);
    drop(guest);
    server.stop();
    finish(lab, &[&path]);
}
