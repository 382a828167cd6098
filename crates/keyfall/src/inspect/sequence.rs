//! Who said what to whom in a capture, in order: parts put together, repeats named, one line for what went
//! to several.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use keyfall_protocol::command::{Body, Command, Unverified, UnverifiedRecord};
use keyfall_protocol::search::message::SearchMessage;
use keyfall_protocol::sharing::message::{KeyDis, Message, Part};
use keyfall_protocol::sharing::{Assembly, Bundle, Confirmation};

use super::capture::Datagram;
use super::sharing::{confirmation_name, status_in_words};

/// What is drawn.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Servers first, each side in the order in which it was first heard.
    pub(super) lifelines: Vec<Lifeline>,
    pub(super) steps: Vec<Step>,
    /// Messages for which there is no room.
    pub(super) not_drawn: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lifeline {
    pub(super) role: Role,
    pub(super) address: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Server,
    Terminal,
    /// A member's address at which it collects what others confirm.
    Collector,
    /// The carrier's address, where no terminal was heard: whoever listens.
    Listeners,
    /// An address that somebody searches for.
    Sought,
}

/// One message.
#[derive(Debug)]
pub(super) struct Step {
    /// Since the first one.
    pub(super) after: Duration,
    /// Places in the lifelines.
    pub(super) from: usize,
    pub(super) to: Vec<usize>,
    /// By a carrier.
    pub(super) to_all: bool,
    pub(super) name: &'static str,
    pub(super) detail: String,
    pub(super) sort: Sort,
    /// Of all its datagrams together.
    pub(super) octets: usize,
    /// Of a message in several datagrams: how many were seen, and how many there are.
    pub(super) parts: Option<(usize, usize)>,
    /// How often the same octets were sent before.
    pub(super) repeat: usize,
}

/// What a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Asks,
    BringsKeys,
    Confirms,
    Stops,
    Starts,
    Orders,
}

/// What one datagram says.
struct Said<'d> {
    name: &'static str,
    detail: String,
    sort: Sort,
    speaker: Role,
    /// A member may bring it for others.
    collectable: bool,
    /// A terminal says it to another: key search.
    search: bool,
    /// It is a command as a carrier brings it.
    carried: bool,
    /// The signed command in it, where it holds nothing else.
    frame: Option<&'d [u8]>,
    part: Option<Part<'d>>,
}

impl Sequence {
    pub(super) fn of(datagrams: &[Datagram]) -> Self {
        let said: Vec<_> = datagrams
            .iter()
            .filter_map(|datagram| Some((datagram, Said::read(&datagram.octets)?)))
            .collect();
        let mut telling = Telling {
            lifelines: lifelines(&said),
            begun: said.first().map_or(Duration::ZERO, |(it, _)| it.at),
            steps: Vec::new(),
            sent: HashMap::new(),
            open: HashMap::new(),
            assembly: Assembly::new(PARTLY_MAX, PARTS_MAX),
            not_drawn: 0,
        };
        for (datagram, said) in said {
            telling.tell(datagram, said);
        }
        let mut steps: Vec<_> = telling.steps.into_iter().map(|told| told.step).collect();
        let not_drawn = telling.not_drawn + steps.len().saturating_sub(STEPS_MAX);
        steps.truncate(STEPS_MAX);
        Self {
            lifelines: telling.lifelines,
            steps,
            not_drawn,
        }
    }
}

/// Sender and receiver.
type Ends = (SocketAddr, SocketAddr);

struct Telling<'d> {
    lifelines: Vec<Lifeline>,
    begun: Duration,
    steps: Vec<Told<'d>>,
    /// How often octets went from one place to another, and when last.
    sent: HashMap<(Ends, &'d [u8]), (usize, Duration)>,
    /// Steps of messages in parts, with the parts that were seen.
    open: HashMap<(Ends, [u8; 8]), (usize, Vec<u8>)>,
    assembly: Assembly<Ends>,
    not_drawn: usize,
}

struct Told<'d> {
    step: Step,
    at: Duration,
    frame: Option<&'d [u8]>,
}

