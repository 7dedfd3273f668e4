//! Handing the front-end new certificates, keys and lists while it serves: `wsnic reload`, and SIGHUP
//! to `wsnic run`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use wsnic_os::log::{chain, say};
use wsnic_os::material::{Material, MaterialError};
use wsnic_proto::Settings;

/// The front-end answers within this.
const LIMIT: Duration = Duration::from_secs(5);

/// Why the front-end goes on with what it has.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Nobody takes orders.
    #[error("no wsnic takes orders at {} (option admin_socket; this needs root)", path.display())]
    NotThere {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not answer.
    #[error("wsnic does not answer at the admin socket")]
    Silent,
    /// It says why not.
    #[error("{0}")]
    Refused(String),
}

/// Reads the files that `settings` name and hands them over.
///
/// # Errors
/// What has to be put right; the front-end goes on with what it has.
pub async fn hand_over(settings: &Settings) -> Result<(), ReloadError> {
    let material = Material::read(settings)?;
    let body = serde_json::to_vec(&material).unwrap_or_default();
    let asked = ask(&settings.admin_socket, "PUT /material", &body);
    let answer = timeout(LIMIT, asked).await.map_err(|_| ReloadError::Silent)?;
    let path = settings.admin_socket.clone();
    let answer = answer.map_err(|source| ReloadError::NotThere { path, source })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(_) => Err(ReloadError::Refused(body.trim().to_owned())),
        None => Err(ReloadError::Silent),
    }
}

async fn ask(path: &Path, what: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    let head = format!("{what} HTTP/1.1\r\nHost: wsnic\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The command `wsnic reload`.
pub fn reload(settings: &Settings) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let handed = match runtime {
        Ok(runtime) => runtime.block_on(hand_over(settings)),
        Err(source) => Err(ReloadError::NotThere { path: settings.admin_socket.clone(), source }),
    };
    match handed {
        Ok(()) => {
            say("wsnic has taken the new certificates and lists; sessions go on.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wsnic: not reloaded: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
