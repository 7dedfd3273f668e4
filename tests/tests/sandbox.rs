//! What helper and front-end can still do once they serve: tried from inside, in the programs
//! themselves (`--sandbox-probe` makes one system call where serving would begin), and read back
//! from /proc while they run.

use nix::libc::{self, c_long};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use wsnic_tests::{Helper, Lab, Peer, RawGuest, Server, programs};

/// The last system call of Linux 6.18 on x86-64 is 469; what comes later is forbidden as well.
const LAST: c_long = 500;

/// What both may call, whatever the arguments.
const BOTH: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    // Some arguments only, see below; all zeros pass.
    libc::SYS_mmap,
    libc::SYS_mprotect,
];

const FRONT_END: &[c_long] =
    &[libc::SYS_readv, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_fdatasync];

const HELPER: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_capget,
    libc::SYS_wait4,
];

/// uretprobe and uprobe: the kernel lets them pass every filter since 6.14 (kernel/seccomp.c), and
/// outside of a probe that root has set they do nothing but fail.
const PROBES: [c_long; 2] = [335, 336];

/// Calls whose arguments decide, each with arguments that must not pass.
const FORBIDDEN_IN_BOTH: &[&[c_long]] = &[
    // Memory with code, fresh and as a change.
    &[libc::SYS_mmap, 0, 4096, libc::PROT_EXEC as c_long, 0x22, -1],
    &[libc::SYS_mmap, 0, 4096, 7, 0x22, -1],
    &[libc::SYS_mprotect, 0, 4096, libc::PROT_EXEC as c_long],
    // Signals to others.
    &[libc::SYS_tgkill, 1, 1, 0],
    &[libc::SYS_tgkill, 0, 0, 9],
    // Sockets that could reach anybody.
    &[libc::SYS_socket, libc::AF_INET as c_long, libc::SOCK_STREAM as c_long],
    &[libc::SYS_socket, libc::AF_INET6 as c_long, libc::SOCK_DGRAM as c_long],
    &[libc::SYS_socket, libc::AF_UNIX as c_long, libc::SOCK_STREAM as c_long],
    &[libc::SYS_socket, libc::AF_PACKET as c_long, libc::SOCK_RAW as c_long],
    // The other ABI of the same processor.
    &[0x4000_0000],
    &[0x4000_0000 + libc::SYS_openat],
    &[-1],
];

const FORBIDDEN_IN_FRONT_END: &[&[c_long]] = &[
    &[libc::SYS_socket, libc::AF_NETLINK as c_long, libc::SOCK_RAW as c_long],
    &[libc::SYS_setsockopt, 0, libc::SOL_SOCKET as c_long, libc::SO_BINDTODEVICE as c_long],
    &[libc::SYS_setsockopt, 0, libc::IPPROTO_TCP as c_long, libc::TCP_REPAIR as c_long],
    &[libc::SYS_fcntl, 0, libc::F_SETFL as c_long, 0],
    &[libc::SYS_fcntl, 0, libc::F_DUPFD as c_long, 0],
];

const FORBIDDEN_IN_HELPER: &[&[c_long]] = &[
    &[libc::SYS_openat, libc::AT_FDCWD as c_long, 0, libc::O_CREAT as c_long],
    // Any ioctl but those by which it makes TAPs: SIOCSIFFLAGS, TUNSETPERSIST, TUNATTACHFILTER.
    &[libc::SYS_ioctl, 0, 0x8914],
    &[libc::SYS_ioctl, 0, 0x4004_54cb],
    &[libc::SYS_ioctl, 0, 0x4010_54d5],
];

