//! A server that does not run, opened for its signing keys: what is ordered here is stored and
//! audited as ever, and sent when the server runs again.

use std::path::Path;

use keyfall_api::admin as api;
use keyfall_protocol::ApiMisuse;
use keyfall_protocol::ids::KeyName;
use keyfall_protocol::server::{
    AuditEntry, By, Done, Input, Order, OrderId, Output, Refusal, Server,
};

use crate::admin::{self, OrderError};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::driver::Denied;
use crate::http::Refused;
use crate::key_drafts;
use crate::os_random::OsRandom;
use crate::run::{RunError, opened};
use crate::store::Store;

/// The store and the machine of a server that nobody runs.
#[derive(Debug)]
pub struct Stopped {
    machine: Server,
    store: Store,
    clock: Clock,
    actor: String,
}

/// Why an order to a stopped server was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// As the admin API would answer.
    #[error("{}", .0.sentence)]
    Refused(api::Problem),
    #[error("a fault in this program: {0}")]
    Misuse(#[from] ApiMisuse),
}

impl Stopped {
    /// Opens the server in `path` for `actor`.
    ///
    /// # Errors
    /// [`RunError`], as where the server runs.
    pub fn open(path: &Path, actor: String) -> Result<Self, RunError> {
        let directory = Directory::open(path)?;
        let (store, state, _) = opened(&directory)?;
        let clock = Clock::start();
        let mut stopped = Self {
            machine: state.start(clock.moment()),
            store,
            clock,
            actor,
        };
        stopped.feed(Input::Timeout)?;
        Ok(stopped)
    }

    /// The key that signs its lists of keys.
    #[must_use]
    pub fn root(&self) -> KeyName {
        self.machine.fleet().root.name()
    }

    /// Draws the next online keys and keeps them, for the root to sign.
    ///
    /// # Errors
    /// [`StoppedError::Refused`].
    pub fn draft_key_set(
        &mut self,
        order: &api::DraftKeySet,
    ) -> Result<api::KeySetDraft, StoppedError> {
        let by = admin::by(self.actor.clone(), &order.why)?;
        let wanted = admin::wanted(order)?;
        let at = self.clock.moment().wall;
        let drafted = key_drafts::draw_and_keep(&mut self.machine, &mut self.store, wanted, by, at);
        self.settle();
        Ok(drafted.map_err(OrderError::from)?)
    }

    /// Puts the drafted keys in force.
    ///
    /// # Errors
    /// [`StoppedError`].
    pub fn install_key_set(
        &mut self,
        order: &api::InstallKeySet,
    ) -> Result<api::KeySetInstalled, StoppedError> {
        let by = admin::by(self.actor.clone(), &order.why)?;
        let frame = admin::signed_frame(order)?;
        let octets = frame.len();
        let done = self.order(Order::InstallKeys { frame }, by)?;
        self.settle();
        Ok(key_drafts::installed(&self.machine, octets, done))
    }

    fn order(&mut self, order: Order, by: By) -> Result<Done, StoppedError> {
        let id = OrderId(1);
        let outcome = self.feed(Input::Order {
            id,
            order,
            by: by.clone(),
        })?;
        let refusal = match outcome {
            Some(Ok(done)) => return Ok(done),
            Some(Err(refusal)) => refusal,
            // The store cannot be written, and the order waits for that.
            None => Refusal::NotStored,
        };
        let noted = AuditEntry {
            at: self.clock.moment().wall,
            actor: by.actor,
            action: "sign-keys",
            subject: "online keys".to_owned(),
            outcome: format!("refused: {refusal}"),
            reason: by.reason,
            ticket: by.ticket,
        };
        if let Err(error) = self.store.note(&noted) {
            tracing::error!(%error, "a refusal could not be audited");
        }
        Err(OrderError::from(Denied::from(refusal)).into())
    }

    /// Feeds one input and stores what follows from it. Nothing is sent: what stands is announced
    /// by the next run.
    fn feed(&mut self, input: Input) -> Result<Option<Result<Done, Refusal>>, ApiMisuse> {
        let mut next = Some(input);
        let mut answer = None;
        while let Some(input) = next.take() {
            let at = self.clock.moment();
            self.machine.handle_input(at, &mut OsRandom, input)?;
            loop {
                match self.machine.poll_output() {
                    Output::Store(id) => {
                        let batch = self.machine.batch(id);
                        let stored =
                            batch.map(|batch| self.store.commit(batch, at.wall, &mut OsRandom));
                        next = Some(match stored {
                            Some(Ok(())) => Input::Stored(id),
                            Some(Err(error)) => {
                                tracing::error!(%error, "the store could not be written");
                                Input::NotStored(id)
                            }
                            None => Input::NotStored(id),
                        });
                    }
                    Output::Done { outcome, .. } => answer = Some(outcome),
                    Output::Transmit { .. } | Output::Send { .. } => {}
                    Output::Timeout { .. } => break,
                }
            }
        }
        Ok(answer)
    }

    /// What was replaced is then in no file any more.
    fn settle(&mut self) {
        if let Err(error) = self.store.settle() {
            tracing::warn!(%error, "the write-ahead log could not be emptied");
        }
    }
}

impl From<OrderError> for StoppedError {
    fn from(error: OrderError) -> Self {
        Self::Refused(Refused::from(error).into())
    }
}
