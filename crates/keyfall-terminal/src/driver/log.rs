//! What the log says of events and drops (docs/LOGGING.md).

use std::collections::BTreeMap;

use keyfall_protocol::terminal::{Cause, Event};
use keyfall_protocol::{DropCounters, DropReason};

/// Drop counters as the log told them last.
#[derive(Default)]
pub(super) struct Told(BTreeMap<DropReason, u64>);

impl Told {
    /// One line a reason, at most every ten seconds (docs/LOGGING.md).
    pub(super) fn tell_more(&mut self, drops: &DropCounters) {
        for (reason, count, _) in drops.iter() {
            let logged = self.0.entry(reason).or_default();
            let more = count - *logged;
            *logged = count;
            if more == 0 {
                continue;
            }
            let (name, code, count) = (reason.name(), reason.code(), more);
            if AT_WORK.contains(&reason) {
                tracing::debug!(reason = name, code, count, "dropped, as it should be");
            } else {
                tracing::warn!(reason = name, code, count, "dropped");
            }
        }
    }
}

/// The fields are those of docs/LOGGING.md.
pub(super) fn log_event(event: &Event) {
    match event {
        Event::KeyReceived {
            group,
            epoch,
            generation,
        } => {
            let cause = "distribution";
            tracing::info!(%group, %epoch, %generation, cause, "a group's key was received");
        }
        Event::Renewed {
            group,
            from,
            to,
            cause,
        } => {
            let cause = match cause {
                Cause::Command => "command",
                Cause::Validity => "schedule",
                Cause::Gap => "gap",
                Cause::Session => "session",
            };
            tracing::info!(%group, %from, %to, cause, "a group's key was renewed");
        }
        Event::FleetRenewed { from, to } => {
            tracing::info!(%from, %to, "the fleet's generation was renewed");
        }
        Event::OffsetRenewed { from, to } => {
            tracing::info!(from, to, "this terminal's own wrap key was renewed");
        }
        Event::Sending {
            group,
            epoch,
            generation,
        } => tracing::info!(%group, %epoch, %generation, "a key is sent with from now on"),
        Event::Retired {
            group,
            epoch,
            generation,
        } => tracing::info!(%group, %epoch, %generation, "an old generation was wiped"),
        Event::TimeHeard { .. } => tracing::info!("the first beacon was heard"),
        Event::SessionRefused { group } => {
            tracing::info!(%group, "a media relay waits for its group's key");
        }
        Event::KeySetHeard { version } => tracing::info!(version, "the root listed new keys"),
        Event::Excluded { terminals } => {
            for terminal in terminals {
                tracing::warn!(%terminal, "a terminal was excluded: nobody listens to it any more");
            }
        }
        Event::Readmitted { terminals } => {
            for terminal in terminals {
                tracing::warn!(%terminal, "a stolen key had excluded a terminal: it is back");
            }
        }
        Event::Locked { by_server } => {
            let cause = if *by_server { "command" } else { "user" };
            tracing::info!(cause, "the terminal is locked");
        }
        Event::Unlocked => tracing::info!("the terminal is unlocked"),
        Event::UnlockAllowed => tracing::info!("the server allows unlocking"),
        Event::Stopped { group, deadline } => {
            tracing::info!(%group, %deadline, "the server stopped the group: packets wait");
        }
        Event::Resumed { group, cause } => {
            let cause = cause.name();
            tracing::info!(%group, cause, "the group sends again");
        }
        Event::KeyWanted {
            group,
            epoch,
            generation,
        } => {
            tracing::info!(%group, %epoch, %generation, "a group changes to a key that is not held")
        }
        Event::RecordChanged { version } => {
            tracing::info!(
                version,
                "the server says which addresses are this terminal's"
            )
        }
        Event::Removed { group } => {
            tracing::warn!(%group, "the server says that this terminal is no member: the key is gone");
        }
        Event::AskEnded { outcome } => {
            let outcome = outcome.name();
            tracing::info!(outcome, "a request for keys has ended");
        }
        Event::Notified { .. } => tracing::info!("the server asks to come and fetch"),
        Event::PathFound {
            source,
            destination,
        } => tracing::debug!(ce1 = %source, ce2 = %destination, "a key search found the path"),
        Event::PathLost {
            source,
            destination,
            reason,
        } => tracing::debug!(ce1 = %source, ce2 = %destination, %reason, "no path"),
        Event::PeerChanged { peer } => {
            tracing::debug!(%peer, "a peer is elsewhere, or speaks for others")
        }
        Event::PathsChanged => tracing::debug!("this terminal's own record changed"),
        Event::SessionReady { .. }
        | Event::MarksStored { .. }
        | Event::PacketSessionsReady { .. }
        | Event::PacketSessionsRefused { .. }
        | Event::PacketMarksStored { .. }
        | Event::StockMarkStored { .. } => {}
        Event::StockSenderReady { group, spi, until } => {
            tracing::warn!(
                group = group.get(),
                spi = %spi,
                until = until.get(),
                "a key for a stock sender was made: whoever has it reads and sends until then"
            );
        }
        Event::StockSenderRefused { .. } => {}
        Event::StockSenderEnded { group, spi } => {
            tracing::info!(group = group.get(), spi = %spi, "a stock sender's key has ended");
        }
    }
}

/// What a terminal drops that is at work and not in trouble.
const AT_WORK: [DropReason; 5] = [
    DropReason::NotNewer,
    DropReason::NotAddressed,
    DropReason::KeySetNotNewer,
    DropReason::OwnPacket,
    DropReason::Locked,
];
