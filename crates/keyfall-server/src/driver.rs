//! The one thread that owns the server machine, its store, its carriers and its clock.
//!
//! It waits for one cause (a request, or the machine's timeout), feeds it, carries out every output
//! and waits again. Whatever is durable is written here and nowhere else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use keyfall_api::admin as api;
use keyfall_protocol::ApiMisuse;
use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::server::{
    AuditEntry, By, Done, Input, KeySetDraft, Moment, Order, OrderId, Output, Refusal, Server,
    StoreId, Worked,
};
use tokio::sync::oneshot;

use crate::answering::{Doors, Heard, Workers};
use crate::carriers::{Carrier, Carriers};
use crate::clock::Clock;
use crate::key_drafts;
use crate::os_random::OsRandom;
use crate::store::{Head, State, Store};

/// How requests reach the driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Sender<Request>);

/// What reports are made from.
pub(crate) struct View<'d> {
    pub(crate) machine: &'d Server,
    pub(crate) carriers: &'d [Carrier],
    pub(crate) doors: &'d Doors,
    pub(crate) audit: Head,
    pub(crate) journalled: Head,
    pub(crate) now: UnixSeconds,
    pub(crate) started_at: UnixSeconds,
    /// The store could not be written the last time it was tried.
    pub(crate) store_fault: Option<&'d str>,
}

/// Why an order was not carried out. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    ByMachine(#[from] Refusal),
    #[error(
        "{an_hour} DELETE and INIT were issued in the last hour, which is this server's own limit and \
         no security boundary: look again at what is being deleted, then give --force or wait"
    )]
    HourlyLimit { an_hour: u64 },
}

/// An order in the words of the audit log, for one that is refused.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The verb, as on the command line.
    pub(crate) action: &'static str,
    pub(crate) subject: String,
    pub(crate) by: By,
}

/// The driver has ended, or ends before the request is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended;

enum Request {
    Order {
        asked: Asked,
        prepare: Prepare,
        finish: Finish,
    },
    Ask(Box<dyn FnOnce(&View<'_>) + Send>),
    Draft(Draft),
    DraftKeys {
        wanted: Box<KeySetDraft>,
        by: By,
        reply: oneshot::Sender<Result<api::KeySetDraft, Denied>>,
    },
    /// Datagrams from terminals.
    Heard(Heard),
    /// Public-key work is done.
    Worked(Worked),
    End,
}

/// Lets the machine write what is signed elsewhere.
type Draft = Box<dyn FnOnce(&mut Server) + Send>;

/// Names become numbers where the machine is.
type Prepare = Box<dyn FnOnce(&Server) -> Result<Order, Denied> + Send>;
/// What came of it becomes an answer where the machine is.
type Finish = Box<dyn FnOnce(&View<'_>, Result<Done, Denied>) + Send>;

/// A driver at work.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    /// Ends by [`Handle::end`], or with the fault that ended it.
    pub(crate) thread: JoinHandle<Result<(), ApiMisuse>>,
    /// Becomes ready when the thread has ended, however it did.
    pub(crate) ended: oneshot::Receiver<Infallible>,
}

/// Starts the driver's thread.
pub(crate) fn start(state: State, store: Store, doors: Doors) -> std::io::Result<Running> {
    let (sender, requests) = channel();
    let (heard, worked) = (sender.clone(), sender.clone());
    doors.listen(move |it| heard.send(Request::Heard(it)).is_ok())?;
    let workers = Workers::start(move |it| worked.send(Request::Worked(it)).is_ok())?;
    let (at_work, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("driver".to_owned())
        .spawn(move || {
            let _at_work = at_work;
            Driver::new(state, store, (doors, workers), requests).run()
        })?;
    Ok(Running {
        handle: Handle(sender),
        thread,
        ended,
    })
}

impl Handle {
    /// Gives an order, and its answer when it is stored.
    ///
    /// # Errors
    /// [`Ended`]. What the machine refused is in the answer.
    pub(crate) async fn order<T: Send + 'static>(
        &self,
        asked: Asked,
        prepare: impl FnOnce(&Server) -> Result<Order, Denied> + Send + 'static,
        answer: impl FnOnce(&View<'_>, Done) -> T + Send + 'static,
    ) -> Result<Result<T, Denied>, Ended> {
        let (reply, replied) = oneshot::channel();
        let finish: Finish = Box::new(move |view, outcome| {
            // Nobody may wait any more: the order stands all the same.
            drop(reply.send(outcome.map(|done| answer(view, done))));
        });
        let order = Request::Order {
            asked,
            prepare: Box::new(prepare),
            finish,
        };
        self.0.send(order).map_err(|_| Ended)?;
        replied.await.map_err(|_| Ended)
    }

    /// Asks for a report.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        report: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, replied) = oneshot::channel();
        let ask = Request::Ask(Box::new(move |view| drop(reply.send(report(view)))));
        self.0.send(ask).map_err(|_| Ended)?;
        replied.await.map_err(|_| Ended)
    }

    /// Lets the machine draft what is signed elsewhere; nothing changes by it but a number that is
    /// used up.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) async fn draft<T: Send + 'static>(
        &self,
        draft: impl FnOnce(&mut Server) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, replied) = oneshot::channel();
        let draft: Draft = Box::new(move |machine| drop(reply.send(draft(machine))));
        self.0.send(Request::Draft(draft)).map_err(|_| Ended)?;
        replied.await.map_err(|_| Ended)
    }

