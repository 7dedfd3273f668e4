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
    let answered = async {
        let (good, mut stream) = ask(socket, what, body).await?;
        Ok((good, rest(&mut stream).await?))
    };
    match answer(socket, answered).await? {
        (true, text) => Ok(text),
        (false, why) => Err(OrderError::Refused(why.trim().to_owned())),
    }
}

/// Sends an order without a body whose answer has no end; the connection, at the begin of the answer's
/// body.
///
/// # Errors
/// As [`order`].
pub async fn stream(socket: &Path, what: &str) -> Result<UnixStream, OrderError> {
    let answered = async {
        let (good, mut stream) = ask(socket, what, &[]).await?;
        let why = if good { String::new() } else { rest(&mut stream).await? };
        Ok((good, why, stream))
    };
    match answer(socket, answered).await? {
        (true, _, stream) => Ok(stream),
        (false, why, _) => Err(OrderError::Refused(why.trim().to_owned())),
    }
}

/// What is answered in time.
async fn answer<T>(
    socket: &Path,
    asked: impl Future<Output = io::Result<T>>,
) -> Result<T, OrderError> {
    match timeout(LIMIT, asked).await {
        Err(_) => Err(OrderError::Silent),
        // It has hung up.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(OrderError::Silent),
        Ok(answer) => {
            answer.map_err(|source| OrderError::NotThere { path: socket.to_owned(), source })
        }
    }
}

/// Sends an order; whether it is answered with good news, and the connection behind the head of the
/// answer.
async fn ask(path: &Path, what: &str, body: &[u8]) -> io::Result<(bool, UnixStream)> {
    let mut stream = UnixStream::connect(path).await?;
    let head = format!("{what} HTTP/1.1\r\nHost: wsnic\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    Ok((status.starts_with(b"2"), stream))
}

/// All that is still to come.
async fn rest(stream: &mut UnixStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
