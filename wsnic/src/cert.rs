//! `wsnic cert`: a self-signed certificate, and how to make browsers trust it.

use clap::{Arg, ArgAction, ArgMatches};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use wsnic_os::log::say;

/// Browsers of one vendor take no certificate that lasts longer.
const MAX_DAYS: u32 = 825;

/// Arguments of the command.
pub fn arguments() -> [Arg; 4] {
    [
        Arg::new("names").value_name("NAME").num_args(0..).help(
            "Host names and addresses by which clients connect. Default: this host's name, localhost, 127.0.0.1, ::1",
        ),
        Arg::new("days")
            .long("days")
            .value_name("DAYS")
            .value_parser(clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))
            .default_value("365")
            .help("How long it is valid, at most 825 days"),
        Arg::new("out")
            .long("out")
            .value_name("DIR")
            .value_parser(clap::value_parser!(PathBuf))
            .default_value("cert")
            .help("Where cert.crt and cert.key go; wsnic looks into cert in its working directory"),
        Arg::new("force")
            .long("force")
            .action(ArgAction::SetTrue)
            .help("Replace the certificate that is there"),
    ]
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum CertError {
    #[error("{} exists: add --force to replace it", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate for these names: {0}")]
    Made(#[from] rcgen::Error),
}

/// Makes both files.
pub fn cert(matches: &ArgMatches) -> ExitCode {
    match make(matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsnic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(matches: &ArgMatches) -> Result<(), CertError> {
    let directory = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
    let (crt, key) = (directory.join("cert.crt"), directory.join("cert.key"));
    for path in [&crt, &key] {
        if path.exists() && !matches.get_flag("force") {
            return Err(CertError::Exists(path.clone()));
        }
    }
    let names: Vec<String> = match matches.get_many::<String>("names") {
        Some(names) => names.cloned().collect(),
        None => default_names(),
    };
    let days = matches.get_one::<u32>("days").copied().unwrap_or(MAX_DAYS);
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.clone())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, names.first().map_or("wsnic", String::as_str));
    params.distinguished_name = subject;
    // An hour ago, for clocks that are late.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
    let certificate = params.self_signed(&pair)?;
    let written = |path: &Path, text: &str, mode| {
        write(path, text, mode).map_err(|source| CertError::Write { path: path.to_owned(), source })
    };
    fs::create_dir_all(&directory)
        .map_err(|source| CertError::Write { path: directory.clone(), source })?;
    written(&key, &pair.serialize_pem(), 0o600)?;
    written(&crt, &certificate.pem(), 0o644)?;
    tell(&crt, &key, &names, days);
    Ok(())
}

/// Anew each time, so that the mode is right from the first byte.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

fn default_names() -> Vec<String> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> = host.into_iter().filter(|name| !name.is_empty()).collect();
    names.extend(local);
    names.dedup();
    names
}

fn tell(crt: &Path, key: &Path, names: &[String], days: u32) {
    let (crt, key) = (crt.display(), key.display());
    let first = names.first().map_or("localhost", String::as_str);
    let names = names.join(", ");
    say(format!(
        "\
Made {crt} and {key} for {names}, valid for {days} days.

  wsnic serves wss:// with them when it finds them in cert/ of its working directory, or with
    wss_server_cert={crt}
    wss_server_key={key}
  A wsnic that runs takes new ones by `wsnic reload`.

Nobody has signed this certificate, so each browser must be told to trust it:
  Chrome, Edge on Linux   certutil -d sql:$HOME/.pki/nssdb -A -t CP,CP, -n wsnic -i {crt}
  Firefox                 open https://{first}:8087/ once and accept the certificate
  Windows                 certutil -user -addstore Root cert.crt
  macOS                   security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db cert.crt
  Debian, for programs    cp {crt} /usr/local/share/ca-certificates/wsnic.crt && update-ca-certificates
  curl                    curl --cacert {crt} https://{first}:8087/
Test it: https://{first}:8087/ shows a page of wsnic without a warning."
    ));
}
