//! Why and when sessions end, and what their clients are told.

use crate::framing::BadLength;
use crate::ws::{self, Violation};
use std::time::Duration;
use tokio::time::Instant;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client sent a close message, with this code.
    #[error("the client closed the session")]
    Closed(Option<u16>),
    /// The connection ended without one.
    #[error("the connection was lost")]
    Lost,
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The client's stream of frames is none.
    #[error("the client broke the framing: {0}")]
    Framing(#[from] BadLength),
    /// Nothing came from the client for too long, not even what keeps a session alive.
    #[error("the client is silent")]
    Silent,
    /// The time of the session is over.
    #[error("the session's time is over")]
    Expired,
    /// The guest has sent no frame for too long.
    #[error("the guest is idle")]
    Idle,
    /// The TAP is gone.
    #[error("the port was deleted")]
    PortLost,
    /// An operator has ended it.
    #[error("an operator ended the session")]
    Kicked,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Shutdown,
}

impl End {
    /// The code for the close message; None when nobody would read it.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            End::Closed(code) => Some(code.unwrap_or(ws::code::NORMAL)),
            End::Lost => None,
            End::Violation(violation) => Some(violation.close_code()),
            End::Framing(_) => Some(ws::code::PROTOCOL),
            End::Silent | End::Shutdown => Some(ws::code::GOING_AWAY),
            End::Expired | End::Idle | End::Kicked => Some(ws::code::POLICY),
            End::PortLost => Some(ws::code::INTERNAL),
        }
    }
}

/// How long a session may last; None: no end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifetime {
    /// The end, whatever happens.
    pub ends: Option<Instant>,
    /// The longest time without a frame of the guest.
    pub idle: Option<Duration>,
}
