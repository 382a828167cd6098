//! What members say of a change: that they hold the key, that they stopped, that they send again.

use core::net::SocketAddr;

use crate::command::HaltKind;
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber};
use crate::server::Server;
use crate::server::callers::Caller;
use crate::server::changing::{Phase, State};
use crate::sharing::{Bundle, Confirmation};

/// How many confirmations came since the start, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConfirmationCounts {
    pub taken: u64,
    /// Said once more, or said of a phase that is over.
    pub repeated: u64,
    /// Of no change that is at work: another transaction, another key.
    pub out_of_turn: u64,
    /// From nobody that is known, or from no member.
    pub unknown: u64,
    /// The authentication value does not fit.
    pub forged: u64,
    /// Datagrams that are none.
    pub malformed: u64,
}

impl Server {
    /// What became of the confirmations that came.
    #[must_use]
    pub fn confirmations(&self) -> ConfirmationCounts {
        self.changing.counts
    }

    /// A datagram from anywhere. What is not taken gets silence.
    pub(in crate::server) fn on_datagram(&mut self, from: SocketAddr, octets: &[u8]) {
        if let Ok(confirmation) = Confirmation::decode(octets) {
            self.on_confirmation(&confirmation, from);
        } else if let Ok(bundle) = Bundle::decode(octets) {
            self.on_bundle(&bundle);
        } else {
            self.changing.counts.malformed += 1;
        }
    }

    /// A verified message says that the terminal holds the group's key: an ACK, or a KEY-REQ. It is
    /// heard already: whoever calls this has told [`Peers`](crate::server::peers::Peers) so.
    pub(in crate::server) fn on_holding(
        &mut self,
        terminal: TerminalNumber,
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    ) {
        let member = |server: &Self| {
            let record = server.groups.get(&group);
            record.is_some_and(|record| record.members.contains(&terminal))
        };
        if !member(self) {
            return;
        }
        let held = (epoch, generation);
        if let Some(mut state) = self.changing.take(group) {
            let course = state.course_mut();
            course.members.join(terminal);
            if held >= course.key {
                course.members.mark(terminal, Phase::Distributing);
                state.answered(self.at.now);
            }
            self.changing.put(state, self.at.now);
        } else if let Some(start) = self.changing.starts.get(&group) {
            let counts = self.at.wall < start.halt.deadline;
            if counts && held >= (start.halt.epoch, start.halt.generation) {
                self.changing.late.insert((group, terminal));
            }
        }
    }

    /// A STOP-ACK or START-ACK from where that terminal is.
    pub(in crate::server) fn on_confirmation(
        &mut self,
        confirmation: &Confirmation,
        from: SocketAddr,
    ) {
        if let Some(terminal) = self.take_confirmation(confirmation) {
            self.peers.heard(terminal, from, self.at.now);
        }
    }

    /// What a member collected: each counts for the one that made it, who is elsewhere.
    pub(in crate::server) fn on_bundle(&mut self, bundle: &Bundle) {
        for confirmation in &bundle.confirmations {
            self.take_confirmation(confirmation);
        }
    }

    /// Who it is that confirmed what it had not confirmed before (KR-336, KR-337, KR-338).
    fn take_confirmation(&mut self, confirmation: &Confirmation) -> Option<TerminalNumber> {
        let group = confirmation.group;
        let phase = match confirmation.kind {
            HaltKind::Stop => Phase::Stopping,
            HaltKind::Start => Phase::Starting,
        };
        // What costs no cryptography comes first.
        let counts = &mut self.changing.counts;
        let running = self.changing.running.get(&group);
        let expected = running.and_then(|(_, state)| match (state, phase) {
            (State::Stopping(state), Phase::Stopping) => Some((state.halt, &state.course)),
            (State::Starting(state), Phase::Stopping) if state.course.halts() => {
                Some((state.halt, &state.course))
            }
            (State::Starting(state), Phase::Starting) => Some((state.halt, &state.course)),
            (
                State::Distributing(_) | State::Stopping(_) | State::Starting(_),
                Phase::Distributing | Phase::Stopping | Phase::Starting,
            ) => None,
        });
        let same = expected.filter(|(halt, _)| {
            (halt.transaction, halt.epoch, halt.generation)
                == (
                    confirmation.transaction,
                    confirmation.epoch,
                    confirmation.generation,
                )
        });
        let Some((_, course)) = same else {
            counts.out_of_turn += 1;
            return None;
        };
        let g = self.fleet.fleet_generation;
        let caller = self.callers.find(confirmation.id, g, &self.terminals);
        let members = self.groups.get(&group).map(|record| &record.members);
        let member = caller.map(Caller::terminal);
        let member = member.filter(|caller| members.is_some_and(|it| it.contains(caller)));
        let Some(record) = member.and_then(|member| self.terminals.get(&member)) else {
            counts.unknown += 1;
            return None;
        };
        if course.members.has_done(record.number, phase) {
            counts.repeated += 1;
            return None;
        }
        if !confirmation.check(&record.wrap) {
            counts.forged += 1;
            return None;
        }
        counts.taken += 1;
        let (terminal, now) = (record.number, self.at.now);
        let mut state = self.changing.take(group)?;
        let course = state.course_mut();
        // Whoever stopped for the key, or sends with it, holds it.
        course.members.mark(terminal, Phase::Distributing);
        course.members.mark(terminal, phase);
        match phase {
            Phase::Distributing => {}
            Phase::Stopping => course.times.last_stop_ack = Some(now),
            Phase::Starting => course.times.last_start_ack = Some(now),
        }
        state.answered(now);
        self.changing.put(state, now);
        Some(terminal)
    }
}
