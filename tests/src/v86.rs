//! v86 as a guest: the emulator with its own network adapter, in Node.

use crate::{Netns, source_dir, target_dir};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder with the emulator and its Linux, made by tests/v86/build.sh where it is not there
/// yet (which needs the network).
pub fn built() -> PathBuf {
    let out = target_dir().join("v86");
    let script = source_dir().join("v86/build.sh");
    let status = Command::new(&script).arg(&out).stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{} failed", script.display());
    out
}

/// A command that runs one of the scripts of tests/v86 with the built folder as first argument.
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(source_dir().join("v86").join(script)).arg(built());
    command
}

/// Boots Linux in v86 with this network card and lets it do `jobs`, one after the other; each is a
/// function of tests/v86/guest/jobs.sh with its arguments.
///
/// # Panics
/// When one of them fails.
pub fn boot(netns: &Netns, url: &str, card: &str, jobs: &[String]) {
    let output = netns.output(node("guest.mjs").args([url, card]).args(jobs));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "the emulated machine failed:\n{text}\n{errors}");
}
