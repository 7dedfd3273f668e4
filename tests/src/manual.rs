//! What the documents tell people to type: tests take it from there, so that what is run is what
//! stands there.
//!
//! A command is a line that is indented by four blanks, or in a list by more; a line of a block fenced
//! as `sh`; or what follows `$ ` in one fenced as `console`. Blocks fenced as `ini` are pieces of
//! wsnic.conf or of a unit. For each document with commands there is a test that takes all of them
//! from [`commands_of`], and leaves out only what [`NOT_RUN`] has.

use crate::programs::source_dir;
use std::fs;

/// A command that no test runs as it stands.
#[derive(Debug)]
pub struct Instead {
    /// The document, as a path in the workspace.
    pub document: &'static str,
    /// How the command begins.
    pub command: &'static str,
    /// Why it is not run.
    pub why: &'static str,
    /// What is run instead: a file of the workspace, and a text in it.
    pub instead: (&'static str, &'static str),
}

/// All of them.
pub const NOT_RUN: &[Instead] = &[
    Instead {
        document: "README.md",
        command: "make test",
        why: "it is what runs the tests",
        instead: ("Makefile", "nextest run --locked --workspace --all-features"),
    },
    Instead {
        document: "docs/migrating.md",
        command: "make test",
        why: "it is what runs the tests",
        instead: ("tests/tests/former_versions.rs", "generation.checkout()"),
    },
    Instead {
        document: "docs/conformance.md",
        command: "make conformance",
        why: "all cases take half a minute for each way in; some of each chapter are played",
        instead: ("tests/tests/conformance.rs", "WSNIC_CONFORMANCE"),
    },
    Instead {
        document: "docs/fuzzing.md",
        command: "make fuzz",
        why: "it compiles a fuzzer and runs for minutes; each target runs without one",
        instead: ("fuzz/claims/tests/corpora.rs", "#[test]"),
    },
    Instead {
        document: "docs/fuzzing.md",
        command: "fuzz/run.sh",
        why: "the same",
        instead: ("fuzz/claims/tests/corpora.rs", "#[test]"),
    },
    Instead {
        document: "docs/performance.md",
        command: "make bench",
        why: "it takes minutes and a machine that does nothing else; each section runs once, briefly",
        instead: ("bench/tests/bench.rs", "#[test]"),
    },
    Instead {
        document: "docs/container.md",
        command: "docker buildx build",
        why: "it compiles everything once more; `make image-check` does it",
        instead: ("tests/container/build.sh", "packaging/docker/Dockerfile"),
    },
    Instead {
        document: "docs/install.md",
        command: "make deb",
        why: "it compiles everything once more; packages are made of the programs under test",
        instead: ("tests/tests/debian_package.rs", "packaging/debian/package.sh"),
    },
    Instead {
        document: "docs/systemd.md",
        command: "make install",
        why: "it compiles everything once more; what it ends with is run",
        instead: ("tests/src/bed.rs", "\"install-files\""),
    },
    Instead {
        document: "docs/systemd.md",
        command: "apt install dnsmasq-base",
        why: "the machine of that test has this one's programs",
        instead: ("tests/setup.sh", "dnsmasq:dnsmasq-base"),
    },
    Instead {
        document: "docs/public-server.md",
        command: "apt install certbot",
        why: "certbot needs a public name; the document's other certificate is used",
        instead: ("docs/public-server.md", "wsnic cert guests.example.org"),
    },
    Instead {
        document: "docs/public-server.md",
        command: "certbot certonly",
        why: "the same",
        instead: ("docs/public-server.md", "wsnic cert guests.example.org"),
    },
];

/// False for a command that [`NOT_RUN`] has.
pub fn is_run(document: &str, command: &str) -> bool {
    !NOT_RUN.iter().any(|row| row.document == document && command.starts_with(row.command))
}

/// README.md and all of docs, as paths in the workspace.
pub fn documents() -> Vec<String> {
    let listed = fs::read_dir(source_dir().join("../docs")).expect("there are documents");
    let names = listed.map(|entry| entry.expect("a folder can be read").file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let mut documents: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    documents.push("README.md".to_owned());
    documents.sort();
    documents
}

/// The commands of a document, with lines that go on.
pub fn commands_of(document: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for (fence, line) in lines_of(document) {
        let goes_on = commands.last_mut().filter(|last| last.ends_with('\\'));
        match (fence.as_deref(), line.strip_prefix("    ")) {
            (None, Some(line)) => match goes_on {
                Some(last) => *last = format!("{last}\n{line}"),
                None => commands.push(line.trim_start().to_owned()),
            },
            (Some("sh"), _) => match goes_on {
                Some(last) => *last = format!("{last}\n{line}"),
                None => commands.push(line),
            },
            (Some("console"), _) => {
                commands.extend(line.strip_prefix("$ ").map(str::to_owned));
            }
            _ => {}
        }
    }
    commands
}

/// The blocks of a document that are fenced as `ini`.
pub fn configurations_of(document: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_inside = false;
    for (fence, line) in lines_of(document) {
        let is_conf = fence.as_deref() == Some("ini");
        if is_conf && !is_inside {
            blocks.push(String::new());
        }
        if let (true, Some(block)) = (is_conf, blocks.last_mut()) {
            *block += &format!("{line}\n");
        }
        is_inside = is_conf;
    }
    blocks
}

/// What stands in a document, and in a block that is fenced as what.
///
/// # Panics
/// When a block is fenced as something that nobody knows.
fn lines_of(document: &str) -> Vec<(Option<String>, String)> {
    let text = fs::read_to_string(source_dir().join("..").join(document));
    let mut fence: Option<String> = None;
    let mut lines = Vec::new();
    for line in text.expect("there is a document").lines() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if fence.is_some() => {
                fence = None;
                // Two blocks in a row are two.
                lines.push((None, String::new()));
            }
            Some(kind) => {
                assert!(KINDS.contains(&kind), "{document}: nobody knows what ```{kind} is");
                fence = Some(kind.to_owned());
            }
            None => lines.push((fence.clone(), line.to_owned())),
        }
    }
    lines
}

const KINDS: [&str; 8] = ["sh", "console", "ini", "text", "nginx", "apache", "haproxy", "caddy"];
