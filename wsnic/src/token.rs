//! `wsnic token NAME`: a secret for somebody who may come in, and its line of the token file.
//!
//! The secret is shown once and kept nowhere: the file has its SHA-256. Appending reads the whole
//! file first, so that a line that wsnic would not take is never written.

use clap::{Arg, ArgAction, ArgMatches, Command};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wsnic_os::config::{self, LoadError};
use wsnic_os::log::{chain, say};
use wsnic_proto::settings::Server;
use wsnic_proto::token_file::{self, TokenFileError};

/// Bytes of a secret: 160 bits, which nobody guesses.
const SECRET: usize = 20;

/// Settings of a line: the argument, its value and what it means.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("network", "NAME", "Network that the holder comes into; without it the path decides"),
    ("expires", "WHEN", "Last day (2027-01-31, UTC), or a moment (2027-01-31T12:00:00Z)"),
    ("max-clients", "COUNT", "Clients of the holder at the same time"),
    ("session-time", "SECONDS", "How long a session of the holder lasts"),
    ("rate-up-bytes", "BYTES", "What each of the holder's guests may send in a second"),
    ("rate-up-frames", "FRAMES", "The same, in frames"),
    ("rate-down-bytes", "BYTES", "What each of the holder's guests may get in a second"),
    ("rate-down-frames", "FRAMES", "The same, in frames"),
];

