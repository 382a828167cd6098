//! What local programs ask on the control socket.

use std::path::Path;

use keyfall_api::control::{
    Answer, Collecting, ControlError, Passphrase, Protect, Refusal, RelayStatus, Request,
};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::terminal::{AskOutcome, EraseCause, Input};
use zeroize::Zeroizing;

use crate::committing::{Locks, Task};
use crate::control::Client;
use crate::driver::{Driver, RunError};
use crate::exporting::session_keys;
use crate::inspection::inspect;
use crate::key_store::{Guard, KeyStoreError, Protection, UnlockError};
use crate::media_relay::RelayNumber;
use crate::status::{status, why};
use crate::stored::LOCKED_BY_SERVER;

impl Driver {
    pub(super) fn on_request(&mut self, client: Client, request: Request) -> Result<(), RunError> {
        if let Some(deleted) = &self.deleted
            && !matches!(request, Request::Status {} | Request::Why {})
        {
            let sentence = format!("the keys were erased: {}", deleted.cause.sentence());
            client.refuse(Refusal::Deleted, sentence);
            return Ok(());
        }
        match request {
            Request::Status {} => client.tell(self.status_answer()),
            Request::Why {} => client.tell(Answer::Why(why(&self.terminal, self.clock.tick()))),
            Request::MediaSend(request) => {
                let begun = self
                    .relays
                    .start_send(&self.terminal, &self.interfaces, &request);
                match begun {
                    Ok((relay, feed)) => {
                        self.own(client, relay);
                        self.feed_all(vec![feed])?;
                    }
                    Err(error) => client.tell(Answer::Error(error)),
                }
            }
            Request::MediaReceive(request) => {
                let begun = self
                    .relays
                    .start_receive(&self.terminal, &self.interfaces, &request);
                match begun {
                    Ok(relay) => self.own(client, relay),
                    Err(error) => client.tell(Answer::Error(error)),
                }
            }
            Request::MediaParams { relay } => {
                let params = self.relays.params(&self.terminal, relay);
                client.tell(Answer::Params(params));
            }
            Request::PacketExport(request) => {
                let path = self.packets.running().map(|running| &running.path);
                let present =
                    |group| path.map_or_else(Default::default, |path| path.present(group));
                client.tell(session_keys(&self.terminal, &request, present));
            }
            Request::StockSenderExport(request) => {
                if let Some(order) = self.exporting.ask(&self.terminal, client, &request) {
                    self.feed(Input::Order(order))?;
                }
            }
            Request::Way { to } => self.tell_way(client, &to)?,
            Request::MediaStop { relay } => client.tell(match self.end_relay(relay) {
                Some(status) => Answer::Stopped(status),
                None => Answer::Error(ControlError {
                    refusal: Refusal::NoSuchRelay,
                    sentence: format!(
                        "no relay {relay} runs: `keyfall terminal status` lists those that do"
                    ),
                }),
            }),
            Request::Lock {} => self.lock(&client)?,
            Request::Unlock { passphrase } => self.unlock(client, passphrase),
            Request::Protect(request) => self.protect(client, request),
            Request::Inspect { octets, stretch } => {
                client.tell(inspect(&self.terminal, &octets, stretch).map_or_else(
                    |sentence| {
                        Answer::Error(ControlError {
                            refusal: Refusal::BadRequest,
                            sentence,
                        })
                    },
                    Answer::Inspected,
                ));
            }
        }
        Ok(())
    }

    fn lock(&mut self, client: &Client) -> Result<(), RunError> {
        if self.guard == Guard::Machine {
            let sentence = "there is no PIN or passphrase, so a lock would keep nobody out: set \
                            one with `keyfall terminal protect`";
            client.refuse(Refusal::NotProtected, sentence.to_owned());
            return Ok(());
        }
        self.feed(Input::Lock)?;
        client.tell(self.status_answer());
        Ok(())
    }

    fn unlock(&self, client: Client, passphrase: Passphrase) {
        if !self.terminal.is_locked() {
            client.tell(self.status_answer());
        } else if !self.terminal.may_unlock() {
            client.refuse(Refusal::LockedByServer, LOCKED_BY_SERVER.to_owned());
        } else {
            let asker = client.clone();
            let client = Some(client);
            self.take_on(&asker, Task::Unlock { client, passphrase });
        }
    }

    fn protect(&self, client: Client, request: Protect) {
        if !self.terminal.may_unlock() {
            client.refuse(Refusal::LockedByServer, LOCKED_BY_SERVER.to_owned());
            return;
        }
        let new = request.new.map(|new| {
            let passphrase = new.passphrase.expose().to_owned().into();
            let bound_secret = new.bound_secret.as_deref().map(Path::new);
            Protection::new(passphrase, bound_secret, new.tries)
        });
        match new.transpose() {
            Ok(new) => {
                let (asker, old) = (client.clone(), request.old);
                self.take_on(&asker, Task::Protect { client, old, new });
            }
            Err(error) => client.refuse(Refusal::BadPassphrase, error.to_string()),
        }
    }

