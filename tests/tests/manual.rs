//! Man pages and completions: made from the command line itself, and fit for those who read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use wsnic_proto::options::{OPTIONS, Place};
use wsnic_tests::printed;

const PAGES: [&str; 4] =
    ["man1/wsnic.1", "man5/wsnic.conf.5", "man8/wsnic-priv.8", "man8/wsnic-front.8"];

#[test]
fn every_page_is_free_of_mistakes_and_is_shown_by_man() {
    let share = made();
    for page in PAGES {
        let path = share.path().join("man").join(page);
        let lint = run(Command::new("mandoc").args(["-Tlint", "-W", "warning"]).arg(&path));
        assert!(lint.status.success(), "{page}: {}", printed(&lint));
        let shown = run(Command::new("man").args(["--warnings=all", "-l"]).arg(&path));
        assert!(shown.status.success() && shown.stderr.is_empty(), "{page}: {}", printed(&shown));
        assert!(printed(&shown).contains("SEE ALSO"), "{page}");
    }
}

#[test]
fn every_option_stands_in_wsnic_conf_5_and_in_wsnic_1() {
    let share = made();
    let conf = text(&share.path().join("man/man5/wsnic.conf.5"));
    let wsnic = text(&share.path().join("man/man1/wsnic.1"));
    for spec in OPTIONS {
        if spec.place != Place::CommandLine {
            assert!(conf.contains(&format!("{}=", spec.name)), "{}", spec.name);
        }
        if spec.place != Place::Obsolete {
            assert!(wsnic.contains(&format!("--{}", spec.long())), "{}", spec.name);
        }
        if let Some(variable) = spec.env {
            assert!(conf.contains(variable) && wsnic.contains(variable), "{variable}");
        }
        for alias in spec.aliases {
            assert!(conf.contains(alias), "{alias}");
        }
    }
}

#[test]
fn wsnic_1_has_every_word_that_the_help_lists_and_its_arguments() {
    let share = made();
    let wsnic = text(&share.path().join("man/man1/wsnic.1"));
    let words = words();
    assert!(words.len() >= 10, "{words:?}");
    for word in words {
        assert!(wsnic.contains(&format!("wsnic {word}")), "{word}");
    }
    for argument in ["--ban TIME", "--json", "--append", "--days DAYS"] {
        assert!(wsnic.contains(argument), "{argument}");
    }
}

#[test]
fn bash_completes_words_options_and_values() {
    let share = made();
    let completed = |line: &str| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-euc", BASH, "bash"]);
        bash.arg(share.path().join("bash-completion/completions/wsnic"));
        let output = run(bash.args(line.split(' ')));
        assert!(output.status.success(), "{}", printed(&output));
        printed(&output)
    };
    assert_eq!(completed("wsnic che").trim(), "check");
    assert_eq!(completed("wsnic run --guest-acc").trim(), "--guest-access");
    assert_eq!(completed("wsnic --guest-access ").trim(), "internet lan all");
    let all = completed("wsnic ");
    assert!(words().iter().all(|word| all.split_whitespace().any(|w| w == word)), "{all}");
}

/// What bash does when the key is pressed; the words of the line are the arguments.
const BASH: &str = r#"
    . "$1"
    shift
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _wsnic "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[@]}"
"#;

#[test]
fn fish_completes_words_options_and_values() {
    let share = made();
    let completed = |line: &str| {
        let script = share.path().join("fish/vendor_completions.d/wsnic.fish");
        let mut fish = Command::new("fish");
        fish.env("HOME", share.path()).arg("--no-config");
        let code = format!("source {}; complete -C '{line}'", script.display());
        let output = run(fish.args(["-c", &code]));
        assert!(output.status.success() && output.stderr.is_empty(), "{}", printed(&output));
        printed(&output)
    };
    assert!(completed("wsnic che").starts_with("check\t"));
    assert!(completed("wsnic run --guest-acc").starts_with("--guest-access"));
    let values = completed("wsnic run --guest-access ");
    assert!(["internet", "lan", "all"].iter().all(|value| values.contains(value)), "{values}");
}

#[test]
fn zsh_completes_words_options_and_values() {
    let share = made();
    let completed = |line: &str, wanted: &str| {
        let mut zsh = Command::new("timeout");
        zsh.env("HOME", share.path()).args(["20", "zsh", "-f", "-c", ZSH, "zsh"]);
        zsh.arg(share.path().join("zsh/vendor-completions")).args([line, wanted]);
        let output = run(&mut zsh);
        assert!(output.status.success(), "`{line}`: {}", printed(&output));
    };
    completed("wsnic che", "wsnic check");
    completed("wsnic run --guest-acc", "wsnic run --guest-access");
    completed("wsnic run --guest-access lan --sandbox req", "--sandbox require");
}

/// A zsh with a terminal, to which somebody types $2 and the key; it shows $3.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty shell 'TERM=dumb zsh -f -i'
    zpty -w shell "PS1=; fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; echo come on | tr a-z A-Z"
    zpty -r -m shell shown '*COME ON*' || exit 1
    zpty -w -n shell "$2"$'\t'
    zpty -r -m shell shown "*$3*" || exit 1
"#;

/// What a package has below /usr/share, made by the program that makes it.
fn made() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manual = wsnic_tests::wsnic().with_file_name("wsnic-manual");
    let output = run(Command::new(manual).arg(folder.path()).arg("2026-01-31"));
    assert!(output.status.success(), "{}", printed(&output));
    folder
}

/// A page as it is read.
fn text(page: &PathBuf) -> String {
    let output = run(Command::new("mandoc").args(["-Tutf8", "-O", "width=500"]).arg(page));
    // Bold is struck twice: a letter, backspace, the letter.
    let printed = printed(&output);
    let mut text = String::new();
    for letter in printed.chars() {
        match letter {
            '\u{8}' => drop(text.pop()),
            letter => text.push(letter),
        }
    }
    text
}

/// The words that `wsnic --help` lists.
fn words() -> Vec<String> {
    let help = run(Command::new(wsnic_tests::wsnic()).arg("--help"));
    let help = printed(&help);
    let (_, list) = help.split_once("Commands:").expect("the help ends with the words");
    let word = |line: &str| Some(line.trim().strip_prefix("wsnic ")?.split(' ').next()?.to_owned());
    list.lines().filter_map(word).collect()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

#[test]
fn the_page_of_the_day_is_the_one_that_was_asked_for() {
    let share = made();
    let page = fs::read_to_string(share.path().join("man/man1/wsnic.1")).expect("a page");
    assert!(page.starts_with(".TH \"WSNIC\" 1 2026-01-31 \"wsnic "), "{page:.80}");
    assert!(Path::new(&share.path().join("doc/wsnic/wsnic.conf")).is_file());
}
