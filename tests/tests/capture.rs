//! `wsnic capture`: a file that Wireshark opens, with the frames as the guest sees them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use wsnic_tests::{Lab, NativeGuest, RawGuest, Server, address, run_wsnic, wait_until, wsnic};

/// A running `wsnic capture`, which has begun.
struct Capture {
    child: Child,
    dir: TempDir,
}

impl Capture {
    fn start(lab: &Lab, id: &str, options: &[&str]) -> Capture {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let said = File::create(dir.path().join("said")).expect("a file");
        let mut command = Command::new(wsnic());
        command.args(["capture", id, "-w"]).arg(dir.path().join("pcapng")).args(options);
        command.arg("-c").arg(lab.file("wsnic.conf")).stdin(Stdio::null()).stderr(said);
        let child = lab.srv.spawn(&mut command);
        let capture = Capture { child, dir };
        wait_until("it captures", || capture.said().contains("capturing session"));
        capture
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).expect("a file")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pcapng")
    }

    /// Presses Ctrl-C.
    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it runs");
    }

    /// Waits for its end, which must be a good one; what it said.
    fn end(&mut self) -> String {
        let mut status = None;
        wait_until("the capture ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{}", self.said());
        self.said()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of the session on the first port.
fn id(lab: &Lab) -> String {
    let conf = lab.file("wsnic.conf");
    let arguments = ["sessions", "-c", conf.to_str().expect("a path")];
    let sessions = run_wsnic(&lab.srv, &arguments).1;
    let line = sessions.lines().find(|line| line.contains(" wstap0 "));
    line.and_then(|line| line.split(' ').next()).expect("a session").to_owned()
}

/// What tshark makes of a file: a line of fields for each frame that the filter lets through.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", filter, "-T", "fields"]);
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark is there, see tests/setup.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Root is warned, and of a file that is cut off it would say so.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("cut short") && !said.contains("appears"), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Both directions of what a filter finds.
fn goes_both_ways(file: &Path, filter: &str) {
    let found = tshark(file, filter, &["frame.packet_flags_direction"]);
    for direction in ["0x00000001", "0x00000002"] {
        assert!(found.iter().any(|line| line[0] == direction), "{filter}: {found:?}");
    }
}

#[test]
fn a_capture_shows_what_the_guest_sees() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::plug(&lab);
    wait_until("it is in", || lab.ports() == 1);
    let mut capture = Capture::start(&lab, &id(&lab), &[]);
    // That there are super-frames on the port at all.
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-p", "-n", "-i", "wstap0", "-c", "1", "greater", "3000"]);
    let mut tcpdump = lab.srv.spawn(tcpdump.stdout(Stdio::null()).stderr(Stdio::null()));
    guest.dhcp();
    guest.netns.run(&format!("ping -n -c 4 -i 0.2 -s 1400 {}", address::GATEWAY));
    guest.downloads(address::WEB, "/blob/3000000");
    guest.uploads(address::WEB, &vec![7; 3_000_000]);
    guest.netns.run(&format!("ping -n -c 1 {}", address::GATEWAY));
    wait_until("a super-frame was seen", || tcpdump.try_wait().is_ok_and(|end| end.is_some()));
    capture.interrupt();
    let said = capture.end();
    assert!(said.contains(" frames captured, 0 lost: ended"), "{said}");
    let file = capture.file();
    for filter in ["dhcp", "arp", "icmp", "tcp"] {
        goes_both_ways(&file, filter);
    }
    let kinds = tshark(&file, "dhcp", &["dhcp.option.dhcp"]).concat();
    assert_eq!(kinds, ["1", "2", "3", "5"], "DISCOVER, OFFER, REQUEST, ACK");
    let echoes = tshark(&file, "icmp.type == 8 || icmp.type == 0", &["icmp.checksum.status"]);
    assert!(echoes.len() >= 10 && echoes.iter().all(|line| line[0] == "1"), "{echoes:?}");
    // 1 is good, 0 is bad, and what was not looked at is none of both. Linux sends ffff for 0000 by TCP
    // too (CSUM_MANGLED_0), which is as right to who adds it up, and bad to tshark.
    for (filter, field) in [
        ("ip", "ip.checksum.status"),
        ("tcp && !(tcp.checksum == 0xffff)", "tcp.checksum.status"),
        ("udp", "udp.checksum.status"),
    ] {
        let found = tshark(&file, filter, &[field]).concat();
        assert!(!found.is_empty() && found.iter().all(|status| status == "1"), "{filter}");
    }
    let segments = tshark(&file, "tcp", &["ip.len", "frame.len", "frame.packet_flags_direction"]);
    let number = |text: &String| text.parse::<usize>().expect("a number");
    assert!(segments.iter().all(|line| number(&line[0]) <= 1500 && number(&line[1]) <= 1514));
    let full = |direction: &str| {
        segments.iter().filter(|line| number(&line[0]) == 1500 && line[2] == direction).count()
    };
    // 3 MB in either direction, as many segments as that takes.
    assert!(full("0x00000001") > 2000 && full("0x00000002") > 2000, "{said}");
    let lost =
        tshark(&file, "tcp.analysis.lost_segment || tcp.analysis.retransmission", &["tcp.seq"]);
    assert!(lost.len() < 10, "{lost:?}");
    let bytes = fs::read(&file).expect("the file");
    let about = String::from_utf8_lossy(&bytes[..400]).into_owned();
    for part in ["wsnic session 1 on network default: client 127.0.0.1:", "anyone", "wstap0"] {
        assert!(about.contains(part), "{about}");
    }
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn a_capture_ends_with_its_session_and_the_file_is_whole() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let mut capture = Capture::start(&lab, &id(&lab), &[]);
    guest.ping_gateway(100);
    guest.shout("the last word");
    guest.leave();
    // The next guest has the same port, and is none of the capture's business.
    let mut next = RawGuest::join(&lab);
    next.ping_gateway(200);
    let said = capture.end();
    assert!(said.contains("the session has ended"), "{said}");
    let shouts = tshark(&capture.file(), "eth.type == 0x88b5", &["frame.len"]);
    assert_eq!(shouts.len(), 1);
    assert_eq!(tshark(&capture.file(), "icmp && data.len == 200", &["frame.len"]).len(), 0);
    drop(next);
    server.stop();
    lab.finish();
}

