//! What a refusal costs the server, and what guests inside notice of many.

use crate::client::Busy;
use crate::flow;
use crate::options::Options;
use crate::stage::{Guest, Stage};
use crate::table::{Bound, Row, Table, median, rounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wsnic_tests::{Netns, address, run_wsnic, wait_until};

/// A refusal for an acceptance.
const CHEAP: Bound = Bound::AtMost(0.333);
/// What guests keep of their throughput.
const KEPT: Bound = Bound::AtLeast(0.88);
/// Of one core, for refusals.
const SHARE: f64 = 0.10;
/// Where another program refuses.
const OTHER_PORT: u16 = 8099;
/// The secret of signed tokens, for which none here is signed.
const JWT_KEY: &str = "0123456789abcdef0123456789abcdef";
/// Threads that are refused: each waits for its answers.
const FLOODERS: u32 = 4;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// 403 for a wrong token, and nothing at all for who comes too fast.
pub fn run(options: &Options, table: &mut Table) {
    let token = Token::new("guest");
    // Nobody is banned: each guess is looked at.
    let stage = token.stage("ban_time = 0\n");
    let guest = Guest::join_path(&stage, 0, &token.path());
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        accepted.push(cost(&stage, options.count(400, 5), || knock(&token.path(), "101")));
        refused.push(cost(&stage, options.count(2000, 5), || knock("/?token=guess", "403")));
    }
    let price = median(refused.clone());
    add(table, "a handshake with a wrong token, server's CPU", &refused, &accepted);
    let (mut accepted_tls, mut refused_tls) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let knock = |path: &str, status| knock_tls(&stage, path, status);
        accepted_tls.push(cost(&stage, options.count(400, 5), || knock(&token.path(), "101")));
        refused_tls.push(cost(&stage, options.count(1000, 5), || knock("/?token=guess", "403")));
    }
    add(table, "the same by wss, server's CPU", &refused_tls, &accepted_tls);
    inside(options, table, &stage, &guest, price);
    drop(guest);
    stage.end();
    let stage = token.stage("handshake_rate = 1\n");
    // What may come at once has come.
    stage.lab.lan.enter(|| (0..10).for_each(|_| drop(knock("/?token=guess", "403"))));
    let turned: Vec<f64> = (0..options.rounds)
        .map(|_| cost(&stage, options.count(2000, 5), || knock("/?token=guess", "")))
        .collect();
    add(table, "one beyond handshake_rate, server's CPU", &turned, &accepted);
    stage.end();
    alike(options, table);
}

/// The time until each kind of refusal is there, in turns: what a guesser could learn from it.
fn alike(options: &Options, table: &mut Table) {
    let (good, old) = (Token::new("guest"), Token::new("late"));
    let lines = format!("{}{} expires=2020-01-01\n", good.line, old.line.trim_end());
    let files = [("token_file", lines.as_str()), ("jwt_key_file", JWT_KEY)];
    let stage = Stage::wsnic_with_tls(&files, "ban_time = 0\n");
    // {"alg":"HS256","typ":"JWT"}, {"exp":4102444800}, and no signature of that.
    let signed = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2lnbmF0dXJl";
    let kinds = [
        ("no proof", "/".to_owned()),
        ("a wrong token", "/?token=guess".to_owned()),
        ("one that has expired", old.path()),
        ("one that is signed wrongly", format!("/?token={signed}")),
    ];
    let mut times = vec![Vec::new(); kinds.len()];
    stage.lab.lan.enter(|| {
        for _ in 0..options.count(2000, 5) {
            for ((_, path), times) in kinds.iter().zip(&mut times) {
                let started = Instant::now();
                knock(path, "403").expect("an answer");
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
    });
    stage.end();
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let slowest = medians.iter().copied().fold(0.0, f64::max);
    let fastest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let each = kinds.iter().zip(&medians);
    let each: Vec<String> =
        each.map(|((kind, _), time)| format!("{kind} {}", rounded(*time))).collect();
    let row = Row::of("time to a refusal, the slowest kind", "µs", slowest);
    let row = row.ratio("to the fastest kind", slowest / fastest, None);
    table.add(row.note(each.join(", ")));
}

fn add(table: &mut Table, what: &str, costs: &[f64], accepted: &[f64]) {
    let ratio = costs.iter().zip(accepted).map(|(cost, accepted)| cost / accepted).collect();
    let micro = |costs: &[f64]| median(costs.to_vec()) * 1e6;
    let to = format!("to {} for one that is let in", rounded(micro(accepted)));
    table.add(Row::of(what, "µs", micro(costs)).ratio(to, median(ratio), Some(CHEAP)));
}

/// Throughput of a guest while refusals take their share of a core, while as many come to another
/// program on the same machine, and while none do.
fn inside(options: &Options, table: &mut Table, stage: &Stage, guest: &Guest, price: f64) {
    let pause = Duration::from_secs_f64(price / SHARE) * FLOODERS;
    let other = SocketAddr::from((address::LAN, OTHER_PORT));
    let listener = stage.lab.srv.enter(|| TcpListener::bind(other)).expect("a free port");
    // The machine's cores are full of clients and guests. What refusals take would be taken from the
    // share of them that the server has for frames, however small that is.
    stage.goes_first();
    let refuser = Busy::start(move |stop, _| refuse(&listener, stop));
    for (from_guest, way) in [(true, "from"), (false, "to")] {
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let window = |target: Option<SocketAddr>| {
                let flood = |target| (0..FLOODERS).map(move |_| flood(target, pause));
                let floods: Vec<Busy> =
                    stage.lab.lan.enter(|| target.into_iter().flat_map(flood).collect());
                let sample =
                    flow::window(stage, guest, from_guest, options.warm_up, options.window);
                (sample.gigabits, floods.iter().map(Busy::count).sum::<u64>())
            };
            rounds.push([window(None), window(Some(other)), window(Some(door()))]);
        }
        let middle = |at: usize| median(rounds.iter().map(|round| round[at].0).collect());
        let ratio = |to: usize| median(rounds.iter().map(|it| it[2].0 / it[to].0).collect());
        let seconds = (options.warm_up + options.window).as_secs_f64();
        let rate = |at: usize| median(rounds.iter().map(|it| it[at].1 as f64).collect()) / seconds;
        let row = Row::of(format!("TCP {way} guest during refusals"), "Gbit/s", middle(2));
        let row = row.ratio(
            format!("to {} while another refuses as many", rounded(middle(1))),
            ratio(1),
            Some(KEPT),
        );
        let row = row.ratio(format!("to {} without", rounded(middle(0))), ratio(0), None);
        let note =
            format!("{} refused in a second, by the other {}", rounded(rate(2)), rounded(rate(1)));
        table.add(row.note(note));
    }
    drop(refuser);
}

/// Says 403 to everybody.
fn refuse(listener: &TcpListener, stop: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener");
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, PollTimeout::from(20_u8));
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let _ = stream.set_nonblocking(false);
        let mut bytes = [0; 2048];
        let asked = stream.read(&mut bytes);
        let _ = asked.and_then(|_| stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n"));
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut bytes);
    }
}

