//! The command line shared by all programs, made from the table of options.
//!
//! `main` passes its arguments through [`normalise`], gives the result to a command made by
//! [`add_options`], and reads the matches with [`CommandLine::new`].

use crate::conf::{ConfError, Given, Layer, Origin};
use crate::options::{Group, Kind, OPTIONS, OptionId, OptionSpec, Place, Switch, wrap};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;

/// Columns of the long help.
const HELP_WIDTH: usize = 70;
/// The network back ends that earlier versions could name by `-n`; the last had the first one only.
const FORMER_BACK_ENDS: [&str; 4] = ["brtap", "tapdev", "brveth", "pktsock"];

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Warnings and errors (`-q`).
    Quiet,
    /// INFO.
    #[default]
    Normal,
    /// DEBUG (`-v`).
    Verbose,
    /// TRACE (`-vv`).
    Everything,
}

/// What the command line says.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// Values of options, for [`crate::resolve`].
    pub layer: Layer,
    /// The file named by `-c`.
    pub config: Option<PathBuf>,
    /// How much to log; `-v` beats `-q`, as ever.
    pub verbosity: Verbosity,
    /// `--docker-mode`, for [`crate::Facts::gather`].
    pub docker_mode: bool,
    /// `--use-syslog`.
    pub use_syslog: bool,
}

/// A command line of this or an earlier version as one that [`add_options`] understands.
///
/// Three dashes become two (`---inet-iface`), `-n brtap` disappears in all its spellings. The first
/// argument is the program's name and stays.
///
/// # Errors
/// An argument that is not UTF-8.
pub fn normalise(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, ConfError> {
    let mut arguments = arguments.into_iter();
    let mut normal: Vec<OsString> = arguments.next().into_iter().collect();
    let mut rest = arguments
        .map(|argument| {
            argument.into_string().map_err(|argument| ConfError::ForeignText {
                origin: Origin::CommandLine,
                text: argument.to_string_lossy().into_owned(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            normal.push(argument.into());
            normal.extend(rest.by_ref().map(OsString::from));
        } else if argument.starts_with("---") {
            normal.push(argument.replacen('-', "", 1).into());
        } else if let Some((flags, value)) = domain_or_back_end(&argument) {
            let value = match value {
                "" => rest.next(),
                attached => Some(attached.strip_prefix('=').unwrap_or(attached).to_owned()),
            };
            if value.as_deref().is_none_or(|value| !FORMER_BACK_ENDS.contains(&value)) {
                normal.push(format!("{flags}n").into());
                normal.extend(value.map(OsString::from));
            } else if flags != "-" {
                normal.push(flags.into());
            }
        } else {
            normal.push(argument.into());
        }
    }
    Ok(normal)
}

/// Splits a bundle of short options at its `-n`: what stands before it and what is attached to it.
fn domain_or_back_end(argument: &str) -> Option<(&str, &str)> {
    let bundle = argument.strip_prefix('-').filter(|bundle| !bundle.starts_with('-'))?;
    for (index, letter) in bundle.char_indices() {
        if letter == 'n' {
            // One byte for the dash, one for the letter.
            return Some((argument.get(..=index)?, argument.get(index + 2..)?));
        }
        let spec = OPTIONS.iter().find(|spec| spec.short == Some(letter));
        if letter != 'h' && spec.is_none_or(|spec| !spec.metavar.is_empty()) {
            return None;
        }
    }
    None
}

/// The command with all options of the table. The last of several values counts, lists grow.
pub fn add_options(command: Command) -> Command {
    let switches = OPTIONS.iter().flat_map(|spec| spec.switches.iter().copied());
    command
        .args_override_self(true)
        .args(OPTIONS.iter().map(argument))
        .args(switches.map(former_switch))
}

fn argument(spec: &'static OptionSpec) -> Arg {
    let argument = Arg::new(spec.name)
        .long(spec.long())
        .aliases(spec.aliases.iter().map(|alias| alias.replace('_', "-")))
        .help(spec.summary())
        .long_help(long_help(spec))
        .help_heading(spec.group.title())
        .hide(spec.place == Place::Obsolete);
    let argument = match spec.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    match spec.kind {
        Kind::Present if spec.id == OptionId::Verbose => argument.action(ArgAction::Count),
        Kind::Present => argument.action(ArgAction::SetTrue),
        Kind::Flag => yes_or_no(argument),
        kind if kind.is_list() => argument.value_name(spec.metavar).action(ArgAction::Append),
        _ => argument.value_name(spec.metavar).action(ArgAction::Set),
    }
}

fn former_switch(switch: Switch) -> Arg {
    let long = switch.name.replace('_', "-");
    yes_or_no(Arg::new(switch.name).long(long).help_heading(Group::Dhcp.title()).hide(true))
}

fn yes_or_no(argument: Arg) -> Arg {
    argument
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .value_name("yes|no")
        .default_missing_value("yes")
}

fn long_help(spec: &OptionSpec) -> String {
    let default = match spec.default {
        "" => String::new(),
        default => format!("[default: {default}]"),
    };
    wrap(&format!("{} {} {default}", spec.help, spec.kind.manual()), HELP_WIDTH)
}

impl CommandLine {
    /// Reads the matches of a command made by [`add_options`].
    ///
    /// # Errors
    /// A yes/no option of an earlier version with another value, or a control character in a value.
    pub fn new(matches: &ArgMatches) -> Result<CommandLine, ConfError> {
        let mut layer = Layer::new();
        for spec in OPTIONS.iter().filter(|spec| spec.place != Place::CommandLine) {
            if let Some(value) = text(matches, spec.name) {
                layer.set(spec, None, given(spec.name, &value))?;
            }
            for switch in spec.switches {
                let value = text(matches, switch.name).filter(|_| layer.get(spec.id).is_none());
                if let Some(value) = value {
                    layer.set(spec, Some(*switch), given(switch.name, &value))?;
                }
            }
        }
        let verbose = matches.try_get_one::<u8>(OptionId::Verbose.spec().name);
        let verbosity = match (verbose.ok().flatten(), present(matches, OptionId::Quiet)) {
            (None | Some(0), false) => Verbosity::Normal,
            (None | Some(0), true) => Verbosity::Quiet,
            (Some(1), _) => Verbosity::Verbose,
            (Some(_), _) => Verbosity::Everything,
        };
        Ok(CommandLine {
            layer,
            config: text(matches, OptionId::Config.spec().name).map(PathBuf::from),
            verbosity,
            docker_mode: present(matches, OptionId::DockerMode),
            use_syslog: present(matches, OptionId::UseSyslog),
        })
    }
}

fn given(name: &str, value: &str) -> Given {
    Given::new(Origin::CommandLine, &format!("--{}", name.replace('_', "-")), value)
}

/// The values of an option, joined; None: not on the command line.
fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    let values = matches.try_get_many::<String>(name).ok().flatten()?;
    Some(values.map(String::as_str).collect::<Vec<_>>().join(","))
}

fn present(matches: &ArgMatches, id: OptionId) -> bool {
    matches.try_get_one(id.spec().name).ok().flatten().copied().unwrap_or(false)
}
