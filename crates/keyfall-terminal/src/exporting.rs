//! Keys of the packet plane for other people's tools: of one session, or for a stock sender.

use std::collections::VecDeque;
use std::net::IpAddr;

use keyfall_api::control::{
    Answer, ControlError, PacketExport, PacketKeys, Refusal, StockSenderExport,
};
use keyfall_plane::{EspExport, Spi};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::Prefix;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{EspKeys, EspSuite, PinnedSpi};
use keyfall_protocol::terminal::{NewStockSender, Order, Terminal};

use crate::control::Client;

/// Who waits for the key of a stock sender to be stored, in the order of the orders.
#[derive(Debug, Default)]
pub(crate) struct Exporting(VecDeque<(Client, Way)>);

/// Outer addresses, and the UDP port at both.
#[derive(Debug)]
struct Way {
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

/// The keys of one session, whoever sends in it. `present`: a group's suite, and the newest session in
/// it that this terminal sends in.
pub(crate) fn session_keys(
    terminal: &Terminal,
    request: &PacketExport,
    present: impl Fn(GroupNumber) -> (EspSuite, Option<EspSession>),
) -> Answer {
    let made = || {
        let way = Way::read(&request.source, &request.destination, request.port)?;
        let group = group_of(terminal, request.group)?;
        let (suite, session) = present(group);
        let suite = match request.suite.as_deref() {
            None => suite,
            named => suite_of(named)?,
        };
        let session = match request.session.as_deref() {
            Some(text) => session_of(text)?,
            None => session.ok_or_else(|| {
                let sentence = "this terminal sends no packets in that group: name a session with \
                                --session, as `keyfall terminal status` shows those that it hears";
                bad(sentence.to_owned())
            })?,
        };
        let sender = match request.sender {
            None => terminal.identity().number,
            Some(number) => TerminalNumber::new(number)
                .ok_or_else(|| bad(format!("{number} is no terminal number")))?,
        };
        let generation = request.generation.map(|number| {
            Generation::new(number).ok_or_else(|| bad(format!("{number} is no generation")))
        });
        let key = terminal.packet_key(group, generation.transpose()?);
        let key = key.ok_or_else(|| {
            let sentence = "that generation is not held: `keyfall terminal status` shows which are";
            bad(sentence.to_owned())
        })?;
        let keys = key.derive_esp(suite, sender, session);
        let spi = Spi::new(sender, key.esp_tag()).get();
        Ok(way.packet_keys(group, spi, &keys, None))
    };
    made().map_or_else(Answer::Error, Answer::PacketKeys)
}

impl Exporting {
    /// What the machine is to do for a new stock sender; the answer comes with its event.
    pub(crate) fn ask(
        &mut self,
        terminal: &Terminal,
        client: Client,
        request: &StockSenderExport,
    ) -> Option<Order> {
        let checked = || {
            let way = Way::read(&request.source, &request.destination, request.port)?;
            let group = group_of(terminal, request.group)?;
            let prefixes = request.prefixes.iter().map(|text| {
                let read = text.parse::<Prefix>();
                read.map_err(|fault| bad(fault.to_string()))
            });
            let order = Order::AddStockSender(NewStockSender {
                group,
                suite: suite_of(request.suite.as_deref())?,
                seconds: request.seconds,
                prefixes: prefixes.collect::<Result<_, _>>()?,
            });
            Ok((way, order))
        };
        match checked() {
            Ok((way, order)) => {
                self.0.push_back((client, way));
                Some(order)
            }
            Err(error) => {
                client.tell(Answer::Error(error));
                None
            }
        }
    }

    pub(crate) fn on_ready(&mut self, terminal: &Terminal, spi: PinnedSpi) {
        let Some((client, way)) = self.0.pop_front() else {
            return;
        };
        match terminal.stock_senders().find(|(_, it)| it.spi == spi) {
            Some((group, sender)) => {
                let until = Some(sender.until());
                let keys = way.packet_keys(group, spi.get(), &sender.keys, until);
                client.tell(Answer::PacketKeys(keys));
            }
            None => client.refuse(
                Refusal::Locked,
                "the terminal was locked meanwhile".to_owned(),
            ),
        }
    }

    pub(crate) fn on_refused(&mut self, reason: DropReason) {
        if let Some((client, _)) = self.0.pop_front() {
            let refusal = if reason == DropReason::TooManyStockSenders {
                Refusal::TooMany
            } else {
                Refusal::NotAMember
            };
            client.refuse(refusal, format!("no key was made: {}", reason.sentence()));
        }
    }

    /// The machine forgot what it was asked.
    pub(crate) fn on_locked(&mut self) {
        for (client, _) in self.0.drain(..) {
            client.refuse(
                Refusal::Locked,
                "the terminal was locked meanwhile".to_owned(),
            );
        }
    }
}

impl Way {
    fn read(source: &str, destination: &str, port: u16) -> Result<Self, ControlError> {
        let address = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| bad(format!("{text:?} is no IP address")))
        };
        let (source, destination) = (address(source)?, address(destination)?);
        if source.is_ipv4() != destination.is_ipv4() || source.is_multicast() {
            let sentence =
                "name a source and a destination of one IP version, the source of one machine";
            return Err(bad(sentence.to_owned()));
        }
        Ok(Self {
            source,
            destination,
            port,
        })
    }

    fn packet_keys(
        &self,
        group: GroupNumber,
        spi: u32,
        keys: &EspKeys,
        until: Option<UnixSeconds>,
    ) -> PacketKeys {
        let export = EspExport {
            keys,
            spi,
            source: self.source,
            destination: self.destination,
            port: self.port,
        };
        PacketKeys {
            group: group.get(),
            spi: format!("{spi:#010x}"),
            suite: keys.suite().name().to_owned(),
            ip_xfrm: export.ip_xfrm().to_string(),
            wireshark: export.wireshark().map(|line| line.to_string()),
            until: until.map(UnixSeconds::get),
        }
    }
}

fn group_of(terminal: &Terminal, number: u32) -> Result<GroupNumber, ControlError> {
    if terminal.is_locked() {
        return Err(ControlError {
            refusal: Refusal::Locked,
            sentence: "the terminal is locked: open it with `keyfall terminal unlock`".to_owned(),
        });
    }
    let group = GroupNumber::new(number).filter(|&group| terminal.holds(group));
    group.ok_or_else(|| ControlError {
        refusal: Refusal::NotAMember,
        sentence: format!(
            "the key of group {number} is not held: `keyfall terminal status` shows the groups"
        ),
    })
}

fn suite_of(name: Option<&str>) -> Result<EspSuite, ControlError> {
    let Some(name) = name else {
        return Ok(EspSuite::default());
    };
    EspSuite::named(name).ok_or_else(|| {
        let names = EspSuite::ALL.map(EspSuite::name).join(", ");
        bad(format!("{name:?} is no suite: there are {names}"))
    })
}

fn session_of(text: &str) -> Result<EspSession, ControlError> {
    let wrong = || {
        let what = "the five octets that begin the IV of its packets";
        bad(format!(
            "{text:?} is no session: write ten hexadecimal digits, {what}"
        ))
    };
    let mut octets = [0; 5];
    if text.len() != 2 * octets.len() {
        return Err(wrong());
    }
    for (octet, pair) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(EspSession::new(octets))
}

fn bad(sentence: String) -> ControlError {
    ControlError {
        refusal: Refusal::BadRequest,
        sentence,
    }
}
