//! In the place of `wsnic run`: starts the two programs and keeps the helper's connections from one
//! helper to the next, but pauses for nothing and kills when the test says so.

use crate::server::{is_alive, send};
use crate::{LIMIT, Lab, Server, programs, wait_until};
use command_fds::{CommandFdExt, FdMapping};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::IoSliceMut;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A helper and a front-end, each a child of the test; killed when dropped without being stopped.
#[derive(Debug)]
pub struct Keeper<'lab> {
    lab: &'lab Lab,
    listener: OwnedFd,
    /// What the helper gave to be kept, by name.
    store: BTreeMap<String, OwnedFd>,
    /// What the helper says comes out here.
    notify: OwnedFd,
    helper: Child,
    front_end: Child,
}

impl Keeper<'_> {
    /// Starts both and waits until clients are served.
    pub fn start<'lab>(lab: &'lab Lab, conf: &str) -> Keeper<'lab> {
        std::fs::write(lab.file("wsnic.conf"), conf).expect("a configuration file can be written");
        let listener = listen(lab);
        let (notify, theirs) = pair();
        let helper = spawn_helper(lab, &listener, theirs, &BTreeMap::new());
        let mut front_end = Command::new(programs::front_end());
        front_end.arg("--helper").arg(path(lab));
        let front_end = spawn(lab, front_end);
        let store = BTreeMap::new();
        let mut keeper = Keeper { lab, listener, store, notify, helper, front_end };
        keeper.wait_until_the_helper_serves();
        wait_until("the front-end listens", || {
            lab.srv.enter(|| TcpStream::connect_timeout(&Server::address(), LIMIT)).is_ok()
        });
        keeper
    }

    /// Kills the helper (SIGKILL) and returns when it is dead.
    pub fn kill_helper(&mut self) {
        send(self.helper(), Signal::SIGKILL);
        self.helper.wait().expect("a child can be waited for");
        // What it said before it died counts.
        while self.hear_one() != Heard::Nothing {}
    }

    /// Starts the next helper with what the one before left, and does not wait for it.
    pub fn start_helper(&mut self) {
        let (notify, theirs) = pair();
        self.notify = notify;
        self.helper = spawn_helper(self.lab, &self.listener, theirs, &self.store);
    }

    /// Waits until the helper says that it serves.
    pub fn wait_until_the_helper_serves(&mut self) {
        wait_until("the helper serves", || {
            while is_alive(self.helper()) {
                match self.hear_one() {
                    Heard::Ready => return true,
                    Heard::Nothing => return false,
                    Heard::Other => {}
                }
            }
            panic!("the helper has ended:\n{}", self.log());
        });
    }

    /// [`Keeper::kill_helper`], [`Keeper::start_helper`], and waits until it serves.
    pub fn replace_helper(&mut self) {
        self.kill_helper();
        self.start_helper();
        self.wait_until_the_helper_serves();
    }

    /// Where the helper listens.
    pub fn socket(&self) -> PathBuf {
        path(self.lab)
    }

    /// The helper's process.
    pub fn helper(&self) -> u32 {
        self.helper.id()
    }

    /// The front-end's process.
    pub fn front_end(&self) -> u32 {
        self.front_end.id()
    }

    /// Sends a signal to the helper.
    pub fn signal_helper(&self, signal: Signal) {
        send(self.helper(), signal);
    }

    /// Sends a signal to the front-end.
    pub fn signal_front_end(&self, signal: Signal) {
        send(self.front_end(), signal);
    }

    /// All that both have printed.
    pub fn log(&self) -> String {
        log(self.lab)
    }

    /// Ends both in order, and checks that they do so cleanly.
    pub fn stop(mut self) {
        let lab = self.lab;
        for child in [&mut self.front_end, &mut self.helper] {
            let pid = child.id();
            send(pid, Signal::SIGTERM);
            wait_until("the program has ended", || !is_alive(pid));
            let status = child.wait().expect("a child can be waited for");
            assert!(status.success(), "a program ended with {status}:\n{}", log(lab));
        }
        std::fs::remove_file(path(self.lab)).expect("the socket is the test's");
    }

    /// Takes one message of the helper, and what it wants kept.
    fn hear_one(&mut self) -> Heard {
        let mut bytes = [0; 256];
        let mut control = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let socket = self.notify.as_raw_fd();
        let message = match socket::recvmsg::<()>(socket, &mut parts, Some(&mut control), flags) {
            Ok(message) if message.bytes > 0 => message,
            Ok(_) | Err(Errno::EAGAIN | Errno::ECONNRESET) => return Heard::Nothing,
            Err(error) => panic!("the helper's notify socket: {error}"),
        };
        let fd = message.cmsgs().expect("room for one fd").find_map(|part| match part {
            ControlMessageOwned::ScmRights(rights) => rights.first().copied(),
            _ => None,
        });
        let len = message.bytes;
        let fd = fd.map(own);
        let text = String::from_utf8_lossy(&bytes[..len]);
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        match (value("FDNAME"), fd) {
            (Some(name), Some(fd)) => drop(self.store.insert(name, fd)),
            (Some(name), None) => drop(self.store.remove(&name)),
            _ => {}
        }
        if value("READY").is_some() { Heard::Ready } else { Heard::Other }
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of helper and front-end ----\n{}", self.log());
        }
        for child in [&mut self.front_end, &mut self.helper] {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Ready,
    Other,
    Nothing,
}

fn path(lab: &Lab) -> PathBuf {
    lab.file("helper.sock")
}

fn log(lab: &Lab) -> String {
    let bytes = std::fs::read(lab.file("wsnic.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn listen(lab: &Lab) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .expect("a socket can be made");
    let address = UnixAddr::new(&path(lab)).expect("a path that fits");
    socket::bind(fd.as_raw_fd(), &address).expect("the lab's folder takes a socket");
    socket::listen(&fd, Backlog::new(8).expect("a small number")).expect("it can listen");
    fd
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .expect("a pair of sockets can be made")
}

fn spawn_helper(
    lab: &Lab,
    listener: &OwnedFd,
    notify: OwnedFd,
    store: &BTreeMap<String, OwnedFd>,
) -> Child {
    let copy = |fd: &OwnedFd| fd.try_clone().expect("one more handle");
    let mut names = vec!["notify", "wsnic-priv"];
    let mut fds = vec![notify, copy(listener)];
    for (name, fd) in store {
        names.push(name);
        fds.push(copy(fd));
    }
    let mut command = Command::new(programs::helper());
    command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.env("LISTEN_PPID", std::process::id().to_string());
    let mappings = (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("each number once");
    spawn(lab, command)
}

fn spawn(lab: &Lab, mut command: Command) -> Child {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(lab.file("wsnic.log"))
        .expect("a log file can be made");
    command.arg("-c").arg(lab.file("wsnic.conf")).env("PATH", "/nonexistent");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("one more handle")).stderr(log);
    lab.srv.spawn(&mut command)
}

/// Takes ownership of an fd that the kernel has just given to this process.
#[allow(unsafe_code)]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: it came with a message that was just received, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
