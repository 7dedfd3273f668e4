//! Which answer RFC 2131 §4.3 asks for.
//!
//! Called by the shuttle with each frame for which `Frame::is_to_dhcp_server` is true, in the
//! order in which they came. Does no I/O; the caller sends the reply, stores the lease and logs
//! the event.

use super::pool::{Pool, Refusal};
use super::reply::{self, Answer};
use super::request::{Malformed, Query};
use super::{Config, HostName, Lease, PortKey};
use dhcproto::v4::MessageType;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::AddAssign;
use wsnic_proto::{Frame, MacAddr};

/// The DHCP server of one network.
pub struct Server {
    config: Config,
    pool: Pool,
    answers: Answers,
}

/// Answers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// DHCPOFFER.
    pub offers: u64,
    /// DHCPACK.
    pub acks: u64,
    /// DHCPNAK.
    pub naks: u64,
    /// Guests that got none, because no address was left.
    pub exhausted: u64,
}

impl AddAssign for Answers {
    fn add_assign(&mut self, other: Answers) {
        self.offers += other.offers;
        self.acks += other.acks;
        self.naks += other.naks;
        self.exhausted += other.exhausted;
    }
}

/// What is to be done about one frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Ethernet frame for the guest that asked, and for nobody else.
    pub reply: Option<Vec<u8>>,
    /// For the log. A guest can cause any number of them.
    pub event: Option<Event>,
    /// For the lease file.
    pub lease: Option<Lease>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A guest got an address.
    Leased {
        /// Its hardware address.
        mac: MacAddr,
        /// Its address.
        address: Ipv4Addr,
        /// What it calls itself.
        host_name: Option<HostName>,
    },
    /// A guest's lease was extended.
    Renewed {
        /// Its hardware address.
        mac: MacAddr,
        /// Its address.
        address: Ipv4Addr,
    },
    /// A guest gave its address back.
    Released {
        /// Its hardware address.
        mac: MacAddr,
        /// The address.
        address: Ipv4Addr,
    },
    /// A guest says that somebody else uses the address that it was given.
    Declined {
        /// Its hardware address.
        mac: MacAddr,
        /// The address, which is set aside.
        address: Ipv4Addr,
    },
    /// A guest asked to keep an address that is not its own.
    Refused {
        /// Its hardware address.
        mac: MacAddr,
        /// The address.
        address: Ipv4Addr,
        /// Why.
        why: Refusal,
    },
    /// Every address of the pool is in use.
    Exhausted {
        /// The guest that got none.
        mac: MacAddr,
    },
    /// The frame is no DHCP message.
    Malformed(Malformed),
}

impl Server {
    /// A server that remembers `leases`, from [`super::LeaseFile::open`] or empty.
    pub fn new(config: Config, leases: Vec<Lease>) -> Server {
        let pool = Pool::new(config.plan, leases);
        Server { config, pool, answers: Answers::default() }
    }

    /// Answers `frame`, untagged, without FCS, from the guest on `port`; `now` in seconds since 1970.
    pub fn handle(&mut self, now: u64, port: PortKey, frame: &[u8]) -> Outcome {
        self.pool.tick(now);
        let query = match Frame::new(frame).map(Query::parse) {
            Some(Ok(Some(query))) => query,
            Some(Err(error)) => return Outcome::of(Event::Malformed(error)),
            Some(Ok(None)) | None => return Outcome::default(),
        };
        let gateway = self.config.plan.gateway();
        let relayed = !query.giaddr.is_unspecified();
        let to_us =
            [Ipv4Addr::BROADCAST, gateway, self.config.plan.broadcast()].contains(&query.to);
        if relayed || !to_us {
            return Outcome::default();
        }
        let for_another = query.server.is_some_and(|server| server != gateway);
        match query.message_type {
            MessageType::Discover => self.discover(now, port, &query),
            MessageType::Request if for_another => {
                self.pool.withdraw(port, query.mac);
                Outcome::default()
            }
            MessageType::Request => self.request(now, port, &query),
            MessageType::Decline if !for_another => self.decline(now, port, &query),
            MessageType::Release if !for_another => self.release(now, port, &query),
            MessageType::Inform => self.inform(&query),
            _ => Outcome::default(),
        }
    }

    /// Whether the guest on `port` may use `address`, which it may have been given or not; `now` in
    /// seconds since 1970. False: it is another's.
    pub fn may_use(&mut self, now: u64, port: PortKey, mac: MacAddr, address: Ipv4Addr) -> bool {
        self.pool.tick(now);
        self.pool.may_use(port, mac, address)
    }

    /// Notes that it uses it, if it may.
    pub fn used(&mut self, now: u64, port: PortKey, mac: MacAddr, address: Ipv4Addr) {
        self.pool.tick(now);
        self.pool.used(port, mac, address);
    }

    /// Notes that the session of `port` is over; `now` in seconds since 1970.
    pub fn port_closed(&mut self, now: u64, port: PortKey) {
        self.pool.tick(now);
        self.pool.close_port(now, port);
    }

