//! A network namespace without a name: it is gone with the last process and handle in it, so that
//! a test that is killed leaves nothing behind.
//!
//! One may come with a mount namespace of its own, in which `/run` is empty, `/sys` shows the
//! namespace's own interfaces and `/etc/resolv.conf` is a file of the test.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A network namespace, with or without a mount namespace.
#[derive(Debug)]
pub struct Netns {
    net: File,
    mounts: Option<File>,
}

impl Netns {
    /// A new namespace with the loopback interface up.
    pub fn new() -> Netns {
        let net = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace (needs root)");
            own_namespace("net")
        });
        Netns { net, mounts: None }.with_loopback()
    }

    /// A new namespace that also sees its own `/run`, `/sys` and, as `/etc/resolv.conf`, the
    /// existing file `resolv_conf`.
    pub fn with_mounts(resolv_conf: &Path) -> Netns {
        let (net, mounts) = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("a new network and mount namespace (needs root)");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount_or_panic(None, "/", None, private);
            mount_or_panic(Some(resolv_conf), "/etc/resolv.conf", None, MsFlags::MS_BIND);
            mount_or_panic(None, "/run", Some("tmpfs"), MsFlags::empty());
            mount_or_panic(None, "/sys", Some("sysfs"), MsFlags::empty());
            (own_namespace("net"), own_namespace("mnt"))
        });
        Netns { net, mounts: Some(mounts) }.with_loopback()
    }

    fn with_loopback(self) -> Netns {
        // Without duplicate address detection addresses are usable, and comparable, at once.
        self.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        self.set_sysctl("net/ipv6/conf/all/accept_dad", "0");
        self.ip("link set lo up");
        self
    }

    /// Runs `work` in a thread that is inside. Sockets, interfaces and processes that it makes
    /// belong here and may be taken out.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            setns(&self.net, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
            if let Some(mounts) = &self.mounts {
                // A mount namespace cannot be entered while the file system state is shared.
                unshare(CloneFlags::CLONE_FS).expect("a thread's own file system state");
                setns(mounts, CloneFlags::CLONE_NEWNS).expect("entering a mount namespace");
            }
            work()
        })
    }

    /// Starts a program inside.
    pub fn spawn(&self, command: &mut Command) -> Child {
        self.enter(|| command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Runs a program inside to its end.
    pub fn output(&self, command: &mut Command) -> Output {
        command.stdin(Stdio::null());
        self.enter(|| command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Runs a command line (split at blanks) inside and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(&mut command(line));
        assert!(
            output.status.success(),
            "`{line}` failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether a command line (split at blanks) succeeds inside.
    pub fn succeeds(&self, line: &str) -> bool {
        self.output(&mut command(line)).status.success()
    }

    /// `ip ARGUMENTS` inside, see [`Netns::run`].
    pub fn ip(&self, arguments: &str) -> String {
        self.run(&format!("ip {arguments}"))
    }

    /// Feeds an nftables script to `nft` inside.
    pub fn nft(&self, script: &str) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), script).expect("a temporary file takes a script");
        self.run(&format!("nft -f {}", file.path().display()));
    }

    /// True if the rules inside, as `nft` prints them, contain `text`.
    pub fn nft_lists(&self, text: &str) -> bool {
        self.run("nft list ruleset").contains(text)
    }

    /// The value of a sysctl inside, named by its path below /proc/sys.
    pub fn sysctl(&self, path: &str) -> String {
        let value = self.enter(|| std::fs::read_to_string(Path::new("/proc/sys").join(path)));
        value.unwrap_or_else(|error| panic!("/proc/sys/{path}: {error}")).trim().to_owned()
    }

    /// Sets a sysctl inside, named by its path below /proc/sys.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        self.enter(|| std::fs::write(Path::new("/proc/sys").join(path), value))
            .unwrap_or_else(|error| panic!("/proc/sys/{path}: {error}"));
    }

    /// A path that names this namespace to `ip link set … netns PATH`, for as long as `self` lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Makes a pair of virtual Ethernet interfaces, one end here and one end in `other`, both up.
    pub fn link(&self, name: &str, other: &Netns, other_name: &str) {
        let path = other.path();
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {path}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// What `ls -l /proc/PID/ns/net` shows of processes inside.
    pub(crate) fn identity(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.net.metadata().expect("an open namespace has metadata").ino()
    }
}

impl Default for Netns {
    fn default() -> Netns {
        Netns::new()
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command line names a program"));
    command.args(words);
    command
}

/// Runs `work` in a thread of its own, which may change what else a thread must keep.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn own_namespace(kind: &str) -> File {
    File::open(format!("/proc/thread-self/ns/{kind}")).expect("a thread's own namespace")
}

fn mount_or_panic(source: Option<&Path>, target: &str, kind: Option<&str>, flags: MsFlags) {
    mount(source, target, kind, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("mounting on {target}: {error}"));
}
