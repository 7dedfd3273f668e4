//! A guest's own addresses: those that its frames come from, and the helper lets pass.
//!
//! Where a network has locks, the kernel drops every frame whose source has not been bound. So the first
//! frame from an address waits until the helper has bound it, which takes about a millisecond; all
//! others pass by one comparison. What the helper refuses is dropped here already, and asked for again
//! after a while at the earliest.

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
    /// What passed last.
    last: Cell<Option<Pair>>,
    /// What was bound, the oldest first.
    bound: RefCell<Vec<Pair>>,
    refused: RefCell<Vec<(Pair, Instant)>>,
}

impl Guest {
    /// A guest of whom nothing is known.
    pub fn new(helper: Rc<Helper>, port: PortId, generation: Generation, max_macs: usize) -> Guest {
        let (last, bound, refused) = Default::default();
        Guest { helper, port, generation, max_macs, last, bound, refused }
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
            _ => Passage::Unbound(pair),
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
        let is_anothers = |dhcp: &DhcpPort| !address.is_unspecified() && !dhcp.used(mac, address);
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
