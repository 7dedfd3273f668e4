//! How long a client takes to answer: the round trip of the pings that a session sends.
//!
//! No I/O; the time is an argument. What waits for the client already goes before a ping, so that this
//! is what its guest's frames meet as well.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// That of one session.
#[derive(Debug, Default)]
pub struct Rtt {
    /// Pings so far; the payload of each is its number.
    count: Cell<u32>,
    /// When the last one was sent, if it is not answered.
    asked: Cell<Option<Instant>>,
    /// Microseconds that the last answer took.
    micros: Cell<u32>,
    /// When that came.
    answered: Cell<Option<Instant>>,
}

impl Rtt {
    /// A ping is sent now; its payload.
    pub fn ask(&self, now: Instant) -> [u8; 4] {
        let number = self.count.get().wrapping_add(1);
        self.count.set(number);
        self.asked.set(Some(now));
        number.to_be_bytes()
    }

    /// A pong has come with this payload. One that answers no ping, or an earlier one, says nothing
    /// (RFC 6455 §5.5.3).
    pub fn heard(&self, payload: &[u8], now: Instant) {
        if payload != self.count.get().to_be_bytes() {
            return;
        }
        if let Some(asked) = self.asked.take() {
            let micros = now.saturating_duration_since(asked).as_micros();
            self.micros.set(u32::try_from(micros).unwrap_or(u32::MAX));
            self.answered.set(Some(now));
        }
    }

    /// The last round trip, and how long ago it was measured.
    pub fn last(&self, now: Instant) -> Option<(Duration, Duration)> {
        let answered = self.answered.get()?;
        let took = Duration::from_micros(self.micros.get().into());
        Some((took, now.saturating_duration_since(answered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_the_round_trip_and_gets_old() {
        let (rtt, start) = (Rtt::default(), Instant::now());
        assert_eq!(rtt.last(start), None);
        let payload = rtt.ask(start);
        assert_eq!(rtt.last(start), None);
        rtt.heard(&payload, start + Duration::from_micros(1500));
        let later = start + Duration::from_secs(7);
        let (took, ago) = rtt.last(later).unwrap();
        assert_eq!((took.as_micros(), ago.as_secs()), (1500, 6));
    }

    #[test]
    fn pongs_that_answer_nothing_or_an_earlier_ping_say_nothing() {
        let (rtt, start) = (Rtt::default(), Instant::now());
        rtt.heard(&[0; 4], start);
        let first = rtt.ask(start);
        for wrong in [&b""[..], b"heartbeat", &[0; 4]] {
            rtt.heard(wrong, start);
        }
        let second = rtt.ask(start + Duration::from_secs(30));
        rtt.heard(&first, start + Duration::from_secs(31));
        assert_eq!(rtt.last(start), None);
        rtt.heard(&second, start + Duration::from_secs(32));
        // Not twice.
        rtt.heard(&second, start + Duration::from_secs(33));
        assert_eq!(rtt.last(start).unwrap().0, Duration::from_secs(2));
    }
}
