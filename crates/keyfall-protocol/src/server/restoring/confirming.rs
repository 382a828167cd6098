//! What a restore lost, in the words of the one who has to confirm it, and the confirmation.

use crate::calendar::Utc;
use crate::ids::TerminalNumber;
use crate::server::orders::Prepared;
use crate::server::restoring::gathered::Gathered;
use crate::server::restoring::{Restored, Since};
use crate::server::{Batch, By, Change, Done, Item, Refusal, Server, TerminalRecord};

impl Server {
    /// From now on everything is sent that stands (FORMATS section 12).
    pub(in crate::server) fn confirm(&self, by: By) -> Prepared {
        let held = self.restored.held.as_ref().ok_or(Refusal::NotHeld)?;
        let excluded = self
            .terminals
            .values()
            .filter(|terminal| terminal.excluded_at.is_some())
            .count();
        let outcome = format!(
            "restored at {}: {excluded} excluded, {} losses; sending begins",
            Utc(held.at),
            held.losses.len()
        );
        let restored = Restored {
            held: None,
            ..self.restored.clone()
        };
        let batch = Batch {
            changes: vec![Change::Restored(Box::new(restored))],
            audit: Some(self.audit(by, "confirm", "server", outcome)),
            journal: None,
        };
        Ok((batch, Done::Confirmed { excluded }))
    }

    /// Where sending begins, all that the restore changed is announced.
    pub(in crate::server) fn set_restored(&mut self, restored: Restored) {
        let begins = self.restored.held.is_some() && restored.held.is_none();
        self.restored = restored;
        if !begins {
            return;
        }
        let exclusions = self.exclusions.values().flat_map(|exclusion| {
            (0..exclusion.parts()).map(|part| Item::Exclude(exclusion.number, part))
        });
        let groups = self.groups.keys().copied().flat_map(|number| {
            let shards = (0..self.shards(number)).map(move |shard| Item::Dist(number, shard));
            std::iter::once(Item::Group(number)).chain(shards)
        });
        let items: Vec<_> = [Item::Time, Item::KeySet, Item::Fleet]
            .into_iter()
            .chain(exclusions)
            .chain(groups)
            .collect();
        for item in items {
            self.carousel.announce(item, self.at.now);
        }
        let records = self.standing_records().map(|(number, _)| number);
        self.tell_records(records.collect());
    }

    /// One sentence for each thing that was lost, with what is to be done.
    pub(super) fn losses(&self, since: &Since, gathered: &Gathered) -> Vec<String> {
        let mut losses = Vec::new();
        if gathered.incomplete {
            losses.extend(unknown_losses(since, gathered));
        }
        if let Some(version) = gathered.key_set {
            losses.push(format!(
                "KEYSET {version} was signed after the backup, and its online keys may be lost: make \
                 the next ones with `keyfall server sign-keys`"
            ));
        }
        for (&number, name) in &gathered.founded {
            losses.push(format!(
                "group {name} ({number}) was made after the backup: its key and its members are \
                 lost; make it again, under a new number"
            ));
        }
        for (&number, (name, at)) in &gathered.enrolled {
            let groups: Vec<_> = self
                .groups
                .values()
                .filter(|group| gathered.joined(group.number).any(|(it, _)| it == number))
                .map(|group| group.name.as_str())
                .collect();
            let of = if groups.is_empty() {
                String::new()
            } else {
                format!(", and add it to {} again", groups.join(" and "))
            };
            losses.push(format!(
                "terminal {name} ({number}) was enrolled at {}, after the backup, and its keys are \
                 lost: enrol it anew, under a new number{of}",
                Utc(*at)
            ));
        }
        let tokens = self.terminals.values().filter(|it| it.is_pending());
        for TerminalRecord { name, number, .. } in tokens.filter(|it| it.may_ask(self.at.wall)) {
            losses.push(format!(
                "the token of terminal {name} ({number}) may have been used after the backup, and is void: \
                 exclude it and add the device anew"
            ));
        }
        for (&(number, _), (kind, at)) in &gathered.orders {
            let what = if gathered.enrolled.contains_key(&number) {
                "is lost, and so are the terminal's keys: it can be excluded only"
            } else {
                "is lost with its signature: give it again"
            };
            losses.push(format!(
                "{} of {} for {} {what}",
                kind.name(),
                Utc(*at),
                self.shown(number, gathered)
            ));
        }
        losses
    }

    fn shown(&self, number: TerminalNumber, gathered: &Gathered) -> String {
        let known = self.terminals.get(&number).map(|record| &record.name);
        let name = known.or_else(|| gathered.enrolled.get(&number).map(|(name, _)| name));
        name.map_or_else(
            || format!("terminal {number}"),
            |name| format!("{name} ({number})"),
        )
    }
}

fn unknown_losses(since: &Since, gathered: &Gathered) -> Vec<String> {
    let newest = since.entries.iter().map(|(at, _)| *at).max();
    let known = Utc(newest.map_or(since.copied_at, |at| at.max(since.copied_at)));
    vec![
        format!(
            "the order journal is lost: what was ordered after {known} is not known; exclude again \
             whoever was excluded or removed since, before you confirm"
        ),
        format!(
            "terminals enrolled after {known} are not known and hear nothing new: enrol them anew; \
             their numbers are not used again, the next is {}",
            gathered.floors.terminal.saturating_add(1)
        ),
        format!(
            "a terminal whose key was renewed by `renew --device` after {known} hears nothing until \
             it is renewed so again"
        ),
        format!(
            "online keys that were signed after {known} are lost: make the next ones with `keyfall \
             server sign-keys`, and name again the stolen ones"
        ),
        "legacy sharing is off in every group, and no terminal's RSA key is registered: `keyfall admin \
         group set` and `admin terminal legacy-key` allow it again"
            .to_owned(),
        format!("DELETE, INIT, LOCK and UNLOCK given after {known} are lost: give them again"),
    ]
}
