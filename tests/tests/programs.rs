//! What the running programs are and need.

use wsnic_tests::{Lab, NativeGuest, Server, address};

#[test]
fn three_processes_serve_and_no_other_program_is_run() {
    let lab = Lab::new();
    // The server is started with a PATH that leads nowhere.
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let guest = NativeGuest::join(&lab);
    assert!(guest.hears(address::WEB, address::NAMED_PORT).is_some());
    let mut names: Vec<String> = server.open_files().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["wsnic", "wsnic-front", "wsnic-priv"]);
    server.stop();
    drop(guest);
    lab.finish();
}

#[test]
fn the_front_end_has_no_privilege() {
    let lab = Lab::new();
    let server = Server::start(&lab, "inet_iface = wan0\n");
    let front_end = server.front_end();
    assert_ne!(field(front_end, "Uid:"), "0", "it is not root");
    assert_ne!(field(front_end, "Gid:"), "0", "it is not root's");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(front_end, set), "0000000000000000", "{set}");
    }
    for pid in [front_end, server.helper()] {
        for thread in threads(pid) {
            assert_eq!(field(thread, "NoNewPrivs:"), "1");
        }
    }
    for thread in threads(server.helper()) {
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(thread, set), "0000000000001000", "CAP_NET_ADMIN alone in {set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(thread, set), "0000000000000000", "{set}");
        }
    }
    server.stop();
    lab.finish();
}

#[test]
fn both_programs_become_the_users_that_are_configured() {
    let lab = Lab::new();
    // Two that every Debian has, with numbers of their own (base-passwd).
    let server = Server::start(&lab, "user = daemon\nhelper_user = bin\n");
    for (pid, uid) in [(server.front_end(), "1"), (server.helper(), "2")] {
        assert_eq!((field(pid, "Uid:").as_str(), field(pid, "Gid:").as_str()), (uid, uid));
    }
    server.stop();
    lab.finish();
}

fn threads(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let id =
        |task: std::io::Result<std::fs::DirEntry>| task.ok()?.file_name().to_str()?.parse().ok();
    tasks.filter_map(id).collect()
}

/// The first value of a line of /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status");
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