/// TUN ioctls (linux/if_tun.h), each with its name; the direction bits are part of the number.
const TUN_IOCTLS: &[(&str, c_long)] = &[
    ("TUNSETNOCSUM", 0x4004_54c8),
    ("TUNSETDEBUG", 0x4004_54c9),
    ("TUNSETIFF", 0x4004_54ca),
    ("TUNSETPERSIST", 0x4004_54cb),
    ("TUNSETOWNER", 0x4004_54cc),
    ("TUNSETLINK", 0x4004_54cd),
    ("TUNSETGROUP", 0x4004_54ce),
    ("TUNGETFEATURES", 0x8004_54cf),
    ("TUNSETOFFLOAD", 0x4004_54d0),
    ("TUNSETTXFILTER", 0x4004_54d1),
    ("TUNGETIFF", 0x8004_54d2),
    ("TUNGETSNDBUF", 0x8004_54d3),
    ("TUNSETSNDBUF", 0x4004_54d4),
    ("TUNATTACHFILTER", 0x4010_54d5),
    ("TUNDETACHFILTER", 0x4010_54d6),
    ("TUNGETVNETHDRSZ", 0x8004_54d7),
    ("TUNSETVNETHDRSZ", 0x4004_54d8),
    ("TUNSETQUEUE", 0x4004_54d9),
    ("TUNSETIFINDEX", 0x4004_54da),
    ("TUNGETFILTER", 0x8010_54db),
    ("TUNSETVNETLE", 0x4004_54dc),
    ("TUNGETVNETLE", 0x8004_54dd),
    ("TUNSETVNETBE", 0x4004_54de),
    ("TUNGETVNETBE", 0x8004_54df),
    ("TUNSETSTEERINGEBPF", 0x8004_54e0),
    ("TUNSETFILTEREBPF", 0x8004_54e1),
    ("TUNSETCARRIER", 0x4004_54e2),
    ("TUNGETDEVNETNS", 0x54e3),
    ("SIOCGIFHWADDR", 0x8927),
    ("SIOCSIFHWADDR", 0x8924),
];

#[test]
fn every_system_call_that_the_front_end_does_not_need_ends_it() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let calls = forbidden(FRONT_END, FORBIDDEN_IN_FRONT_END);
    assert!(calls.len() > 400, "{}", calls.len());
    in_parallel(&calls, |worker, call| {
        let status = front_end(&lab, &helper, worker, call, None);
        must_have_ended_it("front-end", call, status);
    });
    helper.stop();
    lab.finish();
}

#[test]
fn every_system_call_that_the_helper_does_not_need_ends_it() {
    let lab = Lab::new();
    let calls = forbidden(HELPER, FORBIDDEN_IN_HELPER);
    in_parallel(&calls, |worker, call| {
        let mut command = Command::new(programs::helper());
        command.arg("--socket").arg(lab.file(&format!("helper-{worker}.sock")));
        must_have_ended_it("helper", call, run(&lab, command, call, None));
    });
    lab.finish();
}

#[test]
fn every_ioctl_on_a_port_ends_the_front_end() {
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let peer = Peer::greeted(&helper);
    let port = peer.open();
    for (name, request) in TUN_IOCTLS {
        let tap = port.tap.try_clone().expect("one more handle");
        let call = [libc::SYS_ioctl, 0, *request];
        let status = front_end(&lab, &helper, 0, &call, Some(tap));
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name} ended it with {status}");
    }
    drop(port);
    drop(peer);
    helper.stop();
    lab.finish();
}

#[test]
fn a_call_that_is_needed_returns() {
    // Without this, the tests above would pass in a program that always dies.
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let status = front_end(&lab, &helper, 0, &[libc::SYS_getpid], None);
    assert!(status.success(), "{status}");
    helper.stop();
    lab.finish();
}

#[test]
fn every_thread_of_both_is_locked_in_while_guests_are_served() {
    let lab = Lab::new();
    let server = Server::start(&lab, "sandbox = require\n");
    let guest = RawGuest::connect(&lab);
    let user = |name: &str| match name {
        "wsnic-priv" => ids(name).unwrap_or(65523),
        _ => ids("wsnic").or(ids("nobody")).unwrap_or(65534),
    };
    for (pid, name, capabilities) in [
        (server.helper(), "wsnic-priv", "0000000000001000"),
        (server.front_end(), "wsnic-front", "0000000000000000"),
    ] {
        let threads = threads(pid);
        assert!(threads.len() >= 2, "{name} has {} threads", threads.len());
        for thread in threads {
            let status = status(&thread);
            let field = |key: &str| status.get(key).map(String::as_str).unwrap_or_default();
            for key in ["CapEff", "CapPrm", "CapBnd"] {
                assert_eq!(field(key), capabilities, "{key} of {name}");
            }
            for key in ["CapInh", "CapAmb"] {
                assert_eq!(field(key), "0000000000000000", "{key} of {name}");
            }
            assert_eq!(field("NoNewPrivs"), "1", "{name}");
            assert_eq!(field("Seccomp"), "2", "{name}");
            assert_eq!(field("Groups"), "", "{name}");
            let id = user(name).to_string();
            assert!(field("Uid").split('\t').all(|uid| uid == id), "{name}: {}", field("Uid"));
            assert_ne!(id, "0");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        for limit in ["Max processes", "Max core file size", "Max locked memory"] {
            let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
            assert_eq!(line[limit.len()..].split_whitespace().next(), Some("0"), "{name}: {line}");
        }
    }
    drop(guest);
    server.stop();
    lab.finish();
}

#[test]
fn the_front_end_has_an_empty_world_of_its_own() {
    let lab = Lab::new();
    let server = Server::start(&lab, "sandbox = require\n");
    let pid = server.front_end();
    for kind in ["net", "mnt", "ipc", "uts", "pid"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(pid), of(server.pid()), "{kind} is that of the machine");
        assert_ne!(of(pid), of(std::process::id()), "{kind} is that of the machine");
    }
    let root = format!("/proc/{pid}/root");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "its root is not empty");
    assert!(fs::write(Path::new(&root).join("x"), "").is_err(), "its root can be written");
    let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let names: Vec<&str> =
        interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(names, ["lo"]);
    let status = status(&format!("/proc/{pid}/status"));
    assert!(status["NSpid"].ends_with("\t1"), "it sees other processes: {}", status["NSpid"]);
    server.stop();
    lab.finish();
}