impl<'d> Telling<'d> {
    fn tell(&mut self, datagram: &'d Datagram, said: Said<'d>) {
        let at = datagram.at;
        let sent = self.sent.entry((datagram.ends(), &datagram.octets));
        let (times, last) = sent.or_insert((0, at));
        // An interface "any" shows one packet as often as it passes.
        if *times > 0 && at.saturating_sub(*last) < SAME_PACKET {
            return;
        }
        let repeat = *times;
        (*times, *last) = (repeat + 1, at);
        if let Some(part) = said.part {
            return self.tell_part(datagram, said, &part, repeat);
        }
        let Some((from, targets)) = self.places(datagram, said.speaker) else {
            self.not_drawn += 1;
            return;
        };
        if let Some(frame) = said.frame {
            // The same to one terminal after the other is one step.
            let newest = self.steps.iter_mut().rev();
            let same = newest
                .take_while(|told| at.saturating_sub(told.at) < TOGETHER)
                .find(|told| told.frame == Some(frame));
            if let Some(told) = same
                && told.step.from == from
                && !told.step.to.iter().any(|to| targets.contains(to))
            {
                told.step.to.extend(targets);
                return;
            }
        }
        self.push(datagram, (from, targets), said, repeat);
    }

    fn tell_part(
        &mut self,
        datagram: &'d Datagram,
        said: Said<'d>,
        part: &Part<'d>,
        repeat: usize,
    ) {
        let name = (datagram.ends(), part.whole);
        let whole = self.assembly.add(name.0, part, datagram.tick());
        let place = match self.open.get_mut(&name) {
            Some((place, seen)) if !seen.contains(&part.index) => {
                seen.push(part.index);
                let step = &mut self.steps[*place].step;
                step.octets += datagram.octets.len();
                step.parts = Some((seen.len(), part.count.into()));
                *place
            }
            // A part that was seen begins the message again.
            Some(_) | None => {
                let Some(places) = self.places(datagram, said.speaker) else {
                    self.not_drawn += 1;
                    return;
                };
                let place = self.steps.len();
                self.open.insert(name, (place, vec![part.index]));
                self.push(datagram, places, said, repeat);
                self.steps[place].step.parts = Some((1, part.count.into()));
                place
            }
        };
        if let Some(read) = whole
            .as_deref()
            .and_then(|whole| Message::decode(whole).ok())
            && let Some(whole) = Said::of(&read)
        {
            let step = &mut self.steps[place].step;
            (step.name, step.detail, step.sort) = (whole.name, whole.detail, whole.sort);
        }
    }

    fn push(
        &mut self,
        datagram: &Datagram,
        (from, to): (usize, Vec<usize>),
        said: Said<'d>,
        repeat: usize,
    ) {
        self.steps.push(Told {
            step: Step {
                after: datagram.at.saturating_sub(self.begun),
                from,
                to,
                to_all: goes_to_many(datagram.to.ip()),
                name: said.name,
                detail: said.detail,
                sort: said.sort,
                octets: datagram.octets.len(),
                parts: None,
                repeat,
            },
            at: datagram.at,
            frame: said.frame,
        });
    }

    /// Where it goes from and to, as places in the lifelines; `None` where they are not drawn.
    fn places(&self, datagram: &Datagram, speaker: Role) -> Option<(usize, Vec<usize>)> {
        let of = |address| place_of(&self.lifelines, address);
        let of_role = |role| {
            let all = self.lifelines.iter().enumerate();
            all.filter(move |(_, it)| it.role == role)
        };
        let from = of(datagram.from).or_else(|| {
            // A carrier has a port of its own.
            let mut servers = of_role(Role::Server).filter(|_| speaker == Role::Server);
            let ip = datagram.from.ip();
            let same = servers.clone().find(|(_, it)| it.address.ip() == ip);
            same.or_else(|| servers.next()).map(|(place, _)| place)
        })?;
        let terminals: Vec<_> = of_role(Role::Terminal).map(|(place, _)| place).collect();
        let to = if goes_to_many(datagram.to.ip()) && !terminals.is_empty() {
            terminals
        } else {
            vec![of(datagram.to)?]
        };
        Some((from, to))
    }
}

/// The lifeline of an address; a terminal has more than one port.
fn place_of(lifelines: &[Lifeline], address: SocketAddr) -> Option<usize> {
    let exact = lifelines.iter().position(|it| it.address == address);
    exact.or_else(|| {
        let same = |it: &Lifeline| it.role == Role::Terminal && it.address.ip() == address.ip();
        let mut all = lifelines.iter().enumerate().filter(|(_, it)| same(it));
        let only = all.next().filter(|_| all.next().is_none());
        only.map(|(place, _)| place)
    })
}

