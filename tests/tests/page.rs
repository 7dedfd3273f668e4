//! The page that tests itself, in Chromium: green, and what it says of each trouble.
//!
//! `WSNIC_UPDATE_SCREENSHOTS=1` writes docs/screenshots anew.

use serde_json::{Value, json};
use std::path::PathBuf;
use wsnic_tests::browser::{self, Browser};
use wsnic_tests::services::checksum;
use wsnic_tests::{Door, Identity, Lab, Server, wait_until};

const HTTP: &str = "http://127.0.0.1:8086/";
const PHONE: (u32, u32) = (390, 844);
const DESKTOP: (u32, u32) = (900, 820);
/// All steps, as they are when all is well.
const GREEN: [&str; 5] = ["good"; 5];

/// A browser whose tab has opened the page and tested.
fn tested(lab: &Lab, url: &str, options: &[&str]) -> Browser {
    let mut browser = Browser::start(&lab.srv, options);
    browser.resize(PHONE, true, false);
    browser.open(url);
    wait_for_verdict(&mut browser);
    browser
}

fn wait_for_verdict(browser: &mut Browser) {
    browser.wait_for("!!document.querySelector('#verdict')?.dataset.state");
}

/// How each step went.
fn states(browser: &mut Browser) -> Value {
    browser.value("[...document.querySelectorAll('#steps li')].map((step) => step.dataset.state)")
}

/// What the page shows.
fn text(browser: &mut Browser) -> String {
    browser.value("document.body.innerText").as_str().expect("a text").to_owned()
}

fn finish(lab: Lab, server: Server, browser: Browser, files: &[PathBuf]) {
    drop(browser);
    wait_until("the page's guest has left", || lab.ports() == 0);
    server.stop();
    files.iter().for_each(|file| std::fs::remove_file(file).expect("a file of the test"));
    lab.finish();
}

#[test]
fn with_nat_and_dns_every_step_is_green_again_and_again_and_the_guest_leaves() {
    let lab = Lab::new();
    // One address for all: it has to be given back.
    let server = Server::start(&lab, "inet_iface = wan0\nsubnet = 192.168.86.0/30\n");
    let mut browser = tested(&lab, &format!("{HTTP}some/path?x=1&y=a%20b#here"), &[]);
    assert_eq!(states(&mut browser), json!(GREEN), "{}", text(&mut browser));
    let page = text(&mut browser);
    for shown in ["192.168.86.2", "192.168.86.1", "example.com", "All is well", "not encrypted"] {
        assert!(page.contains(shown), "no {shown:?} in:\n{page}");
    }
    let times = browser.value(
        "[...document.querySelectorAll('.time')].every((time) => /^[0-9.]+ ms$/.test(time.innerText))",
    );
    assert_eq!(times, json!(true), "{page}");
    let address = "ws://127.0.0.1:8086/some/path?x=1&y=a%20b";
    assert_eq!(browser.value("document.querySelector('#url').value"), json!(address));
    wait_until("the page's guest has left", || lab.ports() == 0);

    browser.value("document.querySelector('#again').click()");
    wait_for_verdict(&mut browser);
    assert_eq!(states(&mut browser), json!(GREEN), "{}", text(&mut browser));
    assert!(text(&mut browser).contains("192.168.86.2"), "the address was given back");
    // It asked its own server only, and the browser found nothing to complain of.
    let requests = browser.requests();
    assert_eq!(requests.iter().filter(|url| *url == address).count(), 2, "{requests:?}");
    let is_own = |url: &String| {
        ["http://127.0.0.1:8086/", "ws://127.0.0.1:8086/", "data:,"]
            .iter()
            .any(|own| url.starts_with(own))
    };
    assert!(requests.iter().all(is_own), "{requests:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    browser.value("document.querySelector('#copy').click()");
    browser.wait_for("document.querySelector('#copied').innerText === 'Copied.'");
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    for width in [320, PHONE.0, DESKTOP.0] {
        browser.resize((width, 800), true, false);
        assert_eq!(browser.value(fits), json!(true), "{width} pixels are enough");
    }
    browser.value("document.querySelector('#copied').textContent = ''; getSelection().empty(); document.activeElement.blur()");
    browser.update_screenshot("page-phone", PHONE.0, false);
    browser.update_screenshot("page-phone-dark", PHONE.0, true);
    browser.update_screenshot("page-desktop", DESKTOP.0, false);
    finish(lab, server, browser, &[]);
}

#[test]
fn without_the_internet_the_page_says_how_guests_get_it() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut browser = tested(&lab, HTTP, &[]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["good", "good", "good", "good", "warn"]), "{page}");
    assert!(page.contains("--enable-inet") && page.contains("enable_inet=yes"), "{page}");
    browser.update_screenshot("page-no-internet", PHONE.0, false);
    finish(lab, server, browser, &[]);
}

