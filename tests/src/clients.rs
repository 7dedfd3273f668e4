//! WebSocket clients that others wrote: Node, Python, and Chromium with a page.

use crate::frames::Dhcp;
use crate::server::is_alive;
use crate::{LIMIT, Lab, source_dir, target_dir, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a client that has sent a frame got.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first frame of a DHCP server.
    Frame(Vec<u8>),
    /// The end of the connection, by its code.
    Close(u16),
}

impl Answer {
    fn parse(text: &str) -> Answer {
        match text.trim().split_once(' ') {
            Some(("frame", hex)) => Answer::Frame(unhex(hex)),
            Some(("close", code)) => Answer::Close(code.parse().expect("a code")),
            _ => panic!("a client says {text:?}"),
        }
    }

    /// The message in it.
    ///
    /// # Panics
    /// When it is none of DHCP.
    pub fn dhcp(&self) -> Dhcp {
        let Answer::Frame(frame) = self else { panic!("no frame came: {self:?}") };
        Dhcp::parse(frame).unwrap_or_else(|| panic!("no DHCP: {frame:02x?}"))
    }
}

/// The folder with the clients' packages, made by tests/clients/build.sh where it is not there yet
/// (which needs the network).
pub fn built() -> PathBuf {
    let out = target_dir().join("clients");
    let script = source_dir().join("clients/build.sh");
    let status = Command::new(&script).arg(&out).stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{} failed", script.display());
    out
}

/// Sends a frame by the package `ws` of Node, which believes this certificate.
pub fn node(lab: &Lab, url: &str, frame: &[u8], certificate: Option<&Path>) -> Answer {
    program(lab, "node", "node.mjs", url, frame, certificate)
}

/// The same by the package `websockets` of Python.
pub fn python(lab: &Lab, url: &str, frame: &[u8], certificate: Option<&Path>) -> Answer {
    program(lab, "python3", "client.py", url, frame, certificate)
}

fn program(
    lab: &Lab,
    name: &str,
    script: &str,
    url: &str,
    frame: &[u8],
    certificate: Option<&Path>,
) -> Answer {
    let mut command = Command::new(name);
    command.arg(source_dir().join("clients").join(script)).arg(built());
    command.arg(url).arg(hex(frame)).args(certificate);
    // Nobody else's certificates.
    for variable in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(variable);
    }
    let output = lab.srv.output(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed: {errors}");
    Answer::parse(&String::from_utf8_lossy(&output.stdout))
}

/// The same from a page in headless Chromium, started with these options and `home` as its HOME.
///
/// # Panics
/// When the page says nothing in time.
pub fn chromium(lab: &Lab, url: &str, frame: &[u8], home: &Path, options: &[&str]) -> Answer {
    let listener = lab.srv.enter(|| TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let page = format!("http://{}/", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-breakpad",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
    ]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    command.args(options).arg(&page).env("HOME", home).process_group(0);
    for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    let log = std::fs::File::create(home.join("log")).expect("a file can be made");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
    let browser = Browser(lab.srv.spawn(&mut command));
    let end = Instant::now() + 3 * LIMIT;
    let answer = loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(text) = serve(stream, url, frame) {
                    break Answer::parse(&text);
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        let log = || std::fs::read_to_string(home.join("log")).unwrap_or_default();
        assert!(Instant::now() < end, "the page says nothing:\n{}", log());
    };
    drop(browser);
    answer
}

/// Ended with all its processes when dropped.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().try_into().expect("a pid"));
        let _ = killpg(group, Signal::SIGTERM);
        let end = Instant::now() + LIMIT;
        while self.0.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
        if !std::thread::panicking() {
            wait_until("the browser is gone", || {
                !is_alive(self.0.id()) && killpg(group, None).is_err()
            });
        }
    }
}

/// Answers one request of the page; what it says, if it is that.
fn serve(mut stream: TcpStream, url: &str, frame: &[u8]) -> Option<String> {
    stream.set_nonblocking(false).expect("a socket can block");
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    let (head, body) = loop {
        match stream.read(&mut bytes) {
            // A browser opens connections in advance.
            Ok(0) | Err(_) => return None,
            Ok(len) => request.extend_from_slice(&bytes[..len]),
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        };
        if body.len() >= head.lines().find_map(header).unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let read = |name: &str| {
        std::fs::read_to_string(source_dir().join("clients").join(name)).expect("a source")
    };
    let (kind, answer) = match head.split(' ').nth(1) {
        Some("/") => {
            let page = read("page.html").replace("'URL'", &format!("'{url}'"));
            ("text/html", page.replace("'FRAME'", &format!("'{}'", hex(frame))))
        }
        Some("/ask.mjs") => ("text/javascript", read("ask.mjs")),
        _ => ("text/plain", String::new()),
    };
    let len = answer.len();
    let _ = stream.write_all(
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{answer}")
            .as_bytes(),
    );
    head.starts_with("POST /say ").then_some(body)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}
