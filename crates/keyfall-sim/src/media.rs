//! Speech between terminals: the media relay's part, without sockets.

use std::collections::HashMap;
use std::rc::Rc;

use keyfall_plane::{Arrival, Refused, SrtpReceiver, SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber, Tick};
use keyfall_protocol::keys::{MasterKey, SrtpSuite};
use keyfall_protocol::terminal::{ReceiveKey, Source, Terminal, TrafficQuery, Trial};

use crate::capture::CapturedPacket;
use crate::station::StationId;

/// The sending half of one SSRC at one station.
pub struct Speaker {
    pub station: StationId,
    pub group: GroupNumber,
    sender: SrtpSender,
    sequence: u16,
}

impl Speaker {
    /// For a session that the terminal said is recorded.
    #[must_use]
    pub fn new(
        station: StationId,
        number: TerminalNumber,
        group: GroupNumber,
        session: SessionId,
        ssrc: u32,
    ) -> Self {
        let stream = SrtpStream {
            suite: SUITE,
            sender: number,
            session,
            ssrc,
        };
        Self {
            station,
            group,
            sender: SrtpSender::new(stream, Stretch::default()),
            sequence: 0,
        }
    }

    #[must_use]
    pub fn stream(&self) -> &SrtpStream {
        self.sender.stream()
    }

    /// The next packet, under `key`.
    pub fn say(&mut self, at: Tick, key: &MasterKey, payload: &[u8]) -> CapturedPacket {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = rtp_packet(self.stream().ssrc, self.sequence, payload);
        self.sender
            .protect_rtp(key, &mut packet)
            .expect("sequence numbers that rise by one are protected");
        CapturedPacket {
            at,
            sender: self.stream().sender,
            group: self.group,
            epoch: key.epoch(),
            generation: key.generation(),
            octets: Rc::from(packet),
        }
    }
}

/// The receiving half of one station: every stream that it has heard.
#[derive(Default)]
pub struct Ear(HashMap<(GroupNumber, SrtpStream), SrtpReceiver>);

/// What an opened packet brought.
#[derive(Debug)]
pub struct Heard {
    /// The RTP packet.
    pub plain: Vec<u8>,
    /// To be fed to the terminal: the packet opened under a generation that was not held.
    pub trial: Option<Trial>,
}

impl Ear {
    /// Opens a packet as the relay does: with the session keys of its stream, else with a key that
    /// the terminal finds.
    ///
    /// # Errors
    /// Why it came to nothing; nothing changed then.
    pub fn hear(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        group: GroupNumber,
        source: Source,
        packet: &[u8],
    ) -> Result<Heard, DropReason> {
        let arrival = Arrival::of_srtp(SUITE, packet).map_err(|_| DropReason::NotMedia)?;
        let stream = arrival.stream(SUITE);
        if stream.sender == terminal.identity().number {
            return Err(DropReason::OwnPacket);
        }
        terminal.may_receive(group, stream.sender)?;
        let mut plain = Vec::new();
        if let Some(receiver) = self.0.get_mut(&(group, stream)) {
            match receiver.unprotect_rtp(packet, &mut plain) {
                Ok(_) => return Ok(Heard { plain, trial: None }),
                Err(Refused::KeyUnknown) => {}
                Err(refused) => return Err(reason_of(refused)),
            }
        }
        let query = TrafficQuery {
            group,
            tag: arrival.mki.tag(),
            sender: stream.sender,
            source,
        };
        let key = terminal.receive_key(now, query)?;
        let fresh = SrtpReceiver::new(stream, Stretch::default());
        let mut receiver = self.0.remove(&(group, stream)).unwrap_or(fresh);
        let master = match &key {
            ReceiveKey::Held(master) => master,
            ReceiveKey::Trial(trial) => trial.key(),
        };
        let known = receiver.marks().rtp.is_some();
        let opened = receiver.try_rtp(master, packet, &mut plain);
        if known || opened.is_ok() {
            self.0.insert((group, stream), receiver);
        }
        opened.map_err(reason_of)?;
        let trial = match key {
            ReceiveKey::Held(_) => None,
            ReceiveKey::Trial(trial) => Some(trial),
        };
        Ok(Heard { plain, trial })
    }

    /// Wipes what was derived from a generation that is held no longer.
    pub fn retire(&mut self, group: GroupNumber, epoch: KeyEpoch, generation: Generation) {
        for ((of, _), receiver) in &mut self.0 {
            if *of == group {
                receiver.retain_keys(|held_epoch, held| (held_epoch, held) != (epoch, generation));
            }
        }
    }
}

/// A plain RTP packet: version 2, payload type 96.
#[must_use]
pub fn rtp_packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn reason_of(refused: Refused) -> DropReason {
    match refused {
        Refused::Malformed(_) | Refused::BadMki | Refused::OutsideStretch => DropReason::NotMedia,
        Refused::OtherStream | Refused::KeyUnknown => DropReason::UnknownTag,
        Refused::NotEncrypted | Refused::AuthenticationFailed => DropReason::Authentication,
        Refused::Replayed => DropReason::Replayed,
        Refused::TooOld => DropReason::BeforeWindow,
    }
}

const SUITE: SrtpSuite = SrtpSuite::AeadAes256Gcm;
