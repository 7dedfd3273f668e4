//! How sessions share the one thread that moves all frames.

use std::time::Duration;
use tokio::time::Instant;

/// How long one session may work before others get their turn. In time, because that is what it takes
/// from them: a short frame costs as much as ten times its bytes in a long one.
pub const TURN: Duration = Duration::from_micros(250);

/// The time that one loop of a session has worked since it last let others work.
pub struct Turn {
    worked: Duration,
    /// When its last step began or ended.
    pub at: Instant,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn { worked: Duration::ZERO, at: Instant::now() }
    }
}

impl Turn {
    /// A step begins.
    pub fn begin(&mut self) {
        self.at = Instant::now();
    }

    /// How long it took since [`Turn::begin`].
    pub fn end(&mut self) -> Duration {
        let now = Instant::now();
        let took = now - self.at;
        (self.worked, self.at) = (self.worked + took, now);
        took
    }

    /// Whether others are to have their turn.
    pub fn is_over(&self) -> bool {
        self.worked >= TURN
    }

    /// If it is over, lets everybody else who is ready work, those first who have become so meanwhile:
    /// the runtime looks for events before it goes on with whom has yielded.
    pub async fn pass_on(&mut self) {
        if self.is_over() {
            self.worked = Duration::ZERO;
            tokio::task::yield_now().await;
        }
    }
}