    fn take_on(&self, asker: &Client, task: Task) {
        if !self.committer.take_on(task) {
            let sentence = "other passphrases are being checked: try again in a moment";
            asker.refuse(Refusal::TooMany, sentence.to_owned());
        }
    }

    /// A passphrase was checked. Whoever locked the terminal meanwhile is obeyed.
    pub(super) fn on_unlocked(
        &mut self,
        client: Option<&Client>,
        outcome: Result<Zeroizing<Vec<u8>>, UnlockError>,
        locks: Locks,
    ) -> Result<(), RunError> {
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(error) => return self.on_unlock_failed(client, &error),
        };
        if self.terminal.is_locked() {
            if locks != self.committer.locks() || !self.terminal.may_unlock() {
                self.committer.lock();
                if let Some(client) = client {
                    let sentence = "the terminal was locked again meanwhile".to_owned();
                    client.refuse(Refusal::Locked, sentence);
                }
                return Ok(());
            }
            self.feed(Input::Unlock(&snapshot))?;
        }
        if let Some(client) = client {
            client.tell(self.status_answer());
        }
        Ok(())
    }

    pub(super) fn on_protected(
        &mut self,
        client: &Client,
        outcome: Result<(), UnlockError>,
    ) -> Result<(), RunError> {
        match outcome {
            Ok(()) => {
                tracing::info!("the passphrase was set, changed or removed");
                client.tell(self.status_answer());
                Ok(())
            }
            Err(error) => self.on_unlock_failed(Some(client), &error),
        }
    }

    fn on_unlock_failed(
        &mut self,
        client: Option<&Client>,
        error: &UnlockError,
    ) -> Result<(), RunError> {
        tracing::warn!(%error, "the user compartment does not open");
        let refusal = match error {
            UnlockError::WrongPassphrase { .. } => Refusal::WrongPassphrase,
            UnlockError::Wiped | UnlockError::Store(KeyStoreError::Deleted { .. }) => {
                Refusal::Deleted
            }
            UnlockError::BoundSecret(_) | UnlockError::Memory | UnlockError::Store(_) => {
                Refusal::Locked
            }
        };
        if let Some(client) = client {
            client.refuse(refusal, error.to_string());
        }
        if matches!(error, UnlockError::Wiped) {
            self.feed(Input::Erase(EraseCause::Tries))?;
        }
        Ok(())
    }

    fn status_answer(&self) -> Answer {
        let mut status = status(&self.terminal, &self.guard);
        status.running = true;
        status.relays = self.relays.statuses().collect();
        status.carriers.clone_from(&self.carriers);
        status.frames = self.frames;
        status.packets = self.packets.status(&self.terminal);
        status.server = self
            .server_line
            .address()
            .map(|address| address.to_string());
        status.asking = self.server_line.is_known().then(|| {
            let last = self.last_ask.map_or("nothing yet", AskOutcome::name);
            let suite = self
                .terminal
                .asks_in()
                .map_or("no suite", SharingSuite::name);
            format!("{}; in {suite}; last: {last}", self.terminal.asks())
        });
        status.collecting = self.collector.as_ref().map(|collector| {
            let (confirmations, bundles) = collector.counts();
            Collecting {
                address: collector.address.to_string(),
                confirmations,
                bundles,
            }
        });
        status.store_failure.clone_from(&self.store_failure);
        status.memory_locked = Some(self.memory_locked);
        if let Some(deleted) = &self.deleted {
            if !self.erased {
                "erasing".clone_into(&mut status.state);
            }
            status.protection = "There is no key left.".to_owned();
            (status.tries_left, status.try_limit) = (None, None);
            status.deleted = Some(deleted.clone());
        }
        Answer::Status(Box::new(status))
    }

    /// The relay belongs to the client that started it.
    fn own(&mut self, client: Client, relay: RelayNumber) {
        if let Some(status) = self.relays.status_of(relay) {
            tracing::info!(group = status.group, "a media relay begins");
            client.tell(Answer::Started(status));
        }
        self.owners.insert(relay, client);
    }

    pub(super) fn end_relay(&mut self, relay: RelayNumber) -> Option<RelayStatus> {
        let status = self.relays.stop(relay)?;
        tracing::info!(
            group = status.group,
            packets = status.packets,
            "a media relay ends"
        );
        if let Some(owner) = self.owners.remove(&relay) {
            owner.tell(Answer::Ended(status.clone()));
        }
        Some(status)
    }
}