/// Clients that are refused, one after the other with a pause, in the namespace of the caller.
fn flood(target: SocketAddr, pause: Duration) -> Busy {
    Busy::start(move |stop, count| {
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            knock_at(target, "/?token=guess", "403").expect("an answer");
            count.fetch_add(1, Ordering::Relaxed);
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    })
}

/// Seconds of the server's processor time for each of so many clients, one after the other.
fn cost(stage: &Stage, count: usize, client: impl Fn() -> io::Result<()> + Sync) -> f64 {
    let ports = stage.lab.ports();
    let before = stage.cpu();
    stage.lab.lan.enter(|| (0..count).for_each(|_| client().expect("an answer")));
    wait_until("those who were let in are gone", || stage.lab.ports() <= ports);
    (stage.cpu() - before) / count as f64
}

/// Asks for a WebSocket and goes when the answer, of this status, is there. Without a status nobody has
/// to answer.
fn knock(path: &str, status: &str) -> io::Result<()> {
    knock_at(door(), path, status)
}

fn door() -> SocketAddr {
    SocketAddr::from((address::LAN, 8086))
}

fn knock_at(address: SocketAddr, path: &str, status: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let head = crate::stage::request(path);
    // Who is turned away may be gone before he has asked.
    let asked = stream.write_all(head.as_bytes());
    let mut answer = vec![0; 4096];
    let len = asked.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
    let _ = stream.shutdown(Shutdown::Both);
    if status.is_empty() || answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()) {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&answer[..len]).into_owned()))
}

/// The same by wss, with a whole TLS handshake.
fn knock_tls(stage: &Stage, path: &str, status: &str) -> io::Result<()> {
    let answer = match stage.connect_tls(path) {
        Ok((stream, _)) => {
            let _ = stream.shutdown(Shutdown::Both);
            "HTTP/1.1 101 ".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let wanted = format!("HTTP/1.1 {status} ");
    if answer.starts_with(&wanted) { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// A token that lets its holder in.
struct Token {
    line: String,
    secret: String,
}

impl Token {
    fn new(name: &str) -> Token {
        let (status, output) = run_wsnic(&Netns::new(), &["token", name]);
        assert!(status.success(), "{output}");
        let line = output.lines().find(|line| line.contains(" sha256:")).expect("a line");
        let (_, secret) = output.split_once("?token=").expect("an example with the secret");
        let secret = secret.split_whitespace().next().expect("a secret");
        Token { line: format!("{line}\n"), secret: secret.to_owned() }
    }

    fn stage(&self, conf: &str) -> Stage {
        Stage::wsnic_with_tls(&[("token_file", &self.line)], conf)
    }

    fn path(&self) -> String {
        format!("/?token={}", self.secret)
    }
}
