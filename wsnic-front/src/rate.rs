//! How much a guest may move in a second, and for how long it has to wait.
//!
//! Pure decision: the time is an argument. Each limit is kept as the moment at which what has passed
//! would be paid off at the limit's rate (the generic cell rate algorithm of ATM); it may lie ahead
//! of now by the burst. What has passed has passed: the wait comes behind it, so that no frame is
//! cut or judged before it is seen. What is taken at once is therefore half of the burst at most,
//! and the wait lasts until another half may come.

use std::time::{Duration, Instant};
use wsnic_proto::settings::Rate;

/// One direction of one session.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    /// Half of the burst.
    ahead: Duration,
    share: Share,
    bytes_paid: Instant,
    frames_paid: Instant,
}

/// How much may be taken at once: when this much is there, no more is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bytes.
    pub bytes: usize,
    /// Frames.
    pub frames: u64,
}

impl Share {
    /// Where there is no limit.
    pub const ALL: Share = Share { bytes: usize::MAX, frames: u64::MAX };
}

impl Limiter {
    /// None where there is no limit.
    pub fn new(rate: Rate, burst: Duration, now: Instant) -> Option<Limiter> {
        let ahead = burst / 2;
        let amount = |per_second: u32| match per_second {
            0 => u64::MAX,
            rate => (u128::from(rate) * ahead.as_millis() / 1000).max(1) as u64,
        };
        let bytes = usize::try_from(amount(rate.bytes)).unwrap_or(usize::MAX);
        let share = Share { bytes, frames: amount(rate.frames) };
        let limited = rate != Rate::default();
        limited.then_some(Limiter { rate, ahead, share, bytes_paid: now, frames_paid: now })
    }

    /// How much may be taken before [`Limiter::passed`] is told.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Takes note of what has passed; returns how long nothing more may.
    pub fn passed(&mut self, bytes: u64, frames: u64, now: Instant) -> Duration {
        self.bytes_paid = self.bytes_paid.max(now) + price(bytes, self.rate.bytes);
        self.frames_paid = self.frames_paid.max(now) + price(frames, self.rate.frames);
        let paid = self.bytes_paid.max(self.frames_paid);
        paid.saturating_duration_since(now).saturating_sub(self.ahead)
    }
}

/// The time in which a rate brings an amount; no rate brings it at once.
fn price(amount: u64, per_second: u32) -> Duration {
    match u64::from(per_second) {
        0 => Duration::ZERO,
        rate => Duration::from_nanos(amount.saturating_mul(1_000_000_000) / rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_millis(100);

    fn limiter(bytes: u32, frames: u32) -> (Limiter, Instant) {
        let now = Instant::now();
        (Limiter::new(Rate { bytes, frames }, BURST, now).unwrap(), now)
    }

    #[test]
    fn no_limit_is_no_limiter() {
        assert!(Limiter::new(Rate::default(), BURST, Instant::now()).is_none());
    }

    #[test]
    fn a_burst_passes_and_what_is_beyond_waits_for_its_time() {
        let (mut limiter, now) = limiter(1000, 0);
        assert_eq!(limiter.share(), Share { bytes: 50, frames: u64::MAX });
        assert_eq!(limiter.passed(50, 1, now), Duration::ZERO);
        assert_eq!(limiter.passed(50, 1, now), Duration::from_millis(50));
        assert_eq!(limiter.passed(500, 1, now), Duration::from_millis(550));
        let later = now + Duration::from_millis(600);
        assert_eq!(limiter.passed(50, 1, later), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_not_saved_up_beyond_the_burst() {
        let (mut limiter, now) = limiter(1000, 0);
        let later = now + Duration::from_secs(3600);
        assert_eq!(limiter.passed(1050, 1, later), Duration::from_secs(1));
    }

    #[test]
    fn the_stricter_of_bytes_and_frames_counts() {
        let (mut limiter, now) = limiter(1_000_000, 20);
        assert_eq!(limiter.share(), Share { bytes: 50_000, frames: 1 });
        assert_eq!(limiter.passed(64, 21, now), Duration::from_secs(1));
    }

    #[test]
    fn something_may_always_be_taken() {
        let limiter = Limiter::new(Rate { bytes: 1, frames: 1 }, BURST / 100, Instant::now());
        assert_eq!(limiter.unwrap().share(), Share { bytes: 1, frames: 1 });
        let limiter =
            Limiter::new(Rate { bytes: u32::MAX, frames: 0 }, BURST * 600, Instant::now());
        assert_eq!(limiter.unwrap().share().bytes as u64, u64::from(u32::MAX) * 30);
    }

    #[test]
    fn at_no_time_has_more_passed_than_the_rate_and_the_burst() {
        let (mut limiter, start) = limiter(10_000, 0);
        let (mut now, mut sent) = (start, 0_u64);
        let share = limiter.share().bytes as u64;
        while now < start + Duration::from_secs(10) {
            sent += share;
            let wait = limiter.passed(share, 1, now);
            let allowed = 10 * (now - start).as_millis() as u64 + 1000;
            assert!(sent <= allowed, "{sent} bytes after {:?}", now - start);
            now += wait;
        }
        assert!(sent >= 100_000, "{sent}");
    }
}