#[test]
fn a_capture_ends_when_there_is_enough_and_may_go_to_a_program() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let mut capture = Capture::start(&lab, &id(&lab), &["--count", "3"]);
    guest.ping_gateway(100);
    guest.ping_gateway(100);
    assert!(capture.end().contains("3 frames captured, 0 lost: that is enough"));
    assert_eq!(tshark(&capture.file(), "frame", &["frame.len"]).len(), 3);
    let mut capture = Capture::start(&lab, &id(&lab), &["--seconds", "1"]);
    assert!(capture.end().contains("the time is over"));
    // The gateway may ask whether the guest is still there.
    assert_eq!(tshark(&capture.file(), "not arp", &["frame.len"]).len(), 0);
    // As it comes, not when it ends.
    let mut command = Command::new(wsnic());
    command.args(["capture", &id(&lab), "-w", "-", "-c"]).arg(lab.file("wsnic.conf"));
    let mut live = lab.srv.spawn(command.stdout(Stdio::piped()));
    let mut reader = Command::new("tshark");
    reader.args([
        "-n",
        "-l",
        "-i",
        "-",
        "-c",
        "8",
        "-Y",
        "icmp",
        "-T",
        "fields",
        "-e",
        "icmp.type",
    ]);
    reader.stdin(live.stdout.take().expect("a pipe")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reading = reader.spawn().expect("tshark is there");
    // It would hold the pipe open.
    drop(reader);
    wait_until("it has seen enough", || {
        guest.ping_gateway(50);
        reading.try_wait().expect("a child can be waited for").is_some()
    });
    let output = reading.wait_with_output().expect("it has ended");
    assert!(output.stdout.starts_with(b"8\n0\n"), "an echo and its answer: {output:?}");
    let mut status = None;
    wait_until("the capture notices that its reader has gone", || {
        guest.ping_gateway(50);
        status = live.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn tags_of_vlans_are_in_the_file() {
    let lab = Lab::new();
    let server = Server::start(&lab, "allow_vlan = yes\n");
    let (mut one, mut other) = (RawGuest::connect(&lab), RawGuest::connect(&lab));
    other.shout("here");
    one.hear("here");
    let mut capture = Capture::start(&lab, &id(&lab), &["--count", "1"]);
    let tagged = [&[0xff; 6][..], &one.mac, &[0x81, 0, 0x60, 7, 0x88, 0xb5], b"tagged", &[0; 40]];
    one.send(&tagged.concat());
    capture.end();
    let found = tshark(&capture.file(), "vlan", &["vlan.id", "vlan.priority", "frame.len"]);
    assert_eq!(found, [["7", "3", "64"]]);
    drop((one, other));
    server.stop();
    lab.finish();
}

#[test]
fn a_file_that_is_there_is_for_its_owner_alone_and_a_link_is_not_followed() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut guest = RawGuest::join(&lab);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    let text = "what was there before, and is longer than the capture ".repeat(1000);
    fs::write(&file, &text).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("a mode");
    symlink(&file, &link).expect("a link");
    let (id, conf) = (id(&lab), lab.file("wsnic.conf"));
    let capture = |to: &Path| {
        let words = ["capture", &id, "--seconds", "1", "-w", to.to_str().expect("a path"), "-c"];
        run_wsnic(&lab.srv, &[&words[..], &[conf.to_str().expect("a path")]].concat())
    };
    let (status, said) = capture(&link);
    assert!(!status.success() && said.contains("is a symbolic link"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), text, "nothing of it was touched");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o666);
    let (status, said) = capture(&file);
    assert!(status.success(), "{said}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).expect("a file");
    assert!(bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) && bytes.len() < text.len());
    guest.ping_gateway(56);
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn what_cannot_be_captured_is_refused_with_what_to_do() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let guest = RawGuest::join(&lab);
    let id = id(&lab);
    let conf = lab.file("wsnic.conf");
    let conf = conf.to_str().expect("a path");
    for (arguments, said) in [
        (&["4711", "-w", "/dev/null"][..], "session 4711 cannot be captured"),
        (&["4711", "-w", "/dev/null"], "there is no such session"),
        (&[&id, "-w", "/nonexistent/file"], "cannot write /nonexistent/file: No such file"),
        (&[&id], "--write <FILE>"),
        (&[&id, "-w", "/dev/null", "--count", "0"], "--count"),
        (&[&id, "-w", "/dev/null", "--admin-socket", "/run/nobody"], "no wsnic takes orders at"),
    ] {
        let arguments = [&["capture"], arguments, &["-c", conf]].concat();
        let (status, output) = run_wsnic(&lab.srv, &arguments);
        assert!(!status.success() && output.contains(said), "{arguments:?}: {output}");
    }
    // As in a container without the capability.
    let mut bare = Command::new("setpriv");
    bare.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"]).arg(wsnic());
    bare.args(["capture", &id, "-w", "/dev/null", "-c", conf]);
    let output = lab.srv.output(&mut bare);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--cap-add=NET_RAW"), "{said}");
    // From elsewhere: the socket is there, the port is not.
    let mut elsewhere = Command::new("unshare");
    elsewhere.arg("--net").arg(wsnic()).args(["capture", &id, "-w", "/dev/null", "-c", conf]);
    let output = lab.srv.output(&mut elsewhere);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("in the same container"), "{said}");
    drop(guest);
    server.stop();
    lab.finish();
}
