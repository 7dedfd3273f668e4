//! A client's connection: TCP or a unix socket, with TLS around it or not.
//!
//! All is done by `try_` calls on a shared reference, as tokio's own sockets have them, so that the two
//! loops of a session may use one connection. With TLS, what is to be sent may still be here when a
//! write has returned ([`Stream::has_unsent`]); the next write takes it along.

use crate::tls::Tls;
use socket2::SockRef;
use std::cell::RefCell;
use std::io::{self, IoSlice, Read as _};
use std::net::Shutdown;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// The socket of a client.
#[derive(Debug)]
pub enum Socket {
    /// From anywhere.
    Tcp(TcpStream),
    /// From a proxy on this machine.
    Unix(UnixStream),
}

impl Socket {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.readable().await,
            Socket::Unix(socket) => socket.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.writable().await,
            Socket::Unix(socket) => socket.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => read_and_note(socket, buffer),
            Socket::Unix(socket) => socket.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_write(bytes),
            Socket::Unix(socket) => socket.try_write(bytes),
        }
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_write_vectored(parts),
            Socket::Unix(socket) => socket.try_write_vectored(parts),
        }
    }

    /// The first byte, which stays to be read; None at the end.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let len = match self {
            Socket::Tcp(socket) => socket.peek(&mut byte).await?,
            // A proxy on this machine speaks no TLS.
            Socket::Unix(_) => return Ok(Some(0)),
        };
        Ok((len > 0).then_some(byte[0]))
    }

    fn shut_down_write(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => SockRef::from(socket).shutdown(Shutdown::Write),
            Socket::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Write),
        }
    }

    /// Reads exactly `buffer`; for what comes before TLS.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.readable().await?;
            match self.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => buffer = &mut std::mem::take(&mut buffer)[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads, and notes when the socket is empty: TCP that does not fill the buffer has nothing more, so it
/// is not asked again, which would be a system call before each answer. What comes later is an event of
/// its own, and the end of the stream stays noted as one.
fn read_and_note(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut last = None;
    let read = socket.try_io(Interest::READABLE, || {
        let len = (&*SockRef::from(socket)).read(buffer)?;
        if len > 0 && len < buffer.len() {
            last = Some(len);
            // What makes the runtime take the socket for empty.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(len)
    });
    last.map_or(read, Ok)
}

/// As blocking calls that would block: what TLS reads from and writes to.
impl io::Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }
}

impl io::Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The connection of a client.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<RefCell<Tls>>>,
}

impl Stream {
    /// Without TLS.
    pub fn plain(socket: Socket) -> Stream {
        Stream { socket, tls: None }
    }

    /// With TLS, after its handshake.
    ///
    /// # Errors
    /// The client does not speak TLS, or has no certificate where one is required.
    pub async fn accept_tls(socket: Socket, tls: Tls) -> io::Result<Stream> {
        let stream = Stream { socket, tls: Some(Box::new(RefCell::new(tls))) };
        while let Some(wait) = stream.with_tls(|tls, socket| tls.handshake(socket)) {
            match wait {
                Wait::Read => stream.socket.readable().await?,
                Wait::Write => stream.socket.writable().await?,
                Wait::Failed(error) => return Err(error),
            }
        }
        Ok(stream)
    }

    fn with_tls<T>(&self, work: impl FnOnce(&mut Tls, &Socket) -> T) -> T
    where
        T: Default,
    {
        match &self.tls {
            Some(tls) => work(&mut tls.borrow_mut(), &self.socket),
            None => T::default(),
        }
    }

    /// True if TLS is around it.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Who the client is by its certificate, if it has shown one.
    pub fn certificate(&self) -> Option<String> {
        self.tls.as_ref().and_then(|tls| tls.borrow().subject())
    }

    /// Waits until [`Stream::try_read`] may have something.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<()> {
        if self.tls.as_ref().is_some_and(|tls| tls.borrow().has_unread()) {
            return Ok(());
        }
        self.socket.readable().await
    }

    /// Waits until [`Stream::try_write`] may take something.
    ///
    /// # Errors
    /// The socket's.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is there. Others end the connection.
    #[inline]
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_read(buffer),
            Some(tls) => tls.borrow_mut().read(&self.socket, buffer),
        }
    }

    /// Takes bytes to send, as many as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`: there is no room. Others end the connection.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(bytes),
            Some(tls) => tls.borrow_mut().write(&self.socket, bytes),
        }
    }

    /// True if something that was taken waits for the socket: [`Stream::try_write`] with nothing sends it.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().has_unsent())
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.has_unsent() {
            match self.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some bytes; 0 is the end.
    ///
    /// # Errors
    /// The connection's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// The connection's.
    pub async fn shut_down_write(&self) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().close();
            self.write_all(&[]).await?;
        }
        self.socket.shut_down_write()
    }
}

/// What a handshake waits for.
#[derive(Debug)]
pub enum Wait {
    /// Bytes of the client.
    Read,
    /// Room for bytes.
    Write,
    /// Nothing: it has failed.
    Failed(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);

    /// A client and the server's end of its connection.
    async fn connected() -> (TcpStream, Stream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, Stream::plain(Socket::Tcp(server)))
    }

    async fn read(stream: &Stream, buffer: &mut [u8]) -> usize {
        timeout(SOON, stream.read(buffer)).await.expect("an event comes").unwrap()
    }

    #[tokio::test]
    async fn what_comes_after_a_read_that_found_all_is_found_too() {
        let (mut client, stream) = connected().await;
        for round in 0..1000_u32 {
            client.write_all(&round.to_be_bytes()).await.unwrap();
            let mut buffer = [0; 64];
            assert_eq!(read(&stream, &mut buffer).await, 4);
            assert_eq!(buffer[..4], round.to_be_bytes());
            let again = stream.try_read(&mut buffer).map_err(|error| error.kind());
            assert_eq!(again, Err(io::ErrorKind::WouldBlock));
        }
    }

    #[tokio::test]
    async fn what_a_buffer_has_no_room_for_is_still_there() {
        let (mut client, stream) = connected().await;
        client.write_all(&[7; 10]).await.unwrap();
        let lens = [read(&stream, &mut [0; 4]).await, read(&stream, &mut [0; 4]).await];
        assert_eq!(lens, [4, 4]);
        assert_eq!(read(&stream, &mut [0; 4]).await, 2);
    }

    #[tokio::test]
    async fn an_end_that_came_with_the_last_bytes_is_seen() {
        for early in [true, false] {
            let (mut client, stream) = connected().await;
            client.write_all(b"last").await.unwrap();
            if early {
                client.shutdown().await.unwrap();
            }
            assert_eq!(read(&stream, &mut [0; 64]).await, 4);
            client.shutdown().await.unwrap();
            assert_eq!(read(&stream, &mut [0; 64]).await, 0);
        }
    }
}