#[test]
fn each_has_the_files_open_that_it_needs_and_no_other() {
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    for pid in [server.helper(), server.front_end()] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let file = fs::read_link(entry.unwrap().path()).unwrap();
            let file = file.to_string_lossy();
            let known = ["socket:", "anon_inode:", "/memfd:wsnic.conf", "/dev/null"];
            let log = lab.file("wsnic.log");
            // Where it sees whether dnsmasq listens.
            let is_listeners = pid == server.helper() && file.ends_with("/net/tcp");
            assert!(
                known.iter().any(|known| file.starts_with(known))
                    || Path::new(&*file) == log
                    || is_listeners,
                "{file} is open"
            );
        }
    }
    server.stop();
    lab.finish();
}

#[test]
fn a_start_without_a_part_of_the_sandbox_says_so_or_is_refused() {
    // A process that may make no namespaces, as in most containers.
    let lab = Lab::new();
    let helper = Helper::start(&lab, "");
    let start = |level: &str| {
        let mut command = Command::new("capsh");
        let front_end = programs::front_end();
        command.args(["--drop=cap_sys_admin", "--shell=/bin/sh", "--", "-c"]).arg(format!(
            "exec {} --helper {} --sandbox={level} --sandbox-probe={}",
            front_end.display(),
            helper.socket().display(),
            libc::SYS_getpid
        ));
        lab.srv.output(&mut command)
    };
    let output = start("require");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot have a network of its own"), "{text}");
    assert!(text.contains("sandbox=prefer"), "{text}");
    let output = start("prefer");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("the sandbox lacks: a network of its own"), "{text}");
    assert_eq!(text.lines().count(), 1, "said once: {text}");
    helper.stop();
    lab.finish();
}

fn forbidden(needed: &[c_long], more: &[&[c_long]]) -> Vec<Vec<c_long>> {
    let by_number = (0..=LAST)
        .filter(|call| ![BOTH, needed, &PROBES].iter().any(|known| known.contains(call)))
        .map(|call| vec![call]);
    let by_arguments = FORBIDDEN_IN_BOTH.iter().chain(more).map(|call| call.to_vec());
    by_number.chain(by_arguments).collect()
}

fn must_have_ended_it(who: &str, call: &[c_long], status: ExitStatus) {
    let ended = status.signal() == Some(libc::SIGSYS);
    assert!(ended, "the {who} made system call {call:?} and ended with {status}");
}

/// Starts the real front-end, which makes one call from inside its sandbox; `worker` keeps those
/// that run at the same time apart.
fn front_end(
    lab: &Lab,
    helper: &Helper,
    worker: usize,
    call: &[c_long],
    stdin: Option<OwnedFd>,
) -> ExitStatus {
    let mut command = Command::new(programs::front_end());
    command.arg("--helper").arg(helper.socket());
    command.arg(format!("--ws-server-port={}", 9000 + worker));
    run(lab, command, call, stdin)
}

fn run(lab: &Lab, mut command: Command, call: &[c_long], stdin: Option<OwnedFd>) -> ExitStatus {
    let words: Vec<String> = call.iter().map(c_long::to_string).collect();
    command.arg("--sandbox=require").arg(format!("--sandbox-probe={}", words.join(",")));
    command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    lab.srv.spawn(&mut command).wait().expect("a child can be waited for")
}

/// Four at a time: most of each is waiting for the kernel to make and remove namespaces.
fn in_parallel(calls: &[Vec<c_long>], work: impl Fn(usize, &[c_long]) + Sync) {
    let next = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    work(worker, call);
                }
            });
        }
    });
}

fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    tasks
        .map(|task| format!("{}/status", task.expect("a directory entry").path().display()))
        .collect()
}

fn status(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("the thread lives");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

fn ids(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}
