//! From the command line to the settings: what every program does first.

use crate::log::Style;
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fs, io};
use wsnic_proto::cli::{self, CommandLine, Verbosity};
use wsnic_proto::conf::{self, Warning};
use wsnic_proto::{ConfError, ConfFile, Facts, Settings, resolve};

/// Bytes of the longest wsnic.conf.
const MAX_CONF: u64 = 1024 * 1024;
/// Where containers keep it.
const CONTAINER_FILE: &str = "/opt/wsnic/wsnic.conf";

/// What a program was told.
#[derive(Debug)]
pub struct Loaded {
    /// Every option.
    pub settings: Settings,
    /// What was said in vain: for the log, once there is one.
    pub warnings: Vec<Warning>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// How much to log.
    pub verbosity: Verbosity,
    /// Whether the log goes to the syslog daemon.
    pub use_syslog: bool,
    /// The program's own arguments.
    pub matches: ArgMatches,
}

impl Loaded {
    /// How this process is to log.
    pub fn log(&self) -> Style {
        let format = self.settings.log_format;
        Style { verbosity: self.verbosity, format, use_syslog: self.use_syslog }
    }
}

/// Why a program does not know what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// The file cannot be read.
    #[error("cannot read the configuration {} (name another with -c FILE)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads command line, file and environment. Prints help or a usage error and ends the process
/// where the command line asks for it.
///
/// The file `-` is standard input: a complete configuration from another of wsnic's programs, to
/// which nothing of this machine is added.
///
/// # Errors
/// With what is wrong, where it stands, and what to do.
pub fn load(
    command: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Loaded, LoadError> {
    let matches = command_line(command, arguments)?;
    let line = CommandLine::new(&matches)?;
    let from_parent = line.config.as_deref() == Some(Path::new("-"));
    let facts = if from_parent {
        Facts::default()
    } else {
        Facts::gather(line.docker_mode, |path| Path::new(path).is_file(), |name| env::var_os(name))?
            .of_process(std::process::id(), env::var_os("SYSTEMD_EXEC_PID"))
    };
    let file = match &line.config {
        Some(path) => Some(path.clone()),
        None => {
            let container = facts.in_container().then_some(CONTAINER_FILE);
            let candidates = conf::CONF_FILES.into_iter().chain(container).map(PathBuf::from);
            candidates.into_iter().find(|path| path.is_file())
        }
    };
    let conf_file = match &file {
        Some(path) => {
            let content =
                read(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            ConfFile::parse(&path.to_string_lossy(), &content)?
        }
        None => ConfFile::default(),
    };
    let (settings, warnings) = resolve(&conf_file, &line.layer, &facts)?;
    let CommandLine { verbosity, use_syslog, .. } = line;
    Ok(Loaded { settings, warnings, file, verbosity, use_syslog, matches })
}

/// The command line alone. Prints help or a usage error and ends the process where it asks for that.
///
/// # Errors
/// An argument is not UTF-8.
pub fn command_line(
    command: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, LoadError> {
    let arguments = cli::normalise(arguments)?;
    Ok(cli::add_options(command)
        .try_get_matches_from(arguments)
        .unwrap_or_else(|error| error.exit()))
}

/// Reads the configuration again and takes from it what can change while wsnic runs; says in the log
/// what cannot, or what is wrong in it. False: it is wrong, and nothing was taken.
pub fn reload(settings: &mut Settings, load: impl FnOnce() -> Result<Settings, LoadError>) -> bool {
    let new = match load() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("not reloaded, going on as before: {}", crate::log::chain(&error));
            return false;
        }
    };
    for option in settings.reload(&new) {
        tracing::warn!(option, "a change of this option takes effect at the next start");
    }
    true
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if path == Path::new("-") {
        // From its beginning also when it is read again; a pipe has none.
        let _ = nix::unistd::lseek(io::stdin(), 0, nix::unistd::Whence::SeekSet);
        io::stdin().lock().take(MAX_CONF).read_to_end(&mut content)?;
    } else {
        fs::File::open(path)?.take(MAX_CONF).read_to_end(&mut content)?;
    }
    Ok(content)
}
