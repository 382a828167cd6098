//! What the threads that receive have in common: sessions, stock senders, and what is not known yet.
//!
//! INVARIANT: a session has one window, whichever threads its packets come to (KR-587). Its lock is held
//! from the opening of packets until they are written, also of those that waited for a mark; what waited for
//! the session itself is written before any thread finds it. So none overtakes another here.
//!
//! Locks are taken in this order: `unknown`, a session or `stock`, `table` or `heard_at`; nobody waits for
//! another one with one of these two in his hand, nor for the driver with any. The first thread alone writes
//! the table, since it alone gets orders.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use keyfall_protocol::DropReason;
use keyfall_protocol::command::ProtectionRecord;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};

use crate::packet_path::ahead::Ahead;
use crate::packet_path::by_sender::BySender;
use crate::packet_path::counts::Counts;
use crate::packet_path::flows::Ends;
use crate::packet_path::ingress::KnownSession;
use crate::packet_path::keyed_hash::KeyedHash;
use crate::packet_path::session::{Records, Session};
use crate::packet_path::stock::StockReceivers;
use crate::packet_path::unknown::{Unknown, WAIT_LONGEST, WAITING_MAX};
use crate::packet_path::waiting::{Room, Waiting};
use crate::packet_path::{SessionName, SessionReport};

pub(super) struct Receiving {
    own: TerminalNumber,
    unknown: Mutex<Unknown>,
    table: RwLock<Table>,
    stock: Mutex<StockReceivers>,
    /// Where each sender was heard last.
    heard_at: Mutex<HashMap<TerminalNumber, IpAddr>>,
    /// In which opened packets of all sessions wait for marks.
    room: Room,
    counts: Arc<Counts>,
    /// One of the threads has ended.
    is_over: AtomicBool,
    /// How often everything was wiped.
    wipes: AtomicU32,
}

/// A thread that receives. Where one ends, for whatever reason, all do: without the first one the others
/// would go on without orders.
pub(super) struct EndsAll(Arc<Receiving>);

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionName, Arc<SessionCell>, KeyedHash>,
    by_sender: BySender,
    /// This terminal's own.
    own_record: Option<Arc<ProtectionRecord>>,
}

/// A session that several threads may have at hand.
pub(super) struct SessionCell {
    session: Mutex<Option<Session>>,
    /// Packets a second, for whoever must not wait for the session.
    rate: AtomicU32,
}

impl SessionCell {
    /// Its packets are written before this goes. `None`: it is not received any more.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        lock(&self.session)
    }

    pub(super) fn note_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }
}

impl Receiving {
    pub(super) fn new(own: TerminalNumber, counts: Arc<Counts>) -> Self {
        Self {
            own,
            unknown: Mutex::default(),
            table: RwLock::default(),
            stock: Mutex::new(StockReceivers::new(Arc::clone(&counts))),
            heard_at: Mutex::default(),
            room: Room::of(WAITING_MAX),
            counts,
            is_over: AtomicBool::new(false),
            wipes: AtomicU32::new(0),
        }
    }

    /// Held by a thread for as long as it receives.
    pub(super) fn take_part(self: &Arc<Self>) -> EndsAll {
        EndsAll(Arc::clone(self))
    }

    /// Each thread looks between two batches.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Each thread looks between two batches, and wipes what it has of its own.
    pub(super) fn wipes(&self) -> u32 {
        self.wipes.load(Ordering::Acquire)
    }

    pub(super) fn own(&self) -> TerminalNumber {
        self.own
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    #[inline]
    pub(super) fn find(&self, name: SessionName) -> Option<Arc<SessionCell>> {
        self.read().sessions.get(&name).cloned()
    }

    /// What is done with a session, if it is received.
    pub(super) fn with<T>(
        &self,
        name: SessionName,
        does: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        self.find(name)?.lock().as_mut().map(does)
    }

    pub(super) fn each(&self, mut does: impl FnMut(SessionName, &mut Session)) {
        let table = self.read();
        let all = table.sessions.iter();
        let all: Vec<_> = all.map(|(&name, it)| (name, Arc::clone(it))).collect();
        drop(table);
        for (name, cell) in all {
            if let Some(session) = &mut *cell.lock() {
                does(name, session);
            }
        }
    }

    /// While it is held no session begins, and nothing that is to wait for one comes between.
    pub(super) fn unknown(&self) -> MutexGuard<'_, Unknown> {
        lock(&self.unknown)
    }

