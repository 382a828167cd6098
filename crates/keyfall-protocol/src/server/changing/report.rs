//! What came of a change, for the operator.

use std::time::Duration;

use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use crate::server::{ChangeBegun, ChangeMode};

/// How the change of a group's key went, or goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeReport {
    pub group: GroupNumber,
    /// What the group sends with after it.
    pub epoch: KeyEpoch,
    pub generation: Generation,
    pub mode: ChangeMode,
    pub begun_at: UnixSeconds,
    pub state: ChangeState,
    /// Members that could be reached when it began, or called meanwhile.
    pub reachable: usize,
    /// Of them: hold the key, as far as they said so; have confirmed STOP; have confirmed START.
    pub holding: usize,
    pub stopped: usize,
    pub started: usize,
    /// Who missed something, by rising number.
    pub stragglers: Vec<Straggler>,
    /// Whether those of them who never confirmed are taken out of the group.
    pub left_out: bool,
    pub times: ChangeTimes,
}

/// Where a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeState {
    At(Phase),
    Finished,
    /// A newer change of the group came in between.
    Superseded,
    /// The server ended in the middle; stops ended by themselves.
    Interrupted,
}

/// What members are asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// To fetch the key.
    Distributing,
    /// To send nothing. Only at a barrier.
    Stopping,
    /// To send under the new key.
    Starting,
}

/// A member that did not do in time what it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Straggler {
    pub terminal: TerminalNumber,
    /// The first that it missed.
    pub missed: Phase,
    /// It confirmed START all the same.
    pub caught_up: bool,
}

/// When what happened. Of a change from before a restart, counted from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeTimes {
    pub begun: Tick,
    pub first_stop: Option<Tick>,
    pub last_stop_ack: Option<Tick>,
    pub first_start: Option<Tick>,
    pub last_start_ack: Option<Tick>,
    pub ended: Option<Tick>,
}

impl From<&ChangeBegun> for ChangeReport {
    /// What there is to say where nothing of it has happened yet.
    fn from(begun: &ChangeBegun) -> Self {
        Self {
            group: begun.group,
            epoch: begun.epoch,
            generation: begun.generation,
            mode: begun.mode,
            begun_at: begun.at,
            state: ChangeState::At(Phase::Distributing),
            reachable: 0,
            holding: 0,
            stopped: 0,
            started: 0,
            stragglers: Vec::new(),
            left_out: false,
            times: ChangeTimes::default(),
        }
    }
}

impl ChangeReport {
    /// From the first STOP to the last START-ACK: no member was silent for longer that confirmed
    /// both.
    #[must_use]
    pub fn halted_for(&self) -> Option<Duration> {
        let (stop, start) = (self.times.first_stop?, self.times.last_start_ack?);
        Some(start.since(stop))
    }

    /// Who never confirmed.
    pub fn silent(&self) -> impl Iterator<Item = TerminalNumber> + '_ {
        let silent = self.stragglers.iter().filter(|it| !it.caught_up);
        silent.map(|it| it.terminal)
    }
}

impl ChangeState {
    /// The word in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::At(phase) => phase.name(),
            Self::Finished => "finished",
            Self::Superseded => "superseded",
            Self::Interrupted => "interrupted",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let ended = [Self::Finished, Self::Superseded, Self::Interrupted];
        let all = Phase::ALL.into_iter().map(Self::At).chain(ended);
        all.into_iter().find(|state| state.name() == name)
    }
}

impl Phase {
    pub const ALL: [Self; 3] = [Self::Distributing, Self::Stopping, Self::Starting];

    /// The word in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Distributing => "distributing",
            Self::Stopping => "stopping",
            Self::Starting => "starting",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

impl ChangeTimes {
    /// With ticks that count from the beginning, as a store keeps them.
    #[must_use]
    pub fn since_begin(&self) -> Self {
        let offset = |at: Tick| Tick::default().plus(at.since(self.begun));
        Self {
            begun: Tick::default(),
            first_stop: self.first_stop.map(offset),
            last_stop_ack: self.last_stop_ack.map(offset),
            first_start: self.first_start.map(offset),
            last_start_ack: self.last_start_ack.map(offset),
            ended: self.ended.map(offset),
        }
    }
}
