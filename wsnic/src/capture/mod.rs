//! `wsnic capture ID -w FILE`: what goes between a guest and the network, as a file for Wireshark.
//!
//! Runs as root. The front-end tells which port the session has, and shows the frames that it answers
//! itself; all others are seen on the port, by a packet socket. Neither helper nor front-end gets
//! anything to do for a frame.

mod pcapng;
mod port;
mod sightings;

use crate::admin::{OrderError, order};
use crate::rows::Row;
use clap::{Arg, ArgMatches, Command, value_parser};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use pcapng::{About, Pcapng};
use port::Port;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Packets that are taken before anything else is looked at.
const AT_ONCE: usize = 256;

/// Why nothing is captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No such session, or nobody to ask.
    #[error("session {id} cannot be captured (`wsnic sessions` lists those that can)")]
    Session {
        /// Its number.
        id: u64,
        /// What the front-end said.
        source: OrderError,
    },
    /// Its port is not here.
    #[error(
        "the port {port} of session {id} is not here: start this where wsnic runs, in the same \
         container"
    )]
    Elsewhere {
        /// The session.
        id: u64,
        /// Its port.
        port: String,
    },
    /// Not allowed.
    #[error(
        "not allowed to look at {port}: this needs root, and CAP_NET_RAW, which a container gets by \
         --cap-add=NET_RAW"
    )]
    NotAllowed {
        /// The port.
        port: String,
    },
    /// The kernel refuses.
    #[error("cannot look at {port}")]
    Port {
        /// The port.
        port: String,
        /// What it said.
        source: io::Error,
    },
    /// The file cannot be had, or written.
    #[error("cannot write {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link may lead anywhere.
    #[error("{} is a symbolic link, which is not followed: name the file itself", path.display())]
    Link {
        /// Its path.
        path: PathBuf,
    },
    /// Standard output is no place for it.
    #[error(
        "a terminal cannot show a capture: give a file, or a program that reads it, such as \
         wsnic capture {0} -w - | wireshark -k -i -"
    )]
    Terminal(u64),
    /// The runtime does not start.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// Adds the arguments.
pub fn with_arguments(command: Command) -> Command {
    let number = |name: &'static str, metavar: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(metavar)
            .value_parser(value_parser!(u64).range(1..))
            .help(help)
    };
    command
        .arg(
            Arg::new("id")
                .value_name("ID")
                .required(true)
                .value_parser(value_parser!(u64))
                .help("The session, as `wsnic sessions` numbers it"),
        )
        .arg(
            Arg::new("write")
                .short('w')
                .long("write")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The pcapng file to write, - for standard output"),
        )
        .arg(number("count", "N", "End after so many frames"))
        .arg(number("seconds", "N", "End after so long"))
}

/// What is wanted.
struct Wanted {
    id: u64,
    path: PathBuf,
    count: u64,
    seconds: Option<u64>,
}

