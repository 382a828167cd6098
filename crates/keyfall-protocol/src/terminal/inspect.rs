//! What a message is to this terminal, without obeying it: for people who look into captures.

use crate::command::{Body, KeyDist, OrderContents, Unverified};
use crate::ids::{Fingerprint, Generation, GroupNumber, KeyEpoch};
use crate::keys::{MasterKey, WrapKey};
use crate::terminal::Terminal;

/// What a frame is to a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameVerdict {
    pub signature: SignatureVerdict,
    pub sealed: SealedVerdict,
}

/// Who signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureVerdict {
    /// A listed key of the right class, or the root.
    Valid,
    /// A listed key that may not sign this type.
    WrongClass,
    Bad,
    UnknownSigner,
}

/// Whether what is sealed in it opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealedVerdict {
    /// Nothing in it is sealed.
    Nothing,
    /// It brings this key.
    Opens {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
        fingerprint: Fingerprint,
    },
    /// It is an order to this terminal.
    Order(OrderContents),
    NotAddressed,
    /// This terminal is locked and cannot tell.
    Locked,
    /// It is under a rank-1 generation that is wiped: nobody can tell any more for whom it was.
    Wiped,
}

impl Terminal {
    /// Looks at a frame with this terminal's keys; changes nothing and counts nothing.
    #[must_use]
    pub fn look_at(&self, frame: Unverified<'_>) -> FrameVerdict {
        let sealed = self.look_inside(&frame);
        FrameVerdict {
            signature: self.look_at_signature(frame),
            sealed,
        }
    }

    /// Every key of every group that fits the tag of a media packet, and for each group the newer
    /// generation that the tag may mean, derived in scratch.
    #[must_use]
    pub fn keys_that_fit(&self, tag: [u8; 3]) -> Vec<MasterKey> {
        let mut fitting = Vec::new();
        for group in self.user.iter().flat_map(|user| user.groups.values()) {
            let newest = group.ring.newest();
            let held = group.ring.all().filter(|key| key.tag() == tag);
            fitting.extend(held.map(MasterKey::duplicate));
            let ahead = u32::from(tag[2].wrapping_sub(newest.generation().low8()));
            if newest.tag()[..2] == tag[..2] && ahead > 0 {
                let claimed = newest.generation().plus(ahead);
                fitting.push(newest.duplicate().renew_to(claimed));
            }
        }
        fitting
    }

    fn look_at_signature(&self, frame: Unverified<'_>) -> SignatureVerdict {
        let root = self.identity.root;
        let Some(class) = frame.command().body.signer_class() else {
            return if frame.signer() != root.name() {
                SignatureVerdict::UnknownSigner
            } else if frame.verify(&root).is_some() {
                SignatureVerdict::Valid
            } else {
                SignatureVerdict::Bad
            };
        };
        let listed = |name| self.key_set.key(name);
        if !frame.signers().all(|name| listed(name).is_some()) {
            return SignatureVerdict::UnknownSigner;
        }
        let right_class = frame
            .signers()
            .filter_map(listed)
            .any(|key| key.class == class);
        match frame.verify_with(|name| listed(name).map(|key| key.public)) {
            Some(_) if right_class => SignatureVerdict::Valid,
            Some(_) => SignatureVerdict::WrongClass,
            None => SignatureVerdict::Bad,
        }
    }

    fn look_inside(&self, frame: &Unverified<'_>) -> SealedVerdict {
        match &frame.command().body {
            Body::KeyDist(key_dist) => {
                self.look_inside_key_dist(key_dist, frame.command().fleet_generation)
            }
            Body::Order(order) => self
                .obey
                .as_ref()
                .and_then(|obey| order.open(obey))
                .map_or(SealedVerdict::NotAddressed, SealedVerdict::Order),
            Body::Time(_)
            | Body::Renew(_)
            | Body::Exclude(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => SealedVerdict::Nothing,
        }
    }

    fn look_inside_key_dist(&self, key_dist: &KeyDist, g: Generation) -> SealedVerdict {
        let Some(user) = &self.user else {
            return SealedVerdict::Locked;
        };
        let newest = user.wrap.newest();
        let target = g.plus(user.offset);
        // A frame nobody has verified must not run the machine through a chain.
        let ahead = target.steps_from(newest.generation());
        let stepped = (1..=LOOK_AHEAD_MAX)
            .contains(&ahead)
            .then(|| newest.duplicate().renew_to(target));
        let opens = |key: &WrapKey| key_dist.open(key);
        let contents = user.wrap.all().chain(stepped.as_ref()).find_map(opens);
        match contents {
            Some(contents) => SealedVerdict::Opens {
                group: contents.key.group(),
                epoch: contents.key.epoch(),
                generation: contents.key.generation(),
                fingerprint: contents.key.fingerprint(),
            },
            None if target < newest.generation() => SealedVerdict::Wiped,
            None => SealedVerdict::NotAddressed,
        }
    }
}

/// Rank-1 generations that a look steps at the most: 65,536 take some tens of milliseconds.
const LOOK_AHEAD_MAX: u32 = 65_536;
