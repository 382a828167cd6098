//! Public-key work, which others do: a driver's threads, the simulator at once. It never delays a
//! command.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::keys::MasterKey;
use crate::rng::Random;
use crate::sharing::rsa_misty1::{
    IdInformation, Request, RsaPublic, RsaSecret, Sealed, open_key_req, seal_key_dis,
};
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
    /// A KEY-REQ of the legacy suite.
    OpenLegacy { key: RsaSecret, key_req: Vec<u8> },
    /// A KEY-DIS of the legacy suite.
    SealLegacy {
        to: RsaPublic,
        key_req: Vec<u8>,
        nonce: [u8; 16],
        keys: Vec<MasterKey>,
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
    /// `None`: not for this server, or damaged.
    OpenedLegacy(Option<IdInformation>),
    /// `None`: so many keys do not fit.
    SealedLegacy(Option<Sealed>),
}

impl Job {
    /// Does it.
    #[must_use]
    pub fn run(self, rng: &mut dyn Random) -> Worked {
        let outcome = match self.task {
            Task::Open { key, enc, ct } => Outcome::Opened(key.open(KEY_REQ_INFO, &enc, &ct)),
            Task::Seal { to, info, inner } => Outcome::Sealed(to.seal(&info, &inner, rng)),
            Task::OpenLegacy { key, key_req } => {
                Outcome::OpenedLegacy(open_key_req(&key, &key_req))
            }
            Task::SealLegacy {
                to,
                key_req,
                nonce,
                keys,
            } => {
                let request = Request {
                    key_req: &key_req,
                    nonce,
                };
                Outcome::SealedLegacy(seal_key_dis(&to, request, &keys, rng).ok())
            }
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
