//! What signed commands do (FORMATS sections 2.1 to 2.4). Each rule has a row in docs/RULES.md.

mod authority;
mod distribution;
mod exclusion;
mod granted;
mod halting;
mod legacy;
mod notice;
mod record;
mod renewal;
mod time;

pub(super) use notice::Notified;

use crate::command::{
    Body, Command, HaltKind, ListedKey, OrderKind, SealedOrder, SignerClass, Target, Unverified,
    UnverifiedRecord, Verified,
};
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyName, UnixSeconds};
use crate::receipt::Receipt;
use crate::schedule::generation_bound;
use crate::stats::DropReason;
use crate::terminal::{EraseCause, Event, Terminal};

/// Who stands behind a verified command.
#[derive(Debug)]
pub(super) struct Authority {
    /// Of the class that the type asks for.
    signer: ListedKey,
    name: KeyName,
    /// The erase class signed, too.
    co_signed: bool,
}

impl Terminal {
    /// Looks first, verifies, then acts; whatever is wrong changes nothing (INVARIANT 4).
    pub(super) fn on_frame(&mut self, octets: &[u8]) -> Result<(), DropReason> {
        let Ok(frame) = Unverified::decode(octets) else {
            let record = UnverifiedRecord::decode(octets).map_err(|_| DropReason::Malformed)?;
            return self.on_record(record);
        };
        if let Err(reason) = self.look(frame.command()) {
            self.keep_unneeded(frame);
            return Err(reason);
        }
        if let Body::KeySet(_) = frame.command().body {
            return self.on_key_set(frame);
        }
        let (verified, authority) = self.authorise(frame)?;
        let command = verified.command();
        self.keep_for_others(command, octets);
        // What the erase class signs is signed once and repeated for months: the G in it is old, and
        // a stolen erase key of five years must not run the chain ahead.
        if authority.signer.class != SignerClass::Erase {
            self.step_fleet(command.fleet_generation);
        }
        match &command.body {
            Body::Time(time) => self.on_time(time, &authority),
            Body::Renew(renew) => self.on_renew_command(renew, command, &authority),
            Body::KeyDist(key_dist) => self.on_key_dist(key_dist, command, &authority),
            Body::Order(order) => self.on_sealed_order(order, &verified, &authority),
            Body::Exclude(exclude) => self.on_exclude(exclude, &authority),
            Body::KeySet(_) => Err(DropReason::KeySetNotNewer),
            Body::Stop(halt) => self.on_halt(HaltKind::Stop, halt, command, &authority),
            Body::Start(halt) => self.on_halt(HaltKind::Start, halt, command, &authority),
            Body::Notify(notify) => self.on_notice(notify, command, &authority),
        }
    }

