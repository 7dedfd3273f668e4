//! The page of examples/v86 in Chromium: machines in two tabs, by wss.

use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wsnic_tests::browser::{self, Browser, Tab};
use wsnic_tests::services::{WEB_NAME, blob, checksum};
use wsnic_tests::{
    Identity, Lab, Server, address, commands_of, source_dir, target_dir, wait_until,
};

const PAGE: &str = "http://127.0.0.1:8000/";
const WSS: &str = "wss://localhost:8087/";
const TRANSFER: usize = 2_000_000;
/// A machine boots in ten seconds where nothing else runs.
const LONG: Duration = Duration::from_secs(300);

/// The sources as far as the page needs them, served as its README says.
struct Example {
    root: PathBuf,
    web: Child,
    get: String,
}

impl Example {
    fn serve(lab: &Lab) -> Example {
        let root = lab.file("sources");
        let example = root.join("examples/v86");
        std::fs::create_dir_all(&example).expect("a folder of the test");
        let sources = source_dir().join("..");
        std::os::unix::fs::symlink(source_dir(), root.join("tests")).expect("a link of the test");
        for name in ["index.html", "page.js", "console.js", "machine.js", "get.sh"] {
            let file = sources.join("examples/v86").join(name);
            std::fs::copy(file, example.join(name)).expect("a file of the example");
        }
        let commands = commands_of("examples/v86/README.md");
        let [get, serve] = &commands[..] else { panic!("not two commands: {commands:?}") };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {serve}")).current_dir(&root);
        let nothing = (Stdio::null(), Stdio::null(), Stdio::null());
        let web = lab.srv.spawn(command.stdin(nothing.0).stdout(nothing.1).stderr(nothing.2));
        let answers = format!("curl -s -o /dev/null {PAGE}");
        wait_until("the page is served", || lab.srv.succeeds(&answers));
        Example { root, web, get: get.clone() }
    }

    /// Outside of the lab: it may need the network.
    fn get(&self) {
        let mut command = Command::new("sh");
        command.args(["-c", &self.get]).current_dir(&self.root).stdin(Stdio::null());
        let status = command.env("CARGO_TARGET_DIR", target_dir()).status();
        assert!(status.expect("a shell runs").success(), "`{}` failed", self.get);
    }

    fn finish(mut self) {
        self.web.kill().expect("it runs");
        self.web.wait().expect("a child");
        std::fs::remove_dir_all(self.root).expect("a folder of the test");
    }
}

#[test]
fn machines_in_two_tabs_of_the_example_reach_the_internet_and_each_other_by_wss() {
    let lab = Lab::new();
    let certificate = lab.file("server.pem");
    Identity::self_signed(&["localhost"]).write(&certificate);
    let conf = format!("inet_iface = wan0\nwss_server_cert = {}\n", certificate.display());
    let server = Server::start(&lab, &conf);
    let example = Example::serve(&lab);
    let mut browser = Browser::start(&lab.srv, &[&browser::trusting(&certificate)]);

    // What is wrong is said before anything starts.
    browser.open(&format!("{PAGE}?url=http://localhost:8087/"));
    says(&mut browser, "files/libv86.js is not there", "ws://127.0.0.1:8086/");
    example.get();
    browser.open(&format!("{PAGE}?url=http://localhost:8087/"));
    says(&mut browser, "begins with ws:// or wss://", "http://localhost:8087/");

    let expected = browser.complaints().len();
    browser.open(PAGE);
    assert_eq!(browser.value("document.querySelector('#network').dataset.state"), json!("off"));
    assert_eq!(
        browser.value("document.querySelector('#url').value"),
        json!("ws://127.0.0.1:8086/")
    );
    browser.value(&format!("document.querySelector('#url').value = '{WSS}'"));
    browser.value("document.querySelector('#go').click()");
    let first = booted(&mut browser);
    browser.new_tab();
    browser.open(&format!("{PAGE}?url={WSS}&card=ne2k&start"));
    let second = booted(&mut browser);
    assert_ne!(first.address, second.address);
    let requests = browser.requests();
    let is_own = |url: &String| {
        let url = url.strip_prefix("blob:").unwrap_or(url);
        [PAGE, WSS, "data:,"].iter().any(|own| url.starts_with(own))
    };
    assert!(requests.iter().all(is_own), "{requests:?}");
    assert_eq!(requests.iter().filter(|url| *url == WSS).count(), 2, "{requests:?}");

    for (guest, other) in [(&second, &first), (&first, &second)] {
        browser.show_tab(&guest.tab);
        // Else every frame is an event.
        browser.call("Network.disable", json!({}));
        let answer = run(&mut browser, &format!("nslookup -type=a {WEB_NAME}"));
        assert!(answer.contains(&address::WEB.to_string()), "{answer}");
        let sum = checksum(&blob(TRANSFER));
        let download = format!("wget -q -O - http://{WEB_NAME}/blob/{TRANSFER} | sha256sum");
        let answer = run(&mut browser, &download);
        assert!(answer.contains(&sum), "no {sum} in:\n{answer}");
        let answer = run(&mut browser, &format!("ping -c 3 {}", other.address));
        assert!(answer.contains(" 3 packets received"), "{answer}");
        let state = browser.value("document.querySelector('#network').innerText");
        let state = state.as_str().expect("a text");
        assert!(state.contains("Connected to localhost:8087. "), "{state}");
        let screen = browser.value("document.querySelector('#screen').innerText");
        let screen = screen.as_str().expect("a text").replace('\u{a0}', " ");
        assert!(screen.contains(&format!("ip={}", guest.address)), "{screen}");
    }
    assert_eq!(browser.complaints()[expected..], Vec::<String>::new());
    browser.update_screenshot("v86", 1520, false);

    server.stop();
    let lost = "document.querySelector('#network').innerText.includes('was lost (code 1001')";
    browser.wait_for(lost);
    drop(browser);
    example.finish();
    std::fs::remove_file(certificate).expect("a file of the test");
    lab.finish();
}

/// The form is refused because of this, and then has this address.
fn says(browser: &mut Browser, why: &str, address: &str) {
    browser.value(&format!("document.querySelector('#url').value = '{address}'"));
    browser.value("document.querySelector('#go').click()");
    let text = browser.value("document.querySelector('#machine[data-state=bad]')?.innerText");
    assert!(text.as_str().is_some_and(|text| text.contains(why)), "no {why:?}: {text}");
    assert_eq!(browser.value("document.querySelector('#go').disabled"), json!(false));
}

/// A machine with an address and a shell.
struct Guest {
    tab: Tab,
    address: String,
}

/// Waits for the machine of the tab in front.
fn booted(browser: &mut Browser) -> Guest {
    browser.wait_long_for("document.querySelector('#serial').value.endsWith('# ')", LONG);
    let text = console(browser);
    let address = text.split("ip=").nth(1).and_then(|rest| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("no address in:\n{text}")).to_owned();
    Guest { tab: browser.tab(), address }
}

/// What a command says that is typed into the serial console of the tab in front.
fn run(browser: &mut Browser, command: &str) -> String {
    browser.value("document.querySelector('#serial').focus()");
    let before = console(browser).len();
    browser.type_line(command);
    let answered = format!(
        "(text => text.includes('\\n') && text.endsWith('# '))(document.querySelector('#serial').value.slice({before}))"
    );
    browser.wait_long_for(&answered, LONG);
    console(browser)[before..].to_owned()
}

fn console(browser: &mut Browser) -> String {
    let text = browser.value("document.querySelector('#serial').value");
    text.as_str().expect("a text").to_owned()
}
