//! Holding back log lines that clients and guests can cause: a flood of them must not fill a disk.

use std::cell::Cell;
use std::time::{Duration, Instant};
use tracing::Level;
use tracing::level_filters::LevelFilter;

/// Lines per second in the long run.
const PER_SECOND: f64 = 20.0;
/// Lines at once, after a quiet time.
const BURST: f64 = 400.0;

/// How often it is said that lines were held back.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A bucket of log lines, shared by what those of one kind can cause: a flood of theirs holds back lines of
/// their kind and of no other.
#[derive(Debug)]
pub struct LogLimit {
    about: &'static str,
    tokens: Cell<f64>,
    filled: Cell<Instant>,
    held_back: Cell<u64>,
    reported: Cell<Instant>,
}

impl LogLimit {
    /// A full bucket; the log says so of lines `about` something when it holds some back.
    pub fn new(about: &'static str, now: Instant) -> LogLimit {
        LogLimit {
            about,
            tokens: Cell::new(BURST),
            filled: Cell::new(now),
            held_back: Cell::new(0),
            reported: Cell::new(now),
        }
    }

    /// True if a line may be written now, of level WARN or above, which the log always has. Says now and
    /// then how many were held back.
    pub fn allows(&self) -> bool {
        let (allowed, held_back) = self.at(Instant::now());
        if held_back > 0 {
            self.report(held_back);
        }
        allowed
    }

    /// The same for a line of any level. One that the log does not have takes nothing from the others.
    pub fn allows_at(&self, level: Level) -> bool {
        level <= LevelFilter::current() && self.allows()
    }

    fn report(&self, lines: u64) {
        tracing::warn!(lines, about = self.about, "log lines were held back");
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
            self.report(held_back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let now = Instant::now();
        let limit = LogLimit::new("tests", now);
        assert_eq!((0..1000).filter(|_| limit.at(now).0).count(), BURST as usize);
        assert_eq!(limit.at(now + Duration::from_secs(1)), (true, 0), "said only now and then");
        assert_eq!(limit.at(now + REPORT_EVERY), (true, 1000 - BURST as u64));
        assert_eq!(limit.at(now + REPORT_EVERY), (true, 0));
    }

    #[test]
    fn lines_that_the_log_does_not_have_take_nothing() {
        let log = tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(std::io::sink);
        tracing::subscriber::with_default(log.finish(), || {
            let limit = LogLimit::new("tests", Instant::now());
            assert!((0..1000).all(|_| !limit.allows_at(Level::DEBUG)));
            assert_eq!(limit.tokens.get(), BURST);
            assert_eq!(limit.held_back.get(), 0);
            assert!(limit.allows_at(Level::INFO) && limit.allows_at(Level::WARN));
        });
    }
}
