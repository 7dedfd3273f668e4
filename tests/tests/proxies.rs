//! Proxies in front, real ones with the snippets of docs/proxies.md and wrong ones: wsnic knows the
//! true client, and believes nobody else.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::{Child, Command, Stdio};
use wsnic_tests::{
    Door, HANDSHAKE, Identity, Lab, RawGuest, Server, Trust, address, source_dir, wait_until,
};

/// Where the documents let wsnic listen; each lab has a /run of its own.
const SOCKET: &str = "/run/wsnic.sock";
const LIE: (&str, &str) = ("x-forwarded-for", "9.9.9.9");
/// Some have nothing for who asks for another.
const NAME: (&str, &str) = ("host", "guests.example.org");

#[test]
fn nginx_as_documented_serves_guests_and_says_who_they_are() {
    let before = |lab: &Lab| {
        format!(
            "user www-data;\npid {0}/proxy.pid;\nerror_log stderr;\nevents {{ }}\nhttp {{\naccess_log off;\n",
            lab.file("").display()
        )
    };
    through_a_proxy("nginx", "www-data:www-data", "", before, "}\n", |conf| {
        let mut command = Command::new("nginx");
        command.arg("-c").arg(conf).args(["-e", "stderr", "-g", "daemon off;"]);
        command
    });
}

#[test]
fn apache_as_documented_serves_guests_and_says_who_they_are() {
    let before = |lab: &Lab| {
        let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "ssl"];
        let load = |name: &str| {
            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
        };
        format!(
            "{}User www-data\nGroup www-data\nPidFile {1}/proxy.pid\nErrorLog {1}/proxy.log\nListen 443\nServerName x\n",
            modules.map(load).concat(),
            lab.file("").display()
        )
    };
    through_a_proxy("apache", "www-data:www-data", "", before, "", |conf| {
        let mut command = Command::new("apache2");
        command.args(["-D", "FOREGROUND", "-f"]).arg(conf);
        command
    });
}

#[test]
fn haproxy_as_documented_serves_guests_and_says_who_they_are() {
    let before = |_: &Lab| {
        "global\n    user haproxy\n    group haproxy\ndefaults\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
            .to_owned()
    };
    through_a_proxy("haproxy", "haproxy:haproxy", "proxy_protocol = yes\n", before, "", |conf| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(conf);
        command
    });
}