    /// Draws the next online keys and keeps them, for the root to sign.
    ///
    /// # Errors
    /// [`Ended`]. What the machine refused is in the answer.
    pub(crate) async fn draft_keys(
        &self,
        wanted: KeySetDraft,
        by: By,
    ) -> Result<Result<api::KeySetDraft, Denied>, Ended> {
        let (reply, replied) = oneshot::channel();
        let wanted = Box::new(wanted);
        let draft = Request::DraftKeys { wanted, by, reply };
        self.0.send(draft).map_err(|_| Ended)?;
        replied.await.map_err(|_| Ended)
    }

    /// Ends the driver after what it was asked before.
    pub(crate) fn end(&self) {
        // It may have ended already.
        drop(self.0.send(Request::End));
    }
}

struct Driver {
    machine: Server,
    store: Store,
    carriers: Carriers,
    doors: Doors,
    workers: Workers,
    clock: Clock,
    requests: Receiver<Request>,
    started_at: UnixSeconds,
    open_orders: HashMap<OrderId, (Asked, Finish)>,
    last_order: u64,
    store_fault: Option<String>,
    /// When the store is settled: some time after a key was replaced, not in the middle of orders.
    settle_at: Option<Tick>,
    told: Told,
}

/// What needs an operator and was said in the log already.
#[derive(Default)]
struct Told {
    /// When it is said again that the online keys end.
    signers_again: Option<Tick>,
    clock_jumped: bool,
    schedule_refused: bool,
}

impl Driver {
    fn new(
        state: State,
        store: Store,
        (doors, workers): (Doors, Workers),
        requests: Receiver<Request>,
    ) -> Self {
        let clock = Clock::start();
        let at = clock.moment();
        let carriers = Carriers::open(&state.fleet.carriers, at);
        Self {
            machine: state.start(at),
            store,
            carriers,
            doors,
            workers,
            clock,
            requests,
            started_at: at.wall,
            open_orders: HashMap::new(),
            last_order: 0,
            store_fault: None,
            settle_at: None,
            told: Told::default(),
        }
    }