#[test]
fn the_page_joins_the_network_or_room_that_its_address_names() {
    let lab = Lab::new();
    let conf = "strict_paths = yes\n\
                [network lab]\nsubnet = 10.1.0.0/24\ninet_iface = wan0\n\
                [network rooms]\nsubnet = 10.2.0.0/16\nrooms = on\ninet_iface = wan0\n\
                [network own]\nsubnet = 10.3.0.0/24\nprivate = yes\n";
    let server = Server::start(&lab, conf);
    let mut browser = tested(&lab, &format!("{HTTP}lab"), &[]);
    assert_eq!(states(&mut browser), json!(GREEN), "{}", text(&mut browser));
    assert!(text(&mut browser).contains("10.1.0.1"), "{}", text(&mut browser));
    let address = "ws://127.0.0.1:8086/lab";
    assert_eq!(browser.value("document.querySelector('#url').value"), json!(address));
    let mut opened = |path: &str| {
        browser.open(&format!("{HTTP}{path}"));
        wait_for_verdict(&mut browser);
        (states(&mut browser), text(&mut browser))
    };
    let (room, page) = opened("rooms/secret");
    assert_eq!(room, json!(GREEN), "{page}");
    assert!(page.contains("10.2.0.1"), "{page}");
    for path in ["nowhere", "rooms", "own"] {
        let (states, page) = opened(path);
        assert_eq!(states[0], "bad", "{path}: {page}");
        assert!(page.contains("strict_paths") && page.contains("private"), "{path}: {page}");
    }
    finish(lab, server, browser, &[]);
}

#[test]
fn a_gateway_that_is_not_there_and_one_that_does_not_answer_are_told() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    lab.srv.ip("link set wsbr0 down");
    let mut browser = tested(&lab, HTTP, &[]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["good", "good", "bad", "skip", "skip"]), "{page}");
    assert!(page.contains("does not answer ARP") && page.contains("is down"), "{page}");
    browser.update_screenshot("page-no-gateway", PHONE.0, false);
    lab.srv.ip("link set wsbr0 up");
    lab.srv.set_sysctl("net/ipv4/icmp_echo_ignore_all", "1");
    browser.value("document.querySelector('#again').click()");
    wait_for_verdict(&mut browser);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["good", "good", "good", "warn", "good"]), "{page}");
    assert!(page.contains("does not answer a ping"), "{page}");
    browser.update_screenshot("page-no-ping", PHONE.0, false);
    lab.srv.set_sysctl("net/ipv4/icmp_echo_ignore_all", "0");
    finish(lab, server, browser, &[]);
}

#[test]
fn a_name_server_that_is_silent_or_knows_nothing_is_named() {
    let lab = Lab::new();
    let conf = "inet_iface = wan0\ndhcp_nameserver = 93.184.216.34\n";
    let server = Server::start(&lab, conf);
    let mut browser = tested(&lab, HTTP, &[]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["good", "good", "good", "good", "bad"]), "{page}");
    assert!(page.contains("93.184.216.34 does not answer"), "{page}");
    assert!(page.contains("host_firewall=open") && page.contains("dhcp_nameserver"), "{page}");
    browser.update_screenshot("page-no-names", PHONE.0, false);
    finish(lab, server, browser, &[]);
}