fn lifelines(said: &[(&Datagram, Said<'_>)]) -> Vec<Lifeline> {
    // Carriers' ports are not those at which servers are asked.
    let (carried, talked): (Vec<_>, Vec<_>) = said.iter().partition(|(_, said)| said.carried);
    let asked: HashSet<_> = talked.iter().filter_map(|it| server_in(it)).collect();
    let (searches, talked): (Vec<_>, Vec<_>) =
        talked.into_iter().partition(|(_, said)| said.search);
    // What is confirmed elsewhere is collected there.
    let (handed_in, talked): (Vec<_>, Vec<_>) = talked
        .into_iter()
        .partition(|(it, said)| said.collectable && !asked.is_empty() && !asked.contains(&it.to));
    let (mut servers, mut terminals) = (Vec::new(), Vec::new());
    for (datagram, said) in talked {
        // A part does not say who sends it; terminals ask first.
        let answers = asked.contains(&datagram.from) || is_there(&servers, datagram.from);
        let (server, terminal) = if said.speaker == Role::Server || said.part.is_some() && answers {
            (datagram.from, datagram.to)
        } else {
            (datagram.to, datagram.from)
        };
        add(&mut servers, Role::Server, server);
        add(&mut terminals, Role::Terminal, terminal);
    }
    let heard = (servers.len(), terminals.len());
    for (datagram, _) in handed_in {
        for (role, address) in [
            (Role::Terminal, datagram.from),
            (Role::Collector, datagram.to),
        ] {
            if place_of(&terminals, address).is_none() {
                add(&mut terminals, role, address);
            }
        }
    }
    for (datagram, _) in carried {
        let to = datagram.to;
        if heard.0 == 0 {
            add(&mut servers, Role::Server, datagram.from);
        }
        if goes_to_many(to.ip()) {
            if heard.1 == 0 {
                add(&mut terminals, Role::Listeners, to);
            }
        } else if place_of(&terminals, to).is_none() {
            add(&mut terminals, Role::Terminal, to);
        }
    }
    for (datagram, said) in searches {
        // A probe goes to where nobody may be that was heard; an answer comes from wherever it is.
        let asks = said.sort == Sort::Asks;
        let other = if asks { Role::Sought } else { Role::Terminal };
        let (asker, asked) = if asks {
            (datagram.from, datagram.to)
        } else {
            (datagram.to, datagram.from)
        };
        for (role, address) in [(Role::Terminal, asker), (other, asked)] {
            if place_of(&terminals, address).is_none() {
                add(&mut terminals, role, address);
            }
        }
    }
    servers.extend(terminals);
    servers
}

/// The server's address, where the message itself says which end that is.
fn server_in((datagram, said): &(&Datagram, Said<'_>)) -> Option<SocketAddr> {
    let certain = said.part.is_none() && !said.collectable && !said.search;
    certain.then_some(match said.speaker {
        Role::Server => datagram.from,
        Role::Terminal | Role::Collector | Role::Listeners | Role::Sought => datagram.to,
    })
}

fn add(to: &mut Vec<Lifeline>, role: Role, address: SocketAddr) {
    if to.len() < LIFELINES_MAX && !is_there(to, address) {
        to.push(Lifeline { role, address });
    }
}

fn is_there(among: &[Lifeline], address: SocketAddr) -> bool {
    among.iter().any(|it| it.address == address)
}

/// A number with its word, one or several.
pub(super) fn count(number: usize, what: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{number} {what}{many}")
}

fn goes_to_many(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

impl<'d> Said<'d> {
    fn read(octets: &'d [u8]) -> Option<Self> {
        if let Ok(frame) = Unverified::decode(octets) {
            let said = Self::order(frame.command(), false);
            return Some(Self {
                carried: true,
                frame: Some(octets),
                ..said
            });
        }
        if let Ok(record) = UnverifiedRecord::decode(octets) {
            return Some(Self {
                carried: true,
                frame: Some(octets),
                ..Self::record(&record, false)
            });
        }
        if let Ok(one) = Confirmation::decode(octets) {
            let detail = format!("group {}", one.group);
            return Some(Self::confirms(confirmation_name(one.kind), detail));
        }
        if let Ok(bundle) = Bundle::decode(octets) {
            let detail = count(bundle.confirmations.len(), "confirmation");
            return Some(Self::confirms("BUNDLE", detail));
        }
        if let Ok(read) = SearchMessage::decode(octets) {
            return Some(Self::search(&read));
        }
        Self::of(&Message::decode_datagram(octets).ok()?)
    }

    /// `None` for a COMMAND without a command.
    fn of(message: &Message<'d>) -> Option<Self> {
        let name = message.name();
        Some(match message {
            Message::KeyReq { request, cookie } => {
                let cookie = cookie.map_or("", |_| ", with cookie");
                let detail = format!("{}{cookie}", request.suite().name());
                Self::terminal(name, detail, Sort::Asks)
            }
            Message::Cookie { frame, .. } => {
                let detail = frame.map_or("", |_| "with TIME");
                Self::server(name, detail.to_owned(), Sort::Asks)
            }
            Message::KeyDis { distribution, .. } => {
                let suite = match distribution {
                    KeyDis::Psk { suite, .. } | KeyDis::Hpke { suite, .. } => suite.name(),
                    KeyDis::RsaMisty1(_) => "rsa-misty1",
                };
                Self::server(name, suite.to_owned(), Sort::BringsKeys)
            }
            Message::Ack { status, .. } => {
                let detail = status_in_words(*status).to_owned();
                Self::terminal(name, detail, Sort::Confirms)
            }
            Message::Hello { piece, .. } => {
                Self::terminal(name, format!("piece {}", u16::from(*piece) + 1), Sort::Asks)
            }
            Message::Introduction { piece, pieces, .. } => {
                let detail = format!("piece {} of {pieces}", u16::from(*piece) + 1);
                Self::server(name, detail, Sort::Asks)
            }
            Message::Command { frame } => Self {
                frame: Some(frame),
                ..match Unverified::decode(frame) {
                    Ok(read) => Self::order(read.command(), true),
                    Err(_) => Self::record(&UnverifiedRecord::decode(frame).ok()?, true),
                }
            },
            Message::Part(part) => Self {
                part: Some(*part),
                ..Self::terminal(name, String::new(), Sort::Asks)
            },
        })
    }

    /// A signed command, by itself or in a COMMAND.
    fn order(command: &Command, wrapped: bool) -> Self {
        let (mut detail, sort) = match &command.body {
            Body::Stop(halt) => (format!("group {}", halt.group), Sort::Stops),
            Body::Start(halt) => (format!("group {}", halt.group), Sort::Starts),
            Body::KeyDist(it) => {
                let recipients = count(it.recipients().len(), "recipient");
                (recipients, Sort::BringsKeys)
            }
            Body::Renew(it) => (count(it.entries.len(), "key"), Sort::Orders),
            Body::Notify(it) => (count(it.entries.len(), "group"), Sort::Orders),
            Body::Exclude(it) => (count(it.terminals.len(), "terminal"), Sort::Orders),
            Body::KeySet(it) => (format!("version {}", it.version), Sort::Orders),
            Body::Time(_) | Body::Order(_) => {
                (format!("G {}", command.fleet_generation), Sort::Orders)
            }
        };
        if wrapped {
            detail += " · in COMMAND";
        }
        Self::server(command.body.name(), detail, sort)
    }

    fn record(read: &UnverifiedRecord<'_>, wrapped: bool) -> Self {
        let mut detail = format!("of terminal {}", read.record().terminal);
        if wrapped {
            detail += " · in COMMAND";
        }
        Self::server("RECORD", detail, Sort::Orders)
    }

    fn search(read: &SearchMessage<'_>) -> Self {
        let (detail, sort) = match read {
            SearchMessage::Probe(probe) => {
                let groups = count(probe.handles.len(), "group");
                (format!("for {}, {groups}", probe.destination), Sort::Asks)
            }
            SearchMessage::Answer(answer) => {
                let record = UnverifiedRecord::decode(answer.record);
                let who = record.map_or_else(
                    |_| String::new(),
                    |read| format!("of terminal {}, ", read.record().terminal),
                );
                let at = format!("epoch {} generation {}", answer.epoch, answer.generation);
                (format!("{who}{at}"), Sort::Confirms)
            }
        };
        Self {
            search: true,
            ..Self::terminal(read.name(), detail, sort)
        }
    }

    fn confirms(name: &'static str, detail: String) -> Self {
        Self {
            collectable: true,
            ..Self::terminal(name, detail, Sort::Confirms)
        }
    }

    const fn server(name: &'static str, detail: String, sort: Sort) -> Self {
        Self::by(Role::Server, name, detail, sort)
    }

    const fn terminal(name: &'static str, detail: String, sort: Sort) -> Self {
        Self::by(Role::Terminal, name, detail, sort)
    }

    const fn by(speaker: Role, name: &'static str, detail: String, sort: Sort) -> Self {
        Self {
            name,
            detail,
            sort,
            speaker,
            collectable: false,
            search: false,
            carried: false,
            frame: None,
            part: None,
        }
    }
}

/// Steps that are drawn.
const STEPS_MAX: usize = 500;
/// Servers, and terminals, that are drawn.
const LIFELINES_MAX: usize = 24;
/// A copy within this time is the same packet.
const SAME_PACKET: Duration = Duration::from_millis(5);
/// Within this time what goes to several goes to all at once.
const TOGETHER: Duration = Duration::from_millis(20);
const PARTLY_MAX: usize = 1024;
const PARTS_MAX: u8 = 64;
