//! What keeps keys inside this process: no core dump, no reader of its memory, no swap, no copies on
//! stacks.

use std::hint::black_box;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{CapabilitySet, capabilities};
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

/// Keeps all memory of this process, also what it takes later, out of swap. Only where the system
/// sets no bound to it: under a bound that is reached later the process would end.
///
/// # Errors
/// [`MemoryNotLocked`]; keys may then be written to swap, and the caller says so.
pub fn lock_memory() -> Result<(), MemoryNotLocked> {
    let bound = getrlimit(Resource::Memlock);
    if let Some(maximum) = bound.maximum {
        let exempt =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
        if !exempt {
            return Err(MemoryNotLocked::Bound { octets: maximum });
        }
    } else if bound.current.is_some() {
        let unbounded = Rlimit {
            current: None,
            maximum: None,
        };
        setrlimit(Resource::Memlock, unbounded)
            .map_err(|errno| MemoryNotLocked::Refused(errno.into()))?;
    }
    // On fault: what is never touched takes no memory.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|errno| MemoryNotLocked::Refused(errno.into()))
}

/// Why memory may be written to swap.
#[derive(Debug, thiserror::Error)]
pub enum MemoryNotLocked {
    #[error(
        "this process may lock {octets} octets of memory only: set LimitMEMLOCK=infinity in its \
         unit, or switch swap off"
    )]
    Bound { octets: u64 },
    #[error("the system does not lock memory: {0}")]
    Refused(io::Error),
}

/// Overwrites 32 KiB of the stack below the caller, where keys that were moved or derived may have
/// left copies. For the end of each input, in each thread that touches keys; about 2 µs.
#[inline(never)]
pub fn scrub_stack() {
    let mut below = [0u64; 4096];
    below.zeroize();
    black_box(&below);
}
