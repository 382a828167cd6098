//! The desk at which terminals ask for their keys: KEY-REQ, COOKIE, KEY-DIS, ACK (FORMATS section 8;
//! REQUIREMENTS, T-05 to T-09, W-14).
//!
//! Before a cookie nothing but symmetric work is done, and no answer is longer than what it answers;
//! what needs a private or public key is a [`Job`] for others. No state of the fleet changes before
//! an ACK. Every table is bounded.

mod answering;
mod cookies;
mod granting;
mod job;
mod legacy;

use core::mem::Discriminant;
use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cookies::Cookies;
pub use job::{Job, Worked};

use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use crate::keys::{Secret, WrapKey};
use crate::rng::Random;
use crate::server::TokenMisuse;
use crate::sharing::message::{
    AckStatus, Cookie, Message, Reference, RequestHash, Requested, marked,
};
use crate::sharing::pair::{AckKey, PlainHash};
use crate::sharing::rsa_misty1::Exchange;
use crate::sharing::{Assembly, KemSecret, SharingSuite, datagrams};

/// What the server keeps of those who ask.
#[derive(Debug)]
pub(super) struct Desk {
    cookies: Option<Cookies>,
    parts: Assembly<SocketAddr>,
    /// Answers that wait for their ACK, by the request that they answer.
    open: HashMap<Reference, Open>,
    /// When those of them that are over were last looked for.
    swept: Option<Tick>,
    /// What each terminal has confirmed since the start.
    confirmed: HashMap<(TerminalNumber, GroupNumber), (KeyEpoch, Generation)>,
    /// Jobs that are out, and who asked.
    jobs: HashMap<u64, Asker>,
    last_job: u64,
    /// Those of them that are RSA work, and for which host.
    legacy_jobs: HashMap<u64, IpAddr>,
    /// Those open answers that are of the legacy suite, for which host and since when.
    legacy_open: HashMap<Reference, (IpAddr, Tick)>,
    /// Pieces of the introduction, made when first asked for, of the KEYSET with that version.
    introduction: Option<(u32, Vec<Vec<u8>>)>,
    /// Parsed KEM keys, likewise.
    kems: Option<(u32, Vec<Arc<KemSecret>>)>,
    /// The last beacon for those who ask.
    pub(super) beacon: Option<(UnixSeconds, Vec<u8>)>,
    /// The newest answer that brought fresh octets to each terminal, until it has mixed them in.
    pub(super) first: HashMap<TerminalNumber, Reference>,
    /// Wrap keys with fresh octets in them, which an ACK has confirmed, until they are stored.
    pub(super) mixed: HashMap<TerminalNumber, WrapKey>,
    /// Records of others that were sent in the second that began then.
    pub(super) records: (Tick, usize),
    /// Whose wish for another suite stands in the audit already; `None`: somebody's for the legacy
    /// suite, which does not say whose.
    told_downgrade: HashSet<Option<TerminalNumber>>,
    /// Whose token's misuse stands there already.
    told_token: HashSet<(TerminalNumber, Discriminant<TokenMisuse>)>,
    pub(super) counts: DeskCounts,
}

/// Who asked, in which way.
#[derive(Debug)]
struct Asker {
    from: SocketAddr,
    /// The request as it was sent.
    message: Vec<u8>,
    hash: RequestHash,
    requested: Requested,
    cookie: Option<Cookie>,
    /// It showed that `from` receives.
    returns: bool,
}

/// An answer that waits for its ACK.
#[derive(Debug)]
struct Open {
    terminal: TerminalNumber,
    from: SocketAddr,
    at: Tick,
    suite: SharingSuite,
    /// `None`: it is still being sealed.
    answer: Option<Answer>,
    /// Of the pair's answer, while that is being sealed once more.
    plain: Option<PlainHash>,
    /// It named no time, or one that is far off.
    lacks_time: bool,
    told: Vec<(GroupNumber, KeyEpoch, Generation)>,
    /// The wrap key with the fresh octets in it, which counts from the ACK on.
    mixed: Option<WrapKey>,
}

/// The same request is answered alike: its ACK confirms one answer.
#[derive(Debug)]
struct Answer {
    message: Vec<u8>,
    proof: Proof,
    /// How often it was sent.
    times: u8,
}

/// What only an ACK by who opened the answer fits.
#[derive(Debug)]
enum Proof {
    /// The key is derived when an ACK comes: many answers never see one.
    Pair(WrapKey, Requested, PlainHash),
    Legacy(Exchange),
}

