//! Keeps the queue towards a slow guest short: which frames are dropped so that senders slow down.
//!
//! Pure decision: the time is an argument. A TAP's queue is counted in packets, and with offloads
//! 500 of them are up to 32 MiB: a sender of TCP that only loss slows down fills it, and on a slow
//! line everything else then waits for seconds. So this drops a single frame now and then, more
//! often the longer that does not help (CoDel, RFC 8289). How long a packet has waited in the TAP
//! nobody says; what counts instead is that the client lets a batch wait while the TAP, read for the
//! next one, holds more than that. A client that keeps up is never touched, nor one whose TAP runs
//! empty.

use std::time::{Duration, Instant};

/// What is no wait: CoDel's target. A batch of 64 KiB takes that long at 100 Mbit/s.
const TARGET: Duration = Duration::from_millis(5);
/// For how long a queue may stand: CoDel's interval, the round trip of a long way.
const INTERVAL: Duration = Duration::from_millis(100);
/// More are not dropped from one batch, so that something always gets through.
const MOST: u32 = 8;

/// The queue of one session.
#[derive(Debug, Default)]
pub struct Codel {
    /// Since when the queue has been standing.
    since: Option<Instant>,
    /// When the next frame is due, and how many have been.
    next: Option<Instant>,
    count: u32,
}

impl Codel {
    /// Takes note of a batch: how long it was held up, and whether the TAP was empty behind it.
    /// Returns how many frames of the next batch are to be dropped.
    pub fn batch(&mut self, waited: Duration, drained: bool, now: Instant) -> u32 {
        if drained || waited < TARGET {
            (self.since, self.next) = (None, None);
            return 0;
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < INTERVAL {
            return 0;
        }
        let mut next = self.next.unwrap_or_else(|| {
            // What it came to before is where it begins, if the queue is back at once; see RFC 8289
            // §4.3. A queue that has been away for long has forgotten.
            self.count = self.count.saturating_sub(2).min(64);
            now
        });
        let mut due = 0;
        while now >= next && due < MOST {
            due += 1;
            self.count += 1;
            next += INTERVAL.div_f64(f64::from(self.count).sqrt());
        }
        // What could not be dropped by now is not made up for.
        self.next = Some(next.max(now));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(50);

    /// Frames that are dropped in a time in which a batch is held up by 50 ms each.
    fn dropped(codel: &mut Codel, start: Instant, batches: u32) -> u32 {
        (0..batches).map(|batch| codel.batch(WAIT, false, start + WAIT * batch)).sum()
    }

    #[test]
    fn a_client_that_keeps_up_loses_nothing() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        for step in 0..100_000 {
            let now = start + Duration::from_micros(100) * step;
            assert_eq!(codel.batch(Duration::from_micros(99), false, now), 0);
        }
    }

    #[test]
    fn a_queue_that_runs_empty_loses_nothing() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        for step in 0..1000 {
            let drained = step % 2 == 0;
            assert_eq!(codel.batch(WAIT, drained, start + WAIT * step), 0);
        }
    }

    #[test]
    fn a_queue_that_stands_loses_frames_more_and_more_often() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        assert_eq!(dropped(&mut codel, start, 2), 0);
        let first = dropped(&mut codel, start + WAIT * 2, 20);
        let second = dropped(&mut codel, start + WAIT * 22, 20);
        assert!((10..60).contains(&first), "{first} in the first second");
        assert!(second > first, "{second} in the next");
    }

    #[test]
    fn when_it_has_run_empty_it_may_stand_again_for_an_interval() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        dropped(&mut codel, start, 40);
        assert_eq!(codel.batch(WAIT, true, start + WAIT * 40), 0);
        assert_eq!(dropped(&mut codel, start + WAIT * 41, 2), 0);
        assert_ne!(dropped(&mut codel, start + WAIT * 43, 1), 0);
    }

    #[test]
    fn from_no_batch_more_is_dropped_than_gets_through() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        let minute = Duration::from_secs(60);
        for batch in 0..100 {
            assert!(codel.batch(minute, false, start + minute * batch) <= MOST);
        }
    }
}
