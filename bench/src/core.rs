//! Processors, for what depends on who runs where.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A processor that this program may run on.
#[derive(Debug, Clone, Copy)]
pub struct Core(usize);

impl Core {
    /// All that this program may run on, which it is still free to.
    pub fn all() -> Vec<Core> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("a thread runs somewhere");
        (0..CpuSet::count())
            .filter(|core| allowed.is_set(*core).unwrap_or(false))
            .map(Core)
            .collect()
    }

    /// Has a thread run here and nowhere else; 0 is the caller.
    pub fn holds(self, thread: i32) {
        hold(thread, &[self]);
    }
}

/// Has a thread run on some of the processors; 0 is the caller.
pub fn hold(thread: i32, cores: &[Core]) {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(core.0).expect("there is such a processor");
    }
    sched_setaffinity(Pid::from_raw(thread), &set).expect("the thread lives");
}
