//! A folder that somebody works in, and lines of a manual run there: those of the documents, and those
//! of the earlier versions' manuals, by the program under test or by an earlier version itself.
//!
//! `WSNIC_PYTHON` names a checkout of an earlier version. Where there is none, there is nothing to
//! compare with, and [`Generation::checkout`] is None.

use crate::{LIMIT, Lab, programs};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What Docker leaves in containers.
const CONTAINER_MARK: &str = "/.dockerenv";

/// An earlier version, by its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// With `eth_iface`, and ports 8070 and 8071.
    Oldest,
    /// With `ws_server_addr`, `inet_iface` and `--docker-mode`.
    Middle,
    /// With `--ws-address` and `--enable-inet`.
    Newest,
}

impl Generation {
    /// The checkout that `WSNIC_PYTHON` names, if it is of this generation.
    pub fn checkout(self) -> Option<PathBuf> {
        let path = PathBuf::from(std::env::var_os("WSNIC_PYTHON").filter(|path| !path.is_empty())?);
        let path = fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("WSNIC_PYTHON={}: {error}", path.display()));
        let has = |file: &str, text: &str| {
            fs::read_to_string(path.join("wsnic").join(file)).is_ok_and(|code| code.contains(text))
        };
        let generation = if has("wsnic.py", "--ws-address") {
            Generation::Newest
        } else if has("__main__.py", "--docker-mode") {
            Generation::Middle
        } else if has("__main__.py", "eth_iface") {
            Generation::Oldest
        } else {
            panic!("WSNIC_PYTHON={} is no checkout of an earlier version", path.display());
        };
        (generation == self).then_some(path)
    }
}

/// The folder that a user works in: `wsnic.sh` of the earlier versions, `wsnic.conf` and `cert` lie
/// there, and `wsnic` is found.
#[derive(Debug)]
pub struct Home<'lab> {
    lab: &'lab Lab,
    dir: PathBuf,
    /// Where somebody listened before.
    before: BTreeSet<String>,
}

impl Home<'_> {
    /// A folder whose `wsnic.sh` starts the program under test, or with a checkout the one there.
    /// [`Home::remove`] takes it away again.
    pub fn new<'lab>(lab: &'lab Lab, theirs: Option<&Path>) -> Home<'lab> {
        if Path::new(CONTAINER_MARK).exists() {
            // The tests run in a container themselves, whose defaults are others.
            lab.srv.enter(|| {
                let (source, none) = (Some("/dev/null"), None::<&str>);
                mount(source, CONTAINER_MARK, none, MsFlags::MS_BIND, none).expect("a mount");
            });
        }
        let home = Home { lab, dir: lab.file("home"), before: listeners(lab) };
        for folder in ["", "bin"] {
            fs::create_dir(home.file(folder)).expect("a folder in the lab's");
        }
        let start = match theirs {
            // Without -B it would write beside its sources.
            Some(checkout) => {
                format!("PYTHONPATH={} exec python3 -B -m wsnic \"$@\"", checkout.display())
            }
            None => format!("exec {} \"$@\"", programs::wsnic().display()),
        };
        for (name, text) in
            [("wsnic.sh", start.as_str()), ("bin/sudo", "[ \"$1\" != -E ] || shift\nexec \"$@\"")]
        {
            home.write(name, &format!("#!/bin/sh\n{text}\n"));
            fs::set_permissions(home.file(name), PermissionsExt::from_mode(0o755)).expect("a mode");
        }
        symlink(programs::wsnic(), home.file("bin/wsnic")).expect("a link in a folder");
        home
    }

    /// A file below it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file below it, and the folder that the file lies in.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        fs::write(path, text).expect("a file in a folder");
    }

    /// Where somebody listens for TCP since it was made, but for name servers.
    pub fn listeners(&self) -> BTreeSet<String> {
        let new = listeners(self.lab).into_iter().filter(|address| !self.before.contains(address));
        new.filter(|address| !address.ends_with(":53")).collect()
    }

    /// Starts a line of a shell in it, in the lab's server namespace.
    pub fn launch(&self, line: &str, environment: &[(&str, &str)]) -> Former {
        // Two at the same time have one each.
        let log = (0..).map(|number| self.file(&format!("log.{number}"))).find(|log| !log.exists());
        let log = log.expect("there is always one more number");
        let output = File::create(&log).expect("a file in a folder");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {line}")]).current_dir(&self.dir);
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.file("bin");
        shell
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display()))
            .env("HOME", &self.dir);
        shell.envs(environment.iter().copied()).stdin(Stdio::null());
        shell.stdout(output.try_clone().expect("one more handle")).stderr(output);
        Former { child: self.lab.srv.spawn(&mut shell), log }
    }

    /// Removes it.
    pub fn remove(self) {
        fs::remove_dir_all(&self.dir).expect("the folder is the test's");
    }
}

/// A run; killed when dropped without being stopped.
#[derive(Debug)]
pub struct Former {
    child: Child,
    log: PathBuf,
}

impl Former {
    /// Starts a line that makes a server, and waits until it listens.
    pub fn serve(home: &Home<'_>, line: &str, environment: &[(&str, &str)]) -> Former {
        let mut former = home.launch(line, environment);
        let end = Instant::now() + LIMIT;
        while home.listeners().is_empty() {
            let ended = former.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "`{line}` ended: {}", former.log());
            assert!(Instant::now() < end, "`{line}` is not ready: {}", former.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        former
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ctrl-C, which a terminal sends to all of its processes; how it ends, and what it has printed.
    pub fn stop(self) -> (ExitStatus, String) {
        for pid in crate::server::descendants(self.child.id()) {
            crate::server::send(pid, Signal::SIGINT);
        }
        self.wait()
    }

    /// Waits for its end by itself.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return (status, self.log());
            }
            assert!(Instant::now() < end, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log ----\n{}", self.log());
        }
        if let Ok(None) = self.child.try_wait() {
            for pid in crate::server::descendants(self.child.id()) {
                crate::server::send(pid, Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

fn listeners(lab: &Lab) -> BTreeSet<String> {
    let listed = lab.srv.run("ss -Hltn");
    listed.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}
