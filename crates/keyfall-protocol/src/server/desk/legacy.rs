//! The suite rsa-misty1 at the desk: the same sequence, and RSA work for who has shown a cookie.
//!
//! Nothing in such a request says who wrote it: whoever has the server's public key writes one in
//! anybody's name. So its answer opens with the registered key of the terminal that it names, and
//! what it asks for counts as told from the ACK on, as in every suite.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::answering::Request;
use super::job::Task;
use super::{Answer, Asker, Desk, OPEN_FOR, Open, Proof};
use crate::ids::{TerminalNumber, Tick};
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
            self.send_cookie(from, SUITE, asked.named(), rng);
            return;
        }
        let Some(key) = key.filter(|_| spoken) else {
            self.note_downgrade_of(None, format!("somebody at {}", from.ip()), SUITE);
            self.desk.counts.silent += 1;
            return;
        };
        let host = host_of(from);
        let out = &self.desk.legacy_jobs;
        let own: Vec<_> = out.iter().filter(|(_, of)| **of == host).collect();
        let is_repeat = own.iter().any(|(number, _)| {
            let asker = self.desk.jobs.get(number);
            asker.is_some_and(|asker| asker.message == asked.message)
        });
        if is_repeat {
            return;
        }
        let is_busy = out.len() >= OUT_MAX || own.len() >= OUT_A_HOST;
        if is_busy || !self.desk.has_room_for_legacy(host, self.at.now) {
            self.desk.counts.overload += 1;
            return;
        }
        let key_req = key_req.to_vec();
        self.begin_legacy_job(asked, Task::OpenLegacy { key, key_req });
    }

    fn begin_legacy_job(&mut self, asked: &Request<'_>, task: Task) {
        if let Some(number) = self.begin_job(asked, task) {
            self.desk.legacy_jobs.insert(number, host_of(asked.from));
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
        let reference = asked.hash.reference();
        if !self.desk.remember(reference, open) {
            return;
        }
        let waits = (host_of(asked.from), self.at.now);
        self.desk.legacy_open.insert(reference, waits);
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

impl Desk {
    /// Whether one more answer in this suite, which anybody can bring about in anybody's name, may wait
    /// for its ACK (KR-386). What is being worked on may become one.
    fn has_room_for_legacy(&mut self, host: IpAddr, now: Tick) -> bool {
        let all = &mut self.open;
        self.legacy_open.retain(|reference, (_, at)| {
            let waits = now.since(*at) < OPEN_FOR;
            if !waits {
                all.remove(reference);
            }
            waits
        });
        let open = self.legacy_open.values().map(|(of, _)| of);
        let hosts = open.chain(self.legacy_jobs.values());
        let all = self.legacy_open.len() + self.legacy_jobs.len();
        all < OPEN_LEGACY_MAX && hosts.filter(|of| **of == host).count() < OPEN_A_HOST
    }
}

/// Who has one address of IPv6 has all that begin with its 64 bits.
fn host_of(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

const SUITE: SharingSuite = SharingSuite::RsaMisty1;
/// Octets of an RSA field of 2048 bits, the shortest.
const SHORTEST: usize = 256;
/// RSA work under way, in all and for one host: a private-key operation of 8192 bits takes some ten
/// milliseconds, and other suites use the same threads.
const OUT_MAX: usize = 64;
const OUT_A_HOST: usize = 8;
/// Answers that wait for their ACK, likewise.
const OPEN_LEGACY_MAX: usize = 4096;
const OPEN_A_HOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharing::message::Reference;

    #[test]
    fn open_answers_of_the_legacy_suite_are_bounded_for_a_host_and_for_all() {
        let mut desk = Desk::new();
        let mut names = (0_u64..).map(|n| Reference::new(n.to_be_bytes()));
        let mut taken = |host: SocketAddr, second| {
            let (host, now) = (host_of(host), Tick::from_secs(second));
            let mut taken = 0;
            while desk.has_room_for_legacy(host, now) {
                let reference = names.next().expect("without end");
                desk.legacy_open.insert(reference, (host, now));
                taken += 1;
            }
            taken
        };
        let host = |n: u16, m: u16| SocketAddr::from(([0x2001, 0xdb8, 0, n, m, 0, 0, 1], m));
        assert_eq!(taken(host(1, 1), 1), 64);
        assert_eq!(taken(host(1, 2), 1), 0, "of the same 64 bits");
        let all: usize = (2..100).map(|n| taken(host(n, 1), 2)).sum();
        assert_eq!(all, 4096 - 64);
        assert_eq!(taken(host(1, 1), 60), 0);
        assert_eq!(taken(host(1, 1), 61), 64, "a minute is over");
        let [four, mapped] =
            ["192.0.2.1:1", "[::ffff:192.0.2.1]:1"].map(|it| it.parse().expect("an address"));
        assert_eq!(host_of(four), host_of(mapped));
    }
}
