//! A machine whose first process is systemd, with wsnic installed on it as `make install` does.
//!
//! It is this machine's systemd in new PID, mount and cgroup namespaces (tests/systemd/boot.sh), in
//! the network namespace of a lab: guests reach it as they reach any other server.

use crate::lab::Lab;
use crate::programs;
use crate::server::{children, command_name, is_alive};
use crate::snapshot::Snapshot;
use crate::wait_until;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The sockets that start wsnic's services, and the services, in an order in which they can be
/// stopped.
pub const UNITS: [&str; 7] = [
    "wsnic-front.socket",
    "wsnic-front-wss.socket",
    "wsnic-front-admin.socket",
    "wsnic-front-metrics.socket",
    "wsnic-front.service",
    "wsnic-priv.socket",
    "wsnic-priv.service",
];

/// Installs wsnic below `root`.
///
/// # Panics
/// When it cannot be installed.
pub fn install(root: &Path) {
    let sources = programs::source_dir().parent().expect("the tests lie in the workspace");
    let programs = programs::wsnic();
    let built = programs.parent().expect("a program lies in a folder");
    let mut make = Command::new("make");
    make.args(["--silent", "install-files"]).current_dir(sources);
    // The variables of a make that runs the tests are not for this one.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.arg(format!("RELEASE={}", built.display())).arg(format!("DESTDIR={}", root.display()));
    make.arg(format!("MANUAL={}", built.join("wsnic-manual").display()));
    let output = make.output().expect("make runs");
    assert!(output.status.success(), "make install-files: {}", printed(&output));
}

/// A booted machine; gone with all its processes when dropped.
#[derive(Debug)]
pub struct Bed {
    dir: TempDir,
    /// unshare(1), whose only child is systemd.
    outside: Child,
    init: u32,
    /// How the lab was before the machine was there.
    before: Snapshot,
}

impl Bed {
    /// Boots with this /etc/wsnic/wsnic.conf, and does what the manual tells an administrator to
    /// do. No client has connected yet.
    pub fn start(lab: &mut Lab, conf: &str) -> Bed {
        let bed = Bed::boot(lab, conf);
        bed.run("systemctl enable --quiet --now wsnic-front.socket wsnic-priv.socket");
        lab.settle();
        bed
    }

    /// Boots with wsnic installed and not enabled.
    pub fn boot(lab: &mut Lab, conf: &str) -> Bed {
        let dir = tempfile::Builder::new().prefix("wsnic-bed-").tempdir().expect("a folder");
        let installed = dir.path().join("installed");
        install(&installed);
        std::fs::write(installed.join("etc/wsnic/wsnic.conf"), conf).expect("a file in a folder");
        Bed::boot_from(lab, dir, &installed)
    }

    /// Boots a Debian of its own, with nothing of wsnic in it.
    pub fn boot_debian(lab: &mut Lab) -> Bed {
        let dir = tempfile::Builder::new().prefix("wsnic-bed-").tempdir().expect("a folder");
        let root = programs::debian();
        Bed::boot_from(lab, dir, &root)
    }

    fn boot_from(lab: &mut Lab, dir: TempDir, installed: &Path) -> Bed {
        let before = Snapshot::take(&lab.srv, &lab.file(""));
        let log = File::create(dir.path().join("boot.log")).expect("a file in a folder");
        let mut boot = Command::new(programs::source_dir().join("systemd/boot.sh"));
        boot.arg(dir.path()).arg(installed).stdin(Stdio::null());
        boot.stdout(log.try_clone().expect("one more handle")).stderr(log);
        let outside = lab.srv.spawn(&mut boot);
        let mut bed = Bed { dir, outside, init: 0, before };
        bed.wait_for_init();
        wait_until("the machine has booted", || bed.is_active("basic.target"));
        lab.settle();
        bed
    }

