//! Holding back log lines that clients and guests can cause: a flood of them must not fill a disk.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lines per second in the long run.
const PER_SECOND: f64 = 20.0;
/// Lines at once, after a quiet time.
const BURST: f64 = 400.0;

/// How often it is said that lines were held back.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A bucket of log lines, shared by everything that clients can cause.
#[derive(Debug)]
pub struct LogLimit {
    tokens: Cell<f64>,
    filled: Cell<Instant>,
    held_back: Cell<u64>,
    reported: Cell<Instant>,
}

impl LogLimit {
    /// A full bucket.
    pub fn new(now: Instant) -> LogLimit {
        LogLimit {
            tokens: Cell::new(BURST),
            filled: Cell::new(now),
            held_back: Cell::new(0),
            reported: Cell::new(now),
        }
    }

    /// True if a line may be written now. Says now and then how many were held back.
    pub fn allows(&self) -> bool {
        let (allowed, held_back) = self.at(Instant::now());
        if held_back > 0 {
            tracing::warn!(lines = held_back, "log lines about clients were held back");
        }
        allowed
    }

    fn at(&self, now: Instant) -> (bool, u64) {
        let elapsed = now.saturating_duration_since(self.filled.replace(now));
        let tokens = (self.tokens.get() + elapsed.as_secs_f64() * PER_SECOND).min(BURST);
        let allowed = tokens >= 1.0;
        if allowed {
            self.tokens.set(tokens - 1.0);
        } else {
            self.tokens.set(tokens);
            self.held_back.set(self.held_back.get() + 1);
        }
        if now.saturating_duration_since(self.reported.get()) < REPORT_EVERY {
            return (allowed, 0);
        }
        self.reported.set(now);
        (allowed, self.held_back.take())
    }
}

impl Drop for LogLimit {
    fn drop(&mut self) {
        let held_back = self.held_back.take();
        if held_back > 0 {
            tracing::warn!(lines = held_back, "log lines about clients were held back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let now = Instant::now();
        let limit = LogLimit::new(now);
        assert_eq!((0..1000).filter(|_| limit.at(now).0).count(), BURST as usize);
        assert_eq!(limit.at(now + Duration::from_secs(1)), (true, 0), "said only now and then");
        assert_eq!(limit.at(now + REPORT_EVERY), (true, 1000 - BURST as u64));
        assert_eq!(limit.at(now + REPORT_EVERY), (true, 0));
    }
}
