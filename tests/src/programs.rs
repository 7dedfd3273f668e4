//! Where the programs under test are: in `WSNIC_BIN_DIR`, or built here once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The command that is under test; its sibling programs lie next to it.
pub fn wsnic() -> PathBuf {
    bin_dir().join("wsnic")
}

/// The helper, which is started alone where its peer is under the test's control.
pub fn helper() -> PathBuf {
    bin_dir().join("wsnic-priv")
}

/// The front-end, which is started alone where the test wants to look inside.
pub fn front_end() -> PathBuf {
    bin_dir().join("wsnic-front")
}

/// Puts the same programs as static ones into a folder: those of the folder that `WSNIC_STATIC_DIR`
/// names, or built now, which takes a minute the first time.
pub fn static_programs(folder: &Path) {
    let mut get = match std::env::var_os("WSNIC_STATIC_DIR") {
        Some(built) => {
            let mut copy = Command::new("cp");
            copy.args(["-rT"]).arg(built).arg(folder);
            copy
        }
        None => {
            let mut build = Command::new(source_dir().join("../packaging/programs.sh"));
            build.args(["musl", debian_architecture()]).arg(folder).arg("dev");
            build.env("CARGO_TARGET_DIR", target_dir());
            build
        }
    };
    let output = get.output().expect("a program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "there are no static programs: {said}");
}

/// A small Debian with systemd, made once below the folder that cargo builds into.
pub fn debian() -> PathBuf {
    let folder = target_dir().join("debian");
    let suite = std::env::var("WSNIC_DEBIAN_SUITE").unwrap_or_else(|_| "bookworm".to_owned());
    let mut make = Command::new(source_dir().join("debian/build.sh"));
    let output = make.arg(&folder).arg(&suite).output().expect("a script runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "there is no Debian to install on: {said}");
    folder.join(suite)
}

/// What Debian and Docker call this processor.
pub fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// The folder that cargo builds into, for what the tests want to keep from one run to the next.
pub fn target_dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // …/target/debug/deps/some_test-0123
        let test = std::env::current_exe().expect("a test knows its own path");
        let dir = test.ancestors().nth(3).expect("tests lie three levels down");
        dir.to_owned()
    })
    .clone()
}

/// The folder of this package's sources.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match std::env::var_os("WSNIC_BIN_DIR") {
        Some(dir) => std::fs::canonicalize(&dir)
            .unwrap_or_else(|error| panic!("WSNIC_BIN_DIR={}: {error}", dir.display())),
        None => build(),
    })
}

/// `cargo test` of one package does not build the programs of the others. Cargo itself makes
/// several test processes wait for each other.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = target_dir();
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bins", "--target-dir"])
        .arg(&target)
        .current_dir(source_dir())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building the programs under test failed");
    target.join("debug")
}
