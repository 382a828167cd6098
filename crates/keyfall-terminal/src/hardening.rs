//! What keeps keys inside this process: no core dump, no reader of its memory, no copies on stacks.

use std::hint::black_box;
use std::io;

use zeroize::Zeroize;

/// Forbids core dumps, and memory access to other processes of the same user. Called once, before
/// any key is read.
///
/// # Errors
/// What the operating system says; keys are then as safe as without it, and the caller decides.
pub fn keep_memory_private() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    #[expect(
        unsafe_code,
        reason = "two system calls that take no pointer but to `none`"
    )]
    // SAFETY: `none` lives through the call; PR_SET_DUMPABLE takes numbers only.
    let (limited, private) = unsafe {
        (
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none),
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0),
        )
    };
    if limited == 0 && private == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Overwrites 32 KiB of the stack below the caller, where keys that were moved or derived may have
/// left copies. For the end of each input, in each thread that touches keys; about 2 µs.
#[inline(never)]
pub fn scrub_stack() {
    let mut below = [0u64; 4096];
    below.zeroize();
    black_box(&below);
}
