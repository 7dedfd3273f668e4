//! Headless Chromium in a lab's namespace, spoken to by its DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>).

use crate::server::is_alive;
use crate::{LIMIT, Netns, source_dir, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// One of a browser's tabs.
#[derive(Debug, Clone)]
pub struct Tab(String);

/// The option of a browser that takes a certificate (PEM), and no other, for trusted.
pub fn trusting(certificate: &Path) -> String {
    let mut command = Command::new("sh");
    let hash = command.env("CERT", certificate).args([
        "-euc",
        "openssl x509 -in $CERT -pubkey -noout | openssl pkey -pubin -outform der | \
         openssl dgst -sha256 -binary | base64",
    ]);
    let hash = String::from_utf8(hash.output().expect("openssl runs").stdout).expect("base64");
    format!("--ignore-certificate-errors-spki-list={}", hash.trim())
}

/// A browser, of whose tabs one is in front; ended with all its processes when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    home: TempDir,
    socket: Option<WebSocket<TcpStream>>,
    /// The session of the tab in front.
    session: String,
    last_id: u64,
    /// Events that came while something else was waited for.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it inside, with more options.
    pub fn start(netns: &Netns, options: &[&str]) -> Browser {
        let home = tempfile::Builder::new().prefix("wsnic-browser-").tempdir().expect("a folder");
        let profile = home.path().join("profile");
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
            "--hide-scrollbars",
            "--remote-debugging-port=0",
        ]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.args(options).arg("about:blank").env("HOME", home.path()).process_group(0);
        for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        let log = std::fs::File::create(home.path().join("log")).expect("a file can be made");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
        let child = netns.spawn(&mut command);
        let (session, events) = (String::new(), Vec::new());
        let mut browser = Browser { child, home, socket: None, session, last_id: 0, events };
        let port_file = profile.join("DevToolsActivePort");
        let mut place = String::new();
        let end = Instant::now() + 2 * LIMIT;
        // Two lines: the port, and the path.
        while place.lines().count() < 2 {
            assert!(Instant::now() < end, "the browser does not come up:\n{}", browser.log());
            std::thread::sleep(Duration::from_millis(10));
            place = std::fs::read_to_string(&port_file).unwrap_or_default();
        }
        let (port, path) = place.split_once('\n').expect("two lines");
        let port: u16 = port.parse().expect("a port");
        let stream = netns.enter(|| TcpStream::connect(("127.0.0.1", port))).expect("it listens");
        stream.set_read_timeout(Some(2 * LIMIT)).expect("a socket takes a time limit");
        let url = format!("ws://127.0.0.1:{port}{}", path.trim());
        let (socket, _) = client(url, stream).expect("the browser speaks WebSocket");
        browser.socket = Some(socket);
        browser.new_tab();
        browser
    }

    /// Opens a tab in front of the others.
    pub fn new_tab(&mut self) -> Tab {
        self.session.clear();
        let tab = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": tab["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", target);
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Network", "Log", "Runtime"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.tab()
    }

    /// The tab in front.
    pub fn tab(&self) -> Tab {
        Tab(self.session.clone())
    }

    /// Puts a tab in front of the others.
    pub fn show_tab(&mut self, tab: &Tab) {
        self.session.clone_from(&tab.0);
        self.call("Page.bringToFront", json!({}));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// One command of the protocol; its result.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let socket = self.socket.as_mut().expect("connected");
        socket.send(Message::text(command.to_string())).expect("the browser takes a command");
        loop {
            let message = socket.read().expect("the browser answers");
            let Message::Text(text) = message else { continue };
            let value: Value = serde_json::from_str(&text).expect("JSON");
            if value["id"] == json!(self.last_id) {
                assert!(value["error"].is_null(), "{method}: {value}");
                return value["result"].clone();
            }
            self.events.push(value);
        }
    }

    /// Opens an address; its page is loaded then, with its scripts.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_for("document.readyState === 'complete'");
    }

    /// Opens an address that cannot be opened; why.
    pub fn fails_to_open(&mut self, url: &str) -> String {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        opened["errorText"].as_str().unwrap_or_else(|| panic!("{url} opened")).to_owned()
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let call = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true
        });
        let result = self.call("Runtime.evaluate", call);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Types into what has the focus, and Enter behind it.
    pub fn type_line(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
        for (kind, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": text, "windowsVirtualKeyCode": 13
            });
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Waits until an expression in the page is true.
    pub fn wait_for(&mut self, expression: &str) {
        self.wait_long_for(expression, 2 * LIMIT);
    }

    /// The same for what takes longer.
    pub fn wait_long_for(&mut self, expression: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while self.value(expression) != json!(true) {
            let page = self.value("document.body?.innerText");
            assert!(Instant::now() < end, "{expression} is not true:\n{page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the window this large, with two dots for each pixel on a phone.
    pub fn resize(&mut self, (width, height): (u32, u32), is_phone: bool, is_dark: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "mobile": is_phone,
                    "deviceScaleFactor": if is_phone { 2 } else { 1 } }),
        );
        let scheme = if is_dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    /// What the window shows, in full length, as PNG in base64.
    pub fn screenshot(&mut self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// With `WSNIC_UPDATE_SCREENSHOTS` set, writes docs/screenshots/NAME.png anew: the whole page as
    /// it is at this width.
    pub fn update_screenshot(&mut self, name: &str, width: u32, is_dark: bool) {
        if std::env::var_os("WSNIC_UPDATE_SCREENSHOTS").is_none() {
            return;
        }
        self.resize((width, 100), false, is_dark);
        let height = self.value("document.documentElement.scrollHeight").as_u64();
        let height = height.and_then(|height| height.try_into().ok()).expect("a height");
        self.resize((width, height), false, is_dark);
        let painted =
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))";
        self.value(painted);
        let folder = source_dir().join("../docs/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let picture = data_encoding::BASE64.decode(self.screenshot().as_bytes()).expect("base64");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("a file can be written");
    }

    /// Addresses that the tabs have asked for, WebSockets too.
    pub fn requests(&self) -> Vec<String> {
        let url = |event: &Value| match event["method"].as_str() {
            Some("Network.requestWillBeSent") => Some(event["params"]["request"]["url"].clone()),
            Some("Network.webSocketCreated") => Some(event["params"]["url"].clone()),
            _ => None,
        };
        let urls = self.events.iter().filter_map(url);
        urls.filter_map(|url| url.as_str().map(str::to_owned)).collect()
    }

    /// What the browser, or the page, has complained of.
    pub fn complaints(&self) -> Vec<String> {
        let methods = ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"];
        let of_these =
            |event: &&Value| methods.iter().any(|method| event["method"] == json!(method));
        self.events.iter().filter(of_these).map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.socket = None;
        let group = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        let _ = killpg(group, Signal::SIGTERM);
        let end = Instant::now() + LIMIT;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        if !std::thread::panicking() {
            wait_until("the browser is gone", || {
                !is_alive(self.child.id()) && killpg(group, None).is_err()
            });
        }
    }
}
