//! The suite rsa-misty1 at the desk: the same sequence, and RSA work for who has shown a cookie.
//!
//! Nothing in such a request says who wrote it: whoever has the server's public key writes one in
//! anybody's name. So its answer opens with the registered key of the terminal that it names, and
//! what it asks for counts as told from the ACK on, as in every suite.

use super::answering::Request;
use super::job::Task;
use super::{Answer, Asker, Open, Proof};
use crate::ids::TerminalNumber;
use crate::keys::MasterKey;
use crate::rng::Random;
use crate::server::Server;
use crate::sharing::SharingSuite;
use crate::sharing::message::{KeyDis, KeyReq, Message};
use crate::sharing::rsa_misty1::{IdInformation, KEYS_MAX, RsaSecret, Sealed, sealed_for};

impl Server {
    /// RSA work begins only where the root wants the suite before all others (KR-380), for a request
    /// that names the server's key, with a cookie, and within bounds (KR-382). Who has shown no cookie
    /// gets one, and stands in no audit: his address may be anybody's.
    pub(super) fn begin_legacy(
        &mut self,
        asked: &Request<'_>,
        key_req: &[u8],
        rng: &mut dyn Random,
    ) {
        let from = asked.from;
        let to = sealed_for(key_req).filter(|_| key_req.len() >= SHORTEST);
        let key = self.fleet.rsa.as_ref();
        let key = key.filter(|key| to == Some(key.public().name()));
        let key = key.map(RsaSecret::duplicate);
        // As who has an RSA key would ask.
        let spoken = self.fleet.key_set.suite_spoken(true) == Some(SUITE);
        if to.is_none() || (spoken && key.is_none()) {
            self.desk.counts.silent += 1;
            return;
        }
        if !asked.returns {
            self.send_cookie(from, SUITE, asked.hash.reference(), rng);
            return;
        }
        let Some(key) = key.filter(|_| spoken) else {
            self.note_downgrade_of(None, format!("somebody at {}", from.ip()), SUITE);
            self.desk.counts.silent += 1;
            return;
        };
        let out = &self.desk.legacy_jobs;
        let own: Vec<_> = out.iter().filter(|(_, host)| **host == from.ip()).collect();
        let is_repeat = own.iter().any(|(number, _)| {
            let asker = self.desk.jobs.get(number);
            asker.is_some_and(|asker| asker.message == asked.message)
        });
        if is_repeat {
            return;
        }
        if out.len() >= OUT_MAX || own.len() >= OUT_A_HOST {
            self.desk.counts.overload += 1;
            return;
        }
        let key_req = key_req.to_vec();
        self.begin_legacy_job(asked, Task::OpenLegacy { key, key_req });
    }

    fn begin_legacy_job(&mut self, asked: &Request<'_>, task: Task) {
        if let Some(number) = self.begin_job(asked, task) {
            self.desk.legacy_jobs.insert(number, asked.from.ip());
        }
    }

    /// Answers who has a registered key and is not excluded, with the keys of its groups in which the
    /// suite is allowed (KR-383); all others with silence.
    pub(super) fn on_legacy_opened(&mut self, asker: &Asker, id: &IdInformation) {
        let asked = Request::of(asker);
        let Ok(Message::KeyReq {
            request: KeyReq::RsaMisty1(key_req),
            ..
        }) = Message::decode(&asker.message)
        else {
            return;
        };
        if self.answers_again(&asked) {
            return;
        }
        let terminal = self.terminals.get(&id.terminal);
        let terminal = terminal.filter(|it| it.excluded_at.is_none());
        let Some(to) = terminal.and_then(|it| it.legacy_key.clone()) else {
            self.desk.counts.silent += 1;
            return;
        };
        let keys = self.legacy_keys_of(id.terminal);
        let told = keys.iter();
        let told = told.map(|key| (key.group(), key.epoch(), key.generation()));
        let open = Open {
            terminal: id.terminal,
            from: asked.from,
            at: self.at.now,
            suite: SUITE,
            answer: None,
            plain: None,
            lacks_time: !self.is_near(id.time),
            told: told.collect(),
            mixed: None,
        };
        if !self.desk.remember(asked.hash.reference(), open) {
            return;
        }
        let task = Task::SealLegacy {
            to,
            key_req: key_req.to_vec(),
            nonce: id.nonce,
            keys,
        };
        self.begin_legacy_job(&asked, task);
    }

    pub(super) fn on_legacy_sealed(&mut self, asker: &Asker, sealed: Sealed) {
        let asked = Request::of(asker);
        let reference = asked.hash.reference();
        let Some(open) = self.desk.open.get_mut(&reference) else {
            return;
        };
        let message = Message::KeyDis {
            reference,
            distribution: KeyDis::RsaMisty1(&sealed.key_dis),
        };
        let message = message.encode();
        open.answer = Some(Answer {
            proof: Proof::Legacy(sealed.exchange),
            message: message.clone(),
            times: 1,
        });
        self.send_answer(asked.from, &message);
    }

    /// Of all its groups that allow the suite, the present keys: the request does not say what is held.
    fn legacy_keys_of(&self, terminal: TerminalNumber) -> Vec<MasterKey> {
        let groups = self.groups_of(terminal).into_iter();
        let groups = groups.filter_map(|number| self.groups.get(&number));
        let allowed = groups.filter(|group| group.policy.legacy).take(KEYS_MAX);
        allowed.map(|group| group.master.duplicate()).collect()
    }
}

const SUITE: SharingSuite = SharingSuite::RsaMisty1;
/// Octets of an RSA field of 2048 bits, the shortest; no COOKIE is longer.
const SHORTEST: usize = 256;
/// RSA work under way, in all and for one host: a private-key operation of 8192 bits takes some ten
/// milliseconds, and other suites use the same threads.
const OUT_MAX: usize = 64;
const OUT_A_HOST: usize = 8;
