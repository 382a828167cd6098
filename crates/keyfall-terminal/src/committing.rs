//! The thread that owns the key store: one commit at a time, always the newest snapshot.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyfall_protocol::terminal::StoreId;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::driver::Waking;
use crate::hardening::scrub_stack;
use crate::key_store::{KeyStore, KeyStoreError};
use crate::os_random::OsRandom;

/// The driver's end of the thread. Dropping it ends the thread after what was asked last is durable,
/// or has failed once.
pub(crate) struct Committer {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<Result<(), KeyStoreError>>>,
}

/// Where the driver leaves the newest snapshot.
#[derive(Default)]
struct Desk {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Default)]
struct Order {
    newest: Option<(StoreId, Zeroizing<Vec<u8>>)>,
    closing: bool,
}

impl Committer {
    /// `wakings` gets [`Waking::Stored`] for each commit and [`Waking::StoreFailed`] for each that
    /// failed; those are tried again each second.
    pub(crate) fn start(store: KeyStore, wakings: mpsc::Sender<Waking>) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let thread = {
            let desk = Arc::clone(&desk);
            thread::Builder::new()
                .name("key-store".into())
                .stack_size(256 * 1024)
                .spawn(move || desk.commit_all(store, &wakings))?
        };
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// Makes `snapshot` durable instead of any that still waits.
    pub(crate) fn commit(&self, id: StoreId, snapshot: Zeroizing<Vec<u8>>) {
        self.desk.order().newest = Some((id, snapshot));
        self.desk.changed.notify_one();
    }

    /// Ends the thread after what was asked last is durable.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn finish(&mut self) -> Result<(), KeyStoreError> {
        self.desk.order().closing = true;
        self.desk.changed.notify_one();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => {
                tracing::error!("the thread of the key store ended with a fault");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the last snapshot was not stored");
        }
    }
}

impl Desk {
    fn order(&self) -> MutexGuard<'_, Order> {
        // The order is whole at every moment: a panic elsewhere cannot have halved it.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_all(
        &self,
        mut store: KeyStore,
        wakings: &mpsc::Sender<Waking>,
    ) -> Result<(), KeyStoreError> {
        let mut failed = false;
        loop {
            let Some((id, snapshot)) = self.next(failed) else {
                return Ok(());
            };
            let outcome = store.commit(&mut OsRandom, &snapshot);
            scrub_stack();
            failed = outcome.is_err();
            let waking = match outcome {
                Ok(()) => Waking::Stored(id),
                Err(error) => {
                    let mut order = self.order();
                    if order.closing {
                        return Err(error);
                    }
                    order.newest.get_or_insert((id, snapshot));
                    Waking::StoreFailed(error.to_string())
                }
            };
            // At the end nobody listens any more; what is on the desk is committed all the same.
            drop(wakings.blocking_send(waking));
        }
    }

    /// The newest snapshot, after a pause where the last one failed; `None` at the end.
    fn next(&self, failed: bool) -> Option<(StoreId, Zeroizing<Vec<u8>>)> {
        let mut order = self.order();
        if failed && !order.closing {
            let waited = self.changed.wait_timeout(order, RETRY_AFTER);
            order = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        loop {
            if let Some(newest) = order.newest.take() {
                return Some(newest);
            }
            if order.closing {
                return None;
            }
            order = self
                .changed
                .wait(order)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
