//! The helper protocol, version 1: every message that can pass between front-end and helper.
//!
//! One SOCK_SEQPACKET packet is one message. No message carries a string, a path, an interface
//! name or an interface index: the front-end cannot name anything in the kernel.

use crate::address::MacAddr;
use crate::rooms::RoomKey;
use bincode::{Decode, Encode};

/// First field of [`Request::Hello`].
pub const MAGIC: u32 = u32::from_be_bytes(*b"wsnc");
/// The only version there is.
pub const VERSION: u16 = 1;
/// Requests of one connection that may wait for their reply at the same time.
pub const MAX_IN_FLIGHT: usize = 64;

/// Chosen by the front-end; the reply carries it back.
pub type RequestId = u32;

/// A port's number ([`crate::ports`]); the TAP of port 7 is called wstap7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct PortId(pub u32);

/// How many times the slot has been opened; tells an old port from the new one in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Generation(pub u32);

/// From front-end to helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// The first message, once, within 2 s; and again after [`Reply::Resumed`].
    Hello {
        /// [`MAGIC`].
        magic: u32,
        /// Oldest version that the front-end speaks.
        min: u16,
        /// Newest version that the front-end speaks.
        max: u16,
    },
    /// Make a port on a network; answered by [`Reply::Opened`] with the TAP's fd, or [`Reply::Err`].
    Open {
        /// Names this request in the reply.
        req: RequestId,
        /// 0 is the network `default`; the others are in the order of their sections.
        network: u16,
    },
    /// Delete a port; answered by [`Reply::Done`] when it is gone.
    Close {
        /// Names this request in the reply.
        req: RequestId,
        /// The port.
        port: PortId,
        /// Its generation, from [`Reply::Opened`].
        generation: Generation,
    },
    /// Let these source addresses pass on a port; answered by [`Reply::Done`] when they do.
    Bind {
        /// Names this request in the reply.
        req: RequestId,
        /// The port.
        port: PortId,
        /// Its generation.
        generation: Generation,
        /// The guest's MAC address.
        mac: MacAddr,
        /// Its IPv4 address; 0.0.0.0: none.
        address: [u8; 4],
        /// Whether the address was given to this guest by DHCP: another port of the same connection
        /// that still has it loses it.
        given: bool,
    },
    /// Ask for [`Reply::Stats`].
    Stats {
        /// Names this request in the reply.
        req: RequestId,
    },
    /// Ask for [`Reply::Pong`].
    Ping {
        /// Names this request in the reply.
        req: RequestId,
    },
    /// Make a port in a room of a network that has rooms; answered as [`Request::Open`].
    OpenRoom {
        /// Names this request in the reply.
        req: RequestId,
        /// The network.
        network: u16,
        /// The room; made if nobody is in it.
        room: RoomKey,
    },
}

/// From helper to front-end: answers and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Answers [`Request::Hello`].
    Welcome {
        /// The version that both speak from now on.
        proto: u16,
        /// Ports that this connection may have open.
        max_ports: u32,
        /// MTU of the network `default`, bytes without Ethernet header.
        mtu: u16,
        /// Its bridge's IPv4 address.
        gateway: [u8; 4],
        /// Its bridge's MAC address.
        gateway_mac: MacAddr,
    },
    /// Answers [`Request::Open`]; the packet carries the TAP's fd, non-blocking, by SCM_RIGHTS.
    Opened {
        /// The request that this answers.
        req: RequestId,
        /// The new port.
        port: PortId,
        /// Its generation.
        generation: Generation,
        /// MTU of the port, bytes without Ethernet header.
        mtu: u16,
        /// TUN_F_* offloads that are on (linux/if_tun.h); 0 means plain frames without a header.
        offloads: u32,
        /// IPv4 address of the port's bridge.
        gateway: [u8; 4],
        /// MAC address of the port's bridge.
        gateway_mac: MacAddr,
    },
    /// Answers [`Request::Close`] and [`Request::Bind`].
    Done {
        /// The request that this answers.
        req: RequestId,
    },
    /// The request was understood and cannot be met.
    Err {
        /// The request that this answers.
        req: RequestId,
        /// Why.
        code: ErrorCode,
    },
    /// Answers [`Request::Stats`].
    Stats {
        /// The request that this answers.
        req: RequestId,
        /// Ports open on this connection.
        ports: u32,
        /// Ports open in all.
        ports_in_all: u32,
        /// Networks whose bridge is missing or down at the moment.
        broken: u32,
        /// Networks with dnsmasq whose gateway's address nobody answers questions at.
        silent: u32,
    },
    /// Answers [`Request::Ping`].
    Pong {
        /// The request that this answers.
        req: RequestId,
    },
    /// Event: the port is dead. It stays the front-end's until it sends [`Request::Close`].
    Revoked {
        /// The port.
        port: PortId,
        /// Its generation.
        generation: Generation,
        /// Why.
        reason: RevokeReason,
    },
    /// Event: the helper is about to stop; no more ports will be opened.
    Drain,
    /// Event: the helper was restarted and holds the same connection and ports. What was not
    /// answered before it is lost and may be asked again, behind a new [`Request::Hello`].
    Resumed,
}

/// Why a request cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, thiserror::Error)]
pub enum ErrorCode {
    /// `max_clients` ports are open.
    #[error("all ports are in use")]
    NoPortFree,
    /// More than `ports_per_second` opens.
    #[error("ports are being opened too fast")]
    TooFast,
    /// No network with this number.
    #[error("there is no such network")]
    NoSuchNetwork,
    /// The kernel refused; the helper's log says what.
    #[error("the kernel refused the port")]
    Kernel,
    /// The helper does not do this.
    #[error("the helper does not support this request")]
    Unsupported,
    /// The helper is stopping.
    #[error("the helper is stopping")]
    Stopping,
    /// `max_rooms` rooms are in use.
    #[error("all rooms are in use")]
    NoRoomFree,
    /// Another port of the network has the address.
    #[error("another guest has the address")]
    Taken,
    /// No guest may have the address.
    #[error("no guest may have the address")]
    NotAllowed,
}

/// Why a port died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum RevokeReason {
    /// Somebody deleted the interface.
    Deleted,
    /// The holder of the fd changed what it must not.
    Tampered,
    /// An operator closed the session.
    Operator,
}
