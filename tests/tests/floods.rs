//! Crowds at the door: what is slow, half-open or too often there goes in the documented time, and
//! who is inside, or comes from elsewhere, does not notice.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wsnic_tests::{
    Door, HANDSHAKE, Identity, LIMIT, Lab, Netns, RawGuest, Server, Trust, address, open_files,
    run_wsnic, wait_until,
};

/// Long enough for 10 s, which a head and a TLS handshake have (README.md).
const SLOW: Duration = Duration::from_secs(40);
/// Connections of one crowd.
const CROWD: usize = 500;
/// Connections of a flood.
const FLOOD: usize = 10_000;
/// Threads that connect.
const THREADS: usize = 4;

fn from(netns: &Netns, ip: impl Into<IpAddr>) -> RawGuest {
    let guest = RawGuest::connect_to(netns, SocketAddr::new(ip.into(), 8086), "/", &[]);
    let mut guest = guest.unwrap_or_else(|error| panic!("no guest: {error}"));
    guest.dhcp();
    guest
}

/// Lets a guest ask the gateway for as long as `work` takes, and once after it.
fn while_serving<T: Send>(guest: &mut RawGuest, work: impl FnOnce() -> T + Send) -> T {
    let done = AtomicBool::new(false);
    let mut answers = 0;
    let value = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let value = work();
            done.store(true, Ordering::Relaxed);
            value
        });
        while !done.load(Ordering::Relaxed) && !work.is_finished() {
            guest.ping_gateway(1000);
            answers += 1;
        }
        work.join().expect("the flood")
    });
    guest.ping_gateway(1000);
    assert!(answers > 0, "the guest was served meanwhile");
    value
}

/// Whether the server has ended this connection; what it has sent is thrown away.
fn has_ended(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn slow_heads_and_tls_handshakes_that_stop_half_way_are_ended_while_a_guest_is_served() {
    let lab = Lab::new();
    let (identity, path) = (Identity::self_signed(&["localhost"]), lab.file("server.pem"));
    identity.write(&path);
    let conf = format!("ws_server_addr = 0.0.0.0\nwss_server_cert = {}\n", path.display());
    let server = Server::start(&lab, &conf);
    let mut guest = from(&lab.inet, address::WAN);
    let files = open_files(server.front_end());
    // Loopback addresses have no limit of connections in a second, so that all are let in.
    let connect = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, LIMIT).expect("it listens");
        stream.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut crowd: Vec<(usize, TcpStream)> = lab.srv.enter(|| {
        (0..CROWD).map(|at| (at % 4, connect(if at % 2 == 0 { 8086 } else { 8087 }))).collect()
    });
    // 0: a head, a byte at a time; 1: half a ClientHello, the same; 2 and 3: nothing at all.
    let head = format!("{HANDSHAKE}X-Long: {}\r\n\r\n", "x".repeat(4096));
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 400]].concat();
    let left = while_serving(&mut guest, || {
        let end = Instant::now() + SLOW;
        let mut sent = 0;
        while !crowd.is_empty() && Instant::now() < end {
            for (kind, stream) in &mut crowd {
                let bytes: &[u8] = match *kind {
                    0 => head.as_bytes(),
                    1 => &hello,
                    _ => &[],
                };
                let _ = stream.write(bytes.get(sent..=sent).unwrap_or_default());
            }
            sent += 1;
            crowd.retain_mut(|(_, stream)| !has_ended(stream));
            std::thread::sleep(Duration::from_millis(100));
        }
        crowd.len()
    });
    assert_eq!(left, 0, "connections are still open");
    wait_until("nothing is held for them", || open_files(server.front_end()) <= files);
    // There is room for others, by both ways.
    let wss = SocketAddr::from((address::WAN, 8087));
    let trust = Trust::new(&identity.certificate, "localhost");
    RawGuest::connect_tls(&lab.inet, wss, "/", &[], &trust).expect("a guest").dhcp();
    guest.leave();
    server.stop();
    std::fs::remove_file(path).expect("a file of the test");
    lab.finish();
}

