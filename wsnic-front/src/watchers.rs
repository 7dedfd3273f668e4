//! Who looks at the frames of a guest that never reach the bridge: DHCP, which is answered here.
//!
//! For `wsnic capture`, which sees all other frames on the port. Costs nothing but where DHCP is
//! answered.

use std::cell::RefCell;
use std::time::SystemTime;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Frames that wait for one who looks; more are not shown to him.
const ROOM: usize = 64;

/// A frame that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// From the guest, or to it.
    pub from_guest: bool,
    /// When.
    pub time: SystemTime,
    /// The frame, without FCS.
    pub frame: Vec<u8>,
}

/// Those of one session. Everybody hears that it has ended when it is dropped.
#[derive(Debug, Default)]
pub struct Watchers(RefCell<Vec<Sender<Sighting>>>);

impl Watchers {
    /// One more.
    pub fn join(&self) -> Receiver<Sighting> {
        let (sender, receiver) = channel(ROOM);
        let mut all = self.0.borrow_mut();
        all.retain(|other| !other.is_closed());
        all.push(sender);
        receiver
    }

    /// Shows a frame to all.
    pub fn show(&self, from_guest: bool, frame: &[u8]) {
        for watcher in &*self.0.borrow() {
            let sighting = Sighting { from_guest, time: SystemTime::now(), frame: frame.to_vec() };
            // Who does not look, or too slowly, misses it.
            let _ = watcher.try_send(sighting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_look_see_a_frame_and_those_who_look_away_cost_nothing() {
        let watchers = Watchers::default();
        watchers.show(true, b"before");
        let (mut one, mut other, gone) = (watchers.join(), watchers.join(), watchers.join());
        drop(gone);
        watchers.show(false, b"frame");
        for watcher in [&mut one, &mut other] {
            let seen = watcher.try_recv().unwrap();
            assert_eq!((seen.from_guest, &seen.frame[..]), (false, &b"frame"[..]));
            assert!(watcher.try_recv().is_err());
        }
        drop(other);
        let _new = watchers.join();
        assert_eq!(watchers.0.borrow().len(), 2);
        for _ in 0..ROOM * 2 {
            watchers.show(true, b"flood");
        }
        drop(watchers);
        assert_eq!(std::iter::from_fn(|| one.blocking_recv()).count(), ROOM);
    }
}
