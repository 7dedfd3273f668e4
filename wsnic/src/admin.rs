//! Orders to the front-end by its admin socket: HTTP with JSON, see `wsnic-front/src/admin.rs`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The front-end answers within this.
const LIMIT: Duration = Duration::from_secs(5);

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
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

/// Sends an order, such as `GET /status`; the body of the answer.
///
/// # Errors
/// Nobody hears it, or it is refused.
pub async fn order(socket: &Path, what: &str, body: &[u8]) -> Result<String, OrderError> {
    let answer = timeout(LIMIT, ask(socket, what, body)).await.map_err(|_| OrderError::Silent)?;
    let path = socket.to_owned();
    let answer = answer.map_err(|source| OrderError::NotThere { path, source })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(body.to_owned()),
        Some(_) => Err(OrderError::Refused(body.trim().to_owned())),
        None => Err(OrderError::Silent),
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

/// [`order`], for a command that does nothing else.
///
/// # Errors
/// As [`order`].
pub fn order_now(socket: &Path, what: &str, body: &[u8]) -> Result<String, OrderError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let not_there = |source| OrderError::NotThere { path: socket.to_owned(), source };
    runtime.map_err(not_there)?.block_on(order(socket, what, body))
}
