//! The frames that never reach a port, because the front-end answers them itself: DHCP. They come by
//! the admin socket, as `wsnic-front/src/admin.rs` describes.

use super::pcapng::Direction;
use crate::admin::{self, OrderError};
use crate::rows::Row;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{Receiver, channel};

/// Bytes of a frame.
const LONGEST: u32 = 128 * 1024;
/// Frames that wait to be written.
const ROOM: usize = 64;

/// A frame.
pub struct Sighting {
    /// Which way it went.
    pub direction: Direction,
    /// When.
    pub time: SystemTime,
    /// Without FCS.
    pub frame: Vec<u8>,
}

/// Asks for those of a session; the session, and what comes until it ends.
///
/// # Errors
/// There is no such session, or nobody to ask.
pub async fn of(socket: &Path, id: u64) -> Result<(Row, Receiver<Sighting>), OrderError> {
    let mut stream =
        BufReader::new(admin::stream(socket, &format!("GET /sessions/{id}/frames")).await?);
    let not_there = |source| OrderError::NotThere { path: socket.to_owned(), source };
    let mut line = String::new();
    stream.read_line(&mut line).await.map_err(not_there)?;
    let row = serde_json::from_str(&line).map_err(|_| OrderError::Silent)?;
    let (sender, receiver) = channel(ROOM);
    tokio::spawn(async move {
        // An error is the end of it, as the session's end is.
        while let Ok(sighting) = next(&mut stream).await {
            if sender.send(sighting).await.is_err() {
                return;
            }
        }
    });
    Ok((row, receiver))
}

async fn next(stream: &mut BufReader<UnixStream>) -> io::Result<Sighting> {
    let direction = match stream.read_u8().await? {
        0 => Direction::ToGuest,
        _ => Direction::FromGuest,
    };
    let time = UNIX_EPOCH + Duration::from_nanos(stream.read_u64().await?);
    let len = stream.read_u32().await?;
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; len as usize];
    stream.read_exact(&mut frame).await?;
    Ok(Sighting { direction, time, frame })
}
