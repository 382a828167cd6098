//! What keeps keys inside this process: no core dump, no reader of its memory, no copies on stacks.

use std::hint::black_box;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroize;

/// Forbids core dumps, and memory access to other processes of the same user. Called once, before
/// any key is read.
///
/// # Errors
/// What the operating system says; keys are then as safe as without it, and the caller decides.
pub fn keep_memory_private() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Overwrites 32 KiB of the stack below the caller, where keys that were moved or derived may have
/// left copies. For the end of each input, in each thread that touches keys; about 2 µs.
#[inline(never)]
pub fn scrub_stack() {
    let mut below = [0u64; 4096];
    below.zeroize();
    black_box(&below);
}
