//! wss://: certificates, keys and clients' certificates, right and wrong, and their replacement.

use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;
use wsnic_tests::{
    Authority, Identity, Lab, RawGuest, Server, Trust, programs, run_wsnic, wait_until,
};

const WSS: ([u8; 4], u16) = ([127, 0, 0, 1], 8087);

fn wss() -> SocketAddr {
    SocketAddr::from(WSS)
}

fn connect(lab: &Lab, trust: &Trust) -> RawGuest {
    let guest = RawGuest::connect_tls(&lab.srv, wss(), "/", &[], trust);
    guest.unwrap_or_else(|error| panic!("no guest by wss: {error}"))
}

/// A certificate in the lab's folder, and the configuration that names it.
fn certificate(lab: &Lab, names: &[&str]) -> (Identity, PathBuf, String) {
    let identity = Identity::self_signed(names);
    let path = lab.file("server.pem");
    identity.write(&path);
    let conf = format!("wss_server_cert = {}\n", path.display());
    (identity, path, conf)
}

fn finish(lab: Lab, files: &[PathBuf]) {
    files.iter().for_each(|file| std::fs::remove_file(file).expect("a file of the test"));
    lab.finish();
}

#[test]
fn guests_by_wss_get_addresses_and_reach_each_other_and_guests_by_ws() {
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost", "127.0.0.1"]);
    let server = Server::start(&lab, &conf);
    assert!(server.log().contains("wss://127.0.0.1:8087/"), "{}", server.log());
    let trust = Trust::new(&identity.certificate, "localhost");
    let (mut one, mut other) = (connect(&lab, &trust), RawGuest::join(&lab));
    one.dhcp();
    one.ping_gateway(1400);
    // More than TLS takes at once, and than a record holds, both ways.
    let frames = |mac: [u8; 6]| {
        move |number: u32| {
            let mut frame = vec![0xff; 6];
            frame.extend_from_slice(&mac);
            frame.extend_from_slice(&[0x88, 0xb5]);
            frame.extend(number.to_be_bytes().repeat(250 + (number % 100) as usize));
            frame
        }
    };
    for (from, to) in [(true, false), (false, true)] {
        let mac = if from { one.mac } else { other.mac };
        let (sender, receiver) = if from { (&mut one, &mut other) } else { (&mut other, &mut one) };
        assert_ne!(from, to);
        for block in 0..20 {
            let numbers = block * 20..(block + 1) * 20;
            sender.send_all(numbers.clone().map(frames(mac)));
            for number in numbers {
                let wanted = frames(mac)(number);
                receiver.receive_until(|frame| (frame == wanted).then_some(()));
            }
        }
    }
    one.leave();
    drop(other);
    server.stop();
    finish(lab, &[path]);
}

#[test]
fn ws_and_wss_share_a_port_when_both_have_the_same() {
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost"]);
    let conf = format!("{conf}ws_server_port = 8086\nwss_server_port = 8086\n");
    let server = Server::start(&lab, &conf);
    let trust = Trust::new(&identity.certificate, "localhost");
    let secure = RawGuest::connect_tls(&lab.srv, Server::address(), "/", &[], &trust);
    secure.expect("wss at the port of ws").dhcp();
    RawGuest::join(&lab).ping_gateway(56);
    let page = lab.srv.run("curl -s http://127.0.0.1:8086/");
    assert!(page.contains("<h1>wsnic</h1>"), "{page}");
    server.stop();
    finish(lab, &[path]);
}

#[test]
fn a_client_gets_the_certificate_that_has_the_name_it_asks_for() {
    let lab = Lab::new();
    let (first, path, conf) = certificate(&lab, &["a.example"]);
    let (more, wild) =
        (Identity::self_signed(&["b.example"]), Identity::self_signed(&["*.c.example"]));
    let files = [lab.file("b.pem"), lab.file("c.pem")];
    more.write(&files[0]);
    wild.write(&files[1]);
    let list = format!("{},{}", files[0].display(), files[1].display());
    let server = Server::start(&lab, &format!("{conf}wss_more_certs = {list}\n"));
    for (identity, name) in [(&first, "a.example"), (&more, "b.example"), (&wild, "x.c.example")] {
        connect(&lab, &Trust::new(&identity.certificate, name)).dhcp();
    }
    let stranger = Trust::new(&first.certificate, "d.example");
    assert!(RawGuest::connect_tls(&lab.srv, wss(), "/", &[], &stranger).is_err(), "the first");
    server.stop();
    finish(lab, &[&files[..], &[path]].concat());
}

