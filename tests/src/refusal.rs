//! A kernel that lacks something: a program and all its children get EINVAL for one ioctl.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};
use std::mem::offset_of;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the kernel answer the ioctl `request` with EINVAL, as one does that does not know it, in
/// what `command` starts. Filters are inherited, and those that programs set themselves come on top.
pub fn refuse_ioctl(command: &mut Command, request: u32) {
    let refuse = move || {
        let load = |at: usize| filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at as u32);
        let skip_unless_equal =
            |skip, value| filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
        let answer = |value| filter(libc::BPF_RET | libc::BPF_K, 0, 0, value);
        let mut program = [
            load(offset_of!(libc::seccomp_data, nr)),
            skip_unless_equal(3, libc::SYS_ioctl as u32),
            // The lower half of the second argument: little-endian.
            load(offset_of!(libc::seccomp_data, args) + 8),
            skip_unless_equal(1, request),
            answer(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
            answer(libc::SECCOMP_RET_ALLOW),
        ];
        let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the program and its length belong together and live across the call.
        let done = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        };
        Errno::result(done).map(drop).map_err(Into::into)
    };
    // SAFETY: between fork and exec it only makes a system call, with memory of its own stack.
    unsafe { command.pre_exec(refuse) };
}

fn filter(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
