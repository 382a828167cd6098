//! A call in the measured group: two members speak, all others listen, in real SRTP.

use anyhow::Context as _;
use keyfall_plane::{SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::terminal::{Input, Order};
use keyfall_sim::{Ear, rtp_packet};

use super::fleet::Fleet;

/// Who speaks, who listens, and what came of it.
pub(super) struct Speech {
    speakers: Vec<Speaker>,
    ears: Vec<Ear>,
    pub(super) packets: u64,
    pub(super) hearings: u64,
    pub(super) lost: u64,
    pub(super) delayed: u64,
}

struct Speaker {
    place: usize,
    sender: SrtpSender,
    sequence: u16,
}

impl Speech {
    /// The first and the last member speak.
    pub(super) fn begin(fleet: &mut Fleet) -> anyhow::Result<Self> {
        let (now, group) = (fleet.desk.clock.now, fleet.group);
        let last = fleet.terminals.len().saturating_sub(1);
        let mut speakers = Vec::new();
        for (place, ssrc) in [(0, 1), (last, 2)] {
            let member = &mut fleet.terminals[place];
            let opened = member.feed(now, Input::Order(Order::OpenSession { group }))?;
            let stream = SrtpStream {
                suite: SrtpSuite::AeadAes256Gcm,
                sender: member.machine.identity().number,
                session: opened.session.context("a session")?,
                ssrc,
            };
            speakers.push(Speaker {
                place,
                sender: SrtpSender::new(stream, Stretch::default()),
                sequence: 0,
            });
        }
        Ok(Self {
            speakers,
            ears: fleet.terminals.iter().map(|_| Ear::default()).collect(),
            packets: 0,
            hearings: 0,
            lost: 0,
            delayed: 0,
        })
    }

    /// One packet of each speaker, heard by all.
    pub(super) fn say(&mut self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let (now, group) = (fleet.desk.clock.now, fleet.group);
        for speaker in &mut self.speakers {
            self.packets += 1;
            let machine = &fleet.terminals[speaker.place].machine;
            let Some(key) = machine.send_key(group) else {
                self.delayed += 1;
                continue;
            };
            speaker.sequence = speaker.sequence.wrapping_add(1);
            let ssrc = speaker.sender.stream().ssrc;
            let mut packet = rtp_packet(ssrc, speaker.sequence, &[0x55; 160]);
            let protected = speaker.sender.protect_rtp(key, &mut packet);
            protected.map_err(|refused| anyhow::anyhow!("a packet is refused: {refused:?}"))?;
            for (place, ear) in self.ears.iter_mut().enumerate() {
                if place == speaker.place {
                    continue;
                }
                self.hearings += 1;
                let member = &mut fleet.terminals[place];
                match ear.hear(&mut member.machine, now, group, SOURCE, &packet) {
                    Ok(heard) => {
                        if let Some(trial) = heard.trial {
                            member.feed(now, Input::Opened(trial))?;
                        }
                    }
                    Err(_) => self.lost += 1,
                }
            }
        }
        Ok(())
    }

    /// Whether all speakers send under the group's newest key.
    pub(super) fn sends_under(&self, fleet: &Fleet) -> bool {
        let newest = fleet.desk.newest(fleet.group);
        self.speakers.iter().all(|speaker| {
            let key = fleet.terminals[speaker.place].machine.send_key(fleet.group);
            key.map(|key| (key.epoch(), key.generation())) == newest
        })
    }
}

/// The relay's number of where packets come from.
const SOURCE: u64 = 1;