    fn wait_for_init(&mut self) {
        wait_until("systemd is there", || {
            let ended = self.outside.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "no boot: {}", self.boot_log());
            let of_boot = children(self.outside.id());
            let init = of_boot.into_iter().find(|pid| command_name(*pid) == "systemd");
            self.init = init.unwrap_or_default();
            init.is_some()
        });
    }

    fn boot_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("boot.log")).unwrap_or_default()
    }

    /// Runs a command line (split at blanks) on the machine.
    pub fn output(&self, line: &str) -> Output {
        self.enter(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs lines of a shell on the machine, in its folder /tmp.
    pub fn shell(&self, lines: &str) -> Output {
        self.enter(&["sh", "-c", &format!("cd /tmp && {lines}")])
    }

    fn enter(&self, words: &[&str]) -> Output {
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--target={}", self.init));
        enter.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"]);
        enter.arg("--").args(words).stdin(Stdio::null());
        enter.output().expect("nsenter runs")
    }

    /// Like [`Bed::output`]; what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "`{line}` failed: {}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether a unit is active.
    pub fn is_active(&self, unit: &str) -> bool {
        self.property(unit, "ActiveState") == "active"
    }

    /// What `systemctl show` says of a unit; empty while systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let output = self.output(&format!("systemctl show --value --property={name} {unit}"));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// systemd's process.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// The process of a service, as this machine numbers it; None while it does not run.
    pub fn process(&self, service: &str) -> Option<u32> {
        let inside: u32 = self.property(service, "MainPID").parse().ok().filter(|pid| *pid != 0)?;
        // The last number is the one that the process itself sees.
        children(self.init).into_iter().find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|line| line.split_whitespace().last()?.parse().ok()) == Some(inside)
        })
    }

    /// Waits until a service is ready with another process than `old`; the new one.
    pub fn successor(&self, service: &str, old: u32) -> u32 {
        let mut new = None;
        wait_until("a service is ready again", || {
            new = self.process(service).filter(|pid| *pid != old && self.is_active(service));
            new.is_some()
        });
        new.expect("just found")
    }

    /// Replaces /etc/wsnic/wsnic.conf.
    pub fn set_conf(&self, conf: &str) {
        std::fs::write(self.path("/etc/wsnic/wsnic.conf"), conf).expect("the machine's file");
    }

    /// A path on the machine, as this machine reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// All that a unit has logged.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!("journalctl --no-pager --output=cat --unit={unit}"))
    }

    /// Waits until a unit has logged this.
    pub fn wait_for_journal(&self, unit: &str, what: &str) {
        wait_until(what, || self.journal(unit).contains(what));
    }

    /// Stops everything of wsnic, checks that nothing is left of it, and powers the machine off.
    pub fn finish(self, lab: &Lab) {
        self.run(&format!("systemctl stop {}", UNITS.join(" ")));
        for unit in UNITS {
            assert_eq!(self.property(unit, "ActiveState"), "inactive", "{unit}");
        }
        let left: Vec<String> = children(self.init).into_iter().map(command_name).collect();
        assert!(!left.iter().any(|name| name.contains("wsnic")), "still running: {left:?}");
        assert!(!self.path("/run/wsnic-priv.sock").exists(), "the helper's socket is left");
        self.finish_without_wsnic(lab);
    }

    /// The same where wsnic is not installed any more.
    pub fn finish_without_wsnic(mut self, lab: &Lab) {
        let difference = lab.difference();
        assert!(difference.is_empty(), "left behind (+) or lost (-):\n{difference}");
        self.power_off();
        let difference = self.before.difference(&Snapshot::take(&lab.srv, &lab.file("")));
        assert!(difference.is_empty(), "of the machine (+) or lost (-):\n{difference}");
    }

    fn power_off(&mut self) {
        self.run("systemctl start --no-block poweroff.target");
        wait_until("the machine is off", || !is_alive(self.init));
        self.outside.wait().expect("a child can be waited for");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() && is_alive(self.init) {
            let log = self.output("journalctl --no-pager --unit=wsnic*");
            eprintln!(
                "---- {}\n---- journal of wsnic's units ----\n{}",
                self.boot_log(),
                printed(&log)
            );
        }
        // Kills systemd, and the kernel kills whatever is in its PID namespace.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        wait_until("the machine is gone", || self.init == 0 || !is_alive(self.init));
        let mut groups = Command::new("unshare");
        groups.args(["--mount", "sh", "-c", REMOVE_GROUPS, "groups"]).arg(self.dir.path());
        let removed = groups.status().is_ok_and(|status| status.success());
        if !removed && !std::thread::panicking() {
            panic!("the machine's control groups cannot be removed");
        }
    }
}

/// Removes the control groups that systemd made below the one of the folder's name.
const REMOVE_GROUPS: &str = r#"
    mount -t cgroup2 cgroup2 "$1/groups" &&
        find "$1/groups/$(basename "$1")" -depth -type d -exec rmdir {} +
"#;

/// All that a program has printed.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
