//! Stations speak and hear.

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{GroupNumber, SessionId};
use keyfall_protocol::terminal::{self, Event, Input};

use crate::capture::CapturedPacket;
use crate::media::Speaker;
use crate::station::StationId;
use crate::world::{FAR, World};

impl World {
    /// Opens a session and waits until it is recorded; `None` where the group is not held.
    pub fn speaker(&mut self, id: StationId, group: GroupNumber, ssrc: u32) -> Option<Speaker> {
        let told = self.stations[id.0].told.len();
        let order = terminal::Order::OpenSession { group };
        self.feed(id, Input::Order(order));
        loop {
            let answer = self.stations[id.0].told[told..]
                .iter()
                .find_map(|told| answer_for(group, &told.event));
            if let Some(session) = answer {
                let number = self.stations[id.0].number;
                return session.map(|session| Speaker::new(id, number, group, session, ssrc));
            }
            if !self.step(FAR) {
                return None;
            }
        }
    }

    /// Says something; `None` where the station may not send now.
    pub fn speak(&mut self, speaker: &mut Speaker, payload: &[u8]) -> Option<CapturedPacket> {
        let now = self.now();
        let machine = self.stations[speaker.station.0].machine.as_ref()?;
        let packet = speaker.say(now, machine.send_key(speaker.group)?, payload);
        self.packets.push(packet.clone());
        Some(packet)
    }

    /// Hears a packet: opens it, tells the terminal of a generation that it opened under, and
    /// returns the RTP packet.
    ///
    /// # Errors
    /// Why it came to nothing; a station that is off hears nothing, as one that does not hold the
    /// group.
    pub fn hear(&mut self, id: StationId, packet: &CapturedPacket) -> Result<Vec<u8>, DropReason> {
        let source = u64::from(packet.sender.get());
        self.hear_from(id, packet.group, source, &packet.octets)
    }

    /// As [`Self::hear`], from any source and for any octets.
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub fn hear_from(
        &mut self,
        id: StationId,
        group: GroupNumber,
        source: terminal::Source,
        octets: &[u8],
    ) -> Result<Vec<u8>, DropReason> {
        let now = self.now();
        let station = &mut self.stations[id.0];
        let tick = station.tick(now);
        let machine = station.machine.as_mut().ok_or(DropReason::NotHeld)?;
        let heard = station.ear.hear(machine, tick, group, source, octets)?;
        if let Some(trial) = heard.trial {
            self.feed_opened(id, trial);
        }
        Ok(heard.plain)
    }
}

/// The session that `event` grants for `group`, or that it grants none.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else is told is no answer"
)]
fn answer_for(group: GroupNumber, event: &Event) -> Option<Option<SessionId>> {
    match *event {
        Event::SessionReady { group: of, session } if of == group => Some(Some(session)),
        Event::SessionRefused { group: of } if of == group => Some(None),
        _ => None,
    }
}
