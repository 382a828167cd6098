//! Public-key work, which others do: a driver's threads, the simulator at once. It never delays a
//! command.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::rng::Random;
use crate::sharing::{KemPublic, KemSecret, SealedToKem};

/// One piece of work. Run it anywhere, in any order, and feed what came of it.
pub struct Job {
    pub(super) number: u64,
    pub(super) task: Task,
}

pub(super) enum Task {
    /// The outer layer of a KEY-REQ.
    Open {
        key: Arc<KemSecret>,
        enc: Vec<u8>,
        ct: Vec<u8>,
    },
    /// The outer layer of a KEY-DIS.
    Seal {
        to: KemPublic,
        info: Vec<u8>,
        inner: Zeroizing<Vec<u8>>,
    },
}

/// What came of a [`Job`].
pub struct Worked {
    pub(super) number: u64,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    /// `None`: not for this server, or damaged.
    Opened(Option<Zeroizing<Vec<u8>>>),
    /// `None`: the other side's key is none.
    Sealed(Option<SealedToKem>),
}

impl Job {
    /// Does it.
    #[must_use]
    pub fn run(self, rng: &mut dyn Random) -> Worked {
        let outcome = match self.task {
            Task::Open { key, enc, ct } => Outcome::Opened(key.open(KEY_REQ_INFO, &enc, &ct)),
            Task::Seal { to, info, inner } => Outcome::Sealed(to.seal(&info, &inner, rng)),
        };
        Worked {
            number: self.number,
            outcome,
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({})", self.number)
    }
}

impl fmt::Debug for Worked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worked({})", self.number)
    }
}

const KEY_REQ_INFO: &[u8] = b"KF1/key-req";