    /// What they deliver is written before this goes.
    pub(super) fn stock(&self) -> MutexGuard<'_, StockReceivers> {
        lock(&self.stock)
    }

    pub(super) fn note_place(&self, sender: TerminalNumber, place: IpAddr) {
        let mut heard_at = lock(&self.heard_at);
        if heard_at.len() >= HEARD_MAX {
            heard_at.clear();
        }
        heard_at.insert(sender, place);
    }

    pub(super) fn is_heard_at(&self, sender: TerminalNumber, place: IpAddr) -> bool {
        lock(&self.heard_at).get(&sender) == Some(&place)
    }

    /// A session that the driver lets be received; `None`: it is already. One session has one window for
    /// as long as it is known.
    pub(super) fn made_of(&self, known: KnownSession, now: Instant) -> Option<Session> {
        let KnownSession {
            name,
            group,
            receiver,
            mark,
            rate,
            record,
        } = known;
        if self.find(name).is_some() {
            return None;
        }
        let ahead = Ahead::new(mark, receiver.highest(), rate, now);
        let records = Records {
            own: self.read().own_record.clone(),
            theirs: record,
        };
        let opened = Waiting::within(self.room.clone(), WAIT_LONGEST);
        let between = self.between_before(name.spi.sender(), group);
        Some(Session::new(
            group,
            (receiver, ahead),
            records,
            opened,
            between,
            now,
        ))
    }

    /// From now on all threads receive them.
    pub(super) fn begin(&self, sessions: impl IntoIterator<Item = (SessionName, Session)>) {
        let mut sessions = sessions.into_iter().peekable();
        if sessions.peek().is_none() {
            return;
        }
        let mut table = self.write();
        for (name, session) in sessions {
            let cell = SessionCell {
                rate: AtomicU32::new(session.ahead.rate()),
                session: Mutex::new(Some(session)),
            };
            if table.sessions.insert(name, Arc::new(cell)).is_none() {
                table.by_sender.add(name);
            }
        }
    }

    /// SECURITY: when this returns no thread receives anything of them, and their keys are wiped (KR-588).
    pub(super) fn forget(&self, names: impl IntoIterator<Item = SessionName>) {
        let mut table = self.write();
        let mut gone = Vec::new();
        for name in names {
            if let Some(cell) = table.sessions.remove(&name) {
                table.by_sender.remove(name);
                gone.push(cell);
            }
        }
        drop(table);
        for cell in gone {
            // A thread may have it at hand: it ends what it is about.
            let session = cell.lock().take();
            let held = session.map_or(0, |session| session.opened.len());
            self.counts.add(DropReason::Held, held as u64);
        }
    }

    /// Nobody listens to these any more.
    pub(super) fn forget_senders(&self, senders: &[TerminalNumber]) {
        let table = self.read();
        let names = senders.iter().flat_map(|&it| table.by_sender.of(it));
        let names: Vec<_> = names.collect();
        drop(table);
        self.forget(names);
    }

    pub(super) fn set_own_record(&self, record: Option<Arc<ProtectionRecord>>) {
        self.write().own_record.clone_from(&record);
        self.each(|_, session| {
            session.records.own.clone_from(&record);
            session.judge_anew();
        });
        self.stock().set_own_record(record);
    }

    /// Packets a second that the sender sends, in the fastest of its sessions. It waits for none of them.
    pub(super) fn rate_of(&self, sender: TerminalNumber) -> u32 {
        let table = self.read();
        let cells = table.by_sender.of(sender);
        let cells = cells.filter_map(|name| table.sessions.get(&name));
        let rates = cells.map(|cell| cell.rate.load(Ordering::Relaxed));
        rates.max().unwrap_or(0)
    }

    /// Between which addresses a sender's packets in a group were judged well under other keys: a change
    /// of keys is no reason not to follow who only says where it is.
    fn between_before(&self, sender: TerminalNumber, group: GroupNumber) -> Option<Ends> {
        let judged = self.of(sender, |session| {
            let between = session.between.filter(|_| session.group == group);
            Some((session.heard, between?))
        });
        let last = judged.into_iter().max_by_key(|&(heard, _)| heard);
        last.map(|(_, between)| between)
    }

    /// What is asked of each session of that sender.
    fn of<T>(&self, sender: TerminalNumber, ask: impl Fn(&Session) -> Option<T>) -> Vec<T> {
        let table = self.read();
        let sessions = table.by_sender.of(sender);
        let sessions = sessions.filter_map(|name| table.sessions.get(&name).cloned());
        let sessions: Vec<_> = sessions.collect();
        drop(table);
        let answers = sessions.iter();
        let answers = answers.filter_map(|cell| cell.lock().as_ref().and_then(&ask));
        answers.collect()
    }

    pub(super) fn on_second(&self, now: Instant) {
        let counts = &self.counts;
        self.each(|_, session| {
            session.on_second(now);
            session
                .opened
                .expire(now, &mut |_| counts.add(DropReason::Held, 1));
        });
        self.unknown()
            .expire(now, &mut |_| counts.add(DropReason::Held, 1));
        self.stock().expire(now);
    }

    pub(super) fn wipe(&self) {
        self.unknown().clear();
        let names: Vec<_> = self.read().sessions.keys().copied().collect();
        self.forget(names);
        self.stock().wipe();
        lock(&self.heard_at).clear();
        // From now on no thread opens anything: what it wipes stays so.
        self.wipes.fetch_add(1, Ordering::Release);
    }

    pub(super) fn report(&self) -> Vec<SessionReport> {
        let mut reports = Vec::new();
        self.each(|name, session| {
            reports.push(SessionReport {
                name,
                group: session.group,
                under: session.receiver.source(),
                ends: session.last.map(|(ends, _)| ends),
                packets: session.packets,
                octets: session.octets,
            });
        });
        reports.sort_unstable_by_key(|report| Reverse(report.octets));
        reports.truncate(REPORTED_MAX);
        reports
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> Held {
        fn is_held<T>(what: &Mutex<T>) -> bool {
            what.try_lock().is_err()
        }
        Held {
            unknown: is_held(&self.unknown),
            session: self.read().sessions.values().any(|it| is_held(&it.session)),
            stock: is_held(&self.stock),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Which locks are held, by whomever.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) unknown: bool,
    pub(super) session: bool,
    pub(super) stock: bool,
}

/// What a thread that failed leaves can be used until the others have ended, too: a number counts as heard
/// before its packet is delivered.
fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Senders whose place is remembered.
const HEARD_MAX: usize = 16_384;
const REPORTED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use keyfall_plane::{EspReceiver, Spi};
    use keyfall_protocol::ids::{EspSession, Generation, KeyEpoch};
    use keyfall_protocol::keys::{EspSuite, MasterKey, Secret};

    use super::*;

    fn group_of(number: u32) -> GroupNumber {
        GroupNumber::new(number).expect("not 0")
    }

    fn known(group: u32, sender: u32, session: u8) -> KnownSession {
        let secret = Secret::init_with(|into| into.fill(7));
        let group = group_of(group);
        let key = MasterKey::new(group, KeyEpoch::new(7), Generation::ZERO, secret);
        let sender = TerminalNumber::new(sender).expect("not 0");
        let session = EspSession::new([0, 0, 0, 0, session]);
        KnownSession {
            name: SessionName {
                spi: Spi::new(sender, key.esp_tag()),
                session,
            },
            group,
            receiver: EspReceiver::new(EspSuite::default(), &key, sender, session),
            mark: 64,
            rate: u32::from(session == EspSession::new([0; 5])) * 900,
            record: None,
        }
    }

    /// a terminal that waits to be called behind a NAT sends nothing but keepalives for days,
    /// through changes of keys, after each of which nobody knew any more where it was.
    #[test]
    fn a_change_of_keys_does_not_end_what_dummy_packets_say() {
        let own = TerminalNumber::new(1).expect("not 0");
        let receiving = Receiving::new(own, Arc::default());
        let now = Instant::now();
        let made = |known| receiving.made_of(known, now).expect("it is new");
        let ends = ([10, 2, 0, 9].into(), [10, 1, 0, 5].into());
        for (number, (group, between)) in (0..).zip([(1, Some(ends)), (1, None), (2, None)]) {
            let known = known(group, 2, number);
            let name = known.name;
            let mut session = made(known);
            session.between = between;
            receiving.begin([(name, session)]);
        }
        let between = |group, sender| made(known(group, sender, 9)).between;
        assert_eq!(between(1, 2), Some(ends));
        assert_eq!(between(2, 2), None, "KR-564");
        assert_eq!(between(1, 3), None);
        let rate = |sender| receiving.rate_of(TerminalNumber::new(sender).expect("not 0"));
        assert_eq!((rate(2), rate(3)), (900, 0));
        receiving.forget_senders(&[TerminalNumber::new(2).expect("not 0")]);
        assert_eq!((between(1, 2), rate(2)), (None, 0));
    }

    /// A session's lock is held for as long as its packets are written.
    #[test]
    fn who_waits_for_a_session_keeps_nobody_from_the_table() {
        let waits: [fn(&Receiving); 2] = [
            |receiving| {
                receiving.rate_of(TerminalNumber::new(2).expect("not 0"));
            },
            |receiving| drop(receiving.report()),
        ];
        for waits in waits {
            let own = TerminalNumber::new(1).expect("not 0");
            let receiving = &Receiving::new(own, Arc::default());
            let made = |known| receiving.made_of(known, Instant::now()).expect("new");
            let [one, other] = [2, 3].map(|sender| known(1, sender, 0));
            let (name, other_name) = (one.name, other.name);
            receiving.begin([(name, made(one))]);
            let other = made(other);
            let session = receiving.find(name).expect("it began");
            let at_hand = session.lock();
            thread::scope(|scope| {
                scope.spawn(|| waits(receiving));
                thread::sleep(Duration::from_millis(50));
                let (tell, told) = channel();
                scope.spawn(move || {
                    receiving.begin([(other_name, other)]);
                    tell.send(receiving.find(other_name).is_some()).ok();
                });
                let told = told.recv_timeout(Duration::from_secs(5));
                drop(at_hand);
                assert_eq!(told, Ok(true));
            });
        }
    }

    /// The table is written only where a session begins: packets of others are looked up meanwhile.
    #[test]
    fn nothing_that_begins_stops_nobody() {
        let own = TerminalNumber::new(1).expect("not 0");
        let receiving = &Receiving::new(own, Arc::default());
        let reads = receiving.read();
        thread::scope(|scope| {
            let (tell, told) = channel();
            scope.spawn(move || {
                receiving.begin([]);
                tell.send(()).ok();
            });
            let told = told.recv_timeout(Duration::from_secs(5));
            drop(reads);
            assert_eq!(told, Ok(()));
        });
    }
}
