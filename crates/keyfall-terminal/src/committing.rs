//! The thread that owns the key store: one piece of work at a time, the most urgent first.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyfall_api::control::Passphrase;
use keyfall_protocol::terminal::{Snapshot, StoreId};
use tokio::sync::mpsc;

use crate::control::Client;
use crate::driver::Waking;
use crate::hardening::scrub_stack;
use crate::key_store::{Erasure, KeyStore, KeyStoreError, Protection};
use crate::os_random::OsRandom;

/// The driver's end of the thread. Dropping it ends the thread after what was asked last is durable,
/// or has failed once.
pub(crate) struct Committer {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<Result<(), KeyStoreError>>>,
}

/// What takes a passphrase. It takes a moment, because guessing shall be slow.
#[derive(Debug)]
pub(crate) enum Task {
    /// Answered by [`Waking::Unlocked`]. Without a client it is the terminal's own idea.
    Unlock {
        client: Option<Client>,
        passphrase: Passphrase,
    },
    /// Answered by [`Waking::Protected`].
    Protect {
        client: Client,
        old: Passphrase,
        new: Option<Protection>,
    },
}

/// How often the compartment was locked: what was opened before the last time is not used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Locks(u64);

/// Where the driver leaves work.
#[derive(Default)]
struct Desk {
    order: Mutex<Order>,
    changed: Condvar,
}

/// In the order of urgency.
#[derive(Default)]
struct Order {
    erase: Option<Erasure>,
    lock: bool,
    tasks: VecDeque<Task>,
    newest: Option<(StoreId, Snapshot)>,
    closing: bool,
    locks: Locks,
}

enum Work {
    Erase(Erasure),
    Lock,
    Task(Task, Locks),
    Commit(StoreId, Snapshot),
}

impl Committer {
    /// `wakings` gets what came of each piece of work, and [`Waking::StoreFailed`] for each commit
    /// and erasure that failed; those are tried again each second.
    pub(crate) fn start(store: KeyStore, wakings: mpsc::Sender<Waking>) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let thread = {
            let desk = Arc::clone(&desk);
            thread::Builder::new()
                .name("key-store".into())
                .stack_size(512 * 1024)
                .spawn(move || desk.work(store, &wakings))?
        };
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// Makes `snapshot` durable instead of any that still waits, each compartment for itself.
    pub(crate) fn commit(&self, id: StoreId, snapshot: Snapshot) {
        let mut order = self.desk.order();
        let waiting = order.newest.take().and_then(|(_, snapshot)| snapshot.user);
        let user = snapshot.user.or(waiting);
        let device = snapshot.device;
        order.newest = Some((id, Snapshot { device, user }));
        self.desk.changed.notify_one();
    }

    /// Erases before anything else that waits.
    pub(crate) fn erase(&self, erasure: Erasure) {
        let mut order = self.desk.order();
        order.erase = Some(erasure);
        order.newest = None;
        self.desk.changed.notify_one();
    }

    /// Forgets the user key. What waits of that compartment is as after a power cut.
    pub(crate) fn lock(&self) {
        let mut order = self.desk.order();
        order.lock = true;
        order.locks.0 += 1;
        if let Some((_, snapshot)) = &mut order.newest {
            snapshot.user = None;
        }
        self.desk.changed.notify_one();
    }

    pub(crate) fn locks(&self) -> Locks {
        self.desk.order().locks
    }

