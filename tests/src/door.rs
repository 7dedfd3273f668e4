//! Bare bytes to and from the server's TCP port: HTTP heads and RFC 6455 fragments made by hand,
//! also wrong ones.

use crate::{LIMIT, Lab, Netns, Server};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// What a fragment is (RFC 6455 §5.2).
pub mod opcode {
    /// More of the message before.
    pub const CONTINUATION: u8 = 0;
    /// UTF-8 text.
    pub const TEXT: u8 = 1;
    /// Bytes: an Ethernet frame.
    pub const BINARY: u8 = 2;
    /// The last fragment of a connection.
    pub const CLOSE: u8 = 8;
    /// Wants a PONG.
    pub const PING: u8 = 9;
    /// The answer to a PING.
    pub const PONG: u8 = 10;
}

/// A handshake as browsers make it, without the empty line at its end.
pub const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: wsnic\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A TCP connection to the server.
#[derive(Debug)]
pub struct Door {
    stream: TcpStream,
}

/// An HTTP response's head, and its body as far as the head announces one.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head, as it was sent.
    pub head: String,
    /// The body.
    pub body: String,
}

/// One RFC 6455 fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Whether it is its message's last.
    pub fin: bool,
    /// The three reserved bits.
    pub reserved: u8,
    /// See [`opcode`].
    pub opcode: u8,
    /// A client's mask.
    pub mask: Option<[u8; 4]>,
    /// The bytes, not masked.
    pub payload: Vec<u8>,
}

impl Door {
    /// Connects to the default address inside the server's namespace.
    pub fn knock(lab: &Lab) -> Door {
        Door::knock_at(&lab.srv, Server::address())
    }

    /// Connects from any namespace to any address.
    pub fn knock_at(netns: &Netns, address: SocketAddr) -> Door {
        let stream = netns.enter(|| TcpStream::connect_timeout(&address, LIMIT));
        let stream = stream.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_read_timeout(Some(LIMIT)).expect("a socket takes a time limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a socket takes a time limit");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        Door { stream }
    }

    /// Connects and makes a WebSocket of it.
    pub fn upgraded(lab: &Lab) -> Door {
        let mut door = Door::knock(lab);
        door.send(format!("{HANDSHAKE}\r\n").as_bytes());
        let response = door.response();
        assert_eq!(response.status, 101, "{response:?}");
        door
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes bytes");
    }

    /// Sends bytes; false when the server does not take them any more.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a fragment.
    pub fn send_fragment(&mut self, fragment: &Fragment) {
        self.send(&fragment.bytes());
    }

    /// The bare connection, for more bytes than [`Fragment`]s are made for.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Replaces the time limit of every read.
    pub fn wait_at_most(&self, limit: std::time::Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a socket takes a time limit");
    }

    /// Reads an HTTP response.
    pub fn response(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1));
        }
        let head = String::from_utf8(head).expect("an HTTP head is text");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut response =
            Response { status: status.expect("a status code"), head, body: String::new() };
        if let Some(length) = response.header("content-length") {
            let body = self.read(length.parse().expect("a length is a number"));
            response.body = String::from_utf8_lossy(&body).into_owned();
        }
        response
    }

    /// Reads a fragment.
    pub fn receive(&mut self) -> Fragment {
        self.try_receive().expect("the server closed without a CLOSE")
    }

    /// Reads a fragment; None when the server has closed the connection.
    pub fn try_receive(&mut self) -> Option<Fragment> {
        let mut first = [0; 1];
        // A signal that arrives meanwhile means nothing.
        if let Err(error) = self.stream.read_exact(&mut first) {
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "a fragment in time: {error}");
            return None;
        }
        let second = self.read(1)[0];
        let len = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.read(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.read(8).try_into().expect("eight bytes")),
            len => u64::from(len),
        };
        assert_eq!(second & 0x80, 0, "a server masks nothing (RFC 6455 §5.1)");
        let payload = self.read(len as usize);
        let [first] = first;
        let (fin, reserved) = (first & 0x80 != 0, first >> 4 & 7);
        Some(Fragment { fin, reserved, opcode: first & 15, mask: None, payload })
    }

    /// Reads until the server's CLOSE; its code (1005 when it has none).
    pub fn close_code(&mut self) -> u16 {
        loop {
            let fragment = self.receive();
            if fragment.opcode == opcode::CLOSE {
                let code = fragment.payload.first_chunk::<2>();
                return code.map_or(1005, |code| u16::from_be_bytes(*code));
            }
        }
    }

    /// Reads until the server closes the connection.
    pub fn wait_for_end(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the server does not close the connection: {error}"),
            }
        }
    }

    /// Reads until a message satisfies `wanted`.
    pub fn receive_until(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            let fragment = self.receive();
            if fragment.opcode == opcode::BINARY && wanted(&fragment.payload) {
                return fragment.payload;
            }
            assert_ne!(fragment.opcode, opcode::CLOSE, "the server closed: {fragment:?}");
        }
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("the server sends in time");
        bytes
    }
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Fragment {
    /// A client's whole message of bytes.
    pub fn binary(payload: &[u8]) -> Fragment {
        Fragment::new(opcode::BINARY, payload)
    }

    /// A client's whole message.
    pub fn new(opcode: u8, payload: &[u8]) -> Fragment {
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        Fragment { fin: true, reserved: 0, opcode, mask, payload: payload.to_vec() }
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.payload.len() {
            len @ 0..126 => bytes.push(masked | len as u8),
            len @ 126..65_536 => {
                bytes.push(masked | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(masked | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.mask.into_iter().flatten());
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }
}
