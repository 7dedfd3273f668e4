//! A guest whose frames the test writes and reads itself, through an independent WebSocket client.

use crate::Trust;
use crate::frames::{self, Dhcp, Mac};
use crate::lab::address::GATEWAY;
use crate::services::RUNTIME;
use crate::{LIMIT, Lab, Netns, Server};
use futures_util::{SinkExt, StreamExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// What a WebSocket runs on.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Line for T {}

/// A WebSocket with a MAC address and, after DHCP, an IPv4 address.
#[derive(Debug)]
pub struct RawGuest {
    socket: WebSocketStream<Box<dyn Line>>,
    /// The address that it sends from.
    pub mac: Mac,
    /// The address that it answers ARP for.
    pub ip: Ipv4Addr,
    /// What the server answered to the handshake.
    pub response: Response,
}

impl RawGuest {
    /// Connects to the server's default address.
    pub fn connect(lab: &Lab) -> RawGuest {
        RawGuest::connect_to(&lab.srv, Server::address(), "/", &[])
            .unwrap_or_else(|error| panic!("the server refuses a guest: {error}"))
    }

    /// Connects to this path of the server's default address, and takes an address by DHCP.
    pub fn join_at(lab: &Lab, path: &str) -> RawGuest {
        let mut guest = RawGuest::try_at(lab, path)
            .unwrap_or_else(|error| panic!("the server refuses a guest at {path}: {error}"));
        guest.dhcp();
        guest
    }

    /// Connects to this path of the server's default address.
    ///
    /// # Errors
    /// As [`RawGuest::connect_to`].
    pub fn try_at(lab: &Lab, path: &str) -> Result<RawGuest, Error> {
        RawGuest::connect_to(&lab.srv, Server::address(), path, &[])
    }

    /// Connects and takes an address by DHCP.
    pub fn join(lab: &Lab) -> RawGuest {
        let mut guest = RawGuest::connect(lab);
        guest.dhcp();
        guest
    }

    /// Connects from any namespace to any address, with any path and extra headers.
    ///
    /// # Errors
    /// When the handshake fails; [`Error::Http`] carries the server's answer.
    pub fn connect_to(
        netns: &Netns,
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<RawGuest, Error> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, http::HeaderValue::from_str(value)?);
        }
        let (socket, response) = open(netns, address, request, None)?;
        Ok(RawGuest { socket, mac: fresh_mac(), ip: Ipv4Addr::UNSPECIFIED, response })
    }

    /// Like [`RawGuest::connect_to`], by wss://.
    ///
    /// # Errors
    /// When either handshake fails.
    pub fn connect_tls(
        netns: &Netns,
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
        trust: &Trust,
    ) -> Result<RawGuest, Error> {
        let mut request = format!("wss://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, http::HeaderValue::from_str(value)?);
        }
        let (socket, response) = open(netns, address, request, Some(trust))?;
        Ok(RawGuest { socket, mac: fresh_mac(), ip: Ipv4Addr::UNSPECIFIED, response })
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        self.send_message(Message::Binary(frame.to_vec().into()));
    }

    /// Sends any message.
    pub fn send_message(&mut self, message: Message) {
        RUNTIME.block_on(self.socket.send(message)).expect("the server takes a message");
    }

    /// Sends many frames at once, without waiting for each to be written.
    pub fn send_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        RUNTIME.block_on(async {
            for frame in frames {
                self.socket.feed(Message::Binary(frame.into())).await.expect("room for a message");
            }
            self.socket.flush().await.expect("the server takes messages");
        });
    }

    /// Sends a broadcast frame of the local experimental EtherType.
    pub fn shout(&mut self, text: &str) {
        let frame =
            frames::ethernet(frames::BROADCAST, self.mac, frames::EXPERIMENTAL, text.as_bytes());
        self.send(&frame);
    }

    /// The next frame.
    ///
    /// # Panics
    /// When the server closes, or none comes in time.
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            match self.next() {
                Some(Message::Binary(frame)) => return frame.to_vec(),
                Some(Message::Text(text)) => panic!("the server sent text: {text}"),
                Some(Message::Close(close)) => panic!("the server closed: {close:?}"),
                None => panic!("the connection ended"),
                Some(_) => {}
            }
        }
    }

    /// The next frame, if one comes in time.
    ///
    /// # Panics
    /// When the server closes.
    pub fn receive_within(&mut self, time: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + time;
        loop {
            match self.next_before(end)?.expect("the connection is open") {
                Message::Binary(frame) => return Some(frame.to_vec()),
                Message::Close(close) => panic!("the server closed: {close:?}"),
                _ => {}
            }
        }
    }

    /// Receives, and answers ARP, until `wanted` makes something of a frame.
    pub fn receive_until<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        loop {
            let frame = self.receive();
            self.answer_arp(&frame);
            if let Some(value) = wanted(&frame) {
                return value;
            }
        }
    }

    /// Receives until somebody shouts `text`; every other frame that came before.
    pub fn hear(&mut self, text: &str) -> Vec<Vec<u8>> {
        let mut before = Vec::new();
        loop {
            let frame = self.receive();
            self.answer_arp(&frame);
            if frames::ethertype(&frame) == frames::EXPERIMENTAL
                && frame[14..].starts_with(text.as_bytes())
            {
                return before;
            }
            before.push(frame);
        }
    }

    /// Receives until the server's CLOSE; its code (1005 when it has none, 1006 when it never came).
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.next() {
                Some(Message::Close(Some(close))) => return close.code.into(),
                Some(Message::Close(None)) => return 1005,
                None => return 1006,
                Some(_) => {}
            }
        }
    }

    /// Takes an address by DHCP; returns the server's ACK.
    pub fn dhcp(&mut self) -> Dhcp {
        let offer =
            self.dhcp_ask(&Dhcp::new(1, self.mac).with(55, &[1, 3, 6, 15, 26, 28, 51, 54, 58, 59]));
        assert_eq!(offer.kind, 2, "an OFFER answers a DISCOVER: {offer:?}");
        let server = offer.option(54).expect("an OFFER names its server").to_vec();
        let request = Dhcp::new(3, self.mac)
            .with(50, &offer.yiaddr.octets())
            .with(54, &server)
            .with(55, &[1, 3, 6, 15, 26, 28, 51, 54, 58, 59]);
        let ack = self.dhcp_ask(&request);
        assert_eq!(ack.kind, 5, "an ACK answers a REQUEST: {ack:?}");
        self.ip = ack.yiaddr;
        ack
    }

    /// Sends a DHCP message and returns the answer.
    pub fn dhcp_ask(&mut self, message: &Dhcp) -> Dhcp {
        let mac = self.mac;
        self.send(&message.frame());
        self.receive_until(|frame| {
            Dhcp::parse(frame).filter(|answer| answer.chaddr == mac && answer.xid == message.xid)
        })
    }

    /// The MAC address of `whose`, by ARP.
    pub fn resolve(&mut self, whose: Ipv4Addr) -> Mac {
        let request = frames::arp_request(self.mac, self.ip, whose);
        self.ask(&request, |frame| match frames::parse_arp(frame) {
            Some((2, mac, sender, _)) if sender == whose => Some(mac),
            _ => None,
        })
    }

    /// Sends an echo request with `len` bytes to the gateway and waits for the answer.
    pub fn ping_gateway(&mut self, len: usize) {
        self.ping(GATEWAY, len);
    }

    /// Sends an echo request with `len` bytes to a host of its network and waits for the answer.
    pub fn ping(&mut self, whom: Ipv4Addr, len: usize) {
        static IDENTIFIER: AtomicU32 = AtomicU32::new(1);
        let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed) as u16;
        let mac = self.resolve(whom);
        let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let message = frames::echo_request(identifier, &data);
        let request = frames::ipv4(mac, self.mac, self.ip, whom, 1, &message);
        self.ask(&request, |frame| match frames::parse_ipv4(frame) {
            Some((from, _, 1, reply)) if from == whom => {
                (reply[0] == 0 && reply[4..6] == identifier.to_be_bytes() && reply[8..] == data)
                    .then_some(())
            }
            _ => None,
        });
    }

    /// Sends a frame, again every second as a network stack does, until `wanted` makes something
    /// of an answer.
    fn ask<T>(&mut self, request: &[u8], mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.send(request);
            let again = Instant::now() + Duration::from_secs(1);
            while let Some(message) = self.next_before(again) {
                let frame = match message {
                    Some(Message::Binary(frame)) => frame,
                    Some(Message::Close(close)) => panic!("the server closed: {close:?}"),
                    None => panic!("the connection ended"),
                    Some(_) => continue,
                };
                self.answer_arp(&frame);
                if let Some(value) = wanted(&frame) {
                    return value;
                }
            }
        }
        panic!("no answer to {request:02x?}");
    }

    /// Closes the WebSocket and waits for the server's answer.
    pub fn leave(mut self) {
        RUNTIME.block_on(async {
            self.socket.close(None).await.expect("the server takes a CLOSE");
            let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
            tokio::time::timeout(LIMIT, end).await.expect("the server answers a CLOSE");
        });
    }

    fn next(&mut self) -> Option<Message> {
        self.next_before(Instant::now() + LIMIT).expect("the server sends in time")
    }

    /// The next message, or None when the connection has ended; None when nothing comes in time.
    fn next_before(&mut self, end: Instant) -> Option<Option<Message>> {
        let next = async { tokio::time::timeout_at(end.into(), self.socket.next()).await };
        RUNTIME.block_on(next).ok().map(|message| message.and_then(Result::ok))
    }

    fn answer_arp(&mut self, frame: &[u8]) {
        if let Some((1, mac, sender, whose)) = frames::parse_arp(frame)
            && whose == self.ip
        {
            self.send(&frames::arp_reply(self.mac, whose, mac, sender));
        }
    }
}

/// Opens a WebSocket from a namespace.
pub(crate) fn open(
    netns: &Netns,
    address: SocketAddr,
    request: http::Request<()>,
    trust: Option<&Trust>,
) -> Result<(WebSocketStream<Box<dyn Line>>, Response), Error> {
    let stream = netns.enter(|| std::net::TcpStream::connect_timeout(&address, LIMIT))?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    RUNTIME.block_on(async {
        let stream = TcpStream::from_std(stream)?;
        let stream: Box<dyn Line> = match trust {
            None => Box::new(stream),
            Some(trust) => Box::new(trust.connect(stream).await?),
        };
        // The default buffer of 128 KiB is filled with zeros at every read.
        let config = WebSocketConfig::default().read_buffer_size(16 << 10);
        let handshake = client_async_with_config(request, stream, Some(config));
        tokio::time::timeout(LIMIT, handshake)
            .await
            .expect("the server answers a handshake in time")
    })
}

/// Locally administered, different for every guest of a test process.
fn fresh_mac() -> Mac {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, a, b, c] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [0x02, 0x86, 0x86, a, b, c]
}
