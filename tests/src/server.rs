//! One run of the program under test.

use crate::lab::Lab;
use crate::netns::Netns;
use crate::refusal::refuse_ioctl;
use crate::{LIMIT, programs, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running `wsnic run`; killed with its children when dropped without being stopped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Server {
    /// Starts wsnic in the lab's server namespace with this configuration file and waits until it
    /// is ready.
    ///
    /// # Panics
    /// When it ends before it is ready, or is not ready in time.
    pub fn start(lab: &Lab, conf: &str) -> Server {
        Server::start_with(lab, conf, &[])
    }

    /// Like [`Server::start`], with options on the command line.
    pub fn start_with(lab: &Lab, conf: &str, options: &[&str]) -> Server {
        let mut server = Server::launch(lab, conf, options);
        server.wait_until_ready();
        server
    }

    /// Like [`Server::start`], on a kernel that does not know this ioctl.
    pub fn start_without_ioctl(lab: &Lab, conf: &str, request: u32) -> Server {
        let mut server = Server::launch_as(lab, conf, &[], |command| {
            refuse_ioctl(command, request);
        });
        server.wait_until_ready();
        server
    }

    /// Like [`Server::start_with`]; `JOURNAL_STREAM` is what systemd sets where standard error is the
    /// journal, or something else if that is wanted.
    pub fn start_as_if_for_the_journal(lab: &Lab, conf: &str, is_right: bool) -> Server {
        use std::os::unix::fs::MetadataExt as _;
        let file = File::create(lab.file("wsnic.log")).expect("a log file can be made");
        let stat = file.metadata().expect("a file has facts");
        let inode = stat.ino() + u64::from(!is_right);
        let mut server = Server::launch_as(lab, conf, &[], |command| {
            command.env("JOURNAL_STREAM", format!("{}:{inode}", stat.dev()));
        });
        server.wait_until_ready();
        server
    }

    /// Starts wsnic without waiting for it.
    pub fn launch(lab: &Lab, conf: &str, options: &[&str]) -> Server {
        Server::launch_as(lab, conf, options, |_| ())
    }

    fn launch_as(
        lab: &Lab,
        conf: &str,
        options: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Server {
        let (file, log) = (lab.file("wsnic.conf"), lab.file("wsnic.log"));
        std::fs::write(&file, conf).expect("a configuration file can be written");
        let output = File::create(&log).expect("a log file can be made");
        let mut command = Command::new(programs::wsnic());
        // No program under test may need another one.
        command.env("PATH", "/nonexistent");
        command.arg("run").arg("-c").arg(&file).args(options);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("one more handle"))
            .stderr(output);
        change(&mut command);
        let child = lab.srv.spawn(&mut command);
        Server { child, log, ended: false }
    }

    /// Runs wsnic where it must not come up; returns its log.
    pub fn refuses(lab: &Lab, conf: &str, options: &[&str]) -> String {
        let mut server = Server::launch(lab, conf, options);
        let status = server.wait();
        let log = server.log();
        assert!(!status.success(), "wsnic was to refuse this, but ended well:\n{log}");
        log
    }

    /// Waits until a ws:// URL stands in the log.
    pub fn wait_until_ready(&mut self) {
        let end = Instant::now() + LIMIT;
        while !self.log().contains("ws://") {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.ended = true;
                panic!("wsnic ended before it was ready: {status}\n{}", self.log());
            }
            assert!(Instant::now() < end, "wsnic is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and checks that it does so cleanly with all its processes.
    pub fn stop(mut self) -> String {
        let family = self.family();
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "wsnic ended with {status}:\n{log}");
        for pid in family {
            assert!(!is_alive(pid), "process {pid} outlives wsnic:\n{log}");
        }
        log
    }

    /// Waits for the supervisor's end.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.ended = true;
                return status;
            }
            assert!(Instant::now() < end, "wsnic does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the supervisor has ended; [`Server::wait`] then says how.
    pub fn has_ended(&self) -> bool {
        !is_alive(self.pid())
    }

    /// Sends a signal to one of its programs.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal_program(&self, name: &str, signal: Signal) {
        let pid = self.program(name).unwrap_or_else(|| panic!("no {name}:\n{}", self.log()));
        send(pid, signal);
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Kills the supervisor alone (SIGKILL) and waits for the rest to notice.
    pub fn kill(mut self) {
        let family = self.family();
        self.signal(Signal::SIGKILL);
        self.wait();
        wait_until("the killed supervisor's processes are gone", || {
            !family.iter().any(|pid| is_alive(*pid))
        });
    }

    /// Kills every process at once (SIGKILL).
    pub fn kill_all(mut self) {
        let family = self.family();
        self.signal(Signal::SIGKILL);
        family.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        self.wait();
        wait_until("the killed processes are gone", || !family.iter().any(|pid| is_alive(*pid)));
    }

    /// Kills the named programs, of which `wsnic` is the supervisor, one after the other (SIGKILL),
    /// as far as they run, and then what is left.
    pub fn kill_in_order(mut self, names: &[&str]) {
        let family = self.family();
        for name in names {
            let victims = family.iter().filter(|pid| command_name(**pid) == *name);
            victims.for_each(|pid| send(*pid, Signal::SIGKILL));
        }
        self.signal(Signal::SIGKILL);
        family.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        self.wait();
        wait_until("the killed processes are gone", || !family.iter().any(|pid| is_alive(*pid)));
    }

    /// Kills one of its programs (SIGKILL); false if there is none at the moment.
    pub fn kill_program(&self, name: &str) -> bool {
        let victims: Vec<u32> =
            self.family().into_iter().filter(|pid| command_name(*pid) == name).collect();
        victims.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        !victims.is_empty()
    }

    /// The supervisor's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of one of its programs.
    pub fn program(&self, name: &str) -> Option<u32> {
        self.family().into_iter().find(|pid| command_name(*pid) == name)
    }

    /// Who started one of its programs.
    pub fn parent_of(&self, name: &str) -> Pid {
        let is_parent = |pid: &u32| children(*pid).iter().any(|child| command_name(*child) == name);
        let parent = self.family().into_iter().find(is_parent);
        let parent = parent.unwrap_or_else(|| panic!("no {name}:\n{}", self.log()));
        Pid::from_raw(parent.cast_signed())
    }

    /// The helper's process.
    pub fn helper(&self) -> u32 {
        self.program("wsnic-priv").unwrap_or_else(|| panic!("no helper:\n{}", self.log()))
    }

    /// The front-end's process.
    pub fn front_end(&self) -> u32 {
        self.program("wsnic-front").unwrap_or_else(|| panic!("no front-end:\n{}", self.log()))
    }

    /// Kills one of its programs (SIGKILL), returns when it is dead, and runs `meanwhile` before the
    /// supervisor can start it again.
    pub fn without_program<T>(&self, name: &str, meanwhile: impl FnOnce() -> T) -> T {
        self.signal(Signal::SIGSTOP);
        let pid = self.program(name).unwrap_or_else(|| panic!("no {name}:\n{}", self.log()));
        send(pid, Signal::SIGKILL);
        wait_until("the killed program is dead", || !is_alive(pid));
        let value = meanwhile();
        self.signal(Signal::SIGCONT);
        value
    }

    /// Every process that descends from the supervisor, and itself.
    pub fn family(&self) -> Vec<u32> {
        descendants(self.pid())
    }

    /// How many files each of its programs has open, by name.
    pub fn open_files(&self) -> Vec<(String, usize)> {
        self.family().into_iter().map(|pid| (command_name(pid), open_files(pid))).collect()
    }

    /// Where clients connect inside the server's namespace, by default.
    pub fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8086))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of wsnic ----\n{}", self.log());
        }
        if !self.ended {
            let family = self.family();
            family.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
            let _ = self.child.wait();
        }
    }
}

/// How many files a process has open; 0 when there is no such process.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// What a process holds in memory.
pub fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Runs `wsnic` with these arguments in a namespace; its exit status and all that it printed.
pub fn run_wsnic(netns: &Netns, arguments: &[&str]) -> (ExitStatus, String) {
    let output = netns.output(Command::new(programs::wsnic()).args(arguments));
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// A process and every one that descends from it.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children(*pid));
        at += 1;
    }
    found
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

pub(crate) fn command_name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// True unless the process is gone, or all its threads are and it only waits to be reaped.
pub(crate) fn is_alive(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    threads > 1
        || stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

pub(crate) fn send(pid: u32, signal: Signal) {
    // Gone already is as good.
    let _ = kill(Pid::from_raw(pid as i32), signal);
}
