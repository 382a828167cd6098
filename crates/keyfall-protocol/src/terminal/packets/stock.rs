//! Keys that were printed for stock senders (FORMATS section 7, "Pinned"): with the group until their
//! stated end.

use crate::command::Prefix;
use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, UnixSeconds};
use crate::keys::{EspKeys, EspSuite, PinnedSpi};
use crate::rng::{Random, octets};
use crate::stats::DropReason;
use crate::terminal::group::Lease;
use crate::terminal::packets::Packets;
use crate::terminal::{Event, Output, Terminal};

/// One stock sender and its key. Whoever was given the key reads and sends as that SPI until the end,
/// whatever becomes of the group.
#[derive(Debug)]
pub struct StockSender {
    pub spi: PinnedSpi,
    pub keys: EspKeys,
    /// The inner addresses that it may send from.
    pub prefixes: Vec<Prefix>,
    /// Nothing of it up to this sequence number is delivered again.
    pub mark: u32,
    end: Lease,
}

/// What a stock sender is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewStockSender {
    pub group: GroupNumber,
    pub suite: EspSuite,
    /// How long its key is received, at most 7 days.
    pub seconds: u32,
    /// The inner addresses that it may send from, at most 8.
    pub prefixes: Vec<Prefix>,
}

impl StockSender {
    /// When this terminal forgets the key.
    #[must_use]
    pub fn until(&self) -> UnixSeconds {
        self.end.end
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(7)?
            .u8(self.keys.suite().number())?
            .u32(self.spi.get())?
            .bytes(self.keys.key_and_salt())?;
        e.u32(self.mark)?
            .u32(self.end.end.get())?
            .u64(self.end.powered_end)?
            .array(self.prefixes.len() as u64)?;
        self.prefixes.iter().try_for_each(|prefix| prefix.write(e))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("stock sender", 7)?;
        let suite = u8::try_from(r.uint("suite")?).ok();
        let suite = suite.and_then(EspSuite::from_number);
        let suite = suite.ok_or(DecodeError::OutOfRange { what: "suite" })?;
        let spi =
            PinnedSpi::new(r.uint32("SPI")?).ok_or(DecodeError::OutOfRange { what: "SPI" })?;
        let keys = EspKeys::from_octets(suite, r.bytes("ESP key")?);
        let mut sender = Self {
            spi,
            keys: keys.ok_or(DecodeError::OutOfRange { what: "ESP key" })?,
            mark: r.uint32("mark")?,
            end: Lease {
                end: r.time("end")?,
                powered_end: r.uint("end")?,
            },
            prefixes: Vec::new(),
        };
        for _ in 0..r.array_between("prefixes", 0, PREFIXES_MAX)? {
            sender.prefixes.push(Prefix::read(r, "prefix")?);
        }
        Ok(sender)
    }
}

impl Packets {
    pub(super) fn write_stock(&self, e: &mut Writer<'_>) -> Written {
        e.array(self.stock.len() as u64)?;
        self.stock.iter().try_for_each(|sender| sender.write(e))
    }

    pub(super) fn read_stock(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..r.array_between("stock senders", 0, STOCK_MAX as u64)? {
            self.stock.push(StockSender::read(r)?);
        }
        Ok(())
    }

    /// Wipes the keys whose end has come, and says whose.
    pub(in crate::terminal) fn end_stock(
        &mut self,
        time: Option<UnixSeconds>,
        powered: u64,
    ) -> Vec<PinnedSpi> {
        let ended = self
            .stock
            .extract_if(.., |it| it.end.is_over(0, time, powered));
        ended.map(|sender| sender.spi).collect()
    }
}

impl Terminal {
    /// The stock senders that this terminal receives, each with its group.
    ///
    /// SECURITY: none of a group whose lease is over, and none where this terminal is excluded (KR-558).
    pub fn stock_senders(&self) -> impl Iterator<Item = (GroupNumber, &StockSender)> {
        let own = self.identity.number;
        self.stored_stock()
            .filter(move |&(group, _)| self.may_receive(group, own).is_ok())
    }

    fn stored_stock(&self) -> impl Iterator<Item = (GroupNumber, &StockSender)> {
        let groups = self.user.iter().flat_map(|user| &user.groups);
        groups.flat_map(|(&number, group)| group.packets.stock.iter().map(move |it| (number, it)))
    }

    /// A key for a stock sender, derived from the one that this terminal sends with.
    pub(in crate::terminal) fn add_stock_sender(
        &mut self,
        wanted: NewStockSender,
        rng: &mut dyn Random,
    ) {
        let number = wanted.group;
        let event = match self.new_stock_sender(wanted, rng) {
            Ok(sender) => {
                let (spi, until) = (sender.spi, sender.until());
                if let Some(group) = self.group_mut(number) {
                    group.packets.stock.push(sender);
                }
                self.dirty = true;
                Event::StockSenderReady {
                    group: number,
                    spi,
                    until,
                }
            }
            Err(reason) => Event::StockSenderRefused {
                group: number,
                reason,
            },
        };
        self.events.push(event);
    }

    fn new_stock_sender(
        &self,
        wanted: NewStockSender,
        rng: &mut dyn Random,
    ) -> Result<StockSender, DropReason> {
        let NewStockSender {
            group: number,
            suite,
            seconds,
            mut prefixes,
        } = wanted;
        prefixes.truncate(PREFIXES_MAX as usize);
        let (Some(key), Some(now)) = (self.send_key(number), self.time()) else {
            return Err(self.why_not_sending(number));
        };
        if self.stored_stock().count() >= STOCK_MAX {
            return Err(DropReason::TooManyStockSenders);
        }
        let is_free = |spi| self.stored_stock().all(|(_, held)| held.spi != spi);
        let spi = loop {
            let drawn = u32::from_be_bytes(octets(rng)) >> 1;
            if let Some(spi) = PinnedSpi::new(drawn).filter(|&spi| is_free(spi)) {
                break spi;
            }
        };
        let powered = self.powered.charged();
        let end = now.plus(seconds.clamp(1, STOCK_SECONDS_MAX));
        Ok(StockSender {
            spi,
            keys: key.derive_esp_pinned(suite, spi, octets(rng)),
            prefixes,
            mark: 0,
            end: Lease::stated(end, now, STOCK_SECONDS_MAX, powered),
        })
    }

    pub(in crate::terminal) fn mark_stock_sender(
        &mut self,
        number: GroupNumber,
        spi: PinnedSpi,
        sequence: u32,
    ) {
        let group = self.group_mut(number);
        let mut senders = group.into_iter().flat_map(|it| &mut it.packets.stock);
        let Some(sender) = senders.find(|it| it.spi == spi) else {
            return;
        };
        sender.mark = sender.mark.max(sequence);
        let sequence = sender.mark;
        self.dirty = true;
        self.events.push(Event::StockMarkStored {
            group: number,
            spi,
            sequence,
        });
    }

    /// After every input.
    pub(in crate::terminal) fn end_stock_senders(&mut self) {
        let (time, powered) = (self.time(), self.powered.charged());
        let groups = self.user.iter_mut().flat_map(|user| &mut user.groups);
        for (&group, held) in groups {
            for spi in held.packets.end_stock(time, powered) {
                self.dirty = true;
                let event = Event::StockSenderEnded { group, spi };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }
}

/// Stock senders of one terminal.
const STOCK_MAX: usize = 64;
/// Prefixes of one stock sender.
const PREFIXES_MAX: u64 = 8;
/// The longest life of a stock sender's key: seven days.
const STOCK_SECONDS_MAX: u32 = 7 * 24 * 3600;