/// Defaults: 20 connections in a second from one address, 100 at once, and 100 clients.
#[test]
fn ten_thousand_connects_from_one_address_are_turned_away_and_a_guest_loses_nothing() {
    let lab = Lab::new();
    let server = Server::start(&lab, "ws_server_addr = 0.0.0.0\n");
    let mut guest = from(&lab.inet, address::WAN);
    let started = Instant::now();
    let (next, let_in) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let address = SocketAddr::from((address::LAN, 8086));
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < FLOOD {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT).expect("it listens");
            stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
            // Who is turned away may be gone before he has asked.
            let _ = stream.write_all(format!("{HANDSHAKE}\r\n").as_bytes());
            let mut answer = [0; 12];
            if stream.read_exact(&mut answer).is_ok() {
                assert_eq!(&answer, b"HTTP/1.1 101");
                let_in.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    while_serving(&mut guest, || {
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(|| lab.lan.enter(work))));
        });
    });
    let (let_in, seconds) = (let_in.into_inner(), started.elapsed().as_secs() as usize + 1);
    assert!((1..=100 + 20 * seconds).contains(&let_in), "{let_in} were let in, in {seconds} s");
    // Somebody else's first is as good as ever.
    from(&lab.inet, address::WAN).leave();
    wait_until("the ports of those who were let in are gone", || lab.ports() == 1);
    guest.leave();
    let log = server.stop();
    assert!(log.contains("handshake_rate"), "it is said why: {log}");
    assert!(log.lines().count() < 3000, "a flood does not fill the log: {}", log.lines().count());
    lab.finish();
}

#[test]
fn a_flood_of_wrong_tokens_bans_its_address_and_no_other() {
    let mut lab = Lab::new();
    let (status, output) = run_wsnic(&lab.srv, &["token", "alice"]);
    assert!(status.success(), "{output}");
    let line = output.lines().find(|line| line.contains(" sha256:")).expect("a line of the file");
    let (_, secret) = output.split_once("?token=").expect("an example with the secret");
    let secret = secret.split_whitespace().next().expect("a secret").to_owned();
    let file = lab.file("tokens");
    std::fs::write(&file, format!("{line}\n")).expect("a file can be written");
    lab.settle();
    let conf = format!("ws_server_addr = 0.0.0.0\ntoken_file = {}\n", file.display());
    let server = Server::start(&lab, &conf);
    let (wan, lan) =
        (SocketAddr::from((address::WAN, 8086)), SocketAddr::from((address::LAN, 8086)));
    let path = format!("/?token={secret}");
    let mut guest = RawGuest::connect_to(&lab.inet, wan, &path, &[]).expect("a guest");
    guest.dhcp();
    let guess = |number: usize| {
        let mut door = Door::knock_at(&lab.lan, lan);
        let head = HANDSHAKE.replace("GET /", &format!("GET /?token=guess{number}"));
        // Who is banned may be gone before he has asked.
        let _ = door.try_send(format!("{head}\r\n").as_bytes());
        let mut answer = Vec::new();
        let _ = door.into_stream().read_to_end(&mut answer);
        answer
    };
    let answers: Vec<Vec<u8>> = while_serving(&mut guest, || (0..60).map(guess).collect());
    let (answered, silent): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| !answer.is_empty());
    // ban_after's default.
    assert_eq!((answered.len(), silent.len()), (10, 50));
    assert!(answered.iter().all(|answer| answer.starts_with(b"HTTP/1.1 403 ")));
    assert!(answers[..10].iter().all(|answer| !answer.is_empty()), "the first ones");
    assert!(
        RawGuest::connect_to(&lab.lan, lan, &path, &[]).is_err(),
        "not even with the right one"
    );
    RawGuest::connect_to(&lab.inet, wan, &path, &[]).expect("one from elsewhere").leave();
    RawGuest::connect_to(&lab.srv, Server::address(), &path, &[]).expect("from here").leave();
    guest.leave();
    let log = server.stop();
    assert_eq!(log.matches("banned: too many wrong proofs").count(), 1, "{log}");
    assert!(!log.contains(&secret) && !log.contains("guess1"), "nothing secret: {log}");
    lab.finish();
}
