//! How a group's key is changed while the group is at work: what the operator chose.

use std::fmt;

/// What an operator may set of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupPolicy {
    pub change: ChangeMode,
    pub stragglers: Stragglers,
    /// Whether the suite rsa-misty1 may carry this group's key: off for new groups (W-16).
    pub legacy: bool,
}

/// How the members move to a new key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChangeMode {
    /// They receive with the new key first and send with it later: nothing is held up.
    #[default]
    Hitless,
    /// All stop, and all start again under the new key.
    Barrier,
}

/// What becomes of members that can be reached and do not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stragglers {
    /// The others go on at the deadline; who is late follows.
    #[default]
    Follow,
    /// The others wait for them, an hour at the most.
    Wait,
    /// At the deadline they are taken out of the group.
    LeaveOut,
}

impl GroupPolicy {
    /// With what is named; the rest stays.
    #[must_use]
    pub fn with(
        self,
        change: Option<ChangeMode>,
        stragglers: Option<Stragglers>,
        legacy: Option<bool>,
    ) -> Self {
        Self {
            change: change.unwrap_or(self.change),
            stragglers: stragglers.unwrap_or(self.stragglers),
            legacy: legacy.unwrap_or(self.legacy),
        }
    }
}

/// As in the audit log.
impl fmt::Display for GroupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legacy = if self.legacy { "on" } else { "off" };
        write!(
            f,
            "change {}, stragglers {}, legacy sharing {legacy}",
            self.change.name(),
            self.stragglers.name()
        )
    }
}

impl ChangeMode {
    pub const ALL: [Self; 2] = [Self::Hitless, Self::Barrier];

    /// The word on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hitless => "hitless",
            Self::Barrier => "barrier",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl Stragglers {
    pub const ALL: [Self; 3] = [Self::Follow, Self::Wait, Self::LeaveOut];

    /// The word on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Wait => "wait",
            Self::LeaveOut => "leave-out",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chosen| chosen.name() == name)
    }
}