    fn run(mut self) -> Result<(), ApiMisuse> {
        if self.machine.restored().held.is_some() {
            tracing::warn!("held: restored, sends nothing until `keyfall admin confirm`");
        }
        loop {
            let mut due = self.feed(Input::Timeout)?;
            self.tell_operators();
            self.settle();
            // Requests are taken until the machine's time has come, however many there are.
            while let Some(wait) = self.until(due.into_iter().chain(self.settle_at).min()) {
                match self.requests.recv_timeout(wait) {
                    Ok(Request::Order {
                        asked,
                        prepare,
                        finish,
                    }) => {
                        self.order(asked, prepare, finish)?;
                        break;
                    }
                    Ok(Request::Ask(report)) => report(&self.view()),
                    Ok(Request::Draft(draft)) => {
                        // A draft says when it was made: the machine looks at the clock first.
                        self.feed(Input::Timeout)?;
                        draft(&mut self.machine);
                        break;
                    }
                    Ok(Request::DraftKeys { wanted, by, reply }) => {
                        self.feed(Input::Timeout)?;
                        let at = self.clock.moment().wall;
                        let drafted = key_drafts::draw_and_keep(
                            &mut self.machine,
                            &mut self.store,
                            *wanted,
                            by,
                            at,
                        );
                        drop(reply.send(drafted));
                        break;
                    }
                    Ok(Request::Heard(heard)) => {
                        self.doors.taken(&heard);
                        for (from, _, octets) in heard {
                            due = self.feed(Input::Datagram { from, octets })?;
                        }
                    }
                    Ok(Request::Worked(worked)) => due = self.feed(Input::Worked(worked))?,
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Request::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        }
    }

    fn order(&mut self, asked: Asked, prepare: Prepare, finish: Finish) -> Result<(), ApiMisuse> {
        match prepare(&self.machine) {
            Ok(order) => {
                self.last_order += 1;
                let id = OrderId(self.last_order);
                let by = asked.by.clone();
                self.open_orders.insert(id, (asked, finish));
                self.feed(Input::Order { id, order, by })?;
            }
            Err(denied) => {
                self.note_refusal(asked, &denied);
                finish(&self.view(), Err(denied));
            }
        }
        Ok(())
    }

    /// Feeds one input and carries out all that follows from it; then says when to come back.
    fn feed(&mut self, input: Input) -> Result<Option<Tick>, ApiMisuse> {
        let mut next = input;
        loop {
            let at = self.clock.moment();
            self.machine.handle_input(at, &mut OsRandom, next)?;
            let mut stored = None;
            let due = loop {
                match self.machine.poll_output() {
                    Output::Store(id) => stored = Some(self.make_durable(id, at)),
                    Output::Transmit { item, frame } => {
                        let command = item.class().name();
                        tracing::debug!(command, octets = frame.len(), "a frame is sent");
                        self.carriers.send(&frame, at);
                    }
                    Output::Send { to, octets } => self.doors.send(to, &octets),
                    Output::Work(job) => self.workers.take_on(job),
                    Output::Done { id, outcome } => self.finish(id, outcome),
                    Output::Timeout { at } => break at,
                }
            };
            match stored {
                Some(stored) => next = stored,
                None => return Ok(due),
            }
        }
    }

    fn make_durable(&mut self, id: StoreId, at: Moment) -> Input {
        let Some(batch) = self.machine.batch(id) else {
            return Input::NotStored(id);
        };
        match self.store.commit(batch, at.wall, &mut OsRandom) {
            Ok(()) => {
                if self.store_fault.take().is_some() {
                    tracing::info!("the store can be written again");
                }
                if let Some(entry) = &batch.audit {
                    tracing::info!(
                        order = entry.action,
                        entry = self.store.audit().entries,
                        "done"
                    );
                }
                Input::Stored(id)
            }
            Err(error) => {
                let error = error.to_string();
                if self.store_fault.as_ref() != Some(&error) {
                    tracing::error!(error, "the store could not be written");
                }
                self.store_fault = Some(error);
                Input::NotStored(id)
            }
        }
    }

    fn finish(&mut self, id: OrderId, outcome: Result<Done, Refusal>) {
        let Some((asked, finish)) = self.open_orders.remove(&id) else {
            return;
        };
        let outcome = outcome.map_err(Denied::from);
        if let Err(denied) = &outcome {
            self.note_refusal(asked, denied);
        }
        finish(&self.view(), outcome);
    }

    fn note_refusal(&mut self, asked: Asked, denied: &Denied) {
        if *denied == Denied::ByMachine(Refusal::NotStored) {
            // Nor can that be stored.
            return;
        }
        tracing::info!(order = asked.action, error = %denied, "an order was refused");
        let entry = AuditEntry {
            at: self.clock.moment().wall,
            actor: asked.by.actor,
            action: asked.action,
            subject: asked.subject,
            outcome: format!("refused: {denied}"),
            reason: asked.by.reason,
            ticket: asked.by.ticket,
        };
        if let Err(error) = self.store.note(&entry) {
            tracing::error!(%error, "a refusal could not be audited");
        }
    }

    fn settle(&mut self) {
        if !self.store.is_stale() {
            return;
        }
        let now = self.clock.moment().now;
        let at = *self.settle_at.get_or_insert_with(|| now.plus(SETTLE_AFTER));
        if now < at {
            return;
        }
        // What holds it up now is tried again after the same time.
        self.settle_at = None;
        if let Err(error) = self.store.settle() {
            tracing::warn!(%error, "the write-ahead log could not be emptied");
        }
    }

    /// The online keys end: said at the start, and every hour in the last third of their life. A
    /// clock or a schedule that is not followed: said once, until it is well again.
    fn tell_operators(&mut self) {
        let at = self.clock.moment();
        if self.told.signers_again.is_none_or(|again| at.now >= again) {
            self.told.signers_again = Some(at.now.plus(Duration::from_secs(3600)));
            let expire = self.machine.signers_expire();
            if at.wall >= expire {
                tracing::error!(
                    not_after = %expire,
                    "the online keys have ended and nothing new is sent: keyfall server sign-keys DIR \
                     --root FILE makes the next"
                );
            } else if self.machine.signers_warn() {
                tracing::warn!(
                    not_after = %expire,
                    "the online keys end soon: keyfall server sign-keys DIR --root FILE makes the next"
                );
            }
        }
        let jumped = self.machine.clock_jumped() > 0;
        if jumped && !self.told.clock_jumped {
            tracing::error!("this machine's clock jumped ahead and is not followed");
        }
        self.told.clock_jumped = jumped;
        let refused = self.machine.schedule_refused();
        if let Some(error) = refused
            && !self.told.schedule_refused
        {
            tracing::error!(%error, "a scheduled renewal does not happen");
        }
        self.told.schedule_refused = refused.is_some();
    }

    fn view(&self) -> View<'_> {
        View {
            machine: &self.machine,
            carriers: self.carriers.all(),
            doors: &self.doors,
            audit: self.store.audit(),
            journalled: self.store.journalled(),
            now: self.clock.moment().wall,
            started_at: self.started_at,
            store_fault: self.store_fault.as_deref(),
        }
    }

    /// How long to wait; `None` where it is time. Never longer than an hour: the wall clock may
    /// have been set meanwhile.
    fn until(&self, due: Option<Tick>) -> Option<Duration> {
        let longest = Duration::from_secs(3600);
        let now = self.clock.moment().now;
        match due {
            Some(due) if due <= now => None,
            Some(due) => Some(due.since(now).min(longest)),
            None => Some(longest),
        }
    }
}

/// Replaced keys, sealed as they are, lie in the write-ahead log for this long at most.
const SETTLE_AFTER: Duration = Duration::from_secs(2);
