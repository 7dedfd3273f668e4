//! A guest's own addresses: those that its frames come from, and the helper lets pass.
//!
//! Where a network has locks, the kernel drops every frame whose source has not been bound. So the first
//! frame from an address waits until the helper has bound it, which takes about a millisecond; all
//! others pass by one comparison. What a DHCP server on the bridge gives is bound when its answer comes
//! by. What the helper refuses is dropped here already, and asked for again after a while at the
//! earliest; and nobody asks for more than a few addresses in a second, whatever his frames say.

use crate::dhcp_port::DhcpPort;
use crate::helper::{Helper, OpenError};
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wsnic_proto::frame::Frame;
use wsnic_proto::{ErrorCode, Generation, MacAddr, PortId};

/// What was refused is not asked for again before.
const PAUSE: Duration = Duration::from_secs(1);
/// The one who has an address may just be leaving: it is asked for again so often, after this.
const TRIES: u32 = 15;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Addresses of each MAC address that the helper keeps in any case.
const MAX_ADDRESSES: usize = 4;
/// Refused addresses that are remembered.
const MAX_REFUSED: usize = 16;
/// Addresses that are asked for at once, and in a second in the long run: more than the helper binds.
const MAX_ASKED: f64 = 64.0;
const ASKED_PER_SECOND: f64 = 8.0;

/// Where a frame comes from; an unspecified address: nothing in it names one.
pub type Pair = (MacAddr, Ipv4Addr);

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It may pass.
    Free,
    /// It may not.
    Refused,
    /// Only when this is bound: see [`Guest::bind`].
    Unbound(Pair),
}

/// A port's guest.
pub struct Guest {
    helper: Rc<Helper>,
    port: PortId,
    generation: Generation,
    max_macs: usize,
    gateway: Ipv4Addr,
    /// What passed last.
    last: Cell<Option<Pair>>,
    /// What was bound, the oldest first.
    bound: RefCell<Vec<Pair>>,
    refused: RefCell<Vec<(Pair, Instant)>>,
    asks: Asks,
}

/// How many addresses may be asked for.
struct Asks {
    left: Cell<f64>,
    /// When that was so.
    since: Cell<Instant>,
}

impl Asks {
    fn new(now: Instant) -> Asks {
        Asks { left: Cell::new(MAX_ASKED), since: Cell::new(now) }
    }

    /// Whether one more may be asked for; counts it.
    fn take(&self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.since.replace(now));
        let left = (self.left.get() + time.as_secs_f64() * ASKED_PER_SECOND).min(MAX_ASKED);
        let may = left >= 1.0;
        self.left.set(if may { left - 1.0 } else { left });
        may
    }
}

impl Guest {
    /// A guest of whom nothing is known.
    pub fn new(
        helper: Rc<Helper>,
        (port, generation): (PortId, Generation),
        max_macs: usize,
        gateway: Ipv4Addr,
    ) -> Guest {
        let (last, bound, refused) = Default::default();
        let asks = Asks::new(Instant::now());
        Guest { helper, port, generation, max_macs, gateway, last, bound, refused, asks }
    }

    /// The address that this frame to DHCP clients, which comes from the bridge, gives to this guest;
    /// also one that it has had before, which the helper may have given to another since. Only the
    /// gateway's word counts: other guests cannot send such frames, and nobody beyond can send with the
    /// gateway's address.
    #[cold]
    pub fn given(&self, frame: Frame<'_>) -> Option<Pair> {
        let (server, pair) = leased(frame)?;
        let bound = self.bound.borrow();
        let is_ours = bound.iter().any(|(mac, _)| *mac == pair.0);
        (server == self.gateway && is_ours).then_some(pair)
    }

    /// Whether this frame may pass.
    pub fn passage(&self, frame: Frame<'_>) -> Passage {
        let Some(pair) = source(frame) else { return Passage::Refused };
        if self.last.get() == Some(pair) {
            return Passage::Free;
        }
        self.look_up(pair)
    }

    #[cold]
    fn look_up(&self, pair: Pair) -> Passage {
        // What names no address passes by its MAC address alone.
        let fits = |known: &Pair| *known == pair || (known.0 == pair.0 && pair.1.is_unspecified());
        if self.bound.borrow().iter().any(fits) {
            self.last.set(Some(pair));
            return Passage::Free;
        }
        match self.refused_for(pair) {
            Some(time) if time < PAUSE => Passage::Refused,
            _ if self.asks.take(Instant::now()) => Passage::Unbound(pair),
            _ => Passage::Refused,
        }
    }

    /// How long ago this was refused, if it was.
    fn refused_for(&self, pair: Pair) -> Option<Duration> {
        let refused = self.refused.borrow();
        refused.iter().rev().find(|(known, _)| *known == pair).map(|(_, when)| when.elapsed())
    }

    /// Asks the helper to let this pass, which DHCP may have just given; why not, if it does not.
    ///
    /// # Errors
    /// Somebody else has the address and keeps it, it is no guest's, or the helper is not there.
    pub async fn bind(
        &self,
        (mac, address): Pair,
        given: bool,
        dhcp: Option<&DhcpPort>,
        challenge: impl Fn(MacAddr),
    ) -> Result<(), OpenError> {
        let bound = self.ask((mac, address), given, dhcp, challenge).await;
        match &bound {
            Ok(()) => {
                if let Some(dhcp) = dhcp
                    && !address.is_unspecified()
                {
                    dhcp.used(mac, address);
                }
                self.remember((mac, address));
                self.last.set(Some((mac, address)));
            }
            Err(_) => {
                let mut refused = self.refused.borrow_mut();
                refused.retain(|(known, _)| *known != (mac, address));
                refused.push(((mac, address), Instant::now()));
                let excess = refused.len().saturating_sub(MAX_REFUSED);
                refused.drain(..excess);
            }
        }
        bound
    }

