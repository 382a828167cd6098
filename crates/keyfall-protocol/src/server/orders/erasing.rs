//! DELETE, INIT, LOCK, UNLOCK: drafted here, signed where the erase key is, brought back, and
//! perhaps proved (REQUIREMENTS, W-17).

use crate::command::{
    Body, Command, ListedKey, OrderContents, OrderKind, SealedOrder, SignerClass, Target,
    Unverified,
};
use crate::ids::{KeyEpoch, KeyName, TerminalNumber, UnixSeconds};
use crate::receipt::{Receipt, frame_hash};
use crate::rng::Random;
use crate::server::founding::ROOT_LIFE;
use crate::server::orders::Prepared;
use crate::server::{
    Batch, By, Change, Done, IssuedOrder, JournalEntry, Refusal, Server, TerminalRecord,
};

impl Server {
    /// The command that tells the terminal so, for the keys of the erase class to sign; it comes
    /// back in [`Order::Issue`](crate::server::Order::Issue). Uses up a sequence number.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed.
    pub fn draft_order(
        &mut self,
        terminal: TerminalNumber,
        kind: OrderKind,
        receipt_wanted: bool,
        rng: &mut dyn Random,
    ) -> Result<Command, Refusal> {
        let record = self.terminal(terminal)?;
        if self.is_lost(terminal) {
            return Err(Refusal::KeysLost(terminal));
        }
        if receipt_wanted && kind != OrderKind::Delete {
            return Err(Refusal::NoReceipt);
        }
        let wall = self.at.wall;
        // Whoever of them signs, the order does not outlive its signature's key.
        let expires = self
            .erase_keys()
            .map(|key| key.expires)
            .min()
            .ok_or(Refusal::NoEraseKey)?;
        let version = match kind {
            OrderKind::Delete | OrderKind::Init => None,
            OrderKind::Lock | OrderKind::Unlock => {
                let held = self.lock_version(record);
                Some(KeyEpoch::fresh(held.map(KeyEpoch::new), wall).get())
            }
        };
        let contents = OrderContents {
            terminal,
            kind,
            version,
            receipt_wanted,
        };
        let body = Body::Order(SealedOrder::seal(&contents, &record.obey, rng));
        self.draft(Target::Handles, body, wall.plus(ROOT_LIFE).min(expires))
    }

    /// What others sign has a number that no other command has.
    pub(super) fn draft(
        &mut self,
        target: Target,
        body: Body,
        not_after: UnixSeconds,
    ) -> Result<Command, Refusal> {
        if self.sequence >= self.fleet.sequence_reserved {
            return Err(Refusal::NotStored);
        }
        let sequence = self.sequence;
        self.sequence = sequence.plus(1);
        Ok(Command {
            stream: self.fleet.stream,
            sequence,
            issued_at: self.at.wall,
            not_after,
            target,
            body,
            fleet_generation: self.fleet.fleet_generation,
        })
    }

    pub(super) fn issue(&self, frame: Vec<u8>, by: By) -> Prepared {
        let (terminal, contents, not_after) = self.judge_signed(&frame)?;
        let (number, kind, version) = (terminal.number, contents.kind, contents.version);
        if version.is_some() && version <= self.lock_version(terminal) {
            return Err(Refusal::NotNewer(number));
        }
        let hash = frame_hash(&frame);
        let issued = IssuedOrder {
            kind,
            version,
            frame,
            hash,
            at: self.at.wall,
            not_after,
            receipt_wanted: contents.receipt_wanted,
            proved_at: None,
        };
        let outcome = format!("terminal {number}: {}, sent, not proved", kind.name());
        let batch = Batch {
            changes: vec![Change::Ordered {
                terminal: number,
                issued,
            }],
            audit: Some(self.audit(by, verb(kind), &terminal.name, outcome)),
            journal: Some(JournalEntry::Order {
                terminal: number,
                kind,
                version,
            }),
        };
        let done = Done::Issued {
            terminal: number,
            kind,
            hash,
        };
        Ok((batch, done))
    }

