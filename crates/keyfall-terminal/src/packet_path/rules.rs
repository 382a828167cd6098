//! Rules of routing: which are there, which go, and which stay when this program ends.

use crate::packet_path::ip::{HostError, Refused, families, ip, undo, value_of};

/// Rules that are taken back when they are dropped.
#[derive(Default)]
pub(super) struct Rules(Vec<Vec<String>>);

/// The family of addresses, the preference, and what the rule says.
pub(super) type Rule = Vec<String>;

pub(super) fn rule(family: &str, preference: &str, what: &[&str]) -> Rule {
    let words = [&[family, preference][..], what].concat();
    words.into_iter().map(str::to_owned).collect()
}

pub(super) fn rule_words<'a>(rule: &'a Rule, verb: &'a str) -> Vec<&'a str> {
    let mut words: Vec<_> = rule.iter().map(String::as_str).collect();
    words.splice(1..1, ["rule", verb, "pref"]);
    words
}

/// A rule that is there is as good as a new one.
pub(super) fn add_rule(rule: &Rule) -> Result<(), HostError> {
    match ip(&rule_words(rule, "add")) {
        Err(HostError::Refused { answer, .. }) if answer.contains("File exists") => Ok(()),
        outcome => outcome.map(drop),
    }
}

impl Rules {
    /// New ones first, and old ones go when all of these are there: no rule is ever missing between.
    /// SECURITY: but what the clear list no longer says goes at once.
    pub(super) fn become_these(&mut self, wanted: Vec<Rule>, refused: &mut Refused) {
        let mut all = true;
        for new in &wanted {
            if self.0.contains(new) {
                continue;
            }
            if refused.note(add_rule(new)) {
                self.0.push(new.clone());
            } else {
                all = false;
            }
        }
        self.0.retain(|it| {
            let opens = it.get(1).is_some_and(|it| it == CLEAR_LIST);
            let stays = wanted.contains(it) || !all && !opens;
            if !stays {
                undo(&rule_words(it, "del"));
            }
            stays
        });
    }

    fn take_back(&mut self) {
        for rule in self.0.drain(..).rev() {
            undo(&rule_words(&rule, "del"));
        }
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.take_back();
    }
}

pub(super) fn forget_rules(preferences: &[&str]) {
    for family in families() {
        for preference in preferences {
            while ip(&[family, "rule", "del", "pref", preference]).is_ok() {}
        }
    }
}

/// The rules of that preference, one a line.
pub(super) fn shown(family: &str, preference: &str) -> String {
    ip(&[family, "rule", "show", "pref", preference]).unwrap_or_default()
}

/// Takes rules away that an earlier process left, but for those that `stays` says.
pub(super) fn forget_closed(preference: &str, stays: impl Fn(&str) -> bool) {
    for family in families() {
        for line in shown(family, preference)
            .lines()
            .filter(|line| !stays(line))
        {
            for key in ["iif", "to"] {
                if let Some(value) = value_of(line, key) {
                    undo(&[family, "rule", "del", "pref", preference, key, value]);
                }
            }
        }
    }
}

/// Whether a rule that `ip` shows is for this; it shows hosts without their length.
pub(super) fn is_shown(shown: &str, key: &str, value: &str) -> bool {
    let host = |text: &str| {
        let end = if text.contains(':') { "/128" } else { "/32" };
        text.strip_suffix(end).unwrap_or(text).to_owned()
    };
    value_of(shown, key).is_some_and(|it| host(it) == host(value))
}

/// Everything into the tunnel.
pub(super) const TABLE: &str = "4500";
/// As it is to where the root says.
pub(super) const CLEAR_LIST: &str = "4503";

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    /// KR-578, KR-545: rules that no system takes.
    #[test]
    fn old_rules_stay_until_all_new_ones_are_taken_but_for_the_clear_list() {
        let none = |preference, what| rule("-4", preference, &["to", what, "nowhere"]);
        let [old, clear] = [none("4502", "old"), none(CLEAR_LIST, "old")];
        let mut rules = Rules(vec![old.clone(), clear.clone()]);
        let mut refused = Refused::default();
        rules.become_these(vec![clear.clone(), none("4502", "new")], &mut refused);
        assert_eq!(rules.0, [old.clone(), clear]);
        assert_eq!(refused.0.len(), 1);
        rules.become_these(vec![none("4502", "new")], &mut refused);
        assert_eq!(rules.0, slice::from_ref(&old));
        rules.become_these(vec![old.clone()], &mut refused);
        assert_eq!(rules.0, [old]);
        rules.become_these(Vec::new(), &mut refused);
        assert!(rules.0.is_empty() && refused.0.len() == 2);
    }
}
