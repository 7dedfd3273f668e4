//! The log: what stands in it, in which shape, and where it goes.

use serde_json::Value;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use wsnic_tests::frames::{self, Dhcp};
use wsnic_tests::{Door, LIMIT, Lab, RawGuest, Server, address, run_wsnic, wait_until};

const CONNECTED: &str = "client connected";
const DISCONNECTED: &str = "client disconnected";
const LEASED: &str = "dhcp: leased";

/// A guest that comes, sends a little, and is ended by the operator; what the server then has logged.
fn kicked_guest(lab: &Lab, server: &Server) -> String {
    let mut guest = RawGuest::join(lab);
    guest.ping_gateway(56);
    let (status, text) = run_wsnic(&lab.srv, &["kick", "1"]);
    assert!(status.success(), "{text}");
    server.wait_for_log(DISCONNECTED);
    guest.mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A /dev of the server's own, in which no syslog daemon listens yet.
fn own_devices(lab: &Lab) {
    for line in [
        "mount -n -t tmpfs tmpfs /mnt",
        "mkdir /mnt/net",
        "mknod -m 666 /mnt/null c 1 3",
        "mknod -m 666 /mnt/zero c 1 5",
        "mknod -m 666 /mnt/random c 1 8",
        "mknod -m 666 /mnt/urandom c 1 9",
        "mknod -m 666 /mnt/net/tun c 10 200",
        "mount -n --bind /mnt /dev",
    ] {
        lab.srv.run(line);
    }
}

/// What a syslog daemon gets, until a line contains `last`.
fn until(daemon: &UnixDatagram, last: &str) -> Vec<String> {
    daemon.set_read_timeout(Some(LIMIT)).expect("a socket has a timeout");
    let mut lines = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let len = daemon.recv(&mut bytes).unwrap_or_else(|error| panic!("{error} in {lines:#?}"));
        lines.push(String::from_utf8(bytes[..len].to_vec()).expect("text"));
        if lines.last().is_some_and(|line| line.contains(last)) {
            return lines;
        }
    }
}

#[test]
fn a_session_has_two_lines_that_say_who_where_how_long_how_much_and_why() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mac = kicked_guest(&lab, &server);
    let log = server.log();
    let line = |what: &str| {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(what)).collect();
        assert_eq!(lines.len(), 1, "{what}: {log}");
        lines[0].to_owned()
    };
    let (start, end) = (line(CONNECTED), line(DISCONNECTED));
    for known in
        ["client=127.0.0.1:", "identity=\"anyone\"", "network=default", "wstap0", "session=1"]
    {
        assert!(start.contains(known) && end.contains(known), "{known}:\n{start}\n{end}");
    }
    let mac = format!("mac={mac}");
    for known in
        [&mac, "reason=", "seconds=", "frames_in=", "bytes_in=", "frames_out=", "bytes_out="]
    {
        assert!(end.contains(known), "{known}: {end}");
    }
    assert!(!start.contains("room="), "{start}");
    server.stop();
    lab.finish();
}

#[test]
fn with_json_every_line_of_all_programs_is_an_object() {
    let lab = Lab::new();
    let options = ["--log-format", "json", "-v"];
    let server = Server::start_with(&lab, "", &options);
    let mac = kicked_guest(&lab, &server);
    // What it says to the person who started it goes to standard output, which is the same file here.
    let log = server.stop();
    let text = log.lines().filter(|line| !line.starts_with('{'));
    assert!(text.clone().all(|line| !line.contains("wsnic-") && !line.contains("INFO")), "{log}");
    let objects = log.lines().filter(|line| line.starts_with('{'));
    let objects: Vec<Value> = objects
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for object in &objects {
        let time = object["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{object}");
        assert!(object["message"].is_string(), "{object}");
        assert!(["DEBUG", "INFO", "WARN"].contains(&object["level"].as_str().expect("a level")));
    }
    for program in ["wsnic", "wsnic-priv", "wsnic-front"] {
        assert!(objects.iter().any(|object| object["program"] == program), "{program}: {log}");
    }
    let end = objects.iter().find(|object| object["message"] == DISCONNECTED).expect("an end");
    assert_eq!((&end["network"], &end["session"]), (&"default".into(), &1.into()), "{end}");
    assert_eq!(end["mac"], mac, "{end}");
    assert!(end["frames_in"].as_u64() > Some(0) && end["reason"].is_string(), "{end}");
    lab.finish();
}

#[test]
fn the_journal_gets_priorities_and_nobody_else_does() {
    let lab = Lab::new();
    let server = Server::start_as_if_for_the_journal(&lab, "dhcp_lease_time = 600\n", true);
    drop(RawGuest::join(&lab));
    server.wait_for_log(DISCONNECTED);
    let log = server.log();
    for known in ["<6>INFO wsnic: ", "<6>INFO wsnic-priv: ", "<6>INFO wsnic-front: "] {
        assert!(log.lines().any(|line| line.starts_with(known)), "{known}: {log}");
    }
    server.stop();

    let server = Server::start_as_if_for_the_journal(&lab, "", false);
    let log = server.stop();
    assert!(!log.contains("<6>") && log.contains(" INFO wsnic-priv: "), "{log}");
    lab.finish();
}

