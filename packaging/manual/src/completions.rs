//! Completions for the words and options that people type.

use clap::builder::{PossibleValuesParser, ValueHint};
use clap::{Arg, ArgAction, Command};
use clap_complete::{Shell, generate};
use std::path::PathBuf;
use wsnic_proto::options::{Kind, OPTIONS};

/// A file for each shell.
pub fn all() -> Vec<(PathBuf, String)> {
    [
        (Shell::Bash, "bash-completion/completions/wsnic"),
        (Shell::Zsh, "zsh/vendor-completions/_wsnic"),
        (Shell::Fish, "fish/vendor_completions.d/wsnic.fish"),
    ]
    .into_iter()
    .map(|(shell, path)| {
        let mut script = Vec::new();
        generate(shell, &mut with_values(wsnic::words::tree()), "wsnic", &mut script);
        (PathBuf::from(path), String::from_utf8_lossy(&script).into_owned())
    })
    .collect()
}

/// The command with what shells can know of values: words, files, users.
fn with_values(command: Command) -> Command {
    command.mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(argument: Arg) -> Arg {
    let Some(spec) = OPTIONS.iter().find(|spec| argument.get_id() == spec.name) else {
        return argument;
    };
    match spec.kind {
        Kind::Choice(words) => argument.value_parser(PossibleValuesParser::new(words)),
        // Its value needs a "=", which not every shell would put there.
        Kind::Flag => without_value(&argument),
        Kind::Path | Kind::Paths | Kind::SocketPath => argument.value_hint(ValueHint::FilePath),
        Kind::User | Kind::Owner => argument.value_hint(ValueHint::Username),
        _ => argument,
    }
}

fn without_value(argument: &Arg) -> Arg {
    let id = argument.get_id().to_string();
    let plain = Arg::new(id).action(ArgAction::SetTrue);
    let plain =
        argument.get_long().into_iter().fold(plain, |plain, long| plain.long(long.to_owned()));
    let plain = argument.get_short().into_iter().fold(plain, Arg::short);
    argument.get_help().into_iter().fold(plain, |plain, help| plain.help(help.clone()))
}
