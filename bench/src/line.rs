//! A client's connection that does not block, with TLS around it or not.

use rustls::ClientConnection;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of one read of the socket.
const READ: usize = 256 * 1024;

/// What guests' messages travel on.
pub enum Line {
    /// ws://
    Plain(TcpStream),
    /// wss://
    Tls(Box<Tls>),
}

/// A socket and what rustls knows of it.
pub struct Tls {
    socket: TcpStream,
    connection: ClientConnection,
    inbox: Vec<u8>,
    at: usize,
    end: usize,
}

impl Line {
    /// After its handshake.
    pub fn tls(socket: TcpStream, connection: ClientConnection) -> Line {
        Line::Tls(Box::new(Tls { socket, connection, inbox: vec![0; READ], at: 0, end: 0 }))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Line::Plain(socket) => socket,
            Line::Tls(tls) => &tls.socket,
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is lost.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Line::Plain(socket) => socket.read(bytes),
            Line::Tls(tls) => tls.read(bytes),
        }
    }

    /// Takes what there is room for.
    ///
    /// # Errors
    /// As [`Line::read`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Plain(socket) => socket.write(bytes),
            Line::Tls(tls) => tls.write(bytes),
        }
    }

    /// True if something that was taken waits for the socket.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Line::Tls(tls) if tls.connection.wants_write())
    }

    /// True if there is something to read that the socket does not know of.
    pub fn has_unread(&self) -> bool {
        matches!(self, Line::Tls(tls) if tls.at < tls.end || !tls.connection.wants_read())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// As [`Line::read`].
    pub fn send(&mut self) -> io::Result<()> {
        match self {
            Line::Plain(_) => Ok(()),
            Line::Tls(tls) => tls.send(),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Tls {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.connection.reader().read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(len) => {
                    filled += len;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.at == self.end {
                match self.socket.read(&mut self.inbox) {
                    Ok(0) => break,
                    Ok(len) => (self.at, self.end) = (0, len),
                    Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            self.at += self.connection.read_tls(&mut &self.inbox[self.at..self.end])?;
            self.connection.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(filled)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send()?;
        let len = self.connection.writer().write(bytes)?;
        match self.send() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(len),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}
