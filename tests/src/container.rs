//! A container engine of the test's own: podman and runc, called `docker`, in the lab's server
//! namespace, with the image of packaging/docker.
//!
//! Containers get what Docker gives them: its capabilities, its filter of system calls, a /proc/sys
//! that cannot be written. Images, networks and records of the engine are in folders of the test.

use crate::bed::printed;
use crate::lab::Lab;
use crate::programs;
use crate::server::{children, command_name};
use crate::{LIMIT, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Where the final stage of the Dockerfile begins.
const FINAL_STAGE: &str = "FROM scratch\n";
/// What that stage takes from the one before it.
const FROM_BUILD: &str = "COPY --from=build /root-of-image/ /\n";

/// The engine; gone with all its containers when dropped.
#[derive(Debug)]
pub struct Engine {
    /// Where it runs.
    pub lab: Lab,
    state: TempDir,
}

impl Engine {
    /// An engine that has the image as `wsnic:local` and `chschnell86/wsnic`. Where `/dev/net/tun` is
    /// for everybody, as udev makes it, `open_tun` is true.
    pub fn start(open_tun: bool) -> Engine {
        let lab = Lab::new();
        let state = tempfile::Builder::new().prefix("wsnic-oci-").tempdir().expect("a folder");
        fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        configure(state.path());
        lab.srv.enter(|| private_folders(state.path(), open_tun));
        let mut engine = Engine { lab, state };
        engine.make_image();
        // The engine's own bridge and rules come with the first container and stay.
        engine.must("docker run --rm -p 1:1 wsnic:local template");
        engine.lab.settle();
        engine
    }

    /// Builds the last stage of the Dockerfile, from programs that are there; or takes the image that
    /// the Dockerfile as a whole has made, if the variable names one.
    fn make_image(&self) {
        let image = match std::env::var_os("WSNIC_IMAGE") {
            Some(archive) => {
                self.must(&format!("buildah pull -q docker-archive:{}", archive.display()))
            }
            None => self.build_final_stage(),
        };
        for name in ["localhost/wsnic:local", "docker.io/chschnell86/wsnic:latest"] {
            self.must(&format!("buildah tag {} {name}", image.trim()));
        }
    }

    fn build_final_stage(&self) -> String {
        let sources = programs::source_dir().parent().expect("the tests lie in the workspace");
        let packaging = sources.join("packaging/docker");
        let dockerfile = packaging.join("Dockerfile");
        let dockerfile = fs::read_to_string(dockerfile).expect("there is a Dockerfile");
        let (_, last) = dockerfile.split_once(FINAL_STAGE).expect("the last stage is from scratch");
        assert!(last.contains(FROM_BUILD), "the last stage has changed: {last}");
        let context = self.state.path().join("context");
        fs::create_dir(&context).expect("a folder");
        let last = format!("{FINAL_STAGE}{}", last.replace(FROM_BUILD, "COPY root/ /\n"));
        fs::write(context.join("Dockerfile"), last).expect("a file in a folder");
        let mut layout = Command::new(packaging.join("rootfs.sh"));
        let built = self.state.path().join("programs");
        programs::static_programs(&built);
        layout.arg(built).arg(context.join("root"));
        let output = layout.output().expect("a script runs");
        assert!(output.status.success(), "{}", printed(&output));
        self.must(&format!("buildah bud -q --format docker --pull-never {}", context.display()))
    }

    /// Like [`Engine::shell`]; what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn must(&self, lines: &str) -> String {
        let output = self.shell(lines);
        assert!(output.status.success(), "{lines}: {}", printed(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs lines of a shell as they stand in a manual, to their end.
    pub fn shell(&self, lines: &str) -> Output {
        self.lab.srv.output(&mut self.command(&["sh", "-c", lines]))
    }

    /// Starts a container by lines of a shell as they stand in a manual, at a terminal, and waits
    /// until wsnic is ready in it.
    pub fn run(&self, lines: &str) -> Container<'_> {
        let container = self.launch(lines);
        wait_until("wsnic is ready in its container", || {
            let log = container.log();
            assert!(!log.contains("ERROR wsnic"), "{log}");
            log.contains("wsnic is ready")
        });
        container
    }

    /// Like [`Engine::run`], without waiting.
    pub fn launch(&self, lines: &str) -> Container<'_> {
        let started = Instant::now();
        let log = self.state.path().join("log");
        // Two containers at the same time have one log each.
        let log = (0..).map(|number| log.with_extension(number.to_string())).find(|p| !p.exists());
        let log = log.expect("there is always one more number");
        let output = File::create(&log).expect("a file in a folder");
        let terminal =
            ["script", "--quiet", "--return", "--flush", "--command", lines, "/dev/null"];
        let mut command = self.command(&terminal);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a handle")).stderr(output);
        let child = self.lab.srv.spawn(&mut command);
        Container { engine: self, child, log, started }
    }

    fn command(&self, words: &[&str]) -> Command {
        let state = self.state.path();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().current_dir(state).env("HOME", state);
        command
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", state.join("bin").display()));
        command.env("CONTAINERS_CONF", state.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", state.join("registries.conf"));
        command.env("XDG_RUNTIME_DIR", state.join("run")).env("BUILDAH_ISOLATION", "chroot");
        command
    }

    /// A file of the folder in which the shell starts, which is its home too.
    pub fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// Ends the engine: no container is left, and nothing around it is as a container made it.
    pub fn finish(self) {
        assert_eq!(self.must("docker ps --all --quiet"), "", "a container is left");
        // The engine clears away what is its own for a moment longer than `docker run` lasts.
        let end = Instant::now() + LIMIT;
        let mut difference = self.lab.difference();
        while !difference.is_empty() && Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(100));
            difference = self.lab.difference();
        }
        assert!(difference.is_empty(), "left behind (+) or lost (-):\n{difference}");
    }

    /// The image's size in bytes.
    pub fn image_size(&self) -> u64 {
        let size = self.must("docker image inspect --format {{.Size}} wsnic:local");
        size.trim().parse().expect("a number of bytes")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whatever is left is unmounted and removed, so that the folder can go.
        let _ = self.shell("docker rm --all --force --time 0; docker rmi --all --force");
        // The engine leaves the control groups around those of its containers; one that another engine
        // still has something in stays.
        let _ = self
            .shell("find /sys/fs/cgroup -depth -path '*/libpod_parent*' -type d -exec rmdir {} +");
    }
}