    /// The highest that a LOCK or UNLOCK to the terminal can have had.
    fn lock_version(&self, terminal: &TerminalRecord) -> Option<u32> {
        let held = terminal.lock().and_then(|lock| lock.version);
        let lost = Some(self.restored.floors.lock).filter(|&floor| floor > 0);
        held.max(lost)
    }

    /// Whom a signed frame is for and what it says, where terminals will obey it.
    fn judge_signed(
        &self,
        frame: &[u8],
    ) -> Result<(&TerminalRecord, OrderContents, UnixSeconds), Refusal> {
        let read = Unverified::decode(frame).map_err(|_| Refusal::NotAnOrder)?;
        let Body::Order(order) = &read.command().body else {
            return Err(Refusal::NotAnOrder);
        };
        let command = read.command();
        if command.stream != self.fleet.stream || command.target != Target::Handles {
            return Err(Refusal::NotAnOrder);
        }
        if self.at.wall > command.not_after {
            return Err(Refusal::OrderExpired);
        }
        let handle = order.handle();
        let (terminal, contents) = self
            .terminals
            .values()
            .filter(|terminal| terminal.obey.handle() == handle)
            .find_map(|terminal| Some((terminal, order.open(&terminal.obey)?)))
            .ok_or(Refusal::NotAnOrder)?;
        let (not_after, needed) = (
            command.not_after,
            self.fleet.key_set.limits.erase_signatures,
        );
        let listed = |name| self.erase_keys().find(|key| key.public.name() == name);
        for name in read.signers() {
            let key = listed(name).ok_or(Refusal::NotAnEraseKey(name))?;
            // Terminals ask whether it was in its time when the order was drafted.
            if !(key.not_before..=key.expires).contains(&command.issued_at) {
                return Err(Refusal::OlderThanItsKey(name));
            }
        }
        let verified = read
            .verify_with(|name| listed(name).map(|key| key.public))
            .ok_or(Refusal::BadSignature)?;
        let signed = verified.signers().len();
        if signed < usize::from(needed) {
            return Err(Refusal::TooFewSignatures { signed, needed });
        }
        Ok((terminal, contents, not_after))
    }

    pub(super) fn prove(&self, receipt: Receipt, by: By) -> Prepared {
        let number = receipt.terminal;
        let terminal = self.terminal(number)?;
        if !receipt.is_from(&terminal.obey) {
            return Err(Refusal::ForgedReceipt(number));
        }
        let order = terminal
            .orders
            .iter()
            .find(|order| order.hash == receipt.command)
            .ok_or(Refusal::ReceiptOfAnother(number))?;
        let (kind, wall) = (order.kind, self.at.wall);
        if let Some(at) = order.proved_at {
            return Err(Refusal::AlreadyProved { kind, at });
        }
        let outcome = format!("terminal {number}: {} proved", kind.name());
        let batch = Batch {
            changes: vec![Change::Proved {
                terminal: number,
                hash: order.hash,
                at: wall,
            }],
            audit: Some(self.audit(by, "receipt", &terminal.name, outcome)),
            journal: None,
        };
        let done = Done::Proved {
            terminal: number,
            kind,
            at: wall,
        };
        Ok((batch, done))
    }

    /// Whether a standing order is signed by as many keys as terminals ask for under this KEYSET.
    pub(super) fn is_still_obeyed(order: &IssuedOrder, erase: &[KeyName], needed: u8) -> bool {
        let Ok(read) = Unverified::decode(&order.frame) else {
            return false;
        };
        let mut signed = read.signers();
        signed.by_ref().all(|name| erase.contains(&name))
            && read.signers().count() >= usize::from(needed)
    }

    /// The keys of the erase class that are listed and valid now.
    fn erase_keys(&self) -> impl Iterator<Item = &ListedKey> {
        let wall = self.at.wall;
        self.fleet.key_set.keys.iter().filter(move |key| {
            key.class == SignerClass::Erase && key.not_before <= wall && wall < key.expires
        })
    }
}

/// The command line's word.
fn verb(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Delete => "delete-keys",
        OrderKind::Init => "initialize",
        OrderKind::Lock => "lock",
        OrderKind::Unlock => "unlock",
    }
}
