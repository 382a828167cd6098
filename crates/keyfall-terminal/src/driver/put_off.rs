//! What the system refused of addresses, routes and rules, and when it is told again.

use std::time::{Duration, Instant};

/// Told once while it is the same, and tried again ever more rarely.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    refused: Vec<String>,
    pause: Duration,
    due: Option<Instant>,
}

impl PutOff {
    /// What was refused now, in sentences; none: the system took everything.
    pub(super) fn came_out(&mut self, refused: Vec<String>, now: Instant) {
        if refused.is_empty() {
            if self.due.is_some() {
                tracing::info!("the system takes the addresses, routes and rules of packets again");
            }
            *self = Self::default();
            return;
        }
        for error in refused.iter().filter(|it| !self.refused.contains(it)) {
            tracing::error!(error, "the system refuses something that packets need");
        }
        self.refused = refused;
        // What was told between, because something was new, leaves the pause and its end as they are.
        if self.due.is_none_or(|due| due <= now) {
            self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
            self.due = Some(now + self.pause);
        }
    }

    /// Whether to tell the system once more, without anything being new.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// For people.
    pub(super) fn refused(&self) -> &[String] {
        &self.refused
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
/// What `ip` and `nft` are asked takes time from keys and searches.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// what the system refuses for good costs no more than one attempt a minute.
    #[test]
    fn what_is_refused_is_tried_ever_more_rarely_until_it_is_taken() {
        let start = Instant::now();
        let second = |it: u64| start + Duration::from_secs(it);
        let mut put_off = PutOff::default();
        let mut tried = Vec::new();
        for it in 0..200 {
            if it == 0 || put_off.is_due(second(it)) {
                put_off.came_out(vec!["no".to_owned()], second(it));
                tried.push(it);
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert_eq!(put_off.refused(), ["no"]);
        put_off.came_out(Vec::new(), second(200));
        assert!(put_off.refused().is_empty() && !put_off.is_due(second(500)));
        // The next time it is tried soon again.
        put_off.came_out(vec!["no".to_owned()], second(500));
        assert!(put_off.is_due(second(501)));
    }

    /// KR-578: much that is new in the first seconds makes no long pause.
    #[test]
    fn attempts_because_something_is_new_put_nothing_off() {
        let start = Instant::now();
        let ms = |it: u64| start + Duration::from_millis(it);
        let mut put_off = PutOff::default();
        for it in 0..10 {
            put_off.came_out(vec![format!("no {it}")], ms(it * 10));
        }
        assert_eq!(put_off.refused(), ["no 9"]);
        assert!(!put_off.is_due(ms(999)) && put_off.is_due(ms(1_000)));
        put_off.came_out(vec!["no".to_owned()], ms(1_000));
        assert!(!put_off.is_due(ms(2_999)) && put_off.is_due(ms(3_000)));
    }
}