    /// What was answered.
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// Addresses that are leased or offered, and addresses that there are.
    pub fn leases(&mut self, now: u64) -> (usize, u32) {
        self.pool.tick(now);
        self.pool.count()
    }

    /// Whether one more guest would get no address; `now` in seconds since 1970.
    pub fn is_exhausted(&mut self, now: u64) -> bool {
        self.pool.tick(now);
        self.pool.is_exhausted(now)
    }

    /// RFC 2131 §4.3.1.
    fn discover(&mut self, now: u64, port: PortKey, query: &Query) -> Outcome {
        match self.pool.offer(now, port, query.mac, query.requested) {
            Some(address) => {
                Outcome { reply: self.reply(query, Answer::Offer(address)), ..Outcome::default() }
            }
            None => {
                self.answers.exhausted += 1;
                Outcome::of(Event::Exhausted { mac: query.mac })
            }
        }
    }

    /// RFC 2131 §4.3.2. The only server of the network knows whose an address is not, so it
    /// refuses where one of several would be silent.
    fn request(&mut self, now: u64, port: PortKey, query: &Query) -> Outcome {
        let ciaddr = Some(query.ciaddr).filter(|address| !address.is_unspecified());
        // SELECTING and INIT-REBOOT name the address in option 50, RENEWING and REBINDING in ciaddr.
        let selecting = query.server.is_some();
        let named = if selecting { query.requested.or(ciaddr) } else { ciaddr.or(query.requested) };
        let Some(address) = named else {
            return Outcome::of(Event::Malformed(Malformed::NoAddress));
        };
        let mac = query.mac;
        let until = now.saturating_add(u64::from(self.config.lease_time));
        match self.pool.claim(port, mac, address, until, query.host_name.clone()) {
            Ok(lease) => {
                let host_name = lease.host_name.clone();
                let event = if selecting || ciaddr.is_none() {
                    Event::Leased { mac, address, host_name }
                } else {
                    Event::Renewed { mac, address }
                };
                let reply = self.reply(query, Answer::Lease(address));
                Outcome { reply, event: Some(event), lease: Some(lease) }
            }
            Err(why) => Outcome {
                reply: self.reply(query, Answer::Refusal),
                event: Some(Event::Refused { mac, address, why }),
                lease: None,
            },
        }
    }

    /// RFC 2131 §4.3.3.
    fn decline(&mut self, now: u64, port: PortKey, query: &Query) -> Outcome {
        let Some(address) = query.requested else {
            return Outcome::of(Event::Malformed(Malformed::NoAddress));
        };
        let Some(lease) = self.pool.decline(now, port, query.mac, address) else {
            return Outcome::default();
        };
        let event = Event::Declined { mac: query.mac, address };
        Outcome { reply: None, event: Some(event), lease: Some(lease) }
    }

    /// RFC 2131 §4.3.4.
    fn release(&mut self, now: u64, port: PortKey, query: &Query) -> Outcome {
        let Some(lease) = self.pool.release(now, port, query.mac, query.ciaddr) else {
            return Outcome::default();
        };
        let event = Event::Released { mac: query.mac, address: query.ciaddr };
        Outcome { reply: None, event: Some(event), lease: Some(lease) }
    }

    /// RFC 2131 §4.3.5. Some clients leave ciaddr empty and send from their address.
    fn inform(&mut self, query: &Query) -> Outcome {
        let address = if query.ciaddr.is_unspecified() { query.from } else { query.ciaddr };
        if !self.config.plan.subnet().contains(address) {
            return Outcome::default();
        }
        let reply = self.reply(query, Answer::Parameters(address));
        Outcome { reply, ..Outcome::default() }
    }

    fn reply(&mut self, query: &Query, answer: Answer) -> Option<Vec<u8>> {
        *match answer {
            Answer::Offer(_) => &mut self.answers.offers,
            Answer::Lease(_) | Answer::Parameters(_) => &mut self.answers.acks,
            Answer::Refusal => &mut self.answers.naks,
        } += 1;
        reply::frame(&self.config, query, answer)
    }

    /// The pool, for tests to look into.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Outcome {
    fn of(event: Event) -> Outcome {
        Outcome { event: Some(event), ..Outcome::default() }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Leased { mac, address, host_name: Some(name) } => {
                write!(f, "dhcp: leased mac={mac} address={address} host_name={name}")
            }
            Event::Leased { mac, address, host_name: None } => {
                write!(f, "dhcp: leased mac={mac} address={address}")
            }
            Event::Renewed { mac, address } => {
                write!(f, "dhcp: renewed mac={mac} address={address}")
            }
            Event::Released { mac, address } => {
                write!(f, "dhcp: released mac={mac} address={address}")
            }
            Event::Declined { mac, address } => {
                write!(f, "dhcp: address in use by another, set aside mac={mac} address={address}")
            }
            Event::Refused { mac, address, why } => {
                write!(f, "dhcp: refused mac={mac} address={address} reason=\"{why}\"")
            }
            Event::Exhausted { mac } => {
                write!(f, "dhcp: no address left, use a larger subnet mac={mac}")
            }
            Event::Malformed(error) => write!(f, "dhcp: message dropped reason=\"{error}\""),
        }
    }
}
