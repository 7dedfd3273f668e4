//! The helper is small enough to be read in an afternoon, and says so by a number.

use std::fs;
use std::path::{Path, PathBuf};
use wsnic_tests::source_dir;

/// Lines of wsnic-priv at most, comments and blank lines included, tests left out.
const LIMIT: usize = 2500;

#[test]
fn the_helper_has_at_most_2500_lines() {
    let sources = source_dir().join("../wsnic-priv/src");
    let lines: usize = files(&sources).iter().map(|file| lines_without_tests(file)).sum();
    assert!(lines > 1000, "only {lines} lines were found");
    assert!(lines <= LIMIT, "wsnic-priv has {lines} lines, {LIMIT} are allowed");
}

#[test]
fn unsafe_code_stands_only_where_the_kernel_asks_for_it() {
    // Everything else is under deny(unsafe_code) of the workspace.
    let root = source_dir().join("..");
    let crates = [
        "wsnic",
        "wsnic-front",
        "wsnic-host",
        "wsnic-nft",
        "wsnic-os",
        "wsnic-priv",
        "wsnic-proto",
        "wsnic-rules",
    ];
    let mut with_unsafe: Vec<String> = crates
        .iter()
        .flat_map(|name| files(&root.join(name).join("src")))
        .filter(|file| {
            fs::read_to_string(file).is_ok_and(|text| text.contains("allow(unsafe_code)"))
        })
        .map(|file| file.strip_prefix(&root).unwrap_or(&file).display().to_string())
        .collect();
    with_unsafe.sort();
    let expected = [
        "wsnic-os/src/inherited.rs",
        "wsnic-os/src/janitor.rs",
        "wsnic-os/src/packet.rs",
        "wsnic-os/src/privileges.rs",
        "wsnic-os/src/sandbox/probe.rs",
        "wsnic-os/src/sandbox/process.rs",
        "wsnic-os/src/watch.rs",
        "wsnic-priv/src/tap.rs",
    ];
    assert_eq!(with_unsafe, expected);
}

/// Every source file below a folder, but for those of tests.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    paths
        .filter(|path| !path.file_stem().is_some_and(|stem| is_of_tests(&stem.to_string_lossy())))
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn is_of_tests(stem: &str) -> bool {
    stem == "tests" || stem.ends_with("_tests")
}

fn lines_without_tests(file: &Path) -> usize {
    let text = fs::read_to_string(file).expect("a source file is text");
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().count()
}