#[test]
fn wrong_certificates_and_keys_are_refused_at_the_start_with_file_and_remedy() {
    let lab = Lab::new();
    let (one, other) = (Identity::self_signed(&["a"]), Identity::self_signed(&["b"]));
    let (cert, key) = (lab.file("cert.pem"), lab.file("key.pem"));
    let conf =
        format!("wss_server_cert = {}\nwss_server_key = {}\n", cert.display(), key.display());
    for (certificate, private, wanted) in [
        (Some(&one.certificate), Some(&other.key), "is not that of the certificate in"),
        (Some(&one.certificate), Some(&one.certificate), "holds no private key"),
        (Some(&one.key), Some(&one.key), "holds no certificate"),
        (Some(&one.certificate), None, "(option wss_server_key)"),
        (None, Some(&one.key), "(option wss_server_cert)"),
    ] {
        for (path, text) in [(&cert, certificate), (&key, private)] {
            let _ = std::fs::remove_file(path);
            if let Some(text) = text {
                std::fs::write(path, text).expect("a file can be written");
            }
        }
        let log = Server::refuses(&lab, &conf, &[]);
        assert!(log.contains(wanted), "no {wanted:?} in\n{log}");
        assert!(log.contains("cert.pem") || log.contains("key.pem"), "{log}");
        assert!(!log.contains("PRIVATE"), "nothing secret in a log: {log}");
    }
    for path in [cert, key] {
        let _ = std::fs::remove_file(path);
    }
    lab.finish();
}

#[test]
fn of_a_hundred_sessions_none_is_lost_when_the_certificate_is_replaced_fifty_times() {
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost"]);
    let server = Server::start(&lab, &format!("{conf}max_clients = 120\n"));
    let trust = Trust::new(&identity.certificate, "localhost");
    let mut guests: Vec<RawGuest> = (0..100).map(|_| connect(&lab, &trust)).collect();
    let conf_file = lab.file("wsnic.conf");
    for round in 0..50 {
        let next = Identity::self_signed(&["localhost"]);
        next.write(&path);
        // As an operator does it, and as a service manager does.
        if round % 2 == 0 {
            let arguments = ["reload", "-c", conf_file.to_str().expect("a path")];
            let (status, output) = run_wsnic(&lab.srv, &arguments);
            assert!(status.success(), "{output}");
            let trust = Trust::new(&next.certificate, "localhost");
            connect(&lab, &trust).leave();
        } else {
            server.signal(Signal::SIGHUP);
            let trust = Trust::new(&next.certificate, "localhost");
            wait_until("the new certificate is in force", || {
                RawGuest::connect_tls(&lab.srv, wss(), "/", &[], &trust)
                    .map(RawGuest::leave)
                    .is_ok()
            });
        }
        let (first, others) = guests.split_first_mut().expect("guests");
        let text = format!("{round}.");
        first.shout(&text);
        others.iter_mut().for_each(|guest| guest.hear(&text).clear());
    }
    drop(guests);
    server.stop();
    finish(lab, &[path]);
}

#[test]
fn a_wrong_certificate_at_a_reload_changes_nothing_and_is_said() {
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost"]);
    let server = Server::start(&lab, &conf);
    let trust = Trust::new(&identity.certificate, "localhost");
    let mut guest = connect(&lab, &trust);
    std::fs::write(&path, "nonsense").expect("a file can be written");
    let conf_file = lab.file("wsnic.conf");
    let arguments = ["reload", "-c", conf_file.to_str().expect("a path")];
    let (status, output) = run_wsnic(&lab.srv, &arguments);
    assert!(!status.success() && output.contains("holds no certificate"), "{output}");
    assert!(output.contains("server.pem"), "{output}");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("certificates and lists stay as they are");
    connect(&lab, &trust).leave();
    guest.dhcp();
    drop(guest);
    server.stop();
    let (status, output) = run_wsnic(&lab.srv, &arguments);
    assert!(!status.success(), "{output}");
    finish(lab, &[path]);
}

