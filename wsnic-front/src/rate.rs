//! How much a guest may move in a second, and for how long it has to wait.
//!
//! Pure decision: the time is an argument. Each limit is kept as the moment at which what has passed
//! would be paid off at the limit's rate (the generic cell rate algorithm of ATM); it may lie ahead
//! of now by the burst. What has passed has passed: the wait comes behind it, so that no frame is
//! cut or judged before it is seen.

use std::time::{Duration, Instant};
use wsnic_proto::settings::Rate;

/// One direction of one session.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    burst: Duration,
    bytes_paid: Instant,
    frames_paid: Instant,
}

impl Limiter {
    /// None where there is no limit.
    pub fn new(rate: Rate, burst: Duration, now: Instant) -> Option<Limiter> {
        let limited = rate != Rate::default();
        limited.then_some(Limiter { rate, burst, bytes_paid: now, frames_paid: now })
    }

    /// Takes note of what has passed; returns how long nothing more may.
    pub fn passed(&mut self, bytes: u64, frames: u64, now: Instant) -> Duration {
        self.bytes_paid = self.bytes_paid.max(now) + price(bytes, self.rate.bytes);
        self.frames_paid = self.frames_paid.max(now) + price(frames, self.rate.frames);
        let paid = self.bytes_paid.max(self.frames_paid);
        paid.saturating_duration_since(now).saturating_sub(self.burst)
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
        assert_eq!(limiter.passed(100, 1, now), Duration::ZERO);
        assert_eq!(limiter.passed(500, 1, now), Duration::from_millis(500));
        let later = now + Duration::from_millis(550);
        assert_eq!(limiter.passed(50, 1, later), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_not_saved_up_beyond_the_burst() {
        let (mut limiter, now) = limiter(1000, 0);
        let later = now + Duration::from_secs(3600);
        assert_eq!(limiter.passed(1100, 1, later), Duration::from_secs(1));
    }

    #[test]
    fn the_stricter_of_bytes_and_frames_counts() {
        let (mut limiter, now) = limiter(1_000_000, 10);
        assert_eq!(limiter.passed(64, 11, now), Duration::from_secs(1));
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept_to_the_burst() {
        let (mut limiter, start) = limiter(10_000, 0);
        let (mut now, mut sent) = (start, 0_u64);
        while now < start + Duration::from_secs(10) {
            sent += 1514;
            now += limiter.passed(1514, 1, now) + Duration::from_millis(1);
        }
        assert!((100_000 - 2_000..=100_000 + 1_000 + 1514).contains(&sent), "{sent}");
    }
}
