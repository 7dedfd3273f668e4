//! Closing the kernel: a list of the system calls that stay, seccomp(2).
//!
//! Whatever is not on the list ends the process. Calls without a check of their arguments cost next
//! to nothing, because the kernel remembers them (SECCOMP_CACHE, Linux 5.11): calls of the hot path
//! have none.

use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// What each Rust program on tokio does after its start: memory without code, waiting, time, the end.
///
/// rt_sigaction, rt_sigprocmask, getpid and gettid are for abort(3).
const BASE: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Looking at a file. Static programs have another C library (musl), which knows older calls too.
const LOOK: &[c_long] = &[
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    libc::SYS_stat,
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    libc::SYS_lstat,
];

/// Opening a file, with the number of the argument that has the flags.
const OPEN: &[(c_long, u8)] = &[
    (libc::SYS_openat, 2),
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    (libc::SYS_open, 1),
];

/// What an argument must be.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// This, as 32 bits.
    Is(u32),
    /// Without these bits, as 32 bits.
    Lacks(u32),
}

/// Why the kernel stays open.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The list cannot be made into a filter.
    #[error("this processor's system calls are not known")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("this kernel takes no seccomp filter for all threads")]
    Refused(#[from] seccompiler::Error),
}

/// The system calls that stay.
#[derive(Debug)]
pub struct Allowed(BTreeMap<c_long, Vec<SeccompRule>>);

impl Allowed {
    /// Those that every program needs; memory is mapped and protected without PROT_EXEC only, and
    /// signals reach this process only.
    pub fn base() -> Allowed {
        const NO_CODE: Check = Check::Lacks(libc::PROT_EXEC.cast_unsigned());
        Allowed(BTreeMap::new())
            .calls(BASE)
            .checked(libc::SYS_mmap, &[(2, NO_CODE)])
            .checked(libc::SYS_mprotect, &[(2, NO_CODE)])
            // The standard library's debug build asks whether what it closes is open.
            .checked(libc::SYS_fcntl, &[(1, Check::Is(libc::F_GETFD.cast_unsigned()))])
            .checked(libc::SYS_tgkill, &[(0, Check::Is(std::process::id()))])
    }

    /// Adds calls with any arguments.
    #[must_use]
    pub fn calls(mut self, calls: &[c_long]) -> Allowed {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
        self
    }

    /// Adds looking at files.
    #[must_use]
    pub fn looking(self) -> Allowed {
        self.calls(LOOK)
    }

    /// Adds opening files that exist.
    #[must_use]
    pub fn opening(self) -> Allowed {
        const NOTHING_NEW: Check = Check::Lacks(libc::O_CREAT.cast_unsigned());
        OPEN.iter()
            .fold(self, |allowed, (call, flags)| allowed.checked(*call, &[(*flags, NOTHING_NEW)]))
    }

    /// Adds a call whose arguments, counted from 0, pass all `checks`. Given twice, one set suffices.
    #[must_use]
    pub fn checked(mut self, call: c_long, checks: &[(u8, Check)]) -> Allowed {
        let conditions: Option<Vec<_>> = checks.iter().map(condition).collect();
        // The crate refuses no argument below the sixth, and no list that is not empty.
        if let Some(rule) = conditions.and_then(|conditions| SeccompRule::new(conditions).ok()) {
            self.0.entry(call).or_default().push(rule);
        }
        self
    }

    /// Ends this process, in all its threads, at any other call from now on.
    ///
    /// # Errors
    /// Nothing is closed.
    pub fn enforce(self) -> Result<(), SeccompError> {
        let filter = SeccompFilter::new(
            self.0,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into()?,
        )?;
        let program = BpfProgram::try_from(filter)?;
        Ok(apply_filter_all_threads(&program)?)
    }
}

/// From now on, requests to keep or change capabilities are answered as if they had been granted, in
/// this process and in those that it starts: a change of user takes all of them away. For a program
/// that would keep some, and gives up if it may not.
///
/// # Errors
/// Nothing has changed.
pub fn keep_no_capabilities() -> Result<(), SeccompError> {
    const GRANTED: u32 = 0;
    let none = Allowed(BTreeMap::new()).calls(&[libc::SYS_capset]);
    let pretended =
        none.checked(libc::SYS_prctl, &[(0, Check::Is(libc::PR_SET_KEEPCAPS.cast_unsigned()))]);
    let filter = SeccompFilter::new(
        pretended.0,
        SeccompAction::Allow,
        SeccompAction::Errno(GRANTED),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program = BpfProgram::try_from(filter)?;
    Ok(apply_filter_all_threads(&program)?)
}

fn condition((argument, check): &(u8, Check)) -> Option<SeccompCondition> {
    let (operator, value) = match check {
        Check::Is(value) => (SeccompCmpOp::Eq, *value),
        Check::Lacks(bits) => (SeccompCmpOp::MaskedEq(u64::from(*bits)), 0),
    };
    SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator, value.into()).ok()
}
