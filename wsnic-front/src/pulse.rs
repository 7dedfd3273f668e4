//! Signs of life: what ends a session for want of them, and the pings that ask for them.

use crate::end::{End, Lifetime};
use crate::outbox::Outbox;
use crate::rtt::Rtt;
use crate::ws::Opcode;
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// The first ping of a session: by then its guest has asked for an address.
const FIRST_PING: Duration = Duration::from_secs(1);
/// A client is asked this often how long it takes to answer, and after this much silence whether it is
/// there.
pub const PING_AFTER: Duration = Duration::from_secs(30);
/// A client that is silent for this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(100);
/// A client whose address another one wants has so long to show that it is there.
const CHALLENGE_LIMIT: Duration = Duration::from_secs(3);

/// That of one session.
pub struct Pulse {
    last_heard: Cell<Instant>,
    last_frame: Cell<Instant>,
    lifetime: Lifetime,
    /// Whether pings are sent without need.
    may_be_asked: Cell<bool>,
}

impl Pulse {
    /// Of a session that begins now.
    pub fn new(lifetime: Lifetime, now: Instant) -> Pulse {
        let (last_heard, last_frame) = (Cell::new(now), Cell::new(now));
        Pulse { last_heard, last_frame, lifetime, may_be_asked: Cell::new(true) }
    }

    /// The client does not know pings: it is only asked when it is silent and would be dropped anyway.
    pub fn ask_nothing(&self) {
        self.may_be_asked.set(false);
    }

    /// Something has come from the client, with a frame of its guest in it or not.
    pub fn heard(&self, now: Instant, with_frame: bool) {
        self.last_heard.set(now);
        if with_frame {
            self.last_frame.set(now);
        }
    }

    /// Returns when the session has lasted long enough, or its guest has been idle for too long.
    pub async fn watch_lifetime(&self) -> End {
        let Lifetime { ends, idle } = self.lifetime;
        loop {
            let idle_at = idle.map(|idle| self.last_frame.get() + idle);
            let Some(wake) = ends.into_iter().chain(idle_at).min() else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(wake).await;
            let now = Instant::now();
            if ends.is_some_and(|end| now >= end) {
                return End::Expired;
            }
            if idle.is_some_and(|idle| now >= self.last_frame.get() + idle) {
                return End::Idle;
            }
        }
    }

    /// Whether the client shows within [`CHALLENGE_LIMIT`] that it is there. Who may not be asked is:
    /// otherwise any guest could end the session of one that is only idle, and take its address.
    /// [`Pulse::watch_silence`] finds out when it is gone.
    pub async fn is_there(&self, outbox: &Outbox, rtt: &Rtt) -> bool {
        if !self.may_be_asked.get() {
            return true;
        }
        let heard = self.last_heard.get();
        outbox.post(Opcode::Ping, &rtt.ask(Instant::now().into_std()));
        tokio::time::sleep(CHALLENGE_LIMIT).await;
        self.last_heard.get() != heard
    }

    /// Asks the client now and then for the round trip, and when it is silent whether it is there; returns
    /// when it is gone.
    pub async fn watch_silence(&self, outbox: &Outbox, rtt: &Rtt) -> End {
        let may_be_asked = self.may_be_asked.get();
        let first = if may_be_asked { FIRST_PING } else { PING_AFTER };
        let mut wake = self.last_heard.get() + first;
        loop {
            tokio::time::sleep_until(wake).await;
            let (now, heard) = (Instant::now(), self.last_heard.get());
            if now >= heard + DEAD_AFTER {
                return End::Silent;
            }
            if may_be_asked || now >= heard + PING_AFTER {
                outbox.post(Opcode::Ping, &rtt.ask(now.into_std()));
                wake = (now + PING_AFTER).min(heard + DEAD_AFTER);
            } else {
                wake = heard + PING_AFTER;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// What a challenge says at once.
    fn challenge(pulse: &Pulse, outbox: &Outbox) -> Poll<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (_guard, rtt) = (runtime.enter(), Rtt::default());
        let is_there = pin!(pulse.is_there(outbox, &rtt));
        is_there.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_idle_client_that_knows_no_pings_is_there_when_another_wants_its_address() {
        let (pulse, outbox) = (Pulse::new(Lifetime::default(), Instant::now()), Outbox::default());
        assert_eq!(challenge(&pulse, &outbox), Poll::Pending, "others are asked");
        assert!(!outbox.into_bytes().is_empty(), "by a ping");
        let outbox = Outbox::default();
        pulse.ask_nothing();
        assert_eq!(challenge(&pulse, &outbox), Poll::Ready(true));
        assert!(outbox.into_bytes().is_empty(), "a ping would end it");
    }
}
