//! How sessions and marks stand in a snapshot.

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::EspSession;
use crate::terminal::packets::{Heard, Packets};

impl Packets {
    /// The most octets that [`Self::write`] writes.
    pub(in crate::terminal) fn octets_max(&self) -> usize {
        let heard = |heard: &Heard| 40 + 12 * heard.sessions.len() + 6 * heard.refused.len();
        16 + 12 * self.own.len()
            + (80 + 8 * 24) * self.stock.len()
            + self.heard.values().map(heard).sum::<usize>()
    }

    pub(in crate::terminal) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(3)?.array(self.own.len() as u64)?;
        for &(first, count) in &self.own {
            write_numbered(e, first, count)?;
        }
        e.array(self.heard.len() as u64)?;
        for (&(epoch, generation, sender), heard) in &self.heard {
            e.array(5)?.u32(epoch.get())?.u32(generation.get())?;
            e.u32(sender.get())?.array(heard.sessions.len() as u64)?;
            for &(session, mark) in &heard.sessions {
                write_numbered(e, session, mark)?;
            }
            e.array(heard.refused.len() as u64)?;
            for session in &heard.refused {
                e.bytes(session.as_bytes())?;
            }
        }
        self.write_stock(e)
    }

    pub(in crate::terminal) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("packets", 3)?;
        let mut packets = Self::default();
        for _ in 0..r.array_between("own sessions", 0, LISTED_MAX)? {
            packets.own.push(read_numbered(r)?);
        }
        for _ in 0..r.array_between("senders heard", 0, LISTED_MAX)? {
            r.array("sender heard", 5)?;
            let key = (r.epoch()?, r.generation()?, r.terminal()?);
            let mut heard = Heard::default();
            for _ in 0..r.array_between("sessions", 0, LISTED_MAX)? {
                heard.sessions.push(read_numbered(r)?);
            }
            for _ in 0..r.array_between("refused sessions", 0, LISTED_MAX)? {
                heard.refused.push(EspSession::new(r.octets("session")?));
            }
            packets.heard.insert(key, heard);
        }
        packets.read_stock(r)?;
        Ok(packets)
    }
}

fn write_numbered(e: &mut Writer<'_>, session: EspSession, number: u32) -> Written {
    e.array(2)?.bytes(session.as_bytes())?.u32(number)?;
    Ok(())
}

fn read_numbered(r: &mut Reader<'_>) -> Result<(EspSession, u32), DecodeError> {
    r.array("session", 2)?;
    Ok((EspSession::new(r.octets("session")?), r.uint32("number")?))
}

const LISTED_MAX: u64 = 65_536;