/// Captures until the session ends, enough is there, or somebody ends it; says how it ended.
///
/// # Errors
/// What stands in the way, and what to do. What was captured before is in the file.
pub fn capture(matches: &ArgMatches, socket: &Path) -> Result<String, CaptureError> {
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let wanted = Wanted {
        id: number("id").unwrap_or_default(),
        path: matches.get_one::<PathBuf>("write").cloned().unwrap_or_default(),
        count: number("count").unwrap_or(u64::MAX),
        seconds: number("seconds"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(wanted.capture(socket)) {
        Err(CaptureError::File { path, source })
            if path == Path::new("-") && source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok("ended: nobody reads it any more".to_owned())
        }
        ended => ended,
    }
}

impl Wanted {
    async fn capture(&self, socket: &Path) -> Result<String, CaptureError> {
        let id = self.id;
        let session = |source| CaptureError::Session { id, source };
        if self.path == Path::new("-") && io::stdout().is_terminal() {
            return Err(CaptureError::Terminal(id));
        }
        let (row, mut seen) = sightings::of(socket, id).await.map_err(session)?;
        let name = &row.port;
        let mut port = Port::open(name).map_err(|source| self.no_port(name, source))?;
        // A port may have gone to another session since: it has not, if this one is there still.
        order(socket, &format!("GET /sessions/{id}"), &[]).await.map_err(session)?;
        let mut file = self.begin(&row)?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        eprintln!("capturing session {id} ({}, {name}), Ctrl-C ends it", row.client);
        let end = self.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let time_is_over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let mut time_is_over = std::pin::pin!(time_is_over);
        let why = loop {
            if file.frames() >= self.count {
                break "that is enough";
            }
            tokio::select! {
                biased;
                _ = interrupt.recv() => break "ended",
                _ = terminate.recv() => break "ended",
                () = &mut time_is_over => break "the time is over",
                sighting = seen.recv() => match sighting {
                    Some(it) => self.written(file.frame(it.direction, it.time, &it.frame))?,
                    None => {
                        // What the port has seen until then is still to come.
                        self.drain(&mut port, &mut file, usize::MAX)?;
                        break "the session has ended";
                    }
                },
                readable = port.readable() => {
                    readable.map_err(|source| self.no_port(name, source))?;
                    self.drain(&mut port, &mut file, AT_ONCE)?;
                }
            }
            self.written(file.flush())?;
        };
        let (frames, lost) = (file.frames(), port.lost());
        self.written(file.end(lost))?;
        Ok(format!("{frames} frames captured, {lost} lost: {why}"))
    }

    /// Writes what the port has seen, `most` packets at most.
    fn drain<W: Write>(
        &self,
        port: &mut Port,
        file: &mut Pcapng<W>,
        most: usize,
    ) -> Result<(), CaptureError> {
        for _ in 0..most {
            if file.frames() >= self.count {
                break;
            }
            let mut written = Ok(());
            let next = port.next(|direction, time, frame| {
                if written.is_ok() && file.frames() < self.count {
                    written = file.frame(direction, time, frame);
                }
                Ok(())
            });
            self.written(written)?;
            // A port that is down or gone: of its end the front-end tells.
            if !next.unwrap_or(false) {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self, row: &Row) -> Result<Pcapng<Box<dyn Write>>, CaptureError> {
        let to: Box<dyn Write> = if self.path == Path::new("-") {
            Box::new(BufWriter::new(io::stdout()))
        } else {
            Box::new(BufWriter::with_capacity(256 * 1024, self.file()?))
        };
        let comment = format!(
            "wsnic session {} on network {}: client {}, identity {}",
            row.id, row.network, row.client, row.identity
        );
        let description = "port of a guest: inbound is from it, outbound to it";
        let about = About { comment: &comment, interface: &row.port, description };
        Pcapng::begin(to, &about).map_err(|source| self.not_written(source))
    }

    /// The empty file that only its owner may read: somebody's traffic is nobody else's business.
    fn file(&self) -> Result<File, CaptureError> {
        let mut options = OpenOptions::new();
        // Root follows no link that somebody else may have put there.
        options.write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&self.path).map_err(|source| match source.raw_os_error() {
            Some(code) if code == Errno::ELOOP as i32 => {
                CaptureError::Link { path: self.path.clone() }
            }
            _ => self.not_written(source),
        })?;
        // A pipe or /dev/null stays what it is. A file that was there has a mode of its own until here.
        let is_file = file.metadata().map(|about| about.is_file());
        if is_file.map_err(|source| self.not_written(source))? {
            self.written(file.set_permissions(Permissions::from_mode(0o600)))?;
            self.written(file.set_len(0))?;
        }
        Ok(file)
    }

    fn written(&self, written: io::Result<()>) -> Result<(), CaptureError> {
        written.map_err(|source| self.not_written(source))
    }

    fn not_written(&self, source: io::Error) -> CaptureError {
        CaptureError::File { path: self.path.clone(), source }
    }

    fn no_port(&self, name: &str, source: io::Error) -> CaptureError {
        let port = name.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => CaptureError::Elsewhere { id: self.id, port },
            io::ErrorKind::PermissionDenied => CaptureError::NotAllowed { port },
            _ => CaptureError::Port { port, source },
        }
    }
}