/// Makes a token as `arguments` (the program's name first) say.
pub fn token(arguments: &[OsString]) -> ExitCode {
    let matches = command().try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    match make(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsnic: {}", chain(&error));
            ExitCode::from(2)
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    /// The configuration is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something on the command line, by what it would be in the file.
    #[error("such a token cannot be: {}", .0.fault)]
    Line(TokenFileError),
    /// A value that would be more than one word of a line.
    #[error("such a token cannot be: there is white space or # in what stands on the command line")]
    Words,
    /// The file is wrong, or has the name.
    #[error("nothing was appended: {0}")]
    File(TokenFileError),
    /// There is no file to append to.
    #[error("--append needs the option token_file=FILE in wsnic.conf")]
    NoFile,
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    System {
        /// What was to be done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("no random bytes can be had")]
    Random,
}

/// The command and its arguments.
pub fn command() -> Command {
    let setting = |(name, value, help): (&'static str, &'static str, &'static str)| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("wsnic")
        .bin_name("wsnic token")
        .about("Makes a token, prints its line of the token file, and the address that has it")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Whose token it is, for the log"),
        )
        .args(SETTINGS.map(setting))
        .arg(
            Arg::new("append")
                .long("append")
                .action(ArgAction::SetTrue)
                .help("Append the line to the token_file of wsnic.conf"),
        )
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .help("The wsnic.conf to look at"),
        )
}

fn make(matches: &ArgMatches) -> Result<(), TokenError> {
    let file = matches.get_one::<String>("config").map(|file| format!("--config={file}"));
    let arguments = ["wsnic".to_owned()].into_iter().chain(file).map(OsString::from);
    let settings = config::load(Command::new("wsnic"), arguments)?.settings;
    let secret = secret()?;
    let line = line(matches, &secret)?;
    let token_file = settings.door.token_file.as_deref();
    if matches.get_flag("append") {
        let path = token_file.ok_or(TokenError::NoFile)?;
        append(path, &line)?;
        say(format_args!("appended to {}, for the next reload or start of wsnic", path.display()));
    } else {
        match token_file {
            Some(path) => say(format_args!("for {}:", path.display())),
            None => say("for the token file, which the option token_file of wsnic.conf names:"),
        }
        say(format_args!("  {line}"));
    }
    say("for its holder, shown this once:");
    say(format_args!("  {}", address(&settings.server, &secret)));
    Ok(())
}

/// Letters and digits that every part of an address, a header and a subprotocol can hold.
fn secret() -> Result<String, TokenError> {
    let mut bytes = [0; SECRET];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(BASE32_NOPAD.encode(&bytes))
}

/// The line, if wsnic would take it.
fn line(matches: &ArgMatches, secret: &str) -> Result<String, TokenError> {
    let hash = HEXLOWER.encode(digest(&SHA256, secret.as_bytes()).as_ref());
    let name = matches.get_one::<String>("name").map_or("", String::as_str);
    let mut line = format!("{name} sha256:{hash}");
    let mut words = 2;
    for (argument, ..) in SETTINGS {
        if let Some(value) = matches.get_one::<String>(argument) {
            line += &format!(" {}={value}", argument.replace('-', "_"));
            words += 1;
        }
    }
    // Nothing that is a comment, another line or a setting of its own may hide in a value.
    if line.contains(['#', '\n']) || line.split_ascii_whitespace().count() != words {
        return Err(TokenError::Words);
    }
    token_file::parse("", line.as_bytes()).map_err(TokenError::Line)?;
    Ok(line)
}

/// Where the holder connects.
fn address(server: &Server, secret: &str) -> String {
    let (scheme, ports) = match server.wss_cert {
        Some(_) => ("wss", &server.wss_ports),
        None => ("ws", &server.ws_ports),
    };
    let port = ports.first().copied().unwrap_or_default();
    let host = match server.addresses.first() {
        Some(IpAddr::V6(address)) if !address.is_unspecified() => format!("[{address}]"),
        Some(address) if !address.is_unspecified() => address.to_string(),
        // Every address of the machine: which one is known to who runs it.
        _ => "HOST".to_owned(),
    };
    format!("{scheme}://{host}:{port}/?token={secret}")
}

/// Appends a line to the file, which is made if there is none.
fn append(path: &Path, line: &str) -> Result<(), TokenError> {
    let system =
        |action| move |source| TokenError::System { action, path: path.to_owned(), source };
    let mut content = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        content => content.map_err(system("read"))?,
    };
    let is_whole = content.is_empty() || content.ends_with(b"\n");
    let addition = format!("{}{line}\n", if is_whole { "" } else { "\n" });
    content.extend_from_slice(addition.as_bytes());
    token_file::parse(&path.to_string_lossy(), &content).map_err(TokenError::File)?;
    let mut options = OpenOptions::new();
    let mut file =
        options.append(true).create(true).mode(0o600).open(path).map_err(system("open"))?;
    file.write_all(addition.as_bytes()).map_err(system("write to"))?;
    file.sync_all().map_err(system("write to"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use wsnic_proto::token_file::Fault;

    fn matches(arguments: &[&str]) -> ArgMatches {
        let arguments = ["wsnic"].iter().chain(arguments);
        command().try_get_matches_from(arguments).unwrap()
    }

    fn server(conf: &str) -> Server {
        let file = wsnic_proto::ConfFile::parse("f", conf.as_bytes()).unwrap();
        let layer = wsnic_proto::conf::Layer::new();
        wsnic_proto::resolve(&file, &layer, &wsnic_proto::Facts::default()).unwrap().0.server
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn a_line_has_the_hash_of_the_secret_and_what_was_asked_for() {
        let matches = matches(&["alice", "--max-clients", "2", "--expires=2027-01-31"]);
        assert_eq!(
            line(&matches, "test").unwrap(),
            // By `printf test | sha256sum`.
            "alice sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 \
             expires=2027-01-31 max_clients=2"
        );
    }

    #[test]
    fn every_setting_is_one_of_the_file() {
        for (argument, ..) in SETTINGS {
            let value = match argument {
                "network" => "default",
                "expires" => "2027-01-31",
                _ => "1",
            };
            let matches = matches(&["alice", &format!("--{argument}={value}")]);
            assert!(line(&matches, "test").is_ok(), "{argument}");
        }
    }

    #[test]
    fn what_wsnic_would_not_take_is_no_token() {
        for (arguments, fault) in [
            (&["a/b"][..], Fault::Name),
            (&["alice", "--network=Other"], Fault::Network),
            (&["alice", "--max-clients=many"], Fault::Number("max_clients", 0)),
            (&["alice", "--expires=tomorrow"], Fault::Expires),
        ] {
            let error = line(&matches(arguments), "x").unwrap_err();
            assert!(matches!(&error, TokenError::Line(error) if error.fault == fault), "{error}");
        }
        for arguments in [
            &["alice\nbob"][..],
            &["#alice"],
            &[""],
            &["alice", "--expires=2027-01-31 max_clients=0"],
            &["alice", "--network="],
        ] {
            assert!(line(&matches(arguments), "x").is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn no_two_secrets_are_the_same_and_all_fit_into_an_address() {
        let (one, other) = (secret().unwrap(), secret().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn the_address_is_the_one_that_wsnic_listens_on() {
        let shown = |conf| address(&server(conf), "S");
        assert_eq!(shown(""), "ws://127.0.0.1:8086/?token=S");
        assert_eq!(shown("ws_server_addr=2001:db8::1"), "ws://[2001:db8::1]:8086/?token=S");
        assert_eq!(shown("ws_server_addr=0.0.0.0\nws_server_port=80"), "ws://HOST:80/?token=S");
        assert_eq!(shown("wss_server_cert=c.pem"), "wss://127.0.0.1:8087/?token=S");
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_grows_by_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let line = |name: &str, secret: &str| line(&matches(&[name]), secret).unwrap();
        append(&path, &line("alice", "1")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&path).unwrap();
        fs::write(&path, first.trim_ascii_end()).unwrap();
        append(&path, &line("bob", "2")).unwrap();
        let content = fs::read(&path).unwrap();
        let names: Vec<String> =
            token_file::parse("f", &content).unwrap().into_iter().map(|token| token.name).collect();
        assert_eq!(names, ["alice", "bob"]);
        let again = append(&path, &line("bob", "3")).unwrap_err();
        assert!(matches!(again, TokenError::File(error) if error.fault == Fault::SameName(2)));
        assert_eq!(fs::read(&path).unwrap(), content, "as it was");
    }
}
