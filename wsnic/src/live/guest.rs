//! One guest: a MAC address, a WebSocket, and what it has learnt.

use super::frames::{self, Lease, Seen, Way};
use super::line::{Line, Socket, ended};
use super::report::Trouble;
use dhcproto::v4::MessageType;
use futures_util::{SinkExt as _, StreamExt as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Error, Message};
use wsnic_proto::MacAddr;

/// A question is asked so often.
const TRIES: usize = 3;
/// An answer has this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// The server says goodbye within this.
const FAREWELL: Duration = Duration::from_secs(2);

/// A guest on a line.
pub struct Guest {
    socket: Socket,
    /// Its own address.
    pub mac: MacAddr,
    /// What it has got.
    pub lease: Option<Lease>,
}

impl Guest {
    /// Connects with a MAC address that nobody has.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(line: &Line) -> Result<Guest, Trouble> {
        let socket = line.connect().await?;
        let [_, mac @ ..] = random::<6>();
        // Locally administered, for one machine.
        let [a, b, c, d, e] = mac;
        Ok(Guest { socket, mac: MacAddr([0x02, a, b, c, d, e]), lease: None })
    }

    /// Its address; 0.0.0.0 before it has one.
    pub fn address(&self) -> Ipv4Addr {
        self.lease.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |lease| lease.address)
    }

    /// From this guest to somebody.
    pub fn way(&self, to: (MacAddr, Ipv4Addr)) -> Way {
        Way { from: (self.mac, self.address()), to }
    }

    /// Puts a frame on its way; [`Guest::flush`] makes sure of it.
    pub async fn feed(&mut self, frame: Vec<u8>) -> Result<(), Trouble> {
        let fed = self.socket.feed(Message::Binary(frame.into())).await;
        fed.map_err(|error| ended(&error, None))
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) -> Result<(), Trouble> {
        self.socket.flush().await.map_err(|error| ended(&error, None))
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), Trouble> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// The next frame; answers who asks for this guest's MAC address.
    ///
    /// Cancel safe, but for an answer that is lost.
    pub async fn receive(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            let frame = match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => frame,
                Some(Ok(Message::Close(close))) => {
                    let code = close.map(|close| close.code.into());
                    return Err(ended(&Error::ConnectionClosed, code));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(ended(&error, None)),
                None => return Err(ended(&Error::ConnectionClosed, None)),
            };
            if let Some(Seen::Arp { is_request: true, from, asked }) = frames::parse(&frame)
                && self.lease.is_some()
                && asked == self.address()
            {
                let reply = frames::arp_reply(self.way(from));
                self.send(reply).await?;
            }
            return Ok(frame.into());
        }
    }

    /// Sends a frame, up to three times, until one comes that `wanted` finds something in; also how
    /// long that took. None: nothing comes.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn ask<T>(
        &mut self,
        frame: &[u8],
        wanted: impl Fn(&Seen<'_>) -> Option<T>,
    ) -> Result<Option<(T, Duration)>, Trouble> {
        for _ in 0..TRIES {
            if let Some(found) = self.ask_once(frame, PATIENCE, &wanted).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// [`Guest::ask`], once.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn ask_once<T>(
        &mut self,
        frame: &[u8],
        patience: Duration,
        wanted: impl Fn(&Seen<'_>) -> Option<T>,
    ) -> Result<Option<(T, Duration)>, Trouble> {
        let started = Instant::now();
        self.send(frame.to_vec()).await?;
        let answer = async {
            loop {
                let frame = self.receive().await?;
                if let Some(found) = frames::parse(&frame).and_then(|seen| wanted(&seen)) {
                    return Ok((found, started.elapsed()));
                }
            }
        };
        timeout_at(started + patience, answer).await.ok().transpose()
    }

    /// Takes an address by DHCP; how long that took.
    ///
    /// # Errors
    /// Nobody gives one.
    pub async fn take_address(&mut self) -> Result<Duration, Trouble> {
        let unasked =
            || Trouble::new("the DHCP question cannot be encoded", "this is an error of wsnic");
        let xid = u32::from_be_bytes(random());
        let discover = frames::dhcp_ask(self.mac, xid, None).ok_or_else(unasked)?;
        let offer = self.ask(&discover, |seen| match frames::dhcp_answer(seen, xid)? {
            (MessageType::Offer, lease) => Some(lease),
            _ => None,
        });
        let Some((offer, offered)) = offer.await? else {
            return Err(Trouble::new(
                "nobody answers DHCP",
                "either dhcp_service is disabled, then guests need addresses set by hand; or every \
                 address is in use, then choose a larger subnet: the server's log says so",
            ));
        };
        let request = frames::dhcp_ask(self.mac, xid, Some(&offer)).ok_or_else(unasked)?;
        let answer = self.ask(&request, |seen| match frames::dhcp_answer(seen, xid)? {
            (kind @ (MessageType::Ack | MessageType::Nak), lease) => Some((kind, lease)),
            _ => None,
        });
        match answer.await? {
            Some(((MessageType::Ack, lease), taken)) => {
                self.lease = Some(lease);
                Ok(offered + taken)
            }
            answer => Err(Trouble::new(
                match answer {
                    Some(_) => "the DHCP server took its offer back",
                    None => "the DHCP server offers an address and does not give it",
                },
                "another DHCP server may be on the guests' network, or the address was just taken: test again",
            )),
        }
    }

    /// The MAC address of a neighbour, and how long it took; None: no answer.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn resolve(
        &mut self,
        whose: Ipv4Addr,
    ) -> Result<Option<(MacAddr, Duration)>, Trouble> {
        let question = frames::arp_request((self.mac, self.address()), whose);
        self.ask(&question, |seen| match seen {
            Seen::Arp { is_request: false, from: (mac, address), .. } if *address == whose => {
                Some(*mac)
            }
            _ => None,
        })
        .await
    }

    /// Gives the address back and hangs up. Whatever fails now, the server clears away.
    pub async fn leave(mut self) {
        let farewell = async {
            if let Some(lease) = &self.lease
                && let Some(release) =
                    frames::dhcp_release(self.mac, u32::from_be_bytes(random()), lease)
            {
                self.send(release).await?;
            }
            self.socket.close(None).await.map_err(|error| ended(&error, None))?;
            loop {
                self.receive().await?;
            }
        };
        let _: Result<Result<(), Trouble>, _> = timeout(FAREWELL, farewell).await;
    }
}

/// Bytes that nobody can guess.
pub fn random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    // Without a source of randomness two guests at once are mistaken for each other, no more.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}
