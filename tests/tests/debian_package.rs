//! The Debian package, on a Debian that has booted: installed, used, upgraded, removed, purged.
//!
//! The programs in it are those under test; docs/install.md says how "make deb" builds others.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use wsnic_tests::{
    Bed, Lab, RawGuest, Trust, UNITS, address, commands_of, debian_architecture, is_run, printed,
    source_dir, wait_until,
};

const HELPER: &str = "wsnic-priv.service";
const FRONT_END: &str = "wsnic-front.service";
const METRICS: &str = "wsnic-front-metrics.socket";
const DNSMASQ: &str = "wsnic-dnsmasq@default.service";

#[test]
fn a_package_is_installed_used_upgraded_removed_and_purged() {
    let mut lab = Lab::new();
    let bed = Bed::boot_debian(&mut lab);
    let before = state(&bed);
    let packages = Packages::new();

    apply(&bed, &format!("dpkg --install {}", packages.build(&bed, "1")));
    for socket in ["wsnic-front.socket", "wsnic-priv.socket"] {
        assert!(bed.is_active(socket), "{socket}");
        assert_eq!(bed.run(&format!("systemctl is-enabled {socket}")), "enabled");
    }
    assert_eq!(bed.property(FRONT_END, "ActiveState"), "inactive", "until a client comes");
    lab.settle();
    for file in [
        "/usr/share/man/man1/wsnic.1.gz",
        "/usr/share/man/man5/wsnic.conf.5.gz",
        "/usr/share/bash-completion/completions/wsnic",
        "/usr/share/zsh/vendor-completions/_wsnic",
        "/usr/share/fish/vendor_completions.d/wsnic.fish",
        "/usr/share/doc/wsnic/copyright",
    ] {
        assert!(bed.path(file).is_file(), "{file}");
    }
    bed.run("wsnic check --only-host-firewall");
    let mut guest = RawGuest::join(&lab);
    guest.ping_gateway(56);
    let (helper, front_end) = (running(&bed, HELPER), running(&bed, FRONT_END));

    // Somebody is there: the helper is of the new version, the session goes on.
    set_option(&bed, "max_clients=77");
    let said = apply(&bed, &format!("dpkg --install {}", packages.build(&bed, "2")));
    assert!(said.contains("1 sessions go on"), "{said}");
    bed.successor(HELPER, helper);
    assert_eq!(bed.process(FRONT_END), Some(front_end), "the front-end is the same");
    guest.ping_gateway(56);
    let conf = fs::read_to_string(bed.path("/etc/wsnic/wsnic.conf")).expect("a configuration");
    assert!(conf.contains("\nmax_clients=77\n"), "what the administrator has written stays");

    // Nobody is there: both are of the new version.
    guest.leave();
    wait_until("the session has ended", || bed.run("wsnic status").contains("sessions  0 of"));
    let helper = running(&bed, HELPER);
    bed.run("systemctl disable --quiet wsnic-front.socket");
    apply(&bed, &format!("dpkg --install {}", packages.build(&bed, "3")));
    bed.successor(HELPER, helper);
    bed.successor(FRONT_END, front_end);
    assert!(bed.run("wsnic status").contains("sessions  0 of at most 77"));
    let enabled = bed.output("systemctl is-enabled wsnic-front.socket");
    assert_eq!(String::from_utf8_lossy(&enabled.stdout).trim(), "disabled", "nobody is overruled");
    RawGuest::join(&lab).ping_gateway(56);

    // What an administrator has switched on besides goes as well. No network wants dnsmasq, so that it
    // is started again and again.
    bed.run("systemctl stop wsnic-front.service wsnic-priv.service");
    bed.run(&format!("systemctl enable --quiet --now {METRICS}"));
    bed.run(&format!("systemctl enable --quiet {DNSMASQ}"));
    RawGuest::join(&lab).ping_gateway(56);
    assert!(
        bed.is_active(METRICS) && bed.run(&format!("systemctl is-enabled {METRICS}")) == "enabled"
    );
    wait_until("it is tried", || bed.property(DNSMASQ, "ActiveState") == "activating");

    apply(&bed, "dpkg --remove wsnic");
    for unit in [METRICS, DNSMASQ] {
        assert_eq!(bed.property(unit, "ActiveState"), "inactive", "{unit}");
    }
    for unit in UNITS {
        assert_ne!(bed.property(unit, "ActiveState"), "active", "{unit}");
    }
    assert!(bed.path("/etc/wsnic/wsnic.conf").is_file(), "the configuration stays");
    assert!(!bed.path("/usr/bin/wsnic").exists());
    assert!(!lab.srv.ip("-o link show").contains("wsbr0"), "the bridge is left");

    apply(&bed, "dpkg --purge wsnic");
    let after = state(&bed);
    let added: Vec<_> = after.difference(&before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(added.is_empty() && lost.is_empty(), "left behind: {added:#?}, lost: {lost:#?}");
    bed.finish_without_wsnic(&lab);
}

#[test]
fn every_command_of_the_manual_does_what_it_says() {
    let mut lab = Lab::new();
    let bed = Bed::boot_debian(&mut lab);
    let packages = Packages::new();
    for revision in ["1", "2"] {
        packages.build(&bed, revision);
    }
    let mut done = 0;
    for command in commands_of("docs/install.md") {
        if !is_run("docs/install.md", &command) {
            continue;
        }
        // A terminal would be asked.
        let line = command.replace("amd64", debian_architecture()).replace("apt ", "apt -qq -y ");
        let output = bed.shell(&line);
        assert!(output.status.success(), "`{line}`: {}", printed(&output));
        if command.starts_with("apt install") || command.starts_with("systemctl restart") {
            let mut guest = RawGuest::join(&lab);
            guest.ping_gateway(56);
            guest.leave();
        }
        done += 1;
    }
    assert!(done >= 8, "the manual has {done} commands");
    assert!(!bed.path("/etc/wsnic").exists() && !bed.path("/usr/bin/wsnic").exists());
    bed.finish_without_wsnic(&lab);
}

#[test]
fn the_public_server_of_the_manual_lets_in_who_has_a_token_and_nobody_else() {
    const NAME: &str = "guests.example.org";
    let mut lab = Lab::new();
    let bed = Bed::boot_debian(&mut lab);
    Packages::new().build(&bed, "1");
    let hosts = format!("127.0.0.1 localhost\n{} {NAME}\n", address::WAN);
    fs::write(bed.path("/etc/hosts"), hosts).expect("a file of the machine");
    let wss = SocketAddr::from((address::WAN, 443));
    let knock = |path: &str| {
        let certificate = fs::read_to_string(bed.path("/etc/wsnic/cert/cert.crt"));
        let trust = Trust::new(&certificate.expect("it was made"), NAME);
        RawGuest::connect_tls(&lab.inet, wss, path, &[], &trust)
    };
    let (mut tokens, mut guests) = (Vec::new(), Vec::new());
    for command in commands_of("docs/public-server.md") {
        if !is_run("docs/public-server.md", &command) {
            continue;
        }
        if command == "wsnic sessions" {
            let path = format!("/?token={}", tokens.last().expect("a second one was made"));
            // Some numbers were taken by those who have looked whether it works.
            guests.extend((0..7).map(|_| knock(&path).expect("the second token lets in")));
        }
        let line = command.replace("amd64", debian_architecture()).replace("apt ", "apt -qq -y ");
        let line = line.replace("TOKEN", tokens.first().map_or("", String::as_str));
        let output = bed.shell(&line);
        let said = printed(&output);
        assert!(output.status.success(), "`{line}`: {said}");
        if command.starts_with("wsnic token") {
            let (_, rest) = said.split_once("?token=").expect("an address to give away");
            tokens.push(rest.split_whitespace().next().unwrap_or_default().to_owned());
        } else if command.starts_with("wsnic check --live") {
            assert!(knock("/").is_err(), "nobody comes in without a token");
            let ws = SocketAddr::from((address::WAN, 8086));
            assert!(RawGuest::connect_to(&lab.inet, ws, "/", &[]).is_err(), "ws:// is not public");
        } else if command == "wsnic sessions" {
            assert!(is_listed(&said, "7"), "{said}");
        } else if command == "wsnic kick 7" {
            wait_until("session 7 has ended", || !is_listed(&bed.run("wsnic sessions"), "7"));
        }
    }
    assert_eq!(tokens.len(), 2, "the manual makes two");
    assert!(bed.journal("wsnic-front").contains("identity=\"bob (token)\""));
    drop(guests);
    bed.run("apt-get -qq -y purge wsnic");
    bed.finish_without_wsnic(&lab);
}

fn is_listed(sessions: &str, id: &str) -> bool {
    sessions.lines().any(|line| line.split_whitespace().next() == Some(id))
}

#[test]
fn lintian_finds_no_mistake_and_the_package_asks_for_little() {
    let packages = Packages::new();
    let folder = tempfile::tempdir().expect("a folder");
    let package = packages.make("1", folder.path());
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--allow-root"]).arg(&package);
    let output = lintian.output().expect("lintian runs");
    assert!(output.status.success(), "{}", printed(&output));
    let field = |name: &str| {
        let output = Command::new("dpkg-deb").arg("--field").arg(&package).arg(name).output();
        printed(&output.expect("dpkg-deb runs")).trim().to_owned()
    };
    let needs = field("Depends");
    let needs: Vec<&str> = needs.split(", ").map(|need| need.split(' ').next().unwrap()).collect();
    assert_eq!(needs, ["libc6", "libgcc-s1", "systemd", "systemd"]);
    assert_eq!(field("Suggests"), "dnsmasq-base");
    assert_eq!(field("Recommends"), "");
    assert_eq!(field("Architecture"), debian_architecture());
}

/// The programs under test, as `packaging/programs.sh` would leave them.
struct Packages {
    programs: TempDir,
}

impl Packages {
    fn new() -> Packages {
        let programs = tempfile::tempdir().expect("a folder");
        for name in ["wsnic", "wsnic-priv", "wsnic-front"] {
            let built = wsnic_tests::wsnic().with_file_name(name);
            symlink(built, programs.path().join(name)).expect("a link");
        }
        fs::write(programs.path().join("NOTICES"), "none here\n").expect("a file");
        Packages { programs }
    }

    /// A package of this revision in the folder.
    fn make(&self, revision: &str, folder: &Path) -> PathBuf {
        let mut make = Command::new(source_dir().join("../packaging/debian/package.sh"));
        make.arg(debian_architecture()).arg(self.programs.path()).arg(folder).arg(revision);
        make.env("MANUAL", wsnic_tests::wsnic().with_file_name("wsnic-manual"));
        // Debug builds are large, and nobody sends this anywhere.
        make.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
            .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
            .env_remove("MAKEFLAGS");
        let output = make.output().expect("a script runs");
        assert!(output.status.success(), "{}", printed(&output));
        let version = env!("CARGO_PKG_VERSION");
        folder.join(format!("wsnic_{version}-{revision}_{}.deb", debian_architecture()))
    }

    /// The same on the machine, where it has this path.
    fn build(&self, bed: &Bed, revision: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let package = self.make(revision, folder.path());
        let name = package.file_name().and_then(|name| name.to_str()).expect("a name");
        let path = format!("/tmp/{name}");
        fs::copy(&package, bed.path(&path)).expect("the machine takes a file");
        path
    }
}

/// Runs dpkg; what it says.
fn apply(bed: &Bed, line: &str) -> String {
    let output = bed.output(line);
    let said = printed(&output);
    assert!(output.status.success(), "`{line}`: {said}");
    for word in ["warning", "error", "Failed", "not found"] {
        assert!(!said.contains(word), "`{line}`: {said}");
    }
    said
}

/// The names of all files of the machine, but for dpkg's own notes and logs, and its users.
fn state(bed: &Bed) -> BTreeSet<String> {
    let listed =
        bed.run("find / -xdev -not -path /tmp/* -not -path /var/lib/dpkg/* -not -path /var/log/*");
    let run = bed.run("find /run -xdev -not -path /run/systemd/* -not -path /run/log/*");
    let files = listed.lines().chain(run.lines());
    // Copies that dpkg and the tools for users keep of what was before, and their locks.
    let is_note =
        |path: &str| path.ends_with('-') && path.starts_with("/etc/") || path == "/etc/.pwd.lock";
    let mut state: BTreeSet<String> =
        files.filter(|path| !is_note(path)).map(str::to_owned).collect();
    for file in ["passwd", "group", "shadow", "gshadow"] {
        let users = fs::read_to_string(bed.path(&format!("/etc/{file}"))).expect("users");
        state.extend(users.lines().map(|line| format!("{file}: {line}")));
    }
    state
}

fn set_option(bed: &Bed, line: &str) {
    let path = bed.path("/etc/wsnic/wsnic.conf");
    let conf = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, format!("{conf}\n{line}\n")).expect("a file of the machine");
}

fn running(bed: &Bed, service: &str) -> u32 {
    wait_until("the service is ready", || bed.is_active(service));
    bed.process(service).expect("it is active")
}