#[test]
fn the_syslog_daemon_gets_every_line_also_from_inside_the_sandbox() {
    let lab = Lab::new();
    own_devices(&lab);
    let daemon = lab.srv.enter(|| UnixDatagram::bind("/dev/log")).expect("a syslog daemon");
    let server = Server::start_with(&lab, "sandbox = require\n", &["--use-syslog"]);
    let guest = RawGuest::join(&lab);
    let lines = until(&daemon, CONNECTED);
    for known in [
        "<30>wsnic: configuration read",
        "<30>wsnic-priv: guests reach",
        "<30>wsnic-front: client connected",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(known)), "{known}: {lines:#?}");
    }
    let log = server.log();
    assert!(!log.contains("INFO") && log.contains("wsnic is ready"), "{log}");
    // Without a daemon the lines go where they can.
    drop(daemon);
    drop(guest);
    server.wait_for_log("wsnic-front: client disconnected");
    assert!(!server.log().contains("<30>"), "{}", server.log());
    wait_until("the guest's port is gone", || lab.ports() == 0);
    server.stop();
    lab.finish();
}

#[test]
fn a_syslog_daemon_that_sleeps_holds_up_no_guest() {
    let lab = Lab::new();
    own_devices(&lab);
    let daemon = lab.srv.enter(|| UnixDatagram::bind("/dev/log")).expect("a syslog daemon");
    let server = Server::start_with(&lab, "", &["--use-syslog", "-v"]);
    // The kernel keeps some ten datagrams for it.
    for _ in 0..20 {
        RawGuest::join(&lab).leave();
    }
    server.wait_for_log(DISCONNECTED);
    let mut guest = RawGuest::join(&lab);
    guest.ping_gateway(56);
    drop((guest, daemon));
    server.stop();
    lab.finish();
}

#[test]
fn where_no_syslog_daemon_listens_the_log_says_so_once_and_goes_on() {
    let lab = Lab::new();
    own_devices(&lab);
    let server = Server::start_with(&lab, "", &["--use-syslog"]);
    RawGuest::join(&lab).leave();
    server.wait_for_log(DISCONNECTED);
    let log = server.stop();
    assert_eq!(log.matches("no syslog daemon listens at /dev/log").count(), 1, "{log}");
    lab.finish();
}

/// How many lines of the log have this.
fn count(server: &Server, what: &str) -> usize {
    server.log().lines().filter(|line| line.contains(what)).count()
}

/// Says at its end that it is over, also when a test has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest comes and goes, and all these lines of it are in the log: while somebody does again and again
/// what `flood` does, and after that was done so often that `is_full`.
fn in_the_log_of_a_flood(
    (lab, server): (&Lab, &Server),
    lines: &[&str],
    mut flood: impl FnMut() + Send,
    is_full: impl Fn(usize) -> bool,
) {
    let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                flood();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("the log is full", || is_full(done.load(Ordering::Relaxed)));
        let guest = RawGuest::join(lab);
        let mac = guest.mac.map(|byte| format!("{byte:02x}")).join(":");
        guest.leave();
        let its_end = |log: &str| {
            let end =
                log.lines().find(|line| line.contains(DISCONNECTED) && line.contains(&mac))?;
            end.split(' ').find(|word| word.starts_with("session=")).map(|word| format!("{word} "))
        };
        wait_until("its end is in the log", || its_end(&server.log()).is_some());
        let log = server.log();
        let session = its_end(&log).expect("it is there");
        for what in lines {
            let mut those = log.lines().filter(|line| line.contains(what));
            assert!(
                those.any(|line| line.contains(&session) || line.contains(&mac)),
                "{what}: {log}"
            );
        }
    });
}

#[test]
fn a_guest_that_sends_nonsense_to_the_dhcp_server_keeps_nobody_out_of_the_log() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let nonsense = frames::udp(68, 67, b"nonsense");
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let frame = frames::ipv4(frames::BROADCAST, guest.mac, from, to, 17, &nonsense);
    let flood = || guest.send_all(std::iter::repeat_n(frame.clone(), 1000));
    in_the_log_of_a_flood((&lab, &server), &[CONNECTED, LEASED], flood, |done| done >= 2);
    drop(guest);
    let log = server.stop();
    assert!(!log.contains("held back"), "there is nothing of it to be written: {log}");
    lab.finish();
}

#[test]
fn a_guest_that_fills_the_log_with_leases_keeps_no_session_out_of_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::connect(&lab);
    let flood = || {
        guest.dhcp();
        let server = address::GATEWAY.octets();
        let release = Dhcp { ciaddr: guest.ip, ..Dhcp::new(7, guest.mac).with(54, &server) };
        guest.send(&release.frame());
    };
    let is_full = |done| count(&server, LEASED) < done;
    in_the_log_of_a_flood((&lab, &server), &[CONNECTED], flood, is_full);
    drop(guest);
    let log = server.stop();
    assert!(log.contains("held back") && log.contains("about=\"guests\""), "{log}");
    lab.finish();
}

#[test]
fn strangers_who_are_refused_keep_no_guest_out_of_the_log() {
    let lab = Lab::new();
    let server = Server::start(&lab, "page = off\n");
    let flood = || {
        let mut stranger = Door::knock(&lab);
        stranger.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(stranger.response().status, 426);
    };
    let is_full = |done| count(&server, ": refused ") < done;
    in_the_log_of_a_flood((&lab, &server), &[CONNECTED, LEASED], flood, is_full);
    let log = server.stop();
    assert!(log.contains("about=\"clients that are not let in\""), "{log}");
    lab.finish();
}