/// A `docker run` in the foreground.
#[derive(Debug)]
pub struct Container<'a> {
    engine: &'a Engine,
    child: Child,
    log: PathBuf,
    /// When it was asked for.
    pub started: Instant,
}

impl Container<'_> {
    /// All that it has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The container's name.
    pub fn id(&self) -> String {
        self.engine.must("docker ps --quiet").trim().to_owned()
    }

    /// The process of one of its programs.
    pub fn program(&self, name: &str) -> u32 {
        let first =
            self.engine.must(&format!("docker inspect -f {{{{.State.Pid}}}} {}", self.id()));
        let first: u32 = first.trim().parse().expect("the container runs");
        let all = children(first).into_iter().chain([first]);
        let found = all.into_iter().find(|pid| command_name(*pid) == name);
        found.unwrap_or_else(|| panic!("there is no {name}:\n{}", self.log()))
    }

    /// Runs a program in the container.
    pub fn exec(&self, words: &str) -> Output {
        self.engine.shell(&format!("docker exec {} {words}", self.id()))
    }

    /// `docker stop`; how `docker run` ends.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let stopped = self.engine.shell(&format!("docker stop {}", self.id()));
        assert!(stopped.status.success(), "{}", printed(&stopped));
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return (status, self.log());
            }
            assert!(Instant::now() < end, "docker run goes on:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the container ----\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the engine reads, and the commands that manuals name.
fn configure(state: &Path) {
    let write = |name: &str, text: &str| fs::write(state.join(name), text).expect("a file");
    fs::create_dir(state.join("bin")).expect("a folder");
    // For commands that name files of the sources.
    symlink(programs::source_dir().join("../packaging"), state.join("packaging")).expect("a link");
    let folder = state.display();
    write(
        "storage.conf",
        &format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{folder}/store\"\n\
             runroot = \"{folder}/run/storage\"\n"
        ),
    );
    // The limit of this machine, which nothing raises; Docker's capabilities and what else it sets.
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let quoted = |words: &[&str]| {
        words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
    };
    write(
        "containers.conf",
        &format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
             [network]\nnetwork_config_dir = \"{folder}/networks\"\n\
             [containers]\nlog_driver = \"k8s-file\"\n\
             default_ulimits = [\"nofile={files}:{files}\", \"nproc=4096:4096\"]\n\
             default_sysctls = [{}]\n\
             default_capabilities = [{}]\n",
            quoted(&DOCKER_SYSCTLS),
            quoted(&DOCKER_CAPABILITIES)
        ),
    );
    write("registries.conf", "unqualified-search-registries = [\"docker.io\"]\n");
    let docker =
        "[ \"$1\" != compose ] || { shift; exec podman-compose \"$@\"; }\nexec podman \"$@\"";
    for (name, text) in [("docker", docker), ("sudo", "exec \"$@\"")] {
        let path = state.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
    }
}

/// Those that Docker gives by default (github.com/moby/moby, oci/caps/defaults.go).
const DOCKER_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Those that Docker sets by default (daemon/oci_linux.go).
const DOCKER_SYSCTLS: [&str; 2] =
    ["net.ipv4.ip_unprivileged_port_start=0", "net.ipv4.ping_group_range=0 2147483647"];

/// In the server's mount namespace: places of the machine that the engine would write to, and a
/// /dev/net/tun as this machine should have it.
fn private_folders(state: &Path, open_tun: bool) {
    let none = None::<&str>;
    // The one below has the machine's control groups.
    umount2("/sys", MntFlags::MNT_DETACH).expect("a lab has a /sys of its own");
    for folder in ["/dev/shm", "/var/lib/cni", "/var/local", "/var/lib/containers"] {
        fs::create_dir_all(folder).expect("a folder of the machine");
        mount(Some("test"), folder, Some("tmpfs"), MsFlags::empty(), none).expect("a mount");
    }
    let device = state.join("tun");
    let mode = Mode::from_bits_truncate(if open_tun { 0o666 } else { 0o600 });
    mknod(&device, SFlag::S_IFCHR, mode, makedev(10, 200)).expect("a device");
    fs::set_permissions(&device, fs::Permissions::from_mode(mode.bits())).expect("its mode");
    mount(Some(&device), "/dev/net/tun", none, MsFlags::MS_BIND, none).expect("a mount");
}