impl Answer {
    fn is_confirmed_by(&self, status: AckStatus, mac: &[u8; 32]) -> bool {
        match &self.proof {
            Proof::Pair(wrap, request, plain) => {
                AckKey::of(wrap, request, &self.message).check(status, plain, mac)
            }
            Proof::Legacy(exchange) => exchange.check_mac(status.number(), mac),
        }
    }
}

/// What came to the desk, and what became of it, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeskCounts {
    pub requests: u64,
    pub cookies: u64,
    pub answers: u64,
    pub acks: u64,
    /// ACKs that say that something was refused.
    pub refused_acks: u64,
    /// What did not verify, fit no request, or was malformed: answered by silence.
    pub silent: u64,
    /// Requests in a suite that the root does not list.
    pub downgrades: u64,
    /// Requests that found every table or budget full.
    pub overload: u64,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            cookies: None,
            parts: Assembly::new(WHOLES_MAX, REQUEST_PARTS_MAX),
            open: HashMap::new(),
            swept: None,
            confirmed: HashMap::new(),
            jobs: HashMap::new(),
            last_job: 0,
            legacy_jobs: HashMap::new(),
            legacy_open: HashMap::new(),
            introduction: None,
            kems: None,
            beacon: None,
            first: HashMap::new(),
            mixed: HashMap::new(),
            records: (Tick::default(), 0),
            told_downgrade: HashSet::new(),
            told_token: HashSet::new(),
            counts: DeskCounts::default(),
        }
    }

    /// So many of `wanted` records of others may be sent now: a whole group asks at once when its key is
    /// fresh, and the keys go first.
    pub(super) fn may_send_records(&mut self, wanted: usize, now: Tick) -> usize {
        let (began, sent) = &mut self.records;
        if now.since(*began) >= SWEEP {
            (*began, *sent) = (now, 0);
        }
        let granted = wanted.min(RECORDS_A_SECOND - *sent);
        *sent += granted;
        granted
    }

    /// The tables that strangers can fill; drawn with the first datagram.
    fn cookies(&mut self, now: Tick, rng: &mut dyn Random) -> &mut Cookies {
        self.cookies
            .get_or_insert_with(|| Cookies::new(Secret::init_with(|into| rng.fill(into)), now))
    }

    /// Whether the caller is one whose mixed wrap key is being stored, under the new name or the old.
    fn is_meeting(&self, id: [u8; 8], found: Option<TerminalNumber>) -> bool {
        let by_name = |wrap: &WrapKey| wrap.key_req_id() == id;
        match found {
            Some(number) => self.mixed.contains_key(&number),
            None => self.mixed.values().any(by_name),
        }
    }

    /// It is no member any more, and gives the key up: what it confirmed, or still may, is void.
    pub(super) fn forget_held(&mut self, terminal: TerminalNumber, group: GroupNumber) {
        self.confirmed.remove(&(terminal, group));
        for open in self.open.values_mut().filter(|it| it.terminal == terminal) {
            open.told.retain(|(of, ..)| *of != group);
        }
    }

    fn remember(&mut self, reference: Reference, open: Open) -> bool {
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&reference) {
            let now = open.at;
            // The whole table is looked through: not for everybody who finds it full.
            let is_due = |swept| now.since(swept) >= SWEEP;
            if self.swept.is_none_or(is_due) {
                self.swept = Some(now);
                self.open.retain(|_, it| now.since(it.at) < OPEN_FOR);
            }
            if self.open.len() >= OPEN_MAX {
                self.counts.overload += 1;
                return false;
            }
        }
        self.open.insert(reference, open);
        true
    }
}

/// As one datagram or several, each with where it goes.
fn sent_to(to: SocketAddr, message: &[u8]) -> impl Iterator<Item = (SocketAddr, Vec<u8>)> {
    datagrams(message, None)
        .into_iter()
        .map(move |datagram| (to, datagram))
}

fn cookie_message(
    suite: SharingSuite,
    reference: Reference,
    cookie: Cookie,
    frame: Option<&[u8]>,
) -> Vec<u8> {
    let message = Message::Cookie {
        suite,
        reference,
        cookie,
        frame,
    };
    marked(&message.encode())
}

const WHOLES_MAX: usize = 1024;
/// A KEY-REQ of `hpke-pq` takes two, one that names 400 keys about eight.
const REQUEST_PARTS_MAX: u8 = 10;
/// Answers that wait for their ACK.
const OPEN_MAX: usize = 131_072;
const OPEN_FOR: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(1);
const RECORDS_A_SECOND: usize = 2_000;