    /// What costs no signature: repeats and what is for others end here (KR-010, KR-011).
    fn look(&self, command: &Command) -> Result<(), DropReason> {
        match &command.body {
            Body::KeyDist(_) if self.user.is_none() => Err(DropReason::Locked),
            Body::KeyDist(key_dist) if command.fleet_generation <= self.g => {
                self.place_in(key_dist, command.fleet_generation).map(drop)
            }
            Body::Renew(renew) if self.user.is_some() && command.fleet_generation <= self.g => {
                self.look_at_renewal(renew, command)
            }
            Body::KeySet(key_set) if key_set.version <= self.key_set.version => {
                Err(DropReason::KeySetNotNewer)
            }
            Body::Time(time) if time.seconds < self.time.mark() => Err(DropReason::TimeBackwards),
            Body::Order(order) if order.handle() != self.obey_handle => {
                Err(DropReason::NotAddressed)
            }
            Body::Exclude(exclude) if self.knows_exclusion(exclude) => Err(DropReason::NotNewer),
            Body::Stop(halt) => self
                .look_at_halt(HaltKind::Stop, halt, command.issued_at)
                .map(drop),
            Body::Start(halt) => self
                .look_at_halt(HaltKind::Start, halt, command.issued_at)
                .map(drop),
            Body::Notify(notify) => self.look_at_notice(notify, command),
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_) => Ok(()),
        }
    }

    /// Signers known, of the right class, enough of them, for that group, in their time; G within
    /// its bound; not past the end; then the signatures (KR-001 to KR-007).
    pub(super) fn authorise(
        &mut self,
        frame: Unverified<'_>,
    ) -> Result<(Verified, Authority), DropReason> {
        let command = frame.command();
        let class = command.body.signer_class().ok_or(DropReason::WrongClass)?;
        let mut signers = Vec::new();
        for name in frame.signers() {
            let key = self.key_set.key(name).ok_or(DropReason::UnknownSigner)?;
            signers.push((name, key.clone()));
        }
        let co_signed = enough(&command.body, class, self.erase_signatures(), &signers)?;
        for (_, signer) in &signers {
            let signed_in_time = (signer.not_before..=signer.expires).contains(&command.issued_at);
            if !signed_in_time || self.is_past(signer.expires) {
                return Err(DropReason::SignerExpired);
            }
        }
        if self.not_earlier_than() > command.not_after {
            return Err(DropReason::PastNotAfter);
        }
        let of_class = signers.into_iter().find(|(_, key)| key.class == class);
        let (name, signer) = of_class.ok_or(DropReason::WrongClass)?;
        if command.fleet_generation > self.key_set.fleet_schedule.bound(signer.expires) {
            return Err(DropReason::AboveBound);
        }
        if let Target::Group(group) = command.target {
            allowed(&signer, group)?;
        }
        if !self.verifications.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let key_set = &self.key_set;
        let verified = frame
            .verify_with(|name| key_set.key(name).map(|key| key.public))
            .ok_or(DropReason::BadSignature)?;
        if signer.class == SignerClass::Keys {
            self.time.corroborate(verified.command().issued_at);
        }
        let authority = Authority {
            signer,
            name,
            co_signed,
        };
        Ok((verified, authority))
    }

    fn erase_signatures(&self) -> usize {
        usize::from(self.key_set.limits.erase_signatures)
    }

    /// By the clock, or by the powered-on time since the KEYSET came, which was then at least as
    /// old as it says: a clock that is held back keeps no signing key alive (FORMATS section 10).
    fn is_past(&self, expires: UnixSeconds) -> bool {
        let left = u64::from(expires.since(self.key_set.issued_at));
        let passed = self.powered.charged().saturating_sub(self.key_set_at);
        self.not_earlier_than() > expires || passed > left
    }

    /// The time, or before the first beacon since power-on what is stored of it.
    pub(in crate::terminal) fn not_earlier_than(&self) -> UnixSeconds {
        let mark = self.time.mark();
        self.time().map_or(mark, |now| now.max(mark))
    }

    /// G is the server's statement in every verified command, and the root's schedule says
    /// it too. A locked terminal notes it.
    pub(super) fn step_fleet(&mut self, g: Generation) {
        let from = self.g;
        self.g = from.max(g);
        self.dirty |= self.g > from;
        let until = self.keep_end();
        let Some(user) = self.user.as_mut() else {
            return;
        };
        let target = self.g.plus(user.offset);
        if target > user.wrap.newest().generation() {
            user.renew_to(target, until);
            self.dirty = true;
        }
        if self.g > from {
            self.events.push(Event::FleetRenewed { from, to: self.g });
        }
    }

    fn on_sealed_order(
        &mut self,
        order: &SealedOrder,
        verified: &Verified,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let obey = self.obey.as_ref().ok_or(DropReason::NotAddressed)?;
        let contents = order.open(obey).ok_or(DropReason::DoesNotOpen)?;
        let receipt = contents
            .receipt_wanted
            .then(|| Receipt::make(self.identity.number, verified.frame_hash(), obey));
        let (version, issued_at) = (contents.version.unwrap_or(0), verified.command().issued_at);
        let by = (authority.name, authority.signer.expires);
        match contents.kind {
            OrderKind::Delete => self.erase(false, EraseCause::Delete, receipt),
            OrderKind::Init => self.erase(true, EraseCause::Init, receipt),
            OrderKind::Lock => self.on_lock(true, version, issued_at, by)?,
            OrderKind::Unlock => self.on_lock(false, version, issued_at, by)?,
        }
        Ok(())
    }
}

/// The signatures that a type asks for: one of its class; of the erase class as many as the root
/// wants; an EXCLUDE may carry one of the erase class beside its own. True where it does.
fn enough(
    body: &Body,
    class: SignerClass,
    erase_signatures: usize,
    signers: &[(KeyName, ListedKey)],
) -> Result<bool, DropReason> {
    let of = |class: SignerClass| signers.iter().filter(|(_, key)| key.class == class).count();
    let own = of(class);
    if own == 0 {
        return Err(DropReason::WrongClass);
    }
    match body {
        Body::Order(_) if own != signers.len() => Err(DropReason::WrongClass),
        Body::Order(_) if own < erase_signatures => Err(DropReason::TooFewSignatures),
        Body::Order(_) => Ok(false),
        Body::Exclude(_) => match (own, of(SignerClass::Erase)) {
            (1, 0) if signers.len() == 1 => Ok(false),
            (1, erase) if signers.len() == 1 + erase && erase >= erase_signatures => Ok(true),
            _ => Err(DropReason::WrongClass),
        },
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::KeySet(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => {
            if signers.len() == 1 {
                Ok(false)
            } else {
                Err(DropReason::WrongClass)
            }
        }
    }
}

/// KR-006: a signing key speaks for its groups only.
fn allowed(signer: &ListedKey, group: GroupNumber) -> Result<(), DropReason> {
    if signer.groups.is_empty() || signer.groups.contains(&group) {
        Ok(())
    } else {
        Err(DropReason::GroupNotAllowed)
    }
}

/// KR-008: epochs at most seconds since 2026-01-01 until exp, generations within their bound.
fn within_bound(epoch: KeyEpoch, generation: Generation, expires: UnixSeconds) -> bool {
    epoch.birth() <= expires && generation <= generation_bound(epoch, expires)
}
