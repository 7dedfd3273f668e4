//! Real clients by ws and wss: Chromium, Node, Python, curl and openssl.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wsnic_tests::browser;
use wsnic_tests::clients::{self, Answer};
use wsnic_tests::frames::Dhcp;
use wsnic_tests::{Identity, LIMIT, Lab, RawGuest, Server, Trust, wait_until};

const WS: &str = "ws://localhost:8086/any/path?x=y";
const WSS: &str = "wss://localhost:8087/";
/// 1006: the connection was lost, here before there was one (RFC 6455 §7.4.1).
const NO_TRUST: Answer = Answer::Close(1006);

/// A lab with a server of ws and wss, whose certificate nobody knows.
struct World {
    lab: Lab,
    server: Server,
    identity: Identity,
    certificate: PathBuf,
    home: PathBuf,
}

impl World {
    fn new() -> World {
        let lab = Lab::new();
        let identity = Identity::self_signed(&["localhost", "127.0.0.1"]);
        let certificate = lab.file("server.pem");
        identity.write(&certificate);
        let conf = format!("wss_server_cert = {}\n", certificate.display());
        let server = Server::start(&lab, &conf);
        // For programs that write into it.
        let home = lab.file("home");
        std::fs::create_dir(&home).expect("a folder of the test");
        World { lab, server, identity, certificate, home }
    }

