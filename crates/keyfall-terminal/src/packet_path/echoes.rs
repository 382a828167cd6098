//! Answers to key searches by echo that are on their way through an unmodified host.
//!
//! ```text
//! asker ─ request, PROBE ─► gateway ─ request, ANSWER ─► host
//! asker ◄─ reply, ANSWER ── gateway ◄─ reply, ANSWER ─── host, or nobody for a quarter of a second
//! ```

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::packet_path::echo::{Echo, EchoName};

/// What was planted in requests to hosts behind this gateway.
#[derive(Default, Debug)]
pub(crate) struct Echoes(VecDeque<Planted>);

#[derive(Debug)]
struct Planted {
    name: EchoName,
    /// What the host's reply brings home; taken out when it left.
    answer: Option<Vec<u8>>,
    since: Instant,
}

impl Echoes {
    /// The request that goes on to the host, with the answer in the probe's place. Of too many the
    /// oldest is forgotten.
    pub(crate) fn plant(
        &mut self,
        name: EchoName,
        answer: Vec<u8>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.forget(now);
        let request = Echo {
            is_request: true,
            name,
            payload: &answer,
        };
        let request = request.write()?;
        if self.0.len() >= PLANTED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Planted {
            name,
            answer: Some(answer),
            since: now,
        });
        Some(request)
    }

    /// A host has answered: the reply that goes on to the asker.
    ///
    /// SECURITY: it is made anew of what this gateway planted. Of the host's own octets nothing leaves
    /// in clear, and no second time (KR-570).
    pub(crate) fn complete(&mut self, came: &Echo<'_>) -> Option<Vec<u8>> {
        let of_this = |it: &&mut Planted| {
            it.name == came.name && it.answer.as_deref() == Some(came.payload) && !came.is_request
        };
        self.0.iter_mut().find(of_this)?.reply()
    }

    /// Hosts that said nothing, as many do to pings: the replies that go in their place.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let late = self.0.iter_mut().filter(|it| it.due() <= now);
        let replies = late.filter_map(Planted::reply).collect();
        self.forget(now);
        replies
    }

    /// When the next host has said nothing for long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        let open = self.0.iter().filter(|it| it.answer.is_some());
        open.map(Planted::due).min()
    }

    /// The host's own reply comes into the tunnel, too: it is no traffic, and nobody is searched for.
    pub(crate) fn are_between(&self, source: IpAddr, destination: IpAddr) -> bool {
        let mut names = self.0.iter().map(|it| it.name);
        names.any(|it| (it.asked, it.asker) == (source, destination))
    }

    fn forget(&mut self, now: Instant) {
        self.0
            .retain(|it| now.saturating_duration_since(it.since) < KEPT_FOR);
    }
}

impl Planted {
    fn due(&self) -> Instant {
        self.since + HOST_LONGEST
    }

    fn reply(&mut self) -> Option<Vec<u8>> {
        let answer = self.answer.take()?;
        let reply = Echo {
            is_request: false,
            name: self.name,
            payload: &answer,
        };
        reply.write()
    }
}

/// The core answers no more than 200 a second.
const PLANTED_MAX: usize = 1_024;
/// Then a host counts as silent; an asker sends its next probe after half a second.
const HOST_LONGEST: Duration = Duration::from_millis(250);
const KEPT_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn name(seq: u16) -> EchoName {
        EchoName {
            asker: [192, 0, 2, 1].into(),
            asked: [10, 10, 2, 7].into(),
            id: 9,
            seq,
        }
    }

    fn reply(name: EchoName, payload: &[u8]) -> Echo<'_> {
        Echo {
            is_request: false,
            name,
            payload,
        }
    }

    /// R-104, R-105: an unmodified host's own reply completes a search, once, and nothing else does.
    #[test]
    fn what_leaves_is_the_answer_that_was_made_and_only_once() {
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        let request = echoes.plant(name(1), b"answer".to_vec(), now).unwrap();
        let request = Echo::read(&request).unwrap();
        assert!(request.is_request);
        assert_eq!((request.name, request.payload), (name(1), &b"answer"[..]));
        assert!(echoes.are_between(name(1).asked, name(1).asker));
        assert!(!echoes.are_between(name(1).asker, name(1).asked));

        assert_eq!(echoes.complete(&reply(name(2), b"answer")), None);
        assert_eq!(echoes.complete(&reply(name(1), b"secret")), None);
        assert_eq!(echoes.complete(&request), None, "a request is no reply");
        let sent = echoes.complete(&reply(name(1), b"answer")).unwrap();
        assert_eq!(Echo::read(&sent).unwrap(), reply(name(1), b"answer"));
        assert_eq!(echoes.complete(&reply(name(1), b"answer")), None);
        assert_eq!(echoes.due(), None);
    }

    /// Whoever answers no pings is found all the same.
    #[test]
    fn a_silent_host_is_answered_for() {
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        echoes.plant(name(1), b"answer".to_vec(), now);
        assert!(echoes.overdue(now).is_empty());
        let due = echoes.due().unwrap();
        assert_eq!(due - now, HOST_LONGEST);
        let sent = echoes.overdue(due);
        assert_eq!(Echo::read(&sent[0]).unwrap(), reply(name(1), b"answer"));
        assert!(echoes.overdue(due).is_empty());
        // A reply that comes late is still known as one, and goes nowhere.
        assert!(echoes.are_between(name(1).asked, name(1).asker));
        assert_eq!(echoes.complete(&reply(name(1), b"answer")), None);
        echoes.overdue(now + KEPT_FOR);
        assert!(!echoes.are_between(name(1).asked, name(1).asker));
    }

    /// W-21: a flood of probes costs bounded memory.
    #[test]
    fn what_is_planted_is_bounded() {
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        for seq in 0..5_000 {
            echoes.plant(name(seq), vec![0; 8], now);
        }
        assert_eq!(echoes.0.len(), PLANTED_MAX);
        assert_eq!(echoes.overdue(now + HOST_LONGEST).len(), PLANTED_MAX);
    }
}