#[test]
fn caddy_as_documented_serves_guests_and_says_who_they_are() {
    let before = |lab: &Lab| {
        let folder = lab.file("proxy.d");
        std::fs::create_dir(&folder).expect("a folder");
        chown(&folder, Some(uid_of("caddy")), None).expect("root gives it away");
        "{\n    admin off\n}\n".to_owned()
    };
    through_a_proxy("caddy", "caddy:caddy", "", before, "", |conf| {
        let folder = conf.with_file_name("proxy.d");
        let mut command = Command::new("setpriv");
        // As the unit of its package has it.
        command.args([
            "--reuid=caddy",
            "--regid=caddy",
            "--clear-groups",
            "--bounding-set=-all,+net_bind_service",
        ]);
        command
            .args(["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]);
        command.args(["caddy", "run", "--adapter", "caddyfile", "--config"]).arg(conf);
        command.env("HOME", &folder).env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
        command
    });
}

fn uid_of(user: &str) -> u32 {
    let user = nix::unistd::User::from_name(user).expect("users can be read");
    user.expect("its package is installed").uid.as_raw()
}

/// Runs a proxy with its snippet of the document and a guest through it.
fn through_a_proxy(
    name: &str,
    owner: &str,
    options: &str,
    before: impl FnOnce(&Lab) -> String,
    behind: &str,
    command: impl FnOnce(std::path::PathBuf) -> Command,
) {
    let lab = Lab::new();
    let identity = Identity::self_signed(&["guests.example.org"]);
    let files = [("guests.crt", &identity.certificate), ("guests.key", &identity.key)];
    let mut snippet = snippet(name);
    for (file, text) in files {
        std::fs::write(lab.file(file), text).expect("a file can be written");
    }
    identity.write(&lab.file("guests.pem"));
    snippet = snippet.replace("/etc/ssl/", &format!("{}/", lab.file("").display()));
    let conf = lab.file("proxy.conf");
    std::fs::write(&conf, format!("{}{snippet}{behind}", before(&lab))).expect("a file");
    let server =
        Server::start(&lab, &format!("listen = unix:{SOCKET}\nlisten_owner = {owner}\n{options}"));
    let log = std::fs::File::create(lab.file("proxy.out")).expect("a file");
    let mut command = command(conf);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut proxy = Proxy(lab.srv.spawn(&mut command));
    let wan = SocketAddr::from((address::WAN, 443));
    let trust = Trust::new(&identity.certificate, "guests.example.org");
    let mut guest = None;
    wait_until("the proxy lets a guest through", || {
        guest = RawGuest::connect_tls(&lab.inet, wan, "/any/path?x=y", &[LIE, NAME], &trust).ok();
        guest.is_some()
    });
    let mut guest = guest.expect("a guest");
    guest.dhcp();
    guest.ping_gateway(1400);
    let wanted = format!("client connected client={}", address::UPLINK);
    assert!(server.log().contains(&wanted), "no {wanted:?} in\n{}", server.log());
    assert!(!server.log().contains("9.9.9.9"), "nobody is believed who sends a header himself");
    guest.leave();
    proxy.stop();
    server.stop();
    for file in ["guests.crt", "guests.key", "guests.pem", "proxy.conf", "proxy.out"] {
        std::fs::remove_file(lab.file(file)).expect("a file of the test");
    }
    for file in ["proxy.log", "proxy.pid"] {
        let _ = std::fs::remove_file(lab.file(file));
    }
    let _ = std::fs::remove_dir_all(lab.file("proxy.d"));
    lab.finish();
}

struct Proxy(Child);

impl Proxy {
    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A block of the document.
fn snippet(name: &str) -> String {
    let path = source_dir().join("../docs/proxies.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let start = format!("```{name}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("no block {name}"));
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn a_unix_socket_has_the_mode_and_owner_that_are_set_and_goes_at_the_end() {
    let lab = Lab::new();
    let path = lab.file("ws.sock");
    let conf =
        format!("listen = unix:{}\nlisten_mode = 0600\nlisten_owner = www-data\n", path.display());
    for _ in 0..2 {
        let server = Server::start(&lab, &conf);
        let metadata = std::fs::metadata(&path).expect("the socket");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata.uid(), 33, "www-data on Debian");
        let curl = format!("curl -s --unix-socket {} http://any/", path.display());
        assert!(lab.srv.run(&curl).contains("<h1>wsnic</h1>"));
        server.kill_all();
        // What a killed run has left is in nobody's way.
    }
    let server = Server::start(&lab, &conf);
    server.stop();
    assert!(!path.exists());
    let log = Server::refuses(
        &lab,
        &format!("listen=unix:{}\nlisten_owner=nobody-such\n", path.display()),
        &[],
    );
    assert!(log.contains("there is no user nobody-such") && log.contains("listen_owner"), "{log}");
    std::fs::write(&path, "precious").expect("a file");
    let log = Server::refuses(&lab, &conf, &[]);
    assert!(log.contains("it exists and is no socket"), "{log}");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "precious");
    std::fs::remove_file(&path).expect("a file of the test");
    lab.finish();
}

#[test]
fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let lab = Lab::new();
    let connect = |server: &Server, value: &str, expected: &str| {
        let headers = [("x-forwarded-for", value)];
        let guest = RawGuest::connect_to(&lab.srv, Server::address(), "/", &headers);
        guest.expect("a guest").leave();
        server.wait_for_log(&format!("client connected client={expected}"));
    };
    let server = Server::start(&lab, "");
    connect(&server, "203.0.113.9", "127.0.0.1:");
    server.stop();
    let server = Server::start(&lab, "trusted_proxies = 127.0.0.0/8, 10.0.0.0/8\n");
    connect(&server, "203.0.113.9", "203.0.113.9 ");
    connect(&server, "1.2.3.4, 203.0.113.10, 10.9.9.9", "203.0.113.10 ");
    connect(&server, "2001:db8::7", "2001:db8::7 ");
    connect(&server, "1.2.3.4, nonsense", "127.0.0.1:");
    server.stop();
    lab.finish();
}

#[test]
fn a_trusted_proxy_must_speak_the_proxy_protocol_where_it_is_set_and_nobody_else_may() {
    let lab = Lab::new();
    let conf = "proxy_protocol = yes\ntrusted_proxies = 127.0.0.1\nws_server_addr = 0.0.0.0\n";
    let server = Server::start(&lab, conf);
    let speak = |header: &[u8]| {
        let mut door = Door::knock(&lab);
        door.send(header);
        // The server may have hung up.
        let _ = door.try_send(format!("{HANDSHAKE}\r\n").as_bytes());
        door
    };
    let v4 = proxy_header(0x21, 0x11, &[203, 0, 113, 5, 127, 0, 0, 1, 0, 80, 0, 81]);
    assert_eq!(speak(&v4).response().status, 101);
    server.wait_for_log("client connected client=203.0.113.5 ");
    let mut v6 = vec![0; 36];
    (v6[0], v6[1], v6[15]) = (0x20, 1, 9);
    assert_eq!(speak(&proxy_header(0x21, 0x21, &v6)).response().status, 101);
    server.wait_for_log("client connected client=2001::9 ");
    let local = proxy_header(0x20, 0, &[]);
    assert_eq!(speak(&local).response().status, 101, "a proxy that asks for itself");
    let mut unknown_version = v4.clone();
    unknown_version[12] = 0x31;
    for wrong in [
        &b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..],
        &b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
        &unknown_version,
    ] {
        speak(wrong).wait_for_end();
    }
    let mut endless = v4.clone();
    (endless[14], endless[15]) = (0xff, 0xff);
    speak(&endless).wait_for_end();
    // Who is no trusted proxy is not asked for a header, and not believed with one.
    let wan = SocketAddr::from((address::WAN, 8086));
    RawGuest::connect_to(&lab.inet, wan, "/", &[]).expect("a guest").dhcp();
    let mut liar = Door::knock_at(&lab.inet, wan);
    liar.send(&v4);
    let _ = liar.try_send(format!("{HANDSHAKE}\r\n").as_bytes());
    assert_eq!(liar.response().status, 400);
    server.stop();
    lab.finish();
}

/// A header of the PROXY protocol (version 2, §2.2).
fn proxy_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
    header.extend(rest);
    header
}