#[test]
fn without_dhcp_the_page_says_which_options_to_look_at() {
    let lab = Lab::new();
    let server = Server::start(&lab, "dhcp_service = disabled\n");
    let mut browser = tested(&lab, HTTP, &[]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["good", "bad", "skip", "skip", "skip"]), "{page}");
    assert!(page.contains("No answer to DHCP") && page.contains("dhcp_service"), "{page}");
    browser.update_screenshot("page-no-dhcp", PHONE.0, true);
    finish(lab, server, browser, &[]);
}

#[test]
fn where_a_token_is_needed_the_page_says_so_and_takes_it_in_its_address() {
    let lab = Lab::new();
    let (secret, path) = ("correct-horse-battery-staple-0001", lab.file("tokens"));
    let line = format!("alice sha256:{}\n", checksum(secret.as_bytes()));
    std::fs::write(&path, line).expect("a file can be written");
    let server = Server::start(&lab, &format!("token_file = {}\n", path.display()));
    let mut browser = tested(&lab, HTTP, &[]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["bad", "skip", "skip", "skip", "skip"]), "{page}");
    assert!(page.contains("a token is needed: add ?token="), "{page}");
    browser.update_screenshot("page-no-token", PHONE.0, false);
    browser.open(&format!("{HTTP}?token=wrong"));
    wait_for_verdict(&mut browser);
    let page = text(&mut browser);
    assert!(page.contains("the token in this page's address is wrong"), "{page}");
    browser.open(&format!("{HTTP}?token={secret}"));
    wait_for_verdict(&mut browser);
    assert_eq!(states(&mut browser)[0], json!("good"), "{}", text(&mut browser));
    finish(lab, server, browser, &[path]);
}

#[test]
fn a_server_that_is_gone_is_told_from_one_that_refuses() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let mut browser = tested(&lab, HTTP, &[]);
    server.stop();
    browser.value("document.querySelector('#again').click()");
    wait_for_verdict(&mut browser);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(["bad", "skip", "skip", "skip", "skip"]), "{page}");
    assert!(page.contains("The server does not answer"), "{page}");
    browser.update_screenshot("page-gone", PHONE.0, false);
    drop(browser);
    lab.finish();
}

#[test]
fn by_https_the_page_tests_wss_and_says_that_tls_works() {
    let lab = Lab::new();
    let identity = Identity::self_signed(&["localhost", "127.0.0.1"]);
    let certificate = lab.file("server.pem");
    identity.write(&certificate);
    let conf = format!("inet_iface = wan0\nwss_server_cert = {}\n", certificate.display());
    let server = Server::start(&lab, &conf);
    let trusting = browser::trusting(&certificate);
    let mut browser = Browser::start(&lab.srv, &[]);
    let why = browser.fails_to_open("https://localhost:8087/");
    assert!(why.contains("CERT_AUTHORITY_INVALID"), "{why}");
    drop(browser);
    let mut browser = tested(&lab, "https://localhost:8087/room", &[&trusting]);
    let page = text(&mut browser);
    assert_eq!(states(&mut browser), json!(GREEN), "{page}");
    assert!(page.contains("TLS works"), "{page}");
    let url = browser.value("document.querySelector('#url').value");
    assert_eq!(url, json!("wss://localhost:8087/room"));
    browser.update_screenshot("page-https", DESKTOP.0, true);
    finish(lab, server, browser, &[certificate]);
}

#[test]
fn page_off_leaves_browsers_with_the_short_text() {
    let lab = Lab::new();
    let request = b"GET / HTTP/1.1\r\nHost: wsnic\r\nAccept: text/html\r\n\r\n";
    for (conf, status) in [("", 200), ("page = off\n", 426)] {
        let server = Server::start(&lab, conf);
        let mut door = Door::knock(&lab);
        door.send(request);
        let response = door.response();
        door.wait_for_end();
        assert_eq!(response.status, status, "{conf}: {response:?}");
        let policy = response.header("content-security-policy");
        assert_eq!(policy.is_some(), status == 200, "{conf}");
        assert!(response.head.len() + response.body.len() <= 30_000, "the page's bar");
        server.stop();
    }
    lab.finish();
}