    async fn ask(
        &self,
        (mac, address): Pair,
        given: bool,
        dhcp: Option<&DhcpPort>,
        challenge: impl Fn(MacAddr),
    ) -> Result<(), OpenError> {
        let is_anothers =
            |dhcp: &DhcpPort| !address.is_unspecified() && !dhcp.may_use(mac, address);
        if dhcp.is_some_and(is_anothers) {
            return Err(ErrorCode::Taken.into());
        }
        let was_refused = self.refused_for((mac, address)).is_some();
        for tried in 1.. {
            match self.helper.bind(self.port, self.generation, (mac, address), given).await {
                Err(OpenError::Refused(ErrorCode::Taken)) if tried < TRIES && !was_refused => {
                    if tried == 1 {
                        challenge(mac);
                    }
                    sleep(BETWEEN_TRIES).await;
                }
                outcome => return outcome,
            }
        }
        Err(ErrorCode::Taken.into())
    }

    /// Where this may have taken the place of another at the helper, all others are forgotten: what
    /// comes again is asked for again, which costs little.
    fn remember(&self, (mac, address): Pair) {
        let mut all = self.bound.borrow_mut();
        all.retain(|known| *known != (mac, address));
        let mut macs: Vec<MacAddr> = all.iter().map(|pair| pair.0).collect();
        macs.dedup();
        let of_mac = macs.iter().filter(|known| **known == mac).count();
        let addresses = all.iter().filter(|pair| pair.0 == mac).count();
        if (of_mac == 0 && macs.len() >= self.max_macs) || addresses >= MAX_ADDRESSES {
            all.clear();
        }
        all.push((mac, address));
    }
}

/// Where a frame comes from; None for ARP with another sender than the frame's (RFC 826).
fn source(frame: Frame<'_>) -> Option<Pair> {
    let (mac, payload) = (frame.source(), frame.payload());
    let address = |at: usize| match payload.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ipv4Addr::new(a, b, c, d),
        _ => Ipv4Addr::UNSPECIFIED,
    };
    match frame.ethertype() {
        // Source address of IPv4, RFC 791 §3.1.
        0x0800 => Some((mac, address(12))),
        // Sender's addresses of ARP for IPv4 on Ethernet, RFC 826.
        0x0806 if payload.get(8..14) == Some(&mac.0[..]) => Some((mac, address(14))),
        0x0806 => None,
        _ => Some((mac, Ipv4Addr::UNSPECIFIED)),
    }
}

/// Of a DHCPACK (RFC 2131 §2, RFC 2132 §9.6) for Ethernet: the IPv4 source, and who gets which address.
fn leased(frame: Frame<'_>) -> Option<(Ipv4Addr, Pair)> {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let packet = frame.payload();
    let address = |bytes: &[u8]| Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?));
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let message = packet.get(header_len + 8..)?;
    let is_reply = message.get(..3)? == [2, 1, 6] && message.get(236..240)? == COOKIE;
    let mut options = message.get(240..)?;
    let kind = loop {
        match *options {
            [0, ref rest @ ..] => options = rest,
            [53, 1, kind, ..] => break kind,
            [255, ..] | [] | [_] => return None,
            [_, len, ref rest @ ..] => options = rest.get(usize::from(len)..)?,
        }
    };
    let (given, mac) = (address(message.get(16..)?)?, *message.get(28..)?.first_chunk::<6>()?);
    let is_lease = is_reply && kind == 5 && !given.is_unspecified();
    is_lease.then_some((address(packet.get(12..)?)?, (MacAddr(mac), given)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    /// A DHCP message from 10.0.0.1 that gives 10.0.0.5 to `MAC`.
    fn answer(kind: u8) -> Vec<u8> {
        let mut message = [[2, 1, 6, 0].as_slice(), &[0; 232], &[99, 130, 83, 99]].concat();
        message[16..20].copy_from_slice(&[10, 0, 0, 5]);
        message[28..34].copy_from_slice(&MAC.0);
        message.extend([0, 54, 4, 10, 0, 0, 1, 53, 1, kind, 255]);
        let ip = [[0x45].as_slice(), &[0; 11], &[10, 0, 0, 1, 255, 255, 255, 255]].concat();
        [&[0xff; 6], &[2; 6], &[8, 0][..], &ip, &[0, 67, 0, 68, 0, 0, 0, 0], &message].concat()
    }

    #[test]
    fn only_an_acknowledgement_gives_an_address() {
        let of = |kind| leased(Frame::new(&answer(kind)).unwrap());
        let given = (Ipv4Addr::new(10, 0, 0, 1), (MAC, Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(of(5), Some(given));
        assert_eq!(of(2), None, "an offer");
        assert_eq!(of(6), None, "a refusal");
    }

    #[test]
    fn a_few_addresses_are_asked_for_in_a_second_whatever_comes() {
        let now = Instant::now();
        let asks = Asks::new(now);
        let taken = |at| (0..1000).filter(|_| asks.take(at)).count();
        assert_eq!(taken(now), 64);
        assert_eq!(taken(now + Duration::from_secs(1)), 8);
        assert_eq!(taken(now + Duration::from_secs(1000)), 64);
    }

    proptest! {
        #[test]
        fn answers_that_are_cut_or_changed_are_read_without_panic(
            len in 0_usize..310, at in 14_usize..290, byte: u8,
        ) {
            let mut bytes = answer(5);
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.truncate(len);
            let _ = Frame::new(&bytes).map(leased);
        }
    }
}