    fn run(&self, script: &str) -> String {
        let output = self.lab.srv.output(
            Command::new("sh")
                .args(["-euc", script])
                .env("HOME", &self.home)
                .env("CERT", &self.certificate),
        );
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{script}` failed: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn guest(&self) -> RawGuest {
        let trust = Trust::new(&self.identity.certificate, "localhost");
        let wss = SocketAddr::from(([127, 0, 0, 1], 8087));
        let guest = RawGuest::connect_tls(&self.lab.srv, wss, "/", &[], &trust);
        guest.expect("a guest by wss")
    }

    fn finish(self) {
        self.server.stop();
        std::fs::remove_dir_all(self.home).expect("a folder of the test");
        std::fs::remove_file(self.certificate).expect("a file of the test");
        self.lab.finish();
    }
}

/// A DISCOVER, sent by one of these clients, is answered with an OFFER for it.
fn offered(number: u8, client: impl FnOnce(&[u8]) -> Answer) {
    let discover = Dhcp::new(1, [2, 0x86, 0x0c, 0, 0, number]);
    let offer = client(&discover.frame()).dhcp();
    assert_eq!((offer.kind, offer.chaddr, offer.xid), (2, discover.chaddr, discover.xid));
}

#[test]
fn a_page_in_chromium_gets_an_answer_by_ws_and_by_wss_that_it_was_told_to_trust() {
    let world = World::new();
    let page = |url: &str, frame: &[u8], options: &[&str]| {
        clients::chromium(&world.lab, url, frame, &world.home, options)
    };
    offered(1, |frame| page(WS, frame, &[]));
    assert_eq!(page(WSS, &[0; 60], &[]), NO_TRUST);
    let trusting = browser::trusting(&world.certificate);
    offered(2, |frame| page(WSS, frame, &[&trusting]));
    assert_eq!(page(WSS, &[0; 60], &[]), NO_TRUST, "it remembers nothing");
    // As `wsnic cert` says.
    world.run("mkdir -p $HOME/.pki/nssdb; certutil -d sql:$HOME/.pki/nssdb -N --empty-password");
    world.run("certutil -d sql:$HOME/.pki/nssdb -A -t CP,CP, -n wsnic -i $CERT");
    offered(3, |frame| page(WSS, frame, &[]));
    world.finish();
}

#[test]
fn programs_in_node_and_python_get_an_answer_by_ws_and_by_wss_that_they_trust() {
    let world = World::new();
    type Client = fn(&Lab, &str, &[u8], Option<&Path>) -> Answer;
    for (number, client) in [(10, clients::node as Client), (20, clients::python)] {
        let trusted = Some(&*world.certificate);
        offered(number, |frame| client(&world.lab, WS, frame, None));
        offered(number + 1, |frame| client(&world.lab, WSS, frame, trusted));
        assert_eq!(client(&world.lab, WSS, &[0; 60], None), NO_TRUST);
    }
    world.finish();
}

#[test]
fn curl_gets_the_101_by_both_ways_and_the_page_by_https() {
    let world = World::new();
    let trust = format!("--cacert {}", world.certificate.display());
    for url in ["http://localhost:8086/", "https://localhost:8087/"] {
        let page = world.lab.srv.run(&format!("curl -sS {trust} {url}"));
        assert!(page.contains("<h1>wsnic</h1>"), "{page}");
        // It waits for an end of what is no document.
        let head = world.run(&format!(
            "curl -sS -m 1 -o /dev/null -D - {trust} -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
             -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
             --http1.1 {url} 2> $HOME/errors || test $? = 28"
        ));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    }
    let untrusted = world.lab.srv.succeeds("curl -s https://localhost:8087/");
    assert!(!untrusted, "nobody trusts it unasked");
    world.finish();
}

#[test]
fn renegotiation_is_refused_and_keys_are_renewed_and_neither_harms_others() {
    let world = World::new();
    let mut guest = world.guest();
    guest.dhcp();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // TLS 1.2 has renegotiation, and many thousands of them were an attack.
    let refused = s_client(&world, &["-tls1_2"], &["R\n", request]);
    assert!(refused.contains("RENEGOTIATING"), "{refused}");
    assert!(refused.contains("no renegotiation"), "{refused}");
    assert!(!refused.contains("<h1>wsnic</h1>"), "{refused}");
    // TLS 1.3 has new keys instead, also on request of the other side.
    let renewed = s_client(&world, &["-tls1_3"], &["k\n", "K\n", request]);
    assert_eq!(renewed.matches("KEYUPDATE").count(), 2, "{renewed}");
    assert!(renewed.contains("<h1>wsnic</h1>"), "{renewed}");
    for version in ["-tls1_2", "-tls1_3"] {
        let page = s_client(&world, &[version, "-ign_eof"], &[request]);
        assert!(page.contains("<h1>wsnic</h1>"), "{version}: {page}");
    }
    guest.ping_gateway(1400);
    drop(guest);
    world.finish();
}

/// What `openssl s_client` prints, to which these lines are typed.
fn s_client(world: &World, options: &[&str], lines: &[&str]) -> String {
    let log = world.home.join("s_client");
    let output = std::fs::File::create(&log).expect("a file can be made");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", "localhost:8087", "-CAfile"]).arg(&world.certificate);
    command.args(options).stdin(Stdio::piped());
    command.stdout(output.try_clone().expect("a handle")).stderr(output);
    let mut child = world.lab.srv.spawn(&mut command);
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    let mut stdin = child.stdin.take().expect("a pipe");
    wait_until("the handshake is done", || read().contains("Verify return code: 0"));
    for line in lines {
        // Commands are lines that are typed alone.
        std::thread::sleep(Duration::from_millis(200));
        let _ = stdin.write_all(line.as_bytes());
    }
    wait_until("openssl ends", || child.try_wait().expect("a child").is_some());
    read()
}

#[test]
fn a_record_that_is_too_long_ends_its_own_connection_only() {
    let world = World::new();
    let mut guest = world.guest();
    guest.dhcp();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let trust = Trust::new(&world.identity.certificate, "localhost");
    // 2^14 + 256 bytes are the most (RFC 8446 §5.2); rustls takes 2^14 + 2048 for TLS 1.2.
    for len in [0xffff_u16, 0x4801] {
        let wss = ("127.0.0.1", 8087);
        let stream = world.lab.srv.enter(|| std::net::TcpStream::connect(wss)).expect("it listens");
        stream.set_nonblocking(true).expect("a socket");
        let rest = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            let mut stream = trust.connect(stream).await.expect("TLS");
            let (socket, _) = stream.get_mut();
            let [high, low] = len.to_be_bytes();
            let record = [&[23, 3, 3, high, low][..], &vec![0x5a; usize::from(len)]].concat();
            // The server may have hung up before all of it.
            let _ = socket.write_all(&record).await;
            let mut rest = Vec::new();
            let end = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest)).await;
            let _ = end.expect("the server ends the connection");
            rest.len()
        });
        // Session tickets, and an alert.
        assert!(rest < 4096, "{rest} bytes");
    }
    guest.ping_gateway(1400);
    drop(guest);
    world.finish();
}

#[test]
fn half_a_record_and_then_nothing_is_no_connection_for_ever() {
    let world = World::new();
    let wss = SocketAddr::from(([127, 0, 0, 1], 8087));
    let mut stream = world.lab.srv.enter(|| std::net::TcpStream::connect(wss)).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    // A ClientHello that announces 512 bytes and has three.
    stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).expect("it takes bytes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server ends it");
    assert!(answer.is_empty(), "{answer:02x?}");
    world.guest().leave();
    world.finish();
}