#[test]
fn a_client_certificate_is_asked_for_where_that_is_set() {
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost"]);
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = lab.file("ca.pem");
    std::fs::write(&ca, authority.certificate()).expect("a file can be written");
    let trust = Trust::new(&identity.certificate, "localhost");
    let known = trust.clone().as_client(authority.client("alice"));
    let unknown = trust.clone().as_client(stranger.client("mallory"));
    for (word, without) in [("required", false), ("optional", true)] {
        let conf = format!("{conf}wss_client_ca = {}\nwss_client_cert = {word}\n", ca.display());
        let server = Server::start(&lab, &conf);
        connect(&lab, &known).dhcp();
        let try_connect = |trust| RawGuest::connect_tls(&lab.srv, wss(), "/", &[], trust);
        assert!(try_connect(&unknown).is_err(), "{word}");
        assert_eq!(try_connect(&trust).is_ok(), without, "{word}");
        server.stop();
    }
    finish(lab, &[path, ca]);
}

#[test]
fn what_is_no_tls_is_dropped_and_harms_nobody() {
    use std::io::{Read, Write};
    let lab = Lab::new();
    let (identity, path, conf) = certificate(&lab, &["localhost"]);
    let server = Server::start(&lab, &conf);
    let mut guest = connect(&lab, &Trust::new(&identity.certificate, "localhost"));
    // A record of 65,535 bytes, more than TLS allows; HTTP; an alert; zeros.
    let mut record = vec![22, 3, 1, 0xff, 0xff];
    record.extend([0; 0xffff]);
    let zeros = vec![0; 4096];
    for junk in [&record[..], b"GET / HTTP/1.1\r\n\r\n", &[21, 3, 3, 0, 2, 2, 40], &zeros] {
        let mut stream = lab.srv.enter(|| std::net::TcpStream::connect(wss())).expect("it listens");
        // The server may have hung up before all of it.
        let _ = stream.write_all(junk);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100, "an alert at most");
    }
    guest.dhcp();
    guest.ping_gateway(56);
    drop(guest);
    server.stop();
    finish(lab, &[path]);
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let lab = Lab::new();
    let (_, path, conf) = certificate(&lab, &["localhost"]);
    let server = Server::start(&lab, &conf);
    for (version, spoken) in [("-tls1_2", true), ("-tls1_3", true), ("-tls1_1", false)] {
        let line = format!("openssl s_client -connect 127.0.0.1:8087 {version} -brief");
        assert_eq!(lab.srv.succeeds(&line), spoken, "{version}");
    }
    server.stop();
    finish(lab, &[path]);
}

#[test]
fn wsnic_cert_makes_what_wsnic_serves_and_overwrites_nothing_unasked() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    let dir = lab.file("made");
    let out = dir.to_str().expect("a path").to_owned();
    let arguments = ["cert", "--out", &out, "localhost", "127.0.0.1"];
    let (status, output) = run_wsnic(&lab.srv, &arguments);
    assert!(status.success() && output.contains("certutil"), "{output}");
    let (status, output) = run_wsnic(&lab.srv, &arguments);
    assert!(!status.success() && output.contains("--force"), "{output}");
    let mode = std::fs::metadata(dir.join("cert.key")).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let conf = format!("wss_server_cert = {out}/cert.crt\nwss_server_key = {out}/cert.key\n");
    let server = Server::start(&lab, &conf);
    let page = lab.srv.run(&format!("curl -s --cacert {out}/cert.crt https://127.0.0.1:8087/"));
    assert!(page.contains("TLS test succeeded"), "{page}");
    server.stop();
    std::fs::remove_dir_all(dir).expect("a folder of the test");
    assert!(programs::wsnic().exists());
    lab.finish();
}