    /// False where so many wait that no more fit.
    #[must_use]
    pub(crate) fn take_on(&self, task: Task) -> bool {
        let mut order = self.desk.order();
        if order.tasks.len() == TASKS_MAX {
            return false;
        }
        order.tasks.push_back(task);
        self.desk.changed.notify_one();
        true
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

    fn work(
        &self,
        mut store: KeyStore,
        wakings: &mpsc::Sender<Waking>,
    ) -> Result<(), KeyStoreError> {
        let mut not_before = None;
        while let Some(work) = self.next(not_before.take()) {
            let waking = match work {
                Work::Lock => {
                    store.lock();
                    continue;
                }
                Work::Task(task, locks) => carry_out(&mut store, task, locks),
                Work::Erase(erasure) => match store.erase(&erasure) {
                    Ok(deleted) => Waking::Erased(deleted),
                    Err(error) => self.put_back(error, |order| {
                        order.erase.get_or_insert(erasure);
                    })?,
                },
                Work::Commit(id, snapshot) => {
                    let user = snapshot.user.as_ref().map(|user| &user[..]);
                    match store.commit(&mut OsRandom, &snapshot.device, user) {
                        Ok(()) => Waking::Stored(id),
                        // By the last try, since this snapshot was laid on the desk.
                        Err(KeyStoreError::Deleted { .. }) => continue,
                        Err(error) => self.put_back(error, |order| {
                            order.keep_newer(id, snapshot);
                        })?,
                    }
                }
            };
            if matches!(waking, Waking::StoreFailed(_)) {
                not_before = Some(Instant::now() + RETRY_AFTER);
            }
            scrub_stack();
            // At the end nobody listens any more; what is on the desk is done all the same.
            drop(wakings.blocking_send(waking));
        }
        Ok(())
    }

    /// It is tried again later, unless the end has come.
    fn put_back(
        &self,
        error: KeyStoreError,
        put_back: impl FnOnce(&mut Order),
    ) -> Result<Waking, KeyStoreError> {
        let mut order = self.order();
        if order.closing {
            return Err(error);
        }
        put_back(&mut order);
        Ok(Waking::StoreFailed(error.to_string()))
    }

    /// The most urgent work; erasures and commits not before that moment. `None` at the end.
    fn next(&self, not_before: Option<Instant>) -> Option<Work> {
        let mut order = self.order();
        loop {
            let pause = not_before
                .filter(|_| !order.closing)
                .map(|then| then.saturating_duration_since(Instant::now()))
                .filter(|pause| !pause.is_zero());
            if let Some(work) = order.take(pause.is_some()) {
                return Some(work);
            }
            if order.closing {
                return None;
            }
            order = match pause {
                Some(pause) => {
                    let waited = self.changed.wait_timeout(order, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(order)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Order {
    fn take(&mut self, paused: bool) -> Option<Work> {
        if self.erase.is_some() {
            // Nothing is opened any more meanwhile.
            return self.erase.take_if(|_| !paused).map(Work::Erase);
        }
        if std::mem::take(&mut self.lock) {
            return Some(Work::Lock);
        }
        if !self.closing
            && let Some(task) = self.tasks.pop_front()
        {
            return Some(Work::Task(task, self.locks));
        }
        let (id, snapshot) = self.newest.take_if(|_| !paused)?;
        Some(Work::Commit(id, snapshot))
    }

    /// After a commit that failed: what came meanwhile is newer, compartment by compartment.
    fn keep_newer(&mut self, id: StoreId, failed: Snapshot) {
        let user = failed.user.filter(|_| !self.lock);
        match &mut self.newest {
            Some((_, newer)) => newer.user = newer.user.take().or(user),
            None => {
                let device = failed.device;
                self.newest = Some((id, Snapshot { device, user }));
            }
        }
    }
}

fn carry_out(store: &mut KeyStore, task: Task, locks: Locks) -> Waking {
    match task {
        Task::Unlock { client, passphrase } => Waking::Unlocked {
            client,
            outcome: store.unlock(passphrase.expose()),
            guard: store.guard().ok(),
            locks,
        },
        Task::Protect { client, old, new } => Waking::Protected {
            client,
            outcome: store.set_protection(&mut OsRandom, old.expose(), new.as_ref()),
            guard: store.guard().ok(),
        },
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Passphrases that wait at a time.
const TASKS_MAX: usize = 4;
