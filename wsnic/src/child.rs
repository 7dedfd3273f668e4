//! One of wsnic's other programs as a child process.

use command_fds::{CommandFdExt, FdMapping};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use wsnic_os::log::Style;
use wsnic_os::notify::INHERITED_NAME;
use wsnic_os::packet::{self, PacketSocket};
use wsnic_proto::cli::Verbosity;
use wsnic_proto::settings::Sandbox;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the programs are when they do not stand beside this one.
const PROGRAM_DIRS: [&str; 2] = ["/usr/libexec/wsnic", "/usr/sbin"];

/// The first inherited fd (SD_LISTEN_FDS_START).
const FIRST_INHERITED: i32 = 3;

/// Sockets that a program wants to find again at its next start, by name.
pub type Store = BTreeMap<String, OwnedFd>;

/// How to start a program.
pub struct Program {
    path: PathBuf,
    conf: String,
    /// What it reads as standard input, if it was started: written here, read there.
    given: Option<File>,
    log: Style,
    /// Stands before all arguments.
    word: Option<&'static str>,
    arguments: Vec<OsString>,
    /// Sockets that it gets at each start, by name.
    sockets: Vec<(&'static str, OwnedFd)>,
    /// Whether it sees no process but its own, and must.
    alone: Option<Sandbox>,
}

impl Program {
    /// `name` beside this program, or where packages put it; `conf` becomes its configuration.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn find(name: &str, conf: String, log: Style) -> io::Result<Program> {
        let beside = std::env::current_exe()?.parent().map(PathBuf::from);
        let path = beside
            .into_iter()
            .chain(PROGRAM_DIRS.map(PathBuf::from))
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let text = format!(
                    "{name} is not beside this program, nor in {}",
                    PROGRAM_DIRS.join(", ")
                );
                io::Error::new(io::ErrorKind::NotFound, text)
            })?;
        Ok(Program {
            path,
            conf,
            given: None,
            log,
            word: None,
            arguments: Vec::new(),
            sockets: Vec::new(),
            alone: None,
        })
    }

    /// Names the command that is meant, of a program that has several.
    #[must_use]
    pub fn word(mut self, word: &'static str) -> Program {
        self.word = Some(word);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Program {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a socket that it is started with.
    #[must_use]
    pub fn socket(mut self, name: &'static str, socket: OwnedFd) -> Program {
        self.sockets.push((name, socket));
        self
    }

    /// Gives it a PID namespace of its own each time, as far as `level` demands.
    #[must_use]
    pub fn alone(mut self, level: Sandbox) -> Program {
        self.alone = Some(level);
        self
    }

    /// Changes what the program reads when it is started, or told to read again (SIGHUP).
    ///
    /// # Errors
    /// The system has no memory for it.
    pub fn change(&mut self, conf: String) -> io::Result<()> {
        if let Some(given) = &self.given {
            given.set_len(0)?;
            given.write_all_at(conf.as_bytes(), 0)?;
        }
        self.conf = conf;
        Ok(())
    }

    /// Starts it. The configuration goes in by standard input: nothing of it shows in `ps`. The
    /// sockets of `store` go with it, as systemd passes on its fd store (sd_listen_fds(3)), and before
    /// them one by which it says how it is (sd_notify(3)); the other end is returned.
    ///
    /// # Errors
    /// The system cannot start it.
    pub fn spawn(&mut self, store: &Store) -> io::Result<(Child, PacketSocket)> {
        // Anew each time, and open to the child for reading only: what it reads as root after a
        // crash must not be what it wrote before.
        let conf = File::from(memfd_create(c"wsnic.conf", MFdFlags::MFD_CLOEXEC)?);
        conf.write_all_at(self.conf.as_bytes(), 0)?;
        let stdin = File::open(format!("/proc/self/fd/{}", conf.as_raw_fd()))?;
        self.given = Some(conf);
        let mut command = Command::new(&self.path);
        command.args(self.word).args(["-c", "-"]).args(&self.arguments);
        match self.log.verbosity {
            Verbosity::Quiet => drop(command.arg("-q")),
            Verbosity::Normal => {}
            Verbosity::Verbose => drop(command.arg("-v")),
            Verbosity::Everything => drop(command.arg("-vv")),
        }
        if self.log.use_syslog {
            command.arg("--use-syslog");
        }
        // What a service manager has told this program is not for its children.
        for name in ["NOTIFY_SOCKET", "LISTEN_PID"] {
            command.env_remove(name);
        }
        let (ours, theirs) = packet::pair()?;
        let mut names = vec![INHERITED_NAME];
        let mut fds = vec![theirs];
        for (name, fd) in &self.sockets {
            names.push(name);
            fds.push(fd.try_clone()?);
        }
        for (name, fd) in store {
            names.push(name);
            fds.push(fd.try_clone()?);
        }
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        command.env("LISTEN_PPID", std::process::id().to_string());
        let mapping = |(child_fd, parent_fd)| FdMapping { parent_fd, child_fd };
        let mappings = (FIRST_INHERITED..).zip(fds).map(mapping).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        // A group of its own: Ctrl-C reaches this program alone, which ends the others in order.
        command.env_remove("RUST_BACKTRACE").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::from(stdin));
        let child = match self.alone {
            Some(level) => spawn_alone(&mut command, level)?,
            None => command.spawn()?,
        };
        Ok((child, PacketSocket::new(ours)?))
    }
}

/// Starts a child as the first process of a PID namespace (pid_namespaces(7)).
///
/// To be called where this process has one thread, whose next child it is.
fn spawn_alone(command: &mut Command, level: Sandbox) -> io::Result<Child> {
    if level == Sandbox::Off {
        return command.spawn();
    }
    let ours = File::open("/proc/self/ns/pid")?;
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => {
            let child = command.spawn();
            setns(ours, CloneFlags::CLONE_NEWPID)?;
            child
        }
        Err(error) if level == Sandbox::Require => {
            let text = format!(
                "no PID namespace for it ({error}), which sandbox=require demands (sandbox=prefer \
                 goes on without)"
            );
            Err(io::Error::other(text))
        }
        Err(error) => {
            tracing::debug!(%error, "the front-end gets no PID namespace of its own");
            command.spawn()
        }
    }
}

/// Sends a signal to a child; one that has ended has none to hear.
pub fn signal(child: &Child, signal: Signal) -> nix::Result<()> {
    match child.id().and_then(|pid| i32::try_from(pid).ok()) {
        Some(pid) => kill(Pid::from_raw(pid), signal),
        None => Ok(()),
    }
}

/// Asks a child to end, waits, and kills it after `limit`.
pub async fn end(child: &mut Child, name: &str, limit: Duration) {
    if child.id().is_none() {
        return;
    }
    if let Err(error) = signal(child, Signal::SIGTERM) {
        tracing::debug!(%error, name, "cannot ask it to end");
    }
    if timeout(limit, child.wait()).await.is_err() {
        tracing::warn!(name, "does not end, killing it");
        if let Err(error) = child.kill().await {
            tracing::error!(%error, name, "cannot kill it");
        }
    }
}

/// `exit status: 1`, or the signal that ended it.
pub fn describe(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
